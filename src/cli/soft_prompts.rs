//! `demeanor embed import` and `export`: named soft prompts as PEFT adapters or safetensors files.

use super::client::segment;
use super::serve::ModelArgs;
use super::target::Target;
use super::{CliError, Outcome};
use crate::limits;
use crate::users::formats::{ADAPTER, CONFIG};
use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// Store a soft prompt under a name: a PEFT adapter's folder or a safetensors file of one tensor [rows, d_model]
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  demeanor embed import my_adapter/ --name poet\n\n\
    Works on the data folder, with the model loaded for it; --server asks a running server instead.")]
pub struct ImportArgs {
    /// Folder with adapter_config.json and adapter_model.safetensors, or a safetensors file
    pub path: PathBuf,
    #[arg(long)]
    pub name: String,
    /// Put it in the place of one with this name
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub place: Place,
}

/// Write a named soft prompt to a folder (peft) or file (safetensors)
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  demeanor embed export poet --format peft --out my_adapter/")]
pub struct ExportArgs {
    pub name: String,
    /// peft: a folder that PEFT loads; safetensors: one file
    #[arg(long, default_value = "peft", value_parser = ["peft", "safetensors"])]
    pub format: String,
    #[arg(long)]
    pub out: PathBuf,
    #[command(flatten)]
    pub place: Place,
}

/// Who is asked.
#[derive(clap::Args, Clone, Debug)]
pub struct Place {
    /// A running server to ask, e.g. http://127.0.0.1:8080; default: the data folder itself
    #[arg(long, env = "DEMEANOR_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// Key for that server
    #[arg(long, env = "DEMEANOR_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    #[command(flatten)]
    pub model: ModelArgs,
}

impl Place {
    pub fn open(&self) -> Result<Target, CliError> {
        Target::open(self.server.as_deref(), self.api_key.clone(), &self.model)
    }
}

/// Sends the file and its configuration, and prints what was stored.
pub fn import(args: &ImportArgs) -> Outcome {
    let is_folder = args.path.is_dir();
    let file = if is_folder { args.path.join(ADAPTER) } else { args.path.clone() };
    let file = read(&file)?;
    let config = if is_folder { Some(read(&args.path.join(CONFIG))?) } else { None };
    let mut parts = vec![("name", args.name.as_bytes()), ("file", &file[..])];
    parts.extend(config.as_deref().map(|config| ("config", config)));
    if args.replace {
        parts.push(("replace", b"true"));
    }
    let target = args.place.open()?;
    println!("{}", target.client.upload("/v1/soft_prompts", &parts)?);
    Ok(())
}

/// Writes the folder or file; what is there is replaced.
pub fn export(args: &ExportArgs) -> Outcome {
    let target = args.place.open()?;
    let path = format!("/v1/soft_prompts/{}/file?format={}", segment(&args.name), args.format);
    let bytes = target.client.call("GET", &path, None, &[])?;
    if args.format == "safetensors" {
        return super::write(&args.out, &bytes);
    }
    let broken =
        |error: &dyn std::fmt::Display| CliError::failed(format!("the answer is no adapter: {error}"));
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken(&error))?;
    let folder = &args.out;
    fs::create_dir_all(folder)
        .map_err(|error| CliError::failed(format!("cannot create `{}`: {error}", folder.display())))?;
    for name in [CONFIG, ADAPTER] {
        let mut content = Vec::new();
        let member = archive.by_name(name).map_err(|error| broken(&error))?;
        let mut member = member.take(limits::SOFT_PROMPT_FILE_BYTES_MAX as u64);
        member.read_to_end(&mut content).map_err(|error| broken(&error))?;
        super::write(&folder.join(name), &content)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |error| CliError::bad_file(format!("cannot read `{}`: {error}", path.display()));
    let most = limits::SOFT_PROMPT_FILE_BYTES_MAX as u64;
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > most {
        true => Err(CliError::bad_file(format!("`{}` has more than {most} bytes", path.display()))),
        false => Ok(bytes),
    }
}
