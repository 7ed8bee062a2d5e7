//! What benchmarks that read a publisher's files share: how much is asked, a file's text, errors, figures and how they are shown.

use crate::limits;
use crate::probe::ProbeError;
use crate::report::IntervalRow;
use crate::statistics::{Interval, rounded};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum BenchmarkError {
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{file}: {message}")]
    File { file: String, message: String },
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

impl BenchmarkError {
    pub fn file(path: &Path, message: impl Into<String>) -> BenchmarkError {
        BenchmarkError::File { file: path.display().to_string(), message: message.into() }
    }
}

/// How much is asked.
#[derive(Clone, Debug)]
pub struct BenchmarkOptions {
    /// Items at most, drawn by the seed.
    pub limit: Option<usize>,
    pub seed: u64,
}

/// What came out.
pub struct BenchmarkReport {
    pub summary: Value,
    /// One object for whatever was asked under each condition, for whoever computes it again.
    pub answers: Vec<Value>,
    pub html: String,
    pub table: String,
}

/// The text of a file of bounded size.
pub fn read(path: &Path) -> Result<String, BenchmarkError> {
    let cannot = |source| BenchmarkError::Read { path: path.to_owned(), source };
    let (size, most) = (std::fs::metadata(path).map_err(cannot)?.len(), limits::BENCHMARK_FILE_BYTES_MAX);
    match size > most {
        true => Err(BenchmarkError::file(path, format!("{size} bytes; at most {most}"))),
        false => std::fs::read_to_string(path).map_err(cannot),
    }
}

/// A figure: its value and its interval of 95 %, with six decimals; null for what is not a number.
pub fn figure(value: f64, interval: Interval) -> Value {
    let [value, low, high] = [value, interval.low, interval.high].map(|value| rounded(value, 6));
    json!({"value": value, "interval": [low, high]})
}

/// A figure for people.
pub fn shown(figure: &Value) -> String {
    let number = |value: &Value| value.as_f64().map_or("-".to_owned(), |value| format!("{value:.3}"));
    let (low, high) = (number(&figure["interval"][0]), number(&figure["interval"][1]));
    format!("{} [{low}, {high}]", number(&figure["value"]))
}

/// A figure of a condition in a chart; `None` where it is not a number.
pub fn bar(condition: &Value, figure: &Value) -> Option<IntervalRow> {
    Some(IntervalRow {
        label: name(condition),
        value: figure["value"].as_f64()?,
        low: figure["interval"][0].as_f64()?,
        high: figure["interval"][1].as_f64()?,
    })
}

/// What a condition of a summary is called.
pub fn name(condition: &Value) -> String {
    condition["condition"].as_str().unwrap_or("?").to_owned()
}

/// The conditions of a summary.
pub fn conditions(summary: &Value) -> impl Iterator<Item = &Value> {
    summary["conditions"].as_array().into_iter().flatten()
}

/// A line for each cell of each row, with the head of its column before it.
pub fn lines(head: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let row = |cells: Vec<String>| head.iter().zip(cells).map(|(name, cell)| format!("{name:24} {cell}\n"));
    rows.flat_map(|cells| row(cells).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_as_kept_and_as_shown() {
        let known = figure(0.123_456_78, Interval { low: -0.1, high: 0.3 });
        assert_eq!(known, json!({"value": 0.123457, "interval": [-0.1, 0.3]}));
        assert_eq!(shown(&known), "0.123 [-0.100, 0.300]");
        assert!(bar(&json!({"condition": "plain"}), &known).is_some_and(|row| row.label == "plain"));
        let unknown = figure(f64::NAN, Interval { low: f64::NAN, high: 0.5 });
        assert_eq!(unknown, json!({"value": null, "interval": [null, 0.5]}));
        assert_eq!(shown(&unknown), "- [-, 0.500]");
        assert!(bar(&json!({"condition": "plain"}), &unknown).is_none());
    }

    #[test]
    fn a_table_in_lines() {
        let head = ["condition", "share"].map(str::to_owned);
        let rows = [["plain", "0.5"], ["steered", "0.6"]].map(|row| row.map(str::to_owned).to_vec());
        let text = lines(&head, rows.into_iter());
        assert_eq!(text.lines().map(|line| line.split_whitespace().count()).sum::<usize>(), 8);
        assert_eq!(text.lines().last(), Some("share                    0.6"));
    }
}
