//! The evaluation as a page for people, and its tables as text.

use super::Target;
use super::data::Data;
use super::figures::{Difference, Estimate, Figures};
use super::rows::{Form, Kind, Row};
use super::summary::{LICENCE, SOURCE};
use crate::alignment::Domain;
use crate::report::{IntervalChart, IntervalRow, Page, Table};
use serde_json::Value;
use std::fmt::Write;

/// Items shown at either end of the browser.
const SHOWN: usize = 10;

pub fn html(
    data: &Data,
    target: &Target,
    rows: &[Row],
    figures: &[Figures],
    differences: &[Difference],
    summary: &Value,
) -> String {
    let mut page = Page::new("Does alignment bring the model nearer to a person?");
    for sentence in claims(differences) {
        page.paragraph(&sentence);
    }
    for warning in summary["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        page.paragraph(&format!("Warning: {warning}."));
    }
    page.paragraph(
        "A score is a person's mean absolute error over the test items of each of five domains, summed; lower is better. \
         Intervals: 95 %, bootstrap over people. The metric rewards integers, so expected answers are compared with expected \
         answers and rounded ones with rounded ones.",
    );
    for form in Form::ALL {
        page.heading(&format!("Scores, {} answers", form.name()));
        page.chart(&scores_chart(figures, form).svg()).table(&scores_table(figures, form));
    }
    for form in Form::ALL {
        page.heading(&format!("Differences, {} answers", form.name()));
        page.chart(&differences_chart(differences, form).svg()).table(&differences_table(differences, form));
    }
    page.heading("By domain, expected answers");
    for domain in Domain::ALL {
        page.chart(&domain_chart(figures, domain).svg());
    }
    page.table(&domain_table(figures));
    page.heading("Items where the person's vector changed the error most");
    page.table(&items(data, rows));
    page.heading("Time");
    page.table(&times(summary));
    page.heading("How this was made");
    page.paragraph(&format!("{SOURCE}. Licence: {LICENCE}."));
    for file in summary["benchmark"]["files"].as_array().into_iter().flatten() {
        page.paragraph(&format!("{} sha256 {}", text(&file["path"]), text(&file["sha256"])));
    }
    page.paragraph(&format!("Model: {}", target.description)).paragraph(&target.reproduce);
    page.heading("What this does not show");
    for limit in LIMITS {
        page.paragraph(limit);
    }
    page.html()
}

const LIMITS: [&str; 4] = [
    "Nothing here says how a persona behaves in conversation: these are answers to a questionnaire.",
    "Rows without a language model know the population or the person's own means; a persona that is to answer a questionnaire \
     should be scored by them.",
    "Scores are not comparable with the published table: its code scores keyed answers as raw ones and chooses its strength on \
     the items that it reports.",
    "The norm cap and the blocks that may be changed were chosen after looking at ten of these people, so gains are slightly \
     optimistic.",
];

/// The claims of the page, one sentence each.
fn claims(differences: &[Difference]) -> Vec<String> {
    let wanted = [("ridge", "no change"), ("ridge", "ridge: another person's vector"), ("pas", "no change")];
    let sentence = |(own, other): &(&str, &str)| {
        let found = differences.iter().find(|difference| {
            difference.form == Form::Expected && difference.own == *own && difference.other == *other
        })?;
        let direction = if found.score.value < 0.0 { "lower (better)" } else { "higher (worse)" };
        Some(format!(
            "The score of `{own}` is {:.2} {direction} than that of `{other}`: {} over {} people; p = {:.4}, after Holm's correction {:.4}.",
            found.score.value.abs(),
            signed(&found.score),
            found.people,
            found.p,
            found.p_holm.unwrap_or(f64::NAN),
        ))
    };
    wanted.iter().filter_map(sentence).collect()
}

fn of_form(figures: &[Figures], form: Form) -> impl Iterator<Item = &Figures> {
    figures.iter().filter(move |row| row.form == form && row.people > 0)
}

fn bar(label: String, estimate: &Estimate) -> IntervalRow {
    IntervalRow { label, value: estimate.value, low: estimate.interval.low, high: estimate.interval.high }
}

fn scores_chart(figures: &[Figures], form: Form) -> IntervalChart {
    let constant = of_form(figures, form).find(|row| row.name == "constant 3");
    IntervalChart {
        title: format!("Alignment score, {} answers (lower is better)", form.name()),
        x_label: "dashed: constant 3".into(),
        reference: constant.map(|row| row.score.value),
        rows: of_form(figures, form).map(|row| bar(row.name.clone(), &row.score)).collect(),
    }
}

fn scores_table(figures: &[Figures], form: Form) -> Table {
    let row = |row: &Figures| {
        vec![row.name.clone(), row.kind.name().into(), plain(&row.score), row.people.to_string()]
    };
    Table {
        head: owned(&["row", "what it is", "score", "people"]),
        rows: of_form(figures, form).map(row).collect(),
    }
}

fn differences_chart(differences: &[Difference], form: Form) -> IntervalChart {
    let own = differences.iter().filter(|difference| difference.form == form);
    IntervalChart {
        title: format!("Row minus another, {} answers", form.name()),
        x_label: "below 0: the first one is nearer to the people".into(),
        reference: Some(0.0),
        rows: own.map(|row| bar(format!("{} - {}", row.own, short(&row.other)), &row.score)).collect(),
    }
}

/// A row's name in a chart.
fn short(name: &str) -> &str {
    name.split_once(": ").map_or(name, |(_, rest)| rest)
}

fn differences_table(differences: &[Difference], form: Form) -> Table {
    let row = |row: &Difference| {
        vec![
            row.own.clone(),
            row.other.clone(),
            signed(&row.score),
            format!("{:.4}", row.p),
            row.p_holm.map_or("-".into(), |p| format!("{p:.4}")),
            format!("{} / {} / {}", row.won, row.lost, row.tied),
            row.people.to_string(),
        ]
    };
    let head = ["row", "minus", "difference", "p", "p, Holm", "better / worse / same", "people"];
    let own = differences.iter().filter(|difference| difference.form == form);
    Table { head: owned(&head), rows: own.map(row).collect() }
}

/// Rows that the small charts show: those that differ by what is claimed.
fn is_charted(row: &Figures) -> bool {
    row.kind != Kind::Baseline || row.name == "constant 3" || row.name == "population mean"
}

fn domain_chart(figures: &[Figures], domain: Domain) -> IntervalChart {
    let rows = of_form(figures, Form::Expected).filter(|row| is_charted(row));
    IntervalChart {
        title: format!("Mean absolute error, {}", domain.name()),
        x_label: String::new(),
        reference: None,
        rows: rows.map(|row| bar(row.name.clone(), &row.domains[domain.index()])).collect(),
    }
}

fn domain_table(figures: &[Figures]) -> Table {
    let head = std::iter::once("row".to_owned()).chain(Domain::ALL.map(|domain| domain.name().to_owned()));
    let row =
        |row: &Figures| std::iter::once(row.name.clone()).chain(row.domains.iter().map(plain)).collect();
    Table { head: head.collect(), rows: of_form(figures, Form::Expected).map(row).collect() }
}

/// Largest gains and losses of `ridge` against no change, item by item.
fn items(data: &Data, rows: &[Row]) -> Table {
    let find = |name: &str| rows.iter().find(|row| row.name == name);
    let mut changes = Vec::new();
    if let (Some(own), Some(plain)) = (find("ridge"), find("no change")) {
        for (p, (own, plain)) in own.predictions.iter().zip(&plain.predictions).enumerate() {
            let (Some(own), Some(plain)) = (own, plain) else { continue };
            for ((&i, own), plain) in data.inventory.unseen().iter().zip(own).zip(plain) {
                if let Some(gold) = data.people[p].get(i) {
                    let error = |value: f64| (Form::Expected.of(value) - gold).abs();
                    changes.push((error(*own) - error(*plain), p, i, gold, *own, *plain));
                }
            }
        }
    }
    changes.sort_by(|x, y| x.0.total_cmp(&y.0).then((x.1, x.2).cmp(&(y.1, y.2))));
    let ends = changes.len().saturating_sub(SHOWN).max(SHOWN.min(changes.len()));
    let shown = changes.iter().take(SHOWN).chain(&changes[ends..]);
    let row = |(change, p, i, gold, own, plain): &(f64, usize, usize, f64, f64, f64)| {
        vec![
            format!("I {}", lowered(&data.inventory.items[*i].text)),
            format!("p{}", p + 1),
            format!("{gold:.0}"),
            format!("{plain:.2}"),
            format!("{own:.2}"),
            format!("{change:+.2}"),
        ]
    };
    let head = ["item", "person", "ticked", "no change", "ridge", "change of the error"];
    Table { head: owned(&head), rows: shown.map(row).collect() }
}

fn lowered(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}

fn times(summary: &Value) -> Table {
    let mut rows = Vec::new();
    for condition in summary["conditions"].as_array().into_iter().flatten() {
        let (Some(seconds), Some(people)) =
            (condition["cost"]["seconds"].as_f64(), condition["cost"]["people"].as_f64())
        else {
            continue;
        };
        let each = format!("{:.1}", seconds / people.max(1.0));
        rows.push(vec![text(&condition["name"]), format!("{seconds:.0}"), each]);
    }
    Table { head: owned(&["row", "seconds", "seconds a person"]), rows }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Scores and differences as text.
pub fn table(figures: &[Figures], differences: &[Difference]) -> String {
    let mut text = format!("{:44} {:>7} {:>22} {:>22}\n", "row", "people", "expected", "rounded");
    for row in of_form(figures, Form::Expected) {
        let rounded = of_form(figures, Form::Rounded).find(|other| other.name == row.name);
        let rounded = rounded.map_or(String::new(), |row| plain(&row.score));
        let _ = writeln!(text, "{:44} {:>7} {:>22} {rounded:>22}", row.name, row.people, plain(&row.score));
    }
    for row in differences {
        let holm = row.p_holm.map_or("-".into(), |p| format!("{p:.4}"));
        let (own, other, form) = (&row.own, &row.other, row.form.name());
        let _ = writeln!(
            text,
            "{:>24}  p {:.4}  Holm {holm}  {own} minus {other}, {form}, {} people",
            signed(&row.score),
            row.p,
            row.people
        );
    }
    text
}

fn plain(estimate: &Estimate) -> String {
    let Estimate { value, interval } = estimate;
    format!("{value:.2} [{:.2}, {:.2}]", interval.low, interval.high)
}

fn signed(estimate: &Estimate) -> String {
    let Estimate { value, interval } = estimate;
    format!("{value:+.3} [{:+.3}, {:+.3}]", interval.low, interval.high)
}

fn owned(head: &[&str]) -> Vec<String> {
    head.iter().map(|name| (*name).to_owned()).collect()
}
