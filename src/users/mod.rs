//! What the server holds of a person: history, its embedding, and the soft prompt made from it.
