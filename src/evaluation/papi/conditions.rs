//! What is run with the model for each person, and what follows from those answers without another forward.

use super::PapiError;
use super::data::Data;
use super::rows::{Kind, Row};
use crate::alignment::Answers;
use crate::digest::{Digest, Digester};
use crate::statistics::mean;
use serde_json::Value;

/// Conditions that take forwards, in the order in which they are run and reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The readout alone.
    NoChange,
    /// The vector that fits the population's means; it knows nobody.
    Population,
    Ridge,
    Pas,
    /// PAS with its strength chosen on the test items.
    PasPaper,
    /// Forty of the person's answers as lines before the question.
    FewShot,
}

impl Condition {
    pub const ALL: [Condition; 6] = [
        Condition::NoChange,
        Condition::Population,
        Condition::Ridge,
        Condition::Pas,
        Condition::PasPaper,
        Condition::FewShot,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Condition::NoChange => "no change",
            Condition::Population => "population vector",
            Condition::Ridge => "ridge",
            Condition::Pas => "pas",
            Condition::PasPaper => "pas, paper protocol",
            Condition::FewShot => "few-shot",
        }
    }

    pub fn kind(self) -> Kind {
        match self {
            Condition::Population => Kind::Control,
            Condition::PasPaper => Kind::Leaky,
            _ => Kind::Model,
        }
    }

    /// Whether every person gets the same answers.
    pub fn is_common(self) -> bool {
        matches!(self, Condition::NoChange | Condition::Population)
    }

    /// Whether a vector of the person is added, which needs the controls.
    fn is_steered(self) -> bool {
        matches!(self, Condition::Ridge | Condition::Pas)
    }
}

/// What a condition may look at.
pub struct Input<'a> {
    /// The person's number, from 1; seeds draws, and nothing else.
    pub number: usize,
    /// Answers to the known items; the test items are missing.
    pub known: Answers,
    /// All answers, for the paper's protocol alone.
    pub all: &'a Answers,
}

impl Input<'_> {
    pub fn of(data: &Data, person: usize) -> Input<'_> {
        let all = &data.people[person];
        let keep = |(raw, item): (&u8, &crate::alignment::Item)| if item.is_known { *raw } else { 0 };
        let known = Answers { raw: all.raw.iter().zip(&data.inventory.items).map(keep).collect() };
        Input { number: person + 1, known, all }
    }

    /// Of what the answers under a condition depend on.
    pub fn digest(&self, settings: Digest, condition: Condition) -> Digest {
        let mut digester = Digester::new("demeanor.eval.papi/1");
        digester.part(&settings.0).part(condition.name().as_bytes());
        if !condition.is_common() {
            digester.part(&(self.number as u64).to_le_bytes()).part(&self.known.raw);
        }
        if condition == Condition::PasPaper {
            digester.part(&self.all.raw);
        }
        digester.finish()
    }
}

/// What the model answered under a condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Expected raw answer to each test item.
    pub predictions: Vec<f64>,
    /// How the vector came about (strength, norm); null where there is none.
    pub fit: Value,
    pub ms: f64,
}

/// The model that is evaluated.
pub trait Respond {
    /// Of everything that its answers depend on: weights, arithmetic, readout, algorithms.
    fn fingerprint(&self) -> Digest;
    /// Whether the model can be asked under a condition at all.
    fn can(&self, condition: Condition) -> bool;
    /// Answers to all test items, in their order.
    fn respond(&mut self, condition: Condition, input: &Input<'_>) -> Result<Told, PapiError>;
}

/// The controls of a steered row that need no further forward: the same mean shift and nothing else, and the answers
/// under the vector of the person before (of the last one for the first).
pub fn controls(condition: Condition, own: &Row, no_change: &Row) -> Vec<Row> {
    if !condition.is_steered() {
        return Vec::new();
    }
    let run: Vec<usize> = (0..own.predictions.len()).filter(|&p| own.predictions[p].is_some()).collect();
    let mut shifted: Vec<Option<Vec<f64>>> = vec![None; own.predictions.len()];
    let mut others = shifted.clone();
    for (at, &p) in run.iter().enumerate() {
        if let (Some(own), Some(plain)) = (&own.predictions[p], &no_change.predictions[p]) {
            let shift = mean(own) - mean(plain);
            shifted[p] = Some(plain.iter().map(|value| value + shift).collect());
        }
        if run.len() > 1 {
            others[p] = own.predictions[run[(at + run.len() - 1) % run.len()]].clone();
        }
    }
    let row = |name: String, predictions| Row { name, kind: Kind::Control, predictions };
    vec![row(shift_name(condition), shifted), row(other_name(condition), others)]
}

pub fn shift_name(condition: Condition) -> String {
    format!("{}: the same mean shift only", condition.name())
}

pub fn other_name(condition: Condition) -> String {
    format!("{}: another person's vector", condition.name())
}

#[cfg(test)]
mod tests {
    use super::super::data::tests::invented;
    use super::*;

    #[test]
    fn conditions_see_known_answers_only() {
        let data = invented();
        let input = Input::of(&data, 2);
        for (i, item) in data.inventory.items.iter().enumerate() {
            assert_eq!(input.known.raw[i], if item.is_known { data.people[2].raw[i] } else { 0 });
        }
        let digest = |data: &Data, condition| Input::of(data, 2).digest(Digest::of(b"s"), condition);
        let mut changed = invented();
        let test = changed.inventory.unseen()[5];
        changed.people[2].raw[test] = 6 - changed.people[2].raw[test];
        changed.people[2].raw[test] =
            if changed.people[2].raw[test] == 3 { 4 } else { changed.people[2].raw[test] };
        for condition in Condition::ALL {
            let same = digest(&data, condition) == digest(&changed, condition);
            assert_eq!(same, condition != Condition::PasPaper, "{}", condition.name());
            assert_ne!(digest(&data, condition), Input::of(&data, 2).digest(Digest::of(b"t"), condition));
        }
        let other = Input::of(&data, 3).digest(Digest::of(b"s"), Condition::Ridge);
        assert_ne!(digest(&data, Condition::Ridge), other);
    }

    #[test]
    fn controls_by_hand() {
        let row =
            |predictions: Vec<Option<Vec<f64>>>| Row { name: "x".into(), kind: Kind::Model, predictions };
        let plain = row(vec![Some(vec![2.0, 4.0]); 4]);
        let own = row(vec![Some(vec![3.0, 4.0]), None, Some(vec![2.0, 3.0]), Some(vec![5.0, 5.0])]);
        let rows = controls(Condition::Ridge, &own, &plain);
        assert_eq!(
            rows[0].predictions,
            [Some(vec![2.5, 4.5]), None, Some(vec![1.5, 3.5]), Some(vec![4.0, 6.0])]
        );
        assert_eq!(
            rows[1].predictions,
            [Some(vec![5.0, 5.0]), None, Some(vec![3.0, 4.0]), Some(vec![2.0, 3.0])]
        );
        assert!(controls(Condition::FewShot, &own, &plain).is_empty());
        // One person has no other.
        let alone = row(vec![Some(vec![3.0, 4.0])]);
        assert_eq!(controls(Condition::Pas, &alone, &plain)[1].predictions, [None]);
    }
}
