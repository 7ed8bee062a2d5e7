//! Finds, for one person's answers, the constants that lean a model's answers their way; measures what they do.

use super::AlignmentError;
use super::algebra::{Square, dot};
use super::ask::{Asker, Tokens};
use super::inventory::{Domain, Inventory};
use super::pas::{self, Activations, Head};
use super::prepared::{Key, Prepared};
use super::scoring::Answers;
use super::{compile, prepare, ridge};
use crate::digest::Digest;
use crate::engine::Engine;
use crate::limits;
use crate::model::{Edits, Place};
use crate::steering::{Origin, Provenance, Vector, edits_for};
use crate::text::Text;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Items of the pass that measures the shift of the mean.
const SHIFT_ITEMS: usize = 60;
/// The correction of the mean is at most so long (as a norm of constants): what is left then stays.
const SHIFT_NORM_MAX: f64 = 1.5;
/// Strengths that the published search tries.
const ALPHAS: [f64; 6] = [0.0, 1.0, 2.0, 4.0, 6.0, 8.0];
/// Parts of a person's items for choosing the strength by cross-validation.
const FOLDS: usize = 3;
/// Seed of the splits; the result depends on the answers alone.
const SEED: u64 = 1;

/// How a person's answers become a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Kernel ridge on the items' gradients.
    Ridge,
    /// The published activation search.
    Pas,
    /// What people on average answer; no person in it.
    Population,
    /// A common shift of all answers; no person in it.
    Shift,
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Ridge => "ridge",
            Algorithm::Pas => "pas",
            Algorithm::Population => "population",
            Algorithm::Shift => "shift",
        }
    }
}

/// How the published search is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Raw answers as labels, the strength by cross-validation on what is known of the person.
    Honest,
    /// As published: answers turned to the domain's direction as labels, the strength chosen on the unseen items. For
    /// comparison only.
    Paper,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Honest => "honest",
            Protocol::Paper => "paper",
        }
    }
}

/// A vector for one person, with how it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Aligned {
    pub algorithm: Algorithm,
    /// Added to every row at the place of the gradients, `[n_blocks * width]`.
    pub constants: Vec<f64>,
    /// Answer to each item by the gradients, 1 to 5 where they hold.
    pub predicted: Vec<f64>,
    /// Penalty of the ridge.
    pub lambda: Option<f64>,
    /// Norm of the constants before they were capped, and the factor of the cap.
    pub norm: f64,
    pub scale: f64,
    /// Difference of mean answers that was measured, and the norm of what was added against it.
    pub shift: Option<(f64, f64)>,
    /// Strength that the published search chose.
    pub alpha: Option<f64>,
    /// Heads that it moves, best first.
    pub heads: Vec<Head>,
    /// Answers it was made from.
    pub used: usize,
    pub warnings: Vec<String>,
}

impl Aligned {
    /// How it came about, for results and reports.
    pub fn json(&self) -> Value {
        json!({
            "algorithm": self.algorithm.name(), "used": self.used, "lambda": self.lambda,
            "norm": self.norm, "scale": self.scale,
            "shift": self.shift.map(|(measured, norm)| json!({"measured": measured, "norm": norm})),
            "alpha": self.alpha, "heads": self.heads.iter().map(|head| head.head).collect::<Vec<_>>(),
        })
    }
}

/// A model that is ready to be aligned to people by one inventory. Its methods block; they belong on a thread of their
/// own.
pub struct Aligner {
    asker: Asker,
    inventory: Arc<Inventory>,
    tokens: Tokens,
    prepared: Prepared,
    /// Products of the gradients of the blocks that ridge moves, of mean diagonal 1 over the known items.
    kernel: Square,
    /// What the kernel was divided by.
    unit: f64,
    /// Without a plan, not held to the scale.
    plain: Vec<f64>,
    /// For the published search; measured when it is first asked for.
    activations: OnceLock<Activations>,
    folder: PathBuf,
}

/// Done, of how many, and what is happening; an error ends the work.
pub type Told<'p> = &'p mut dyn FnMut(u64, u64, &str) -> Result<(), AlignmentError>;

impl Aligner {
    /// Reads what was measured once of this model and inventory from `folder`, or measures it: about a minute for a small
    /// model. `weights` is the model's file; `told` hears of the progress.
    pub fn open(
        engine: &Engine,
        text: &Arc<Text>,
        inventory: Arc<Inventory>,
        weights: &Path,
        folder: &Path,
        told: Told<'_>,
    ) -> Result<Aligner, AlignmentError> {
        let asker = Asker { engine: engine.clone(), text: text.clone() };
        let info = engine.info();
        let key = Key {
            weights: info.weights_digest,
            inventory: inventory.digest(),
            arithmetic: info.arithmetic.clone(),
        };
        let path = folder.join(format!("{}.safetensors", key.stem()));
        let prepared = match Prepared::read(&path, &key, &inventory) {
            Some(prepared) => prepared,
            None => {
                let prepared = prepare::prepare(&asker, &inventory, weights, told)?;
                prepared.write(&path, &key)?;
                prepared
            }
        };
        Aligner::new(asker, inventory, prepared, folder.join(format!("{}-heads.safetensors", key.stem())))
    }

    pub(super) fn new(
        asker: Asker,
        inventory: Arc<Inventory>,
        prepared: Prepared,
        folder: PathBuf,
    ) -> Result<Aligner, AlignmentError> {
        let texts: Vec<&str> = inventory.items.iter().map(|item| item.text.as_str()).collect();
        let tokens = asker.tokens(prepared.readout.form, &texts)?.ok_or(AlignmentError::NoForm)?;
        let (kernel, unit) = kernel(&prepared, &inventory.known());
        let plain = prepared.signals.iter().map(|signal| prepared.readout.answer(*signal)).collect();
        let activations = OnceLock::new();
        Ok(Aligner { asker, inventory, tokens, prepared, kernel, unit, plain, activations, folder })
    }

    pub fn inventory(&self) -> &Arc<Inventory> {
        &self.inventory
    }

    /// Readout, gradients and their range.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    pub(super) fn into_prepared(self) -> Prepared {
        self.prepared
    }

    pub(super) fn kernel(&self) -> &Square {
        &self.kernel
    }

    /// The model's own answer to an item, not held to the scale.
    pub(super) fn own(&self, item: usize) -> f64 {
        self.plain[item]
    }

    /// The model's own answer to every item, 1 to 5.
    pub fn plain(&self) -> Vec<f64> {
        self.plain.iter().map(|answer| answer.clamp(1.0, 5.0)).collect()
    }

    /// The model's answers to `items` under a plan, 1 to 5, by forward passes.
    pub fn answers(&self, edits: &Arc<Edits>, items: &[usize]) -> Result<Vec<f64>, AlignmentError> {
        let answers = self.measured(edits, items, &mut |_, _| Ok(()))?;
        Ok(answers.into_iter().map(|answer| answer.clamp(1.0, 5.0)).collect())
    }

    /// The same, not held to the scale.
    pub(super) fn measured(
        &self,
        edits: &Arc<Edits>,
        items: &[usize],
        progress: super::ask::Progress<'_>,
    ) -> Result<Vec<f64>, AlignmentError> {
        let readout = &self.prepared.readout;
        let options = self.asker.options(&self.tokens, items, edits, progress)?;
        Ok(options.iter().map(|one| readout.answer(readout.form.signal(one, &readout.bias))).collect())
    }

    /// Where few answers are known, the population's vector; else the ridge's. Refuses answers that cannot describe a
    /// person.
    pub fn align(
        &self,
        answers: &Answers,
        algorithm: Algorithm,
        protocol: Protocol,
    ) -> Result<Aligned, AlignmentError> {
        self.check(answers, algorithm, protocol)?;
        let decided = answers.decided();
        if decided < limits::DECIDED_ANSWERS_MIN {
            let mut aligned = self.population()?;
            let needed = limits::DECIDED_ANSWERS_MIN;
            aligned.warnings.push(format!(
                "{decided} answers take a side, {needed} are needed to tell a person from others: the vector is that of people in general"
            ));
            return Ok(aligned);
        }
        match algorithm {
            Algorithm::Ridge => self.ridge(answers),
            Algorithm::Pas => self.pas(answers, protocol),
            Algorithm::Population => self.population(),
            Algorithm::Shift => self.shift_only(self.mean_difference(answers)),
        }
    }

    /// Whether [`Aligner::align`] would take these answers; needs no model.
    fn check(
        &self,
        answers: &Answers,
        algorithm: Algorithm,
        protocol: Protocol,
    ) -> Result<(), AlignmentError> {
        check(answers, &self.inventory, algorithm, protocol)?;
        match (algorithm, self.prepared.gradients.place) {
            (Algorithm::Pas, Place::Attention) => Err(AlignmentError::HeadsBehindNorm),
            _ => Ok(()),
        }
    }

    /// The vector that brings the model's answers to a person's: from the population's on where the inventory has norms.
    pub fn ridge(&self, answers: &Answers) -> Result<Aligned, AlignmentError> {
        let answered = answers.answered();
        let mut weights = vec![0.0; self.inventory.items.len()];
        if let Some(fit) = self.population_fit() {
            self.inventory.known().iter().zip(&fit.coefficients).for_each(|(&i, a)| weights[i] += a);
        }
        let started = self.moved(&weights);
        let residuals: Vec<f64> =
            answered.iter().map(|&i| answers.get(i).unwrap_or(3.0) - started[i]).collect();
        let fit = ridge::fit(&self.kernel.part(&answered), &residuals);
        answered.iter().zip(&fit.coefficients).for_each(|(&i, a)| weights[i] += a);
        let mut aligned = self.of_weights(Algorithm::Ridge, &weights, Some(fit.lambda));
        aligned.used = answered.len();
        self.correct_mean(&mut aligned, |item| answers.get(item))?;
        Ok(aligned)
    }

    /// The vector that brings the model's answers to the norms.
    pub fn population(&self) -> Result<Aligned, AlignmentError> {
        let Some(fit) = self.population_fit() else {
            let (given, needed) = (0, limits::DECIDED_ANSWERS_MIN);
            return Err(AlignmentError::TooFew { given, needed });
        };
        let mut weights = vec![0.0; self.inventory.items.len()];
        self.inventory.known().iter().zip(&fit.coefficients).for_each(|(&i, a)| weights[i] += a);
        let mut aligned = self.of_weights(Algorithm::Population, &weights, Some(fit.lambda));
        self.correct_mean(&mut aligned, |item| self.inventory.items[item].norm.map(|norm| norm.mean))?;
        Ok(aligned)
    }

    /// A vector that shifts all answers by about `shift` and does nothing else: the control for every other one.
    pub fn shift_only(&self, shift: f64) -> Result<Aligned, AlignmentError> {
        let (common, slope) = self.common();
        let norm = if slope == 0.0 { 0.0 } else { shift / slope };
        let constants: Vec<f64> = common.iter().map(|value| norm * value).collect();
        Ok(Aligned { norm: norm.abs(), ..self.of_constants(Algorithm::Shift, constants) })
    }

    fn mean_difference(&self, answers: &Answers) -> f64 {
        let answered = answers.answered();
        let differences: Vec<f64> =
            answered.iter().filter_map(|&i| Some(answers.get(i)? - self.plain[i])).collect();
        crate::statistics::mean(&differences)
    }

    /// The published search.
    pub fn pas(&self, answers: &Answers, protocol: Protocol) -> Result<Aligned, AlignmentError> {
        self.check(answers, Algorithm::Pas, protocol)?;
        let activations = self.activations()?;
        // As published, a label is the answer in the domain's direction.
        let value = |item: usize| {
            let raw = answers.get(item)?;
            Some(match protocol {
                Protocol::Honest => raw,
                Protocol::Paper => self.inventory.items[item].keyed(raw),
            })
        };
        let labelled: Vec<(usize, bool)> = (self.inventory.known().into_iter())
            .filter_map(|item| value(item).filter(|value| *value != 3.0).map(|value| (item, value > 3.0)))
            .collect();
        let find = |labelled: &[(usize, bool)]| {
            let (fitted, others) = pas::split(labelled, SEED);
            pas::search(activations, (&fitted, &others), pas::HEADS)
        };
        let error = |constants: &[f64], alpha: f64, items: &[usize]| -> f64 {
            let errors = items.iter().filter_map(|&item| {
                let moved = self.plain[item] + alpha * self.first_order(constants, item);
                Some((moved.clamp(1.0, 5.0) - value(item)?).abs())
            });
            errors.sum::<f64>()
        };
        let found = find(&labelled);
        let unit = pas::constants(&found, activations.heads, activations.d_head);
        let mut errors = [0.0; ALPHAS.len()];
        match protocol {
            Protocol::Honest => {
                for fold in 0..FOLDS {
                    let (held, rest): (Vec<_>, Vec<_>) =
                        labelled.iter().enumerate().partition(|(at, _)| at % FOLDS == fold);
                    let rest: Vec<(usize, bool)> = rest.into_iter().map(|(_, one)| *one).collect();
                    let held: Vec<usize> = held.into_iter().map(|(_, one)| one.0).collect();
                    let found = pas::constants(&find(&rest), activations.heads, activations.d_head);
                    for (sum, alpha) in errors.iter_mut().zip(ALPHAS) {
                        *sum += error(&found, alpha, &held);
                    }
                }
            }
            Protocol::Paper => {
                let unseen: Vec<usize> = (self.inventory.unseen().into_iter())
                    .filter(|&item| answers.get(item).is_some())
                    .collect();
                errors = ALPHAS.map(|alpha| error(&unit, alpha, &unseen));
            }
        }
        // Of equal errors the smallest strength.
        let best = (0..ALPHAS.len()).fold(0, |best, at| if errors[at] < errors[best] { at } else { best });
        let alpha = ALPHAS[best];
        let constants: Vec<f64> = unit.iter().map(|value| alpha * value).collect();
        let mut aligned = self.of_constants(Algorithm::Pas, constants);
        (aligned.alpha, aligned.used, aligned.heads) = (Some(alpha), labelled.len(), found.heads);
        if alpha == 0.0 {
            aligned.warnings.push(
                "the published search found no strength that predicts the answers better than none: nothing is moved"
                    .to_owned(),
            );
        }
        if protocol == Protocol::Paper {
            aligned.warnings.push(
                "protocol `paper` chooses its strength on the answers it is scored on; for comparison only"
                    .to_owned(),
            );
        }
        Ok(aligned)
    }

    /// What heads say at the answers; measured once and kept.
    fn activations(&self) -> Result<&Activations, AlignmentError> {
        if self.activations.get().is_none() {
            let measured = prepare::activations(&self.asker, &self.tokens, &self.folder)?;
            let _ = self.activations.set(measured);
        }
        self.activations.get().ok_or_else(|| AlignmentError::Failed("activations are gone".into()))
    }

    /// The edits of a vector.
    pub fn edits_of(&self, aligned: &Aligned) -> Result<Arc<Edits>, AlignmentError> {
        self.edits(&aligned.constants)
    }

    pub(super) fn edits(&self, constants: &[f64]) -> Result<Arc<Edits>, AlignmentError> {
        let vector = self.compiled("alignment", constants)?;
        let n_blocks = self.asker.engine.info().n_blocks;
        Ok(Arc::new(vector.map_or_else(Edits::none, |vector| edits_for(&vector, 1.0, n_blocks))))
    }

    /// The stored form of a vector: coefficient 1 in the unit `raw` is what was measured. `None` where nothing is moved.
    pub fn vector_of(
        &self,
        name: &str,
        aligned: &Aligned,
        answers: Digest,
    ) -> Result<Option<Vector>, AlignmentError> {
        let vector = self.compiled(name, &aligned.constants)?;
        Ok(vector.map(|mut vector| {
            vector.provenance = Provenance {
                weights: Some(self.asker.engine.info().weights_digest),
                origin: Origin::Alignment {
                    algorithm: aligned.algorithm.name().to_owned(),
                    inventory: self.inventory.digest(),
                    answers,
                },
            };
            vector
        }))
    }

    fn compiled(&self, name: &str, constants: &[f64]) -> Result<Option<Vector>, AlignmentError> {
        let d_head = self.asker.engine.info().d_head as usize;
        compile::vector(name, constants, &self.prepared.gradients, self.asker.engine.heads(), d_head)
    }

    fn population_fit(&self) -> Option<ridge::Fit> {
        let known = self.inventory.known();
        let residuals: Option<Vec<f64>> =
            known.iter().map(|&i| Some(self.inventory.items[i].norm?.mean - self.plain[i])).collect();
        Some(ridge::fit(&self.kernel.part(&known), &residuals?))
    }

    /// Answers where every item's gradient is added `weights` times.
    fn moved(&self, weights: &[f64]) -> Vec<f64> {
        self.kernel.times(weights).iter().zip(&self.plain).map(|(change, plain)| plain + change).collect()
    }

    /// The sum of the items' gradients by weights of the scaled kernel, held to the norm where they are true.
    fn of_weights(&self, algorithm: Algorithm, weights: &[f64], lambda: Option<f64>) -> Aligned {
        let constants = self.constants(weights);
        let norm = length(&constants);
        let scale = (self.prepared.norm_cap / norm.max(1e-12)).min(1.0);
        let constants: Vec<f64> = constants.iter().map(|value| scale * value).collect();
        Aligned { lambda, norm, scale, ..self.of_constants(algorithm, constants) }
    }

    /// Constants of which the gradients promise the changes `kernel * weights` in answers.
    pub(super) fn constants(&self, weights: &[f64]) -> Vec<f64> {
        let gradients = &self.prepared.gradients;
        let from = self.prepared.first_block * gradients.width;
        let mut constants = vec![0.0; gradients.n_blocks * gradients.width];
        let factor = 1.0 / (self.unit * self.prepared.readout.slope);
        for (item, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
            let own = &gradients.of(item)[from..];
            constants[from..]
                .iter_mut()
                .zip(own)
                .for_each(|(sum, g)| *sum += factor * weight * f64::from(*g));
        }
        constants
    }

    fn of_constants(&self, algorithm: Algorithm, constants: Vec<f64>) -> Aligned {
        let predicted =
            (0..self.plain.len()).map(|i| self.plain[i] + self.first_order(&constants, i)).collect();
        Aligned {
            algorithm,
            norm: length(&constants),
            constants,
            predicted,
            lambda: None,
            scale: 1.0,
            shift: None,
            alpha: None,
            heads: Vec::new(),
            used: 0,
            warnings: Vec::new(),
        }
    }

    /// Change of an item's answer by the gradients.
    pub(super) fn first_order(&self, constants: &[f64], item: usize) -> f64 {
        let own = self.prepared.gradients.of(item);
        let product: f64 = own.iter().zip(constants).map(|(g, v)| f64::from(*g) * v).sum();
        self.prepared.readout.slope * product
    }

    /// The direction in the upper third of the blocks that moves all answers alike, unit length, and by how much the mean
    /// answer over the known items moves along it.
    fn common(&self) -> (Vec<f64>, f64) {
        let gradients = &self.prepared.gradients;
        let (known, from) = (self.inventory.known(), gradients.n_blocks * 2 / 3 * gradients.width);
        let mut mean = vec![0.0; gradients.n_blocks * gradients.width];
        for &item in &known {
            let own = &gradients.of(item)[from..];
            mean[from..].iter_mut().zip(own).for_each(|(sum, g)| *sum += f64::from(*g) / known.len() as f64);
        }
        let norm = length(&mean).max(1e-12);
        mean.iter_mut().for_each(|value| *value /= norm);
        let moved: f64 = known.iter().map(|&item| self.first_order(&mean, item)).sum();
        (mean, moved / known.len().max(1) as f64)
    }

    /// Measures the mean difference of the answers to what is wanted of up to 60 items under the constants, and takes it
    /// away along the common direction. Beyond first order the constants shift all answers alike, which is nobody's
    /// personality.
    fn correct_mean(
        &self,
        aligned: &mut Aligned,
        wanted: impl Fn(usize) -> Option<f64>,
    ) -> Result<(), AlignmentError> {
        let items: Vec<usize> = (0..self.plain.len()).filter(|&item| wanted(item).is_some()).collect();
        let items = spread(&items, SHIFT_ITEMS);
        let measured = self.measured(&self.edits(&aligned.constants)?, &items, &mut |_, _| Ok(()))?;
        let differences: Vec<f64> =
            items.iter().zip(&measured).filter_map(|(&item, answer)| Some(wanted(item)? - answer)).collect();
        let difference = crate::statistics::mean(&differences);
        let (common, slope) = self.common();
        let norm = (difference / slope).clamp(-SHIFT_NORM_MAX, SHIFT_NORM_MAX);
        if !norm.is_finite() {
            return Ok(());
        }
        aligned.constants.iter_mut().zip(&common).for_each(|(constant, value)| *constant += norm * value);
        aligned.predicted = (0..self.plain.len())
            .map(|item| self.plain[item] + self.first_order(&aligned.constants, item))
            .collect();
        aligned.shift = Some((difference, norm));
        Ok(())
    }

    /// Sum over domains of the mean absolute difference to a person's answers; lower is better.
    pub fn distance(&self, items: &[usize], predicted: &[f64], answers: &Answers) -> f64 {
        let of_domain = |domain: Domain| {
            let errors =
                items.iter().zip(predicted).filter(|(item, _)| self.inventory.items[**item].domain == domain);
            let errors: Vec<f64> = errors
                .filter_map(|(&item, own)| Some((own.clamp(1.0, 5.0) - answers.get(item)?).abs()))
                .collect();
            if errors.is_empty() { 0.0 } else { crate::statistics::mean(&errors) }
        };
        Domain::ALL.map(of_domain).iter().sum()
    }

    /// Mean of the answers in the direction of each domain, over `items`.
    pub fn domains(&self, items: &[usize], answers: &[f64]) -> Value {
        let of_domain = |domain: Domain| {
            let own =
                items.iter().zip(answers).filter(|(item, _)| self.inventory.items[**item].domain == domain);
            let keyed: Vec<f64> =
                own.map(|(&item, answer)| self.inventory.items[item].keyed(*answer)).collect();
            (domain.to_string(), json!((!keyed.is_empty()).then(|| rounded(crate::statistics::mean(&keyed)))))
        };
        Value::Object(Domain::ALL.map(of_domain).into_iter().collect())
    }
}

/// Whether answers can be aligned to by an algorithm; needs no model.
pub fn check(
    answers: &Answers,
    inventory: &Inventory,
    algorithm: Algorithm,
    protocol: Protocol,
) -> Result<(), AlignmentError> {
    answers.check()?;
    let decided = answers.decided();
    let has_norms = inventory.items.iter().all(|item| !item.is_known || item.norm.is_some());
    let needed = limits::DECIDED_ANSWERS_MIN;
    if decided < needed && !has_norms {
        return Err(AlignmentError::TooFew { given: decided, needed });
    }
    let unseen = inventory.unseen().iter().any(|&item| answers.get(item).is_some());
    if algorithm == Algorithm::Pas && protocol == Protocol::Paper && !unseen {
        return Err(AlignmentError::NoUnseen { inventory: inventory.name.clone() });
    }
    Ok(())
}

fn kernel(prepared: &Prepared, known: &[usize]) -> (Square, f64) {
    let gradients = &prepared.gradients;
    let from = prepared.first_block * gradients.width;
    let rows: Vec<&[f32]> = (0..gradients.items()).map(|item| &gradients.of(item)[from..]).collect();
    let raw = Square::of_products(&rows);
    let unit = known.iter().map(|&i| dot(rows[i], rows[i])).sum::<f64>() / known.len().max(1) as f64;
    let unit = if unit > 0.0 { unit } else { 1.0 };
    (Square::new(raw.size(), |i, j| raw.at(i, j) / unit), unit)
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// Up to `count` of the items, evenly spaced.
pub(super) fn spread(items: &[usize], count: usize) -> Vec<usize> {
    let count = count.min(items.len());
    (0..count).map(|at| items[at * items.len() / count]).collect()
}

/// Four decimals.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
