//! What a request brings: bodies, steering expressions, shapes of answers.

use super::text;
use super::texts::{CHATML, bytes_alone};
use crate::constraint::{ConstraintError, Grammars, Shape};
use crate::limits;
use crate::server::{chat_body, completion_body};
use crate::steering::{Expression, RequestRules, SteeringRequest};
use crate::text::Message;
use serde_json::Value;
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock};

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| Grammars::new(Arc::new(bytes_alone())));

/// The body of a chat, up to its tokens: those that control the model are the template's own.
pub fn chat(bytes: &[u8]) -> bool {
    let Ok(read) = chat_body(bytes, &CHATML) else { return false };
    if let Some(shape) = &read.shape {
        let _ = shape.check();
    }
    let Ok(encoded) = CHATML.chat(&read.messages, &read.template) else { return false };
    let special = encoded.ids.iter().filter(|id| CHATML.tokenizer.is_special(**id)).count();
    // Two for each message and one for the answer; roles that the template does not take may add a message each.
    let most = 2 * messages(&read.messages) + 1;
    assert!(special <= most, "{special} control tokens, at most {most} are the template's");
    true
}

fn messages(given: &[Message]) -> usize {
    2 * given.len() + 1
}

/// The body of llama.cpp's `/completion`, up to its tokens.
pub fn completion(bytes: &[u8]) -> bool {
    let Ok(prompts) = completion_body(bytes, &CHATML) else { return false };
    assert!(!prompts.is_empty() && prompts.len() <= limits::PROMPTS_MAX);
    prompts.iter().for_each(|prompt| drop(CHATML.complete(prompt)));
    true
}

/// A steering expression, or one of the JSON forms: its canonical form means the same.
pub fn expression(bytes: &[u8]) -> bool {
    let Some(given) = text(bytes) else { return false };
    if let Ok(value @ (Value::Array(_) | Value::Object(_))) = serde_json::from_str(given) {
        let read =
            |value: &Value, inline| SteeringRequest::from_json(value, "steering", RequestRules { inline });
        if let Ok(request) = read(&value, false) {
            let canonical = request.canonical();
            let again = read(&canonical, false).expect("the canonical form is one");
            assert_eq!(again.canonical(), canonical);
            return true;
        }
        // Inline directions are shown by a word: only the client has them.
        return read(&value, true).is_ok_and(|request| !request.canonical().is_null());
    }
    let Ok(expression) = Expression::parse(given, "steering") else { return false };
    let shown = expression.to_string();
    let again = Expression::parse(&shown, "steering").expect("the canonical form is one");
    assert_eq!(again, expression, "{shown}");
    true
}

/// What an answer must be. The first byte is the kind: `s` a schema, `r` an expression, `g` a grammar, `c` lines to choose
/// from. Some tokens of an answer are drawn, the lowest first.
pub fn constraint(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = text(bytes).and_then(|text| text.split_at_checked(1)) else { return false };
    let shape = match kind {
        "s" => match serde_json::from_str(rest) {
            Ok(schema) => Shape::JsonSchema { schema, strict: rest.len().is_multiple_of(2) },
            Err(_) => return false,
        },
        "r" => Shape::Regex(rest.to_owned()),
        "g" => Shape::Grammar(rest.to_owned()),
        "c" => Shape::Choice(rest.lines().map(str::to_owned).collect()),
        _ => return false,
    };
    let compiled = match GRAMMARS.compile(&shape) {
        Ok(compiled) => compiled,
        Err(error) => {
            assert!(!matches!(error, ConstraintError::TooSlow { .. }), "{error}");
            assert!(error.to_string().len() < 1000);
            return false;
        }
    };
    let (sender, ready) = channel();
    let mut masks = compiled.constraint.begin(move || {
        let _ = sender.send(());
    });
    for step in 0..16 {
        ready.recv().expect("a mask comes");
        let Some(Ok(mask)) = masks.take() else { return true };
        // Not always the same letter, so that repetitions end.
        let allowed: Vec<u32> = mask.tokens().take(step + 1).collect();
        let Some(token) = allowed.last().filter(|token| !CHATML.tokenizer.is_special(**token)) else {
            return true;
        };
        masks.advance(*token);
    }
    ready.recv().expect("a mask comes");
    true
}
