//! What a request's `model`, headers and fields name: the loaded model, a persona, a steering.

use crate::server::Context;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, listed, nearest};
use crate::steering::{RequestRules, SteeringRequest};
use axum::http::HeaderMap;
use serde_json::Value;

/// Where the steering in force came from; `demeanor.steering_from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteeringFrom {
    Body,
    Header,
    Model,
}

impl SteeringFrom {
    pub fn name(self) -> &'static str {
        match self {
            SteeringFrom::Body => "body",
            SteeringFrom::Header => "header",
            SteeringFrom::Model => "model",
        }
    }
}

/// What a request asks for by name. Names of vectors are looked up later, by the library.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    pub steering: SteeringRequest,
    /// `None` when no carrier had any steering.
    pub steering_from: Option<SteeringFrom>,
}

impl Named {
    /// Takes `model`, `persona`, `steering`, `soft_prompt`, `user` and `safety_identifier` out of the fields.
    pub fn read(fields: &mut Fields, headers: &HeaderMap, context: &Context) -> Result<Named, ApiError> {
        let model = fields.string("model")?.unwrap_or_default();
        let (persona, expression) = split_model(&model, &context.names())?;
        check_personas(&[
            ("model", persona.map(str::to_string)),
            ("persona", fields.string("persona")?),
            ("x-demeanor-persona", header(headers, "x-demeanor-persona")?),
        ])?;
        check_soft_prompt(fields)?;
        fields.string("user")?;
        fields.string("safety_identifier")?;
        let (steering, steering_from) = read_steering(fields, headers, expression, context)?;
        Ok(Named { steering, steering_from })
    }
}

/// `model`, `model@persona` or `model@(expression)`; absent means the loaded one.
fn split_model<'a>(model: &'a str, known: &[&str]) -> Result<(Option<&'a str>, Option<&'a str>), ApiError> {
    let bare = model.trim();
    if bare.is_empty() || known.contains(&bare) {
        return Ok((None, None));
    }
    // Names may hold `@` themselves, so each one is tried as a prefix.
    let suffix = bare.strip_prefix('@').or_else(|| {
        known.iter().find_map(|name| bare.strip_prefix(name).and_then(|rest| rest.strip_prefix('@')))
    });
    let Some(suffix) = suffix else {
        let given = bare.split('@').next().unwrap_or(bare);
        let near = nearest(given, known.iter().copied());
        return Err(ApiError::at(
            ErrorCode::ModelNotFound,
            "model",
            format!("there is no model `{}`; this server has {}", clip(bare), listed(&near)),
        ));
    };
    match suffix.strip_prefix('(') {
        Some(rest) => match rest.strip_suffix(')') {
            Some(expression) => Ok((None, Some(expression))),
            None => {
                Err(ApiError::at(ErrorCode::InvalidSteering, "model", "the bracket after `@` is not closed"))
            }
        },
        None if suffix.is_empty() => {
            Err(ApiError::at(ErrorCode::InvalidValue, "model", "a persona or `(expression)` must follow `@`"))
        }
        None => Ok((Some(suffix), None)),
    }
}

/// All carriers of a persona must agree; then there must be such a persona. No persona can be stored yet.
fn check_personas(carriers: &[(&str, Option<String>)]) -> Result<(), ApiError> {
    let mut given = carriers.iter().filter_map(|(carrier, name)| {
        name.as_deref().filter(|name| !name.is_empty()).map(|name| (*carrier, name))
    });
    let Some((carrier, name)) = given.next() else { return Ok(()) };
    if let Some((other, second)) = given.find(|(_, second)| *second != name) {
        let message =
            format!("names `{}`, but `{carrier}` names `{}`; they must agree", clip(second), clip(name));
        return Err(ApiError::at(ErrorCode::InvalidValue, other, message));
    }
    Err(ApiError::at(
        ErrorCode::PersonaNotFound,
        carrier,
        format!("there is no persona `{}`; this server has none", clip(name)),
    ))
}

/// `false` and null pass; no soft prompt can be stored yet.
fn check_soft_prompt(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.take("soft_prompt") {
        None | Some(Value::Bool(false)) => Ok(()),
        Some(Value::String(name)) => Err(ApiError::at(
            ErrorCode::SoftPromptNotFound,
            "soft_prompt",
            format!("there is no soft prompt `{}`; this server has none", clip(&name)),
        )),
        Some(_) => Err(fields.refuse("soft_prompt", "must be a name or false")),
    }
}

/// Body replaces header replaces model name.
fn read_steering(
    fields: &mut Fields,
    headers: &HeaderMap,
    expression: Option<&str>,
    context: &Context,
) -> Result<(SteeringRequest, Option<SteeringFrom>), ApiError> {
    let rules = RequestRules { inline: context.settings.allow_inline_vectors };
    let (steering, from) = if let Some(value) = fields.take("steering") {
        (SteeringRequest::from_json(&value, "steering", rules)?, SteeringFrom::Body)
    } else if let Some(text) = header(headers, "x-demeanor-steering")? {
        (SteeringRequest::from_expression(&text, "x-demeanor-steering")?, SteeringFrom::Header)
    } else if let Some(text) = expression {
        (SteeringRequest::from_expression(text, "model")?, SteeringFrom::Model)
    } else {
        return Ok((SteeringRequest::default(), None));
    };
    let from = (!steering.is_empty()).then_some(from);
    Ok((steering, from))
}

/// A header's text; absent and empty are the same.
fn header(headers: &HeaderMap, name: &str) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::at(ErrorCode::InvalidValue, name, "the header occurs twice"));
    }
    let text = value
        .to_str()
        .map_err(|_| ApiError::at(ErrorCode::InvalidValue, name, "the header is not visible ASCII text"))?;
    Ok(Some(text.trim().to_string()).filter(|text| !text.is_empty()))
}

/// A name as it may stand in a message.
fn clip(name: &str) -> String {
    name.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_forms() {
        let known = ["smollm2", "org/gpt@4"];
        let table = [
            ("", Ok((None, None))),
            ("smollm2", Ok((None, None))),
            ("org/gpt@4", Ok((None, None))),
            ("org/gpt@4@(warm)", Ok((None, Some("warm")))),
            ("smollm2@ada", Ok((Some("ada"), None))),
            ("@(0.8 warm)", Ok((None, Some("0.8 warm")))),
            ("smollm2@(0.8 warm - 0.3 formal)", Ok((None, Some("0.8 warm - 0.3 formal")))),
            ("smollm2@()", Ok((None, Some("")))),
            ("smollm2@", Err(ErrorCode::InvalidValue)),
            ("smollm2@(warm", Err(ErrorCode::InvalidSteering)),
            ("smollm3", Err(ErrorCode::ModelNotFound)),
            ("smollm22@ada", Err(ErrorCode::ModelNotFound)),
        ];
        for (model, expected) in table {
            assert_eq!(split_model(model, &known).map_err(|error| error.code), expected, "{model}");
        }
    }

    #[test]
    fn unknown_models_name_the_nearest() {
        let error = split_model("smolm2", &["smollm2", "x"]).expect_err("unknown");
        assert!(error.message.contains("`smollm2`"), "{}", error.message);
        assert_eq!(error.param.as_deref(), Some("model"));
    }

    #[test]
    fn persona_carriers_must_agree() {
        let carriers = |a: &str, b: &str| {
            let name = |text: &str| (!text.is_empty()).then(|| text.to_string());
            check_personas(&[("model", name(a)), ("persona", name(b))]).map_err(|error| error.code)
        };
        assert_eq!(carriers("", ""), Ok(()));
        assert_eq!(carriers("ada", "ada"), Err(ErrorCode::PersonaNotFound));
        assert_eq!(carriers("ada", "bob"), Err(ErrorCode::InvalidValue));
    }
}
