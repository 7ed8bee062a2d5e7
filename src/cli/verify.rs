//! `demeanor verify`: what a model's files are and what is wrong with them, read in a process with limits of its own.
//!
//! Verbs that open a model which the catalogue does not vouch for do the same first, and go on where that process ended
//! well: what it found is for the loader to say.

use super::serve::ModelArgs;
use super::{CliError, Outcome};
use crate::limits::{VERIFY_CPU_SECONDS_MAX, VERIFY_MEMORY_BYTES_MAX};
use crate::verify::{self, Bounds, Report, Severity, VerifyError};
use crate::weights::{self, Catalog};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Check a model's files without loading it: settings, tensors, tokenizer, chat template
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor verify downloads/model.gguf\n\nThe files are read in a process of its own with limits on memory and time (on macOS on time only), so a file made to\nharm whoever reads it does not. Exit status: 0, or 65 where a server would not open it. Weights are not looked at:\nserving reads them all and refuses infinities."
)]
pub struct VerifyArgs {
    /// GGUF file, folder of a model or of a sentence encoder, or the name of a model on disk
    pub path: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Seconds of the processor that the check may take; of the clock twice as many
    #[arg(long, default_value_t = VERIFY_CPU_SECONDS_MAX, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Memory that the check may take
    #[arg(long, default_value_t = VERIFY_MEMORY_BYTES_MAX >> 20, value_parser = clap::value_parser!(u64).range(8..=1 << 20))]
    pub memory_mib: u64,
    /// Read the files in this process, after it has limited itself: how the check is started
    #[arg(long, hide = true)]
    pub confined: bool,
}

pub fn verify(args: &VerifyArgs) -> Outcome {
    let bounds = Bounds { memory_bytes: args.memory_mib << 20, seconds: args.seconds };
    if args.confined {
        let path = Path::new(&args.path);
        verify::confine(path, bounds.memory_bytes, bounds.seconds);
        println!("{}", json(&verify::examine(path))?);
        return Ok(());
    }
    let report = checked(&place(&args.path)?, bounds)?;
    match args.json {
        true => println!("{}", json(&report)?),
        false => print!("{}", told(&report)),
    }
    refused(&report)
}

/// The model's file, fetched where it is not on disk, and checked as [`before_opening`] says.
pub fn model_file(args: &ModelArgs) -> Result<PathBuf, CliError> {
    let path = super::on_disk(&args.model)?;
    if !args.no_verify {
        before_opening(&args.model, &path, args.encoder.as_deref())?;
    }
    Ok(path)
}

/// The same for verbs that fetch nothing: what is not on disk is for the loader to say.
pub fn if_on_disk(args: &ModelArgs) -> Outcome {
    match weights::locate(&args.model)? {
        Some(_) => model_file(args).map(|_| ()),
        None => Ok(()),
    }
}

/// Refuses a model whose check does not end well, and an encoder that is not good. A model of the catalogue is not checked: its sha256 is,
/// when it is loaded.
pub fn before_opening(model: &str, path: &Path, encoder: Option<&Path>) -> Outcome {
    let vouched = Catalog::shipped()?.entry(model).is_some_and(|entry| entry.sha256().is_some());
    if !vouched {
        checked(path, Bounds::default())?;
    }
    encoder.map_or(Ok(()), before_opening_encoder)
}

/// Refuses a folder that was named and is not good: a library of others would read it in this process too. The catalogue's
/// encoder has its checksums.
pub fn before_opening_encoder(folder: &Path) -> Outcome {
    refused(&checked(folder, Bounds::default())?)
}

/// An error of a report, if there is one.
fn refused(report: &Report) -> Outcome {
    match report.first_error() {
        None => Ok(()),
        // It names the file itself.
        Some(error) if error.part == "file" => Err(CliError::bad_file(error.message.as_str())),
        Some(error) => Err(CliError::bad_file(format!("{}: {}: {}", report.path, error.part, error.message))),
    }
}

/// What a process of its own says of a path.
fn checked(path: &Path, bounds: Bounds) -> Result<Report, CliError> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::failed(format!("where this program is cannot be told: {error}")))?;
    let mut command = Command::new(program);
    command.args(["verify", "--confined", "--seconds", &bounds.seconds.to_string(), "--memory-mib"]);
    command.arg((bounds.memory_bytes >> 20).to_string()).arg("--").arg(path);
    let begin = Instant::now();
    let report = verify::supervise(command, path, bounds).map_err(|error| match error {
        VerifyError::Start { .. } => CliError::failed(error.to_string()),
        VerifyError::Ended { .. } => CliError::bad_file(error.to_string()),
    })?;
    tracing::info!(path = %path.display(), ms = begin.elapsed().as_millis() as u64, "checked in a process of its own");
    Ok(report)
}

/// A path that is there, or else the file of a name.
fn place(given: &str) -> Result<PathBuf, CliError> {
    let path = PathBuf::from(given);
    if path.exists() {
        return Ok(path);
    }
    weights::locate(given)?.filter(|path| path.exists()).ok_or_else(|| {
        CliError::bad_file(format!("`{given}` is not on disk; hint: `demeanor pull {given}` fetches a model"))
    })
}

fn json(report: &Report) -> Result<String, CliError> {
    serde_json::to_string(report).map_err(|error| CliError::failed(error.to_string()))
}

/// For people.
fn told(report: &Report) -> String {
    let mut lines = vec![format!("{}: {}", report.path, report.kind.as_deref().unwrap_or("unknown"))];
    if let Some(model) = &report.model {
        lines.push(format!(
            "model     {}, {:.0} M parameters in {} tensors, {}, {:.1} MB",
            model.architecture,
            model.parameters as f64 / 1e6,
            model.tensors,
            model.quantisation,
            model.bytes as f64 / 1e6
        ));
        lines.push(format!(
            "sizes     {} blocks of width {}, {} heads ({} for keys), {} tokens, trained for {} positions",
            model.n_blocks,
            model.d_model,
            model.n_heads,
            model.n_kv_heads,
            model.vocab_size,
            model.trained_context
        ));
    }
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        lines.push(format!("{severity:9} {}: {}", finding.part, finding.message));
    }
    if report.findings.is_empty() {
        lines.push("findings  none".to_owned());
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
