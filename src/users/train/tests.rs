//! Gradients of every trained tensor, resumed runs, and that what is trained is what is served.

use super::adamw::AdamW;
use super::checkpoint::Checkpoint;
use super::network::{Network, Sample};
use super::prepared::{History, PreparedQuestion, Sequence};
use super::progress::Progress;
use super::stage::Stage;
use super::state::State;
use super::through::{log_odds, reply_loss};
use super::*;
use crate::engine::{Engine, EngineInfo, EngineOptions, Event, Priority, Request, Want};
use crate::kernels::Precision;
use crate::model::tiny;
use crate::model::{Edits, Reading, SoftRows, gradients};
use crate::users::projector::{Layer, Parts};
use crate::weights::Container;
use candle_core::{DType, Device, Tensor, Var};
use serde_json::Value;
use std::path::Path;

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn floats(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).expect("a list of numbers")
}

/// A projector, histories and targets with the loss of `reference_projector.py`.
struct Case {
    model: DenseModel,
    network: Network,
    histories: Vec<(History, Vec<f32>)>,
    sequences: Vec<Sequence>,
}

impl Case {
    fn new(reference: &Value, case: &Value, dtype: DType) -> Case {
        let architecture = case["architecture"].as_str().unwrap();
        let file = Container::open(&fixtures().join(format!("tiny_{architecture}.gguf"))).unwrap();
        let model = DenseModel::load_as(&file, &Device::Cpu, dtype, Reading::default()).unwrap();
        let size = |name: &str| reference["shape"][name].as_u64().unwrap() as usize;
        let number = |name: &str| reference["numbers"][name].as_f64().unwrap() as f32;
        let (e, k, d_model) = (size("e"), size("k"), size("d_model"));
        let tensor = |name: &str| floats(&case["tensors"][name]);
        let form = Form::parse(case["form"].as_str().unwrap()).unwrap();
        let layer = |i: usize| Layer {
            weight: tensor(&format!("layers.{i}.weight")),
            bias: tensor(&format!("layers.{i}.bias")),
        };
        let parts = Parts {
            form,
            k,
            d_model,
            e,
            constant: tensor("constant"),
            centre: tensor("centre"),
            scale: number("scale"),
            layers: vec![layer(0), layer(1)],
            query: if form == Form::InputAware { tensor("query") } else { Vec::new() },
            temperature: number("temperature"),
            static_mean: vec![0.0; e],
            variance_between: 1.0,
            variance_within: 1.0,
            n0: number("n0"),
            n_min: number("n_min"),
            cap: number("cap"),
            weights: file.digest(),
            encoder: Digest::default(),
            encoder_name: "e".into(),
            data: Digest::default(),
            recipe: String::new(),
        };
        let constant = Tensor::from_slice(&parts.constant, (k, d_model), &Device::Cpu).unwrap();
        let network = Network::from_parts(parts, &constant.to_dtype(dtype).unwrap()).unwrap();
        let history = |person: &Value| {
            let embeddings = floats(&person["embeddings"]).chunks(e).map(<[f32]>::to_vec).collect::<Vec<_>>();
            let items = vec![None; embeddings.len()];
            (History { embeddings, weights: floats(&person["weights"]), items }, floats(&person["query"]))
        };
        let histories = case["people"].as_array().unwrap().iter().map(history).collect();
        let sequence = |one: &Value| {
            let mut ids: Vec<u32> = serde_json::from_value(one["ids"].clone()).unwrap();
            ids.push(one["target"].as_u64().unwrap() as u32);
            Sequence { ids, soft_at: 1, query: String::new() }
        };
        let sequences = reference["sequences"].as_array().unwrap().iter().map(sequence).collect();
        Case { model, network, histories, sequences }
    }

    fn loss(&self) -> Tensor {
        let samples: Vec<Sample<'_>> = (self.histories.iter())
            .map(|(history, query)| Sample { history, kept: history.without(None), query })
            .collect();
        let rows = self.network.rows(&samples).unwrap();
        let sequences: Vec<&Sequence> = self.sequences.iter().collect();
        let from: Vec<usize> = sequences.iter().map(|sequence| sequence.ids.len() - 1).collect();
        reply_loss(&self.model, &rows, &sequences, &from).unwrap()
    }

    fn value(&self) -> f64 {
        self.loss().to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// |a - b| / |b|.
fn relative(a: &[f64], b: &[f64]) -> f64 {
    let norm = |values: Vec<f64>| values.iter().map(|x| x * x).sum::<f64>().sqrt();
    norm(a.iter().zip(b).map(|(a, b)| a - b).collect()) / norm(b.to_vec())
}

fn reference() -> Value {
    let text = std::fs::read_to_string(fixtures().join("projector_gradients.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn gradients_of_every_trained_tensor_equal_torch_and_finite_differences() {
    let reference = reference();
    for case in reference["cases"].as_array().unwrap() {
        let name = format!("{} {}", case["architecture"], case["form"]);
        for (dtype, bound) in [(DType::F64, 1e-5), (DType::F32, 1e-3)] {
            let run = Case::new(&reference, case, dtype);
            assert!((run.value() - case["loss"].as_f64().unwrap()).abs() < bound, "{name}");
            let found = gradients(&run.loss(), &run.network.vars).unwrap();
            for ((tensor, _), gradient) in run.network.vars.iter().zip(&found) {
                let expected: Vec<f64> =
                    floats(&case["gradients"][tensor]).into_iter().map(f64::from).collect();
                let error = relative(&flat(gradient), &expected);
                println!("{name} {dtype:?} {tensor}: torch {error:.1e}");
                assert!(error < bound, "{name} {dtype:?} {tensor}: relative error {error}");
            }
        }
        let run = Case::new(&reference, case, DType::F64);
        let found = gradients(&run.loss(), &run.network.vars).unwrap();
        for ((tensor, var), gradient) in run.network.vars.iter().zip(&found) {
            let (values, gradient) = (flat(var.as_tensor()), flat(gradient));
            let step = 1e-5;
            // Some thirty coordinates of each tensor.
            let chosen: Vec<usize> = (0..values.len()).step_by(values.len() / 30 + 1).collect();
            let set = |values: &[f64]| {
                var.set(&Tensor::from_slice(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
            };
            let mut measured = Vec::new();
            for &i in &chosen {
                let moved = |by: f64| {
                    let mut values = values.clone();
                    values[i] += by;
                    set(&values);
                    run.value()
                };
                measured.push((moved(step) - moved(-step)) / (2.0 * step));
            }
            set(&values);
            let expected: Vec<f64> = chosen.iter().map(|&i| gradient[i]).collect();
            let error = relative(&expected, &measured);
            println!("{name} {tensor}: finite differences {error:.1e}");
            assert!(error < 1e-5, "{name} {tensor}: relative error {error}");
        }
    }
}

#[test]
fn the_network_and_the_projector_give_the_same_rows() {
    let reference = reference();
    for case in reference["cases"].as_array().unwrap() {
        let run = Case::new(&reference, case, DType::F32);
        let projector = Projector::from_parts(&run.network.parts("test").unwrap(), StoredType::F32).unwrap();
        for (history, query) in &run.histories {
            let kept = history.without(None);
            let rows = projector.input_aware_prompt(&history.items(&kept), query);
            let sample = Sample { history, kept, query };
            let trained = flat(&run.network.rows(&[sample]).unwrap());
            assert!(rows.effect);
            for (served, trained) in rows.values.iter().zip(trained) {
                assert!((f64::from(*served) - trained).abs() < 1e-5, "{served} {trained}");
            }
        }
    }
}

/// The path that trains and the path that serves give the same log-odds for the same rows.
#[test]
fn what_is_trained_is_what_is_served() {
    for architecture in ["llama", "gemma3"] {
        let file = tiny::file(architecture);
        let dense = DenseModel::load(&file, &Device::Cpu, Reading::default()).unwrap();
        let mut random = tiny::Random(3);
        let values: Vec<f32> = (0..4 * tiny::D_MODEL).map(|_| random.value()).collect();
        let rows = Tensor::from_slice(&values, (1, 4, tiny::D_MODEL), &Device::Cpu).unwrap();
        for soft_at in [0, 1] {
            let sequence = Sequence { ids: vec![5, 40, 7, 61], soft_at, query: String::new() };
            let question = PreparedQuestion { item: "i".into(), sequence, choices: [9, 30], mean: 0.0 };
            let trained = flat(&log_odds(&dense, &rows, &[&question]).unwrap())[0];
            let served = served_log_odds(architecture, &question, &values);
            assert!((trained - served).abs() < 1e-3, "{architecture}: {trained} {served}");
        }
    }
}

fn served_log_odds(architecture: &str, question: &PreparedQuestion, rows: &[f32]) -> f64 {
    let model = tiny::load(architecture, Precision::F32, 8);
    let info = EngineInfo::of_tiny(&model, 1);
    let options = EngineOptions { max_batch: 1, queue: 4, step_budget_ms: 20.0, draft_max: 0 };
    let engine = Engine::start(model, info, options).unwrap();
    let mut events = engine
        .submit(Request {
            prompt: question.sequence.ids.clone(),
            soft: SoftRows::new(rows.to_vec(), 4, tiny::D_MODEL).unwrap(),
            soft_at: question.sequence.soft_at as u32,
            edits: std::sync::Arc::<Edits>::default(),
            want: Want::Score(question.choices.iter().map(|id| vec![*id]).collect()),
            priority: Priority::Serving,
            owner: Digest::default(),
            cache_salt: Digest::default(),
            use_cache: false,
        })
        .unwrap();
    while let Some(event) = events.next_blocking() {
        if let Event::Scored(scored) = event {
            return f64::from(scored[0][0]) - f64::from(scored[1][0]);
        }
    }
    panic!("no score");
}

/// A state whose loss needs no model: the rows are drawn to fixed ones.
struct Toy {
    state: State,
    history: History,
}

impl Toy {
    fn new() -> Toy {
        let reference = reference();
        let run = Case::new(&reference, &reference["cases"][0], DType::F32);
        let readout = Var::from_slice(&[0.3f32, 3.0, 0.0, 1.0], 4, &Device::Cpu).unwrap();
        let (history, _) = run.histories.into_iter().next().unwrap();
        Toy { state: State { network: run.network, readout }, history }
    }

    fn loss(&self, step: usize) -> Result<Tensor, TrainError> {
        let sample = Sample { history: &self.history, kept: self.history.without(None), query: &[] };
        let rows = self.state.network.rows(&[sample]).map_err(error::failed("rows"))?;
        let loss = rows.affine(1.0, -0.1 * (step % 3) as f64).and_then(|rows| rows.sqr()?.mean_all());
        loss.map_err(error::failed("loss"))
    }

    /// Eleven steps; with `fails_at` the loss fails there, as a run that is killed.
    fn run(&self, folder: &Path, resume: bool, fails_at: Option<usize>) -> Result<(), TrainError> {
        let mut say = |_: &str| {};
        let mut progress = Progress::open(Some(folder.to_owned()), resume, &mut say)?;
        let path = folder.join("checkpoint.safetensors");
        let mut checkpoint = Checkpoint::open(path, Digest::of(b"toy"), resume)?;
        checkpoint.restore(&self.state)?;
        let loss = |step| match fails_at {
            Some(at) if step == at => Err(TrainError::Data("killed".into())),
            _ => self.loss(step),
        };
        let held_out = || {
            let value = self.loss(0)?.to_scalar::<f32>().map_err(error::failed("loss"))?;
            Ok(vec![("minus loss", -f64::from(value))])
        };
        Stage {
            name: THROUGH_MODEL,
            index: 0,
            steps: 11,
            rate: 0.01,
            optimiser: self.state.projector_optimiser(0.01, None)?,
            loss: &loss,
            held_out: Some(&held_out),
            evaluate_every: 4,
            patience: 100,
        }
        .run(&self.state, &mut progress, &mut checkpoint)
    }

    fn values(&self) -> Vec<Vec<f64>> {
        self.state.named().iter().map(|(_, var)| flat(var.as_tensor())).collect()
    }
}

#[test]
fn a_resumed_run_ends_where_an_undisturbed_one_does() {
    let folder = |name: &str| {
        let folder = std::env::temp_dir().join(format!("demeanor-train-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    };
    let whole = Toy::new();
    let before = whole.values();
    whole.run(&folder("whole"), false, None).unwrap();
    let first = Toy::new();
    let cut = folder("cut");
    assert!(first.run(&cut, false, Some(6)).is_err());
    let second = Toy::new();
    second.run(&cut, true, None).unwrap();
    assert_ne!(whole.values(), before);
    assert_eq!(whole.values(), second.values());
    // Steps 4 to 6 ran twice and stand in the log twice; the curve has them once.
    let log = std::fs::read_to_string(cut.join("log.jsonl")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("\"loss\"")).count(), 6 + 7);
    assert!(std::fs::read_to_string(cut.join("curve.svg")).unwrap().contains("<polyline"));
    // Over: a further resume changes nothing.
    second.run(&cut, true, None).unwrap();
    assert_eq!(whole.values(), second.values());
    let other = Checkpoint::open(cut.join("checkpoint.safetensors"), Digest::of(b"other"), true);
    assert!(other.is_err_and(|error| error.to_string().contains("other data")));
}

#[test]
fn resized_changes_are_read_the_same() {
    let toy = Toy::new();
    let rows = || {
        let sample = Sample { history: &toy.history, kept: toy.history.without(None), query: &[] };
        let constant = flat(toy.state.network.constant.as_tensor());
        let rows = flat(&toy.state.network.rows(&[sample]).unwrap());
        rows.iter().zip(constant).map(|(row, constant)| row - constant).collect::<Vec<_>>()
    };
    toy.state.resize(0.25).unwrap();
    let quarter = rows();
    toy.state.resize(0.5).unwrap();
    let eighth = rows();
    for (quarter, eighth) in quarter.iter().zip(&eighth) {
        assert!((quarter - 2.0 * eighth).abs() < 1e-6, "{quarter} {eighth}");
    }
    assert_eq!(toy.state.readout.to_vec1::<f32>().unwrap()[state::DEVIATION], 8.0);
}

#[test]
fn a_stage_keeps_the_best_step() {
    let toy = Toy::new();
    let mut say = |_: &str| {};
    let mut progress = Progress::open(None, false, &mut say).unwrap();
    // Steps go up the loss, so the second look is best, and two looks without a better one end the stage.
    let loss = |step| toy.loss(step)?.neg().map_err(error::failed("loss"));
    let taken = std::cell::Cell::new(0);
    let held_out = || {
        taken.set(taken.get() + 1);
        let value = toy.loss(0)?.to_scalar::<f32>().map_err(error::failed("loss"))?;
        // The first look says nothing, as one at a projector without any change.
        let score = if taken.get() == 1 { f64::NAN } else { -f64::from(value) };
        Ok(vec![("minus loss", score)])
    };
    let before = toy.values();
    let stage = Stage {
        name: THROUGH_MODEL,
        index: 0,
        steps: 100,
        rate: 0.01,
        optimiser: AdamW::new(
            toy.state.network.vars.iter().map(|(name, var)| (name.clone(), var.clone(), 1.0, 0.0)).collect(),
        )
        .unwrap(),
        loss: &loss,
        held_out: Some(&held_out),
        evaluate_every: 5,
        patience: 2,
    };
    stage.run(&toy.state, &mut progress, &mut Checkpoint::none()).unwrap();
    assert_eq!(taken.get(), 4);
    assert_ne!(toy.values(), before);
    let best = -toy.loss(0).unwrap().to_scalar::<f32>().unwrap();
    assert!(best < 0.0 && toy.state.network.vars.len() == 4);
}
