//! Every refusal a client can get: one code each, and one place that decides status, type and retry advice.

use crate::alignment::AlignmentError;
use crate::engine::{SequenceError, SubmitError};
use crate::jobs::JobsError;
use crate::limits;
use crate::persona::PersonaError;
use crate::persona::card::CardError;
use crate::persona::gate::NotAdmitted;
use crate::probe::ProbeError;
use crate::steering::SteeringError;
use crate::text::TextError;
use crate::users::UsersError;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use std::fmt;

/// Stable machine-readable reason; `code` of the error object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorCode {
    BadRequest,
    InvalidJson,
    DuplicateField,
    InvalidValue,
    UnknownField,
    MissingField,
    Unsupported,
    ContextLengthExceeded,
    InvalidSteering,
    DoseExceeded,
    InvalidTemplate,
    HostMissing,
    InvalidApiKey,
    OriginRefused,
    PersonaNotAdmitted,
    SteeringNotAdmitted,
    SoftPromptNotAdmitted,
    RouteNotFound,
    ModelNotFound,
    PersonaNotFound,
    InventoryNotFound,
    Unprobed,
    UserNotFound,
    HistoryItemNotFound,
    VectorNotFound,
    TraitNotFound,
    SoftPromptNotFound,
    JobNotFound,
    UserDeleted,
    MethodNotAllowed,
    BodyTimeout,
    Conflict,
    PreconditionFailed,
    BodyTooLarge,
    HistoryFull,
    UnsupportedMediaType,
    WrongHost,
    AnswersRefused,
    InvalidCard,
    VectorDoesNotFit,
    SoftPromptDoesNotFit,
    SoftPromptOutOfRange,
    ControlTokenAlias,
    NotSafetensors,
    VectorFailed,
    DoseTooLarge,
    TooManyFailedKeys,
    QueueFull,
    Busy,
    Loading,
    EncoderNotReady,
    VectorNotReady,
    ShuttingDown,
    ConstraintTooComplex,
    SequenceFailed,
    DiskFull,
    Internal,
}

/// What follows from a code.
struct Meaning {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    /// `x-should-retry`, where official clients would decide wrongly by themselves.
    retry: Option<bool>,
}

impl ErrorCode {
    /// The one decision table of the HTTP surface.
    fn meaning(self) -> Meaning {
        use ErrorCode::*;
        let bad = StatusCode::BAD_REQUEST;
        let (status, kind, code, retry) = match self {
            BadRequest => (bad, "invalid_request_error", "bad_request", None),
            InvalidJson => (bad, "invalid_request_error", "invalid_json", None),
            DuplicateField => (bad, "invalid_request_error", "duplicate_field", None),
            InvalidValue => (bad, "invalid_request_error", "invalid_value", None),
            UnknownField => (bad, "invalid_request_error", "unknown_field", None),
            MissingField => (bad, "invalid_request_error", "missing_field", None),
            Unsupported => (bad, "invalid_request_error", "unsupported", None),
            ContextLengthExceeded => (bad, "invalid_request_error", "context_length_exceeded", None),
            InvalidSteering => (bad, "invalid_request_error", "invalid_steering", None),
            DoseExceeded => (bad, "invalid_request_error", "dose_exceeded", None),
            ConstraintTooComplex => (bad, "invalid_request_error", "constraint_too_complex", None),
            InvalidTemplate => (bad, "invalid_request_error", "invalid_messages", None),
            HostMissing => (bad, "invalid_request_error", "invalid_host", None),
            InvalidApiKey => (StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key", None),
            OriginRefused => (StatusCode::FORBIDDEN, "permission_error", "origin_not_allowed", None),
            PersonaNotAdmitted => (StatusCode::FORBIDDEN, "permission_error", "persona_not_admitted", None),
            SteeringNotAdmitted => (StatusCode::FORBIDDEN, "permission_error", "steering_not_admitted", None),
            SoftPromptNotAdmitted => {
                (StatusCode::FORBIDDEN, "permission_error", "soft_prompt_not_admitted", None)
            }
            RouteNotFound => (StatusCode::NOT_FOUND, "invalid_request_error", "route_not_found", None),
            ModelNotFound => (StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", None),
            PersonaNotFound => (StatusCode::NOT_FOUND, "invalid_request_error", "persona_not_found", None),
            InventoryNotFound => {
                (StatusCode::NOT_FOUND, "invalid_request_error", "inventory_not_found", None)
            }
            Unprobed => (StatusCode::NOT_FOUND, "invalid_request_error", "unprobed", None),
            UserNotFound => (StatusCode::NOT_FOUND, "invalid_request_error", "user_not_found", None),
            HistoryItemNotFound => {
                (StatusCode::NOT_FOUND, "invalid_request_error", "history_item_not_found", None)
            }
            VectorNotFound => (StatusCode::NOT_FOUND, "invalid_request_error", "vector_not_found", None),
            TraitNotFound => (StatusCode::NOT_FOUND, "invalid_request_error", "trait_not_found", None),
            SoftPromptNotFound => {
                (StatusCode::NOT_FOUND, "invalid_request_error", "soft_prompt_not_found", None)
            }
            JobNotFound => (StatusCode::NOT_FOUND, "invalid_request_error", "job_not_found", None),
            UserDeleted => (StatusCode::GONE, "invalid_request_error", "user_deleted", Some(false)),
            MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed", None)
            }
            BodyTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "body_timeout", Some(false))
            }
            Conflict => (StatusCode::CONFLICT, "invalid_request_error", "conflict", Some(false)),
            PreconditionFailed => {
                (StatusCode::PRECONDITION_FAILED, "invalid_request_error", "precondition_failed", None)
            }
            BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "body_too_large", None),
            HistoryFull => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "history_full", None),
            UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", "unsupported_media_type", None)
            }
            WrongHost => (StatusCode::MISDIRECTED_REQUEST, "invalid_request_error", "host_not_allowed", None),
            InvalidCard => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", "invalid_card", None),
            AnswersRefused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", "answers_refused", None)
            }
            SoftPromptDoesNotFit => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", "soft_prompt_does_not_fit", None)
            }
            SoftPromptOutOfRange => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", "soft_prompt_out_of_range", None)
            }
            ControlTokenAlias => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", "control_token_alias", None)
            }
            NotSafetensors => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", "not_safetensors", None)
            }
            VectorDoesNotFit => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", "vector_does_not_fit", None)
            }
            VectorFailed => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", "vector_failed", None)
            }
            DoseTooLarge => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", "dose_too_large", None)
            }
            TooManyFailedKeys => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "too_many_failed_keys", None)
            }
            QueueFull => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "queue_full", None),
            Busy => (StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "busy", None),
            Loading => (StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "loading", None),
            EncoderNotReady => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "encoder_not_ready", None)
            }
            VectorNotReady => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "vector_not_ready", None)
            }
            ShuttingDown => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "shutting_down", Some(false))
            }
            SequenceFailed => {
                (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "sequence_failed", Some(false))
            }
            DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "server_error", "disk_full", Some(false)),
            Internal => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error", Some(false)),
        };
        Meaning { status, kind, code, retry }
    }

    pub fn status(self) -> StatusCode {
        self.meaning().status
    }
}

/// A refusal on its way to a client.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    pub code: ErrorCode,
    /// For people: what, where, given, allowed.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// Whole seconds, at least 1.
    pub retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError { code, message: message.into(), param: None, retry_after_seconds: None }
    }

    /// A refusal that names the field `param`.
    pub fn at(code: ErrorCode, param: impl Into<String>, message: impl fmt::Display) -> ApiError {
        let param = shown(param.into());
        ApiError {
            code,
            message: format!("`{param}`: {message}"),
            param: Some(param),
            retry_after_seconds: None,
        }
    }

    pub fn retry_after(mut self, seconds: u64) -> ApiError {
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// A fault of ours: the cause goes to the log, the client gets a sentence without it.
    pub fn internal(cause: impl fmt::Display) -> ApiError {
        tracing::error!(cause = %cause, "internal error");
        ApiError::new(ErrorCode::Internal, "the server failed on this request; its log says why")
    }

    /// What the store refused: a full disk and a bound are told, the rest is a fault of ours.
    pub fn storage(is_full: bool, is_bound: bool, cause: impl fmt::Display) -> ApiError {
        match (is_full, is_bound) {
            (true, _) => {
                tracing::error!(cause = %cause, "nothing can be stored");
                ApiError::new(ErrorCode::DiskFull, "the server's disk is full, nothing was stored")
            }
            (_, true) => ApiError::new(ErrorCode::Conflict, cause.to_string()),
            _ => ApiError::internal(cause),
        }
    }

    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The error object of OpenAI's shape. `Loading` answers in llama.cpp's words, which routers look for.
    pub fn body(&self) -> Value {
        let meaning = self.code.meaning();
        let message = clipped(&self.message, limits::MESSAGE_CHARS_MAX);
        if self.code == ErrorCode::Loading {
            return json!({"error": {"message": message, "type": meaning.kind, "param": null, "code": 503}});
        }
        json!({"error": {
            "message": message, "type": meaning.kind, "param": self.param.as_ref().map(shown), "code": meaning.code,
        }})
    }
}

/// What a client sent as a message may show it: its beginning when it is long.
pub fn shown(given: impl fmt::Display) -> String {
    clipped(&given.to_string(), limits::SHOWN_CHARS_MAX)
}

fn clipped(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_string(),
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let meaning = self.code.meaning();
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = meaning.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(retry) = meaning.retry {
            let value = HeaderValue::from_static(if retry { "true" } else { "false" });
            headers.insert(HeaderName::from_static("x-should-retry"), value);
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if meaning.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<SteeringError> for ApiError {
    fn from(error: SteeringError) -> ApiError {
        use SteeringError as E;
        let retry_after = match &error {
            E::NotReady { retry_after, .. } => Some(retry_after.as_secs()),
            _ => None,
        };
        let code = match &error {
            E::Syntax { .. } | E::Range { .. } | E::TooMany { .. } | E::Overflow { .. } => {
                ErrorCode::InvalidSteering
            }
            E::Unsupported { .. } => ErrorCode::Unsupported,
            E::Unknown { .. } => ErrorCode::VectorNotFound,
            E::DoesNotFit { .. } | E::BadFile { .. } => ErrorCode::VectorDoesNotFit,
            E::OtherModel { .. } | E::Conflict { .. } => ErrorCode::Conflict,
            E::DoseExceeded { .. } => ErrorCode::DoseExceeded,
            E::NotReady { .. } => ErrorCode::VectorNotReady,
            E::Failed { .. } => ErrorCode::VectorFailed,
            E::Store(cause) => return ApiError::storage(cause.is_full(), cause.is_bound(), cause),
            E::Internal(_) => return ApiError::internal(error),
        };
        let param = error.param().map(str::to_string);
        let plain = ApiError { param, ..ApiError::new(code, error.to_string()) };
        match retry_after {
            Some(seconds) => plain.retry_after(seconds),
            None => plain,
        }
    }
}

impl From<JobsError> for ApiError {
    fn from(error: JobsError) -> ApiError {
        match error {
            JobsError::Full { .. } => ApiError::new(ErrorCode::QueueFull, error.to_string()).retry_after(10),
            JobsError::Store(cause) => ApiError::storage(cause.is_full(), cause.is_bound(), cause),
        }
    }
}

impl From<ProbeError> for ApiError {
    fn from(error: ProbeError) -> ApiError {
        match error {
            ProbeError::UnknownSuite { .. } => ApiError::at(ErrorCode::InvalidValue, "suite", error),
            ProbeError::Jobs(error) => error.into(),
            other => ApiError::internal(other),
        }
    }
}

impl From<PersonaError> for ApiError {
    fn from(error: PersonaError) -> ApiError {
        use PersonaError as E;
        let code = match &error {
            E::BadName { .. } | E::TooLong { .. } | E::TwoSoftPrompts { .. } | E::UnknownCard { .. } => {
                ErrorCode::InvalidValue
            }
            E::Card { error: CardError::TooLong { .. } | CardError::TooMany { .. }, .. } => {
                ErrorCode::BodyTooLarge
            }
            E::Card { .. } => ErrorCode::InvalidCard,
            E::Unknown { .. } | E::UnknownVersion { .. } => ErrorCode::PersonaNotFound,
            E::Exists { .. } | E::TooMany { .. } => ErrorCode::Conflict,
            E::Changed { .. } => ErrorCode::PreconditionFailed,
            E::DiskFull => ErrorCode::DiskFull,
            E::Stored { .. } | E::Store(_) => return ApiError::internal(error),
        };
        let param = error.param().map(str::to_string);
        ApiError { param, ..ApiError::new(code, error.to_string()) }
    }
}

impl From<AlignmentError> for ApiError {
    fn from(error: AlignmentError) -> ApiError {
        use AlignmentError as E;
        let code = match error {
            E::Steering(error) => return error.into(),
            E::Persona(error) => return error.into(),
            E::Jobs(error) => return error.into(),
            E::Cancelled | E::Failed(_) => return ApiError::internal(error),
            E::UnknownInventory { .. } => ErrorCode::InventoryNotFound,
            E::BadInventory { .. } | E::NoAnswers { .. } | E::LongName { .. } => ErrorCode::InvalidValue,
            E::WrongCount { .. } | E::UnknownItem { .. } | E::BadAnswer { .. } => ErrorCode::AnswersRefused,
            E::TooFew { .. } | E::Constant { .. } | E::NoUnseen { .. } => ErrorCode::AnswersRefused,
            E::HeadsBehindNorm | E::TooLarge { .. } | E::NoForm => ErrorCode::Unsupported,
        };
        let param = error.param().map(str::to_string);
        ApiError { param, ..ApiError::new(code, error.to_string()) }
    }
}

impl From<NotAdmitted> for ApiError {
    fn from(error: NotAdmitted) -> ApiError {
        use NotAdmitted as E;
        let code = match &error {
            E::Persona { .. } => ErrorCode::PersonaNotAdmitted,
            E::Vector { .. } | E::Dose { .. } => ErrorCode::SteeringNotAdmitted,
            E::NamedSoft { .. } | E::TurnedOff { .. } | E::UserNorm { .. } => {
                ErrorCode::SoftPromptNotAdmitted
            }
        };
        let param = Some(error.param().to_owned());
        ApiError { param, ..ApiError::new(code, error.to_string()) }
    }
}

impl From<UsersError> for ApiError {
    fn from(error: UsersError) -> ApiError {
        use UsersError as E;
        let code = match &error {
            E::BadId { .. } | E::Item { .. } => ErrorCode::InvalidValue,
            E::UnknownField { .. } => ErrorCode::UnknownField,
            E::Unknown { .. } => ErrorCode::UserNotFound,
            E::UnknownItem { .. } => ErrorCode::HistoryItemNotFound,
            E::Exists { .. } | E::TooManyUsers { .. } => ErrorCode::Conflict,
            E::Full { .. } => ErrorCode::HistoryFull,
            E::DoesNotFit(_) | E::BadFile { .. } => ErrorCode::VectorDoesNotFit,
            E::SoftPromptFile { .. } => ErrorCode::SoftPromptDoesNotFit,
            E::NotSafetensors { .. } => ErrorCode::NotSafetensors,
            E::SoftPromptRange { .. } => ErrorCode::SoftPromptOutOfRange,
            E::ControlTokenAlias { .. } => ErrorCode::ControlTokenAlias,
            E::UnknownSoftPrompt { .. } => ErrorCode::SoftPromptNotFound,
            E::SoftPromptExists { .. } | E::TooManySoftPrompts { .. } => ErrorCode::Conflict,
            E::DiskFull => ErrorCode::DiskFull,
            E::Internal(_) => return ApiError::internal(error),
        };
        let param = error.param().map(str::to_string);
        ApiError { param, ..ApiError::new(code, error.to_string()) }
    }
}

impl From<TextError> for ApiError {
    fn from(error: TextError) -> ApiError {
        use TextError as E;
        let (code, param) = match &error {
            E::TooLong { .. } => (ErrorCode::BodyTooLarge, None),
            E::Template { message, .. } => {
                let param = message.map_or("messages".to_string(), |index| format!("messages[{index}]"));
                (ErrorCode::InvalidTemplate, Some(param))
            }
            E::TemplateLimit { .. } => (ErrorCode::InvalidTemplate, Some("messages".into())),
            E::Argument { name, .. } => (ErrorCode::InvalidValue, Some(name.clone())),
            E::Failed
            | E::Unsupported { .. }
            | E::File { .. }
            | E::Missing { .. }
            | E::Vocabulary(_)
            | E::TemplateLoad(_)
            | E::Weights(_) => return ApiError::internal(error),
        };
        ApiError { param, ..ApiError::new(code, error.to_string()) }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> ApiError {
        let message = error.to_string();
        match error {
            SubmitError::Full { retry_after, .. } => {
                let seconds = retry_after.as_secs_f64().ceil().clamp(1.0, 60.0);
                ApiError::new(ErrorCode::QueueFull, message).retry_after(seconds as u64)
            }
            SubmitError::Stopped => ApiError::new(ErrorCode::ShuttingDown, "the server is shutting down"),
            SubmitError::TooLong { .. } => ApiError::new(ErrorCode::ContextLengthExceeded, message),
            SubmitError::UnknownToken { .. } | SubmitError::Empty => {
                ApiError::new(ErrorCode::InvalidValue, message)
            }
            SubmitError::Shape(_) => ApiError::internal(message),
        }
    }
}

impl From<SequenceError> for ApiError {
    fn from(error: SequenceError) -> ApiError {
        let code = match &error {
            SequenceError::NonFiniteLogits => ErrorCode::DoseTooLarge,
            SequenceError::CacheTooSmall { .. } => ErrorCode::ContextLengthExceeded,
            SequenceError::Constraint(_) => ErrorCode::ConstraintTooComplex,
            SequenceError::ShuttingDown => ErrorCode::ShuttingDown,
            SequenceError::EngineFailed => ErrorCode::SequenceFailed,
            SequenceError::OwnerDeleted => ErrorCode::UserDeleted,
        };
        ApiError::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_is_openais() {
        let error =
            ApiError::at(ErrorCode::InvalidValue, "top_p", "1.5 is out of range; allowed over 0 to 1");
        let body = error.body();
        assert_eq!(body["error"]["param"], "top_p");
        assert_eq!(body["error"]["code"], "invalid_value");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(error.into_response().status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn messages_show_little_of_what_was_sent() {
        let long = "é".repeat(100_000);
        let error = ApiError::at(ErrorCode::InvalidValue, long.clone(), format!("{} is wrong", shown(&long)));
        let body = error.body();
        let length = |field: &str| body["error"][field].as_str().map(|text| text.chars().count());
        assert_eq!(length("param"), Some(limits::SHOWN_CHARS_MAX + 3));
        assert_eq!(length("message"), Some(2 * (limits::SHOWN_CHARS_MAX + 3) + "``:  is wrong".len()));
        let body = ApiError::new(ErrorCode::BadRequest, long).body();
        assert_eq!(body["error"]["message"].as_str().map(|text| text.ends_with("é...")), Some(true));
        assert_eq!(shown("short"), "short");
    }

    #[test]
    fn final_refusals_say_do_not_retry() {
        for code in [ErrorCode::Conflict, ErrorCode::ShuttingDown, ErrorCode::Internal] {
            let response = ApiError::new(code, "x").into_response();
            assert_eq!(response.headers()["x-should-retry"], "false", "{code:?}");
        }
        let full = ApiError::new(ErrorCode::QueueFull, "x").retry_after(0).into_response();
        assert_eq!(full.headers()[header::RETRY_AFTER], "1");
        assert!(!full.headers().contains_key("x-should-retry"));
    }
}
