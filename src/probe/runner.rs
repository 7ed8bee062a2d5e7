//! Asks every arm the same items and turns the answers into values.

use super::ProbeError;
use super::arms::Arm;
use super::aspects::ASPECTS;
use super::scorer::Scorer;
use super::sets::Ask;
use super::suites::Suite;
use crate::digest::Digest;
use crate::limits;
use crate::sync::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Values of one arm.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmScores {
    /// By aspect, one value per item in the set's order; NaN: invalid output.
    pub values: BTreeMap<&'static str, Vec<f64>>,
    /// Tokens of all prompts and continuations.
    pub tokens: u64,
}

/// Arms that were asked already, by what they are and which items. Those of users are never kept.
#[derive(Clone, Default)]
pub struct Asked {
    kept: Arc<Mutex<Kept>>,
}

/// By arm and suite.
type Kept = BTreeMap<(Digest, Digest), Arc<ArmScores>>;

impl Asked {
    fn get(&self, key: &(Digest, Digest)) -> Option<Arc<ArmScores>> {
        lock(&self.kept).get(key).cloned()
    }

    fn keep(&self, key: (Digest, Digest), scores: Arc<ArmScores>) {
        let mut kept = lock(&self.kept);
        if kept.len() >= limits::PROBE_ARMS_KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, scores);
    }
}

/// Asks all arms. `progress` gets the prompts done and all of them, and ends the run with `false`.
pub fn run(
    scorer: &dyn Scorer,
    arms: &[Arm],
    suite: &Suite,
    asked: &Asked,
    progress: &mut dyn FnMut(u64, u64, &str) -> bool,
) -> Result<Vec<Arc<ArmScores>>, ProbeError> {
    let each_arm = suite.prompts() as u64;
    let total = each_arm * arms.len() as u64;
    let mut all = Vec::with_capacity(arms.len());
    for (index, arm) in arms.iter().enumerate() {
        let key = arm.key().map(|key| (key, suite.digest));
        if let Some(known) = key.as_ref().and_then(|key| asked.get(key)) {
            all.push(known);
            continue;
        }
        let mut done = each_arm * index as u64;
        let mut each = || {
            done += 1;
            progress(done, total, &arm.name)
        };
        let scores = Arc::new(ask(scorer, arm, suite, &mut each)?);
        if let Some(key) = key {
            asked.keep(key, scores.clone());
        }
        all.push(scores);
    }
    Ok(all)
}

fn ask(
    scorer: &dyn Scorer,
    arm: &Arm,
    suite: &Suite,
    each: &mut dyn FnMut() -> bool,
) -> Result<ArmScores, ProbeError> {
    let mut scores = ArmScores { values: BTreeMap::new(), tokens: 0 };
    for (set, count) in &suite.sets {
        let items = &set.items[..*count];
        let asks: Vec<&Ask> = items.iter().flat_map(|item| &item.asks).collect();
        let scored = scorer.score(arm, &asks, each)?;
        scores.tokens += scored.iter().map(|one| one.tokens).sum::<u64>();
        for aspect in ASPECTS.iter().filter(|aspect| aspect.set == set.name) {
            let mut rest = &scored[..];
            let values = items.iter().map(|item| {
                let (own, others) = rest.split_at(item.asks.len());
                rest = others;
                aspect.value(item, own)
            });
            scores.values.insert(aspect.name, values.collect());
        }
    }
    Ok(scores)
}
