//! Losses and held-out figures where targets are replies: the mean negative log-probability of the reply's tokens.

use super::error::{TrainError, failed};
use super::network::Sample;
use super::prepared::{History, Prepared, PreparedPerson, Sequence, Target};
use super::stage::HeldOut;
use super::state::State;
use super::through::reply_loss;
use super::{Materials, TrainOptions};
use crate::statistics::Draws;
use candle_core::{DType, Tensor};

pub struct Replies<'a> {
    pub materials: &'a Materials<'a>,
    pub options: &'a TrainOptions,
    pub prepared: &'a Prepared,
}

/// A reply and whose history stands before it.
struct Pair<'p> {
    history: &'p History,
    sequence: &'p Sequence,
    reply_from: usize,
    item: Option<&'p str>,
}

impl Replies<'_> {
    pub fn constant_loss(&self, state: &State, step: usize) -> Result<Tensor, TrainError> {
        let pairs = self.draw(&mut Draws::new(self.options.seed, "constant step", step as u64));
        let rows = state.network.constants(pairs.len()).map_err(failed("constant prompt"))?;
        self.loss_of(&rows, &pairs)
    }

    pub fn loss(&self, state: &State, step: usize) -> Result<Tensor, TrainError> {
        let mut draws = Draws::new(self.options.seed, "step", step as u64);
        let pairs = self.draw(&mut draws);
        let rows = self.rows(state, &pairs, Some(&mut draws))?;
        self.loss_of(&rows, &pairs)
    }

    /// Minus the loss with each person's own rows, and how much more the next person's and the constant ones lose;
    /// `constant` is [`Replies::constant_held_out`] of these people.
    pub fn held_out(
        &self,
        state: &State,
        people: &[PreparedPerson],
        constant: f64,
    ) -> Result<HeldOut, TrainError> {
        let rows = |pairs: &[Pair<'_>]| self.rows(state, pairs, None);
        let own = self.mean_loss(&self.held_out_pairs(people, 0), rows)?;
        let other = self.mean_loss(&self.held_out_pairs(people, 1), rows)?;
        Ok(vec![
            ("minus own loss", -own),
            ("other minus own", other - own),
            ("constant minus own", constant - own),
        ])
    }

    /// Loss at the constant prompt, which stays as it is once its own stage is over.
    pub fn constant_held_out(&self, state: &State, people: &[PreparedPerson]) -> Result<f64, TrainError> {
        self.mean_loss(&self.held_out_pairs(people, 0), |pairs| {
            state.network.constants(pairs.len()).map_err(failed("constant prompt"))
        })
    }

    /// Targets of each person, behind the history of the person `further` places on.
    fn held_out_pairs<'p>(&self, people: &'p [PreparedPerson], further: usize) -> Vec<Pair<'p>> {
        let mut pairs = Vec::new();
        for (i, person) in people.iter().enumerate() {
            let before = &people[(i + further) % people.len()].history;
            let targets = person.targets.iter().take(self.options.held_out_targets);
            pairs.extend(targets.filter_map(|target| pair(before, target)));
        }
        pairs
    }

    /// Mean over all tokens of replies; as many go through the model at once as in a step.
    fn mean_loss(
        &self,
        pairs: &[Pair<'_>],
        rows: impl Fn(&[Pair<'_>]) -> Result<Tensor, TrainError>,
    ) -> Result<f64, TrainError> {
        let (mut sum, mut tokens) = (0.0, 0.0);
        let batch = self.options.people_per_step * self.options.targets_per_person;
        for pairs in pairs.chunks(batch.max(1)) {
            let weight: usize = pairs.iter().map(|pair| pair.sequence.ids.len() - pair.reply_from).sum();
            let loss = self.loss_of(&rows(pairs)?.detach(), pairs)?;
            let loss = loss.to_dtype(DType::F64).and_then(|loss| loss.to_scalar::<f64>());
            sum += weight as f64 * loss.map_err(failed("held-out loss"))?;
            tokens += weight as f64;
        }
        Ok(sum / tokens)
    }

    fn draw(&self, draws: &mut Draws) -> Vec<Pair<'_>> {
        let drawn = self.prepared.draw(self.options, draws);
        drawn.into_iter().filter_map(|(person, target)| pair(&person.history, target)).collect()
    }

    fn rows(
        &self,
        state: &State,
        pairs: &[Pair<'_>],
        mut draws: Option<&mut Draws>,
    ) -> Result<Tensor, TrainError> {
        let mut samples = Vec::new();
        for pair in pairs {
            let kept = pair.history.kept(pair.item, self.options, draws.as_deref_mut());
            let query = self.materials.embeddings.get(&pair.sequence.query)?;
            samples.push(Sample { history: pair.history, kept, query });
        }
        state.network.rows(&samples).map_err(failed("rows"))
    }

    fn loss_of(&self, rows: &Tensor, pairs: &[Pair<'_>]) -> Result<Tensor, TrainError> {
        let sequences: Vec<&Sequence> = pairs.iter().map(|pair| pair.sequence).collect();
        let reply_from: Vec<usize> = pairs.iter().map(|pair| pair.reply_from).collect();
        reply_loss(self.materials.model, rows, &sequences, &reply_from)
    }
}

fn pair<'p>(history: &'p History, target: &'p Target) -> Option<Pair<'p>> {
    match target {
        Target::Reply { sequence, reply_from, item } => {
            Some(Pair { history, sequence, reply_from: *reply_from, item: item.as_deref() })
        }
        Target::Answer { .. } => None,
    }
}
