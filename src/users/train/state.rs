//! What is trained, as one list of named tensors: constant prompt, projector, readout.

use super::adamw::AdamW;
use super::error::{TrainError, failed};
use super::network::Network;
use super::prepared::Prepared;
use super::{Materials, TrainOptions};
use crate::statistics::Draws;
use crate::users::Projector;
use candle_core::{DType, Tensor, Var};

/// Index of a number in [`State::readout`].
pub const SLOPE: usize = 0;
pub const OFFSET: usize = 1;
pub const SHIFT: usize = 2;
pub const DEVIATION: usize = 3;

pub struct State {
    pub network: Network,
    /// How log-odds become answers, `[4]`: slope and offset of the constant prompt, then of people: the shift of all
    /// people's log-odds, and the deviation per unit of log-odds.
    pub readout: Var,
}

impl State {
    /// The constant prompt is that of another projector, or begins as the input rows of random tokens of the training
    /// prompts: rows of the usual norm, in places that the model knows.
    pub fn new(
        prepared: &Prepared,
        options: &TrainOptions,
        materials: &Materials<'_>,
    ) -> Result<State, TrainError> {
        let constant = match materials.start {
            Some(start) => taken_over(start, options, materials)?,
            None => {
                let ids = prepared.prompt_tokens();
                let mut draws = Draws::new(options.seed, "constant", 0);
                let chosen: Vec<u32> = (0..options.k).map(|_| ids[draws.below(ids.len())]).collect();
                materials.model.embed(&chosen)?
            }
        };
        let network = Network::new(&prepared.parts, &constant, options.hidden, options.seed)?;
        let readout = readout(prepared, &constant).map_err(failed("readout"))?;
        Ok(State { network, readout })
    }

    /// Every trained tensor with its name in a checkpoint.
    pub fn named(&self) -> Vec<(String, Var)> {
        let mut named = vec![
            ("constant".to_owned(), self.network.constant.clone()),
            ("readout".to_owned(), self.readout.clone()),
        ];
        named.extend(self.network.vars.iter().cloned());
        named
    }

    /// Multiplies all changes of rows, and takes it back where log-odds are read. Changes are linear in the last layer.
    pub fn resize(&self, factor: f64) -> Result<(), TrainError> {
        let resize = || -> candle_core::Result<()> {
            for var in self.network.last_layer()? {
                var.set(&(var.as_tensor() * factor)?)?;
            }
            let mut readout = self.readout.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            readout[DEVIATION] /= factor;
            readout[SHIFT] *= factor;
            let readout = Tensor::from_vec(readout, self.readout.shape(), self.readout.device())?;
            self.readout.set(&readout.to_dtype(self.readout.dtype())?)
        };
        resize().map_err(failed("size of changes"))
    }

    /// Trains the constant prompt; the readout goes along where there are questions.
    pub fn constant_optimiser(&self, questions: bool) -> Result<AdamW, TrainError> {
        let mut vars = vec![("constant".to_owned(), self.network.constant.clone(), 1.0, 0.0)];
        if questions {
            vars.push(("readout".to_owned(), self.readout.clone(), 0.3, 0.0));
        }
        AdamW::new(vars).map_err(failed("optimiser"))
    }

    /// Trains the projector; `readout` is the rate of the readout in units of the layers'.
    pub fn projector_optimiser(&self, decay: f64, readout: Option<f64>) -> Result<AdamW, TrainError> {
        let decayed = |name: &str| if name.ends_with(".weight") { decay } else { 0.0 };
        let layers = self.network.vars.iter();
        let mut vars: Vec<_> =
            layers.map(|(name, var)| (name.clone(), var.clone(), 1.0, decayed(name))).collect();
        if let Some(rate) = readout {
            vars.push(("readout".to_owned(), self.readout.clone(), rate, 0.0));
        }
        AdamW::new(vars).map_err(failed("optimiser"))
    }
}

fn taken_over(
    start: &Projector,
    options: &TrainOptions,
    materials: &Materials<'_>,
) -> Result<Tensor, TrainError> {
    if (start.k(), start.weights()) != (options.k, materials.weights) {
        let (k, made_for) = (start.k(), start.weights().short(12));
        let message =
            format!("`start` has {k} rows for the weights {made_for}; another shape or model is trained");
        return Err(TrainError::Options(message));
    }
    let model = materials.model;
    Tensor::from_slice(&start.constant().values, (start.k(), start.d_model()), model.device())
        .and_then(|constant| constant.to_dtype(model.dtype()))
        .map_err(failed("constant prompt"))
}

/// A slope of a few tenths of a point per unit of log-odds, the mean answer, no shift. A unit of log-odds is a whole point
/// of deviation at first: people's changes then stay where the linearisation holds.
fn readout(prepared: &Prepared, like: &Tensor) -> candle_core::Result<Var> {
    let means: Vec<f64> = prepared.questions.iter().map(|question| question.mean).collect();
    let offset = means.iter().sum::<f64>() / means.len().max(1) as f64;
    Var::from_tensor(&Tensor::new(&[0.3, offset, 0.0, 1.0], like.device())?.to_dtype(like.dtype())?)
}
