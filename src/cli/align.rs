//! `demeanor align`: a persona from a person's answers to an inventory.

use super::target::Place;
use super::{CliError, Outcome, progress};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Make a persona that leans as a person's answers to a questionnaire do
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor align --answers ada.json --name ada --inventory ipip-neo-120\n\nThe file holds what the person ticked, from 1 (very inaccurate) to 5 (very accurate): an array with one number per item, 0 for a missing answer, or a map from item number to answer. The first use of a model and inventory measures the model for a minute or two. There must be no persona NAME yet. Its vector is NAME.alignment; one that an earlier alignment left is replaced, any other is in the way."
)]
pub struct AlignArgs {
    /// JSON file of answers
    #[arg(long)]
    pub answers: PathBuf,
    /// Name of the persona
    #[arg(long)]
    pub name: String,
    /// Name of a shipped inventory, or an inventory file
    #[arg(long, default_value = "ipip-neo-300")]
    pub inventory: String,
    /// ridge: gradients of the items; pas: the published activation search
    #[arg(long, default_value = "ridge", value_parser = ["ridge", "pas"])]
    pub algorithm: String,
    /// honest: what is known of the person decides; paper: as published, for comparison only (pas)
    #[arg(long, default_value = "honest", value_parser = ["honest", "paper"])]
    pub protocol: String,
    /// System text of the persona
    #[arg(long)]
    pub system: Option<String>,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

pub fn align(args: &AlignArgs) -> Outcome {
    let answers = read_json(&args.answers)?;
    let is_file = args.inventory.ends_with(".json") || Path::new(&args.inventory).is_file();
    let inventory = match is_file {
        true => read_json(Path::new(&args.inventory))?,
        false => json!(args.inventory),
    };
    let body = json!({
        "name": args.name, "inventory": inventory, "answers": answers, "algorithm": args.algorithm,
        "protocol": args.protocol, "system": args.system,
    });
    let curl = format!(
        "-H 'content-type: application/json' URL/v1/align -d '{{\"name\":\"{}\",\"inventory\":\"{}\",\"answers\":[...]}}'",
        args.name, args.inventory
    );
    let target = args.place.open(&curl)?;
    let job = target.client.json("POST", "/v1/align", Some(&body), &[])?["job"].clone();
    let result = progress::follow_remote(&target.client, job)?;
    if args.json {
        println!("{result}");
    } else {
        print(&result);
    }
    Ok(())
}

fn read_json(path: &Path) -> Result<Value, CliError> {
    let bad = |error: &dyn std::fmt::Display| CliError::bad_file(format!("`{}`: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| bad(&error))?;
    serde_json::from_str(&text).map_err(|error| bad(&error))
}

fn print(result: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    println!(
        "persona {}@{}, {} from {} answers, unprobed",
        text(&result["persona"]),
        result["version"],
        text(&result["algorithm"]),
        result["answered"]
    );
    for point in result["curve"].as_array().into_iter().flatten() {
        println!("  strength {:<4} distance to the answers {}", point["coefficient"], point["score"]);
    }
    let domains = &result["domains"];
    for domain in ["O", "C", "E", "A", "N"] {
        let of = |whose: &str| &domains[whose][domain];
        println!("  {domain}: person {}, model {} -> {}", of("person")["mean"], of("before"), of("after"));
    }
    for warning in result["warnings"].as_array().into_iter().flatten() {
        eprintln!("warning: {}", text(warning));
    }
}
