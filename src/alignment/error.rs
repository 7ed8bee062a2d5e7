//! Why answers, an inventory or an alignment were refused: what was wrong, where, what was given and what is allowed.

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
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
