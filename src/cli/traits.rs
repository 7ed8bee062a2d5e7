//! `demeanor traits`: what ships, and whether it does what it says on a model.

use super::serve::ModelArgs;
use super::vectors::failed;
use super::{CliError, Outcome};
use crate::app;
use crate::steering::{CheckOptions, Trait, check_traits};
use serde_json::json;

/// List the steering traits, or measure them on a model
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor traits --check warm formal\n\nMeasures held-out contrasts that extraction never saw: log-odds at \
    coefficients 1 and -1, perplexity, a sign-shuffled control of equal dose. Minutes for all traits."
)]
pub struct TraitsArgs {
    /// Traits to measure; all without any
    pub names: Vec<String>,
    /// Measure instead of listing
    #[arg(long)]
    pub check: bool,
    /// How often each held-out wording is used, with another prompt and topic each
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=20))]
    pub rounds: u64,
    /// Leave the sample answers out
    #[arg(long)]
    pub no_samples: bool,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

pub fn traits(args: &TraitsArgs) -> Outcome {
    if !args.check {
        return list(args.json);
    }
    let settings = args.model.settings()?;
    let path = super::verify::model_file(&args.model)?;
    let loaded = app::load(&settings, &path)?;
    let context = &loaded.context;
    let options = CheckOptions { rounds: args.rounds as usize, samples: !args.no_samples };
    let progress = |message: &str| {
        // One line per stage, not per reply.
        if !message.contains(": reply ") {
            eprintln!("{message}");
        }
    };
    let report = check_traits(context.engine.clone(), context.text.clone(), &args.names, options, &progress)
        .map_err(failed)?;
    if args.json {
        let text = serde_json::to_string(&report).map_err(|error| CliError::failed(error.to_string()))?;
        println!("{text}");
    } else {
        print!("{report}");
    }
    Ok(())
}

fn list(as_json: bool) -> Outcome {
    let traits = Trait::shipped().map_err(failed)?;
    if as_json {
        let list: Vec<_> = traits
            .iter()
            .map(|one| {
                json!({
                    "name": one.name, "opposite": one.opposite, "description": one.description,
                    "harmful": one.harmful,
                })
            })
            .collect();
        println!("{}", serde_json::Value::from(list));
        return Ok(());
    }
    for one in &traits {
        let negative = one.harmful.as_ref().map(|pole| format!(" (negative: `{pole}` stands for harm)"));
        let negative = negative.unwrap_or_default();
        println!("{:<12} {:<12} {}{negative}", one.name, one.opposite, one.description);
    }
    Ok(())
}
