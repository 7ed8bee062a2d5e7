//! Why answers, an inventory or an alignment were refused: what was wrong, where, what was given and what is allowed.

use crate::engine::SubmitError;
use crate::jobs::JobsError;
use crate::persona::PersonaError;
use crate::steering::SteeringError;

/// Every refusal of this room.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AlignmentError {
    #[error("there is no inventory `{name}`; there are {}", quoted(.known))]
    UnknownInventory { name: String, known: Vec<String> },
    /// A file that is no inventory: which rule it breaks.
    #[error("inventory: {rule}")]
    BadInventory { rule: String },
    /// Neither an array nor a map by item number.
    #[error("`answers`: {given} was given; expected an array of {items} answers or a map by item number")]
    NoAnswers { given: &'static str, items: usize },
    #[error(
        "`answers`: {given} answers were given; inventory `{inventory}` has {items} items (0 stands for a missing one)"
    )]
    WrongCount { given: usize, items: usize, inventory: String },
    #[error("`answers`: there is no item `{number}`; inventory `{inventory}` has items 1 to {items}")]
    UnknownItem { number: String, items: usize, inventory: String },
    /// `item` counts from 1.
    #[error("`answers`: item {item} is {given}; expected an integer, 1 to 5, or 0 for a missing answer")]
    BadAnswer { item: usize, given: String },
    #[error("`answers`: {given} items are answered; at least {needed} are needed")]
    TooFew { given: usize, needed: usize },
    #[error("`answers`: all {given} answers are {answer}; constant answers say nothing about a person")]
    Constant { given: usize, answer: u8 },
    #[error(
        "`protocol`: `paper` chooses its strength on unseen items, and no answer to an unseen item of inventory `{inventory}` was given; allowed: honest"
    )]
    NoUnseen { inventory: String },
    #[error(
        "`algorithm`: `pas` moves heads, and this model's family norms the output of attention, so that no vector equals a moved head; allowed: ridge"
    )]
    HeadsBehindNorm,
    #[error(
        "alignment needs gradients, so all weights in f32 beside the served ones: {given} parameters are too many; at most {max}"
    )]
    TooLarge { given: u64, max: u64 },
    #[error("this model's tokenizer has no single tokens for the answers of any known form of question")]
    NoForm,
    #[error("`name`: {given} bytes; at most {max}, since the persona's vector is called `NAME.alignment`")]
    LongName { given: usize, max: usize },
    #[error("its job was cancelled")]
    Cancelled,
    #[error(transparent)]
    Steering(#[from] SteeringError),
    #[error(transparent)]
    Persona(#[from] PersonaError),
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// The engine, the disk or the model failed; nothing the client can mend.
    #[error("{0}")]
    Failed(String),
}

impl From<SubmitError> for AlignmentError {
    fn from(error: SubmitError) -> AlignmentError {
        AlignmentError::Failed(error.to_string())
    }
}

impl AlignmentError {
    /// The field of the request that is wrong, where there is one.
    pub fn param(&self) -> Option<&str> {
        match self {
            AlignmentError::UnknownInventory { .. } | AlignmentError::BadInventory { .. } => {
                Some("inventory")
            }
            AlignmentError::NoAnswers { .. }
            | AlignmentError::WrongCount { .. }
            | AlignmentError::UnknownItem { .. }
            | AlignmentError::BadAnswer { .. }
            | AlignmentError::TooFew { .. }
            | AlignmentError::Constant { .. } => Some("answers"),
            AlignmentError::NoUnseen { .. } => Some("protocol"),
            AlignmentError::HeadsBehindNorm => Some("algorithm"),
            AlignmentError::LongName { .. } => Some("name"),
            AlignmentError::Steering(error) => error.param(),
            AlignmentError::Persona(error) => error.param(),
            AlignmentError::TooLarge { .. }
            | AlignmentError::NoForm
            | AlignmentError::Cancelled
            | AlignmentError::Jobs(_)
            | AlignmentError::Failed(_) => None,
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
