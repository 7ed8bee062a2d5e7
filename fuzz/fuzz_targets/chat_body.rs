//! Runs the target `chat_body` of `demeanor::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| demeanor::fuzz::run("chat_body", bytes));
