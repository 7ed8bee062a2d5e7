//! `demeanor eval papi`: does alignment bring the model nearer to a person? Answers of real people to the IPIP-NEO-300.

use crate::cli::serve::ModelArgs;
use crate::cli::{CliError, Outcome};
use crate::evaluation::papi::{self, Data, Options, PapiError};
use std::path::PathBuf;

/// Does alignment bring the model nearer to a person? 180 answers of real people, predicted from 120 others
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  demeanor eval papi --data papi --people 60 --out evaluation\n\n\
                  Writes results.jsonl, summary.json and report.html; a run that was cut off goes on where it stopped.")]
pub struct PapiArgs {
    /// Folder with items_300.csv and subjects_001_150.json
    #[arg(long)]
    pub data: PathBuf,
    /// People 1 to N are reported on, at most 60
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub people: usize,
    /// The first so many of them with PAS
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub pas_people: usize,
    /// The first so many of them with forty of their answers as text
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub few_shot_people: usize,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder of the run
    #[arg(long, required_unless_present = "check")]
    pub out: Option<PathBuf>,
    /// Only load and print counts, checksums, data checks, baselines and the predicted time
    #[arg(long)]
    pub check: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

pub fn papi(args: &PapiArgs) -> Outcome {
    let data = Data::load(&args.data).map_err(failed)?;
    let options = Options {
        people: args.people,
        pas_people: args.pas_people.min(args.people),
        few_shot_people: args.few_shot_people.min(args.people),
        rounds: 10_000,
        seed: args.seed,
    };
    if args.check {
        print!("{}", papi::check(&data, &options).map_err(failed)?);
        return Ok(());
    }
    Err(CliError::failed("not built yet"))
}

fn failed(error: PapiError) -> CliError {
    match error {
        PapiError::Data { .. } | PapiError::Results { .. } => CliError::bad_file(error.to_string()),
        _ => CliError::failed(error.to_string()),
    }
}
