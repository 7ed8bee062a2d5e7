//! What every answer says about itself: id, model, fingerprint, usage, timings, and the `demeanor` object.

use super::generation::Account;
use super::names::SteeringFrom;
use super::resolve::Resolved;
use crate::config::GateMode;
use crate::persona::Condition;
use crate::persona::gate::State;
use crate::server::Context;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The parts of an answer that are known before its first token.
pub struct Answer {
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The name that was resolved, with the expression when the name carried it.
    pub model: String,
    pub fingerprint: String,
    /// The `demeanor` object.
    pub demeanor: Value,
    /// For clients that see no body fields.
    pub headers: HeaderMap,
}

/// The `demeanor` object of an answer: what was applied.
pub fn demeanor(
    resolved: &Resolved,
    condition: &Condition,
    warnings: Vec<String>,
    fingerprint: &str,
    seed: Option<u64>,
) -> Value {
    let persona = resolved.persona_label();
    json!({
        "probe": resolved.probe.map(State::name),
        "persona": persona,
        "steering": resolved.applied.steering,
        "steering_from": resolved.named.steering_from.map(SteeringFrom::name),
        "vectors": resolved.applied.vectors,
        "soft_prompt": resolved.soft.as_ref().map(|soft| &soft.label),
        "soft_prompt_rows": resolved.soft_rows(),
        "seed": seed,
        "warnings": warnings,
        "fingerprint": fingerprint,
        "condition": condition.digest().short(16),
    })
}

/// Headers that say which persona answered, for clients that read no bodies, and unless the gate is off what the probe
/// says of it.
pub fn persona_headers(context: &Context, resolved: &Resolved, headers: &mut HeaderMap) {
    if let Some(label) = resolved.persona_label()
        && let Ok(value) = HeaderValue::try_from(label)
    {
        headers.insert(HeaderName::from_static("x-demeanor-persona"), value);
    }
    if let Some(state) = resolved.probe.filter(|_| context.gate.mode != GateMode::Off) {
        headers.insert(HeaderName::from_static("x-demeanor-probe"), HeaderValue::from_static(state.name()));
    }
}

impl Answer {
    pub fn new(
        id_prefix: &str,
        context: &Context,
        condition: &Condition,
        resolved: &Resolved,
        warnings: Vec<String>,
    ) -> Answer {
        let fingerprint = condition.fingerprint(&context.serving());
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::try_from(&fingerprint) {
            headers.insert(HeaderName::from_static("x-demeanor-fingerprint"), value);
        }
        headers.insert(HeaderName::from_static("x-demeanor-warnings"), HeaderValue::from(warnings.len()));
        persona_headers(context, resolved, &mut headers);
        let demeanor = demeanor(resolved, condition, warnings, &fingerprint, Some(condition.sampling.seed));
        Answer {
            id: format!(
                "{id_prefix}{:016x}{:08x}",
                crate::server::random_u64(),
                crate::server::random_u64() as u32
            ),
            created: crate::server::unix_seconds(),
            model: resolved.model_name(context),
            fingerprint,
            demeanor,
            headers,
        }
    }

    /// The head of an answer or chunk of kind `object`.
    pub fn object(&self, object: &str) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("id".into(), json!(self.id));
        map.insert("object".into(), json!(object));
        map.insert("created".into(), json!(self.created));
        map.insert("model".into(), json!(self.model));
        map.insert("system_fingerprint".into(), json!(self.fingerprint));
        map
    }
}

/// OpenAI's `usage`. `prompts` are the accounts of the first choice of each prompt, `all` those of every choice.
pub fn usage(prompts: &[Account], all: &[Account]) -> Value {
    let prompt: u64 = prompts.iter().map(|account| u64::from(account.prompt_tokens)).sum();
    let cached: u64 = prompts.iter().map(|account| u64::from(account.cached_tokens)).sum();
    let generated: u64 = all.iter().map(|account| u64::from(account.generated_tokens)).sum();
    let reasoning: u64 = all.iter().map(|account| u64::from(account.reasoning_tokens)).sum();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    })
}

/// llama.cpp's `timings`, summed over sequences.
pub fn timings(accounts: &[Account]) -> Value {
    let total =
        |number: fn(&Account) -> u32| accounts.iter().map(|account| u64::from(number(account))).sum::<u64>();
    let cached = total(|account| account.cached_tokens);
    let prompt = total(|account| account.prompt_tokens).saturating_sub(cached);
    let predicted = total(|account| account.generated_tokens);
    let prompt_ms = milliseconds(accounts.iter().map(|account| account.prefill).sum());
    let predicted_ms = milliseconds(accounts.iter().map(|account| account.decode).sum());
    json!({
        "cache_n": cached,
        "prompt_n": prompt,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": ratio(prompt_ms, prompt as f64),
        "prompt_per_second": ratio(prompt as f64 * 1e3, prompt_ms),
        "predicted_n": predicted,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": ratio(predicted_ms, predicted as f64),
        "predicted_per_second": ratio(predicted as f64 * 1e3, predicted_ms),
    })
}

/// llama.cpp's `prompt_progress`: tokens of a prompt that are through, those from the cache among them.
pub fn prompt_progress(total: u32, done: u32, account: Account) -> Value {
    json!({
        "total": total,
        "cache": account.cached_tokens,
        "processed": done,
        "time_ms": account.prefill.as_millis() as u64,
    })
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// 0 where there is nothing to divide by.
fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { (a / b * 1e3).round() / 1e3 } else { 0.0 }
}

/// A log-probability as JSON can say it: -inf is -9999, as OpenAI has it.
pub fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { -9999.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_counts_prompts_once_and_choices_each() {
        let account = |cached, generated| Account {
            prompt_tokens: 10,
            cached_tokens: cached,
            generated_tokens: generated,
            reasoning_tokens: 2,
            ..Account::default()
        };
        let (a, b) = (account(4, 3), account(9, 5));
        let usage = usage(&[a], &[a, b]);
        assert_eq!(usage["prompt_tokens"], 10);
        assert_eq!(usage["completion_tokens"], 8);
        assert_eq!(usage["total_tokens"], 18);
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 4);
        assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 4);
    }

    #[test]
    fn timings_are_finite_without_tokens() {
        let timings = timings(&[Account::default()]);
        assert_eq!(timings["predicted_per_second"], 0.0);
        assert_eq!(timings["prompt_n"], 0);
    }
}
