//! The file of CrowS-Pairs in the publisher's layout: a sentence, its counterpart, and what they differ in.

use crate::evaluation::benchmark::{self, BenchmarkError};
use crate::evaluation::csv;
use crate::statistics::Draws;
use std::path::Path;

const FILE: &str = "crows_pairs_anonymized.csv";

/// Two sentences that differ in whom they are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub id: String,
    /// The more stereotypical sentence and the less stereotypical one.
    pub more: String,
    pub less: String,
    /// False: the pair goes against a stereotype (`antistereo`).
    pub is_stereo: bool,
    /// `gender`, `religion` and so on.
    pub kind: String,
}

/// The pairs of a folder, at most `limit`, drawn by `seed`.
pub fn read(folder: &Path, limit: Option<usize>, seed: u64) -> Result<Vec<Pair>, BenchmarkError> {
    let path = folder.join(FILE);
    let all = parse(&benchmark::read(&path)?).map_err(|message| BenchmarkError::file(&path, message))?;
    let mut chosen = Draws::new(seed, "crows-pairs", 0).sample(all.len(), limit.unwrap_or(all.len()));
    chosen.sort_unstable();
    Ok(chosen.into_iter().map(|i| all[i].clone()).collect())
}

pub(super) fn parse(text: &str) -> Result<Vec<Pair>, String> {
    let mut rows = csv::rows(text)?.into_iter();
    let head = rows.next().ok_or("the file is empty")?;
    let at = |name: &str| {
        head.iter().position(|field| field == name).ok_or_else(|| format!("there is no column `{name}`"))
    };
    let columns = [at("sent_more")?, at("sent_less")?, at("stereo_antistereo")?, at("bias_type")?];
    let pair = |(index, row): (usize, Vec<String>)| {
        let cell = |column: usize| row.get(column).map(String::as_str).unwrap_or_default();
        let [more, less, direction, kind] = columns.map(cell);
        let is_stereo = match direction {
            "stereo" => true,
            "antistereo" => false,
            other => return Err(format!("row {}: `stereo_antistereo` is `{other}`", index + 1)),
        };
        if more.is_empty() || less.is_empty() {
            return Err(format!("row {}: a sentence is missing", index + 1));
        }
        let (more, less, kind) = (more.to_owned(), less.to_owned(), kind.to_owned());
        Ok(Pair { id: index.to_string(), more, less, is_stereo, kind })
    };
    let pairs: Vec<Pair> = rows.enumerate().map(pair).collect::<Result<_, String>>()?;
    if pairs.is_empty() { Err("there is no pair in it".to_owned()) } else { Ok(pairs) }
}
