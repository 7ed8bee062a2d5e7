//! Answers that must fit something fit it: all kinds of shapes, steered hard, streamed, several at once, and beside
//! others that need not.

use crate::harness::{Server, content, default_server, hard_direction, read_response, with};
use serde_json::{Value, json};
use std::io::BufReader;
use std::sync::atomic::Ordering::Relaxed;

const CHAT: &str = "/v1/chat/completions";

fn ask(more: Value) -> Value {
    let body = json!({
        "messages": [{"role": "user", "content": "Tell me about a town."}],
        "max_tokens": 120, "temperature": 1.2, "seed": 3,
    });
    with(body, more)
}

/// A direction that leaves little of what the model wanted to say.
fn hard() -> Value {
    let direction = hard_direction();
    json!([{"directions": {"12": direction, "18": direction}, "coefficient": 0.9, "unit": "raw"}])
}

fn town() -> Value {
    json!({
        "type": "object",
        "properties": {
            "größe": {"type": "integer", "minimum": 3, "maximum": 12},
            "kind": {"enum": ["town", "city 都", null]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 2},
        },
        "required": ["größe", "kind"],
        "additionalProperties": false,
    })
}

fn strict(schema: Value) -> Value {
    json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": schema}}})
}

fn is_town(text: &str) -> bool {
    let Ok(Value::Object(map)) = serde_json::from_str::<Value>(text) else { return false };
    let size = map.get("größe").and_then(Value::as_i64).is_some_and(|size| (3..=12).contains(&size));
    let kind =
        map.get("kind").is_some_and(|kind| [json!("town"), json!("city 都"), json!(null)].contains(kind));
    let tag = |tag: &Value| tag.as_str().is_some_and(|tag| tag.chars().count() <= 6);
    let tags = map
        .get("tags")
        .is_none_or(|tags| tags.as_array().is_some_and(|tags| tags.len() <= 2 && tags.iter().all(tag)));
    let known = map.keys().all(|key| ["größe", "kind", "tags"].contains(&key.as_str()));
    size && kind && tags && known
}

/// A field that asks for a shape, and whether a text has it.
type Case = (Value, fn(&str) -> bool);

fn cases() -> Vec<Case> {
    let is_code = |text: &str| {
        let (letters, digits) = text.split_once('-').unwrap_or_default();
        letters.len() == 2
            && letters.bytes().all(|byte| byte.is_ascii_uppercase())
            && digits.len() == 3
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_sum = |text: &str| {
        !text.is_empty()
            && text.split('+').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    vec![
        (strict(town()), is_town),
        (json!({"json_schema": town()}), is_town),
        (json!({"structured_outputs": {"json": town()}}), is_town),
        (json!({"guided_choice": ["yes", "no", "größer"]}), |text| ["yes", "no", "größer"].contains(&text)),
        (json!({"guided_regex": "^[A-Z]{2}-[0-9]{3}$"}), is_code),
        (json!({"grammar": "start: NUMBER (\"+\" NUMBER){0,2}\nNUMBER: /[0-9]{1,3}/"}), is_sum),
        (json!({"grammar": "root ::= number (\"+\" number){0,2}\nnumber ::= [0-9]{1,3} # digits"}), is_sum),
    ]
}

#[test]
fn answers_have_their_shape_steered_hard_or_not() {
    let server = default_server();
    for (shape, fits) in cases() {
        for more in [json!({}), json!({"steering": hard()}), json!({"temperature": 0}), json!({"seed": 9})] {
            let answer = server.post(CHAT, &with(ask(shape.clone()), more.clone())).ok();
            let text = content(&answer);
            assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{shape} {more}: {text}");
            assert!(fits(text), "{shape} {more}: {text}");
        }
    }
}

#[test]
fn any_object_and_a_cut_answer() {
    let server = default_server();
    let object = json!({"response_format": {"type": "json_object"}});
    let answer =
        server.post(CHAT, &with(ask(object.clone()), json!({"temperature": 0, "max_tokens": 300}))).ok();
    if answer["choices"][0]["finish_reason"] == "stop" {
        let value: Value = serde_json::from_str(content(&answer)).expect("JSON");
        assert!(value.is_object(), "{value}");
    }
    let answer = server.post(CHAT, &with(ask(strict(town())), json!({"max_tokens": 3}))).ok();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert!(content(&answer).starts_with('{'), "{answer}");
}

#[test]
fn what_a_lenient_schema_leaves_open_is_a_warning() {
    let schema = json!({"type": "array", "items": {"type": "boolean"}, "maxItems": 2, "uniqueItems": true});
    let format =
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}});
    let answer = default_server().post(CHAT, &ask(format)).ok();
    assert!(answer["demeanor"]["warnings"].to_string().contains("uniqueItems"), "{answer}");
    let value: Value = serde_json::from_str(content(&answer)).expect("JSON");
    assert!(value.is_array(), "{value}");
}

#[test]
fn streams_choices_and_seeds_repeat() {
    let server = default_server();
    let body = with(ask(strict(town())), json!({"n": 3, "logprobs": true, "top_logprobs": 2}));
    let (first, second) = (server.post(CHAT, &body).ok(), server.post(CHAT, &body).ok());
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().expect("a list");
        choices.iter().map(|choice| choice["message"]["content"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(texts(&first), texts(&second));
    assert!(texts(&first).iter().all(|text| is_town(text)), "{first}");
    let solo = ask(strict(town()));
    let streamed = server.post(CHAT, &with(solo.clone(), json!({"stream": true}))).streamed_text();
    assert_eq!(streamed, content(&server.post(CHAT, &solo).ok()));
    assert_eq!(streamed, texts(&first)[0]);
}

/// Log-probabilities are those of the model's own distribution: a word it would never say stays improbable.
#[test]
fn log_probabilities_are_those_before_the_mask() {
    let body = with(ask(json!({"guided_choice": ["zygote"]})), json!({"logprobs": true, "top_logprobs": 1}));
    let answer = default_server().post(CHAT, &body).ok();
    assert_eq!(content(&answer), "zygote");
    let first = &answer["choices"][0]["logprobs"]["content"][0];
    let (own, best) = (&first["logprob"], &first["top_logprobs"][0]["logprob"]);
    assert!(own.as_f64() < Some(-4.0) && best.as_f64() > own.as_f64(), "{first}");
}

/// Bodies of a batch: every other one constrained, some steered.
fn batch() -> Vec<Value> {
    (0..8)
        .map(|i| {
            let mut body = ask(json!({"seed": 50 + i, "stream": true, "max_tokens": 60}));
            if i % 2 == 1 {
                body = with(body, cases()[i % 7].0.clone());
            }
            if i % 4 > 1 {
                body["steering"] = hard();
            }
            body
        })
        .collect()
}

fn together(server: &Server, bodies: &[Value]) -> Vec<String> {
    let streams: Vec<_> = bodies.iter().map(|body| server.open(CHAT, body)).collect();
    let read = |stream| read_response(&mut BufReader::new(stream)).expect("a stream").streamed_text();
    streams.into_iter().map(read).collect()
}

#[test]
fn neighbours_keep_their_bytes() {
    let server = default_server();
    let bodies = batch();
    let alone: Vec<String> = bodies.iter().map(|body| server.post(CHAT, body).streamed_text()).collect();
    let steps = server.engine.stats().steps_total.load(Relaxed);
    let sequences = server.engine.stats().step_sequences_total.load(Relaxed);
    assert_eq!(together(server, &bodies), alone);
    let steps = server.engine.stats().steps_total.load(Relaxed) - steps;
    let sequences = server.engine.stats().step_sequences_total.load(Relaxed) - sequences;
    assert!(sequences > 2 * steps, "they shared steps: {sequences} in {steps}");
}
