//! The evaluation as a page for people.

use super::ask::Cost;
use super::figures::{Difference, Figures};
use crate::report::{IntervalChart, IntervalRow, Page, Table};
use crate::statistics::Interval;
use serde_json::Value;
use std::collections::BTreeMap;

pub fn html(
    summary: &Value,
    figures: &[Figures],
    differences: &[Difference],
    costs: &BTreeMap<String, Cost>,
) -> String {
    let mut page = Page::new("Do a person's soft rows carry the person?");
    let people = &summary["people"];
    page.paragraph(&format!(
        "{} unseen people, {} questions each; readouts fitted on {} other people, means on {} training people. \
         Mean absolute error, negative log-likelihood of the true option (nats), and r: the correlation of deviations \
         from the item's mean. Intervals: 95 %, bootstrap over people ({} rounds).",
        people["test"], summary["questions"], people["stop"], people["train"], summary["rounds"]
    ));
    page.chart(&error_chart(figures).svg());
    let head = ["row", "mean absolute error", "negative log-likelihood", "r", "answers"];
    let row = |row: &Figures| {
        vec![
            row.name.clone(),
            with_interval(row.error, row.error_interval),
            with_interval(row.likelihood, row.likelihood_interval),
            with_interval(row.r, row.r_interval),
            row.answers.to_string(),
        ]
    };
    page.table(&Table { head: owned(&head), rows: figures.iter().map(row).collect() });
    page.heading("Differences of mean absolute error").chart(&difference_chart(differences).svg());
    let head = ["row", "minus", "difference"];
    let row =
        |row: &Difference| vec![row.own.clone(), row.other.clone(), with_interval(row.value, row.interval)];
    page.table(&Table { head: owned(&head), rows: differences.iter().map(row).collect() });
    page.heading("What a prompt costs");
    let head = ["before the question", "prompt tokens", "soft rows", "ms, first time", "ms, returning"];
    let row = |(name, cost): (&String, &Cost)| {
        vec![
            name.clone(),
            format!("{:.1}", cost.prompt_tokens),
            format!("{:.0}", cost.soft_rows),
            format!("{:.1}", cost.first_ms),
            format!("{:.1}", cost.returning_ms),
        ]
    };
    page.table(&Table { head: owned(&head), rows: costs.iter().map(row).collect() });
    page.html()
}

/// The two tables as text.
pub fn table(figures: &[Figures], differences: &[Difference]) -> String {
    let mut text = format!("{:58} {:22} {:22} {:22}\n", "row", "absolute error", "neg. log-likelihood", "r");
    for row in figures {
        let error = with_interval(row.error, row.error_interval);
        let likelihood = with_interval(row.likelihood, row.likelihood_interval);
        let r = with_interval(row.r, row.r_interval);
        text += &format!("{:58} {error:22} {likelihood:22} {r:22}\n", row.name);
    }
    for row in differences {
        let value = with_interval(row.value, row.interval);
        text += &format!("{value:22} {} minus {}\n", row.own, row.other);
    }
    text
}

fn owned(head: &[&str]) -> Vec<String> {
    head.iter().map(|name| (*name).to_owned()).collect()
}

/// `.607 [.590, .624]`, or a dash.
fn with_interval(value: f64, interval: Interval) -> String {
    match value.is_finite() {
        true => format!("{value:.3} [{:.3}, {:.3}]", interval.low, interval.high),
        false => "-".into(),
    }
}

fn error_chart(figures: &[Figures]) -> IntervalChart {
    let reference = figures.iter().find(|row| row.name == super::predict::POPULATION).map(|row| row.error);
    let row = |row: &Figures| IntervalRow {
        label: row.name.clone(),
        value: row.error,
        low: row.error_interval.low,
        high: row.error_interval.high,
    };
    IntervalChart {
        title: "Mean absolute error of unseen people's answers".into(),
        x_label: "dashed: the population's mean".into(),
        reference,
        rows: figures.iter().map(row).collect(),
    }
}

fn difference_chart(differences: &[Difference]) -> IntervalChart {
    let row = |row: &Difference| IntervalRow {
        label: format!("{} - {}", short(&row.own), short(&row.other)),
        value: row.value,
        low: row.interval.low,
        high: row.interval.high,
    };
    IntervalChart {
        title: "Own minus other".into(),
        x_label: "below 0: the person's own prompt is better".into(),
        reference: Some(0.0),
        rows: differences.iter().map(row).collect(),
    }
}

/// A row's name in a chart.
fn short(name: &str) -> String {
    let name = name.replace(" soft prompt", "").replace("population + deviation", "p+d");
    name.replace("another person's static", "other's").replace("another person's input-aware", "other's")
}
