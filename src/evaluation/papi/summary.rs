//! `summary.json` of a run, and what `--check` prints.

use super::Options;
use super::conditions::Condition;
use super::data::Data;
use super::figures::{Difference, FEW_PEOPLE, Figures};
use super::rows::{Form, Kind};
use super::{Run, Target};
use crate::alignment::Domain;
use crate::statistics::rounded;
use serde_json::{Value, json};
use std::fmt::Write;

pub const SOURCE: &str = "Zhu et al., Personality Alignment of Large Language Models (ICLR 2025), test set; answers from the IPIP-NEO data repository";
pub const LICENCE: &str = "items: public domain; answers: free use";
/// Forwards of one person beside the answers to the test items, for the prediction of time: the correction of the mean
/// shift.
const CORRECTION_FORWARDS: usize = 60;
/// Forwards of some twenty tokens in a second, of a model with 135M parameters on two cores.
const FORWARDS_PER_SECOND: f64 = 60.0;

pub fn of(
    data: &Data,
    options: &Options,
    target: &Target,
    figures: &[Figures],
    differences: &[Difference],
    told: &[(Condition, Run)],
    warnings: &[String],
) -> Value {
    let names = |kinds: &[Kind]| -> Vec<&str> {
        let expected = figures.iter().filter(|row| row.form == Form::Expected && kinds.contains(&row.kind));
        expected.map(|row| row.name.as_str()).collect()
    };
    let forms = |name: &str| -> Value {
        let own = figures.iter().filter(|row| row.name == name);
        own.map(|row| (row.form.name().to_owned(), row.json())).collect::<serde_json::Map<_, _>>().into()
    };
    let baselines: serde_json::Map<String, Value> =
        names(&[Kind::Baseline]).into_iter().map(|name| (name.to_owned(), forms(name))).collect();
    let condition = |name: &str| {
        let kind = figures.iter().find(|row| row.name == name).map(|row| row.kind.name());
        let own = differences.iter().filter(|difference| difference.own == name);
        // What is the same for everybody was run once.
        let run = told.iter().find(|(condition, _)| condition.name() == name);
        let run = run.map(|(condition, run)| if condition.is_common() { &run[..1] } else { &run[..] });
        let seconds = run.map(|run| rounded(run.iter().map(|(_, told)| told.ms).sum::<f64>() / 1e3, 4));
        json!({
            "name": name, "kind": kind, "metrics": forms(name),
            "vs": own.map(Difference::json).collect::<Vec<_>>(),
            "cost": {"seconds": seconds, "people": run.map(<[_]>::len)},
        })
    };
    let conditions = names(&[Kind::Model, Kind::Control, Kind::Leaky]);
    let created = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    json!({
        "schema": "demeanor.eval.summary/1",
        "benchmark": {
            "name": "papi", "version": 1, "source": SOURCE, "licence": LICENCE, "files": data.json(),
            "items": data.inventory.unseen().len(), "known_items": data.inventory.known().len(),
            "clusters": options.people, "split": "people 61 to 150: norms, readout, population; 1 to 60: reported",
            "inventory": data.inventory.digest().to_string(), "alpha": alpha(data),
        },
        "target": target.description,
        "settings": {
            "people": options.people, "pas_people": options.pas_people,
            "few_shot_people": options.few_shot_people, "seed": options.seed, "rounds": options.rounds,
        },
        "baselines": baselines,
        "conditions": conditions.into_iter().map(condition).collect::<Vec<_>>(),
        "warnings": warnings,
        "created": created.map(|since| since.as_secs()).unwrap_or_default(),
        "reproduce": target.reproduce,
    })
}

fn alpha(data: &Data) -> Value {
    let each = Domain::ALL.iter().zip(data.alpha);
    each.map(|(domain, alpha)| (domain.to_string(), json!(rounded(alpha, 4))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

pub fn warnings(options: &Options) -> Vec<String> {
    let mut warnings = Vec::new();
    if options.people < FEW_PEOPLE {
        warnings.push(format!("few people: intervals from {} people are rough", options.people));
    }
    warnings
}

/// What `--check` prints.
pub fn check(data: &Data, options: &Options, figures: &[Figures]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "benchmark  papi: {SOURCE}\nlicence    {LICENCE}");
    for file in &data.files {
        let _ = writeln!(text, "file       {} {} bytes sha256 {}", file.name, file.bytes, file.digest);
    }
    let missing = data.people.iter().filter(|answers| answers.raw.contains(&0)).count();
    let (known, test) = (data.inventory.known().len(), data.inventory.unseen().len());
    let _ = writeln!(
        text,
        "people     {} reported, {} others; {missing} of {} with missing answers\nitems      {known} known, {test} to predict",
        options.people,
        data.others().len(),
        data.people.len(),
    );
    let alpha: Vec<String> =
        Domain::ALL.iter().zip(data.alpha).map(|(domain, alpha)| format!("{domain} {alpha:.2}")).collect();
    let _ = writeln!(text, "alpha      {}", alpha.join("  "));
    text += &super::page::table(figures, &[]);
    let steered = options.people * (test + CORRECTION_FORWARDS) + 2 * test;
    // Its search needs what heads say after two answers to each known item, once.
    let pas = 2 * options.pas_people * test + 2 * known * usize::from(options.pas_people > 0);
    let few_shot = options.few_shot_people * (test + known / 3);
    let forwards = steered + pas + few_shot;
    let minutes = forwards as f64 / FORWARDS_PER_SECOND / 60.0;
    let _ = writeln!(
        text,
        "forwards   {forwards} (ridge {steered}, pas {pas}, few-shot {few_shot}): about {minutes:.0} minutes for a model of 135M parameters on two cores"
    );
    text
}
