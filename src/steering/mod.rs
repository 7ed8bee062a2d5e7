//! Everything about vectors that has a name.
