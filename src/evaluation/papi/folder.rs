//! The run folder: answers are kept as they come, so that a run that was cut off goes on where it stopped.

use super::PapiError;
use super::conditions::{Condition, Input, Told};
use super::data::Data;
use super::rows::{Form, Row};
use crate::digest::Digest;
use crate::statistics::rounded;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const RESULTS: &str = "results.jsonl";

/// `results.jsonl` and its neighbours.
pub struct Folder {
    path: PathBuf,
    /// Answers of a person under a condition, by the digest of what they depend on.
    kept: BTreeMap<Digest, Told>,
    /// Open for appending while the run goes on.
    results: File,
}

impl Folder {
    /// Opens or makes a run folder. Lines that a run left half-written at the end are dropped; people whose lines are not
    /// all there are run again. `items` is the number of test items.
    pub fn open(path: &Path, items: usize) -> Result<Folder, PapiError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| PapiError::Write { path, source }
        };
        std::fs::create_dir_all(path).map_err(write(path))?;
        let file = path.join(RESULTS);
        let text = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(PapiError::Read { path: file, source }),
        };
        let (kept, complete) = read(&text, items).map_err(|(line, rule)| {
            let hint = "hint: move it away, or name another folder";
            PapiError::Results { path: file.clone(), line, rule: format!("{rule}; {hint}") }
        })?;
        if complete.len() < text.len() {
            put(path, RESULTS, &complete)?;
        }
        let results = OpenOptions::new().create(true).append(true).open(&file).map_err(write(&file))?;
        Ok(Folder { path: path.to_owned(), kept, results })
    }

    /// What an earlier run was told, where nothing that it depends on has changed.
    pub fn kept(&self, digest: Digest) -> Option<&Told> {
        self.kept.get(&digest)
    }

    /// Appends one person's answers under a condition.
    pub fn add(
        &mut self,
        data: &Data,
        input: &Input<'_>,
        condition: Condition,
        digest: Digest,
        told: &Told,
    ) -> Result<(), PapiError> {
        let lines = lines(data, input.number - 1, condition.name(), &told.predictions, Some((digest, told)));
        self.results
            .write_all(lines.as_bytes())
            .and_then(|()| self.results.sync_data())
            .map_err(|source| PapiError::Write { path: self.path.join(RESULTS), source })?;
        self.kept.insert(digest, told.clone());
        Ok(())
    }

    /// Replaces the results by all rows in their order (people, then conditions, then items), so that the file does not
    /// depend on how often the run was cut off.
    pub fn finish(&self, data: &Data, rows: &[(Row, Vec<Option<Digest>>)]) -> Result<(), PapiError> {
        let people = rows.first().map_or(0, |(row, _)| row.predictions.len());
        let mut text = String::new();
        for person in 0..people {
            for (row, digests) in rows {
                if let Some(predictions) = &row.predictions[person] {
                    let told = digests[person].and_then(|digest| Some((digest, self.kept.get(&digest)?)));
                    text += &lines(data, person, &row.name, predictions, told);
                }
            }
        }
        self.write(RESULTS, &text)
    }

    /// Writes a file of the folder: whole or not at all.
    pub fn write(&self, name: &str, text: &str) -> Result<(), PapiError> {
        put(&self.path, name, text.as_bytes())
    }
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), PapiError> {
    let (path, partial) = (folder.join(name), folder.join(format!("{name}.partial")));
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, &path))
        .map_err(|source| PapiError::Write { path, source })
}

/// One line per test item; `told` is missing for rows that follow from others.
fn lines(
    data: &Data,
    person: usize,
    condition: &str,
    predictions: &[f64],
    told: Option<(Digest, &Told)>,
) -> String {
    let mut text = String::new();
    let test = data.inventory.unseen();
    for (&i, prediction) in test.iter().zip(predictions) {
        let (item, gold) = (&data.inventory.items[i], data.people[person].get(i));
        let error = |form: Form| gold.map(|gold| rounded((form.of(*prediction) - gold).abs(), 4));
        let flags: &[&str] = if gold.is_none() { &["unanswered"] } else { &[] };
        let line = json!({
            "schema": "demeanor.eval/1", "benchmark": "papi", "item": format!("p{}/i{}", person + 1, i + 1),
            "cluster": format!("p{}", person + 1),
            "stratum": {"domain": item.domain.to_string(), "facet": item.facet, "key": item.key},
            "condition": condition, "scoring": "expected", "gold": gold, "pred": rounded(*prediction, 4),
            "metric": {"expected": error(Form::Expected), "rounded": error(Form::Rounded)},
            "flags": flags, "fit": told.map(|(_, told)| &told.fit),
            "request_digest": told.map(|(digest, _)| digest.to_string()),
            "ms": told.map(|(_, told)| (told.ms / test.len() as f64 * 100.0).round() / 100.0),
        });
        text += &format!("{line}\n");
    }
    text
}

/// What a results file holds: answers by digest, and the lines they stand in.
type Kept = (BTreeMap<Digest, Told>, Vec<u8>);

/// Answers of the people whose items are all there, with the text of their lines; a last line without its end is left out.
/// An error names the line.
fn read(bytes: &[u8], items: usize) -> Result<Kept, (usize, String)> {
    let mut blocks: BTreeMap<(Digest, String), Told> = BTreeMap::new();
    let mut lines: Vec<((Digest, String), &[u8])> = Vec::new();
    for (number, line) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        if !line.ends_with(b"\n") {
            continue;
        }
        let wrong = |rule: &str| (number, rule.to_owned());
        let value: Value = serde_json::from_slice(line).map_err(|error| (number, error.to_string()))?;
        if value["schema"] != "demeanor.eval/1" || value["benchmark"] != "papi" {
            return Err(wrong("no result of this benchmark"));
        }
        // Rows that follow from others are made anew.
        let Some(digest) = value["request_digest"].as_str() else { continue };
        let digest = Digest::parse(digest).ok_or_else(|| wrong("`request_digest` is no digest"))?;
        let prediction = value["pred"].as_f64().ok_or_else(|| wrong("`pred` is no number"))?;
        let cluster = value["cluster"].as_str().ok_or_else(|| wrong("`cluster` is no text"))?;
        let key = (digest, cluster.to_owned());
        let told = blocks.entry(key.clone()).or_insert_with(|| Told {
            predictions: Vec::new(),
            fit: value["fit"].clone(),
            ms: 0.0,
        });
        told.predictions.push(prediction);
        told.ms += value["ms"].as_f64().unwrap_or_default();
        lines.push((key, line));
    }
    blocks.retain(|_, told| told.predictions.len() == items);
    let complete = lines.into_iter().filter(|(key, _)| blocks.contains_key(key));
    let text = complete.flat_map(|(_, line)| line.iter().copied()).collect();
    Ok((blocks.into_iter().map(|((digest, _), told)| (digest, told)).collect(), text))
}
