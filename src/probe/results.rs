//! From values to results: paired differences, their intervals, tests, and the controls beside them.

use super::arms::{NEUTRAL, PERSONA, PLAIN, PLAN, PROMPT, RANDOM, SOFT};
use super::aspects::{ASPECTS, Aspect};
use super::runner::ArmScores;
use super::suites::Suite;
use crate::limits::PROBE_ROUNDS;
use crate::statistics::{Interval, clustered_bootstrap, holm, mean, sign_flip};

/// A mean of paired differences with its interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    pub value: f64,
    pub interval: Interval,
}

/// One aspect of a persona.
#[derive(Clone)]
pub struct AspectResult {
    pub aspect: &'static Aspect,
    /// Items that all of plain, prompt and persona gave a value for.
    pub n: usize,
    /// Items with an invalid output under one of them.
    pub invalid: usize,
    /// Means over the `n` items.
    pub persona: f64,
    pub plain: f64,
    pub prompt: Option<f64>,
    /// Persona minus plain.
    pub difference: Difference,
    /// Persona minus the same system text without plan and soft prompt; `None` where it has neither.
    pub against_prompt: Option<Difference>,
    /// The plan with shuffled signs, against the same system text without a plan.
    pub random: Option<Difference>,
    /// Smallest and largest mean difference of a neutral paraphrase from plain.
    pub neutral: Option<Interval>,
    /// Of the difference from plain, by sign flips of whole clusters.
    pub p: f64,
    /// The same, corrected for the number of aspects.
    pub p_holm: f64,
    /// One difference from plain per part: prompt, plan, soft prompt, all; empty unless asked for.
    pub parts: Vec<(&'static str, Difference)>,
    /// Indices of the items with the largest rise against the nearest comparison (the prompt, else plain), falling.
    pub worst: Vec<usize>,
}

/// The values of all arms, by arm name.
pub struct Table<'a> {
    pub arms: &'a [(String, std::sync::Arc<ArmScores>)],
    pub suite: &'a Suite,
    pub seed: u64,
}

impl Table<'_> {
    pub fn values(&self, arm: &str, aspect: &Aspect) -> Option<&[f64]> {
        let (_, scores) = self.arms.iter().find(|(name, _)| name == arm)?;
        scores.values.get(aspect.name).map(Vec::as_slice)
    }

    /// Clusters of the items of a set.
    pub fn clusters(&self, set: &str) -> Vec<usize> {
        let found = self.suite.sets.iter().find(|(one, _)| one.name == set);
        found.map_or_else(Vec::new, |(set, count)| {
            set.items[..*count].iter().map(|item| item.cluster).collect()
        })
    }

    fn difference(&self, first: &[f64], second: &[f64], clusters: &[usize]) -> Difference {
        let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
        difference(&differences, clusters, self.seed)
    }

    /// All aspects that the suite asks about. `attribution` adds the parts.
    pub fn results(&self, attribution: bool) -> Vec<AspectResult> {
        let asked = ASPECTS.iter().filter(|aspect| self.values(PERSONA, aspect).is_some());
        let mut results: Vec<AspectResult> =
            asked.filter_map(|aspect| self.result(aspect, attribution)).collect();
        let p: Vec<f64> = results.iter().map(|result| result.p).collect();
        results.iter_mut().zip(holm(&p)).for_each(|(result, p)| result.p_holm = p);
        results
    }

    fn result(&self, aspect: &'static Aspect, attribution: bool) -> Option<AspectResult> {
        let (persona, plain) = (self.values(PERSONA, aspect)?, self.values(PLAIN, aspect)?);
        let prompt = self.values(PROMPT, aspect);
        let clusters = self.clusters(aspect.set);
        let is_valid = |&i: &usize| {
            [Some(persona), Some(plain), prompt].into_iter().flatten().all(|values| values[i].is_finite())
        };
        let valid: Vec<usize> = (0..persona.len()).filter(is_valid).collect();
        let of = |values: &[f64]| -> Vec<f64> { valid.iter().map(|&i| values[i]).collect() };
        let of_clusters: Vec<usize> = valid.iter().map(|&i| clusters[i]).collect();
        let (own, base) = (of(persona), of(plain));
        let differences: Vec<f64> = own.iter().zip(&base).map(|(a, b)| a - b).collect();
        let against = |values: &[f64]| self.difference(&own, &of(values), &of_clusters);
        let neutral = (1..)
            .map_while(|i| self.values(&format!("{NEUTRAL}{i}"), aspect))
            .map(|values| paired_mean(&of(values), &base));
        let random = self
            .values(RANDOM, aspect)
            .map(|random| self.difference(&of(random), &of(prompt.unwrap_or(plain)), &of_clusters));
        let parts: &[&'static str] = if attribution { &[PROMPT, PLAN, SOFT, PERSONA] } else { &[] };
        let part = |name: &&'static str| {
            let values = self.values(name, aspect)?;
            Some((*name, self.difference(&of(values), &base, &of_clusters)))
        };
        let mut worst = valid.clone();
        let rise = |i: &usize| persona[*i] - prompt.unwrap_or(plain)[*i];
        worst.sort_by(|a, b| rise(b).total_cmp(&rise(a)).then(a.cmp(b)));
        worst.truncate(crate::limits::PROBE_WORST_SHOWN);
        Some(AspectResult {
            aspect,
            n: valid.len(),
            invalid: persona.len() - valid.len(),
            persona: mean(&own),
            plain: mean(&base),
            prompt: prompt.map(|prompt| mean(&of(prompt))),
            difference: difference(&differences, &of_clusters, self.seed),
            against_prompt: prompt.map(against),
            random,
            neutral: range(neutral),
            p: sign_flip(&differences, &of_clusters, PROBE_ROUNDS, self.seed),
            p_holm: 1.0,
            parts: parts.iter().filter_map(part).collect(),
            worst,
        })
    }
}

/// Mean of paired differences, resampled by cluster.
pub fn difference(differences: &[f64], clusters: &[usize], seed: u64) -> Difference {
    Difference {
        value: mean(differences),
        interval: clustered_bootstrap(differences, clusters, PROBE_ROUNDS, seed),
    }
}

/// Mean of paired differences; items without a value on one side are left out.
pub fn paired_mean(first: &[f64], second: &[f64]) -> f64 {
    mean(&first.iter().zip(second).map(|(a, b)| a - b).filter(|value| value.is_finite()).collect::<Vec<_>>())
}

/// Smallest and largest of some finite numbers.
fn range(values: impl Iterator<Item = f64>) -> Option<Interval> {
    values.filter(|value| value.is_finite()).fold(None, |range: Option<Interval>, value| {
        let range = range.unwrap_or(Interval { low: value, high: value });
        Some(Interval { low: range.low.min(value), high: range.high.max(value) })
    })
}
