//! Why steering was refused: what was wrong, where in the request, what was given and what is allowed.

use crate::engine::SubmitError;
use crate::store::StoreError;
use std::time::Duration;

/// Every refusal of this room. `param` is the path of the field (`steering`, `steering[2].blocks`).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SteeringError {
    /// Not the grammar, or a value of a wrong type. `offset` is a byte offset into an expression.
    #[error("`{param}`{}: {message}", at(.offset))]
    Syntax { param: String, offset: Option<usize>, message: String },
    /// The right type and a value that is not allowed.
    #[error("`{param}`: {message}")]
    Range { param: String, message: String },
    /// Understood, and not built yet.
    #[error("`{param}`: {what} is not supported yet")]
    Unsupported { param: String, what: String },
    #[error("`{param}`: {given} interventions are too many; at most {max}")]
    TooMany { param: String, given: usize, max: usize },
    /// A vector name that neither the store nor the traits have.
    #[error("`{param}`: there is no vector or trait `{name}`{}", hint(.nearest))]
    Unknown { param: String, name: String, nearest: Vec<String> },
    /// A vector that does not fit the loaded model, or directions that are no use: says both sides.
    #[error("`{param}`: {message}")]
    DoesNotFit { param: String, message: String },
    /// A vector that was made for other weights.
    #[error(
        "`{param}`: vector `{name}` was made for the weights {made_for}; loaded are {loaded} - extract or import it for this model"
    )]
    OtherModel { param: String, name: String, made_for: String, loaded: String },
    /// A finite coefficient times a finite direction that is no finite number any more.
    #[error("`{param}`: coefficient {coefficient} times vector `{name}` overflows at block {block}")]
    Overflow { param: String, name: String, coefficient: f32, block: u32 },
    /// The dose of the summed change, or of its parts, is above the operator's limit.
    #[error(
        "`{param}`: dose {dose:.3} {place} is above the limit of {max} (`--max-dose`); lower the coefficients"
    )]
    DoseExceeded { param: String, dose: f32, max: f32, place: String },
    /// The vector is being made.
    #[error("`{param}`: vector `{name}` is not ready yet ({state}); try again in {} s", .retry_after.as_secs())]
    NotReady { param: String, name: String, state: String, retry_after: Duration },
    /// Making the vector failed; the next request tries again.
    #[error("`{param}`: vector `{name}` could not be made: {message}")]
    Failed { param: String, name: String, message: String },
    /// A vector file that breaks a rule of its format.
    #[error("{format} vector file: {rule}{}", at(.offset))]
    BadFile { format: &'static str, rule: String, offset: Option<usize> },
    #[error("`{param}`: {message}")]
    Conflict { param: String, message: String },
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The model failed; nothing the client can mend.
    #[error("{0}")]
    Internal(String),
}

impl From<SubmitError> for SteeringError {
    fn from(error: SubmitError) -> SteeringError {
        SteeringError::Internal(error.to_string())
    }
}

impl SteeringError {
    /// The field of the request that is wrong, where there is one.
    pub fn param(&self) -> Option<&str> {
        match self {
            SteeringError::Syntax { param, .. }
            | SteeringError::Range { param, .. }
            | SteeringError::Unsupported { param, .. }
            | SteeringError::TooMany { param, .. }
            | SteeringError::Unknown { param, .. }
            | SteeringError::DoesNotFit { param, .. }
            | SteeringError::OtherModel { param, .. }
            | SteeringError::Overflow { param, .. }
            | SteeringError::DoseExceeded { param, .. }
            | SteeringError::NotReady { param, .. }
            | SteeringError::Failed { param, .. }
            | SteeringError::Conflict { param, .. } => Some(param),
            SteeringError::BadFile { .. } | SteeringError::Store(_) | SteeringError::Internal(_) => None,
        }
    }

    pub(super) fn range(param: impl Into<String>, message: impl Into<String>) -> SteeringError {
        SteeringError::Range { param: param.into(), message: message.into() }
    }

    /// A wrong type or key outside an expression.
    pub(super) fn form(param: impl Into<String>, message: impl Into<String>) -> SteeringError {
        SteeringError::Syntax { param: param.into(), offset: None, message: message.into() }
    }

    pub(super) fn unsupported(param: impl Into<String>, what: impl Into<String>) -> SteeringError {
        SteeringError::Unsupported { param: param.into(), what: what.into() }
    }

    pub(super) fn unfit(param: impl Into<String>, message: impl Into<String>) -> SteeringError {
        SteeringError::DoesNotFit { param: param.into(), message: message.into() }
    }
}

fn at(offset: &Option<usize>) -> String {
    offset.map_or_else(String::new, |offset| format!(" at byte {offset}"))
}

fn hint(nearest: &[String]) -> String {
    if nearest.is_empty() {
        return "; `GET /v1/vectors` and `GET /v1/traits` list them".to_owned();
    }
    let names: Vec<String> = nearest.iter().map(|name| format!("`{name}`")).collect();
    format!("; nearest: {}", names.join(", "))
}
