//! One integration target; a table of contents.
