//! `demeanor vectors`: import, export, show, list and delete the stored vectors of a model.

use super::serve::ModelArgs;
use super::{CliError, Outcome};
use crate::app;
use crate::steering::formats::Format;
use crate::steering::{OriginInfo, SteeringError, VectorInfo};
use std::path::PathBuf;

/// Import, export, show, list or delete steering vectors
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor vectors import happy.gguf --name happy\n  demeanor vectors export warm --format gguf --out warm.gguf"
)]
pub struct VectorsArgs {
    #[command(subcommand)]
    pub action: Action,
    /// One JSON object on stdout
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(clap::Subcommand, Clone, Debug)]
pub enum Action {
    /// Store the vector of a file: GGUF control vector, safetensors or JSON
    Import {
        file: PathBuf,
        #[arg(long)]
        name: String,
        /// Replace a vector of this name
        #[arg(long)]
        replace: bool,
        /// Take a vector that was made on other weights of the same shape
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// Write a vector to a file
    Export {
        name: String,
        /// safetensors, gguf or json
        #[arg(long, default_value = "safetensors")]
        format: String,
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// What is known of one vector
    Show {
        name: String,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// All stored vectors of the model
    List {
        #[command(flatten)]
        model: ModelArgs,
    },
    /// Remove a vector from the store
    Delete {
        name: String,
        #[command(flatten)]
        model: ModelArgs,
    },
}

impl Action {
    fn model(&self) -> &ModelArgs {
        match self {
            Action::Import { model, .. }
            | Action::Export { model, .. }
            | Action::Show { model, .. }
            | Action::List { model }
            | Action::Delete { model, .. } => model,
        }
    }

    /// The same of a running server.
    fn curl(&self) -> String {
        match self {
            Action::Import { file, name, .. } => {
                format!("-F file=@{} -F name={name} URL/v1/vectors", file.display())
            }
            Action::Export { name, format, out, .. } => {
                format!("-o {} 'URL/v1/vectors/{name}/file?format={format}'", out.display())
            }
            Action::Show { name, .. } => format!("URL/v1/vectors/{name}"),
            Action::List { .. } => "URL/v1/vectors".to_owned(),
            Action::Delete { name, .. } => format!("-X DELETE URL/v1/vectors/{name}"),
        }
    }
}

pub fn vectors(args: &VectorsArgs) -> Outcome {
    let settings = args.action.model().settings()?;
    let path = super::verify::model_file(args.action.model())?;
    let loaded = app::load(&settings, &path).map_err(|error| super::or_ask(error, &args.action.curl()))?;
    let library = loaded.context.library.clone();
    match &args.action {
        Action::Import { file, name, replace, force, .. } => {
            let bytes = std::fs::read(file)
                .map_err(|error| CliError::bad_file(format!("cannot read `{}`: {error}", file.display())))?;
            let (info, assumed) = library.upload(name, bytes, *replace, *force).map_err(|error| {
                let CliError { code, message } = failed(error);
                CliError { code, message: format!("`{}`: {message}", file.display()) }
            })?;
            eprintln!(
                "assumed: operation {}, hook point {}, block offset {:+} (number N in the file is 0-based block N{:+})",
                assumed.operation, assumed.hook, assumed.block_offset, assumed.block_offset
            );
            assumed.notes.iter().for_each(|note| eprintln!("note: {note}"));
            print_info(&info, args.json);
        }
        Action::Export { name, format, out, .. } => {
            let format = Format::parse(format, "--format").map_err(failed)?;
            let file = library.export(name, format).map_err(failed)?;
            super::write(out, file)?;
        }
        Action::Show { name, .. } => print_info(&library.show(name).map_err(failed)?, args.json),
        Action::List { .. } => {
            let list = library.list().map_err(failed)?;
            if args.json {
                println!("{}", serde_json::json!(list));
            } else {
                list.iter().for_each(|info| print_info(info, false));
            }
        }
        Action::Delete { name, .. } => library.delete(name).map_err(failed)?,
    }
    Ok(())
}

/// One line for people, or the whole as JSON.
pub(super) fn print_info(info: &VectorInfo, as_json: bool) {
    if as_json {
        println!("{}", serde_json::json!(info));
        return;
    }
    let origin = match &info.origin {
        OriginInfo::Unknown => "unknown origin".to_owned(),
        OriginInfo::Contrast { form, .. } => format!("extracted ({form})"),
        OriginInfo::Alignment { algorithm, .. } => format!("aligned to answers ({algorithm})"),
        OriginInfo::File { format, .. } => format!("from a {format} file"),
    };
    let blocks = match (info.blocks.first(), info.blocks.last()) {
        (Some(first), Some(last)) => format!("blocks {first} to {last}"),
        _ => "no blocks".to_owned(),
    };
    let calibrated = if info.calibration.is_some() { "calibrated" } else { "not calibrated yet" };
    println!("{:<24} {blocks}, {} values, {origin}, {calibrated}", info.name, info.width);
}

/// A refusal of the library with its exit status: 65 for files that break a rule or do not fit.
pub(super) fn failed(error: SteeringError) -> CliError {
    let message = error.to_string();
    match error {
        SteeringError::BadFile { .. }
        | SteeringError::DoesNotFit { .. }
        | SteeringError::OtherModel { .. } => CliError::bad_file(message),
        _ => CliError::failed(message),
    }
}
