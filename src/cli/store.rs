//! `demeanor store`: copy and check a data folder, also while a server works in it.

use super::serve::default_data_dir;
use super::{CliError, Outcome};
use crate::store::{self, Checked};
use serde_json::json;
use std::path::PathBuf;

/// Back up or check the data folder
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor store backup people.db\n  demeanor store check\n\nA backup is one file with everything: personas, users, histories, soft prompts, vectors, reports. To restore it,\n\
    put it as `state.db` into an empty folder and name that by --data-dir:\n  mkdir restored && cp people.db restored/state.db && demeanor serve --data-dir restored\n\nA backup holds people's data: keep it as long as you may, and delete it when they ask."
)]
pub struct StoreArgs {
    #[command(subcommand)]
    pub action: Action,
    /// The data folder; default: demeanor in the XDG data folder
    #[arg(long, env = "DEMEANOR_DATA_DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// One JSON object on stdout
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(clap::Subcommand, Clone, Debug)]
pub enum Action {
    /// Write everything to one file, which must not exist yet
    Backup { file: PathBuf },
    /// Read everything once: structure, references, checksums
    Check,
}

pub fn store(args: &StoreArgs) -> Outcome {
    let data_dir = args.data_dir.clone().unwrap_or_else(default_data_dir);
    let (checked, what) = match &args.action {
        Action::Backup { file } => (store::backup(&data_dir, file)?, file.display().to_string()),
        Action::Check => (store::check(&data_dir)?, data_dir.display().to_string()),
    };
    if args.json {
        let text = serde_json::to_string(&json!({"path": what, "contents": checked}))
            .map_err(|error| CliError::failed(error.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    let Checked { schema, personas, users, items, soft_prompts, vectors, blobs } = checked;
    println!(
        "{what}: ok, schema {schema}: {personas} personas, {users} users with {items} items, {soft_prompts} soft \
         prompts, {vectors} vectors in {blobs} blobs"
    );
    Ok(())
}
