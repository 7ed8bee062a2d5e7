//! `demeanor extract`: a steering vector from a trait or a contrast set, made now instead of on first use.

use super::serve::ModelArgs;
use super::vectors::{failed, print_info};
use super::{CliError, Outcome, progress};
use crate::app;
use crate::jobs::Jobs;
use crate::steering::formats::Format;
use crate::steering::{Pending, State, Trait};
use std::path::PathBuf;

/// Extract a steering vector from a contrast set
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor extract warm --out warm.gguf --format gguf\n  demeanor extract my-trait.json --name my-trait"
)]
pub struct ExtractArgs {
    /// Name of a shipped trait, or a trait file (JSON, the form of models/traits)
    pub source: String,
    /// Name of the vector; default: the trait's
    #[arg(long)]
    pub name: Option<String>,
    /// Make it again where there is one of this name
    #[arg(long)]
    pub replace: bool,
    /// Also write the vector to this file
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Format of that file: safetensors, gguf or json
    #[arg(long, default_value = "safetensors")]
    pub format: String,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

pub fn extract(args: &ExtractArgs) -> Outcome {
    let format = Format::parse(&args.format, "--format").map_err(failed)?;
    let settings = args.model.settings()?;
    let path = super::verify::model_file(&args.model)?;
    let curl = format!(
        "URL/v1/chat/completions -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}],\"steering\":\"{}\"}}'",
        args.source
    );
    let loaded = app::load(&settings, &path).map_err(|error| super::or_ask(error, &curl))?;
    let library = loaded.context.library.clone();
    let shipped = library.traits().iter().any(|one| [&one.name, &one.opposite].contains(&&args.source));
    let (name, pending) = if shipped {
        if args.name.is_some() {
            return Err(CliError::failed("--name is for trait files; a shipped trait's vector has its name"));
        }
        if args.replace {
            // Where there is none yet, there is nothing to replace.
            drop(library.delete(&args.source));
        }
        (args.source.clone(), library.prepare(&args.source).map_err(failed)?)
    } else {
        let text = std::fs::read_to_string(&args.source).map_err(|error| {
            CliError::failed(format!("`{}` is no shipped trait and no readable file: {error}", args.source))
        })?;
        let read = Trait::parse(&text).map_err(failed)?;
        let name = args.name.clone().unwrap_or_else(|| read.name.clone());
        let pending = library.extract(&name, read.training(), args.replace).map_err(failed)?;
        (name, Some(pending))
    };
    if let Some(pending) = pending {
        wait(&loaded.context.jobs, pending)?;
    }
    if let Some(out) = &args.out {
        let file = library.export(&name, format).map_err(failed)?;
        super::write(out, file)?;
    }
    print_info(&library.show(&name).map_err(failed)?, args.json);
    Ok(())
}

/// Waits until a vector is made, with its progress on stderr.
fn wait(jobs: &Jobs, pending: Pending) -> Outcome {
    let Pending { mut state, job } = pending;
    let changes = match &job {
        Some(job) => jobs.watch(&job.id).map_err(|error| CliError::failed(error.to_string()))?,
        None => None,
    };
    let runtime = app::runtime(1).map_err(|error| CliError::failed(error.to_string()))?;
    runtime.block_on(async {
        if let Some(changes) = changes {
            progress::follow(changes).await;
        }
        match state.wait_for(State::is_finished).await.map(|state| state.clone()) {
            Ok(State::Failed(error)) => Err(failed(error)),
            Ok(_) => Ok(()),
            Err(_) => Err(CliError::failed("the extraction ended without a result")),
        }
    })
}
