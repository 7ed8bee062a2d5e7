//! Runs the target `tokenizer_json` of `demeanor::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| demeanor::fuzz::run("tokenizer_json", bytes));
