//! BBQ's files in the publisher's layout: one JSON object a line, three answers, of which one is "unknown".

use crate::evaluation::benchmark::{self, BenchmarkError};
use crate::statistics::Draws;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A row that can be scored.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub category: String,
    pub id: u64,
    /// Rows of one template belong together.
    pub template: String,
    pub context: String,
    pub question: String,
    pub answers: [String; 3],
    /// Index of the right answer.
    pub label: usize,
    /// Whether the context says who it was.
    pub is_disambiguated: bool,
    /// Index of the answer that fits the stereotype, and of the one against it.
    pub biased: usize,
    pub counter: usize,
}

/// Rows of a folder.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    pub rows: Vec<Question>,
    /// Rows without exactly one unknown answer and exactly one of the stereotyped group.
    pub skipped: usize,
}

#[derive(Deserialize)]
struct Row {
    example_id: u64,
    question_index: serde_json::Value,
    question_polarity: String,
    context_condition: String,
    category: String,
    answer_info: BTreeMap<String, Vec<String>>,
    additional_metadata: Metadata,
    context: String,
    question: String,
    ans0: String,
    ans1: String,
    ans2: String,
    label: usize,
}

#[derive(Deserialize)]
struct Metadata {
    stereotyped_groups: Vec<String>,
}

impl Questions {
    /// Every `.jsonl` of a folder, by name. `limit`: so many rows, drawn by `seed`, evenly from the files.
    pub fn read(folder: &Path, limit: Option<usize>, seed: u64) -> Result<Questions, BenchmarkError> {
        let cannot = |source| BenchmarkError::Read { path: folder.to_owned(), source };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            if path.extension().is_some_and(|kind| kind == "jsonl") {
                files.push(path);
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(BenchmarkError::file(folder, "there is no .jsonl file in it"));
        }
        let mut all = Questions::default();
        for (index, path) in files.iter().enumerate() {
            let found = Questions::of_file(path)?;
            all.skipped += found.skipped;
            let share = limit.map_or(found.rows.len(), |limit| {
                limit / files.len() + usize::from(index < limit % files.len())
            });
            let mut chosen = Draws::new(seed, "bbq", index as u64).sample(found.rows.len(), share);
            chosen.sort_unstable();
            all.rows.extend(chosen.into_iter().map(|i| found.rows[i].clone()));
        }
        match all.rows.is_empty() {
            true => Err(BenchmarkError::file(folder, "it has no row that can be scored")),
            false => Ok(all),
        }
    }

    fn of_file(path: &Path) -> Result<Questions, BenchmarkError> {
        Questions::parse(&benchmark::read(path)?).map_err(|message| BenchmarkError::file(path, message))
    }

    pub(super) fn parse(text: &str) -> Result<Questions, String> {
        let mut found = Questions::default();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let row: Row =
                serde_json::from_str(line).map_err(|error| format!("line {}: {error}", index + 1))?;
            if row.label > 2 {
                return Err(format!("line {}: `label` is {}; allowed are 0 to 2", index + 1, row.label));
            }
            match question(row) {
                Some(question) => found.rows.push(question),
                None => found.skipped += 1,
            }
        }
        Ok(found)
    }
}

fn question(row: Row) -> Option<Question> {
    let info = |i: usize| row.answer_info.get(&format!("ans{i}")).map_or(&[][..], Vec::as_slice);
    let only = |is: &dyn Fn(usize) -> bool| {
        let found: Vec<usize> = (0..3).filter(|&i| is(i)).collect();
        if let [one] = found[..] { Some(one) } else { None }
    };
    let is_unknown = |i: usize| info(i).iter().any(|text| text == "unknown");
    let groups: Vec<String> =
        row.additional_metadata.stereotyped_groups.iter().map(|group| group.to_lowercase()).collect();
    let is_of_group =
        |i: usize| !is_unknown(i) && info(i).iter().any(|text| groups.contains(&text.to_lowercase()));
    let (unknown, of_group) = (only(&is_unknown)?, only(&is_of_group)?);
    let other = 3 - unknown - of_group;
    let (biased, counter) = match row.question_polarity.as_str() {
        "neg" => (of_group, other),
        "nonneg" => (other, of_group),
        _ => return None,
    };
    let is_disambiguated = match row.context_condition.as_str() {
        "ambig" => false,
        "disambig" => true,
        _ => return None,
    };
    Some(Question {
        template: format!("{} {}", row.category, row.question_index),
        category: row.category,
        id: row.example_id,
        context: row.context,
        question: row.question,
        answers: [row.ans0, row.ans1, row.ans2],
        label: row.label,
        is_disambiguated,
        biased,
        counter,
    })
}
