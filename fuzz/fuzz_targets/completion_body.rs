//! Runs the target `completion_body` of `demeanor::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| demeanor::fuzz::run("completion_body", bytes));
