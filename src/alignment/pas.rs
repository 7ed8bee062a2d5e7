//! The published activation search (Zhu et al., ICLR 2025, arXiv 2408.11779): probes on heads, a direction for each of the
//! best ones.
//!
//! For each item two continuations, the form's first option (agree) and its last (disagree). A person who agreed labels
//! them 1 and 0, one who disagreed 0 and 1. A logistic regression per head on 60 % of the items, scored on the other 40 %,
//! ranks the heads; each of the best 24 gets the direction from the mean of label 0 to the mean of label 1, as long as the
//! spread of the activations along it. The split is by item, not by point: both continuations of an item share it.

use crate::algebra::Square;
use crate::statistics::Draws;

/// Heads that are moved.
pub const HEADS: usize = 24;
/// Share of items that probes are fitted on.
const FITTED: f64 = 0.6;
/// Newton's iteration ends when no coefficient moves by more.
const TOLERANCE: f64 = 1e-10;
const ROUNDS_MAX: usize = 100;

/// What heads say behind each item, `[items, 2, n_heads_all, d_head]`; heads are counted over all blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct Activations {
    pub heads: usize,
    pub d_head: usize,
    pub values: Vec<f32>,
}

impl Activations {
    pub fn of(&self, item: usize, side: usize, head: usize) -> &[f32] {
        let at = ((item * 2 + side) * self.heads + head) * self.d_head;
        &self.values[at..][..self.d_head]
    }
}

/// One head's probe and direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Over all blocks: block * n_heads + head.
    pub head: usize,
    /// Mean of the accuracies on the fitted and on the other items.
    pub score: f64,
    /// Accuracy on the other items alone.
    pub held_out: f64,
    /// `[d_head]`, unit length.
    pub direction: Vec<f64>,
    /// Standard deviation (divisor n) of the activations along it.
    pub sigma: f64,
}

/// The search's result for one person.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The best heads, best first; of equal scores the lower head first.
    pub heads: Vec<Head>,
    /// Score of every head.
    pub scores: Vec<f64>,
}

/// An item and whether the person agreed.
pub type Labelled = (usize, bool);

/// Items that probes are fitted on, and those that they are only scored on.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub fitted: Vec<Labelled>,
    pub others: Vec<Labelled>,
}

impl Split {
    /// In a seeded order.
    pub fn drawn(labelled: &[Labelled], seed: u64) -> Split {
        let order = Draws::new(seed, "probe split", 0).sample(labelled.len(), labelled.len());
        let fitted = (FITTED * labelled.len() as f64) as usize;
        let part = |range: &[usize]| range.iter().map(|&i| labelled[i]).collect();
        Split { fitted: part(&order[..fitted]), others: part(&order[fitted..]) }
    }
}

/// Probes every head on a split and finds the directions of the best ones on all labelled items.
pub fn search(activations: &Activations, split: &Split, keep: usize) -> Found {
    let Split { fitted, others } = split;
    let probed: Vec<(f64, f64)> = (0..activations.heads)
        .map(|head| {
            let (x, y) = points(activations, fitted, head);
            let weights = probe(&x, &y);
            let held_out = points(activations, others, head);
            let held_out = accuracy(&weights, &held_out.0, &held_out.1);
            ((accuracy(&weights, &x, &y) + held_out) / 2.0, held_out)
        })
        .collect();
    let mut order: Vec<usize> = (0..activations.heads).collect();
    order.sort_by(|a, b| probed[*b].0.total_cmp(&probed[*a].0).then(a.cmp(b)));
    let mut all = [&fitted[..], &others[..]].concat();
    all.sort_unstable();
    let heads = order.into_iter().take(keep).map(|head| {
        let (direction, sigma) = direction(activations, &all, head);
        Head { head, score: probed[head].0, held_out: probed[head].1, direction, sigma }
    });
    Found { heads: heads.collect(), scores: probed.iter().map(|(score, _)| *score).collect() }
}

/// Both continuations of each item with their labels.
fn points<'a>(
    activations: &'a Activations,
    labelled: &[Labelled],
    head: usize,
) -> (Vec<&'a [f32]>, Vec<bool>) {
    let of = |&(item, agreed): &Labelled| {
        [(activations.of(item, 0, head), agreed), (activations.of(item, 1, head), !agreed)]
    };
    labelled.iter().flat_map(of).unzip()
}

/// Logistic regression with an L2 penalty of 1/2 on the weights and none on the intercept (scikit-learn's objective at
/// C = 1), by Newton's method. The intercept is the last value.
pub fn probe(x: &[&[f32]], y: &[bool]) -> Vec<f64> {
    let d = x.first().map_or(0, |row| row.len());
    let rows: Vec<Vec<f64>> =
        x.iter().map(|row| row.iter().map(|x| f64::from(*x)).chain([1.0]).collect()).collect();
    let mut weights = vec![0.0; d + 1];
    for _ in 0..ROUNDS_MAX {
        let mut gradient: Vec<f64> =
            weights.iter().enumerate().map(|(i, w)| if i < d { *w } else { 0.0 }).collect();
        let mut hessian = vec![0.0; (d + 1) * (d + 1)];
        for (row, label) in rows.iter().zip(y) {
            let odds: f64 = row.iter().zip(&weights).map(|(x, w)| x * w).sum();
            let p = 1.0 / (1.0 + (-odds).exp());
            let (error, spread) = (p - f64::from(u8::from(*label)), p * (1.0 - p));
            for i in 0..=d {
                gradient[i] += error * row[i];
                let factor = spread * row[i];
                for j in 0..=i {
                    hessian[i * (d + 1) + j] += factor * row[j];
                }
            }
        }
        let curved = Square::new(d + 1, |i, j| {
            let own = if i == j && i < d { 1.0 } else { 0.0 };
            hessian[i.max(j) * (d + 1) + i.min(j)] + own
        });
        let Some(step) = curved.solve(&gradient) else { break };
        weights.iter_mut().zip(&step).for_each(|(w, step)| *w -= step);
        if step.iter().all(|step| step.abs() < TOLERANCE) {
            break;
        }
    }
    weights
}

fn accuracy(weights: &[f64], x: &[&[f32]], y: &[bool]) -> f64 {
    let right = x.iter().zip(y).filter(|(row, label)| {
        let odds: f64 = row.iter().zip(weights).map(|(x, w)| f64::from(*x) * w).sum();
        (odds + weights[row.len()] > 0.0) == **label
    });
    right.count() as f64 / y.len().max(1) as f64
}

/// From the mean of label 0 to the mean of label 1, unit length, and the spread along it.
fn direction(activations: &Activations, labelled: &[Labelled], head: usize) -> (Vec<f64>, f64) {
    let (x, y) = points(activations, labelled, head);
    let n = y.len().max(1) as f64 / 2.0;
    let mut direction = vec![0.0; activations.d_head];
    for (row, label) in x.iter().zip(&y) {
        let sign = if *label { 1.0 } else { -1.0 };
        direction.iter_mut().zip(*row).for_each(|(sum, x)| *sum += sign * f64::from(*x) / n);
    }
    let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length > 0.0 {
        direction.iter_mut().for_each(|x| *x /= length);
    }
    let along: Vec<f64> =
        x.iter().map(|row| row.iter().zip(&direction).map(|(x, d)| f64::from(*x) * d).sum()).collect();
    let mean = crate::statistics::mean(&along);
    let variance = along.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / along.len().max(1) as f64;
    (direction, variance.sqrt())
}

/// The constants of all heads, `[heads * d_head]`: sigma times the direction for those found.
pub fn constants(found: &Found, heads: usize, d_head: usize) -> Vec<f64> {
    let mut constants = vec![0.0; heads * d_head];
    for head in &found.heads {
        let own = &mut constants[head.head * d_head..][..d_head];
        own.iter_mut().zip(&head.direction).for_each(|(constant, x)| *constant = head.sigma * x);
    }
    constants
}
