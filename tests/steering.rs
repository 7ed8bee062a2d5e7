//! Steering against `transformers` with hooks at the same place: a GGUF control vector changes the log-probabilities by
//! what it should, in exact mode and in the default mode.

use crate::harness::{self, Setup, TestModel};
use crate::run::{self, fixture};
use demeanor::engine::Engine;
use demeanor::model::{BlockEdits, Change, Edit, Edits, RowRule};
use demeanor::weights::ModelFile;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

#[test]
fn smollm2_moves_as_the_reference_does() {
    check(TestModel::SmolLm2, "smollm2");
}

#[test]
fn gemma_moves_as_the_reference_does() {
    check(TestModel::Gemma, "gemma");
}

fn check(model: TestModel, name: &str) {
    let exact = Comparison::of(&harness::server(&Setup::exact(model)).engine, name);
    let default = Comparison::of(&harness::server(&Setup::new(model)).engine, name);
    for (coefficient, change) in &exact.changes {
        let (right, off) = (change.relative_error, exact.off_by_one_block(coefficient));
        let half = exact.half_strength(coefficient);
        println!(
            "{name} x{coefficient}: mean |change| {:.2} nat, relative error exact {right:.1e} (one block off {off:.2}, half strength {half:.2})",
            change.mean
        );
        assert!(change.mean >= 1.0, "the vector moves too little to show anything");
        assert!(right <= 1e-2, "relative error {right}");
        assert!(off > 1e-2 && half > 1e-2, "the check must fail one block off and at half strength");
    }
    for (coefficient, change) in &default.changes {
        let [off, half] = [default.shifted_cosine(coefficient), default.half_slope(coefficient)];
        println!(
            "{name} x{coefficient} default mode: cosine {:.3}, slope {:.3} (one block off: cosine {off:.3}; half strength: slope {half:.3})",
            change.cosine, change.slope
        );
        assert!(change.cosine >= 0.98, "cosine {}", change.cosine);
        assert!((0.95..=1.05).contains(&change.slope), "slope {}", change.slope);
        assert!(off < 0.98, "the check must fail one block off");
        assert!(!(0.95..=1.05).contains(&half), "the check must fail at half strength");
    }
}

/// Changes of the top-20 log-probabilities over all prompts and positions, ours against the reference's.
struct Comparison {
    /// By coefficient.
    changes: Vec<(&'static str, Agreement)>,
    ours_shifted: Vec<(&'static str, Agreement)>,
    ours_half: Vec<(&'static str, Agreement)>,
}

struct Agreement {
    /// Mean |change| of the reference, nat.
    mean: f64,
    /// |ours - reference| / |reference|, as vectors.
    relative_error: f64,
    cosine: f64,
    slope: f64,
}

impl Comparison {
    fn of(engine: &Engine, name: &str) -> Comparison {
        let reference = fixture(&format!("steering_{name}.json"));
        let directions = control_vector(name);
        let n_blocks = engine.info().n_blocks as usize;
        let mut comparison =
            Comparison { changes: Vec::new(), ours_shifted: Vec::new(), ours_half: Vec::new() };
        let prompts = reference["prompts"].as_array().expect("a list");
        for (coefficient, strength) in [("1", 1.0f32), ("2", 2.0)] {
            let variants = [(0.0, 0), (strength, 0), (strength, 1), (strength / 2.0, 0)]
                .map(|(strength, late)| Arc::new(edits(&directions, strength, late, n_blocks)));
            let results: Vec<Changes> = std::thread::scope(|scope| {
                let run = |prompt| changes_of(engine, prompt, coefficient, &variants);
                let runs: Vec<_> =
                    prompts.iter().take(10).map(|prompt| scope.spawn(move || run(prompt))).collect();
                runs.into_iter().map(|run| run.join().expect("no panic")).collect()
            });
            let truth: Vec<f64> = results.iter().flat_map(|changes| changes.truth.clone()).collect();
            let [right, shifted, half] = std::array::from_fn(|variant| {
                let ours: Vec<f64> =
                    results.iter().flat_map(|changes| changes.ours[variant].clone()).collect();
                agreement(&truth, &ours)
            });
            comparison.changes.push((coefficient, right));
            comparison.ours_shifted.push((coefficient, shifted));
            comparison.ours_half.push((coefficient, half));
        }
        comparison
    }

    fn find<'a>(list: &'a [(&'static str, Agreement)], coefficient: &str) -> &'a Agreement {
        &list.iter().find(|(name, _)| *name == coefficient).expect("it was computed").1
    }

    fn off_by_one_block(&self, coefficient: &str) -> f64 {
        Self::find(&self.ours_shifted, coefficient).relative_error
    }

    fn half_strength(&self, coefficient: &str) -> f64 {
        Self::find(&self.ours_half, coefficient).relative_error
    }

    fn shifted_cosine(&self, coefficient: &str) -> f64 {
        Self::find(&self.ours_shifted, coefficient).cosine
    }

    fn half_slope(&self, coefficient: &str) -> f64 {
        Self::find(&self.ours_half, coefficient).slope
    }
}

/// Changes of one prompt's log-probabilities, four positions of twenty ids: the reference's, and ours for each variant.
struct Changes {
    truth: Vec<f64>,
    ours: [Vec<f64>; 3],
}

fn changes_of(engine: &Engine, prompt: &Value, coefficient: &str, variants: &[Arc<Edits>; 4]) -> Changes {
    let ids = run::ids(&prompt["ids"]);
    let first = prompt["prompt_ids"].as_u64().expect("a count") as usize;
    let mut changes = Changes { truth: Vec::new(), ours: Default::default() };
    for position in 0..4 {
        let top = run::ids(&prompt["top"][position]);
        let before = run::floats(&prompt["plain"][position]);
        let after = run::floats(&prompt["steered"][coefficient][position]);
        changes.truth.extend(after.iter().zip(&before).map(|(after, before)| after - before));
        let [plain, steered @ ..] = variants
            .each_ref()
            .map(|edits| run::next_logprobs(engine, &ids[..first + position], edits, &top));
        for (ours, steered) in changes.ours.iter_mut().zip(&steered) {
            ours.extend(steered.iter().zip(&plain).map(|(after, before)| after - before));
        }
    }
    changes
}

fn agreement(truth: &[f64], ours: &[f64]) -> Agreement {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (tt, oo, to) = (dot(truth, truth), dot(ours, ours), dot(truth, ours));
    Agreement {
        mean: truth.iter().map(|x| x.abs()).sum::<f64>() / truth.len() as f64,
        relative_error: ((tt + oo - 2.0 * to).max(0.0) / tt).sqrt(),
        cosine: to / (tt * oo).sqrt(),
        slope: to / tt,
    }
}

/// `direction.N` of the fixture's control vector, by block.
fn control_vector(name: &str) -> Vec<(usize, Vec<f32>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/control_{name}.gguf"));
    let file = ModelFile::open(&path).expect("the fixture opens");
    let tensors = file.tensors().map(|tensor| {
        let block =
            tensor.name.strip_prefix("direction.").expect("a control vector").parse().expect("a number");
        let values =
            tensor.data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        (block, values)
    });
    tensors.collect()
}

fn edits(directions: &[(usize, Vec<f32>)], strength: f32, late: usize, n_blocks: usize) -> Edits {
    let mut blocks = vec![BlockEdits::default(); n_blocks];
    if strength == 0.0 {
        return Edits::none();
    }
    for (block, direction) in directions {
        let delta = direction.iter().map(|x| x * strength).collect();
        blocks[block + late].resid.push(Edit::new(Change::Add { delta }, RowRule::All));
    }
    Edits::new(blocks)
}
