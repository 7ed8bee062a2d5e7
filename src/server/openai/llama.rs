//! `POST /completion`: llama.cpp's dialect of a completion, for front ends that speak only that (SillyTavern's llama.cpp
//! type). The fields are those of `/v1/completions`; what has another name or no counterpart is read here.

use super::completion::{CompletionRequest, ValidCompletion};
use super::connection;
use super::dialect::respond;
use super::llama_answer::LlamaAnswer;
use super::options::{Options, unsupported};
use super::start::{Started, start_completion};
use crate::engine::Sampling;
use crate::limits;
use crate::server::Context;
use crate::server::body::read_object;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::Fields;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use serde_json::{Value, json};
use std::sync::Arc;

/// What this dialect asks for beside a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// `n_probs`: so many of the most probable tokens beside each drawn one.
    pub probabilities: Option<u32>,
    /// Ids of the drawn tokens beside their text.
    pub tokens: bool,
    /// `timings` in every chunk.
    pub timings: bool,
}

impl Extras {
    pub(super) fn read(fields: &mut Fields) -> Result<Extras, ApiError> {
        let probabilities = fields.integer("n_probs", 0..=limits::COMPLETION_LOGPROBS_MAX as i64)?;
        if fields.bool("post_sampling_probs")? == Some(true) {
            let message = "only log-probabilities of the model itself, before any sampler, are given";
            return Err(unsupported("post_sampling_probs", message));
        }
        Ok(Extras {
            probabilities: probabilities.filter(|n| *n > 0).map(|n| n as u32),
            tokens: fields.bool("return_tokens")?.unwrap_or(false),
            timings: fields.bool("timings_per_token")?.unwrap_or(false),
        })
    }

    /// What the engine must report for this.
    fn logprobs(self) -> Option<u32> {
        self.probabilities.or(self.tokens.then_some(0))
    }
}

/// `POST /completion`.
pub async fn llama_completion(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let connection = connection(&request);
    let (headers, map) = read_object(request).await?;
    let mut request = CompletionRequest::new(map, headers);
    let extras = Extras::read(&mut request.fields)?;
    let valid = checked(request.validate(&context)?, extras)?;
    let started = start_completion(&context, "cmpl-", valid).await?;
    let Started { generation, answer, options, choices, prompts, .. } = started;
    let answer = LlamaAnswer {
        answer,
        extras,
        choices: choices.each(),
        settings: settings(&options, extras.probabilities),
        return_progress: options.return_progress,
        prompts,
        context,
    };
    respond(answer, generation, options.stream, connection).await
}

/// A completion without what this dialect's answer has no place for.
pub(super) fn checked(valid: ValidCompletion, extras: Extras) -> Result<ValidCompletion, ApiError> {
    let other = "is a field of `/v1/completions`; here the answer has no place for it";
    if valid.echo {
        return Err(ApiError::at(ErrorCode::InvalidValue, "echo", other));
    }
    if valid.options.compare {
        return Err(ApiError::at(ErrorCode::InvalidValue, "compare", other));
    }
    Ok(ValidCompletion { logprobs: extras.logprobs(), ..valid })
}

/// `generation_settings` of an answer: what a request came to.
fn settings(options: &Options, probabilities: Option<u32>) -> Value {
    let tokens_max = options.tokens_max.map_or(-1, i64::from);
    let mut settings = sampling_settings(&options.sampling);
    settings["seed"] = json!(options.sampling.seed);
    settings["n_predict"] = json!(tokens_max);
    settings["max_tokens"] = json!(tokens_max);
    settings["stop"] = json!(options.stop_strings);
    settings["ignore_eos"] = json!(options.ignore_eos);
    settings["stream"] = json!(options.stream);
    settings["n_probs"] = json!(probabilities.unwrap_or(0));
    settings
}

/// The same for a request that says nothing.
pub fn default_settings() -> Value {
    let mut settings = sampling_settings(&Sampling::default());
    settings["seed"] = json!(-1);
    settings["n_predict"] = json!(-1);
    settings["max_tokens"] = json!(-1);
    settings
}

fn sampling_settings(sampling: &Sampling) -> Value {
    // A banned token's bias is no number in JSON.
    let bias = |(id, bias): &(u32, f32)| json!({"token": id, "bias": bias.is_finite().then_some(bias)});
    let window =
        if sampling.repetition_window == u32::MAX { -1 } else { i64::from(sampling.repetition_window) };
    json!({
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": window,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": sampling.logit_bias.iter().map(bias).collect::<Vec<_>>(),
        "samplers": ["penalties", "temperature", "top_k", "typ_p", "top_p", "min_p"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extras(body: Value) -> Result<Extras, ApiError> {
        Extras::read(&mut Fields::nested(body, "x").expect("an object"))
    }

    #[test]
    fn what_a_client_asks_for_beside_a_completion() {
        let found = extras(json!({"n_probs": 0, "return_tokens": true})).expect("valid");
        assert_eq!((found.probabilities, found.logprobs()), (None, Some(0)));
        let found = extras(json!({"n_probs": 3, "timings_per_token": true})).expect("valid");
        assert_eq!((found.logprobs(), found.timings), (Some(3), true));
        assert_eq!(extras(json!({})).expect("valid").logprobs(), None);
        for body in [json!({"n_probs": -1}), json!({"n_probs": 101}), json!({"post_sampling_probs": true})] {
            assert!(extras(body.clone()).is_err(), "{body}");
        }
    }

    #[test]
    fn settings_are_json_numbers() {
        let sampling = Sampling {
            logit_bias: vec![(5, f32::NEG_INFINITY), (6, 1.0)],
            repetition_window: u32::MAX,
            ..Sampling::default()
        };
        let settings = sampling_settings(&sampling);
        assert_eq!(settings["repeat_last_n"], -1);
        assert_eq!(settings["logit_bias"], json!([{"token": 5, "bias": null}, {"token": 6, "bias": 1.0}]));
        assert_eq!(default_settings()["seed"], -1);
    }
}
