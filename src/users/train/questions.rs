//! Losses and held-out figures where targets are questions with numeric answers.
//!
//! The model's log-odds of the two choices stand for an answer: slope * log-odds + offset. The constant prompt learns the
//! items' means. The projector learns *deviations*: factor * (log-odds - those at the constant prompt - shift) against the
//! answer minus the item's mean over the training people, so that no capacity goes into what is true of everybody.

use super::error::{TrainError, failed};
use super::network::Sample;
use super::prepared::{Prepared, PreparedPerson, PreparedQuestion, Target};
use super::stage::HeldOut;
use super::state::{DEVIATION, OFFSET, SHIFT, SLOPE, State};
use super::through::log_odds;
use super::{Materials, TrainOptions};
use crate::statistics::{Draws, correlation};
use candle_core::{DType, Tensor, Var};

/// Sequences that go through the model at once where nothing is learnt from them.
const BATCH: usize = 48;
/// Pairs of person and question of a first-order step: they cost no forward pass.
const FIRST_ORDER_PAIRS: usize = 256;

pub struct Questions<'a> {
    pub materials: &'a Materials<'a>,
    pub options: &'a TrainOptions,
    pub prepared: &'a Prepared,
}

/// The model as a linear function of the rows around the constant prompt.
pub struct Linearised {
    /// Log-odds of each question at the constant prompt, `[questions]`.
    pub log_odds: Vec<f64>,
    /// Their derivatives by the rows, `[questions, k * d_model]`; empty where none were asked for.
    pub jacobian: Option<Tensor>,
}

impl Linearised {
    /// Where there are no questions.
    pub fn none() -> Linearised {
        Linearised { log_odds: Vec::new(), jacobian: None }
    }
}

/// A person, a question and the answer.
struct Pair<'p> {
    person: &'p PreparedPerson,
    question: usize,
    answer: f64,
}

impl Questions<'_> {
    fn question(&self, index: usize) -> &PreparedQuestion {
        &self.prepared.questions[index]
    }

    /// Loss of the constant prompt: items' means.
    pub fn constant_loss(&self, state: &State, step: usize) -> Result<Tensor, TrainError> {
        let count = self.options.people_per_step * self.options.targets_per_person;
        let mut draws = Draws::new(self.options.seed, "constant step", step as u64);
        let chosen: Vec<&PreparedQuestion> = draws
            .sample(self.prepared.questions.len(), count)
            .into_iter()
            .map(|i| self.question(i))
            .collect();
        let rows = state.network.constants(chosen.len()).map_err(failed("constant prompt"))?;
        let log_odds = log_odds(self.materials.model, &rows, &chosen)?;
        let means: Vec<f64> = chosen.iter().map(|question| question.mean).collect();
        let loss = || -> candle_core::Result<Tensor> {
            let readout = |i: usize| state.readout.narrow(0, i, 1);
            let predicted = log_odds.broadcast_mul(&readout(SLOPE)?)?.broadcast_add(&readout(OFFSET)?)?;
            (predicted - column(&means, &log_odds)?)?.sqr()?.mean_all()
        };
        loss().map_err(failed("loss of the constant prompt"))
    }

    /// Log-odds at the constant prompt, and with `derivatives` how they change with its rows.
    pub fn linearised(&self, state: &State, derivatives: bool) -> Result<Linearised, TrainError> {
        let doing = failed("linearisation");
        let mut found = Linearised { log_odds: Vec::new(), jacobian: None };
        let mut parts = Vec::new();
        let constant = state.network.constant.as_detached_tensor();
        for batch in self.prepared.questions.chunks(BATCH) {
            let batch: Vec<&PreparedQuestion> = batch.iter().collect();
            let (k, d) = constant.dims2().map_err(&doing)?;
            // A copy of the rows for each question: its gradient is that question's alone.
            let rows = constant.unsqueeze(0).and_then(|rows| rows.repeat((batch.len(), 1, 1)));
            let rows = rows.and_then(|rows| Var::from_tensor(&rows)).map_err(&doing)?;
            let input = if derivatives { rows.as_tensor().clone() } else { rows.as_detached_tensor() };
            let odds = log_odds(self.materials.model, &input, &batch)?;
            found.log_odds.extend(to_f64(&odds)?);
            if derivatives {
                let sum = odds.sum_all().map_err(&doing)?;
                let gradients = crate::model::gradients(&sum, &[("rows".to_owned(), rows)])?;
                parts.push(gradients[0].reshape((batch.len(), k * d)).map_err(&doing)?.detach());
            }
        }
        if derivatives {
            found.jacobian = Some(Tensor::cat(&parts, 0).map_err(&doing)?);
        }
        Ok(found)
    }

    /// The deviation loss where the model is replaced by its linearisation.
    pub fn first_order_loss(
        &self,
        state: &State,
        at: &Linearised,
        step: usize,
    ) -> Result<Tensor, TrainError> {
        let mut draws = Draws::new(self.options.seed, "first-order step", step as u64);
        let people = &self.prepared.train;
        let pairs: Vec<Pair<'_>> = (0..FIRST_ORDER_PAIRS)
            .filter_map(|_| {
                let person = &people[draws.below(people.len())];
                pair(person, &person.targets[draws.below(person.targets.len())])
            })
            .collect();
        let change = self.first_order_change(state, at, &pairs, Some(&mut draws))?;
        self.deviation_loss(state, &change, &pairs)
    }

    /// Loss through the model: people of a step times targets of each.
    pub fn loss(&self, state: &State, at: &Linearised, step: usize) -> Result<Tensor, TrainError> {
        let mut draws = Draws::new(self.options.seed, "step", step as u64);
        let drawn = self.prepared.draw(self.options, &mut draws);
        let pairs: Vec<Pair<'_>> =
            drawn.into_iter().filter_map(|(person, target)| pair(person, target)).collect();
        let change = self.change(state, at, &pairs, Some(&mut draws))?;
        self.deviation_loss(state, &change, &pairs)
    }

    /// Histories behind pairs, each without its own item; `draws` also takes a random part of each where that is asked.
    fn samples<'p>(
        &self,
        pairs: &'p [Pair<'p>],
        mut draws: Option<&mut Draws>,
    ) -> Result<Vec<Sample<'p>>, TrainError>
    where
        Self: 'p,
    {
        let sample = |pair: &'p Pair<'p>| {
            let question = &self.prepared.questions[pair.question];
            let history = &pair.person.history;
            let kept = history.kept(Some(&question.item), self.options, draws.as_deref_mut());
            Ok(Sample { history, kept, query: self.materials.embeddings.get(&question.sequence.query)? })
        };
        pairs.iter().map(sample).collect()
    }

    /// Log-odds minus those at the constant prompt, `[pairs]`.
    fn change(
        &self,
        state: &State,
        at: &Linearised,
        pairs: &[Pair<'_>],
        draws: Option<&mut Draws>,
    ) -> Result<Tensor, TrainError> {
        let rows = state.network.rows(&self.samples(pairs, draws)?).map_err(failed("rows"))?;
        let questions: Vec<&PreparedQuestion> =
            pairs.iter().map(|pair| self.question(pair.question)).collect();
        let odds = log_odds(self.materials.model, &rows, &questions)?;
        let base: Vec<f64> = pairs.iter().map(|pair| at.log_odds[pair.question]).collect();
        column(&base, &odds).and_then(|base| odds - base).map_err(failed("change of log-odds"))
    }

    /// The same by the linearisation.
    fn first_order_change(
        &self,
        state: &State,
        at: &Linearised,
        pairs: &[Pair<'_>],
        draws: Option<&mut Draws>,
    ) -> Result<Tensor, TrainError> {
        let samples = self.samples(pairs, draws)?;
        let Some(jacobian) = &at.jacobian else {
            return Err(TrainError::Options("a first-order start needs derivatives".into()));
        };
        let change = || -> candle_core::Result<Tensor> {
            let (features, trust) = state.network.features(&samples)?;
            let changes = state.network.changes(&features, &trust)?.flatten_from(1)?;
            let at: Vec<u32> = pairs.iter().map(|pair| pair.question as u32).collect();
            let at = Tensor::from_vec(at, pairs.len(), jacobian.device())?;
            (changes * jacobian.index_select(&at, 0)?)?.sum(1)
        };
        change().map_err(failed("first-order change"))
    }

    fn deviation_loss(
        &self,
        state: &State,
        change: &Tensor,
        pairs: &[Pair<'_>],
    ) -> Result<Tensor, TrainError> {
        let deviations: Vec<f64> =
            pairs.iter().map(|pair| pair.answer - self.question(pair.question).mean).collect();
        let loss = || -> candle_core::Result<Tensor> {
            let readout = |i: usize| state.readout.narrow(0, i, 1);
            let shifted = change.broadcast_sub(&readout(SHIFT)?)?.broadcast_mul(&readout(DEVIATION)?)?;
            (shifted - column(&deviations, change)?)?.sqr()?.mean_all()
        };
        loss().map_err(failed("loss of deviations"))
    }

    /// Agreement with the held-out people: r of within-item deviations, and the mean change of log-odds.
    pub fn held_out(&self, state: &State, at: &Linearised, first_order: bool) -> Result<HeldOut, TrainError> {
        let asked = if first_order { usize::MAX } else { self.options.held_out_targets };
        let chosen = self.held_out_questions(asked);
        let pairs: Vec<Pair<'_>> = (self.prepared.stop.iter())
            .flat_map(|person| person.targets.iter().filter_map(|target| pair(person, target)))
            .filter(|pair| chosen.contains(&pair.question))
            .collect();
        let mut changes = Vec::new();
        for batch in pairs.chunks(if first_order { 512 } else { BATCH }) {
            let change = match first_order {
                true => self.first_order_change(state, at, batch, None)?,
                false => self.change(state, at, batch, None)?,
            };
            changes.extend(to_f64(&change)?);
        }
        let answers: Vec<f64> = pairs.iter().map(|pair| pair.answer).collect();
        let items: Vec<usize> = pairs.iter().map(|pair| pair.question).collect();
        let r = correlation(&within(&items, &changes), &within(&items, &answers));
        let shift = changes.iter().sum::<f64>() / changes.len().max(1) as f64;
        Ok(vec![("r", r), ("mean change", shift)])
    }

    /// Questions that most held-out people answered, as many as asked for, the same at every look.
    fn held_out_questions(&self, count: usize) -> Vec<usize> {
        let mut answered = vec![0usize; self.prepared.questions.len()];
        for person in &self.prepared.stop {
            for target in &person.targets {
                if let Target::Answer { question, .. } = target {
                    answered[*question] += 1;
                }
            }
        }
        let most = answered.iter().copied().max().unwrap_or(0);
        let common: Vec<usize> = (0..answered.len()).filter(|i| answered[*i] * 2 > most).collect();
        let mut draws = Draws::new(self.options.seed, "held out", 0);
        draws.sample(common.len(), count).into_iter().map(|i| common[i]).collect()
    }
}

fn pair<'p>(person: &'p PreparedPerson, target: &Target) -> Option<Pair<'p>> {
    match target {
        Target::Answer { question, answer } => Some(Pair { person, question: *question, answer: *answer }),
        Target::Reply { .. } => None,
    }
}

/// Values minus their mean over the entries of the same item.
pub fn within(items: &[usize], values: &[f64]) -> Vec<f64> {
    let mut sums = std::collections::BTreeMap::<usize, (f64, f64)>::new();
    for (item, value) in items.iter().zip(values) {
        let (sum, n) = sums.entry(*item).or_default();
        (*sum, *n) = (*sum + value, *n + 1.0);
    }
    items.iter().zip(values).map(|(item, value)| value - sums[item].0 / sums[item].1).collect()
}

fn column(values: &[f64], like: &Tensor) -> candle_core::Result<Tensor> {
    Tensor::from_slice(values, values.len(), like.device())?.to_dtype(like.dtype())
}

fn to_f64(values: &Tensor) -> Result<Vec<f64>, TrainError> {
    values.to_dtype(DType::F64).and_then(|values| values.to_vec1::<f64>()).map_err(failed("log-odds"))
}
