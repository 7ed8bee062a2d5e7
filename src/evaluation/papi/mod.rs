//! Does alignment bring a model nearer to a person? PAPI: 180 answers of real people, predicted from 120 others.
//!
//! A score is a person's mean absolute error in each of five domains, summed; lower is better. Every steered row stands
//! beside three controls (the same mean shift and nothing else, another person's vector, the population's vector) and beside
//! what needs no language model. Expected answers and rounded ones are told apart, because the metric rewards integers.
//! People 1 to 60 are reported on; norms, readouts and population vectors come from people 61 to 150.
//!
//! `data` reads the folder, `baselines` needs no model, `conditions` says what is run and what follows from it, `folder` keeps
//! answers so that a run goes on where it stopped, `rows` and `figures` measure, `summary` and `page` show.

mod baselines;
mod conditions;
mod data;
mod figures;
mod folder;
mod model;
mod page;
mod rows;
mod summary;

use crate::alignment::AlignmentError;
use crate::digest::{Digest, Digester};
use crate::engine::{SequenceError, SubmitError};
use crate::statistics::rounded;
use crate::text::TextError;
pub use conditions::{Condition, Input, Respond, Told};
pub use data::{Data, REPORTED_MAX};
use figures::{Difference, Figures};
use folder::Folder;
pub use model::Model;
use rows::{Form, Row};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Why the evaluation ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum PapiError {
    /// A file of the folder that breaks a rule.
    #[error("{file}: {rule}")]
    Data { file: &'static str, rule: String },
    /// Earlier results that cannot be gone on from.
    #[error("{} line {line}: {rule}", path.display())]
    Results { path: PathBuf, line: usize, rule: String },
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("`--{flag}` is {given}; expected {least} to {most}")]
    OutOfRange { flag: &'static str, given: usize, least: usize, most: usize },
    #[error(transparent)]
    Alignment(#[from] AlignmentError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error("the engine refused a prompt: {0}")]
    Submit(#[from] SubmitError),
    #[error("the engine gave up a prompt: {0}")]
    Sequence(#[from] SequenceError),
    /// The model gave answers that are no use.
    #[error("`{condition}`, person {person}: {rule}")]
    Answers { condition: &'static str, person: usize, rule: String },
}

/// How much is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// People 1 to this are reported on.
    pub people: usize,
    /// The first so many of them with PAS, whose strength takes many forwards, and with answers as text.
    pub pas_people: usize,
    pub few_shot_people: usize,
    /// Resamples of the intervals.
    pub rounds: usize,
    pub seed: u64,
}

impl Options {
    fn check(&self) -> Result<(), PapiError> {
        let parts = [("pas-people", self.pas_people), ("few-shot-people", self.few_shot_people)];
        let all = [("people", self.people, 1, REPORTED_MAX)];
        let parts = parts.map(|(flag, given)| (flag, given, 0, self.people));
        for (flag, given, least, most) in all.into_iter().chain(parts) {
            if !(least..=most).contains(&given) {
                return Err(PapiError::OutOfRange { flag, given, least, most });
            }
        }
        Ok(())
    }

    /// People that a condition is run for.
    fn people_of(&self, condition: Condition) -> usize {
        match condition {
            Condition::Pas | Condition::PasPaper => self.pas_people,
            Condition::FewShot => self.few_shot_people,
            _ => self.people,
        }
    }
}

/// What a run is about, for its summary.
pub struct Target {
    /// Model, weights, arithmetic and what else tells runs apart.
    pub description: Value,
    /// Command that makes this report again.
    pub reproduce: String,
}

/// The table of a run, for a terminal.
#[derive(Debug)]
pub struct Report {
    pub table: String,
}

/// Counts, checksums, data checks and the baselines; no model is needed.
pub fn check(data: &Data, options: &Options) -> Result<String, PapiError> {
    options.check()?;
    let rows = baselines::all(data, options.people, options.seed);
    let figures = measured(data, &rows, options);
    Ok(summary::check(data, options, &figures))
}

/// Runs what is not in the folder yet and writes `results.jsonl`, `summary.json` and `report.html`. `say` gets a line for who
/// waits.
pub fn evaluate(
    data: &Data,
    respond: &mut dyn Respond,
    target: &Target,
    options: &Options,
    out: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<Report, PapiError> {
    options.check()?;
    let settings = settings(data, respond, options);
    let mut folder = Folder::open(out, data.inventory.unseen().len())?;
    let (mut told, mut warnings) = (Vec::new(), summary::warnings(options));
    for condition in Condition::ALL {
        let people = options.people_of(condition);
        if !respond.can(condition) {
            warnings.push(format!("`{}` is left out: this model's heads cannot be moved", condition.name()));
        } else if people > 0 {
            told.push((condition, run(data, respond, condition, people, settings, &mut folder, say)?));
        }
    }
    let rows = rows(&told, options);
    folder.finish(data, &rows)?;
    let mut all = baselines::all(data, options.people, options.seed);
    all.extend(rows.into_iter().map(|(row, _)| row));
    let figures = measured(data, &all, options);
    let differences = differences(data, &all, options);
    let summary = summary::of(data, options, target, &figures, &differences, &told, &warnings);
    folder.write("summary.json", &format!("{summary:#}\n"))?;
    folder.write("report.html", &page::html(data, target, &all, &figures, &differences, &summary))?;
    Ok(Report { table: page::table(&figures, &differences) })
}

/// Digest of all that answers depend on beside the person and the condition.
fn settings(data: &Data, respond: &dyn Respond, options: &Options) -> Digest {
    let mut digester = Digester::new("demeanor.eval.papi.settings/1");
    digester
        .part(&respond.fingerprint().0)
        .part(&data.inventory.digest().0)
        .part(&options.seed.to_le_bytes());
    digester.finish()
}

/// A person's digest and answers.
type Run = Vec<(Digest, Told)>;

/// Answers of people 1 to `people` under a condition: those of an earlier run, and the missing ones.
fn run(
    data: &Data,
    respond: &mut dyn Respond,
    condition: Condition,
    people: usize,
    settings: Digest,
    folder: &mut Folder,
    say: &mut dyn FnMut(&str),
) -> Result<Run, PapiError> {
    let mut all: Run = Vec::new();
    for person in 0..people {
        let input = Input::of(data, person);
        let digest = input.digest(settings, condition);
        let told = match folder.kept(digest) {
            Some(told) => told.clone(),
            None => {
                say(&format!("{}: person {} of {people}", condition.name(), person + 1));
                let started = Instant::now();
                let told = respond.respond(condition, &input)?;
                let ms = started.elapsed().as_secs_f64() * 1e3;
                let told = checked(data, condition, person, Told { ms, ..told })?;
                folder.add(data, &input, condition, digest, &told)?;
                told
            }
        };
        all.push((digest, told));
    }
    Ok(all)
}

/// Answers with four decimals, as the results hold them, so that a run that goes on gives what one run would.
fn checked(data: &Data, condition: Condition, person: usize, mut told: Told) -> Result<Told, PapiError> {
    let wrong = |rule: String| PapiError::Answers { condition: condition.name(), person: person + 1, rule };
    let (given, items) = (told.predictions.len(), data.inventory.unseen().len());
    if given != items {
        return Err(wrong(format!("{given} answers to {items} items")));
    }
    if !told.predictions.iter().all(|value| value.is_finite()) {
        return Err(wrong("an answer is no finite number".into()));
    }
    told.predictions.iter_mut().for_each(|value| *value = rounded(*value, 4));
    Ok(told)
}

/// All rows that come from the model, each followed by its controls, with the digests of people that were run.
fn rows(told: &[(Condition, Run)], options: &Options) -> Vec<(Row, Vec<Option<Digest>>)> {
    let padded = |run: &Run| -> (Vec<Option<Vec<f64>>>, Vec<Option<Digest>>) {
        let mut each: Vec<_> =
            run.iter().map(|(digest, told)| (Some(told.predictions.clone()), Some(*digest))).collect();
        each.resize(options.people, (None, None));
        each.into_iter().unzip()
    };
    let mut rows: Vec<(Row, Vec<Option<Digest>>)> = Vec::new();
    for (condition, run) in told {
        let (predictions, digests) = padded(run);
        let row = Row { name: condition.name().into(), kind: condition.kind(), predictions };
        let none = vec![None; options.people];
        let controls = match rows.first() {
            Some((no_change, _)) => conditions::controls(*condition, &row, no_change),
            None => Vec::new(),
        };
        rows.push((row, digests));
        rows.extend(controls.into_iter().map(|control| (control, none.clone())));
    }
    rows
}

fn measured(data: &Data, rows: &[Row], options: &Options) -> Vec<Figures> {
    let forms = |row| Form::ALL.map(|form| figures::of(data, row, form, options.rounds, options.seed));
    rows.iter().flat_map(forms).collect()
}

/// The differences that decide, in both forms.
fn differences(data: &Data, rows: &[Row], options: &Options) -> Vec<Difference> {
    let find = |name: &str| rows.iter().find(|row| row.name == name);
    let mut found = Vec::new();
    for own in
        [Condition::Ridge, Condition::Pas, Condition::PasPaper, Condition::FewShot, Condition::Population]
    {
        let (shift, other) = (conditions::shift_name(own), conditions::other_name(own));
        let against: &[&str] = match own {
            Condition::Ridge => {
                &["no change", &shift, &other, "population vector", "constant 3", "population mean"]
            }
            Condition::Pas | Condition::FewShot => &["no change", &shift, &other, "constant 3"],
            _ => &["no change", "constant 3"],
        };
        for form in Form::ALL {
            for other in against {
                if let (Some(own), Some(other)) = (find(own.name()), find(other)) {
                    found.push(Difference::of(data, own, other, form, options.rounds, options.seed));
                }
            }
        }
    }
    figures::correct(&mut found);
    found
}

#[cfg(test)]
mod tests;
