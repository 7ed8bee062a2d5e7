//! One stage of training: steps, looks at held-out people, the best state, checkpoints.

use super::adamw::AdamW;
use super::checkpoint::{Checkpoint, Position};
use super::error::{TrainError, failed};
use super::progress::Progress;
use super::state::State;
use crate::model::gradients;
use candle_core::{DType, Tensor};

/// How a stage goes.
pub struct Stage<'a> {
    pub name: &'static str,
    /// Place among the stages.
    pub index: usize,
    pub steps: usize,
    /// Learning rate after the warm-up; it falls along a cosine to a tenth.
    pub rate: f64,
    pub optimiser: AdamW,
    /// Loss of a step, a scalar.
    pub loss: &'a dyn Fn(usize) -> Result<Tensor, TrainError>,
    /// Figures of the held-out people; the first one chooses the step that is kept, larger is better. `None`: the last
    /// step is kept.
    pub held_out: Option<&'a dyn Fn() -> Result<HeldOut, TrainError>>,
    pub evaluate_every: usize,
    pub patience: usize,
}

/// Named figures of a look at the held-out people.
pub type HeldOut = Vec<(&'static str, f64)>;

/// Steps until the full rate: moments of the first steps are noise.
const WARM_UP: usize = 10;

impl Stage<'_> {
    /// Runs from `checkpoint`'s place, or from the start, and leaves `state` at the best step.
    pub fn run(
        mut self,
        state: &State,
        progress: &mut Progress<'_>,
        checkpoint: &mut Checkpoint,
    ) -> Result<(), TrainError> {
        let Some(mut position) = checkpoint.begin(self.index, state, &mut self.optimiser)? else {
            return Ok(());
        };
        while position.step <= self.steps {
            let due = position.step.is_multiple_of(self.evaluate_every) || position.step == self.steps;
            if due && position.looked_at != Some(position.step) {
                self.look(state, &mut position, progress)?;
                checkpoint.write(&position, state, &self.optimiser)?;
            }
            let looks_since_best = (position.step - position.best_step) / self.evaluate_every;
            if position.step == self.steps || (self.held_out.is_some() && looks_since_best >= self.patience) {
                break;
            }
            self.step(position.step, progress)?;
            position.step += 1;
        }
        if let Some(best) = &position.best {
            for ((_, var), best) in state.named().iter().zip(best) {
                var.set(best).map_err(failed("best state"))?;
            }
            progress.note(&format!("{}: step {} is kept", self.name, position.best_step));
        }
        checkpoint.end(self.index, state)
    }

    fn look(
        &self,
        state: &State,
        position: &mut Position,
        progress: &mut Progress<'_>,
    ) -> Result<(), TrainError> {
        position.looked_at = Some(position.step);
        let Some(held_out) = self.held_out else { return Ok(()) };
        let figures = held_out()?;
        progress.held_out(self.name, position.step, &figures)?;
        // A projector that still changes nothing agrees with nobody: not a number, and worse than any.
        let score = figures.first().map(|figure| figure.1).filter(|score| !score.is_nan());
        let score = score.unwrap_or(f64::NEG_INFINITY);
        if position.best.is_none() || score > position.best_score {
            let copies = state.named().iter().map(|(_, var)| var.as_tensor().copy()).collect();
            let copies: candle_core::Result<Vec<Tensor>> = copies;
            position.best = Some(copies.map_err(failed("best state"))?);
            (position.best_score, position.best_step) = (score, position.step);
        }
        Ok(())
    }

    fn step(&mut self, step: usize, progress: &mut Progress<'_>) -> Result<(), TrainError> {
        let loss = (self.loss)(step)?;
        let value = loss.to_dtype(DType::F64).and_then(|loss| loss.to_scalar::<f64>());
        let value = value.map_err(failed("loss"))?;
        if !value.is_finite() {
            return Err(TrainError::Diverged { stage: self.name, step, loss: value });
        }
        let gradients = gradients(&loss, &self.optimiser.vars())?;
        let warm = ((step + 1) as f64 / WARM_UP as f64).min(1.0);
        let turn = std::f64::consts::PI * step as f64 / self.steps.max(1) as f64;
        let rate = self.rate * warm * (0.1 + 0.9 * 0.5 * (1.0 + turn.cos()));
        self.optimiser.step(&gradients, rate).map_err(failed("optimiser"))?;
        progress.step(self.name, step + 1, value)
    }
}
