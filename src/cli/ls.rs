//! `demeanor ls`: the models of the catalogue, and what else is on disk in the Hugging Face cache and in Ollama's folder.

use super::Outcome;
use crate::limits::LISTED_MODELS_MAX;
use crate::model::Model;
use crate::text::Text;
use crate::verify;
use crate::weights::{Container, Fetcher, WeightsError};
use serde::Serialize;
use std::path::{Path, PathBuf};

const COLUMNS: [&str; 8] = ["NAME", "SIZE", "ARCHITECTURE", "TYPE", "CONTEXT", "RUNS", "LICENCE", "ON DISK"];
/// Characters of a reason in the table; `--json` has all of it.
const REASON_CHARS_MAX: usize = 60;

/// List the catalogue and the models on disk
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  demeanor ls --json\n\n\
    NAME is what --model takes. Beside the catalogue: GGUF files and model folders of the Hugging Face cache (HF_HUB_CACHE, \
    HF_HOME), and models of Ollama (OLLAMA_MODELS), which are read where they lie. RUNS says whether a model on disk can be \
    served.")]
pub struct Ls {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// One model; what is not known is left out.
#[derive(Default, Serialize)]
struct Row {
    /// What to type.
    name: String,
    bytes: Option<u64>,
    architecture: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Positions that the model was trained for.
    context: Option<u32>,
    /// Of a model on disk.
    runs: Option<bool>,
    /// Why it does not run.
    problem: Option<String>,
    licence: Option<String>,
    on_disk: Option<PathBuf>,
}

/// Prints one line per model: name, size, where it is.
pub fn ls(arguments: &Ls) -> Outcome {
    let rows = rows(&Fetcher::from_environment()?)?;
    match arguments.json {
        true => println!("{}", serde_json::json!(rows)),
        false => print!("{}", table(&rows)),
    }
    Ok(())
}

fn rows(fetcher: &Fetcher) -> Result<Vec<Row>, WeightsError> {
    let mut rows = Vec::new();
    for entry in &fetcher.catalog.models {
        let on_disk = fetcher.locate(&entry.name)?;
        let row = Row {
            name: entry.name.clone(),
            bytes: Some(entry.bytes),
            architecture: Some(entry.architecture.clone()),
            kind: Some(entry.quantisation.clone()),
            context: Some(entry.context_length),
            licence: Some(entry.licence.clone()),
            ..Row::default()
        };
        rows.push(match on_disk {
            Some(path) => Row { kind: row.kind.clone(), ..inspected(row, path) },
            None => row,
        });
    }
    for entry in &fetcher.catalog.encoders {
        rows.push(Row {
            name: entry.name.clone(),
            bytes: Some(entry.files.iter().map(|file| file.bytes).sum()),
            kind: Some("encoder".into()),
            context: Some(entry.context_length),
            licence: Some(entry.licence.clone()),
            on_disk: fetcher.locate_encoder(&entry.name)?,
            ..Row::default()
        });
    }
    for (list, place) in [(fetcher.cache.list(), "the Hugging Face cache"), (fetcher.ollama.list(), "Ollama")]
    {
        if list.len() >= LISTED_MODELS_MAX {
            eprintln!("only {LISTED_MODELS_MAX} models of {place} are listed");
        }
        for (name, path) in list {
            if !rows.iter().any(|row| row.on_disk.as_ref() == Some(&path)) {
                rows.push(inspected(Row { name, ..Row::default() }, path));
            }
        }
    }
    Ok(rows)
}

/// What a model on disk says of itself, as far as it can be read. The weights' values are not looked at.
fn inspected(row: Row, path: PathBuf) -> Row {
    let mut row = Row { bytes: bytes(&path).or(row.bytes), ..row };
    let problem = match Container::open(&path) {
        Ok(container) => {
            row.bytes = Some(container.file_bytes());
            row.kind = Some(container.quantisation().to_owned());
            row.architecture = architecture(&container).or(row.architecture);
            match Model::read_config(&container) {
                Ok(config) => {
                    row.architecture = Some(config.architecture.clone());
                    row.context = Some(config.trained_context);
                    let text = Text::from_container(&container).map_err(|error| error.to_string());
                    text.and_then(|text| verify::check_fit(&text, config.vocab_size)).err()
                }
                Err(error) => Some(error.to_string()),
            }
        }
        // The path stands in the row.
        Err(WeightsError::File { fault, .. }) => Some(fault.to_string()),
        Err(error) => Some(error.to_string()),
    };
    Row { runs: Some(problem.is_none()), problem, on_disk: Some(path), ..row }
}

/// What a container calls its architecture, whether or not it is one of ours.
fn architecture(container: &Container) -> Option<String> {
    let name = match container {
        Container::Gguf(file) => file.metadata().string("general.architecture").ok().flatten(),
        Container::Folder(folder) => folder.config().get("model_type").and_then(|kind| kind.as_str()),
    };
    name.map(|name| name.chars().take(REASON_CHARS_MAX).flat_map(char::escape_debug).collect())
}

fn bytes(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().filter(|data| data.is_file()).map(|data| data.len())
}

/// The lines of the list, with columns in line.
fn table(rows: &[Row]) -> String {
    let head = COLUMNS.map(String::from);
    aligned(&std::iter::once(head).chain(rows.iter().map(cells)).collect::<Vec<_>>())
}

fn cells(row: &Row) -> [String; 8] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let runs = match (&row.problem, row.runs) {
        (Some(problem), _) => {
            let short: String = problem.chars().take(REASON_CHARS_MAX).collect();
            let rest = if short.len() < problem.len() { "..." } else { "" };
            Some(format!("no: {short}{rest}"))
        }
        (None, runs) => runs.map(|_| "yes".into()),
    };
    [
        row.name.clone(),
        or_none(row.bytes.map(size)),
        or_none(row.architecture.clone()),
        or_none(row.kind.clone()),
        or_none(row.context.map(|context| context.to_string())),
        or_none(runs),
        or_none(row.licence.clone()),
        or_none(row.on_disk.as_ref().map(|path| path.display().to_string())),
    ]
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Pads every column but the last to its widest cell.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Cache, Catalog, Hub, Ollama, Registry};
    use std::fs;

    fn fixture(path: &str) -> Vec<u8> {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)).unwrap()
    }

    #[test]
    fn the_list_shows_what_is_on_disk_and_whether_it_runs() {
        let folder = std::env::temp_dir().join(format!("demeanor-ls-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let write = |path: &str, content: &[u8]| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let snapshot = "hub/models--org--repo/snapshots/main";
        write(&format!("{snapshot}/broken.gguf"), &[0; 2_000_000]);
        write(&format!("{snapshot}/untold.gguf"), &fixture("models/qwen3/model.gguf"));
        let safetensors = "hub/models--org--folder/snapshots/main";
        for (name, content) in [
            ("config.json", "models/qwen3/config.json"),
            ("model.safetensors", "models/qwen3/model.safetensors"),
            ("tokenizer.json", "tokenizers/qwen/tokenizer.json"),
        ] {
            write(&format!("{safetensors}/{name}"), &fixture(content));
            write(&format!("hub/models--org--wide/snapshots/main/{name}"), &fixture(content));
        }
        // The model has 288 rows: a tokenizer of bytes alone fits.
        let mut bytes: serde_json::Value =
            serde_json::from_slice(&fixture("tokenizers/qwen/tokenizer.json")).unwrap();
        let vocabulary = bytes["model"]["vocab"].as_object_mut().unwrap();
        vocabulary.retain(|_, id| id.as_u64().is_some_and(|id| id < 256));
        (bytes["model"]["merges"], bytes["added_tokens"]) = (serde_json::json!([]), serde_json::json!([]));
        write(&format!("{safetensors}/tokenizer.json"), bytes.to_string().as_bytes());
        let control = fixture("control_smollm2.gguf");
        let digest = crate::digest::Digest::of(&control);
        write(&format!("ollama/blobs/sha256-{digest}"), &control);
        let layer =
            format!(r#"{{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{digest}"}}"#);
        let manifest = format!(r#"{{"layers":[{layer}]}}"#);
        write("ollama/manifests/registry.ollama.ai/library/steer/1b", manifest.as_bytes());
        let fetcher = Fetcher {
            catalog: Catalog::shipped().unwrap(),
            cache: Cache::at(folder.join("hub")),
            hub: Hub::from_variables(|_| None),
            registry: Registry::default(),
            ollama: Ollama::at(folder.join("ollama")),
        };
        let rows = rows(&fetcher);
        fs::remove_dir_all(&folder).unwrap();
        let rows = rows.unwrap();
        let table = table(&rows);
        let cells = |name: &str| {
            let line = table.lines().find(|line| line.starts_with(&format!("{name} ")));
            let line = line.unwrap_or_else(|| panic!("{name}: {table}"));
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
        };
        let smollm = ["smollm2-135m-instruct", "98 MB", "llama", "Q4_1", "8192", "-", "Apache-2.0", "-"];
        assert_eq!(cells("smollm2-135m-instruct"), smollm);
        assert_eq!(cells("llama-3.1-8b-instruct")[1], "4.9 GB");
        let runs = |name: &str| cells(name)[1..6].to_vec();
        assert_eq!(runs("hf:org/folder"), ["0 MB", "qwen3", "BF16", "4096", "yes"], "{table}");
        let wide = "no: the tokenizer has 346 tokens, the embedding table 288 rows";
        assert_eq!(runs("hf:org/wide"), ["0 MB", "qwen3", "BF16", "4096", wide], "{table}");
        let not_gguf = r#"no: not a GGUF file: it starts with "\\x00\\x00\\x00\\x00", not ..."#;
        assert_eq!(runs("hf:org/repo/broken.gguf"), ["2 MB", "-", "-", "-", not_gguf], "{table}");
        let untold = runs("hf:org/repo/untold.gguf");
        assert_eq!(untold[1..4], ["qwen3", "F16", "4096"], "{table}");
        assert!(untold[4].starts_with("no: ") && untold[4].contains("tokenizer.ggml.model"), "{table}");
        let steer = runs("ollama:steer:1b");
        assert_eq!(steer[1], "controlvector", "{table}");
        assert!(steer[4].starts_with("no: "), "{table}");
        let row = rows.iter().find(|row| row.name == "hf:org/folder").unwrap();
        let json = serde_json::json!(row);
        assert_eq!((json["runs"].as_bool(), json["problem"].is_null()), (Some(true), true), "{json}");
        assert_eq!(json["bytes"], 161_320);
    }
}
