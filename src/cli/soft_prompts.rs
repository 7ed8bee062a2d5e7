//! `demeanor embed import` and `export`: named soft prompts as PEFT adapters or safetensors files.

use super::client::segment;
use super::target::Place;
use super::{CliError, Outcome};
use crate::limits;
use crate::users::formats::{ADAPTER, CONFIG};
use std::fs::File;
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

/// Sends the file and its configuration, and prints what was stored.
pub fn import(args: &ImportArgs) -> Outcome {
    let is_folder = args.path.is_dir();
    let path = if is_folder { args.path.join(ADAPTER) } else { args.path.clone() };
    let file = read(&path)?;
    let config_path = is_folder.then(|| args.path.join(CONFIG));
    let config = config_path.as_deref().map(read).transpose()?;
    let mut parts = vec![("name", args.name.as_bytes()), ("file", &file[..])];
    parts.extend(config.as_deref().map(|config| ("config", config)));
    if args.replace {
        parts.push(("replace", b"true"));
    }
    let with_config = config_path.map_or(String::new(), |path| format!("-F config=@{} ", path.display()));
    let curl = format!("-F file=@{} {with_config}-F name={} URL/v1/soft_prompts", path.display(), args.name);
    let target = args.place.open(&curl)?;
    println!("{}", target.client.upload("/v1/soft_prompts", &parts)?);
    Ok(())
}

/// Writes the folder or file; what is there is replaced.
pub fn export(args: &ExportArgs) -> Outcome {
    let path = format!("/v1/soft_prompts/{}/file?format={}", segment(&args.name), args.format);
    // An adapter comes as an archive of its two files.
    let ending = if args.format == "safetensors" { "" } else { ".zip" };
    let target = args.place.open(&format!("-o {}{ending} 'URL{path}'", args.out.display()))?;
    let bytes = target.client.call("GET", &path, None, &[])?;
    if args.format == "safetensors" {
        return super::write(&args.out, &bytes);
    }
    let broken =
        |error: &dyn std::fmt::Display| CliError::failed(format!("the answer is no adapter: {error}"));
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken(&error))?;
    let folder = &args.out;
    super::make_folder(folder)?;
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
