//! One integration target; a table of contents.

/// Token ids and rendered chats against transformers.
mod text;
