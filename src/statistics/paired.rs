//! Paired comparisons: resampling of clusters, sign flips, McNemar's test, and corrections for many tests.

use super::{Draws, Interval};

/// Differences that belong together: each cluster's sum and size, in the order in which clusters first occur.
struct Clusters(Vec<(f64, f64)>);

impl Clusters {
    /// `of[i]` is the cluster of `values[i]`; values that are not finite are left out.
    fn new(values: &[f64], of: &[usize]) -> Clusters {
        let mut names: Vec<usize> = Vec::new();
        let mut clusters: Vec<(f64, f64)> = Vec::new();
        for (value, name) in values.iter().zip(of).filter(|(value, _)| value.is_finite()) {
            let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(*name);
                clusters.push((0.0, 0.0));
                names.len() - 1
            });
            clusters[at].0 += value;
            clusters[at].1 += 1.0;
        }
        Clusters(clusters)
    }
}

/// The expanded percentile interval of 95 % (Hesterberg 2015) of a mean over `rounds` resamples of whole clusters with
/// replacement: percentiles further out than 2.5 and 97.5, by what n - 1 and Student's t ask for. Without that an interval
/// from 26 clusters holds the truth 93 times of 100. NaN for fewer than two clusters.
pub fn clustered_bootstrap(values: &[f64], of: &[usize], rounds: usize, seed: u64) -> Interval {
    let clusters = Clusters::new(values, of).0;
    if clusters.len() < 2 {
        return Interval { low: f64::NAN, high: f64::NAN };
    }
    super::bootstrap_tails(clusters.len(), rounds, seed, expanded_tail(clusters.len()), |drawn| {
        let (sum, n) = drawn.iter().fold((0.0, 0.0), |(sum, n), &i| (sum + clusters[i].0, n + clusters[i].1));
        sum / n
    })
}

/// The share of the normal distribution below -sqrt(n / (n - 1)) t, with t the quantile of Student's t for 95 %.
fn expanded_tail(n: usize) -> f64 {
    let (n, degrees) = (n as f64, n as f64 - 1.0);
    // Two-sided p falls with t; fifty halvings of a range that holds every quantile from n = 2 on.
    let (mut low, mut high) = (1.0, 13.0);
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        let is_below = super::student_t_two_sided(middle, degrees) > 0.05;
        (low, high) = if is_below { (middle, high) } else { (low, middle) };
    }
    let z = (n / degrees).sqrt() * low;
    chi_square_1(z * z) / 2.0
}

/// Two-sided p of a mean of 0 when the sign of each cluster is as good as drawn: all signs where there are few clusters,
/// else `rounds` drawn ones with the observed one among them. 1 for no values.
pub fn sign_flip(values: &[f64], of: &[usize], rounds: usize, seed: u64) -> f64 {
    let sums: Vec<f64> = Clusters::new(values, of).0.into_iter().map(|(sum, _)| sum).collect();
    // A sum in another order may differ in its last bits from the one observed.
    let least = sums.iter().sum::<f64>().abs() - 1e-12 * sums.iter().map(|sum| sum.abs()).sum::<f64>();
    let flipped = |bits: &mut dyn FnMut() -> bool| -> f64 {
        sums.iter().map(|sum| if bits() { *sum } else { -*sum }).sum::<f64>().abs()
    };
    if sums.len() < usize::BITS as usize && 1 << sums.len() <= rounds {
        let all = 1usize << sums.len();
        let as_large = (0..all).filter(|pattern| {
            let mut at = 0;
            flipped(&mut || {
                at += 1;
                pattern >> (at - 1) & 1 == 1
            }) >= least
        });
        return as_large.count() as f64 / all as f64;
    }
    let as_large = (0..rounds as u64).filter(|&round| {
        let mut draws = Draws::new(seed, "sign flip", round);
        flipped(&mut || draws.bits() >> 63 == 1) >= least
    });
    (as_large.count() as f64 + 1.0) / (rounds as f64 + 1.0)
}

/// McNemar's test on paired yes and no: `gained` pairs changed one way, `lost` the other. Exact below 25 changed pairs,
/// else chi-square with Edwards' correction. Two-sided p.
pub fn mcnemar(gained: u64, lost: u64) -> f64 {
    let n = gained + lost;
    if n == 0 {
        return 1.0;
    }
    if n < 25 {
        let mut choose = 1.0;
        let mut tail = 0.0;
        for k in 0..=gained.min(lost) {
            tail += choose;
            choose *= (n - k) as f64 / (k + 1) as f64;
        }
        return (2.0 * tail / 2f64.powi(n as i32)).min(1.0);
    }
    let distance = (gained.abs_diff(lost) as f64 - 1.0).max(0.0);
    chi_square_1(distance * distance / n as f64)
}

/// P(X >= x) for chi-square with one degree of freedom: erfc(sqrt(x / 2)), by its series below 4 and its continued
/// fraction (DLMF 7.9.1) above.
pub fn chi_square_1(x: f64) -> f64 {
    let z = (x.max(0.0) / 2.0).sqrt();
    let front = (-z * z).exp() / std::f64::consts::PI.sqrt();
    if z < 2.0 {
        let (mut term, mut sum) = (z, z);
        for k in 1..200 {
            term *= 2.0 * z * z / (2.0 * f64::from(k) + 1.0);
            sum += term;
        }
        return 1.0 - 2.0 * front * sum;
    }
    let mut fraction = z;
    for k in (1..200).rev() {
        fraction = z + f64::from(k) / 2.0 / fraction;
    }
    front / fraction
}

/// Holm's adjusted p (Holm 1979), in the order of `p`: the family-wise error stays below what they are compared with.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]).then(a.cmp(&b)));
    let mut adjusted = vec![0.0; p.len()];
    let mut least: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        least = least.max(((p.len() - rank) as f64 * p[i]).min(1.0));
        adjusted[i] = least;
    }
    adjusted
}

/// Benjamini and Hochberg's adjusted p (1995), in the order of `p`: the share of false finds among all finds.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(b.cmp(&a)));
    let mut adjusted = vec![0.0; p.len()];
    let mut most: f64 = 1.0;
    for (from_top, &i) in order.iter().enumerate() {
        most = most.min(p.len() as f64 / (p.len() - from_top) as f64 * p[i]);
        adjusted[i] = most;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::super::paired_golden::*;
    use super::super::{mean, standard_deviation};
    use super::*;

    #[track_caller]
    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= 1e-10 * wanted.abs().max(1e-3), "{found} is not {wanted}");
    }

    #[test]
    fn mcnemar_equals_statsmodels() {
        for (gained, lost, p) in MCNEMAR {
            close(mcnemar(gained, lost), p);
            close(mcnemar(lost, gained), p);
        }
        assert_eq!(mcnemar(0, 0), 1.0);
    }

    #[test]
    fn chi_square_equals_scipy() {
        for (x, p) in CHI_SQUARE {
            assert!((chi_square_1(x) / p - 1.0).abs() < 1e-9, "{x}: {} is not {p}", chi_square_1(x));
        }
        assert_eq!(chi_square_1(0.0), 1.0);
    }

    #[test]
    fn corrections_equal_statsmodels() {
        for (found, wanted) in holm(&P).into_iter().zip(HOLM) {
            close(found, wanted);
        }
        for (found, wanted) in benjamini_hochberg(&P).into_iter().zip(HOCHBERG) {
            close(found, wanted);
        }
        assert!(holm(&[]).is_empty() && benjamini_hochberg(&[]).is_empty());
    }

    #[test]
    fn all_sign_flips_equal_scipy() {
        let own: Vec<usize> = (0..FLIPPED.len()).collect();
        close(sign_flip(&FLIPPED, &own, 1 << 12, 1), FLIPPED_P);
        // Two clusters: (+,+), (-,-) reach the observed sum, so p is a half.
        let halves: Vec<usize> = (0..FLIPPED.len()).map(|i| usize::from(i > 3)).collect();
        close(sign_flip(&FLIPPED, &halves, 1 << 12, 1), 0.5);
        let drawn = sign_flip(&FLIPPED, &own, 200, 1);
        assert!((drawn - FLIPPED_P).abs() < 0.05, "{drawn}");
        assert_eq!(sign_flip(&[], &[], 100, 1), 1.0);
        assert_eq!(sign_flip(&[0.0; 30], &(0..30).collect::<Vec<_>>(), 100, 1), 1.0);
    }

    #[test]
    fn few_clusters_ask_for_tails_further_out() {
        // scipy: norm.cdf(-sqrt(n / (n - 1)) * t.ppf(.975, n - 1)).
        for (n, tail) in TAILS {
            close(expanded_tail(n), tail);
        }
    }

    #[test]
    fn clusters_widen_the_interval_by_what_they_share() {
        // Every value stands five times: as five clusters of one value the interval is that of the values themselves.
        let mut draws = Draws::new(2, "test", 0);
        let values: Vec<f64> = (0..60).map(|_| draws.normal()).collect();
        let repeated: Vec<f64> = values.iter().flat_map(|value| [*value; 5]).collect();
        let together: Vec<usize> = (0..repeated.len()).map(|i| i / 5).collect();
        let apart: Vec<usize> = (0..repeated.len()).collect();
        let width = |of: &[usize]| {
            let interval = clustered_bootstrap(&repeated, of, 2000, 5);
            interval.high - interval.low
        };
        let expected = 2.0 * super::super::Z_95 * standard_deviation(&values) / 60f64.sqrt() * 1.02;
        assert!((width(&together) / expected - 1.0).abs() < 0.1, "{}", width(&together));
        assert!((width(&apart) / (expected / 5f64.sqrt()) - 1.0).abs() < 0.1, "{}", width(&apart));
        let interval = clustered_bootstrap(&repeated, &together, 2000, 5);
        assert!(interval.low < mean(&values) && mean(&values) < interval.high);
        assert!(clustered_bootstrap(&[], &[], 10, 1).low.is_nan());
        let with_invalid = clustered_bootstrap(&[1.0, f64::NAN, 1.0], &[0, 1, 2], 50, 1);
        assert_eq!((with_invalid.low, with_invalid.high), (1.0, 1.0));
    }
}
