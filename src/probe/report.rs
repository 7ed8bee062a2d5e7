//! The report of a run as JSON, `demeanor.probe/1`, described by `models/probes/report.schema.json`.
//!
//! Nothing in it depends on when or how fast the run went: two runs of one persona with one seed give the same bytes.

use super::ProbeError;
use super::arms::{Arm, PERSONA, PLAIN, PROMPT, Subject};
use super::band::Band;
use super::results::{AspectResult, Difference, Table};
use crate::digest::Digest;
use crate::limits;
use crate::persona::gate::{Measured, SCHEMA, Thresholds, Verdict};
use crate::statistics::{Interval, rounded};
use serde_json::{Map, Value, json};

/// What a report is made from besides the values.
pub struct About<'a> {
    pub subject: &'a Subject,
    /// Name of the loaded model.
    pub model: &'a str,
    pub weights: Digest,
    pub thresholds: &'a Thresholds,
    pub arms: &'a [Arm],
    pub attribution: bool,
}

/// What no reader should have to find out.
const LIMITS: [&str; 5] = [
    "log-probabilities of given English texts, not of what the model would write; nothing was generated",
    "one author wrote the items; they name groups and situations of few countries",
    "at a small model's size one-line prompts that ask for contempt hardly move these numbers: a prompt that passes is \
     not known to be harmless",
    "aspects without a rule at the gate are reported only: benign personas move them too, see the bands",
    "passed means passed under this suite, not safe",
];

pub fn report(table: &Table<'_>, about: &About<'_>) -> Value {
    let Subject { persona, version, digest, .. } = about.subject;
    let results = table.results(about.attribution);
    let band = Band::shipped_for(&about.weights);
    let mut aspects: Vec<Value> = results.iter().map(|result| aspect(result, table, band.as_ref())).collect();
    let tokens: u64 = table.arms.iter().map(|(_, scores)| scores.tokens).sum();
    let mut report = json!({
        "schema": SCHEMA, "persona": persona, "version": version, "digest": digest.to_string(),
        "model": about.model, "weights": about.weights.to_string(),
        "suite": table.suite.name, "suite_digest": table.suite.digest.to_string(), "seed": table.seed,
        "status": Value::Null, "reasons": [],
        "aspects": aspects,
        "attribution": if about.attribution { attribution(&results) } else { Value::Null },
        "arms": arms(table, about),
        "tokens": tokens,
        "limits": LIMITS,
        "benign_band_suite": band.map(|band| band.suite),
        "gate": gate(about.thresholds),
        "items": items(table),
    });
    let judgement = about.thresholds.judge(&report);
    for (result, aspect) in results.iter().zip(&mut aspects) {
        aspect["verdict"] = json!(verdict(result.aspect.name, about.thresholds, &report));
    }
    report["aspects"] = Value::from(aspects);
    report["status"] = json!(judgement.verdict.name());
    report["reasons"] = json!(judgement.reasons);
    report
}

fn aspect(result: &AspectResult, table: &Table<'_>, band: Option<&Band>) -> Value {
    let AspectResult { aspect, n, invalid, .. } = result;
    let Difference { value, interval } = result.difference;
    json!({
        "name": aspect.name, "unit": aspect.unit, "says": aspect.says, "harm_is": "up",
        "n": n, "invalid": invalid,
        "persona": number(result.persona), "plain": number(result.plain),
        "prompt": result.prompt.map(number),
        "difference": number(value), "interval": pair(interval),
        "against_prompt": result.against_prompt.map(difference),
        "random": result.random.map(difference),
        "neutral_band": result.neutral.map(pair),
        "benign_band": band.and_then(|band| band.of(aspect.name)).map(pair),
        "p": number(result.p), "p_holm": number(result.p_holm),
        "verdict": "reported",
        "worst": worst(result, table),
    })
}

/// The items with the largest rise, as people read them.
fn worst(result: &AspectResult, table: &Table<'_>) -> Vec<Value> {
    let aspect = result.aspect;
    let Some((set, _)) = table.suite.sets.iter().find(|(set, _)| set.name == aspect.set) else {
        return Vec::new();
    };
    let at = |arm: &str, i: usize| table.values(arm, aspect).map(|values| number(values[i]));
    let one = |&i: &usize| {
        let item = &set.items[i];
        json!({
            "id": item.id, "variant": item.variant, "prompt": item.asks[0].user,
            "harmful": item.harmful, "harmless": item.harmless,
            "plain": at(PLAIN, i), "prompt_alone": at(PROMPT, i), "persona": at(PERSONA, i),
        })
    };
    result.worst.iter().map(one).collect()
}

/// `passed`, `failed` or `too_few` where the gate has a rule, else `reported`.
fn verdict(name: &str, thresholds: &Thresholds, report: &Value) -> &'static str {
    let rules: Vec<_> = thresholds.rules.iter().filter(|rule| rule.aspect == name).cloned().collect();
    if rules.is_empty() {
        return "reported";
    }
    match (Thresholds { rules, ..thresholds.clone() }).judge(report).verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Inconclusive => "too_few",
    }
}

/// Each part's difference from plain; what all do together beyond the sum of the parts; the part with the most.
fn attribution(results: &[AspectResult]) -> Value {
    let one = |result: &AspectResult| {
        let parts: Map<String, Value> =
            result.parts.iter().map(|(name, part)| ((*name).to_owned(), difference(*part))).collect();
        let single = || result.parts.iter().filter(|(name, _)| *name != PERSONA);
        let sum: f64 = single().map(|(_, part)| part.value).sum();
        let most = single().max_by(|a, b| a.1.value.total_cmp(&b.1.value)).map(|(name, _)| *name);
        json!({
            "aspect": result.aspect.name, "parts": parts, "random": result.random.map(difference),
            "interaction": number(result.difference.value - sum), "most": most,
        })
    };
    results.iter().map(one).collect()
}

fn arms(table: &Table<'_>, about: &About<'_>) -> Vec<Value> {
    let one = |(arm, (_, scores)): (&Arm, &(String, std::sync::Arc<super::runner::ArmScores>))| json!({"name": arm.name, "content": arm.content(), "tokens": scores.tokens});
    about.arms.iter().zip(table.arms).map(one).collect()
}

fn gate(thresholds: &Thresholds) -> Value {
    let rule = |rule: &crate::persona::gate::Rule| {
        json!({
            "aspect": rule.aspect, "against": format!("{:?}", rule.against).to_lowercase(),
            "bound": format!("{:?}", rule.bound).to_lowercase(), "most": rule.most, "n_min": rule.n_min,
        })
    };
    json!({"rules": thresholds.rules.iter().map(rule).collect::<Vec<_>>()})
}

/// Every value of plain, prompt and persona, so that reports can be compared item by item.
fn items(table: &Table<'_>) -> Value {
    let mut sets = Map::new();
    for (set, count) in &table.suite.sets {
        let ids: Vec<&str> = set.items[..*count].iter().map(|item| item.id.as_str()).collect();
        let mut aspects = Map::new();
        for aspect in super::ASPECTS.iter().filter(|aspect| aspect.set == set.name) {
            let arms = [PLAIN, PROMPT, PERSONA].into_iter().filter_map(|arm| {
                let values = table.values(arm, aspect)?;
                Some((arm.to_owned(), values.iter().map(|value| number(*value)).collect()))
            });
            aspects.insert(aspect.name.to_owned(), Value::Object(arms.collect()));
        }
        let clusters = table.clusters(&set.name);
        sets.insert(set.name.clone(), json!({"ids": ids, "clusters": clusters, "values": aspects}));
    }
    Value::Object(sets)
}

/// Six decimals; null for what is not finite.
pub fn number(value: f64) -> Value {
    let value = rounded(value, 6);
    // No minus zero: it reads as if something had been measured.
    json!(if value == 0.0 { 0.0 } else { value })
}

fn pair(interval: Interval) -> Value {
    json!([number(interval.low), number(interval.high)])
}

fn difference(difference: Difference) -> Value {
    json!({"difference": number(difference.value), "interval": pair(difference.interval)})
}

/// Reads a report from a file's bytes; `file` names it in messages.
pub fn read(file: &str, bytes: &[u8]) -> Result<Value, ProbeError> {
    if bytes.len() as u64 > limits::PROBE_REPORT_BYTES_MAX {
        let message = format!("{} bytes; at most {}", bytes.len(), limits::PROBE_REPORT_BYTES_MAX);
        return Err(ProbeError::file(file, message));
    }
    let report: Value =
        serde_json::from_slice(bytes).map_err(|error| ProbeError::file(file, error.to_string()))?;
    Measured::read(&report).map_err(|error| ProbeError::file(file, error.to_string()))?;
    Ok(report)
}

/// A list of texts in a report.
pub fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
