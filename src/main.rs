//! Runs the command line and prints the chain of an error once.

use std::process::ExitCode;

fn main() -> ExitCode {
    demeanor::cli::main()
}
