//! Every family in both containers against the logits of `transformers`; each quirk is missed when it is switched off.
//!
//! Prompts are longer than every window.

use super::decoder::CpuModel;
use super::fixtures::{LIMIT, MODELS, Reference, containers, folder, options};
use super::tensors::Tensors;
use super::*;
use crate::config::Backend;
use crate::kernels::{Isa, KvFormat};
use crate::limits::PAGE_POSITIONS;
use crate::weights::Container;

/// Logits of all positions, `chunk` of them a step.
fn logits(model: &mut Model, ids: &[TokenId], chunk: usize) -> Vec<f32> {
    let pages: Vec<PageId> = (0..ids.len().div_ceil(PAGE_POSITIONS) as PageId).collect();
    let (edits, soft) = (Edits::none(), SoftRows::none());
    let mut all = Vec::new();
    let mut out = StepOutput::default();
    let row = |position: usize| Row {
        slot: 0,
        position: position as u32,
        phase: Phase::Prompt,
        input: Input::Token(ids[position]),
        wants: Wants { logits: true, capture: false },
    };
    for from in (0..ids.len()).step_by(chunk) {
        let rows: Vec<Row> = (from..ids.len().min(from + chunk)).map(row).collect();
        let slots = [Slot { pages: &pages, edits: &edits, soft: &soft, capture: None }];
        model.step(&Rows { rows: &rows, slots: &slots }, &mut out).unwrap();
        all.extend_from_slice(&out.logits);
    }
    all
}

#[test]
fn logits_equal_transformers_in_both_containers() {
    for name in MODELS {
        let reference = Reference::of(name);
        for (container, kind) in containers(name).iter().zip(["gguf", "safetensors"]) {
            let mut model = Model::load(container, &options(Backend::Cpu, 512)).unwrap();
            let config = model.config();
            let longest = config.blocks.iter().filter_map(|block| block.window).max();
            assert!(longest.is_none_or(|window| 2 * (window as usize) < reference.ids.len()), "{name}");
            let whole = logits(&mut model, &reference.ids, reference.ids.len());
            let difference = reference.difference(&whole);
            println!("{name} {kind}: {difference:.1e}");
            assert!(difference <= LIMIT, "{name} {kind}: {difference}");
            for chunk in [1, 7, 64] {
                let chunked = logits(&mut model, &reference.ids, chunk);
                assert!(chunked == whole, "{name} {kind}: chunks of {chunk} change bits");
            }
        }
    }
}

/// Weights, and keys and values, in bfloat16 meet activations in bfloat16, on matrix units or not. Here the products over
/// 64 and 96 values do; those over 48 are no whole blocks.
#[test]
fn bfloat16_is_near_and_the_same_in_any_company() {
    let reference = Reference::of("qwen3");
    let folder = Container::open(&folder("qwen3")).unwrap();
    for kv_format in [KvFormat::F32, KvFormat::Bf16] {
        let mut results = Vec::new();
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Portable) {
            let options =
                ModelOptions { precision: Precision::Int8, kv_format, isa, ..options(Backend::Cpu, 512) };
            let mut model = Model::load(&folder, &options).unwrap();
            let whole = logits(&mut model, &reference.ids, reference.ids.len());
            let difference = reference.difference(&whole);
            println!("{kv_format:?} {isa:?}: {difference:.1e}");
            assert!(LIMIT < difference && difference < 0.03, "{kv_format:?} {isa:?}: {difference}");
            for chunk in [1, 7, 64] {
                let chunked = logits(&mut model, &reference.ids, chunk);
                assert!(chunked == whole, "{kv_format:?} {isa:?}: chunks of {chunk} change bits");
            }
            results.push(whole);
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "instruction sets differ");
    }
}

#[test]
fn the_second_backend_agrees() {
    for name in MODELS {
        let reference = Reference::of(name);
        for container in &containers(name) {
            let mut model = Model::load(container, &options(Backend::Candle, 512)).unwrap();
            for chunk in [reference.ids.len(), 7] {
                let difference = reference.difference(&logits(&mut model, &reference.ids, chunk));
                assert!(difference <= LIMIT, "{name} in chunks of {chunk}: {difference}");
            }
        }
    }
}

/// The pass that training differentiates goes its own way through attention.
#[test]
fn the_training_pass_agrees() {
    for name in MODELS {
        let reference = Reference::of(name);
        let reading = Reading { quantize: None, context: 512 };
        for container in &containers(name) {
            let model = DenseModel::load(container, &candle_core::Device::Cpu, reading).unwrap();
            let inputs = model.embed(&reference.ids).unwrap().unsqueeze(0).unwrap();
            let hidden = model.hidden(&inputs, &[reference.ids.len()]).unwrap().squeeze(0).unwrap();
            let logits = model.logits(&hidden, None).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let difference = reference.difference(&logits);
            assert!(difference <= LIMIT, "{name}: {difference}");
        }
    }
}

/// Phi3 served with no more context than it was trained with first has other frequencies.
#[test]
fn short_contexts_have_short_factors() {
    let reference = Reference::read("phi3", "reference_short.safetensors");
    for container in &containers("phi3") {
        for (context, right) in [(64, true), (65, false)] {
            let mut model = Model::load(container, &options(Backend::Cpu, context)).unwrap();
            let difference = reference.difference(&logits(&mut model, &reference.ids, 64));
            assert_eq!(difference <= LIMIT, right, "context {context}: {difference}");
        }
    }
}

/// A way to get a quirk wrong.
type Bug = fn(&mut ModelConfig);

fn flip_pairs(config: &mut ModelConfig) {
    config.rotary_pairs = match config.rotary_pairs {
        RotaryPairs::Interleaved => RotaryPairs::HalfSplit,
        RotaryPairs::HalfSplit => RotaryPairs::Interleaved,
    };
}

fn no_windows(config: &mut ModelConfig) {
    config.blocks.iter_mut().for_each(|block| block.window = None);
}

fn wider_windows(config: &mut ModelConfig) {
    config.blocks.iter_mut().for_each(|block| block.window = block.window.map(|window| window + 1));
}

/// As if every block were the first.
fn one_kind_of_block(config: &mut ModelConfig) {
    let first = config.blocks[0];
    config.blocks.iter_mut().for_each(|block| *block = first);
}

fn shifted_pattern(config: &mut ModelConfig) {
    config.blocks.rotate_left(1);
}

#[test]
fn every_quirk_is_missed_when_it_is_off() {
    let bugs: [(&str, &[(&str, Bug)]); 7] = [
        (
            "llama",
            &[
                ("pairs", flip_pairs),
                ("divisors", |config| config.rotaries[0].divisors = None),
                ("base", |config| config.rotaries[0].base = 5e5),
                ("scale", |config| config.attention_scale = (12f32).powf(-0.5)),
            ],
        ),
        (
            "mistral",
            &[
                ("window", no_windows),
                ("window's end", wider_windows),
                ("linear scaling", |config| config.rotaries[0].linear_factor = 1.0),
            ],
        ),
        (
            "qwen2",
            &[
                ("biases", |config| config.qkv_biases = false),
                ("pairs", flip_pairs),
                ("yarn's divisors", |config| config.rotaries[0].divisors = None),
                ("yarn's factor on attention", |config| config.rotaries[0].magnitude = 1.0),
            ],
        ),
        (
            "qwen3",
            &[
                ("norms of heads", |config| config.qk_norms = false),
                ("pairs", flip_pairs),
                ("base", |config| config.rotaries[0].base = 1e4),
            ],
        ),
        (
            "gemma2",
            &[
                ("cap on scores", |config| config.attention_softcap = None),
                ("cap on logits", |config| config.logit_softcap = None),
                ("query scale", |config| config.attention_scale = 0.25),
                ("windows", no_windows),
                ("alternation", one_kind_of_block),
                ("which block first", shifted_pattern),
                ("post norms", |config| config.post_norms = false),
                ("tanh form", |config| config.gating = Gating::Silu),
                ("scaled embeddings", |config| config.embedding_scale = 1.0),
                ("w + 1", |config| config.norm_offset = 1.0 - config.norm_offset),
            ],
        ),
        (
            "gemma3",
            &[
                ("norms of heads", |config| config.qk_norms = false),
                ("local base", |config| config.rotaries[1].base = 1e6),
                ("scaling of global blocks", |config| config.rotaries[0].linear_factor = 1.0),
                ("no scaling of local blocks", |config| config.rotaries[1].linear_factor = 8.0),
                ("windows", no_windows),
                ("global block", one_kind_of_block),
                ("w + 1", |config| config.norm_offset = 1.0 - config.norm_offset),
            ],
        ),
        (
            "phi3",
            &[
                ("pairs", flip_pairs),
                ("coordinates that rotate", |config| config.d_rotary = 16),
                ("long factors", |config| config.rotaries[0].long = None),
                ("factor on attention", |config| config.rotaries[0].magnitude = 1.0),
                ("window", no_windows),
            ],
        ),
    ];
    let options = options(Backend::Cpu, 512);
    for (name, bugs) in bugs {
        let reference = Reference::of(name);
        for (container, kind) in containers(name).iter().zip(["gguf", "safetensors"]) {
            for (bug, plant) in bugs {
                let (mut config, mut tensors) = Tensors::open(container, None, 1).unwrap();
                plant(&mut config);
                let weights = load::weights(&config, &mut tensors, Precision::F32).unwrap();
                let mut model = Model::Cpu(Box::new(CpuModel::new(config, weights, &options)));
                let difference = reference.difference(&logits(&mut model, &reference.ids, 160));
                println!("{name} {kind} without {bug}: {difference:.1e}");
                assert!(difference > 10.0 * LIMIT, "{name} {kind}: {bug} makes {difference} only");
            }
        }
    }
}

/// What a fixture is for is in its file.
#[test]
fn fixtures_have_their_quirks() {
    for name in MODELS {
        let configs = containers(name).map(|container| Model::read_config(&container).unwrap());
        let [gguf, folder] = &configs;
        let same = ModelConfig {
            rotary_pairs: gguf.rotary_pairs,
            norm_offset: gguf.norm_offset,
            rotaries: gguf.rotaries.clone(),
            attention_scale: gguf.attention_scale,
            ..folder.clone()
        };
        assert_eq!(*gguf, same, "{name}");
        assert!((gguf.attention_scale - folder.attention_scale).abs() < 1e-6);
        for (a, b) in gguf.rotaries.iter().zip(&folder.rotaries) {
            assert!((a.magnitude - b.magnitude).abs() < 1e-6 && a.base == b.base, "{name}");
            for (a, b) in a.divisors.iter().flatten().zip(b.divisors.iter().flatten()) {
                assert!((a - b).abs() < 1e-5 * b, "{name}: {a} and {b}");
            }
        }
        match name {
            "llama" | "qwen3" | "gemma3" => assert_ne!(gguf.d_queries(), gguf.d_model, "{name}"),
            "phi3" => assert_eq!((gguf.d_head, gguf.d_rotary, gguf.fused), (32, 24, true)),
            _ => {}
        }
    }
}

#[test]
fn a_folder_can_be_rounded_at_load() {
    use crate::config::Quantize;
    for name in ["phi3", "gemma2"] {
        let reference = Reference::of(name);
        let container = Container::open(&folder(name)).unwrap();
        let mut worst = Vec::new();
        for quantize in [Quantize::Q8, Quantize::Q4] {
            // Rows that are no whole blocks of 32 values stay: most of gemma2's here.
            let reading = Reading { quantize: Some(quantize), context: 512 };
            let of = |backend| ModelOptions { reading, ..options(backend, 512) };
            let mut cpu = Model::load(&container, &of(Backend::Cpu)).unwrap();
            let rounded = logits(&mut cpu, &reference.ids, 64);
            worst.push(reference.difference(&rounded));
            let mut candle = Model::load(&container, &of(Backend::Candle)).unwrap();
            let other = logits(&mut candle, &reference.ids, 64);
            let largest = rounded.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let apart = rounded.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart <= LIMIT * largest, "{name}: backends differ by {apart}");
        }
        // Random weights are far more sensitive than trained ones; what rounding itself costs is tested beside it.
        assert!(LIMIT < worst[0] && worst[0] < 0.2 && worst[0] < worst[1], "{name}: {worst:?}");
    }
}
