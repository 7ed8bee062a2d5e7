//! The command line: one file per verb; each parses, makes one library call and prints.

mod align;
mod bench;
mod bias;
mod client;
mod embed;
mod embed_user;
mod environment;
mod eval;
mod extract;
mod ls;
mod manual;
mod persona;
mod persona_file;
mod probe;
mod progress;
mod pull;
mod run;
mod serve;
mod soft_prompts;
mod store;
mod target;
mod traits;
mod vectors;
mod verify;

use crate::app::AppError;
use crate::store::StoreError;
use crate::weights::{self, WeightsError};
use clap::{CommandFactory, FromArgMatches, Parser};
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a verb gives back; data is already printed.
pub type Outcome = Result<(), CliError>;

/// A failure with its exit status.
#[derive(Debug)]
pub struct CliError {
    code: u8,
    message: String,
}

impl CliError {
    /// Any failure without a code of its own: 1.
    pub fn failed(message: impl Into<String>) -> CliError {
        CliError { code: 1, message: message.into() }
    }

    /// The gate would refuse: 3.
    pub fn not_admitted(message: impl Into<String>) -> CliError {
        CliError { code: 3, message: message.into() }
    }

    /// A bad file: 65.
    pub fn bad_file(message: impl Into<String>) -> CliError {
        CliError { code: 65, message: message.into() }
    }

    /// The data folder is in use: 75.
    pub fn in_use(message: impl Into<String>) -> CliError {
        CliError { code: 75, message: message.into() }
    }

    /// A bad configuration: 78.
    pub fn config(message: impl Into<String>) -> CliError {
        CliError { code: 78, message: message.into() }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

/// A local inference server that gives every request its own personality
#[derive(Parser, Debug)]
#[command(
    name = "demeanor",
    version,
    arg_required_else_help = true,
    after_help = "Every flag can also be given as a variable: DEMEANOR_PORT=9000 for --port 9000."
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    Serve(serve::ServeArgs),
    Run(run::RunArgs),
    Pull(pull::Pull),
    Ls(ls::Ls),
    Extract(extract::ExtractArgs),
    Align(align::AlignArgs),
    Vectors(vectors::VectorsArgs),
    Persona(persona::PersonaArgs),
    Probe(probe::ProbeArgs),
    Traits(traits::TraitsArgs),
    Verify(verify::VerifyArgs),
    Store(store::StoreArgs),
    Embed(embed::EmbedArgs),
    Eval(eval::EvalArgs),
    Bench(bench::BenchArgs),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

/// The whole command line as clap knows it; help, completions and manual pages come from it.
fn command() -> clap::Command {
    environment::with_environment(Arguments::command())
}

pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    start_logging();
    let outcome = match &arguments.verb {
        Verb::Serve(args) => serve::serve(args),
        Verb::Run(args) => run::run(args),
        Verb::Pull(args) => pull::pull(args),
        Verb::Ls(args) => ls::ls(args),
        Verb::Extract(args) => extract::extract(args),
        Verb::Align(args) => align::align(args),
        Verb::Vectors(args) => vectors::vectors(args),
        Verb::Persona(args) => persona::persona(args),
        Verb::Probe(args) => probe::probe(args),
        Verb::Traits(args) => traits::traits(args),
        Verb::Verify(args) => verify::verify(args),
        Verb::Store(args) => store::store(args),
        Verb::Embed(args) => embed::embed(args),
        Verb::Eval(args) => eval::eval(args),
        Verb::Bench(args) => bench::bench(args),
        Verb::Completions(args) => manual::completions(args),
        Verb::Man(args) => manual::man(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demeanor: {error}");
            ExitCode::from(error.code)
        }
    }
}

/// Makes a folder that the user asked for, with those above it; one that is there stays as it is.
fn make_folder(path: &Path) -> Outcome {
    std::fs::create_dir_all(path)
        .map_err(|error| CliError::failed(format!("cannot make `{}`: {error}", path.display())))
}

/// Writes a file that the user asked for; what is there is replaced.
fn write(path: &Path, content: impl AsRef<[u8]>) -> Outcome {
    std::fs::write(path, content)
        .map_err(|error| CliError::failed(format!("cannot write `{}`: {error}", path.display())))
}

/// Warnings and errors on stderr; `RUST_LOG` asks for more. No line holds text of a request.
fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let colour = std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .try_init();
}

impl From<WeightsError> for CliError {
    fn from(error: WeightsError) -> CliError {
        let message = error.to_string();
        match error {
            WeightsError::File { .. }
            | WeightsError::Folder { .. }
            | WeightsError::Mismatch { .. }
            | WeightsError::HostileName { .. } => CliError::bad_file(message),
            WeightsError::NoHome | WeightsError::Pins { .. } => CliError::config(message),
            _ => CliError::failed(message),
        }
    }
}

impl From<AppError> for CliError {
    fn from(error: AppError) -> CliError {
        let message = error.to_string();
        match error {
            AppError::Weights(error) => error.into(),
            AppError::File(_) => CliError::bad_file(message),
            AppError::Config(_) => CliError::config(message),
            AppError::Store(error) => error.into(),
            AppError::Failed(_) => CliError::failed(message),
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> CliError {
        let message = error.to_string();
        match error {
            StoreError::InUse { .. } => CliError::in_use(message),
            StoreError::Newer { .. } | StoreError::NotOurs { .. } | StoreError::NotWritable { .. } => {
                CliError::config(message)
            }
            StoreError::Corrupt { .. } => CliError::bad_file(message),
            _ => CliError::failed(message),
        }
    }
}

/// A failed start of a verb that a running server could do instead: `curl` is its arguments with `URL` in them.
fn or_ask(error: AppError, curl: &str) -> CliError {
    match &error {
        AppError::Store(StoreError::InUse { folder, holder, url: Some(url) }) => CliError::in_use(format!(
            "the data folder `{folder}` is in use by {holder}; hint: curl {}",
            curl.replace("URL", url)
        )),
        _ => error.into(),
    }
}

/// The model's file; fetched first where it is not on disk.
fn on_disk(model: &str) -> Result<PathBuf, CliError> {
    match weights::locate(model)? {
        Some(path) => Ok(path),
        None => {
            eprintln!("model   {model} is not on disk; fetching it");
            Ok(weights::pull(model, &mut pull::TerminalProgress::new())?)
        }
    }
}
