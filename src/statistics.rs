//! Intervals and tests: Wilson, paired t, bootstrap; plain functions on slices.
