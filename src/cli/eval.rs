//! `demeanor eval`: benchmarks of a model and what is made for it.

mod papi;

use super::serve::ModelArgs;
use super::{CliError, Outcome, bias, embed};
use crate::app;
use crate::evaluation::users::{self, EvaluationError, Materials, Options};
use crate::users::train::Embeddings;
use crate::users::{Form, Projector};
use std::path::{Path, PathBuf};

/// Score a model and what is made for it
#[derive(clap::Args, Clone, Debug)]
pub struct EvalArgs {
    #[command(subcommand)]
    pub verb: EvalVerb,
}

#[derive(clap::Subcommand, Clone, Debug)]
pub enum EvalVerb {
    Users(Box<UsersArgs>),
    Papi(Box<papi::PapiArgs>),
    Bbq(Box<bias::BbqArgs>),
    CrowsPairs(Box<bias::CrowsArgs>),
}

/// Do soft prompts carry the person? Unseen people's answers, predicted from their history
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor eval users --data people.jsonl --projector projector.safetensors --out evaluation\n\nWrites summary.json, answers.jsonl and report.html."
)]
pub struct UsersArgs {
    /// People, JSON Lines (as for `demeanor embed train`); those of the split `test` are reported on
    #[arg(long)]
    pub data: PathBuf,
    /// A static projector
    #[arg(long)]
    pub projector: Option<PathBuf>,
    /// An input-aware projector
    #[arg(long)]
    pub input_aware: Option<PathBuf>,
    /// Folder of a sentence encoder; default: the catalogue's, fetched when missing
    #[arg(long)]
    pub encoder: Option<PathBuf>,
    /// Questions at most
    #[arg(long)]
    pub limit: Option<usize>,
    /// Questions at most with history as text
    #[arg(long, default_value_t = 24)]
    pub text_limit: usize,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for the results
    #[arg(long)]
    pub out: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
}

pub fn eval(args: &EvalArgs) -> Outcome {
    match &args.verb {
        EvalVerb::Users(args) => users(args),
        EvalVerb::Papi(args) => papi::papi(args),
        EvalVerb::Bbq(args) => bias::bbq(args),
        EvalVerb::CrowsPairs(args) => bias::crows_pairs(args),
    }
}

fn users(args: &UsersArgs) -> Outcome {
    let people = embed::people(&args.data)?;
    let static_projector = projector(args.projector.as_deref(), Form::Static)?;
    let input_aware_projector = projector(args.input_aware.as_deref(), Form::InputAware)?;
    if let Some(folder) = args.encoder.as_deref().filter(|_| !args.model.no_verify) {
        super::verify::before_opening_encoder(folder)?;
    }
    let encoder = embed::encoder(args.encoder.as_deref())?;
    let embeddings =
        Embeddings::of(&encoder, &people).map_err(|error| CliError::failed(error.to_string()))?;
    let settings = args.model.settings()?;
    let path = super::verify::model_file(&args.model)?;
    let loaded = app::load(&settings, &path)?;
    let context = &loaded.context;
    let materials = Materials {
        engine: &context.engine,
        text: &context.text,
        people: &people,
        embeddings: &embeddings,
        static_projector: static_projector.as_ref(),
        input_aware_projector: input_aware_projector.as_ref(),
    };
    let options =
        Options { limit: args.limit, text_limit: args.text_limit, timed: 12, rounds: 2000, seed: args.seed };
    let report = users::evaluate(&materials, &options, &mut |line| eprintln!("{line}")).map_err(failed)?;
    report.write(&args.out).map_err(failed)?;
    print!("{}", report.table());
    println!("{}", args.out.join("report.html").display());
    Ok(())
}

fn projector(path: Option<&Path>, form: Form) -> Result<Option<Projector>, CliError> {
    let Some(path) = path else { return Ok(None) };
    let projector = embed::projector(path)?;
    match projector.form() == form {
        true => Ok(Some(projector)),
        false => {
            let (given, expected) = (projector.form().name(), form.name());
            Err(CliError::bad_file(format!("{}: its form is {given}; expected {expected}", path.display())))
        }
    }
}

fn failed(error: EvaluationError) -> CliError {
    match error {
        EvaluationError::People(_) | EvaluationError::Projector(_) => CliError::bad_file(error.to_string()),
        _ => CliError::failed(error.to_string()),
    }
}
