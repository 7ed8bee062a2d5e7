//! The decoder on candle tensors: the second backend against the exact mode, the training pass against `transformers`.

use crate::harness::{self, Setup, TestModel};
use crate::run::{self, fixture, floats, ids};
use candle_core::{Device, Tensor};
use demeanor::engine::{Engine, TokenLogprob};
use demeanor::model::{BlockEdits, Change, DenseModel, Edit, Edits, Reading, RowRule, SoftRows, TokenId};
use demeanor::weights::Container;
use std::sync::Arc;

/// Nat; two independent f32 implementations differ by 5e-5.
const TOLERANCE: f64 = 1e-3;
/// For the worst of the 1,945 positions of the twenty prompts. One of them, deep in the long prompt, cancels nearly all of
/// its stream: there the backends' f32 sums differ by 1e-3, where the median over all values is 8e-6.
const TOLERANCE_WORST: f64 = 3e-3;

#[test]
fn the_candle_server_of_smollm2_equals_the_exact_mode() {
    let [exact, candle] =
        [Setup::exact, Setup::candle].map(|setup| harness::server(&setup(TestModel::SmolLm2)));
    let reference = fixture("reference_smollm2.json");
    let prompts: Vec<Vec<TokenId>> = (reference["prompts"].as_array().expect("a list").iter())
        .map(|prompt| [ids(&prompt["ids"]), ids(&prompt["greedy"])].concat())
        .collect();
    assert_eq!(prompts.len(), 20);
    let none = Condition { soft: SoftRows::none(), edits: Arc::default() };
    let mut differences =
        differences(&all_rows(&exact.engine, &prompts, &none), &all_rows(&candle.engine, &prompts, &none));
    differences.sort_by(|x, y| y.total_cmp(x));
    let [worst, second, third] = [differences[0], differences[1], differences[2]];
    println!(
        "20 prompts, {} positions: largest |log-probability difference| of the top 20 {worst:.1e}, then {second:.1e}, {third:.1e}",
        differences.len()
    );
    assert!(second <= TOLERANCE, "log-probabilities differ by {second} at more than one position");
    assert!(worst <= TOLERANCE_WORST, "log-probabilities differ by {worst}");
}

/// Every kind of edit at both hook points on every row rule, and soft rows, in company of plain sequences.
#[test]
fn the_candle_server_edits_as_the_exact_mode_does() {
    let [exact, candle] =
        [Setup::exact, Setup::candle].map(|setup| harness::server(&setup(TestModel::SmolLm2)));
    let reference = fixture("reference_smollm2.json");
    let prompts: Vec<Vec<TokenId>> = (reference["prompts"].as_array().expect("a list").iter())
        .map(|prompt| [ids(&prompt["ids"]), ids(&prompt["greedy"])].concat())
        .filter(|ids| ids.len() < 64)
        .take(4)
        .collect();
    let direction = |seed: u32, size: f32| -> Arc<[f32]> {
        let raw: Vec<f32> =
            (0..576u32).map(|i| ((i * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0).collect();
        let norm = raw.iter().map(|value| value * value).sum::<f32>().sqrt();
        raw.iter().map(|value| value * size / norm).collect()
    };
    let add = |seed, size, rows| Edit::new(Change::Add { delta: direction(seed, size) }, rows);
    let project = |seed, keep, target, rows| {
        Edit::new(Change::Project { unit: direction(seed, 1.0), keep, target }, rows)
    };
    let edits = |change: &dyn Fn(&mut [BlockEdits])| {
        let mut blocks = vec![BlockEdits::default(); 30];
        change(&mut blocks);
        Arc::new(Edits::new(blocks))
    };
    let rows: Vec<f32> = (0..3).flat_map(|seed| direction(seed, 2.0).to_vec()).collect();
    let soft = SoftRows::new(rows, 3, 576).expect("finite");
    let (none, plain) = (SoftRows::none(), Arc::<Edits>::default());
    let conditions = [
        ("soft rows", soft.clone(), plain),
        ("add at resid", none.clone(), edits(&|b| b[10].resid.push(add(1, 20.0, RowRule::All)))),
        ("add at attn", none.clone(), edits(&|b| b[5].attn.push(add(2, 5.0, RowRule::Response)))),
        ("project", none.clone(), edits(&|b| b[12].resid.push(project(3, 0.0, 15.0, RowRule::Prompt)))),
        (
            "all at once",
            soft,
            edits(&|b| {
                b[8].attn.push(add(4, 4.0, RowRule::First(1)));
                b[8].attn.push(project(5, -1.0, 0.0, RowRule::All));
                b[20].resid.push(add(6, 20.0, RowRule::After(1)));
                b[20].resid.push(project(7, 0.5, 10.0, RowRule::All));
            }),
        ),
    ];
    let none = Condition { soft: SoftRows::none(), edits: Arc::default() };
    for (name, soft, edits) in conditions {
        let condition = Condition { soft, edits };
        let moved = change(&exact.engine, &prompts, &none, &condition);
        let worst = largest_difference(&exact.engine, &candle.engine, &prompts, &condition);
        println!("{name}: moves log-probabilities by up to {moved:.2}, backends differ by {worst:.1e}");
        assert!(moved > 0.1, "{name} changes too little to show anything: {moved}");
        assert!(worst <= TOLERANCE, "{name}: log-probabilities differ by {worst}");
    }
}

struct Condition {
    soft: SoftRows,
    edits: Arc<Edits>,
}

/// Largest difference of the first engine's top 20 over all positions of all prompts, which run at once.
fn largest_difference(
    first: &Engine,
    second: &Engine,
    prompts: &[Vec<TokenId>],
    condition: &Condition,
) -> f64 {
    let (first, second) = (all_rows(first, prompts, condition), all_rows(second, prompts, condition));
    distance(&first, &second)
}

/// How far a condition moves an engine's top 20.
fn change(engine: &Engine, prompts: &[Vec<TokenId>], plain: &Condition, changed: &Condition) -> f64 {
    distance(&all_rows(engine, prompts, plain), &all_rows(engine, prompts, changed))
}

/// The distribution at every position of every prompt, more than the 20 that are compared.
fn all_rows(engine: &Engine, prompts: &[Vec<TokenId>], condition: &Condition) -> Vec<TokenLogprob> {
    std::thread::scope(|scope| {
        let run = |prompt| run::distributions_behind(engine, &condition.soft, prompt, &condition.edits, 200);
        let runs: Vec<_> = prompts.iter().map(|prompt| scope.spawn(move || run(prompt))).collect();
        runs.into_iter().flat_map(|run| run.join().expect("no panic")).collect()
    })
}

fn distance(first: &[TokenLogprob], second: &[TokenLogprob]) -> f64 {
    differences(first, second).into_iter().fold(0.0, f64::max)
}

/// The largest difference of the first one's top 20, position by position.
fn differences(first: &[TokenLogprob], second: &[TokenLogprob]) -> Vec<f64> {
    let one = |(first, second): (&TokenLogprob, &TokenLogprob)| {
        let other = |id: TokenId| second.top.iter().find(|(other, _)| *other == id).map(|(_, value)| *value);
        // One that fell out of the first 200 is at least as far away as the last of them.
        let last = second.top.last().expect("200 of them").1;
        let difference = |(id, value): &(TokenId, f32)| f64::from(value - other(*id).unwrap_or(last)).abs();
        first.top.iter().take(20).map(difference).fold(0.0, f64::max)
    };
    assert_eq!(first.len(), second.len());
    first.iter().zip(second).map(one).collect()
}

#[test]
fn the_training_pass_of_smollm2_equals_transformers() {
    assert_equal_to_reference(TestModel::SmolLm2, "reference_smollm2.json");
}

#[test]
fn the_training_pass_of_gemma_equals_transformers() {
    assert_equal_to_reference(TestModel::Gemma, "reference_gemma.json");
}

/// Prompts that fit one batch, padded to the longest, with their greedy replies.
fn assert_equal_to_reference(model: TestModel, name: &str) {
    let model = dense(model);
    let reference = fixture(name);
    let prompts = reference["prompts"].as_array().expect("a list");
    let sequences: Vec<_> = (prompts.iter())
        .map(|prompt| (ids(&prompt["ids"]), ids(&prompt["greedy"]), prompt))
        .filter(|(ids, ..)| ids.len() < 64)
        .collect();
    assert!(sequences.len() >= 8, "enough prompts are short");
    let lengths: Vec<usize> = sequences.iter().map(|(ids, greedy, _)| ids.len() + greedy.len() - 1).collect();
    let t = lengths.iter().copied().max().expect("some");
    let rows: Vec<Tensor> = (sequences.iter())
        .map(|(ids, greedy, _)| {
            let mut all = [&ids[..], &greedy[..greedy.len() - 1]].concat();
            all.resize(t, 0);
            model.embed(&all).expect("known ids")
        })
        .collect();
    let inputs = Tensor::stack(&rows, 0).expect("rows of one length");
    let hidden = model.hidden(&inputs, &lengths).expect("it runs");
    let mut worst = 0f64;
    for (index, (prompt_ids, greedy, prompt)) in sequences.iter().enumerate() {
        let rows = hidden.get(index).expect("a sequence").narrow(0, prompt_ids.len() - 1, greedy.len());
        let logits = model.logits(&rows.expect("its rows"), None).expect("it runs");
        for (row, step) in
            logits.to_vec2::<f32>().expect("f32").iter().zip(prompt["steps"].as_array().expect("a list"))
        {
            let normaliser = log_sum_exp(row);
            for (id, logprob) in ids(&step["ids"]).iter().zip(floats(&step["logprobs"])) {
                worst = worst.max((f64::from(row[*id as usize]) - normaliser - logprob).abs());
            }
        }
    }
    println!("{name}: {} prompts, largest |log-probability difference| {worst:.1e}", sequences.len());
    assert!(worst <= TOLERANCE, "log-probabilities differ by {worst}");
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|value| f64::from(value - max).exp()).sum();
    f64::from(max) + sum.ln()
}

fn dense(model: TestModel) -> DenseModel {
    let file = Container::open(&model.path()).expect("the test model opens");
    DenseModel::load(&file, &Device::Cpu, Reading::default()).expect("it loads")
}
