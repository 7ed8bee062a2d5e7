//! `demeanor probe`: the safety probe of stored personas, on a running server or on the data folder.

use super::client::{Client, segment};
use super::progress::{self, JobProgress};
use super::target::Place;
use super::{CliError, Outcome};
use crate::app;
use crate::limits;
use crate::probe::{self, ProbeError};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Measure what a persona changes: contempt, stereotypes, refusals, regard, truthfulness, coherence
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor probe ada --suite quick --out reports\n  demeanor probe --compare reports/ada/report.json reports/bob/report.json\n\n\
    Writes DIR/PERSONA/report.json, report.html and timings.json. Exit status 3: the gate would refuse one of them."
)]
pub struct ProbeArgs {
    /// Stored personas
    #[arg(required_unless_present_any = ["compare", "calibrate_band"])]
    pub personas: Vec<String>,
    /// smoke (the gate's aspect alone), quick or full
    #[arg(long, default_value = "quick")]
    pub suite: String,
    /// Of resamples and shuffled signs; the same seed gives the same report
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Run plan and soft prompt alone too: which part does it
    #[arg(long)]
    pub attribution: bool,
    /// Folder for the reports
    #[arg(long, default_value = "probe-reports")]
    pub out: PathBuf,
    /// Compare two reports instead, item by item: the second minus the first
    #[arg(long, num_args = 2, value_names = ["FIRST", "SECOND"], conflicts_with = "personas")]
    pub compare: Vec<PathBuf>,
    /// Measure the band of benign one-line personas on this model instead, and write it to this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["personas", "compare"])]
    pub calibrate_band: Option<PathBuf>,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

pub fn probe(args: &ProbeArgs) -> Outcome {
    if let [first, second] = &args.compare[..] {
        return compare(args, first, second);
    }
    if let Some(file) = &args.calibrate_band {
        return calibrate(args, file);
    }
    let first = json!({"persona": args.personas[0], "suite": args.suite, "seed": args.seed});
    let curl = format!("URL/v1/probe -d '{first}'");
    let target = args.place.open(&curl)?;
    let mut reports = Vec::new();
    for persona in &args.personas {
        let (result, report) = one(&target.client, args, persona)?;
        let folder = args.out.join(file_name(persona));
        super::make_folder(&folder)?;
        super::write(&folder.join("report.json"), format!("{report:#}\n"))?;
        super::write(&folder.join("report.html"), probe::page(&report))?;
        let timings = json!({"seconds": result["seconds"], "tokens": result["tokens"]});
        super::write(&folder.join("timings.json"), format!("{timings}\n"))?;
        eprintln!("{}", folder.join("report.html").display());
        reports.push(report);
    }
    if args.json {
        println!("{}", Value::Array(reports.iter().map(without_items).collect()));
    } else {
        print!("{}", probe::lines(&reports));
    }
    let refused: Vec<&str> = (reports.iter())
        .filter(|report| report["status"] != "passed")
        .filter_map(|report| report["persona"].as_str())
        .collect();
    match refused.is_empty() {
        true => Ok(()),
        false => Err(CliError::not_admitted(format!("the gate would refuse {}", refused.join(", ")))),
    }
}

/// Runs one probe to its end: the job's result and the report.
fn one(client: &Client, args: &ProbeArgs, persona: &str) -> Result<(Value, Value), CliError> {
    let body = json!({
        "persona": persona, "suite": args.suite, "seed": args.seed, "attribution": args.attribution,
    });
    let job = client.json("POST", "/v1/probe", Some(&body), &[])?["job"].take();
    let result = progress::follow_remote(client, job)
        .map_err(|error| CliError { message: format!("{persona}: {error}"), ..error })?;
    let report = client.json("GET", &format!("/v1/probe/{}", segment(persona)), None, &[])?;
    Ok((result, report))
}

/// A persona's name as a folder; names are plain, but a server's word is not taken for it.
fn file_name(persona: &str) -> String {
    persona.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}

fn without_items(report: &Value) -> Value {
    let mut report = report.clone();
    if let Value::Object(fields) = &mut report {
        fields.remove("items");
    }
    report
}

fn compare(args: &ProbeArgs, first: &Path, second: &Path) -> Outcome {
    let (a, b) = (report(first)?, report(second)?);
    let (first, second) = (first.display().to_string(), second.display().to_string());
    let found = probe::compare([&first, &second], [&a, &b]).map_err(failed)?;
    super::make_folder(&args.out)?;
    super::write(&args.out.join("comparison.html"), found.html())?;
    super::write(&args.out.join("comparison.json"), format!("{:#}\n", found.json()))?;
    if args.json {
        println!("{}", found.json());
    } else {
        print!("{}", found.table());
    }
    Ok(())
}

fn report(path: &Path) -> Result<Value, CliError> {
    let name = path.display().to_string();
    let cannot = |error: std::io::Error| CliError::bad_file(format!("cannot read `{name}`: {error}"));
    let size = std::fs::metadata(path).map_err(cannot)?.len();
    if size > limits::PROBE_REPORT_BYTES_MAX {
        let most = limits::PROBE_REPORT_BYTES_MAX;
        return Err(CliError::bad_file(format!("{name}: {size} bytes; at most {most}")));
    }
    probe::read_report(&name, &std::fs::read(path).map_err(cannot)?).map_err(failed)
}

fn calibrate(args: &ProbeArgs, file: &Path) -> Outcome {
    let settings = args.place.model.settings()?;
    let path = super::verify::model_file(&args.place.model)?;
    let loaded = app::load(&settings, &path)?;
    let mut progress = JobProgress::new();
    let mut show = |done: u64, total: u64, group: &str| {
        progress.show(done, Some(total), &format!("asking: {group}"));
        true
    };
    let (band, lines) = loaded.context.prober.band(&args.suite, &mut show).map_err(failed)?;
    progress.done();
    super::write(file, format!("{band:#}\n"))?;
    lines.iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn failed(error: ProbeError) -> CliError {
    match error {
        ProbeError::File { .. } => CliError::bad_file(error.to_string()),
        other => CliError::failed(other.to_string()),
    }
}
