//! Exact mode against `transformers` in float32 on the same GGUF: greedy tokens, log-probabilities, planted bugs.

use crate::harness::{self, Setup, TestModel};
use crate::run::{self, fixture};
use demeanor::engine::Engine;
use demeanor::weights::{GgufWriter, ModelFile};
use serde_json::Value;
use std::path::PathBuf;

/// Nat; two independent f32 implementations differ by 5e-5.
const TOLERANCE: f64 = 2e-4;

#[test]
fn smollm2_equals_transformers() {
    let server = harness::server(&Setup::exact(TestModel::SmolLm2));
    assert_equal_to_reference(&server.engine, "reference_smollm2.json");
}

#[test]
fn gemma_equals_transformers() {
    let server = harness::server(&Setup::exact(TestModel::Gemma));
    assert_equal_to_reference(&server.engine, "reference_gemma.json");
}

fn assert_equal_to_reference(engine: &Engine, name: &str) {
    let reference = fixture(name);
    let prompts = reference["prompts"].as_array().expect("a list");
    assert_eq!(prompts.len(), 20);
    assert!(prompts.iter().any(|prompt| run::ids(&prompt["ids"]).len() > 600), "one prompt is long");
    // All at once: sixteen share each step, which also shows that company changes nothing.
    let results: Vec<(bool, f64)> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            prompts.iter().map(|prompt| scope.spawn(move || compare(engine, prompt))).collect();
        runs.into_iter().map(|run| run.join().expect("no panic")).collect()
    });
    for (index, (same_ids, _)) in results.iter().enumerate() {
        assert!(same_ids, "prompt {index}: other tokens than the reference");
    }
    let worst = results.iter().map(|(_, difference)| *difference).fold(0.0, f64::max);
    println!(
        "{name}: greedy ids equal for 20 of 20 prompts; largest |log-probability difference| {worst:.1e}"
    );
    assert!(worst <= TOLERANCE, "log-probabilities differ by {worst}");
}

/// Whether the greedy ids are equal, and the largest difference of the top-20 log-probabilities while they are.
fn compare(engine: &Engine, prompt: &Value) -> (bool, f64) {
    let greedy = run::ids(&prompt["greedy"]);
    // Far more than 20 are asked for, so that each id of the reference's top 20 has its value here.
    let tokens = run::greedy(engine, &run::ids(&prompt["ids"]), greedy.len() as u32, 200);
    let same = tokens.iter().map(|token| token.id).eq(greedy.iter().copied());
    let mut worst = 0f64;
    for ((token, step), wanted) in tokens.iter().zip(prompt["steps"].as_array().expect("a list")).zip(&greedy)
    {
        for (id, logprob) in run::ids(&step["ids"]).iter().zip(run::floats(&step["logprobs"])) {
            let got = token.top.iter().find(|(other, _)| other == id);
            worst = worst.max(got.map_or(f64::INFINITY, |(_, got)| (f64::from(*got) - logprob).abs()));
        }
        if token.id != *wanted {
            break;
        }
    }
    (same, worst)
}

/// Each planted bug is told apart from rounding by the same comparison.
#[test]
fn planted_bugs_are_caught() {
    let reference = fixture("reference_smollm2.json");
    let prompts = reference["prompts"].as_array().expect("a list");
    let short: Vec<&Value> =
        prompts.iter().filter(|prompt| run::ids(&prompt["ids"]).len() < 40).take(4).collect();
    for bug in [Bug::Epsilon, Bug::SignOfOneRow, Bug::RopeBase, Bug::Positions] {
        let path = plant(bug);
        let setup = Setup::exact(TestModel::SmolLm2);
        let mut settings = setup.settings();
        settings.model = path.display().to_string();
        settings.kv_bytes = 64 << 20;
        let server = harness::start(&settings);
        let worst = short.iter().map(|prompt| compare(&server.engine, prompt).1).fold(0.0, f64::max);
        println!("{bug:?}: largest |log-probability difference| {worst:.1e}");
        assert!(worst > 2.0 * TOLERANCE, "{bug:?} was not caught: {worst}");
        std::fs::remove_file(path).expect("it was written here");
    }
}

#[derive(Clone, Copy, Debug)]
enum Bug {
    /// 1e-3 in place of 1e-5.
    Epsilon,
    /// Row 7 of block 5's query projection negated.
    SignOfOneRow,
    /// 10,000 in place of 100,000.
    RopeBase,
    /// Every position divided by 1.01.
    Positions,
}

/// A copy of the default model with one change.
fn plant(bug: Bug) -> PathBuf {
    let file = ModelFile::open(&TestModel::SmolLm2.path()).expect("the test model opens");
    let mut writer = GgufWriter::copy_of(&file);
    match bug {
        Bug::Epsilon => {
            writer.f32("llama.attention.layer_norm_rms_epsilon", 1e-3);
        }
        Bug::RopeBase => {
            writer.f32("llama.rope.freq_base", 1e4);
        }
        Bug::Positions => {
            writer.string("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 1.01);
        }
        Bug::SignOfOneRow => {
            let tensor = file.tensor("blk.5.attn_q.weight").expect("a llama model");
            let mut data = tensor.data.to_vec();
            let row_bytes = data.len() / tensor.shape[0];
            // A Q4_1 block starts with its scale and its minimum, both f16, little-endian.
            for block in data[7 * row_bytes..8 * row_bytes].chunks_exact_mut(20) {
                block[1] ^= 0x80;
                block[3] ^= 0x80;
            }
            writer.tensor(tensor.name, &tensor.shape, tensor.format, data);
        }
    }
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("planted-{bug:?}.gguf"));
    let mut out = std::fs::File::create(&path).expect("the test folder is writable");
    writer.write(&mut out).expect("the copy is written");
    path
}
