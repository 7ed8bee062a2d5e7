//! The decoder on candle tensors: distributions against the reference, speed of a training step.

use crate::harness::TestModel;
use crate::run::{fixture, floats, ids};
use candle_core::{Device, Tensor, Var};
use demeanor::model::DenseModel;
use demeanor::model::candle::gradients;
use demeanor::weights::ModelFile;

/// Nat; two independent f32 implementations differ by 5e-5.
const TOLERANCE: f64 = 1e-3;

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
    let file = ModelFile::open(&model.path()).expect("the test model opens");
    DenseModel::load(&file, &Device::Cpu).expect("it loads")
}

/// Prints seconds; no bound decides a test.
#[test]
#[ignore = "a measurement"]
fn seconds_of_a_training_step() {
    let model = dense(TestModel::SmolLm2);
    let ids: Vec<u32> = (0..48 * 18).map(|i| (i * 37) % 49_000).collect();
    let rows = model.embed(&ids).expect("known ids").reshape((48, 18, 576)).expect("a batch");
    let var = Var::from_tensor(&rows).expect("a variable");
    for _ in 0..3 {
        let begin = std::time::Instant::now();
        let hidden = model.hidden(&var, &[18; 48]).expect("it runs");
        let last = hidden.narrow(1, 17, 1).and_then(|rows| rows.squeeze(1)).expect("last rows");
        let logits = model.logits(&last, Some(&[10, 20, 30, 40, 50])).expect("it runs");
        let loss = logits.sqr().and_then(|values| values.mean_all()).expect("a loss");
        let forward = begin.elapsed().as_secs_f64();
        gradients(&loss, &[("rows".into(), var.clone())]).expect("gradients");
        println!(
            "48 x 18 rows: forward {forward:.2} s, backward {:.2} s",
            begin.elapsed().as_secs_f64() - forward
        );
    }
}
