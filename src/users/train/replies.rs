//! Losses and held-out figures where targets are replies: the mean negative log-probability of the reply's tokens.

use super::error::{TrainError, failed};
use super::network::Sample;
use super::prepared::{Prepared, PreparedPerson, Sequence, Target, part_of};
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
    history: &'p PreparedPerson,
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

    /// Minus the loss with each person's own rows, and how much more the next person's and the constant ones lose.
    pub fn held_out(&self, state: &State, people: &[PreparedPerson]) -> Result<HeldOut, TrainError> {
        let (mut own, mut other, mut constant) = (Vec::new(), Vec::new(), Vec::new());
        for (i, person) in people.iter().enumerate() {
            let next = &people[(i + 1) % people.len()];
            for target in person.targets.iter().take(self.options.held_out_targets) {
                own.extend(pair(person, target));
                other.extend(pair(next, target));
                constant.extend(pair(person, target));
            }
        }
        let (mut sums, mut tokens) = ([0.0; 3], 0.0);
        let batch = self.options.people_per_step * self.options.targets_per_person;
        for at in (0..own.len()).step_by(batch.max(1)) {
            let end = (at + batch).min(own.len());
            let weight: usize =
                own[at..end].iter().map(|pair| pair.sequence.ids.len() - pair.reply_from).sum();
            let rows = [
                self.rows(state, &own[at..end], None)?,
                self.rows(state, &other[at..end], None)?,
                state.network.constants(end - at).map_err(failed("constant prompt"))?,
            ];
            for ((sum, rows), pairs) in sums.iter_mut().zip(rows).zip([&own, &other, &constant]) {
                let loss = self.loss_of(&rows.detach(), &pairs[at..end])?;
                let loss = loss.to_dtype(DType::F64).and_then(|loss| loss.to_scalar::<f64>());
                *sum += weight as f64 * loss.map_err(failed("held-out loss"))?;
            }
            tokens += weight as f64;
        }
        let [own, other, constant] = sums.map(|sum| sum / tokens);
        Ok(vec![
            ("minus own loss", -own),
            ("other minus own", other - own),
            ("constant minus own", constant - own),
        ])
    }

    fn draw(&self, draws: &mut Draws) -> Vec<Pair<'_>> {
        let people = &self.prepared.train;
        let mut pairs = Vec::new();
        for person in draws.sample(people.len(), self.options.people_per_step) {
            let person = &people[person];
            for target in draws.sample(person.targets.len(), self.options.targets_per_person) {
                pairs.extend(pair(person, &person.targets[target]));
            }
        }
        pairs
    }

    fn rows(
        &self,
        state: &State,
        pairs: &[Pair<'_>],
        mut draws: Option<&mut Draws>,
    ) -> Result<Tensor, TrainError> {
        let mut samples = Vec::new();
        for pair in pairs {
            let mut kept = pair.history.history.without(pair.item);
            if self.options.sample_history
                && let Some(draws) = draws.as_deref_mut()
            {
                kept = part_of(kept, self.options.n_min, draws);
            }
            let query = self.materials.embeddings.get(&pair.sequence.query)?;
            samples.push(Sample { history: &pair.history.history, kept, query });
        }
        state.network.rows(&samples).map_err(failed("rows"))
    }

    fn loss_of(&self, rows: &Tensor, pairs: &[Pair<'_>]) -> Result<Tensor, TrainError> {
        let sequences: Vec<&Sequence> = pairs.iter().map(|pair| pair.sequence).collect();
        let reply_from: Vec<usize> = pairs.iter().map(|pair| pair.reply_from).collect();
        reply_loss(self.materials.model, rows, &sequences, &reply_from)
    }
}

fn pair<'p>(history: &'p PreparedPerson, target: &'p Target) -> Option<Pair<'p>> {
    match target {
        Target::Reply { sequence, reply_from, item } => {
            Some(Pair { history, sequence, reply_from: *reply_from, item: item.as_deref() })
        }
        Target::Answer { .. } => None,
    }
}
