//! `demeanor embed`: what turns people into soft prompts.

use super::{CliError, Outcome, embed_user, soft_prompts};
use crate::encoder::{Encoder, EncoderHandle, Source};
use crate::model::{DenseModel, Reading};
use crate::text::Text;
use crate::users::people::People;
use crate::users::train::{self, Embeddings, Materials, TrainError, TrainOptions};
use crate::users::{Form, Projector};
use crate::weights::{self, Container};
use candle_core::Device;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Train, look at and move soft prompts
#[derive(clap::Args, Clone, Debug)]
pub struct EmbedArgs {
    #[command(subcommand)]
    pub verb: EmbedVerb,
}

#[derive(clap::Subcommand, Clone, Debug)]
pub enum EmbedVerb {
    Train(TrainArgs),
    User(embed_user::UserArgs),
    Import(soft_prompts::ImportArgs),
    Export(soft_prompts::ExportArgs),
}

/// Train a projector: from the embeddings of a person's history to rows that stand before a prompt
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor embed train --data people.jsonl --out projector.safetensors --log training\n\nThe format of people is described in src/users/people.rs. Training takes both cores of a small machine for some twenty minutes; `--resume` goes on from the last checkpoint."
)]
pub struct TrainArgs {
    /// People to train on, JSON Lines
    #[arg(long)]
    pub data: PathBuf,
    /// File for the projector
    #[arg(long)]
    pub out: PathBuf,
    /// Catalogue name, path of a GGUF file or of a folder with config.json and safetensors, or hf:REPO/FILE
    #[arg(long, short = 'm', default_value = weights::default_model(), env = "DEMEANOR_MODEL")]
    pub model: String,
    /// Folder of a sentence encoder; default: the catalogue's, fetched when missing
    #[arg(long)]
    pub encoder: Option<PathBuf>,
    /// Open model and encoder without checking their files first in a process of its own (see `demeanor verify`)
    #[arg(long)]
    pub no_verify: bool,
    /// static: rows independent of the request; input-aware: history weighted by the request
    #[arg(long, default_value = TrainOptions::default().form.name(), value_parser = ["static", "input-aware"])]
    pub form: String,
    /// Rows of a prompt
    #[arg(long, default_value_t = TrainOptions::default().k)]
    pub k: usize,
    /// Width of a hidden layer; default: one linear layer
    #[arg(long)]
    pub hidden: Option<usize>,
    /// Steps through the model
    #[arg(long, default_value_t = TrainOptions::default().steps)]
    pub steps: usize,
    /// Steps of the person-free prompt that everything starts from
    #[arg(long, default_value_t = TrainOptions::default().steps_constant)]
    pub steps_constant: usize,
    /// Steps of the first-order start, for questions
    #[arg(long, default_value_t = TrainOptions::default().steps_first_order)]
    pub steps_first_order: usize,
    /// Learning rate of the layers
    #[arg(long, default_value_t = TrainOptions::default().rate)]
    pub rate: f64,
    /// People of a step, and targets of each
    #[arg(long, default_value_t = TrainOptions::default().people_per_step)]
    pub people_per_step: usize,
    #[arg(long, default_value_t = TrainOptions::default().targets_per_person)]
    pub targets_per_person: usize,
    /// Train on random parts of each history, so that short ones work too
    #[arg(long)]
    pub sample_history: bool,
    /// Largest norm of a row's change
    #[arg(long, default_value_t = TrainOptions::default().cap)]
    pub cap: f32,
    /// Targets of each held-out person at a look
    #[arg(long, default_value_t = TrainOptions::default().held_out_targets)]
    pub held_out_targets: usize,
    /// Looks at the held-out people (every 20 steps) without a better one after which training ends
    #[arg(long, default_value_t = TrainOptions::default().patience)]
    pub patience: usize,
    /// Take the person-free prompt of this projector over instead of training one
    #[arg(long)]
    pub start: Option<PathBuf>,
    #[arg(long, default_value_t = TrainOptions::default().seed)]
    pub seed: u64,
    /// Folder for log.jsonl, curve.svg and checkpoint.safetensors
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Go on from the checkpoint of --log
    #[arg(long, requires = "log")]
    pub resume: bool,
}

pub fn embed(args: &EmbedArgs) -> Outcome {
    match &args.verb {
        EmbedVerb::Train(args) => train(args),
        EmbedVerb::User(args) => embed_user::user(args),
        EmbedVerb::Import(args) => soft_prompts::import(args),
        EmbedVerb::Export(args) => soft_prompts::export(args),
    }
}

fn train(args: &TrainArgs) -> Outcome {
    let people = people(&args.data)?;
    let start = args.start.as_deref().map(projector).transpose()?;
    let path = super::on_disk(&args.model)?;
    if !args.no_verify {
        super::verify::before_opening(&args.model, &path, args.encoder.as_deref())?;
    }
    let encoder = encoder(args.encoder.as_deref())?;
    let embeddings = Embeddings::of(&encoder, &people).map_err(failed)?;
    eprintln!("people  {}, {} texts embedded by {}", people.people.len(), embeddings.len(), encoder.name());
    let container = Container::open(&path)?;
    container.scan_finite()?;
    let bad = |error: &dyn std::fmt::Display| CliError::bad_file(format!("{}: {error}", path.display()));
    let text = Text::from_container(&container).map_err(|error| bad(&error))?;
    let model =
        DenseModel::load(&container, &Device::Cpu, Reading::default()).map_err(|error| bad(&error))?;
    let materials = Materials {
        people: &people,
        embeddings: &embeddings,
        model: &model,
        text: &text,
        weights: container.digest(),
        start: start.as_ref(),
    };
    let projector =
        train::train(&materials, &options(args), &mut |line| eprintln!("{line}")).map_err(failed)?;
    super::write(&args.out, projector.write())?;
    println!("{}", args.out.display());
    Ok(())
}

fn options(args: &TrainArgs) -> TrainOptions {
    TrainOptions {
        form: Form::parse(&args.form).unwrap_or(Form::Static),
        k: args.k,
        hidden: args.hidden,
        seed: args.seed,
        steps: args.steps,
        steps_constant: args.steps_constant,
        steps_first_order: args.steps_first_order,
        rate: args.rate,
        people_per_step: args.people_per_step,
        targets_per_person: args.targets_per_person,
        sample_history: args.sample_history,
        cap: args.cap,
        held_out_targets: args.held_out_targets,
        patience: args.patience,
        log: args.log.clone(),
        resume: args.resume,
        ..TrainOptions::default()
    }
}

/// A projector from its file.
pub fn projector(path: &Path) -> Result<Projector, CliError> {
    let bytes = std::fs::read(path)
        .map_err(|error| CliError::failed(format!("cannot read `{}`: {error}", path.display())))?;
    Projector::read(&bytes).map_err(|error| CliError::bad_file(format!("{}: {error}", path.display())))
}

/// People of a file, JSON Lines.
pub fn people(path: &Path) -> Result<People, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::failed(format!("cannot read `{}`: {error}", path.display())))?;
    People::parse(&text).map_err(|fault| CliError::bad_file(format!("{}: {fault}", path.display())))
}

/// The encoder of a folder, or the catalogue's.
pub fn encoder(folder: Option<&Path>) -> Result<Arc<Encoder>, CliError> {
    let source = folder.map_or(Source::Catalogue, |folder| Source::Folder(folder.to_owned()));
    EncoderHandle::new(source).wait().map_err(CliError::failed)
}

fn failed(error: TrainError) -> CliError {
    match error {
        TrainError::Data(_) => CliError::bad_file(error.to_string()),
        TrainError::Options(_) => CliError::config(error.to_string()),
        _ => CliError::failed(error.to_string()),
    }
}
