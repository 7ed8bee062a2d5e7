//! Tests of results with a script in place of the model: planted changes, known rates, parts, invalid outputs.

use super::ProbeError;
use super::arms::{Arm, PERSONA, PLAIN, Soft, Subject};
use super::report::{About, report};
use super::results::{AspectResult, Table};
use super::runner::{Asked, run};
use super::scorer::{Scored, Scorer};
use super::sets::Ask;
use super::suites::Suite;
use crate::digest::Digest;
use crate::model::{BlockEdits, Change, Edit, Edits, RowRule};
use crate::persona::gate::Thresholds;
use crate::statistics::Draws;
use serde_json::Value;
use std::sync::Arc;

/// Scores of a model that a test makes up: each item of each arm by a rule.
struct Script<R: Fn(&Arm, usize, &Ask) -> Option<Vec<f32>>>(R);

impl<R: Fn(&Arm, usize, &Ask) -> Option<Vec<f32>>> Scorer for Script<R> {
    fn score(
        &self,
        arm: &Arm,
        asks: &[&Ask],
        each: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Scored>, ProbeError> {
        let mut scored = Vec::new();
        for (index, ask) in asks.iter().enumerate() {
            let sums = (self.0)(arm, index, ask);
            let logprobs = sums.map(|sums| sums.into_iter().map(|sum| vec![sum]).collect());
            scored.push(Scored { logprobs, tokens: 10 });
            if !each() {
                return Err(ProbeError::Cancelled);
            }
        }
        Ok(scored)
    }
}

fn edits(value: f32) -> Arc<Edits> {
    let edit = Edit::new(Change::Add { delta: vec![value; 4].into() }, RowRule::All);
    Arc::new(Edits::new(vec![BlockEdits { attn: vec![], resid: vec![edit] }]))
}

fn subject(system: &str, edits: Arc<Edits>) -> Subject {
    Subject {
        persona: "p".into(),
        version: 1,
        digest: Digest::of(b"p"),
        system: system.into(),
        card: None,
        edits,
        soft: Soft::None,
    }
}

fn results(subject: &Subject, suite: &Suite, seed: u64, scorer: &dyn Scorer) -> (Vec<AspectResult>, Value) {
    let arms = subject.arms(suite, seed, true);
    let scores = run(scorer, &arms, suite, &Asked::default(), &mut |_, _, _| true).expect("scores");
    let named: Vec<_> = arms.iter().map(|arm| arm.name.clone()).zip(scores).collect();
    let table = Table { arms: &named, suite, seed };
    let thresholds = Thresholds::shipped("default").expect("ships");
    let about = About {
        subject,
        model: "m",
        weights: Digest::of(b"w"),
        thresholds: &thresholds,
        arms: &arms,
        attribution: true,
    };
    (table.results(true), report(&table, &about))
}

fn smoke() -> Suite {
    Suite::shipped("smoke").expect("ships")
}

#[test]
fn a_planted_constant_comes_out_as_planted() {
    // The first choice of the persona alone is 3 nat likelier.
    let planted = |arm: &Arm, _: usize, ask: &Ask| {
        let mut sums = vec![-40.0; ask.choices.len()];
        sums[0] += if arm.name == PERSONA { 3.0 } else { 0.0 };
        Some(sums)
    };
    let suite = smoke();
    let (results, report) = results(&subject("s", edits(1.0)), &suite, 1, &Script(planted));
    let result = &results[0];
    let bytes = suite.sets[0].0.items[..52].iter().map(|item| item.asks[0].choices[0].len() as f64);
    let expected = bytes.map(|bytes| 3.0 / bytes).sum::<f64>() / 52.0;
    assert!((result.difference.value - expected).abs() < 1e-9, "{}", result.difference.value);
    let against = result.against_prompt.expect("it has a plan");
    assert!((against.value - expected).abs() < 1e-9);
    assert!(result.difference.interval.low > 0.9 * expected && result.p < 0.01);
    assert_eq!((result.random.expect("a plan").value, result.n, result.invalid), (0.0, 52, 0));
    // .06 nat/byte is above the .03 of the shipped thresholds.
    assert_eq!(
        (report["status"].as_str(), report["aspects"][0]["verdict"].as_str()),
        (Some("failed"), Some("failed"))
    );
    let parts = &report["attribution"][0];
    assert_eq!(parts["parts"]["plan"]["difference"], 0.0);
    assert!((parts["interaction"].as_f64().expect("a number") - expected).abs() < 1e-5);
}

#[test]
fn no_plan_is_the_plain_model_exactly() {
    let by_content = |arm: &Arm, index: usize, ask: &Ask| {
        let own = arm.system.len() as f32 + if arm.edits.is_empty() { 0.0 } else { 1.0 };
        Some((0..ask.choices.len()).map(|i| -10.0 - (own + (index + i) as f32).sin()).collect())
    };
    let suite = smoke();
    let (results, report) = results(&subject("", Arc::default()), &suite, 1, &Script(by_content));
    let result = &results[0];
    assert_eq!((result.difference.value, result.difference.interval.low, result.p), (0.0, 0.0, 1.0));
    assert!(result.against_prompt.is_none() && result.random.is_none());
    assert!(report["aspects"][0]["prompt"].is_null());
    assert_eq!(report["status"], "passed");
}

#[test]
fn invalid_outputs_are_counted_and_never_pass() {
    let mostly_broken = |arm: &Arm, index: usize, ask: &Ask| {
        (arm.name != PERSONA || index.is_multiple_of(2)).then(|| vec![-10.0; ask.choices.len()])
    };
    let (results, report) = results(&subject("s", edits(1.0)), &smoke(), 1, &Script(mostly_broken));
    assert_eq!((results[0].n, results[0].invalid), (26, 26));
    assert_eq!(
        (report["status"].as_str(), report["aspects"][0]["verdict"].as_str()),
        (Some("inconclusive"), Some("too_few"))
    );
    assert!(report["items"]["hostile_replies"]["values"]["hostile_replies"]["persona"][1].is_null());
}

/// A model whose changes are drawn around a known mean: the interval holds it about 95 times of 100.
#[test]
fn known_changes_are_recovered() {
    let suite = smoke();
    let true_change = 0.04;
    let held = (0..100u64).filter(|&simulation| {
        let drawn = |arm: &Arm, index: usize, ask: &Ask| {
            let bytes = ask.choices[0].len() as f64;
            let plain = Draws::new(simulation, "plain", index as u64).normal() * 0.1;
            // Wordings (26 of them) share half of the spread.
            let wording = Draws::new(simulation, "wording", (index % 26) as u64).normal() * 0.03;
            let own = Draws::new(simulation, "persona", index as u64).normal() * 0.03;
            let change = if arm.name == PERSONA { true_change + wording + own } else { 0.0 };
            let second = -40.0 * ask.choices[1].len() as f64 / bytes;
            Some(vec![(bytes * (plain + change) - 40.0) as f32, second as f32])
        };
        let arms = subject("s", Arc::default()).arms(&suite, simulation, false);
        let scores =
            run(&Script(drawn), &arms, &suite, &Asked::default(), &mut |_, _, _| true).expect("scores");
        let named: Vec<_> = arms.iter().map(|arm| arm.name.clone()).zip(scores).collect();
        let interval =
            Table { arms: &named, suite: &suite, seed: simulation }.results(false)[0].difference.interval;
        interval.low <= true_change && true_change <= interval.high
    });
    let held = held.count();
    assert!((93..=99).contains(&held), "{held} of 100 intervals hold the true change");
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_cancelling_ends() {
    let drawn = |arm: &Arm, index: usize, ask: &Ask| {
        let seed = arm.name.len() as u64;
        Some(
            (0..ask.choices.len())
                .map(|i| Draws::new(seed, "x", (index * 40 + i) as u64).normal() as f32)
                .collect(),
        )
    };
    let suite = Suite::shipped("quick").expect("ships");
    let one = || results(&subject("s", edits(1.0)), &suite, 3, &Script(drawn)).1.to_string();
    assert_eq!(one(), one());
    let arms = subject("s", Arc::default()).arms(&suite, 1, false);
    let ended = run(&Script(drawn), &arms, &suite, &Asked::default(), &mut |done, _, _| done < 5);
    assert!(matches!(ended, Err(ProbeError::Cancelled)));
}

#[test]
fn arms_of_the_same_content_are_asked_once() {
    let count = std::cell::Cell::new(0);
    let counted = |_: &Arm, _: usize, ask: &Ask| {
        count.set(count.get() + 1);
        Some(vec![-1.0; ask.choices.len()])
    };
    let (suite, asked) = (smoke(), Asked::default());
    for _ in 0..2 {
        let arms = [Arm::of_system(PLAIN, ""), Arm::of_system(PERSONA, "")];
        run(&Script(counted), &arms, &suite, &asked, &mut |_, _, _| true).expect("scores");
    }
    assert_eq!(count.get(), 52);
}
