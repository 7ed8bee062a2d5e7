//! Several reports side by side: two of them item by item, or many personas with p corrected over all.

use super::page::with_interval;
use super::results::{Difference, difference};
use super::{ASPECTS, ProbeError};
use crate::report::{IntervalChart, IntervalRow, Page};
use crate::statistics::benjamini_hochberg;
use serde_json::{Value, json};

/// The second report minus the first, aspect by aspect.
pub struct Comparison {
    names: [String; 2],
    rows: Vec<(&'static str, &'static str, Difference)>,
}

/// Compares two reports of one suite on one model, item by item. `files` name them in messages.
pub fn compare(files: [&str; 2], reports: [&Value; 2]) -> Result<Comparison, ProbeError> {
    let [first, second] = reports;
    for field in ["weights", "suite_digest"] {
        if first[field] != second[field] || !first[field].is_string() {
            let message =
                format!("its `{field}` is {}; that of {} is {}", second[field], files[0], first[field]);
            return Err(ProbeError::file(files[1], message));
        }
    }
    let mut rows = Vec::new();
    for aspect in ASPECTS {
        let values = |report: &Value| numbers(&report["items"][aspect.set]["values"][aspect.name]["persona"]);
        let (Some(own), Some(other)) = (values(first), values(second)) else { continue };
        let clusters = numbers(&first["items"][aspect.set]["clusters"]).unwrap_or_default();
        if own.len() != other.len() || own.len() != clusters.len() {
            let message = format!("`items.{}` has another number of items than {}", aspect.set, files[0]);
            return Err(ProbeError::file(files[1], message));
        }
        let clusters: Vec<usize> = clusters.iter().map(|cluster| *cluster as usize).collect();
        let differences: Vec<f64> = other.iter().zip(&own).map(|(b, a)| b - a).collect();
        let seed = first["seed"].as_u64().unwrap_or(0);
        let kept: Vec<usize> = (0..own.len()).filter(|&i| differences[i].is_finite()).collect();
        let differences: Vec<f64> = kept.iter().map(|&i| differences[i]).collect();
        let clusters: Vec<usize> = kept.iter().map(|&i| clusters[i]).collect();
        rows.push((aspect.name, aspect.unit, difference(&differences, &clusters, seed)));
    }
    if rows.is_empty() {
        return Err(ProbeError::file(files[1], "it has no item values to compare"));
    }
    let label =
        |report: &Value| format!("{}@{}", report["persona"].as_str().unwrap_or("?"), report["version"]);
    Ok(Comparison { names: [label(first), label(second)], rows })
}

/// A list of numbers, null as not a number; `None` where it is no list of those.
fn numbers(list: &Value) -> Option<Vec<f64>> {
    let number = |value: &Value| if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
    list.as_array()?.iter().map(number).collect()
}

impl Comparison {
    /// A line per aspect, for a terminal.
    pub fn table(&self) -> String {
        let mut text = format!("{} minus {}\n", self.names[1], self.names[0]);
        for (name, unit, found) in &self.rows {
            text += &format!("{name:22} {} {unit}\n", with_interval(&value_of(found)));
        }
        text
    }

    pub fn json(&self) -> Value {
        let row = |(name, unit, found): &(&str, &str, Difference)| {
            let mut row = value_of(found);
            row["aspect"] = json!(name);
            row["unit"] = json!(unit);
            row
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        json!({"schema": "demeanor.probe-comparison/1", "first": self.names[0], "second": self.names[1], "aspects": rows})
    }

    pub fn html(&self) -> String {
        let mut page = Page::new(&format!("{} minus {}", self.names[1], self.names[0]));
        page.paragraph(
            "The same items; right of the dashed line: the second is more harmful. Intervals hold 95 %.",
        );
        for (name, unit, found) in &self.rows {
            let row = IntervalRow {
                label: (*name).replace('_', " "),
                value: found.value,
                low: found.interval.low,
                high: found.interval.high,
            };
            let chart = IntervalChart {
                title: format!("{}, {unit}", name.replace('_', " ")),
                x_label: String::new(),
                reference: Some(0.0),
                rows: vec![row],
            };
            page.chart(&chart.svg());
        }
        page.html()
    }
}

fn value_of(found: &Difference) -> Value {
    let number = super::report::number;
    json!({
        "difference": number(found.value),
        "interval": [number(found.interval.low), number(found.interval.high)],
    })
}

/// Reports as lines for a terminal; p is corrected over all aspects of all personas (Benjamini and Hochberg).
pub fn lines(reports: &[Value]) -> String {
    let aspects = |report: &'_ Value| report["aspects"].as_array().cloned().unwrap_or_default();
    let all: Vec<(usize, Value)> = reports
        .iter()
        .enumerate()
        .flat_map(|(i, report)| aspects(report).into_iter().map(move |a| (i, a)))
        .collect();
    let p: Vec<f64> = all.iter().map(|(_, aspect)| aspect["p"].as_f64().unwrap_or(1.0)).collect();
    let adjusted = benjamini_hochberg(&p);
    let mut text = String::new();
    for (i, report) in reports.iter().enumerate() {
        let field = |field: &str| report[field].as_str().unwrap_or("?");
        text += &format!(
            "{}@{}: {} ({})\n",
            field("persona"),
            report["version"],
            field("status"),
            field("suite")
        );
        for reason in super::report::texts(&report["reasons"]) {
            text += &format!("  {reason}\n");
        }
        for ((_, aspect), p) in all.iter().zip(&adjusted).filter(|((of, _), _)| *of == i) {
            let against = match aspect["against_prompt"].is_object() {
                true => format!("   against its prompt {}", with_interval(&aspect["against_prompt"])),
                false => String::new(),
            };
            text += &format!(
                "  {:20} {:>4} items  {} {:8} p {p:.3}  {}{against}\n",
                aspect["name"].as_str().unwrap_or("?"),
                aspect["n"],
                with_interval(aspect),
                aspect["unit"].as_str().unwrap_or("?"),
                aspect["verdict"].as_str().unwrap_or("?"),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(shift: f64) -> Value {
        let plain: Vec<f64> = (0..8).map(|i| f64::from(i) / 10.0).collect();
        let persona: Vec<f64> = plain.iter().map(|value| value + shift).collect();
        json!({
            "weights": "w", "suite_digest": "s", "persona": "p", "version": 1, "seed": 1,
            "items": {"hostile_replies": {
                "clusters": [0, 1, 2, 3, 0, 1, 2, 3],
                "values": {"hostile_replies": {"persona": persona}},
            }},
        })
    }

    #[test]
    fn the_second_minus_the_first_item_by_item() {
        let found = compare(["a", "b"], [&report(0.1), &report(0.35)]).expect("one suite");
        let row = &found.json()["aspects"][0];
        assert_eq!(row["difference"], json!(0.25));
        assert_eq!(row["interval"], json!([0.25, 0.25]));
        assert!(found.table().contains("hostile_replies") && found.html().contains("<svg"));
    }

    #[test]
    fn what_cannot_be_compared_says_why() {
        let mut other_model = report(0.0);
        other_model["weights"] = json!("v");
        let mut cut = report(0.0);
        cut["items"]["hostile_replies"]["values"]["hostile_replies"]["persona"] = json!([1.0]);
        let mut empty = report(0.0);
        empty["items"] = json!({});
        for (second, part) in
            [(other_model, "`weights`"), (cut, "number of items"), (empty, "no item values")]
        {
            let error = compare(["a", "b"], [&report(0.0), &second]).map(drop).expect_err(part).to_string();
            assert!(error.starts_with("b: ") && error.contains(part), "{error}");
        }
    }
}
