//! Do a person's soft rows carry the person? Answers of unseen people, predicted from their history.
//!
//! Each question is asked through the engine with a person's rows in front, as a client's request would be; the log-odds
//! of its two choices stand for the answer. Beside it stand what knows nobody (no rows, the constant prompt, the
//! population's mean), the same history as text, **another person's rows** (the control that separates "uses the person"
//! from "more rows help"), and what uses no language model at all (own group's mean, ridge regression).
//!
//! Two ways from log-odds to an answer, both fitted on the `stop` people: *raw*, a line; and *population + deviation*, the
//! item's mean over the training people plus b times the log-odds minus their mean over the stop people.
//!
//! `ask` runs prompts, `predict` turns log-odds into answers, `baselines` needs no model, `figures` measures, `page` shows.

mod ask;
mod baselines;
mod figures;
mod page;
mod predict;

use crate::engine::{Engine, SequenceError, SubmitError};
use crate::statistics::rounded;
use crate::text::{Text, TextError};
use crate::users::people::{HistoryItem, People, Person, Question, Split, Targets};
use crate::users::train::{Embeddings, TrainError};
use crate::users::{Projector, WeightedEmbedding};
use ask::Asker;
use figures::{Difference, Figures};
use predict::{Panel, Row, Scores};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why the evaluation ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    #[error("people: {0}")]
    People(String),
    #[error("projector: {0}")]
    Projector(String),
    #[error(transparent)]
    Text(#[from] TextError),
    /// Boxed: it is far larger than the others.
    #[error(transparent)]
    Embeddings(Box<TrainError>),
    #[error("the engine refused a prompt: {0}")]
    Submit(#[from] SubmitError),
    #[error("the engine gave up a prompt: {0}")]
    Sequence(#[from] SequenceError),
    #[error("cannot write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

impl From<TrainError> for EvaluationError {
    fn from(error: TrainError) -> EvaluationError {
        EvaluationError::Embeddings(Box::new(error))
    }
}

/// What is evaluated, and how much of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Questions at most, drawn by `seed`.
    pub limit: Option<usize>,
    /// Questions at most for the rows with history as text: their prompts are a hundred times as long.
    pub text_limit: usize,
    /// Questions whose time to first token is measured.
    pub timed: usize,
    /// Resamples of the intervals.
    pub rounds: usize,
    pub seed: u64,
}

/// What the evaluation needs from elsewhere.
pub struct Materials<'a> {
    pub engine: &'a Engine,
    pub text: &'a Text,
    pub people: &'a People,
    /// Of all texts in `people`.
    pub embeddings: &'a Embeddings,
    pub static_projector: Option<&'a Projector>,
    pub input_aware_projector: Option<&'a Projector>,
}

/// All rows with their figures.
pub struct Report {
    pub summary: Value,
    /// One object per test person and question.
    pub answers: Vec<Value>,
    pub html: String,
    /// A line per row and per difference, for a terminal.
    table: String,
}

impl Report {
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Writes `summary.json`, `answers.jsonl` and `report.html` into a folder.
    pub fn write(&self, folder: &Path) -> Result<(), EvaluationError> {
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, bytes));
            written.map_err(|source| EvaluationError::Write { path, source })
        };
        let answers: String = self.answers.iter().map(|answer| format!("{answer}\n")).collect();
        put("answers.jsonl", answers.as_bytes())?;
        put("summary.json", format!("{:#}\n", self.summary).as_bytes())?;
        put("report.html", self.html.as_bytes())
    }
}

/// A person with the questions by index.
pub(crate) struct Respondent<'a> {
    pub person: &'a Person,
    /// Answer to each question; `None` where it is missing.
    pub answers: Vec<Option<f64>>,
}

impl Respondent<'_> {
    fn history(&self) -> &[HistoryItem] {
        &self.person.history
    }

    /// History without the item of a question, as the projector reads it.
    fn embedded<'e>(
        &self,
        embeddings: &'e Embeddings,
        item: &str,
    ) -> Result<Vec<WeightedEmbedding<'e>>, EvaluationError> {
        let kept = self.history().iter().filter(|own| own.item.as_deref() != Some(item));
        let embed = |own: &HistoryItem| {
            Ok(WeightedEmbedding { embedding: embeddings.get(&own.text)?, weight: own.weight })
        };
        kept.map(embed).collect()
    }
}

/// Runs everything. `say` gets a line for who waits.
pub fn evaluate(
    materials: &Materials<'_>,
    options: &Options,
    say: &mut dyn FnMut(&str),
) -> Result<Report, EvaluationError> {
    let questions = chosen_questions(materials.people, options)?;
    let panel = Panel::new(materials.people, &questions)?;
    check_projectors(materials)?;
    let asker = Asker { materials, questions: &questions };
    let text_questions = every_nth(questions.len(), options.text_limit);
    let mut rows: Vec<Row> = Vec::new();
    let mut costs: BTreeMap<String, ask::Cost> = BTreeMap::new();
    let both = |name: &str, scores: &Scores| {
        [predict::raw(&panel, name, scores), predict::with_population(&panel, name, scores)]
    };
    say("no user information");
    let none = asker.same_for_all(&panel, None)?;
    rows.push(predict::raw(&panel, "no user information", &none));
    let cost = asker.cost(&panel, &ask::Condition::Nothing, options.timed)?;
    costs.insert("no user information".to_owned(), cost);
    rows.push(predict::population(&panel));
    if let Some(projector) = materials.static_projector.or(materials.input_aware_projector) {
        say("constant prompt");
        let constant = asker.same_for_all(&panel, Some(&projector.constant()))?;
        rows.push(predict::raw(&panel, "constant prompt", &constant));
    }
    for (name, condition) in [
        ("history as text, all", ask::Condition::AllAsText),
        ("history as text, 10 nearest", ask::Condition::NearestAsText(10)),
    ] {
        say(name);
        let scores = asker.ask(&panel, &condition, &text_questions)?;
        costs.insert(name.to_owned(), asker.cost(&panel, &condition, options.timed.min(4))?);
        rows.extend(both(name, &scores));
    }
    let mut pairs = Vec::new();
    for (name, projector) in [
        ("static soft prompt", materials.static_projector),
        ("input-aware soft prompt", materials.input_aware_projector),
    ] {
        let Some(projector) = projector else { continue };
        say(name);
        let condition = ask::Condition::Rows(projector);
        let all: Vec<usize> = (0..questions.len()).collect();
        let scores = asker.ask(&panel, &condition, &all)?;
        costs.insert(name.to_owned(), asker.cost(&panel, &condition, options.timed)?);
        rows.extend(both(name, &scores));
        // Another person's rows are asked the same questions, so the scores are there already.
        rows.extend(predict::others(&panel, name, &scores));
        rows.extend(predict::mean_prompt(&panel, name, &scores));
        pairs.push(name);
    }
    say("baselines without a language model");
    rows.extend(baselines::own_group(&panel));
    rows.push(baselines::ridge(&panel));
    let figures: Vec<Figures> =
        rows.iter().map(|row| figures::of(&panel, row, options.rounds, options.seed)).collect();
    let differences = differences(&panel, &rows, &pairs, options);
    let summary = summary(materials, options, &questions, &panel, &figures, &differences, &costs);
    let html = page::html(&summary, &figures, &differences, &costs);
    let table = page::table(&figures, &differences);
    Ok(Report { summary, answers: answers(&panel, &questions, &rows), html, table })
}

/// Questions that test people were asked, in the file's order; a drawn part where there is a limit.
fn chosen_questions<'a>(people: &'a People, options: &Options) -> Result<Vec<&'a Question>, EvaluationError> {
    let mut found: Vec<&Question> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for person in people.of(Split::Test) {
        let Targets::Questions(questions) = &person.targets else {
            return Err(EvaluationError::People("targets are replies; questions are evaluated".into()));
        };
        found.extend(questions.iter().filter(|question| seen.insert(question.item.as_str())));
    }
    if found.is_empty() || people.of(Split::Stop).next().is_none() {
        let message = "people of all three splits are needed: train, stop and test";
        return Err(EvaluationError::People(message.into()));
    }
    let count = options.limit.unwrap_or(found.len());
    let mut draws = crate::statistics::Draws::new(options.seed, "questions", 0);
    let mut kept = draws.sample(found.len(), count);
    kept.sort_unstable();
    Ok(kept.into_iter().map(|i| found[i]).collect())
}

/// Indices below `n`, evenly spaced, at most `count`.
fn every_nth(n: usize, count: usize) -> Vec<usize> {
    let count = count.clamp(1, n.max(1)).min(n);
    (0..count).map(|i| i * n / count).collect()
}

fn check_projectors(materials: &Materials<'_>) -> Result<(), EvaluationError> {
    let info = materials.engine.info();
    for projector in [materials.static_projector, materials.input_aware_projector].into_iter().flatten() {
        let (made_for, loaded) = (projector.weights(), info.weights_digest);
        if made_for != loaded {
            let (made_for, loaded) = (made_for.short(12), loaded.short(12));
            let message = format!("it was trained through the weights {made_for}; loaded are {loaded}");
            return Err(EvaluationError::Projector(message));
        }
        if projector.encoder() != materials.embeddings.encoder {
            let message = format!("it reads embeddings of another encoder, `{}`", projector.encoder_name());
            return Err(EvaluationError::Projector(message));
        }
    }
    Ok(())
}

/// The differences that decide: own against another person's, the mean prompt and the population.
fn differences(panel: &Panel<'_>, rows: &[Row], names: &[&str], options: &Options) -> Vec<Difference> {
    let row = |name: &str| rows.iter().find(|row| row.name == name);
    let mut found = Vec::new();
    for name in names.iter().copied().chain(["history as text, all", "history as text, 10 nearest"]) {
        for form in [predict::RAW, predict::WITH_POPULATION] {
            let own = format!("{name}, {form}");
            for other in [
                format!("another person's {name}, {form}"),
                format!("mean over people of {name}, {form}"),
                predict::POPULATION.to_owned(),
                "constant prompt, raw".to_owned(),
            ] {
                if let (Some(own), Some(other)) = (row(&own), row(&other)) {
                    found.push(figures::difference(panel, own, other, options.rounds, options.seed));
                }
            }
        }
    }
    found
}

fn summary(
    materials: &Materials<'_>,
    options: &Options,
    questions: &[&Question],
    panel: &Panel<'_>,
    figures: &[Figures],
    differences: &[Difference],
    costs: &BTreeMap<String, ask::Cost>,
) -> Value {
    let info = materials.engine.info();
    let projector = |projector: Option<&Projector>| {
        projector.map(|projector| {
            json!({
                "digest": projector.digest().to_string(), "form": projector.form().name(), "k": projector.k(),
                "data": projector.parts().data.to_string(), "recipe": projector.parts().recipe,
            })
        })
    };
    json!({
        "schema": "demeanor.evaluation.users/1",
        "people": {"train": panel.train.len(), "stop": panel.stop.len(), "test": panel.test.len()},
        "questions": questions.len(),
        "text_questions": every_nth(questions.len(), options.text_limit).len(),
        "seed": options.seed, "rounds": options.rounds,
        "data": materials.people.digest.to_string(),
        "weights": info.weights_digest.to_string(), "arithmetic": info.arithmetic,
        "encoder": materials.embeddings.encoder.to_string(),
        "static": projector(materials.static_projector),
        "input_aware": projector(materials.input_aware_projector),
        "rows": figures.iter().map(Figures::json).collect::<Vec<_>>(),
        "differences": differences.iter().map(Difference::json).collect::<Vec<_>>(),
        "costs": costs.iter().map(|(name, cost)| (name.clone(), cost.json()))
            .collect::<serde_json::Map<_, _>>(),
    })
}

/// One object per test person and question: the answer and what each row said.
fn answers(panel: &Panel<'_>, questions: &[&Question], rows: &[Row]) -> Vec<Value> {
    let mut lines = Vec::new();
    for (u, respondent) in panel.test.iter().enumerate() {
        for (i, question) in questions.iter().enumerate() {
            let Some(answer) = respondent.answers[i] else { continue };
            // Rows with many predictions per answer would say nothing one by one.
            let single = rows.iter().filter(|row| row.test[u][i].len() == 1);
            let predictions: serde_json::Map<String, Value> =
                single.map(|row| (row.name.clone(), json!(rounded(row.test[u][i][0], 4)))).collect();
            lines.push(json!({
                "user": respondent.person.user, "item": question.item, "answer": answer,
                "predictions": predictions,
            }));
        }
    }
    lines
}

#[cfg(test)]
mod tests;
