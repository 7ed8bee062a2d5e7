//! Finds, for one person's answers, the constants that lean a model's answers their way; measures what they do.

use super::AlignmentError;
use super::aligned::{Algorithm, Aligned, Protocol};
use super::ask::{Asker, Progress, Tokens};
use super::inventory::{Domain, Inventory};
use super::linear::{Linear, Solution, length};
use super::pas::{self, Activations, Labelled, Split};
use super::prepared::{Key, Prepared, Readout};
use super::scoring::Answers;
use super::{compile, prepare};
use crate::digest::Digest;
use crate::engine::Engine;
use crate::limits;
use crate::model::{Edits, Place};
use crate::statistics::{mean, rounded};
use crate::steering::{Origin, Provenance, Vector, edits_for};
use crate::text::Text;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Items of the pass that measures the shift of the mean.
const SHIFT_ITEMS: usize = 120;
/// The correction of the mean is at most so long, in units of the norm where gradients are true: what is left then stays.
const SHIFT_NORM_FACTOR: f64 = 1.0;
/// Strengths that the published search tries.
const ALPHAS: [f64; 6] = [0.0, 1.0, 2.0, 4.0, 6.0, 8.0];
/// Parts of a person's items for choosing the strength by cross-validation.
const FOLDS: usize = 3;
/// Seed of the splits; the result depends on the answers alone.
const SEED: u64 = 1;

/// Done, of how many, and what is happening; an error ends the work.
pub type Told<'p> = &'p mut dyn FnMut(u64, u64, &str) -> Result<(), AlignmentError>;

/// A model that is ready to be aligned to people by one inventory. Its methods block; they belong on a thread of their
/// own.
pub struct Aligner {
    asker: Asker,
    inventory: Arc<Inventory>,
    tokens: Tokens,
    readout: Readout,
    linear: Linear,
    /// Norm of constants up to which the gradients are true.
    norm_cap: f64,
    /// Norms that were tried for it, with the correlation of real and first-order changes.
    linearity: Vec<(f64, f64)>,
    /// For the published search; measured when it is first asked for.
    activations: OnceLock<Activations>,
    /// Where those are kept.
    heads_file: PathBuf,
}

impl Aligner {
    /// Reads what was measured once of this model and inventory from `folder`, or measures it: about a minute for a small
    /// model. `weights` are the model's; `told` hears of the progress.
    pub fn open(
        engine: &Engine,
        text: &Arc<Text>,
        inventory: Arc<Inventory>,
        weights: &prepare::BaseWeights,
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
                // As every later run reads it: the file holds single precision, and equal runs give equal answers.
                Prepared::read(&path, &key, &inventory).unwrap_or(prepared)
            }
        };
        Aligner::new(asker, inventory, prepared, folder.join(format!("{}-heads.safetensors", key.stem())))
    }

    pub(super) fn new(
        asker: Asker,
        inventory: Arc<Inventory>,
        prepared: Prepared,
        heads_file: PathBuf,
    ) -> Result<Aligner, AlignmentError> {
        let Prepared { readout, signals, gradients, first_block, norm_cap, linearity } = prepared;
        let texts: Vec<&str> = inventory.items.iter().map(|item| item.text.as_str()).collect();
        let tokens = asker.tokens(readout.form, &texts)?.ok_or(AlignmentError::NoForm)?;
        let plain = signals.iter().map(|signal| readout.answer(*signal)).collect();
        let linear = Linear::new(gradients, inventory.known(), plain, readout.slope, first_block);
        let activations = OnceLock::new();
        Ok(Aligner {
            asker,
            inventory,
            tokens,
            readout,
            linear,
            norm_cap,
            linearity,
            activations,
            heads_file,
        })
    }

    pub fn inventory(&self) -> &Arc<Inventory> {
        &self.inventory
    }

    /// Where constants are added.
    pub fn place(&self) -> Place {
        self.linear.gradients().place
    }

    /// First block that ridge moves.
    pub fn first_block(&self) -> usize {
        self.linear.first_block()
    }

    /// How the model's answers are read.
    pub fn readout(&self) -> &Readout {
        &self.readout
    }

    /// The model to first order.
    pub(super) fn linear(&self) -> &Linear {
        &self.linear
    }

    /// Norm of constants up to which the gradients are true, and the norms that were tried for it with the correlation of
    /// real and first-order changes.
    pub fn range(&self) -> (f64, &[(f64, f64)]) {
        (self.norm_cap, &self.linearity)
    }

    /// The model's own answer to every item, 1 to 5.
    pub fn plain(&self) -> Vec<f64> {
        self.linear.plain.iter().map(|answer| answer.clamp(1.0, 5.0)).collect()
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
        progress: Progress<'_>,
    ) -> Result<Vec<f64>, AlignmentError> {
        let Readout { form, bias, .. } = &self.readout;
        let options = self.asker.options(&self.tokens, items, edits, progress)?;
        Ok(options.iter().map(|one| self.readout.answer(form.signal(one, bias))).collect())
    }

    /// A vector for answers as [`check`] takes them. Where too few of them are of use, it is the population's.
    pub fn align(
        &self,
        answers: &Answers,
        algorithm: Algorithm,
        protocol: Protocol,
    ) -> Result<Aligned, AlignmentError> {
        check(answers, &self.inventory, algorithm, protocol)?;
        let (usable, needed) = (usable(answers, algorithm), limits::USABLE_ANSWERS_MIN);
        if usable < needed {
            let mut aligned = self.population()?;
            aligned.warnings.push(format!(
                "{usable} answers are of use and {needed} are needed to tell a person from others: the vector is that of \
                 people in general"
            ));
            return Ok(aligned);
        }
        match algorithm {
            Algorithm::Ridge => self.ridge(answers),
            Algorithm::Pas => self.pas(answers, protocol),
            Algorithm::Population => self.population(),
            Algorithm::Shift => {
                let differences =
                    self.own(answers).into_iter().map(|(i, answer)| answer - self.linear.plain[i]);
                Ok(self.shift_only(mean(&differences.collect::<Vec<_>>())))
            }
        }
    }

    /// The vector that brings the model's answers to a person's: from the population's on where the inventory has norms.
    pub fn ridge(&self, answers: &Answers) -> Result<Aligned, AlignmentError> {
        let own = self.own(answers);
        let used = own.len();
        let wanted: Vec<Vec<(usize, f64)>> = self.norms().into_iter().chain([own]).collect();
        let aligned = Aligned { used, ..self.solved(Algorithm::Ridge, &wanted) };
        self.with_mean(aligned, &self.own(answers))
    }

    /// The vector that brings the model's answers to the norms.
    pub fn population(&self) -> Result<Aligned, AlignmentError> {
        let needed = limits::USABLE_ANSWERS_MIN;
        let norms = self.norms().ok_or(AlignmentError::TooFew { given: 0, needed })?;
        let aligned = self.solved(Algorithm::Population, std::slice::from_ref(&norms));
        self.with_mean(aligned, &norms)
    }

    /// A vector that shifts all answers by about `shift` and does nothing else: the control for every other one.
    pub fn shift_only(&self, shift: f64) -> Aligned {
        let (common, slope) = self.linear.common();
        let norm = if slope == 0.0 { 0.0 } else { shift / slope };
        self.of_constants(Algorithm::Shift, common.iter().map(|value| norm * value).collect())
    }

    /// The published search.
    pub fn pas(&self, answers: &Answers, protocol: Protocol) -> Result<Aligned, AlignmentError> {
        if self.place() == Place::Attention {
            return Err(AlignmentError::HeadsBehindNorm);
        }
        let activations = self.activations()?;
        // As published, a label is the answer in the domain's direction.
        let value = |item: usize| {
            let raw = answers.get(item)?;
            Some(match protocol {
                Protocol::Honest => raw,
                Protocol::Paper => self.inventory.items[item].keyed(raw),
            })
        };
        let labelled: Vec<Labelled> = (self.inventory.known().into_iter())
            .filter_map(|item| value(item).filter(|value| *value != 3.0).map(|value| (item, value > 3.0)))
            .collect();
        let find =
            |labelled: &[Labelled]| pas::search(activations, &Split::drawn(labelled, SEED), pas::HEADS);
        let error = |constants: &[f64], alpha: f64, items: &[usize]| -> f64 {
            let errors = items.iter().filter_map(|&item| {
                let moved = self.linear.plain[item] + alpha * self.linear.change(constants, item);
                Some((moved.clamp(1.0, 5.0) - value(item)?).abs())
            });
            errors.sum()
        };
        let found = find(&labelled);
        let unit = pas::constants(&found, activations.heads, activations.d_head);
        let mut errors = [0.0; ALPHAS.len()];
        match protocol {
            Protocol::Honest => {
                for fold in 0..FOLDS {
                    let part = |is_held: bool| {
                        let own = labelled.iter().enumerate();
                        own.filter(move |(at, _)| (at % FOLDS == fold) == is_held).map(|(_, one)| *one)
                    };
                    let rest = find(&part(false).collect::<Vec<_>>());
                    let rest = pas::constants(&rest, activations.heads, activations.d_head);
                    let held: Vec<usize> = part(true).map(|(item, _)| item).collect();
                    errors.iter_mut().zip(ALPHAS).for_each(|(sum, alpha)| *sum += error(&rest, alpha, &held));
                }
            }
            Protocol::Paper => {
                let unseen = self.inventory.unseen();
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
            let warning = "the published search found no strength that predicts the answers better than none: nothing \
                           is moved";
            aligned.warnings.push(warning.to_owned());
        }
        if protocol == Protocol::Paper {
            let warning = "the protocol `paper` chooses its strength on the answers that it is scored on; it is for \
                           comparison only";
            aligned.warnings.push(warning.to_owned());
        }
        Ok(aligned)
    }

    /// What heads say at the answers; measured once and kept.
    fn activations(&self) -> Result<&Activations, AlignmentError> {
        if self.activations.get().is_none() {
            let measured = prepare::activations(&self.asker, &self.tokens, &self.heads_file)?;
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
        let algorithm = aligned.algorithm.name().to_owned();
        let origin = Origin::Alignment { algorithm, inventory: self.inventory.digest(), answers };
        let vector = self.compiled(name, &aligned.constants)?;
        Ok(vector.map(|mut vector| {
            let weights = Some(self.asker.engine.info().weights_digest);
            vector.provenance = Provenance { weights, origin };
            vector
        }))
    }

    fn compiled(&self, name: &str, constants: &[f64]) -> Result<Option<Vector>, AlignmentError> {
        let (outputs, d_head) = (self.asker.engine.heads(), self.asker.engine.info().d_head as usize);
        compile::vector(name, constants, self.linear.gradients(), outputs, d_head)
    }

    /// What people in general answer to the known items; `None` where the inventory does not say.
    fn norms(&self) -> Option<Vec<(usize, f64)>> {
        let known = self.inventory.known().into_iter();
        known.map(|item| Some((item, self.inventory.items[item].norm?.mean))).collect()
    }

    /// What a person answered, by item.
    fn own(&self, answers: &Answers) -> Vec<(usize, f64)> {
        answers.answered().into_iter().filter_map(|item| Some((item, answers.get(item)?))).collect()
    }

    fn solved(&self, algorithm: Algorithm, wanted: &[Vec<(usize, f64)>]) -> Aligned {
        let Solution { constants, lambda, norm, scale } = self.linear.solve(wanted, self.norm_cap);
        Aligned { lambda: Some(lambda), norm, scale, ..self.of_constants(algorithm, constants) }
    }

    fn of_constants(&self, algorithm: Algorithm, constants: Vec<f64>) -> Aligned {
        Aligned {
            algorithm,
            norm: length(&constants),
            predicted: self.linear.predicted(&constants),
            constants,
            lambda: None,
            scale: 1.0,
            shift: None,
            alpha: None,
            heads: Vec::new(),
            used: 0,
            warnings: Vec::new(),
        }
    }

    /// Measures on up to 120 items by how much more or less is agreed with than is wanted, whatever is said, and takes it away
    /// along the common direction: beyond first order constants shift all answers alike, which is nobody's personality.
    fn with_mean(&self, mut aligned: Aligned, wanted: &[(usize, f64)]) -> Result<Aligned, AlignmentError> {
        let all: Vec<usize> = (0..wanted.len()).collect();
        let chosen: Vec<(usize, f64)> = spread(&all, SHIFT_ITEMS).into_iter().map(|at| wanted[at]).collect();
        let items: Vec<usize> = chosen.iter().map(|(item, _)| *item).collect();
        let measured = self.measured(&self.edits_of(&aligned)?, &items, &mut |_, _| Ok(()))?;
        let weights = self.inventory.agreement_weights(&items);
        let differences = chosen.iter().zip(&measured).map(|((_, wanted), answer)| wanted - answer);
        let difference =
            differences.zip(&weights).map(|(difference, weight)| difference * weight).sum::<f64>();
        let (common, slope) = self.linear.common();
        let most = SHIFT_NORM_FACTOR * self.norm_cap;
        let norm = (difference / slope).clamp(-most, most);
        if norm.is_finite() {
            let sums = aligned.constants.iter_mut().zip(&common);
            sums.for_each(|(constant, value)| *constant += norm * value);
            aligned.predicted = self.linear.predicted(&aligned.constants);
            aligned.shift = Some((difference, norm));
        }
        Ok(aligned)
    }

    /// Sum over domains of the mean absolute difference of predicted answers to a person's; lower is better.
    pub fn distance(&self, items: &[usize], predicted: &[f64], answers: &Answers) -> f64 {
        let of_domain = |domain: Domain| {
            let own = items.iter().zip(predicted);
            let own = own.filter(|(item, _)| self.inventory.items[**item].domain == domain);
            let errors: Vec<f64> = own
                .filter_map(|(&item, answer)| Some((answer.clamp(1.0, 5.0) - answers.get(item)?).abs()))
                .collect();
            if errors.is_empty() { 0.0 } else { mean(&errors) }
        };
        Domain::ALL.map(of_domain).iter().sum()
    }

    /// Mean of answers in the direction of each domain, over `items`; null where none is of a domain.
    pub fn domains(&self, items: &[usize], answers: &[f64]) -> Value {
        let of_domain = |domain: Domain| {
            let own = items.iter().zip(answers).map(|(&item, answer)| (&self.inventory.items[item], *answer));
            let own = own.filter(|(item, _)| item.domain == domain);
            let keyed: Vec<f64> = own.map(|(item, answer)| item.keyed(answer)).collect();
            let score = (!keyed.is_empty()).then(|| rounded(mean(&keyed), 4));
            (domain.to_string(), json!(score))
        };
        Value::Object(Domain::ALL.map(of_domain).into_iter().collect())
    }
}

/// Refuses answers that an algorithm cannot align to; needs no model.
pub fn check(
    answers: &Answers,
    inventory: &Inventory,
    algorithm: Algorithm,
    protocol: Protocol,
) -> Result<(), AlignmentError> {
    answers.check()?;
    let (usable, needed) = (usable(answers, algorithm), limits::USABLE_ANSWERS_MIN);
    let has_norms = inventory.items.iter().all(|item| !item.is_known || item.norm.is_some());
    if usable < needed && !has_norms {
        return Err(AlignmentError::TooFew { given: usable, needed });
    }
    let unseen = inventory.unseen().iter().any(|&item| answers.get(item).is_some());
    match (algorithm, protocol) {
        (Algorithm::Pas, Protocol::Paper) if !unseen => {
            Err(AlignmentError::NoUnseen { inventory: inventory.name.clone() })
        }
        _ => Ok(()),
    }
}

/// Answers that an algorithm learns from: the published search needs those that take a side.
fn usable(answers: &Answers, algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Pas => answers.decided(),
        Algorithm::Ridge | Algorithm::Population | Algorithm::Shift => answers.answered().len(),
    }
}

/// Up to `count` of the items, evenly spaced.
pub(super) fn spread(items: &[usize], count: usize) -> Vec<usize> {
    let count = count.min(items.len());
    (0..count).map(|at| items[at * items.len() / count]).collect()
}
