//! `demeanor eval papi`: does alignment bring the model nearer to a person? Answers of real people to the IPIP-NEO-300.

use crate::alignment::{Aligner, BaseWeights};
use crate::app;
use crate::cli::serve::ModelArgs;
use crate::cli::{CliError, Outcome};
use crate::evaluation::papi::{self, Data, Model, Options, PapiError, REPORTED_MAX, Target};
use crate::model::Reading;
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
    #[arg(long, default_value_t = REPORTED_MAX as u8, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=REPORTED_MAX as i64))]
    pub people: u8,
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
    let people = usize::from(args.people);
    let options = Options {
        people,
        pas_people: args.pas_people.min(people),
        few_shot_people: args.few_shot_people.min(people),
        rounds: 10_000,
        seed: args.seed,
    };
    if args.check {
        print!("{}", papi::check(&data, &options).map_err(failed)?);
        return Ok(());
    }
    let Some(out) = &args.out else { return Err(CliError::failed("`--out` names the folder of the run")) };
    let settings = args.model.settings()?;
    let path = crate::cli::verify::model_file(&args.model)?;
    let loaded = app::load(&settings, &path)?;
    let context = &loaded.context;
    let mut last = String::new();
    let mut told = |_, _, message: &str| {
        if message != last {
            eprintln!("{message}");
            last = message.to_owned();
        }
        Ok(())
    };
    let folder = settings.data_dir.join("alignment");
    let inventory = data.inventory.clone();
    let reading = Reading { quantize: settings.quantize, context: context.engine.info().context };
    let weights = BaseWeights { path, reading };
    let aligner = Aligner::open(&context.engine, &context.text, inventory, &weights, &folder, &mut told)
        .map_err(|error| failed(error.into()))?;
    let mut model =
        Model { engine: &context.engine, text: &context.text, aligner: &aligner, seed: args.seed };
    let target = Target {
        description: model.description(&settings.model),
        reproduce: format!(
            "demeanor eval papi --data DIR --people {} --pas-people {} --few-shot-people {} --seed {} --model {}",
            options.people, options.pas_people, options.few_shot_people, args.seed, settings.model
        ),
    };
    let report = papi::evaluate(&data, &mut model, &target, &options, out, &mut |line| eprintln!("{line}"))
        .map_err(failed)?;
    print!("{}", report.table);
    println!("{}", out.join("report.html").display());
    Ok(())
}

fn failed(error: PapiError) -> CliError {
    match error {
        PapiError::Data { .. } | PapiError::Results { .. } => CliError::bad_file(error.to_string()),
        _ => CliError::failed(error.to_string()),
    }
}
