//! Runs the target `soft_prompt` of `demeanor::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| demeanor::fuzz::run("soft_prompt", bytes));
