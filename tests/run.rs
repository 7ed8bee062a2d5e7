//! Drives an engine and reads fixtures: what several tests share.

use demeanor::engine::{Capture, Engine, Event, Generate, Priority, Request, Sampling, TokenLogprob, Want};
use demeanor::model::{Edits, SoftRows, TokenId};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// A file of tests/fixtures.
pub fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("fixtures are JSON")
}

pub fn ids(value: &Value) -> Vec<TokenId> {
    let list = value.as_array().expect("a list of ids");
    list.iter().map(|id| id.as_u64().expect("an id") as TokenId).collect()
}

pub fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list of numbers").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn request(prompt: &[TokenId], edits: &Arc<Edits>, want: Want) -> Request {
    Request {
        prompt: prompt.to_vec(),
        soft: SoftRows::none(),
        soft_at: 0,
        edits: edits.clone(),
        want,
        priority: Priority::Serving,
        owner: Default::default(),
        cache_salt: Default::default(),
        use_cache: true,
    }
}

/// `n` greedy tokens with their distributions, as far as `top` tokens.
pub fn greedy(engine: &Engine, prompt: &[TokenId], n: u32, top: u32) -> Vec<TokenLogprob> {
    let generate = Generate {
        tokens_max: n,
        stop_tokens: Arc::from([]),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        constraint: None,
        logprobs: Some(top),
        prompt_logprobs: None,
    };
    let mut events =
        engine.submit(request(prompt, &Arc::default(), Want::Generate(generate))).expect("accepted");
    let mut tokens = Vec::new();
    while let Some(event) = events.next_blocking() {
        match event {
            Event::Token { logprob, .. } => tokens.push(logprob.expect("asked for")),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    tokens
}

/// The distribution after each token of `tokens` but the last (entry i: after token i), and with a further token after
/// the last one as well.
pub fn distributions(engine: &Engine, tokens: &[TokenId], edits: &Arc<Edits>, top: u32) -> Vec<TokenLogprob> {
    distributions_behind(engine, &SoftRows::none(), tokens, edits, top)
}

/// The same with soft rows before all tokens.
pub fn distributions_behind(
    engine: &Engine,
    soft: &SoftRows,
    tokens: &[TokenId],
    edits: &Arc<Edits>,
    top: u32,
) -> Vec<TokenLogprob> {
    let generate = Generate {
        tokens_max: 1,
        stop_tokens: Arc::from([]),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        constraint: None,
        logprobs: Some(top),
        prompt_logprobs: Some(top),
    };
    let request = Request { soft: soft.clone(), ..request(tokens, edits, Want::Generate(generate)) };
    let mut events = engine.submit(request).expect("accepted");
    let mut rows = Vec::new();
    while let Some(event) = events.next_blocking() {
        match event {
            Event::Prefilled { prompt, .. } => rows.extend(prompt),
            Event::Token { logprob, .. } => rows.extend(logprob),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(rows.len(), tokens.len());
    rows
}

/// Log-probabilities of some tokens after `prompt`.
pub fn next_logprobs(engine: &Engine, prompt: &[TokenId], edits: &Arc<Edits>, ids: &[TokenId]) -> Vec<f64> {
    let want = Want::Score(ids.iter().map(|id| vec![*id]).collect());
    let mut events = engine.submit(request(prompt, edits, want)).expect("accepted");
    while let Some(event) = events.next_blocking() {
        match event {
            Event::Scored(rows) => return rows.iter().map(|row| f64::from(row[0])).collect(),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    panic!("no score came")
}

/// What a capture reads.
pub fn captured(engine: &Engine, prompt: &[TokenId], capture: Capture) -> Vec<Vec<f32>> {
    let want = Want::Capture(capture);
    let mut events = engine.submit(request(prompt, &Arc::default(), want)).expect("accepted");
    while let Some(event) = events.next_blocking() {
        match event {
            Event::Captured(rows) => return rows,
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    panic!("no capture came")
}
