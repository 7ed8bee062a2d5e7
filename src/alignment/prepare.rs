//! Measures once per model and inventory: which form of question it answers, its own answers, how they change, and how far
//! that is true.

use super::AlignmentError;
use super::aligner::{Aligner, Told, spread};
use super::ask::{Asker, Tokens};
use super::forms::{FORMS, Form};
use super::gradients::{self, Gradients};
use super::inventory::{Domain, Inventory};
use super::linear::length;
use super::pas::Activations;
use super::prepared::{Prepared, Readout, read_file, write_file};
use crate::limits;
use crate::model::{DenseModel, Edits, Place, Reading};
use crate::statistics::{correlation, mean};
use crate::weights::Container;
use crate::weights::safetensors::{self, Bounds, Safetensors};
use candle_core::Device;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Correlation of real and first-order changes from which on the gradients count as true.
const LINEAR_FROM: f64 = 0.9;
/// Items of each made-up person whose real change is measured.
const LINEAR_ITEMS: usize = 16;
/// Each norm is this much above the one before it.
const LINEAR_STEP: f64 = std::f64::consts::SQRT_2;
const LINEAR_NORMS_MAX: usize = 10;
/// The first norm changes answers by so much on average: it stands out of the arithmetic's rounding, and whatever is
/// worth moving moves at least so far.
const LINEAR_START: f64 = 0.15;
/// Change at which nothing but rounding is measured, and the made-up people it is measured with.
const ROUNDING_AT: f64 = 0.005;
const ROUNDING_PEOPLE: usize = 4;
/// How far a made-up person's answers are from those of people in general.
const MADE_UP_BY: f64 = 1.0;

/// Steps of the whole work, for its progress.
struct Steps<'p, 'q> {
    told: &'p mut (dyn FnMut(u64, u64, &str) -> Result<(), AlignmentError> + 'q),
    before: u64,
    total: u64,
}

impl Steps<'_, '_> {
    fn tell(&mut self, done: u64, message: &str) -> Result<(), AlignmentError> {
        (self.told)(self.before + done, self.total, message)
    }
}

/// The loaded model's weights on disk, and how they are taken: gradients need them in f32 for a minute, once.
#[derive(Clone, Debug)]
pub struct BaseWeights {
    pub path: PathBuf,
    pub reading: Reading,
}

pub fn prepare(
    asker: &Asker,
    inventory: &Arc<Inventory>,
    weights: &BaseWeights,
    told: Told<'_>,
) -> Result<Prepared, AlignmentError> {
    let info = asker.engine.info();
    if info.parameters > limits::ALIGNMENT_PARAMETERS_MAX {
        let (given, max) = (info.parameters, limits::ALIGNMENT_PARAMETERS_MAX);
        return Err(AlignmentError::TooLarge { given, max });
    }
    let (known, items) = (inventory.known(), inventory.items.len());
    let people = Domain::ALL.len() * 2;
    let range = (ROUNDING_PEOPLE + people * LINEAR_NORMS_MAX) * LINEAR_ITEMS;
    let total = FORMS.len() * known.len() + items + items + range;
    let mut steps = Steps { told, before: 0, total: total as u64 };
    let texts: Vec<&str> = inventory.items.iter().map(|item| item.text.as_str()).collect();
    let (form, tokens, bias, correlations) = choose(asker, inventory, &texts, &mut steps)?;
    steps.before = (FORMS.len() * known.len()) as u64;
    let all: Vec<usize> = (0..items).collect();
    let options = asker.options(&tokens, &all, &Arc::default(), &mut |done, text| steps.tell(done, text))?;
    // As the file keeps them, so that a later start gives the same.
    let signals: Vec<f64> = options.iter().map(|one| f64::from(form.signal(one, &bias) as f32)).collect();
    let readout = Readout::fitted(form, bias, &signals, inventory, correlations);
    steps.before += items as u64;
    let gradients = measure_gradients(weights, &readout, &tokens, &mut steps)?;
    steps.before += items as u64;
    let first_block = gradients.n_blocks / 3;
    let (norm_cap, linearity) = (f64::INFINITY, Vec::new());
    let mut prepared = Prepared { readout, signals, gradients, first_block, norm_cap, linearity };
    let aligner = Aligner::new(asker.clone(), inventory.clone(), prepared.clone(), PathBuf::new())?;
    (prepared.norm_cap, prepared.linearity) = measure_range(&aligner, &mut steps)?;
    Ok(prepared)
}

type Chosen = (&'static Form, Tokens, Vec<f64>, BTreeMap<String, f64>);

/// The form whose signals over the known items go along best with the norms; without norms the first one that the model's
/// tokens allow.
fn choose(
    asker: &Asker,
    inventory: &Inventory,
    texts: &[&str],
    steps: &mut Steps<'_, '_>,
) -> Result<Chosen, AlignmentError> {
    let known = inventory.known();
    let norms: Option<Vec<f64>> = known.iter().map(|&i| Some(inventory.items[i].norm?.mean)).collect();
    let mut correlations = BTreeMap::new();
    let mut best: Option<(f64, Chosen)> = None;
    for (at, form) in FORMS.iter().enumerate() {
        let Some(tokens) = asker.tokens(form, texts)? else { continue };
        steps.before = (at * known.len()) as u64;
        let options = asker
            .options(&tokens, &known, &Arc::<Edits>::default(), &mut |done, text| steps.tell(done, text))?;
        let bias: Vec<f64> = (0..form.options.len())
            .map(|option| options.iter().map(|one| one[option]).collect::<Vec<f64>>())
            .map(|values| f64::from(mean(&values) as f32))
            .collect();
        let signals: Vec<f64> = options.iter().map(|one| form.signal(one, &bias)).collect();
        let r = match &norms {
            Some(norms) => Some(correlation(&signals, norms)).filter(|r| r.is_finite()).unwrap_or(-1.0),
            None => 0.0,
        };
        if norms.is_some() {
            correlations.insert(form.name.to_owned(), r);
        }
        if best.as_ref().is_none_or(|(other, _)| r > *other) {
            best = Some((r, (form, tokens, bias, BTreeMap::new())));
        }
        if norms.is_none() {
            break;
        }
    }
    let (_, (form, tokens, bias, _)) = best.ok_or(AlignmentError::NoForm)?;
    Ok((form, tokens, bias, correlations))
}

fn measure_gradients(
    weights: &BaseWeights,
    readout: &Readout,
    tokens: &Tokens,
    steps: &mut Steps<'_, '_>,
) -> Result<Gradients, AlignmentError> {
    let failed = |error: &dyn std::fmt::Display| {
        AlignmentError::Failed(format!(
            "`{}` cannot be loaded for gradients: {error}",
            weights.path.display()
        ))
    };
    steps.tell(0, "loading the model for gradients")?;
    let container = Container::open(&weights.path).map_err(|error| failed(&error))?;
    let model =
        DenseModel::load(&container, &Device::Cpu, weights.reading).map_err(|error| failed(&error))?;
    // A head behind a norm cannot be moved; what attention adds can. The published search needs the heads of all blocks.
    let (place, first) = match model.config().post_norms {
        true => (Place::Attention, model.config().n_blocks / 3),
        false => (Place::Heads, 0),
    };
    let (form, bias) = (readout.form, &readout.bias);
    gradients::measure(&model, form, tokens, bias, (place, first), &mut |done, text| steps.tell(done, text))
}

/// What is measured of made-up people: one for each end of each domain, otherwise like people in general.
struct Trial<'a> {
    aligner: &'a Aligner,
    items: Vec<usize>,
    /// The constants that ridge finds for each, unit length.
    directions: Vec<Vec<f64>>,
    /// Change of the items' answers along each, by the gradients.
    promised: Vec<Vec<f64>>,
}

impl<'a> Trial<'a> {
    fn new(aligner: &'a Aligner) -> Trial<'a> {
        let (inventory, linear) = (aligner.inventory(), aligner.linear());
        let known = inventory.known();
        let general = |item: usize| inventory.items[item].norm.map_or(linear.plain[item], |norm| norm.mean);
        let mut directions: Vec<Vec<f64>> = Vec::new();
        for (domain, sign) in Domain::ALL.iter().flat_map(|domain| [(domain, 1.0), (domain, -1.0)]) {
            let wanted = known.iter().map(|&item| {
                let own = &inventory.items[item];
                let by = if own.domain == *domain { sign * MADE_UP_BY * f64::from(own.key) } else { 0.0 };
                (item, (general(item) + by).clamp(1.0, 5.0))
            });
            let found = linear.solve(&[wanted.collect()], f64::INFINITY).constants;
            let norm = length(&found);
            if norm > 0.0 {
                directions.push(found.iter().map(|value| value / norm).collect());
            }
        }
        let items = spread(&known, LINEAR_ITEMS);
        let promised = directions.iter().map(|one| items.iter().map(|&i| linear.change(one, i)).collect());
        Trial { aligner, promised: promised.collect(), items, directions }
    }

    /// Real and first-order changes at a norm for the first `people`.
    fn changes(
        &self,
        norm: f64,
        people: usize,
        steps: &mut Steps<'_, '_>,
    ) -> Result<(Vec<f64>, Vec<f64>), AlignmentError> {
        let (mut real, mut expected) = (Vec::new(), Vec::new());
        for (direction, promised) in self.directions.iter().zip(&self.promised).take(people) {
            let constants: Vec<f64> = direction.iter().map(|value| norm * value).collect();
            let edits = self.aligner.edits(&constants)?;
            let told = &mut |done: u64, text: &str| steps.tell(done, text);
            let measured = self.aligner.measured(&edits, &self.items, told)?;
            steps.before += self.items.len() as u64;
            let plain = &self.aligner.linear().plain;
            real.extend(self.items.iter().zip(measured).map(|(&item, answer)| answer - plain[item]));
            expected.extend(promised.iter().map(|change| norm * change));
        }
        Ok((real, expected))
    }
}

/// The largest norm up to which real changes go along with first-order ones, and what was tried. Rounding of the
/// arithmetic, which is measured at a change of next to nothing, does not count against the gradients.
fn measure_range(
    aligner: &Aligner,
    steps: &mut Steps<'_, '_>,
) -> Result<(f64, Vec<(f64, f64)>), AlignmentError> {
    let trial = Trial::new(aligner);
    let sizes: Vec<f64> = trial.promised.iter().flatten().map(|change| change.abs()).collect();
    let size = if sizes.is_empty() { 0.0 } else { mean(&sizes) };
    if !size.is_normal() {
        return Err(AlignmentError::Failed("no item's answer can be moved on this model".into()));
    }
    let variance =
        |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64;
    let (real, expected) = trial.changes(ROUNDING_AT / size, ROUNDING_PEOPLE, steps)?;
    let rounding = variance(&real.iter().zip(&expected).map(|(r, e)| r - e).collect::<Vec<f64>>());
    let start = LINEAR_START / size;
    let (mut norm, mut cap, mut linearity) = (start, start, Vec::new());
    for _ in 0..LINEAR_NORMS_MAX {
        let (real, expected) = trial.changes(norm, usize::MAX, steps)?;
        let total = variance(&real);
        let kept = ((total - rounding).max(0.0) / total.max(f64::MIN_POSITIVE)).sqrt();
        let r = (correlation(&real, &expected) / kept.max(1e-3)).min(1.0);
        linearity.push((f64::from(norm as f32), f64::from(r as f32)));
        if r.is_nan() || r < LINEAR_FROM {
            break;
        }
        cap = norm;
        norm *= LINEAR_STEP;
    }
    Ok((f64::from(cap as f32), linearity))
}

const HEADS_BOUNDS: Bounds = Bounds { header_bytes: limits::VECTOR_HEADER_BYTES_MAX, tensors: 1 };

/// What heads say behind each item, from the file at `path` or measured and kept there.
pub fn activations(asker: &Asker, tokens: &Tokens, path: &Path) -> Result<Activations, AlignmentError> {
    let info = asker.engine.info();
    let (heads, d_head) = ((info.n_blocks * info.n_heads) as usize, info.d_head as usize);
    let shape = [tokens.prompts.len(), 2, heads, d_head];
    if let Some(bytes) = read_file(path)
        && let Ok(file) = Safetensors::read(&bytes, HEADS_BOUNDS)
        && let Some(tensor) = file.tensors.get("activations")
        && tensor.shape.iter().map(|size| *size as usize).eq(shape)
        && let Ok(values) = tensor.floats()
    {
        return Ok(Activations { heads, d_head, values });
    }
    let pairs = asker.heads(tokens, &mut |_, _| Ok(()))?;
    let values: Vec<f32> = pairs.into_iter().flatten().flatten().collect();
    let form = BTreeMap::from([("schema".to_owned(), "demeanor.alignment.heads/1".to_owned())]);
    write_file(path, &safetensors::write(&form, &[("activations", &shape, &values)]))?;
    Ok(Activations { heads, d_head, values })
}
