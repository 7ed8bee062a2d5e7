//! Resolution of what a request names to a Condition.
