//! Which soft prompt a request gets, of all that its fields and its persona bring.

use super::PersonaError;
use crate::digest::Digest;
use crate::model::SoftRows;
use std::fmt;

/// Whose rows they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Stored under a name.
    Named(String),
    /// A user's, by id.
    User(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Named(name) => write!(f, "the soft prompt `{name}`"),
            Source::User(id) => write!(f, "the soft prompt of user `{id}`"),
        }
    }
}

/// A soft prompt that a field brings.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The field: `soft_prompt`, `user`, `safety_identifier`, the name of a header, or `persona`.
    pub carrier: &'static str,
    pub source: Source,
    /// `None`: a user whose soft prompt is not made yet.
    pub rows: Option<OfferedRows>,
}

/// The rows of an offer.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferedRows {
    pub rows: SoftRows,
    /// `u1@3` or `poet@1`.
    pub label: String,
    /// The user's, zero for named ones.
    pub owner: Digest,
    /// False: the constant prompt of a user whose history says too little.
    pub effect: bool,
}

/// The one soft prompt that all offers mean; two different ones are refused, also when one of them is not made yet, so
/// that an answer does not depend on how far the embedder is.
pub fn one_of(offers: Vec<Offer>) -> Result<Option<Offer>, PersonaError> {
    let mut offers = offers.into_iter();
    let Some(first) = offers.next() else { return Ok(None) };
    match offers.find(|offer| offer.source != first.source) {
        Some(second) => Err(PersonaError::two_soft_prompts(&first, &second)),
        None => Ok(Some(first)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(carrier: &'static str, source: Source) -> Offer {
        Offer { carrier, source, rows: None }
    }

    #[test]
    fn one_soft_prompt_or_a_refusal_that_names_both() {
        let named = |carrier, name: &str| offer(carrier, Source::Named(name.into()));
        let user = |carrier, id: &str| offer(carrier, Source::User(id.into()));
        type Row = (Vec<Offer>, Result<Option<&'static str>, [&'static str; 2]>);
        let table: [Row; 9] = [
            (vec![], Ok(None)),
            (vec![named("soft_prompt", "poet")], Ok(Some("soft_prompt"))),
            (vec![user("user", "u1")], Ok(Some("user"))),
            (vec![named("soft_prompt", "poet"), named("persona", "poet")], Ok(Some("soft_prompt"))),
            (vec![user("user", "u1"), user("persona", "u1")], Ok(Some("user"))),
            (vec![named("soft_prompt", "poet"), named("persona", "bard")], Err(["`poet`", "`bard`"])),
            (vec![user("user", "u1"), named("persona", "poet")], Err(["`u1`", "`poet`"])),
            (vec![user("user", "u1"), user("persona", "u2")], Err(["`u1`", "`u2`"])),
            // A name and a user of the same letters are two things.
            (
                vec![named("soft_prompt", "u1"), user("user", "u1")],
                Err(["the soft prompt `u1`", "user `u1`"]),
            ),
        ];
        for (offers, expected) in table {
            let shown = format!("{offers:?}");
            match (one_of(offers), expected) {
                (Ok(found), Ok(carrier)) => {
                    assert_eq!(found.map(|offer| offer.carrier), carrier, "{shown}")
                }
                (Err(error), Err(parts)) => {
                    let message = error.to_string();
                    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
                    assert!(error.param().is_some_and(|param| message.starts_with(&format!("`{param}`"))));
                }
                (found, _) => panic!("{shown}: {found:?}"),
            }
        }
    }
}
