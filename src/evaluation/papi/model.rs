//! A running model as the respondent: its vectors come from alignment, its answers from forward passes.

use super::PapiError;
use super::conditions::{Condition, Input, Respond, Told};
use crate::alignment::{Aligned, Aligner, Protocol};
use crate::digest::{Digest, Digester};
use crate::engine::{Engine, Priority, Request, Want};
use crate::evaluation::scored;
use crate::model::{Edits, Place, SoftRows};
use crate::statistics::{Draws, mean, rounded};
use crate::text::{Specials, Text};
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers of a person that stand before a question as text, and answers that set the level there.
const SHOTS: usize = 40;

pub struct Model<'a> {
    pub engine: &'a Engine,
    pub text: &'a Text,
    pub aligner: &'a Aligner,
    pub seed: u64,
}

impl Model<'_> {
    /// What tells runs apart, for the summary.
    pub fn description(&self, name: &str) -> Value {
        let (info, readout) = (self.engine.info(), self.aligner.readout());
        json!({
            "model": name, "weights_sha256": info.weights_digest.to_string(), "arithmetic": info.arithmetic,
            "quantisation": info.quantisation, "build": env!("CARGO_PKG_VERSION"),
            "readout": readout.json(), "first_block": self.aligner.first_block(), "norm_cap": self.aligner.range().0,
        })
    }

    fn test(&self) -> Vec<usize> {
        self.aligner.inventory().unseen()
    }

    fn under(&self, aligned: &Aligned) -> Result<Told, PapiError> {
        let edits = self.aligner.edits_of(aligned)?;
        let fit = json!({
            "lambda": short(aligned.lambda), "norm": short(Some(aligned.norm)), "scale": short(Some(aligned.scale)),
            "shift": aligned.shift.map(|(measured, norm)| json!([short(Some(measured)), short(Some(norm))])),
            "alpha": aligned.alpha,
        });
        Ok(Told { predictions: self.aligner.answers(&edits, &self.test())?, fit, ms: 0.0 })
    }

    /// Forty of the person's answers as lines before each question. Text before a question moves all answers, so the level
    /// is set by up to forty further answers of the person; the slope is that of the readout.
    fn after_lines(&self, input: &Input<'_>) -> Result<Told, PapiError> {
        let readout = self.aligner.readout();
        let items = &self.aligner.inventory().items;
        let (shots, level) = shots(input, self.seed);
        let mut before = String::new();
        for &i in &shots {
            let answer = input.known.get(i).unwrap_or(3.0);
            let distance = |value: f64| (value - answer).abs();
            let values = readout.form.options.iter().zip(readout.form.values);
            if let Some((option, _)) = values.min_by(|x, y| distance(*x.1).total_cmp(&distance(*y.1))) {
                before += &format!("{}{option}\n", readout.form.prompt(&items[i].text));
            }
        }
        let asked: Vec<usize> = self.test().into_iter().chain(level.iter().copied()).collect();
        let options = (readout.form.options.iter())
            .map(|option| self.text.tokenizer.encode(option, Specials::AsText))
            .collect::<Result<Vec<_>, _>>()?;
        let request = |&i: &usize| -> Result<Request, PapiError> {
            let prompt = self.text.complete(&format!("{before}{}", readout.form.prompt(&items[i].text)))?;
            Ok(Request {
                prompt,
                soft: SoftRows::none(),
                soft_at: 0,
                edits: Arc::<Edits>::default(),
                want: Want::Score(options.clone()),
                priority: Priority::Job,
                owner: Digest::default(),
                cache_salt: Digest::default(),
                use_cache: true,
            })
        };
        let requests = asked.iter().map(request).collect::<Result<Vec<_>, _>>()?;
        let scores: Vec<Vec<f64>> = scored::scored_after_the_first::<PapiError>(self.engine, requests)?;
        let signals: Vec<f64> =
            scores.iter().map(|score| readout.form.signal(score, &readout.bias)).collect();
        let own: Vec<f64> = level.iter().filter_map(|&i| input.known.get(i)).collect();
        let (test, known) = signals.split_at(self.test().len());
        let (signal, answer) = if own.is_empty() { (mean(test), 3.0) } else { (mean(known), mean(&own)) };
        let predictions = test.iter().map(|value| answer + readout.slope * (value - signal)).collect();
        Ok(Told { predictions, fit: json!({"shots": shots.len(), "level": level.len()}), ms: 0.0 })
    }
}

/// Items whose answers stand as text, of those that take a side, and further answered items, drawn for each person.
fn shots(input: &Input<'_>, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let answered = input.known.answered();
    let mut draws = Draws::new(seed, "shots", input.number as u64);
    let order: Vec<usize> =
        draws.sample(answered.len(), answered.len()).into_iter().map(|at| answered[at]).collect();
    let sided = order.iter().copied().filter(|&i| input.known.get(i) != Some(3.0));
    let shots: Vec<usize> = sided.take(SHOTS).collect();
    let level = order.into_iter().filter(|i| !shots.contains(i)).take(SHOTS).collect();
    (shots, level)
}

/// Four decimals; null for what is not there.
fn short(value: Option<f64>) -> Value {
    json!(value.map(|value| rounded(value, 4)))
}

impl Respond for Model<'_> {
    fn fingerprint(&self) -> Digest {
        let (info, readout) = (self.engine.info(), self.aligner.readout());
        let mut digester = Digester::new("demeanor.eval.papi.model/1");
        digester.part(&info.weights_digest.0).part(info.arithmetic.as_bytes());
        digester.part(readout.json().to_string().as_bytes());
        digester.part(&(self.aligner.first_block() as u64).to_le_bytes());
        digester.part(&self.aligner.range().0.to_le_bytes());
        digester.part(env!("CARGO_PKG_VERSION").as_bytes());
        digester.finish()
    }

    /// PAS moves heads, which some families norm before they join the stream.
    fn can(&self, condition: Condition) -> bool {
        !matches!(condition, Condition::Pas | Condition::PasPaper) || self.aligner.place() == Place::Heads
    }

    fn respond(&mut self, condition: Condition, input: &Input<'_>) -> Result<Told, PapiError> {
        match condition {
            Condition::NoChange => {
                let plain = Arc::<Edits>::default();
                let predictions = self.aligner.answers(&plain, &self.test())?;
                Ok(Told { predictions, fit: Value::Null, ms: 0.0 })
            }
            Condition::Population => self.under(&self.aligner.population()?),
            Condition::Ridge => self.under(&self.aligner.ridge(&input.known)?),
            Condition::Pas => self.under(&self.aligner.pas(&input.known, Protocol::Honest)?),
            Condition::PasPaper => self.under(&self.aligner.pas(input.all, Protocol::Paper)?),
            Condition::FewShot => self.after_lines(input),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::tests::invented;
    use super::*;

    #[test]
    fn shots_are_known_sided_and_apart_from_the_level() {
        let data = invented();
        for person in 0..10 {
            let input = Input::of(&data, person);
            let (own, level) = shots(&input, 3);
            assert_eq!((own.len(), level.len()), (SHOTS, SHOTS));
            assert!(
                own.iter()
                    .all(|&i| data.inventory.items[i].is_known && ![0, 3].contains(&input.known.raw[i]))
            );
            assert!(level.iter().all(|&i| data.inventory.items[i].is_known && input.known.raw[i] != 0));
            assert!(!level.iter().any(|i| own.contains(i)));
            assert_eq!(shots(&input, 3), (own.clone(), level));
            assert_ne!(shots(&input, 4).0, own);
        }
    }
}
