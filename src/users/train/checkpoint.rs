//! What a resumed run needs: tensors, moments, the best state so far and the place in the stages.

use super::adamw::AdamW;
use super::error::{TrainError, failed};
use super::state::State;
use crate::digest::Digest;
use crate::limits;
use crate::weights::safetensors::{self, Bounds, Safetensors};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;

const BOUNDS: Bounds =
    Bounds { header_bytes: limits::PROJECTOR_HEADER_BYTES_MAX, tensors: limits::CHECKPOINT_TENSORS_MAX };

/// Where a stage is.
#[derive(Debug, Default)]
pub struct Position {
    pub stage: usize,
    /// Steps taken in this stage.
    pub step: usize,
    /// Step of the last look at the held-out people.
    pub looked_at: Option<usize>,
    pub best_step: usize,
    pub best_score: f64,
    /// Of each tensor of [`State::named`].
    pub best: Option<Vec<Tensor>>,
}

/// The file of a run, or nothing where none is kept.
pub struct Checkpoint {
    path: Option<PathBuf>,
    /// Digest over data, weights and options: a checkpoint of another run is refused.
    identity: Digest,
    /// What was found there at the start, until its stage begins.
    found: Option<Found>,
}

struct Found {
    position: Position,
    /// Whether the stage is complete.
    ended: bool,
    floats: BTreeMap<String, Vec<f32>>,
}

impl Checkpoint {
    pub fn none() -> Checkpoint {
        Checkpoint { path: None, identity: Digest::default(), found: None }
    }

    /// Keeps checkpoints at `path`; `resume` reads the one that is there.
    pub fn open(path: PathBuf, identity: Digest, resume: bool) -> Result<Checkpoint, TrainError> {
        let mut checkpoint = Checkpoint { path: Some(path.clone()), identity, found: None };
        if !resume {
            return Ok(checkpoint);
        }
        let bad = |message: String| TrainError::Checkpoint { path: path.clone(), message };
        let bytes = std::fs::read(&path).map_err(|error| bad(error.to_string()))?;
        let file = Safetensors::read(&bytes, BOUNDS).map_err(|fault| bad(fault.to_string()))?;
        let label = |key: &str| file.metadata.get(key).map(String::as_str).unwrap_or_default();
        if Digest::parse(label("identity")) != Some(identity) {
            return Err(bad("it belongs to other data, weights or options; start without `--resume`".into()));
        }
        let number = |key: &str| label(key).parse().map_err(|_| bad(format!("`{key}` is no number")));
        let position = Position {
            stage: number("stage")?,
            step: number("step")?,
            looked_at: Some(number("step")?),
            best_step: number("best_step")?,
            best_score: label("best_score").parse().map_err(|_| bad("`best_score` is no number".into()))?,
            best: None,
        };
        let mut floats = BTreeMap::new();
        for (name, tensor) in &file.tensors {
            floats.insert(name.clone(), tensor.floats().map_err(|rule| bad(format!("`{name}` {rule}")))?);
        }
        checkpoint.found = Some(Found { position, ended: label("ended") == "true", floats });
        Ok(checkpoint)
    }

    /// Whether a resumed run goes on at `stage` or behind it.
    pub fn is_at(&self, stage: usize) -> bool {
        self.found.as_ref().is_some_and(|found| found.position.stage >= stage)
    }

    /// The place to begin stage `stage` at, with state and moments as they were; `None` where it is over.
    pub fn begin(
        &mut self,
        stage: usize,
        state: &State,
        optimiser: &mut AdamW,
    ) -> Result<Option<Position>, TrainError> {
        let fresh = Position { stage, ..Position::default() };
        let Some(found) = self.found.take() else { return Ok(Some(fresh)) };
        if found.position.stage > stage {
            self.found = Some(found);
            return Ok(None);
        }
        if found.position.stage == stage && found.ended {
            return Ok(None);
        }
        if found.position.stage < stage {
            return Ok(Some(fresh));
        }
        let mut position = found.position;
        for slot in &mut optimiser.slots {
            for (i, moment) in slot.moments.iter_mut().enumerate() {
                *moment = self.tensor(&found.floats, &format!("moment{i}.{}", slot.name), &slot.var)?;
            }
        }
        optimiser.steps = position.step;
        let named = state.named();
        if found.floats.keys().any(|name| name.starts_with("best.")) {
            let best =
                named.iter().map(|(name, var)| self.tensor(&found.floats, &format!("best.{name}"), var));
            position.best = Some(best.collect::<Result<_, _>>()?);
        }
        Ok(Some(position))
    }

    /// Puts the tensors of the file into `state`; done once, before the first stage.
    pub fn restore(&self, state: &State) -> Result<(), TrainError> {
        let Some(found) = &self.found else { return Ok(()) };
        for (name, var) in state.named() {
            var.set(&self.tensor(&found.floats, &name, &var)?).map_err(failed("checkpoint"))?;
        }
        Ok(())
    }

    /// What was found under `name`, as a tensor like `like`.
    fn tensor(
        &self,
        floats: &BTreeMap<String, Vec<f32>>,
        name: &str,
        like: &Tensor,
    ) -> Result<Tensor, TrainError> {
        let values = floats.get(name).ok_or_else(|| self.bad(format!("`{name}` is missing")))?;
        Tensor::from_slice(values, like.shape(), like.device())
            .and_then(|tensor| tensor.to_dtype(like.dtype()))
            .map_err(failed("checkpoint"))
    }

    fn bad(&self, message: String) -> TrainError {
        TrainError::Checkpoint { path: self.path.clone().unwrap_or_default(), message }
    }

    pub fn write(&self, position: &Position, state: &State, optimiser: &AdamW) -> Result<(), TrainError> {
        let mut tensors = tensors_of(state);
        for slot in &optimiser.slots {
            for (i, moment) in slot.moments.iter().enumerate() {
                tensors.push((format!("moment{i}.{}", slot.name), moment.clone()));
            }
        }
        if let Some(best) = &position.best {
            for ((name, _), best) in state.named().into_iter().zip(best) {
                tensors.push((format!("best.{name}"), best.clone()));
            }
        }
        self.save(position, false, &tensors)
    }

    /// Says that a stage is over; its best state is the state.
    pub fn end(&self, stage: usize, state: &State) -> Result<(), TrainError> {
        self.save(&Position { stage, ..Position::default() }, true, &tensors_of(state))
    }

    fn save(&self, position: &Position, ended: bool, tensors: &[(String, Tensor)]) -> Result<(), TrainError> {
        let Some(path) = &self.path else { return Ok(()) };
        let metadata = [
            ("identity", self.identity.to_string()),
            ("stage", position.stage.to_string()),
            ("step", position.step.to_string()),
            ("ended", ended.to_string()),
            ("best_step", position.best_step.to_string()),
            ("best_score", position.best_score.to_string()),
        ];
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut values: Vec<(&str, Vec<usize>, Vec<f32>)> = Vec::new();
        for (name, tensor) in tensors {
            let floats =
                tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
            values.push((name, tensor.dims().to_vec(), floats.map_err(failed("checkpoint"))?));
        }
        let views: Vec<(&str, &[usize], &[f32])> =
            values.iter().map(|(name, shape, values)| (*name, &shape[..], &values[..])).collect();
        let bytes = safetensors::write(&metadata, &views);
        // Renamed into place: a run that is killed while it writes leaves the one before.
        let partial = path.with_extension("partial");
        let written = std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path));
        written.map_err(|source| TrainError::Write { path: path.clone(), source })
    }
}

/// What is trained, by name.
fn tensors_of(state: &State) -> Vec<(String, Tensor)> {
    state.named().into_iter().map(|(name, var)| (name, var.as_tensor().clone())).collect()
}
