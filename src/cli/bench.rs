//! `demeanor bench`: how fast this build runs a model on this machine.

use super::serve::ModelArgs;
use super::{CliError, Outcome};
use crate::app;
use crate::config::Settings;
use crate::speed::{self, Report, SpeedOptions, Spread};
use serde_json::json;
use std::time::Instant;

/// Measure prefill, decode, batches and the cost of steering on this machine
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor bench --json > speed.json\n\nA figure means something only beside another of the same \
    machine and hour: run two builds or two models in turn. scripts/side_by_side.py does so with llama-server."
)]
pub struct BenchArgs {
    /// Tokens of the long prompt
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub prompt: u32,
    /// Tokens of each answer
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub tokens: u32,
    /// Numbers of sequences at once, with commas between
    #[arg(long, default_value = "2,4,8,16", value_delimiter = ',')]
    pub batches: Vec<usize>,
    /// Runs of each measurement; the median is shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub repeats: u64,
    /// Pairs of plain and steered runs; 0 leaves them out
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub pairs: u64,
    /// Which random prompts
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

pub fn bench(args: &BenchArgs) -> Outcome {
    // Random prompts say nothing about guesses, and a loop that an answer fell into would be taken for speed.
    let settings = Settings { draft_max: 0, ..args.model.settings()? };
    let most = settings.max_batch;
    if let Some(batch) = args.batches.iter().find(|batch| **batch == 0 || **batch > most) {
        return Err(CliError::failed(format!(
            "--batches {batch}: 1 to {most} sequences run at once; hint: --max-batch"
        )));
    }
    let path = super::verify::model_file(&args.model)?;
    let start = Instant::now();
    let loaded = app::load(&settings, &path)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let after_load = speed::resident_mib();
    let engine = &loaded.context.engine;
    let context = engine.info().context;
    if args.prompt.max(args.tokens + 32) >= context {
        return Err(CliError::failed(format!(
            "--prompt {} and --tokens {} do not fit the context of {context} positions; hint: --context",
            args.prompt, args.tokens
        )));
    }
    let options = SpeedOptions {
        prompt: args.prompt,
        tokens: args.tokens,
        batches: args.batches.clone(),
        repeats: args.repeats as usize,
        pairs: args.pairs as usize,
        seed: args.seed,
    };
    let report = speed::measure(engine, &options, &|what| eprintln!("{what}"))
        .map_err(|error| CliError::failed(error.to_string()))?;
    let info = engine.info();
    let peak = speed::resident_mib().map(|(_, most)| most.round());
    if args.json {
        let value = json!({
            "program": "demeanor", "version": env!("CARGO_PKG_VERSION"),
            "model": {
                "name": loaded.context.model, "architecture": info.architecture, "quantisation": info.quantisation,
                "parameters": info.parameters, "file_bytes": info.file_bytes,
            },
            "arithmetic": info.arithmetic, "isa": info.isa, "threads": info.threads,
            "load_seconds": crate::statistics::rounded(load_seconds, 3),
            "resident_mib": after_load.map(|(now, _)| now.round()), "resident_mib_most": peak,
            "speed": report,
        });
        println!("{value}");
        return Ok(());
    }
    println!(
        "{}: {}, {} M parameters, {}, {}, {} threads",
        loaded.context.model,
        info.quantisation,
        info.parameters / 1_000_000,
        info.arithmetic,
        info.isa,
        info.threads
    );
    let memory =
        after_load.zip(peak).map(|((now, _), most)| format!(", {now:.0} MiB resident ({most:.0} at most)"));
    println!("loaded in {load_seconds:.2} s{}\n", memory.unwrap_or_default());
    print_table(&report);
    Ok(())
}

fn print_table(report: &Report) {
    println!("{:<34} {:>10} {:>10} {:>10}", "", "median", "least", "most");
    let line = |name: &str, spread: &Spread, decimals: usize| {
        println!(
            "{name:<34} {:>10.decimals$} {:>10.decimals$} {:>10.decimals$}",
            spread.median, spread.least, spread.most
        );
    };
    line(&format!("prefill {}, tok/s", report.prompt_tokens), &report.prefill, 0);
    line("decode, tok/s", &report.decode, 1);
    for batch in &report.batches {
        line(&format!("{} sequences, tok/s together", batch.sequences), &batch.tokens_per_second, 0);
    }
    let Some(steering) = &report.steering else { return };
    let n = steering.sequences;
    if let (Some(plain), Some(steered)) = (&steering.plain_cpu_ms, &steering.steered_cpu_ms) {
        line(&format!("{n} plain, CPU ms a token"), plain, 3);
        line(&format!("{n} steered, CPU ms a token"), steered, 3);
    }
    let percent = |part: f64| 100.0 * part;
    let Spread { median, least, most } = steering.overhead;
    let overhead = Spread { median: percent(median), least: percent(least), most: percent(most) };
    line("steering and soft prompts, % more", &overhead, 2);
}
