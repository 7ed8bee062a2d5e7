//! Runs the target `probe_report` of `demeanor::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| demeanor::fuzz::run("probe_report", bytes));
