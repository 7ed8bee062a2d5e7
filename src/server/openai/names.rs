//! What a request's `model`, headers and fields name: the loaded model, a persona, a steering, a soft prompt, a user.

use crate::persona::Persona;
use crate::server::Context;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, listed, nearest};
use crate::steering::{RequestRules, SteeringRequest};
use axum::http::HeaderMap;
use serde_json::Value;
use std::sync::Arc;

/// Where the steering in force came from; `demeanor.steering_from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteeringFrom {
    Body,
    Header,
    Model,
    /// The request has none of its own.
    Persona,
}

impl SteeringFrom {
    pub fn name(self) -> &'static str {
        match self {
            SteeringFrom::Body => "body",
            SteeringFrom::Header => "header",
            SteeringFrom::Model => "model",
            SteeringFrom::Persona => "persona",
        }
    }
}

/// What a request asks for by name. Names of vectors, soft prompts and users are looked up later.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Named {
    /// The version that this request works on to its end.
    pub persona: Option<Arc<Persona>>,
    /// The request's own, without the persona's.
    pub steering: SteeringRequest,
    /// `None` when neither a carrier nor the persona had any steering.
    pub steering_from: Option<SteeringFrom>,
    pub soft_prompt: SoftChoice,
    /// Who asks, each with the carrier that says so; at most three, never two equal ones.
    pub users: Vec<(&'static str, String)>,
    /// Whether the model reads system text of the request's own, or none of the persona's: set by who reads the prompt.
    pub other_text: bool,
}

/// The field `soft_prompt`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SoftChoice {
    /// Absent: the user's and the persona's apply.
    #[default]
    Unsaid,
    /// `false`: none at all.
    Off,
    Named(String),
}

impl Named {
    /// Takes `model`, `persona`, `steering`, `soft_prompt`, `user` and `safety_identifier` out of the fields.
    pub fn read(fields: &mut Fields, headers: &HeaderMap, context: &Context) -> Result<Named, ApiError> {
        let model = fields.string("model")?.unwrap_or_default();
        let (persona, expression) = split_model(&model, &context.names())?;
        let persona = match agreed(&[
            ("model", persona.map(str::to_string)),
            ("persona", fields.string("persona")?),
            ("x-demeanor-persona", header(headers, "x-demeanor-persona")?),
        ])? {
            Some((carrier, name)) => Some(context.personas.find(&name, carrier)?),
            None => None,
        };
        let soft_prompt = read_soft_prompt(fields)?;
        let users = read_users(fields, headers, context.settings.user_header.as_deref())?;
        let (steering, mut steering_from) = read_steering(fields, headers, expression, context)?;
        if persona.as_ref().is_some_and(|persona| !persona.spec.steering.is_empty()) {
            steering_from.get_or_insert(SteeringFrom::Persona);
        }
        Ok(Named { persona, steering, steering_from, soft_prompt, users, other_text: false })
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

/// The one name that all carriers give, with the first of them; two different ones are refused.
fn agreed<'a>(carriers: &[(&'a str, Option<String>)]) -> Result<Option<(&'a str, String)>, ApiError> {
    let mut given = carriers.iter().filter_map(|(carrier, name)| {
        name.as_deref().filter(|name| !name.is_empty()).map(|name| (*carrier, name))
    });
    let Some((carrier, name)) = given.next() else { return Ok(None) };
    if let Some((other, second)) = given.find(|(_, second)| *second != name) {
        let message =
            format!("names `{}`, but `{carrier}` names `{}`; they must agree", clip(second), clip(name));
        return Err(ApiError::at(ErrorCode::InvalidValue, other, message));
    }
    Ok(Some((carrier, name.to_owned())))
}

fn read_soft_prompt(fields: &mut Fields) -> Result<SoftChoice, ApiError> {
    match fields.take("soft_prompt") {
        None => Ok(SoftChoice::Unsaid),
        Some(Value::Bool(false)) => Ok(SoftChoice::Off),
        Some(Value::String(name)) if name.is_empty() => Ok(SoftChoice::Unsaid),
        Some(Value::String(name)) => Ok(SoftChoice::Named(name)),
        Some(_) => Err(fields.refuse("soft_prompt", "must be a name or false")),
    }
}

/// Where the operator named a header, that header alone says who asks: a proxy in front has checked it, the body comes
/// from the client. Both fields must be texts all the same.
fn read_users(
    fields: &mut Fields,
    headers: &HeaderMap,
    trusted: Option<&str>,
) -> Result<Vec<(&'static str, String)>, ApiError> {
    let in_body =
        [("user", fields.string("user")?), ("safety_identifier", fields.string("safety_identifier")?)];
    let given = match trusted {
        Some(name) => vec![("the user header", header(headers, name)?)],
        // Clients that can set headers only; no more of a claim than the body's.
        None => [&in_body[..], &[("x-demeanor-user", header(headers, "x-demeanor-user")?)]].concat(),
    };
    let mut users: Vec<(&'static str, String)> = Vec::new();
    for (carrier, id) in given {
        let id = id.filter(|id| !id.is_empty() && users.iter().all(|(_, known)| known != id));
        users.extend(id.map(|id| (carrier, id)));
    }
    Ok(users)
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
    use serde_json::json;

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
            agreed(&[("model", name(a)), ("persona", name(b))]).map_err(|error| error.code)
        };
        assert_eq!(carriers("", ""), Ok(None));
        assert_eq!(carriers("ada", ""), Ok(Some(("model", "ada".into()))));
        assert_eq!(carriers("", "ada"), Ok(Some(("persona", "ada".into()))));
        assert_eq!(carriers("ada", "ada"), Ok(Some(("model", "ada".into()))));
        assert_eq!(carriers("ada", "bob"), Err(ErrorCode::InvalidValue));
    }

    #[test]
    fn who_asks() {
        let ask = |body: Value, header: Option<&str>, trusted: Option<&str>| {
            let mut fields = Fields::nested(body, "x").expect("an object");
            let mut headers = HeaderMap::new();
            if let Some(value) = header {
                let name = if trusted.is_some() { "x-user" } else { "x-demeanor-user" };
                headers.insert(name, value.parse().expect("a header value"));
            }
            read_users(&mut fields, &headers, trusted).map_err(|error| error.code)
        };
        let both = json!({"user": "u1", "safety_identifier": "u2"});
        let of = |users: &[(&'static str, &str)]| -> Result<Vec<(&'static str, String)>, ErrorCode> {
            Ok(users.iter().map(|(carrier, id)| (*carrier, id.to_string())).collect())
        };
        let table = [
            (json!({}), None, None, of(&[])),
            (json!({"user": "", "safety_identifier": null}), None, None, of(&[])),
            (json!({"user": "u1"}), Some("u1"), None, of(&[("user", "u1")])),
            (json!({}), Some("u9"), None, of(&[("x-demeanor-user", "u9")])),
            (json!({"user": "u1"}), Some("u9"), None, of(&[("user", "u1"), ("x-demeanor-user", "u9")])),
            (json!({"user": "u1", "safety_identifier": "u1"}), None, None, of(&[("user", "u1")])),
            (both.clone(), None, None, of(&[("user", "u1"), ("safety_identifier", "u2")])),
            (both.clone(), Some("u9"), Some("x-user"), of(&[("the user header", "u9")])),
            (both.clone(), None, Some("x-user"), of(&[])),
            (json!({"user": 1}), Some("u9"), Some("x-user"), Err(ErrorCode::InvalidValue)),
        ];
        for (body, header, trusted, expected) in table {
            assert_eq!(ask(body.clone(), header, trusted), expected, "{body} {header:?} {trusted:?}");
        }
    }
}
