//! The model to first order: how all answers change with constants, and which constants bring them where they are wanted.

use super::gradients::Gradients;
use super::ridge;
use crate::algebra::{Square, dot};

/// Answers as a linear function of constants, `plain + slope * gradients * constants`.
#[derive(Clone, Debug)]
pub struct Linear {
    gradients: Gradients,
    /// Items that readout and kernel are scaled by.
    known: Vec<usize>,
    /// Answers without a plan, not held to the scale.
    pub plain: Vec<f64>,
    /// Of answers by signals.
    slope: f64,
    /// First block that ridge moves.
    first_block: usize,
    /// Products of the gradients of the blocks that ridge moves, of mean diagonal 1 over the known items.
    pub kernel: Square,
    /// What the kernel was divided by.
    unit: f64,
}

/// Constants for what was wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    pub constants: Vec<f64>,
    pub lambda: f64,
    /// Before the cap, and the cap's factor.
    pub norm: f64,
    pub scale: f64,
}

impl Linear {
    pub fn new(
        gradients: Gradients,
        known: Vec<usize>,
        plain: Vec<f64>,
        slope: f64,
        first_block: usize,
    ) -> Linear {
        let from = first_block * gradients.width;
        let rows: Vec<&[f32]> = (0..gradients.items()).map(|item| &gradients.of(item)[from..]).collect();
        let raw = Square::of_products(&rows);
        let unit = known.iter().map(|&i| dot(rows[i], rows[i])).sum::<f64>() / known.len().max(1) as f64;
        let unit = if unit > 0.0 { unit } else { 1.0 };
        let kernel = Square::new(raw.size(), |i, j| raw.at(i, j) / unit);
        Linear { gradients, known, plain, slope, first_block, kernel, unit }
    }

    pub fn first_block(&self) -> usize {
        self.first_block
    }

    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// Ridge, step by step: each list of wanted answers (item and value) starts from where the one before it ended; the
    /// sum is held to the norm `cap`. The penalty is the last one's.
    pub fn solve(&self, wanted: &[Vec<(usize, f64)>], cap: f64) -> Solution {
        let mut weights = vec![0.0; self.plain.len()];
        let mut lambda = f64::INFINITY;
        for wanted in wanted {
            let started = self.moved(&weights);
            let items: Vec<usize> = wanted.iter().map(|(item, _)| *item).collect();
            let residuals: Vec<f64> = wanted.iter().map(|(item, value)| value - started[*item]).collect();
            let fit = ridge::fit(&self.kernel.part(&items), &residuals);
            items.iter().zip(&fit.coefficients).for_each(|(&item, a)| weights[item] += a);
            lambda = fit.lambda;
        }
        let mut constants = self.constants(&weights);
        let norm = length(&constants);
        let scale = (cap / norm.max(1e-12)).min(1.0);
        constants.iter_mut().for_each(|value| *value *= scale);
        Solution { constants, lambda, norm, scale }
    }

    /// Answers where every item's gradient is added by its weight.
    fn moved(&self, weights: &[f64]) -> Vec<f64> {
        self.kernel.times(weights).iter().zip(&self.plain).map(|(change, plain)| plain + change).collect()
    }

    /// Constants that change the answers by `kernel * weights`.
    pub fn constants(&self, weights: &[f64]) -> Vec<f64> {
        let from = self.first_block * self.gradients.width;
        let mut constants = vec![0.0; self.gradients.n_blocks * self.gradients.width];
        let factor = 1.0 / (self.unit * self.slope);
        for (item, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
            let own = &self.gradients.of(item)[from..];
            let sums = constants[from..].iter_mut().zip(own);
            sums.for_each(|(sum, g)| *sum += factor * weight * f64::from(*g));
        }
        constants
    }

    /// Change of an item's answer.
    pub fn change(&self, constants: &[f64], item: usize) -> f64 {
        let own = self.gradients.of(item);
        let product: f64 = own.iter().zip(constants).map(|(g, v)| f64::from(*g) * v).sum();
        self.slope * product
    }

    /// All answers, not held to the scale.
    pub fn predicted(&self, constants: &[f64]) -> Vec<f64> {
        (0..self.plain.len()).map(|item| self.plain[item] + self.change(constants, item)).collect()
    }

    /// The direction in the upper third of the blocks that moves all answers alike, unit length, and by how much the mean
    /// answer over the known items moves along it.
    pub fn common(&self) -> (Vec<f64>, f64) {
        let Gradients { n_blocks, width, .. } = self.gradients;
        let from = n_blocks * 2 / 3 * width;
        let mut mean = vec![0.0; n_blocks * width];
        for &item in &self.known {
            let own = &self.gradients.of(item)[from..];
            let sums = mean[from..].iter_mut().zip(own);
            sums.for_each(|(sum, g)| *sum += f64::from(*g) / self.known.len() as f64);
        }
        let norm = length(&mean).max(1e-12);
        mean.iter_mut().for_each(|value| *value /= norm);
        let moved: f64 = self.known.iter().map(|&item| self.change(&mean, item)).sum();
        (mean, moved / self.known.len().max(1) as f64)
    }
}

pub fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alignment::pas::{self, Activations};
    use crate::model::Place;
    use serde::Deserialize;

    /// Written by `scripts/reference_alignment.py fixture`.
    #[derive(Deserialize)]
    struct Fixture {
        shape: [usize; 3],
        gradients: Vec<f32>,
        known: Vec<usize>,
        plain: Vec<f64>,
        norms: Vec<f64>,
        answers: Vec<u8>,
        first_block: usize,
        slope: f64,
        cap: f64,
        ridge: Ridge,
        heads: usize,
        d_head: usize,
        activations: Vec<f32>,
        labelled: Vec<(usize, bool)>,
        fitted: usize,
        search: Search,
    }

    #[derive(Deserialize)]
    struct Ridge {
        constants: Vec<f64>,
        lambda: f64,
        norm: f64,
    }

    #[derive(Deserialize)]
    struct Search {
        scores: Vec<f64>,
        heads: Vec<usize>,
        directions: Vec<Vec<f64>>,
        sigmas: Vec<f64>,
    }

    fn fixture() -> Fixture {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/alignment.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn near(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-6 * b.abs().max(1.0), "{a} {b}");
        }
    }

    fn linear(fixture: &Fixture) -> Linear {
        let [_, n_blocks, width] = fixture.shape;
        let gradients = Gradients { place: Place::Heads, n_blocks, width, values: fixture.gradients.clone() };
        let (known, plain) = (fixture.known.clone(), fixture.plain.clone());
        Linear::new(gradients, known, plain, fixture.slope, fixture.first_block)
    }

    #[test]
    fn ridge_equals_numpy() {
        let fixture = fixture();
        let linear = linear(&fixture);
        let norms = fixture.known.iter().map(|&i| (i, fixture.norms[i])).collect();
        let answers = fixture.answers.iter().enumerate().filter(|(_, answer)| **answer > 0);
        let answers = answers.map(|(i, answer)| (i, f64::from(*answer))).collect();
        let found = linear.solve(&[norms, answers], fixture.cap);
        near(&found.constants, &fixture.ridge.constants);
        near(&[found.lambda, found.norm], &[fixture.ridge.lambda, fixture.ridge.norm]);
        near(&[length(&found.constants)], &[fixture.cap]);
        let moved = linear.predicted(&found.constants);
        assert!(moved.iter().zip(&fixture.plain).all(|(moved, plain)| moved != plain));
        assert_eq!(found.constants[..fixture.shape[2]], [0.0; 4], "the first block is left alone");
    }

    #[test]
    fn the_published_search_equals_scikit_learn() {
        let fixture = fixture();
        let (heads, d_head) = (fixture.heads, fixture.d_head);
        let activations = Activations { heads, d_head, values: fixture.activations };
        let (fitted, others) = fixture.labelled.split_at(fixture.fitted);
        let split = pas::Split { fitted: fitted.to_vec(), others: others.to_vec() };
        let found = pas::search(&activations, &split, fixture.search.heads.len());
        near(&found.scores, &fixture.search.scores);
        let of = |part: fn(&pas::Head) -> f64| found.heads.iter().map(part).collect::<Vec<f64>>();
        assert_eq!(found.heads.iter().map(|head| head.head).collect::<Vec<_>>(), fixture.search.heads);
        near(&of(|head| head.sigma), &fixture.search.sigmas);
        for (head, direction) in found.heads.iter().zip(&fixture.search.directions) {
            near(&head.direction, direction);
        }
        let constants = pas::constants(&found, heads, d_head);
        let moved = constants.chunks(d_head).filter(|head| head.iter().any(|x| *x != 0.0));
        assert_eq!(moved.count(), fixture.search.heads.len());
    }

    /// The common direction moves the mean as it says and leaves the lower two thirds alone.
    #[test]
    fn what_all_answers_share() {
        let fixture = fixture();
        let linear = linear(&fixture);
        let (common, slope) = linear.common();
        near(&[length(&common)], &[1.0]);
        let moved: f64 = fixture.known.iter().map(|&item| linear.change(&common, item)).sum();
        near(&[moved / 10.0], &[slope]);
        let width = fixture.shape[2];
        assert!(
            common[..2 * width].iter().all(|x| *x == 0.0) && common[2 * width..].iter().all(|x| *x != 0.0)
        );
    }
}
