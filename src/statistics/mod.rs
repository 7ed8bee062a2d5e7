//! Intervals and tests on slices of numbers: mean, spread, median, correlation, line, Wilson's interval, Student's t, bootstrap
//! and the draws for it. `paired` compares two conditions on the same items.

mod paired;
#[cfg(test)]
mod paired_golden;

pub use paired::{benjamini_hochberg, chi_square_1, clustered_bootstrap, holm, mcnemar, sign_flip};

/// An interval for a proportion or a mean, both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// The normal quantile of a two-sided interval of 95 %.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// Arithmetic mean; NaN for no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// `value` with so many decimals, as a report gives it.
pub fn rounded(value: f64, decimals: i32) -> f64 {
    let unit = 10f64.powi(decimals);
    (value * unit).round() / unit
}

/// Sample standard deviation (divisor n - 1); NaN for fewer than two values.
pub fn standard_deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

/// Middle value, or the mean of the two middle ones; NaN for no values.
pub fn median(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let half = sorted.len() / 2;
    match (sorted.get(half), sorted.len().is_multiple_of(2)) {
        (None, _) => f32::NAN,
        (Some(&upper), true) => (sorted[half - 1] + upper) / 2.0,
        (Some(&middle), false) => middle,
    }
}

/// Wilson's score interval for `hits` of `n` (Wilson 1927), without continuity correction; `z` is the normal quantile
/// ([`Z_95`]). The whole of 0 to 1 for n = 0.
pub fn wilson(hits: u64, n: u64, z: f64) -> Interval {
    if n == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (p, n) = (hits as f64 / n as f64, n as f64);
    let scale = 1.0 / (1.0 + z * z / n);
    let centre = (p + z * z / (2.0 * n)) * scale;
    let half = z * scale * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    Interval { low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
}

/// Student's t test of a mean against 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TTest {
    pub mean: f64,
    /// `mean / (sd / sqrt(n))`.
    pub t: f64,
    pub degrees: f64,
    /// Two-sided; 1 where there are fewer than two values or no spread and no mean.
    pub p: f64,
}

/// Tests whether the mean of `differences` is 0. For paired values pass their differences.
pub fn t_test(differences: &[f64]) -> TTest {
    let (mean, degrees) = (mean(differences), differences.len() as f64 - 1.0);
    let t = mean / (standard_deviation(differences) / (differences.len() as f64).sqrt());
    let p = if t.is_nan() { 1.0 } else { student_t_two_sided(t, degrees) };
    TTest { mean, t, degrees, p }
}

/// P(|T| >= |t|) for Student's t with `degrees` of freedom: the regularised incomplete beta function
/// I_x(degrees / 2, 1 / 2) at x = degrees / (degrees + t^2).
pub fn student_t_two_sided(t: f64, degrees: f64) -> f64 {
    if t.is_infinite() {
        return 0.0;
    }
    incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t))
}

/// The regularised incomplete beta function I_x(a, b) for a, b > 0 and 0 <= x <= 1.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let log_front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln();
    // The continued fraction converges fast below the mean of the distribution; above it the mirrored one does.
    if x < (a + 1.0) / (a + b + 2.0) {
        log_front.exp() * beta_fraction(a, b, x) / a
    } else {
        1.0 - log_front.exp() * beta_fraction(b, a, 1.0 - x) / b
    }
}

/// The continued fraction of the incomplete beta function (DLMF 8.17.22), evaluated by Lentz's method.
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let tiny = 1e-300;
    let guard = |value: f64| if value.abs() < tiny { tiny } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / guard(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..=500 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for coefficient in [even, odd] {
            d = 1.0 / guard(1.0 + coefficient * d);
            c = guard(1.0 + coefficient / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    fraction
}

/// Natural logarithm of the gamma function for x > 0: Stirling's series after shifting x to at least 10.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series = (1.0 / 12.0
        - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0))))
        / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series + shift
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a number whose bits all depend on all of `z`'s.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A reproducible stream of draws: SplitMix64 (Steele, Lea and Flood 2014). Not for secrets.
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// A stream of its own for each purpose and index under one seed.
    pub fn new(seed: u64, purpose: &str, index: u64) -> Draws {
        let mut draws = Draws(seed);
        for part in purpose.bytes().map(u64::from).chain([index]) {
            draws.0 = draws.bits() ^ part;
        }
        draws
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// An index below `n` (n > 0); the bias is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.uniform()).cos()
    }

    /// `count` different indices below `n` (all of them where `count` is larger), in drawn order.
    pub fn sample(&mut self, n: usize, count: usize) -> Vec<usize> {
        let mut indices: Vec<usize> = (0..n).collect();
        for i in 0..count.min(n) {
            let other = i + self.below(n - i);
            indices.swap(i, other);
        }
        indices.truncate(count);
        indices
    }
}

/// Pearson's correlation; NaN where one side has no spread.
pub fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (x, y) = (x - mean_x, y - mean_y);
        (xy, xx, yy) = (xy + x * y, xx + x * x, yy + y * y);
    }
    xy / (xx * yy).sqrt()
}

/// Least squares of `y` on `x`: slope and intercept. A constant `x` gives the mean.
pub fn line(x: &[f64], y: &[f64]) -> (f64, f64) {
    let (mean_x, mean_y) = (mean(x), mean(y));
    let xx: f64 = x.iter().map(|x| (x - mean_x) * (x - mean_x)).sum();
    let xy: f64 = x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let slope = if xx > 0.0 { xy / xx } else { 0.0 };
    (slope, mean_y - slope * mean_x)
}

/// The percentile interval of 95 % of `statistic` over `rounds` resamples of `n` units with replacement (Efron 1979). The
/// statistic gets the drawn units' indices.
pub fn bootstrap(n: usize, rounds: usize, seed: u64, statistic: impl Fn(&[usize]) -> f64) -> Interval {
    bootstrap_tails(n, rounds, seed, 0.025, statistic)
}

/// The same between the percentiles `tail` and 1 - `tail`.
fn bootstrap_tails(
    n: usize,
    rounds: usize,
    seed: u64,
    tail: f64,
    statistic: impl Fn(&[usize]) -> f64,
) -> Interval {
    let mut values: Vec<f64> = (0..rounds as u64)
        .map(|round| {
            let mut draws = Draws::new(seed, "bootstrap", round);
            statistic(&(0..n).map(|_| draws.below(n)).collect::<Vec<_>>())
        })
        .filter(|value| value.is_finite())
        .collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (share * (values.len().max(1) - 1) as f64).round() as usize;
        values.get(index).copied().unwrap_or(f64::NAN)
    };
    Interval { low: at(tail), high: at(1.0 - tail) }
}

#[cfg(test)]
mod tests {
    //! Reference figures: scipy 1.17.1 (`stats.t.sf`, `stats.ttest_1samp`, `stats.ttest_rel`,
    //! `stats.binomtest(..).proportion_ci(method="wilson")`, `special.betainc`, `special.gammaln`).

    use super::*;

    #[track_caller]
    fn close(found: f64, wanted: f64) {
        let difference = (found - wanted).abs();
        assert!(difference <= 1e-10 * wanted.abs().max(1e-3), "{found} is not {wanted}");
    }

    const X: [f64; 7] = [0.12, 0.3, -0.05, 0.22, 0.4, 0.18, 0.09];
    const Y: [f64; 7] = [0.02, 0.35, -0.15, 0.2, 0.1, 0.12, 0.1];

    #[test]
    fn moments_and_median() {
        close(mean(&X), 0.18);
        close(standard_deviation(&X), 0.1466287829861518);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan() && mean(&[]).is_nan());
        assert_eq!([4, 0, 6].map(|decimals| rounded(-2.345678912, decimals)), [-2.3457, -2.0, -2.345679]);
        assert!(rounded(f64::NAN, 4).is_nan());
    }

    #[test]
    fn t_distribution() {
        for (t, degrees, p) in [
            (0.0, 5.0, 1.0),
            (1.0, 1.0, 0.5),
            (2.5, 19.0, 0.02174041116839744),
            (-2.5, 19.0, 0.02174041116839744),
            (0.3, 3.5, 0.7811334098398895),
            (1e-3, 100.0, 0.9992041077601035),
        ] {
            close(student_t_two_sided(t, degrees), p);
        }
        for (t, degrees, p) in [(8.0, 23.0, 4.289191519676225e-08), (40.0, 10.0, 2.2808577430857535e-12)] {
            let found = student_t_two_sided(t, degrees);
            assert!((found / p - 1.0).abs() < 1e-9, "{found} is not {p}");
        }
        assert_eq!(student_t_two_sided(f64::INFINITY, 3.0), 0.0);
    }

    #[test]
    fn t_tests() {
        let one = t_test(&X);
        close(one.t, 3.247897352026742);
        close(one.p, 0.01751246439871992);
        let differences: Vec<f64> = X.iter().zip(Y).map(|(x, y)| x - y).collect();
        let paired = t_test(&differences);
        close(paired.t, 1.7240990127144935);
        close(paired.p, 0.1354550621836265);
        assert_eq!(t_test(&[]).p, 1.0);
        assert_eq!(t_test(&[0.0, 0.0]).p, 1.0);
    }

    #[test]
    fn wilson_intervals() {
        for (hits, n, low, high) in [
            (0, 10, 0.0, 0.27753279986288926),
            (10, 10, 0.7224672001371109, 1.0),
            (7, 20, 0.1811918241010821, 0.5671457233147637),
            (500, 1000, 0.4690696003681042, 0.5309303996318958),
            (1, 3, 0.06149194472039626, 0.7923403991979523),
        ] {
            let interval = wilson(hits, n, Z_95);
            close(interval.low, low);
            close(interval.high, high);
        }
        assert_eq!(wilson(0, 0, Z_95), Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn special_functions() {
        for (a, b, x, value) in [
            (0.5, 0.5, 0.3, 0.36901011956554536),
            (2.0, 3.0, 0.6, 0.8208),
            (10.0, 0.5, 0.99, 0.6579281751567845),
            (50.0, 60.0, 0.4, 0.12470685834310022),
            (0.5, 9.5, 1e-4, 0.03431484571431744),
        ] {
            close(incomplete_beta(a, b, x), value);
        }
        for (x, value) in [
            (0.5, 0.5723649429247),
            (1.0, 0.0),
            (3.3, 0.9870985778947343),
            (10.0, 12.801827480081469),
            (101.5, 366.0456981952767),
        ] {
            close(ln_gamma(x), value);
        }
    }

    #[test]
    fn draws_are_uniform_and_reproducible() {
        let mut draws = Draws::new(7, "test", 1);
        assert_eq!(draws.bits(), Draws::new(7, "test", 1).bits());
        assert_ne!(Draws::new(7, "test", 2).bits(), Draws::new(7, "other", 1).bits());
        let values: Vec<f64> = (0..10_000).map(|_| draws.uniform()).collect();
        assert!((mean(&values) - 0.5).abs() < 0.01);
        let values: Vec<f64> = (0..10_000).map(|_| draws.normal()).collect();
        assert!(mean(&values).abs() < 0.03 && (standard_deviation(&values) - 1.0).abs() < 0.03);
        let mut sample = draws.sample(9, 20);
        sample.sort_unstable();
        assert_eq!(sample, (0..9).collect::<Vec<_>>());
        assert_eq!(draws.sample(9, 4).len(), 4);
    }

    #[test]
    fn the_bootstrap_agrees_with_the_normal_interval() {
        let mut draws = Draws::new(1, "test", 0);
        let values: Vec<f64> = (0..400).map(|_| draws.normal()).collect();
        let interval = bootstrap(400, 2000, 3, |drawn| drawn.iter().map(|i| values[*i]).sum::<f64>() / 400.0);
        let half = Z_95 * standard_deviation(&values) / 20.0;
        assert!((interval.low - (mean(&values) - half)).abs() < 0.01, "{interval:?}");
        assert!((interval.high - (mean(&values) + half)).abs() < 0.01, "{interval:?}");
    }

    #[test]
    fn correlations() {
        assert!((correlation(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]) - 1.0).abs() < 1e-12);
        assert!((correlation(&[1.0, 2.0, 3.0], &[1.0, 0.0, 1.0])).abs() < 1e-12);
        assert!(correlation(&[1.0, 1.0], &[1.0, 2.0]).is_nan());
    }

    #[test]
    fn lines() {
        assert_eq!(line(&[0.0, 1.0, 2.0], &[1.0, 3.0, 5.0]), (2.0, 1.0));
        assert_eq!(line(&[1.0, 1.0], &[1.0, 3.0]), (0.0, 2.0));
    }
}
