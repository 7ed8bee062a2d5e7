//! Gradients of the training pass: against finite differences and torch, through every block; the second backend against
//! the exact mode on models small enough for every kind of step.

use super::{DenseModel, gradients};
use crate::config::Backend;
use crate::kernels::Precision;
use crate::model::tiny::{self, D_MODEL, Random, VOCAB_SIZE};
use crate::model::{ModelError, Reading, TokenId};
use crate::weights::{Container, GgufWriter, ModelFile};
use candle_core::{D, DType, Device, Tensor, Var};
use serde_json::Value;
use std::path::Path;

/// Blocks of the tiny model: gemma's sixth is its first global one.
const FAMILIES: [(&str, usize); 2] = [("llama", 3), ("gemma3", 6)];

/// Mean negative log-likelihood of `targets` after the last row of each sequence.
fn loss(model: &DenseModel, inputs: &Tensor, lengths: &[usize], targets: &[TokenId]) -> Tensor {
    let hidden = model.hidden(inputs, lengths).unwrap();
    let last: Vec<Tensor> =
        lengths.iter().enumerate().map(|(i, n)| hidden.get(i).unwrap().get(n - 1).unwrap()).collect();
    let logits = model.logits(&Tensor::stack(&last, 0).unwrap(), None).unwrap();
    let normalisers = logits.exp().unwrap().sum_keepdim(D::Minus1).unwrap().log().unwrap();
    let targets = Tensor::new(targets, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
    let chosen = logits.gather(&targets, 1).unwrap();
    (normalisers - chosen).unwrap().mean_all().unwrap()
}

fn random_rows(shape: &[usize], seed: u64) -> Vec<f64> {
    let mut random = Random(seed);
    (0..shape.iter().product()).map(|_| f64::from(random.value())).collect()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// |a - b| / |b|
fn relative(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// Gradient of the loss with respect to two padded sequences of random rows.
struct Case {
    lengths: [usize; 2],
    targets: [TokenId; 2],
    rows: Vec<f64>,
}

impl Case {
    const SHAPE: [usize; 3] = [2, 6, D_MODEL];

    fn new() -> Case {
        Case { lengths: [6, 4], targets: [3, 77], rows: random_rows(&Case::SHAPE, 9) }
    }

    fn inputs(&self, rows: &[f64], dtype: DType) -> Tensor {
        Tensor::from_slice(rows, &Case::SHAPE, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn loss(&self, model: &DenseModel, rows: &[f64]) -> f64 {
        let loss = loss(model, &self.inputs(rows, model.dtype()), &self.lengths, &self.targets);
        values(&loss)[0]
    }

    fn gradient(&self, model: &DenseModel) -> Vec<f64> {
        let rows = Var::from_tensor(&self.inputs(&self.rows, model.dtype())).unwrap();
        let loss = loss(model, &rows, &self.lengths, &self.targets);
        values(&gradients(&loss, &[("rows".into(), rows)]).unwrap()[0])
    }
}

fn dense(file: &Container, dtype: DType) -> DenseModel {
    DenseModel::load_as(file, &Device::Cpu, dtype, Reading::default()).unwrap()
}

#[test]
fn gradients_equal_finite_differences() {
    for (architecture, n_blocks) in FAMILIES {
        let file = tiny::file_of(architecture, n_blocks);
        let (double, single) = (dense(&file, DType::F64), dense(&file, DType::F32));
        let case = Case::new();
        let gradient = case.gradient(&double);
        // Every seventh coordinate: each row of both sequences is met, padding too.
        let step = 1e-5;
        let (mut measured, mut expected) = (Vec::new(), Vec::new());
        for i in (0..case.rows.len()).step_by(7) {
            let moved = |by: f64| {
                let mut rows = case.rows.clone();
                rows[i] += by;
                case.loss(&double, &rows)
            };
            measured.push((moved(step) - moved(-step)) / (2.0 * step));
            expected.push(gradient[i]);
        }
        let error = relative(&expected, &measured);
        let rounding = relative(&case.gradient(&single), &gradient);
        println!("{architecture}: finite differences {error:.1e}, f32 against f64 {rounding:.1e}");
        assert!(error < 1e-6, "{architecture}: relative error {error}");
        assert!(rounding < 1e-4, "{architecture}: f32 differs by {rounding}");
        let padding = &gradient[(6 + 4) * D_MODEL..];
        assert!(padding.iter().all(|value| *value == 0.0), "padding has no influence");
    }
}

#[test]
fn gradients_equal_torch() {
    for (architecture, _) in FAMILIES {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let text = std::fs::read_to_string(fixtures.join(format!("gradients_{architecture}.json"))).unwrap();
        let reference: Value = serde_json::from_str(&text).unwrap();
        let file = Container::open(&fixtures.join(format!("tiny_{architecture}.gguf"))).unwrap();
        assert_eq!(file.digest().to_string(), reference["sha256"].as_str().unwrap());
        let matrix = |value: &Value| -> Vec<Vec<f64>> { serde_json::from_value(value.clone()).unwrap() };
        let soft = matrix(&reference["soft"]);
        for (dtype, bound) in [(DType::F64, 1e-6), (DType::F32, 1e-4)] {
            let model = dense(&file, dtype);
            let d = model.config().d_model;
            let flat: Vec<f64> = soft.iter().flatten().copied().collect();
            let rows =
                Tensor::from_vec(flat, (soft.len(), d), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let rows = Var::from_tensor(&rows).unwrap();
            let sequences = reference["sequences"].as_array().unwrap();
            let (mut parts, mut lengths, mut targets) = (Vec::new(), Vec::new(), Vec::new());
            for sequence in sequences {
                let ids: Vec<TokenId> = serde_json::from_value(sequence["ids"].clone()).unwrap();
                let tokens = model.embed(&ids).unwrap();
                let first = tokens.narrow(0, 0, 1).unwrap();
                let others = tokens.narrow(0, 1, ids.len() - 1).unwrap();
                parts.push(Tensor::cat(&[&first, rows.as_tensor(), &others], 0).unwrap());
                lengths.push(ids.len() + soft.len());
                targets.push(sequence["target"].as_u64().unwrap() as TokenId);
            }
            let t = lengths.iter().copied().max().unwrap();
            let padded: Vec<Tensor> = (parts.iter())
                .map(|part| part.pad_with_zeros(0, 0, t - part.dim(0).unwrap()).unwrap())
                .collect();
            let loss = loss(&model, &Tensor::stack(&padded, 0).unwrap(), &lengths, &targets);
            let loss_error = (values(&loss)[0] - reference["loss"].as_f64().unwrap()).abs();
            let gradient = values(&gradients(&loss, &[("soft".into(), rows)]).unwrap()[0]);
            let wanted: Vec<f64> = matrix(&reference["gradient"]).concat();
            let error = relative(&gradient, &wanted);
            println!("{architecture} {dtype:?}: loss differs by {loss_error:.1e}, gradient by {error:.1e}");
            assert!(error < bound, "{architecture} {dtype:?}: relative error {error}");
            assert!(loss_error < bound, "{architecture} {dtype:?}: the loss differs by {loss_error}");
        }
    }
}

#[test]
fn every_block_s_attention_carries_gradient() {
    for (architecture, n_blocks) in FAMILIES {
        let file = tiny::file_of(architecture, n_blocks);
        let case = Case::new();
        let whole = case.gradient(&dense(&file, DType::F32));
        for l in 0..n_blocks {
            let name = format!("blk.{l}.attn_output.weight");
            let shape = file.tensor(&name).unwrap().shape;
            let Container::Gguf(file) = &file else { panic!("tiny models are GGUF") };
            let mut writer = GgufWriter::copy_of(file);
            writer.tensor_f32(&name, &shape, &vec![0.0; shape.iter().product()]);
            let bytes = writer.to_bytes().unwrap();
            let without = ModelFile::from_bytes(Path::new("without.gguf"), bytes).unwrap().into();
            let change = relative(&case.gradient(&dense(&without, DType::F32)), &whole);
            assert!(change > 1e-2, "{architecture}: block {l}'s attention changes the gradient by {change}");
        }
    }
}

#[test]
fn a_tensor_without_gradient_is_named() {
    let used = Var::ones((2, 4), DType::F32, &Device::Cpu).unwrap();
    let lost = Var::ones((2, 4), DType::F32, &Device::Cpu).unwrap();
    // candle's fused softmax has no backward pass and says nothing.
    let silent = candle_nn::ops::softmax_last_dim(&lost).unwrap();
    let loss = (used.as_tensor() + silent).unwrap().sum_all().unwrap();
    let vars = [("used".to_owned(), used), ("lost".to_owned(), lost)];
    let error = gradients(&loss, &vars).unwrap_err();
    assert!(matches!(&error, ModelError::NoGradient { tensor } if tensor == "lost"), "{error}");
    assert_eq!(gradients(&loss, &vars[..1]).unwrap()[0].dims(), [2, 4]);
}

#[test]
fn bad_inputs_are_errors_that_say_so() {
    let model = dense(&tiny::file("llama"), DType::F32);
    let rows = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let cases = [
        (model.embed(&[0, 96]), "token ids is 96; allowed: 0 to 95, at least one"),
        (model.embed(&[]), "token ids is an empty list; allowed: 0 to 95, at least one"),
        (
            model.hidden(&rows(&[2, 3, 5]), &[3, 3]),
            "the shape of input rows is [2, 3, 5]; allowed: [b, t, 64]",
        ),
        (
            model.hidden(&rows(&[2, 3, 64]), &[3, 4]),
            "lengths of sequences is [3, 4]; allowed: 2 numbers of 1 to 3",
        ),
        (model.logits(&rows(&[2, 64]), Some(&[99])), "token ids is 99; allowed: 0 to 95, at least one"),
    ];
    for (result, message) in cases {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
    let logits = model.logits(&rows(&[2, 64]), Some(&[5, 6, 7])).unwrap();
    assert_eq!(logits.dims(), [2, 3]);
    assert_eq!(model.logits(&rows(&[2, 64]), None).unwrap().dims(), [2, VOCAB_SIZE]);
}

#[test]
fn pages_are_copied_and_cleared() {
    for architecture in ["llama", "gemma3"] {
        // Loading runs the self-test over the pages, so that something has stood in them.
        let mut model = tiny::load_on(Backend::Candle, &tiny::file(architecture), Precision::F32, 4);
        assert!((0..4).all(|page| model.page_is_zero(page)), "the self-test cleans up");
        let cpu = tiny::load(architecture, Precision::F32, 4);
        assert_eq!(model.parameters(), cpu.parameters());
        model.copy_page(0, 1, 64);
        assert!(model.page_is_zero(1));
    }
}
