//! Trains a projector through the frozen model.
//!
//! In three stages, each of which logs to `log.jsonl`: the person-free *constant* prompt; for questions a *first-order*
//! start, where the model is replaced by its linearisation at the constant prompt; then the projector's layers *through
//! the model*. The held-out people (`split` stop) choose the step that is kept.
//!
//! `prepared` turns people into numbers, `network` is the projector as candle tensors, `through` runs rows and prompts
//! through the model, `questions` and `replies` have the losses of the two kinds of targets, `stage` the loop, `adamw` the
//! optimiser, `state` what is trained, `checkpoint` what a resumed run needs, `progress` the log. Batches are drawn from (seed, stage, step), so a resumed run goes on as if nothing had been.
//! Nothing here runs while people are served.

mod adamw;
mod checkpoint;
mod error;
mod network;
mod prepared;
mod progress;
mod questions;
mod replies;
mod stage;
mod state;
mod through;

pub use error::TrainError;
pub use prepared::Embeddings;

use super::people::People;
use super::projector::{Form, Projector};
use crate::digest::{Digest, Digester};
use crate::model::DenseModel;
use crate::text::Text;
use crate::weights::safetensors::StoredType;
use checkpoint::Checkpoint;
use prepared::Prepared;
use progress::Progress;
use questions::{Linearised, Questions};
use replies::Replies;
use stage::Stage;
use state::State;
use std::path::PathBuf;

/// What a projector becomes and how it is trained.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    pub form: Form,
    /// Rows of a prompt.
    pub k: usize,
    /// Width of a hidden layer; `None`: one linear layer.
    pub hidden: Option<usize>,
    pub seed: u64,
    /// Steps of the three stages.
    pub steps_constant: usize,
    pub steps_first_order: usize,
    pub steps: usize,
    /// People of a step, and targets of each.
    pub people_per_step: usize,
    pub targets_per_person: usize,
    /// Learning rates: constant prompt, layers.
    pub rate_constant: f64,
    pub rate: f64,
    /// Decoupled weight decay of the layers.
    pub decay: f64,
    /// Largest norm of a row's change.
    pub cap: f32,
    /// A change counts by n / (n + n0).
    pub n0: f32,
    /// Least evidence for a change.
    pub n_min: f32,
    /// Train on random parts of each history, so that short ones work too.
    pub sample_history: bool,
    /// Steps between looks at the held-out people; a checkpoint is written at each.
    pub evaluate_every: usize,
    /// Targets of each held-out person that such a look uses.
    pub held_out_targets: usize,
    /// Looks without a better one after which training ends.
    pub patience: usize,
    /// How the layers are stored.
    pub stored: StoredType,
    /// Folder for `log.jsonl`, `curve.svg` and `checkpoint.safetensors`.
    pub log: Option<PathBuf>,
    /// Go on from that folder's checkpoint.
    pub resume: bool,
}

impl Default for TrainOptions {
    fn default() -> TrainOptions {
        TrainOptions {
            form: Form::Static,
            k: 4,
            hidden: None,
            seed: 1,
            steps_constant: 60,
            steps_first_order: 400,
            steps: 300,
            people_per_step: 4,
            targets_per_person: 12,
            rate_constant: 0.03,
            rate: 3e-5,
            decay: 0.01,
            cap: 2.5,
            n0: 4.0,
            n_min: 3.0,
            sample_history: false,
            evaluate_every: 20,
            held_out_targets: 24,
            patience: 8,
            stored: StoredType::F16,
            log: None,
            resume: false,
        }
    }
}

/// What training needs from elsewhere.
pub struct Materials<'a> {
    pub people: &'a People,
    /// Of all texts in `people`, see [`Embeddings::of`].
    pub embeddings: &'a Embeddings,
    pub model: &'a DenseModel,
    pub text: &'a Text,
    /// Of the model's file.
    pub weights: Digest,
    /// A projector whose constant prompt is taken over instead of trained.
    pub start: Option<&'a Projector>,
}

/// Name and place of the stage that the curve shows.
const THROUGH_MODEL: &str = "through the model";
const THROUGH_MODEL_INDEX: usize = 2;

/// Name of the last look, at people that nothing was chosen on.
const UNSEEN: &str = "unseen people";

/// Trains; `say` gets a line for a person who waits.
pub fn train(
    materials: &Materials<'_>,
    options: &TrainOptions,
    say: &mut dyn FnMut(&str),
) -> Result<Projector, TrainError> {
    let prepared = Prepared::new(materials, options)?;
    let mut progress = Progress::open(options.log.clone(), options.resume, say)?;
    let mut checkpoint = match &options.log {
        Some(folder) => Checkpoint::open(
            folder.join("checkpoint.safetensors"),
            identity(materials, options),
            options.resume,
        )?,
        None => Checkpoint::none(),
    };
    let state = State::new(&prepared, options, materials)?;
    checkpoint.restore(&state)?;
    let questions = Questions { materials, options, prepared: &prepared };
    let replies = Replies { materials, options, prepared: &prepared };
    let asks = !prepared.questions.is_empty();
    let constant_loss = |step| match asks {
        true => questions.constant_loss(&state, step),
        false => replies.constant_loss(&state, step),
    };
    Stage {
        name: "constant prompt",
        index: 0,
        steps: if materials.start.is_some() { 0 } else { options.steps_constant },
        rate: options.rate_constant,
        optimiser: state.constant_optimiser(asks)?,
        loss: &constant_loss,
        held_out: None,
        evaluate_every: options.evaluate_every,
        patience: options.patience,
    }
    .run(&state, &mut progress, &mut checkpoint)?;
    // A run that goes on behind the first-order start needs nothing of it.
    let first_order = asks && options.steps_first_order > 0 && !checkpoint.is_at(THROUGH_MODEL_INDEX);
    let at = match asks {
        true => questions.linearised(&state, first_order)?,
        false => Linearised::none(),
    };
    if first_order {
        Stage {
            name: "first order",
            index: 1,
            steps: options.steps_first_order,
            rate: FIRST_ORDER_RATE,
            optimiser: state.projector_optimiser(options.decay, Some(3.0))?,
            loss: &|step| questions.first_order_loss(&state, &at, step),
            held_out: Some(&|| questions.held_out(&state, &at, true)),
            evaluate_every: options.evaluate_every,
            patience: options.patience,
        }
        .run(&state, &mut progress, &mut checkpoint)?;
        shorten(&state, &questions, &at, &mut progress)?;
    }
    let constant_held_out = match asks {
        true => f64::NAN,
        false => replies.constant_held_out(&state, &prepared.stop)?,
    };
    let loss = |step| match asks {
        true => questions.loss(&state, &at, step),
        false => replies.loss(&state, step),
    };
    let held_out = || match asks {
        true => questions.held_out(&state, &at, false),
        false => replies.held_out(&state, &prepared.stop, constant_held_out),
    };
    Stage {
        name: THROUGH_MODEL,
        index: THROUGH_MODEL_INDEX,
        steps: options.steps,
        rate: options.rate,
        optimiser: state.projector_optimiser(options.decay, asks.then_some(10.0))?,
        loss: &loss,
        held_out: Some(&held_out),
        evaluate_every: options.evaluate_every,
        patience: options.patience,
    }
    .run(&state, &mut progress, &mut checkpoint)?;
    if !prepared.test.is_empty() {
        let constant = replies.constant_held_out(&state, &prepared.test)?;
        progress.held_out(UNSEEN, options.steps, &replies.held_out(&state, &prepared.test, constant)?)?;
    }
    progress.finish()?;
    let parts = state.network.parts(&recipe(options)).map_err(error::failed("trained tensors"))?;
    Ok(Projector::from_parts(&parts, options.stored)?)
}

/// Halves people's changes as long as the model itself, not its linearisation, agrees clearly better with the held-out
/// people. The linearisation holds for small changes only; but smaller ones drown in the rounding of the served model.
fn shorten(
    state: &State,
    questions: &Questions<'_>,
    at: &Linearised,
    progress: &mut Progress<'_>,
) -> Result<(), TrainError> {
    let mut best = f64::NEG_INFINITY;
    for halvings in 0..HALVINGS_MAX {
        let figures = questions.held_out(state, at, false)?;
        progress.held_out("size of changes", halvings, &figures)?;
        let r = figures.first().map_or(f64::NAN, |figure| figure.1);
        if best > 0.0 && r < best * HALVING_GAIN_MIN {
            return state.resize(2.0);
        }
        best = best.max(r);
        state.resize(0.5)?;
    }
    state.resize(2.0)
}

/// Halvings of a first-order change that are tried.
const HALVINGS_MAX: usize = 5;
/// What a halving must gain.
const HALVING_GAIN_MIN: f64 = 1.1;

/// Rate of the first-order stage, whose loss is quadratic in a linear layer.
const FIRST_ORDER_RATE: f64 = 1e-3;

/// What a checkpoint belongs to.
fn identity(materials: &Materials<'_>, options: &TrainOptions) -> Digest {
    let mut digester = Digester::new("demeanor.train/1");
    digester
        .part(&materials.people.digest.0)
        .part(&materials.weights.0)
        .part(&materials.embeddings.encoder.0);
    digester.part(recipe(options).as_bytes());
    if let Some(start) = materials.start {
        digester.part(&start.digest().0);
    }
    digester.finish()
}

/// All that decides the result beside data and model, as one line.
fn recipe(options: &TrainOptions) -> String {
    let options = TrainOptions { log: None, resume: false, ..options.clone() };
    format!("{options:?}")
}

#[cfg(test)]
mod tests;
