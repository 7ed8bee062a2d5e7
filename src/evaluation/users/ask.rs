//! Questions through the engine: prompts with a person's rows or history in front, log-odds back, and what it costs.

use super::predict::{Panel, Scores};
use super::{EvaluationError, Materials, Respondent};
use crate::digest::Digest;
use crate::engine::{Priority, Request, Sampling, Want};
use crate::evaluation::scored;
use crate::model::SoftRows;
use crate::persona;
use crate::text::Specials;
use crate::users::people::{Question, Split, Targets};
use crate::users::{Projector, UserRows};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// What stands before a question.
pub enum Condition<'p> {
    Nothing,
    /// Rows of a projector, by its form.
    Rows(&'p Projector),
    /// Every history item as a line.
    AllAsText,
    /// The history items nearest to the question, the nearest one last.
    NearestAsText(usize),
}

/// Mean prompt length and the time to the first token.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Tokens of the question and of history as text.
    pub prompt_tokens: f64,
    pub soft_rows: f64,
    /// Milliseconds from submission to an evaluated prompt, median: nothing cached, and a person who returns.
    pub first_ms: f64,
    pub returning_ms: f64,
}

impl Cost {
    pub fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens, "soft_rows": self.soft_rows,
            "first_ms": self.first_ms, "returning_ms": self.returning_ms,
        })
    }
}

pub struct Asker<'a> {
    pub materials: &'a Materials<'a>,
    pub questions: &'a [&'a Question],
}

impl Asker<'_> {
    /// Log-odds where nothing in the prompt tells people apart.
    pub fn same_for_all(
        &self,
        panel: &Panel<'_>,
        rows: Option<&UserRows>,
    ) -> Result<Scores, EvaluationError> {
        let requests = (self.questions.iter())
            .map(|question| self.request(question, "", rows, false))
            .collect::<Result<Vec<_>, _>>()?;
        let scores = self.run(requests)?;
        Ok(Scores { stop: vec![scores.clone(); panel.stop.len()], test: vec![scores; panel.test.len()] })
    }

    /// Log-odds of each person's own prompts for the questions `asked`; NaN for the others.
    pub fn ask(
        &self,
        panel: &Panel<'_>,
        condition: &Condition<'_>,
        asked: &[usize],
    ) -> Result<Scores, EvaluationError> {
        let lines = self.lines();
        let person = |respondent: &Respondent<'_>| {
            let mut scores = vec![f64::NAN; self.questions.len()];
            let requests = (asked.iter())
                .map(|&i| self.conditioned(respondent, self.questions[i], condition, &lines))
                .collect::<Result<Vec<_>, _>>()?;
            asked.iter().zip(self.run_of_one(requests)?).for_each(|(&i, score)| scores[i] = score);
            Ok(scores)
        };
        let all =
            |people: &[Respondent<'_>]| people.iter().map(person).collect::<Result<_, EvaluationError>>();
        Ok(Scores { stop: all(&panel.stop)?, test: all(&panel.test)? })
    }

    /// Lengths and times of `timed` questions, one at a time, each of another person: first with nothing cached, then
    /// the next question of the same person.
    pub fn cost(
        &self,
        panel: &Panel<'_>,
        condition: &Condition<'_>,
        timed: usize,
    ) -> Result<Cost, EvaluationError> {
        let lines = self.lines();
        let (mut first, mut returning) = (Vec::new(), Vec::new());
        let (mut tokens, mut rows) = (0.0, 0.0);
        for i in 0..timed {
            let respondent = &panel.test[i % panel.test.len()];
            for (again, times) in [(0, &mut first), (1, &mut returning)] {
                let question = self.questions[(2 * i + again) % self.questions.len()];
                let mut request = self.conditioned(respondent, question, condition, &lines)?;
                // A salt per timed person: what was cached by the scores above does not count.
                (request.use_cache, request.cache_salt) = (true, Digest::of(format!("timed {i}").as_bytes()));
                tokens += request.prompt.len() as f64;
                rows += request.soft.len() as f64;
                let started = Instant::now();
                let mut events = self.materials.engine.submit(request)?;
                scored::score(&mut events)?;
                times.push(started.elapsed().as_secs_f32() * 1e3);
            }
        }
        let n = 2.0 * timed.max(1) as f64;
        let median = |times: &[f32]| f64::from(crate::statistics::median(times));
        Ok(Cost {
            prompt_tokens: tokens / n,
            soft_rows: rows / n,
            first_ms: median(&first),
            returning_ms: median(&returning),
        })
    }

    /// How a history item reads as text: the question about it with the choice that its weight stands for, where there
    /// is such a question among the training people; else the text itself.
    fn lines(&self) -> BTreeMap<&str, &Question> {
        let mut lines = BTreeMap::new();
        for person in self.materials.people.of(Split::Train) {
            let Targets::Questions(questions) = &person.targets else { continue };
            for question in questions {
                lines.entry(question.item.as_str()).or_insert(question);
            }
        }
        lines
    }

    fn conditioned(
        &self,
        respondent: &Respondent<'_>,
        question: &Question,
        condition: &Condition<'_>,
        lines: &BTreeMap<&str, &Question>,
    ) -> Result<Request, EvaluationError> {
        let embeddings = self.materials.embeddings;
        match condition {
            Condition::Nothing => self.request(question, "", None, false),
            Condition::Rows(projector) => {
                let items = respondent.embedded(embeddings, &question.item)?;
                let rows = projector.input_aware_prompt(&items, embeddings.get(&question.prompt)?);
                self.request(question, "", Some(&rows), false)
            }
            Condition::AllAsText => {
                let all: Vec<usize> = (0..respondent.history().len()).collect();
                self.request(question, &as_text(respondent, question, &all, lines), None, true)
            }
            Condition::NearestAsText(count) => {
                let query = embeddings.get(&question.prompt)?;
                let mut near = Vec::new();
                for (i, item) in respondent.history().iter().enumerate() {
                    let embedding = embeddings.get(&item.text)?;
                    let cosine: f32 = embedding.iter().zip(query).map(|(x, y)| x * y).sum();
                    near.push((cosine, i));
                }
                near.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
                let nearest: Vec<usize> = near.iter().take(*count).rev().map(|(_, i)| *i).collect();
                self.request(question, &as_text(respondent, question, &nearest, lines), None, true)
            }
        }
    }

    fn request(
        &self,
        question: &Question,
        before: &str,
        rows: Option<&UserRows>,
        use_cache: bool,
    ) -> Result<Request, EvaluationError> {
        let text = self.materials.text;
        let prompt = text.complete(&format!("{before}{}", question.prompt))?;
        let choice = |i: usize| text.tokenizer.encode(&question.choices[i], Specials::AsText);
        let soft = match rows {
            None => SoftRows::none(),
            Some(rows) => {
                let d_model = self.materials.engine.info().d_model as usize;
                let soft = SoftRows::new(rows.values.clone(), rows.k, d_model);
                soft.ok_or_else(|| EvaluationError::Projector("its rows do not fit the loaded model".into()))?
            }
        };
        let plain = persona::Condition::new(Arc::default(), Sampling::default());
        let condition = persona::Condition { soft, bos: text.begin_token(), use_cache, ..plain };
        let request = condition.request(prompt, Want::Score(vec![choice(0)?, choice(1)?]));
        Ok(Request { priority: Priority::Job, ..request })
    }

    /// Log-odds of one person's requests.
    fn run_of_one(&self, requests: Vec<Request>) -> Result<Vec<f64>, EvaluationError> {
        let scores: Result<_, EvaluationError> =
            scored::scored_after_the_first(&self.materials.engine, requests);
        Ok(scores?.iter().map(|score| odds(score)).collect())
    }

    /// Log-odds of the requests, in their order.
    fn run(&self, requests: Vec<Request>) -> Result<Vec<f64>, EvaluationError> {
        let scores: Result<_, EvaluationError> = scored::scored(&self.materials.engine, requests);
        Ok(scores?.iter().map(|score| odds(score)).collect())
    }
}

/// Log-odds of the first against the second continuation.
fn odds(score: &[f64]) -> f64 {
    match score {
        [first, second] => first - second,
        _ => f64::NAN,
    }
}

/// History items as lines before a question; items without a side (weight 0) and the question's own are left out.
fn as_text(
    respondent: &Respondent<'_>,
    question: &Question,
    chosen: &[usize],
    lines: &BTreeMap<&str, &Question>,
) -> String {
    let mut text = String::new();
    for item in chosen.iter().map(|&i| &respondent.history()[i]) {
        if item.weight == 0.0 || item.item.as_deref() == Some(&question.item) {
            continue;
        }
        match item.item.as_deref().and_then(|item| lines.get(item)) {
            Some(asked) => {
                let choice = &asked.choices[usize::from(item.weight < 0.0)];
                text += &format!("{}{choice}\n", asked.prompt);
            }
            None => text += &format!("{}\n", item.text),
        }
    }
    text
}
