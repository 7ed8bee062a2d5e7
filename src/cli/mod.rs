//! The command line: one file per verb; each parses, makes one library call and prints.

pub mod ls;
pub mod pull;

use std::process::ExitCode;

pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
