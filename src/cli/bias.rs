//! `demeanor eval bbq` and `demeanor eval crows-pairs`: public bias benchmarks from a folder, with personas and steering.

use super::serve::ModelArgs;
use super::{CliError, Outcome};
use crate::app::{self, Loaded};
use crate::evaluation::benchmark::{BenchmarkError, BenchmarkOptions, BenchmarkReport};
use crate::evaluation::conditions::Conditions;
use crate::evaluation::{bbq, crows_pairs};
use crate::probe::{EngineScorer, Soft};
use crate::steering::SteeringRequest;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Whom does the model suspect when the text does not say? BBQ from a folder of its .jsonl files
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor eval bbq --data bbq --limit 300 --steering '1 warm' --out bbq-results\n\nWrites summary.json, answers.jsonl and report.html."
)]
pub struct BbqArgs {
    #[command(flatten)]
    pub common: BiasArgs,
}

/// Is the stereotyping sentence the likelier one? CrowS-Pairs from a folder with its CSV file
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor eval crows-pairs --data crows_pairs --persona ada --out crows-results\n\nWrites summary.json, answers.jsonl and report.html."
)]
pub struct CrowsArgs {
    #[command(flatten)]
    pub common: BiasArgs,
}

/// What both have.
#[derive(clap::Args, Clone, Debug)]
pub struct BiasArgs {
    /// Folder with the publisher's files
    #[arg(long)]
    pub data: PathBuf,
    /// Items at most, drawn by the seed
    #[arg(long)]
    pub limit: Option<usize>,
    /// Stored persona to compare with the plain model (repeatable)
    #[arg(long)]
    pub persona: Vec<String>,
    /// Steering expression to compare with the plain model; the same dose with shuffled signs runs beside it (repeatable)
    #[arg(long, allow_hyphen_values = true)]
    pub steering: Vec<String>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for the results
    #[arg(long)]
    pub out: PathBuf,
    /// The summary on stdout as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

pub fn bbq(args: &BbqArgs) -> Outcome {
    args.common.run(bbq::evaluate)
}

pub fn crows_pairs(args: &CrowsArgs) -> Outcome {
    args.common.run(crows_pairs::evaluate)
}

/// A benchmark: the scorer, the folder of its files, what is compared, how much is asked, and who is told how far it is.
type Evaluate = fn(
    &EngineScorer,
    &Path,
    &Conditions,
    &BenchmarkOptions,
    &mut dyn FnMut(&str),
) -> Result<BenchmarkReport, BenchmarkError>;

impl BiasArgs {
    fn run(&self, evaluate: Evaluate) -> Outcome {
        let (loaded, conditions) = self.conditions()?;
        let options = BenchmarkOptions { limit: self.limit, seed: self.seed };
        let scorer = loaded.context.prober.scorer();
        let report = evaluate(scorer, &self.data, &conditions, &options, &mut |line| eprintln!("{line}"))
            .map_err(|error| match error {
                BenchmarkError::Probe(_) => CliError::failed(error.to_string()),
                _ => CliError::bad_file(error.to_string()),
            })?;
        self.write(&report)
    }

    /// Loads the model and resolves what is compared.
    fn conditions(&self) -> Result<(Loaded, Conditions), CliError> {
        if !self.data.is_dir() {
            return Err(CliError::bad_file(format!(
                "--data {}: there is no such folder",
                self.data.display()
            )));
        }
        if self.limit == Some(0) {
            return Err(CliError::failed("--limit must be at least 1"));
        }
        let settings = self.model.settings()?;
        let path = super::verify::model_file(&self.model)?;
        let loaded = app::load(&settings, &path)?;
        let runtime = app::runtime(1).map_err(|error| CliError::failed(error.to_string()))?;
        let context = &loaded.context;
        let wait = Duration::from_secs_f32(settings.extract_wait_seconds);
        let plan = |request: &SteeringRequest| {
            let planned = runtime.block_on(context.library.plan(request, wait));
            planned.map(|applied| applied.edits).map_err(|error| CliError::failed(error.to_string()))
        };
        let mut conditions = Conditions::plain();
        for expression in &self.steering {
            let request = SteeringRequest::from_expression(expression, "--steering")
                .map_err(|error| CliError::failed(error.to_string()))?;
            conditions.steered(expression, &plan(&request)?, self.seed);
        }
        for name in &self.persona {
            let persona = context.personas.find(name, "--persona");
            let persona = persona.map_err(|error| CliError::failed(error.to_string()))?;
            let soft = Soft::of(&persona.spec, &context.users);
            let soft = soft.map_err(|error| CliError::failed(error.to_string()))?;
            let edits = plan(&persona.spec.steering)?;
            conditions.persona(&persona.label(), &persona.spec, &edits, soft);
        }
        Ok((loaded, conditions))
    }

    fn write(&self, report: &BenchmarkReport) -> Outcome {
        let BenchmarkReport { summary, answers, html, table } = report;
        super::make_folder(&self.out)?;
        let to = |name: &str| self.out.join(Path::new(name));
        let lines: String = answers.iter().map(|line| format!("{line}\n")).collect();
        super::write(&to("answers.jsonl"), lines)?;
        super::write(&to("summary.json"), format!("{summary:#}\n"))?;
        super::write(&to("report.html"), html)?;
        if self.json {
            println!("{summary}");
        } else {
            print!("{table}");
        }
        Ok(())
    }
}
