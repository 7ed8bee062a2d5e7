//! A report as a page for people: verdict, one chart an aspect, attribution, worst items, method and limits.

use super::report::texts;
use crate::report::{IntervalChart, IntervalRow, Page, Table};
use serde_json::Value;

/// The page of a report; it loads nothing from anywhere.
pub fn html(report: &Value) -> String {
    let text = |field: &str| report[field].as_str().unwrap_or("?").to_owned();
    let mut page = Page::new(&format!("Safety probe of {}@{}", text("persona"), report["version"]));
    page.paragraph(&format!(
        "Status under the gate's thresholds: {}. Suite {}, seed {}, model {}, persona digest {}.",
        text("status"),
        text("suite"),
        report["seed"],
        text("model"),
        text("digest"),
    ));
    texts(&report["reasons"]).iter().for_each(|reason| {
        page.paragraph(reason);
    });
    let aspects: Vec<&Value> = report["aspects"].as_array().into_iter().flatten().collect();
    page.heading("Aspects").table(&summary(&aspects));
    page.paragraph(
        "Differences are paired over items, up is more harm. Intervals hold 95 %: bootstrap over whole wordings. p: sign \
         flips of whole wordings, Holm's correction over the aspects.",
    );
    for aspect in &aspects {
        one_aspect(&mut page, aspect);
    }
    if report["attribution"].is_array() {
        attribution(&mut page, report);
    }
    method(&mut page, report);
    page.html()
}

fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn summary(aspects: &[&Value]) -> Table {
    let row = |aspect: &&Value| {
        vec![
            format!("{} ({})", name(aspect), aspect["unit"].as_str().unwrap_or("?")),
            aspect["n"].to_string(),
            aspect["invalid"].to_string(),
            signed(&aspect["plain"]),
            signed(&aspect["persona"]),
            with_interval(aspect),
            with_interval(&aspect["against_prompt"]),
            aspect["p_holm"].as_f64().map_or("-".into(), |p| format!("{p:.3}")),
            aspect["verdict"].as_str().unwrap_or("?").to_owned(),
        ]
    };
    Table {
        head: head(&[
            "aspect",
            "items",
            "invalid",
            "plain",
            "persona",
            "persona - plain",
            "persona - its prompt",
            "p",
            "verdict",
        ]),
        rows: aspects.iter().map(row).collect(),
    }
}

fn one_aspect(page: &mut Page, aspect: &Value) {
    page.heading(&name(aspect)).paragraph(&format!("Up: {}.", aspect["says"].as_str().unwrap_or("?")));
    let rows = [
        interval_row("persona - plain", aspect),
        interval_row("persona - its prompt alone", &aspect["against_prompt"]),
        interval_row("shuffled plan - prompt alone", &aspect["random"]),
        band_row("neutral paraphrases, lowest to highest", &aspect["neutral_band"]),
        band_row("benign personas, lowest to highest", &aspect["benign_band"]),
    ];
    let chart = IntervalChart {
        title: format!("{}: change, {}", name(aspect), aspect["unit"].as_str().unwrap_or("?")),
        x_label: "dashed: no change; right of it: more harm".into(),
        reference: Some(0.0),
        rows: rows.into_iter().flatten().collect(),
    };
    page.chart(&chart.svg());
    let cell = |item: &Value, field: &str| item[field].as_str().unwrap_or("").to_owned();
    let row = |item: &Value| {
        vec![
            cell(item, "prompt"),
            cell(item, "harmful"),
            cell(item, "harmless"),
            signed(&item["plain"]),
            signed(&item["prompt_alone"]),
            signed(&item["persona"]),
        ]
    };
    let table = Table {
        head: head(&["prompt", "harmful side", "harmless side", "plain", "prompt alone", "persona"]),
        rows: aspect["worst"].as_array().into_iter().flatten().map(row).collect(),
    };
    page.details("The items that rose most (some quote contempt)", &table);
}

fn attribution(page: &mut Page, report: &Value) {
    page.heading("Which part does it").paragraph(
        "Each part alone against the plain model. Interaction: what all together do beyond the sum of the parts. The \
         shuffled plan has the dose of the plan and no meaning.",
    );
    let row = |one: &Value| {
        let part = |name: &str| with_interval(&one["parts"][name]);
        vec![
            one["aspect"].as_str().unwrap_or("?").to_owned(),
            part("prompt"),
            part("plan"),
            part("soft_prompt"),
            part("persona"),
            with_interval(&one["random"]),
            signed(&one["interaction"]),
            one["most"].as_str().unwrap_or("-").to_owned(),
        ]
    };
    page.table(&Table {
        head: head(&[
            "aspect",
            "prompt",
            "plan",
            "soft prompt",
            "all",
            "shuffled plan",
            "interaction",
            "most",
        ]),
        rows: report["attribution"].as_array().into_iter().flatten().map(row).collect(),
    });
}

fn method(page: &mut Page, report: &Value) {
    page.heading("Method and limits").paragraph(
        "Every arm is asked the same items through the same template as a chat with the persona; the numbers are \
         log-probabilities of given continuations in the answer's place. Plain is the model without system text of its \
         own; prompt alone is the persona's system text without plan and soft prompt.",
    );
    texts(&report["limits"]).iter().for_each(|limit| {
        page.paragraph(limit);
    });
    let row = |arm: &Value| {
        let text = |field: &str| arm[field].as_str().unwrap_or("?").to_owned();
        vec![text("name"), text("content"), arm["tokens"].to_string()]
    };
    page.table(&Table {
        head: head(&["arm", "made of", "tokens"]),
        rows: report["arms"].as_array().into_iter().flatten().map(row).collect(),
    });
}

fn name(aspect: &Value) -> String {
    aspect["name"].as_str().unwrap_or("?").replace('_', " ")
}

fn interval_row(label: &str, change: &Value) -> Option<IntervalRow> {
    let (low, high) = (change["interval"][0].as_f64()?, change["interval"][1].as_f64()?);
    Some(IntervalRow { label: label.into(), value: change["difference"].as_f64()?, low, high })
}

fn band_row(label: &str, band: &Value) -> Option<IntervalRow> {
    let (low, high) = (band[0].as_f64()?, band[1].as_f64()?);
    Some(IntervalRow { label: label.into(), value: (low + high) / 2.0, low, high })
}

pub fn signed(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:+.4}"))
}

/// `+0.051 [+0.040, +0.060]`, or a dash.
pub fn with_interval(change: &Value) -> String {
    match (change["difference"].as_f64(), change["interval"][0].as_f64(), change["interval"][1].as_f64()) {
        (Some(value), Some(low), Some(high)) => format!("{value:+.4} [{low:+.4}, {high:+.4}]"),
        _ => "-".to_owned(),
    }
}
