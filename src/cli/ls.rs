//! `demeanor ls`: the models of the catalogue, and other model files that are on disk.

use super::Outcome;
use crate::weights::{Fetcher, WeightsError};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const COLUMNS: [&str; 6] = ["NAME", "SIZE", "TYPE", "CONTEXT", "LICENCE", "ON DISK"];

/// List the catalogue and the model files on disk
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  demeanor ls --json")]
pub struct Ls {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints one line per model: name, size, where it is.
pub fn ls(arguments: &Ls) -> Outcome {
    let rows = rows(&Fetcher::from_environment()?)?;
    if arguments.json {
        let keys = COLUMNS.map(|column| column.to_lowercase().replace(' ', "_"));
        let object =
            |row: &[String; 6]| keys.iter().cloned().zip(row.iter().cloned()).collect::<BTreeMap<_, _>>();
        let list: Vec<_> = rows.iter().map(object).collect();
        println!("{}", serde_json::json!(list));
    } else {
        print!("{}", table(rows));
    }
    Ok(())
}

/// The lines of the list, with columns in line.
fn table(rows: Vec<[String; 6]>) -> String {
    let head = COLUMNS.map(String::from);
    aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// One row per model.
fn rows(fetcher: &Fetcher) -> Result<Vec<[String; 6]>, WeightsError> {
    let mut rows = Vec::new();
    let mut shown = Vec::new();
    for entry in &fetcher.catalog.models {
        let path = fetcher.locate(&entry.name)?;
        rows.push([
            entry.name.clone(),
            megabytes(entry.bytes),
            entry.quantisation.clone(),
            entry.context_length.to_string(),
            entry.licence.clone(),
            path.as_deref().map_or("-".to_owned(), |path| path.display().to_string()),
        ]);
        shown.extend(path);
    }
    for entry in &fetcher.catalog.encoders {
        let path = fetcher.locate_encoder(&entry.name)?;
        rows.push([
            entry.name.clone(),
            megabytes(entry.files.iter().map(|file| file.bytes).sum()),
            "encoder".to_owned(),
            entry.context_length.to_string(),
            entry.licence.clone(),
            path.as_deref().map_or("-".to_owned(), |path| path.display().to_string()),
        ]);
    }
    for (name, path) in fetcher.cache.list().into_iter().filter(|(_, path)| !shown.contains(path)) {
        let unknown = || "-".to_owned();
        rows.push([name, size(&path), unknown(), unknown(), unknown(), path.display().to_string()]);
    }
    Ok(rows)
}

fn size(path: &Path) -> String {
    fs::metadata(path).map_or("-".to_owned(), |data| megabytes(data.len()))
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

/// Pads every column but the last to its widest cell.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
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
    use crate::weights::{Cache, Catalog, Hub, Registry};

    #[test]
    fn the_list_shows_what_is_on_disk() {
        let folder = std::env::temp_dir().join(format!("demeanor-ls-{}", std::process::id()));
        let snapshot = folder.join("models--org--repo/snapshots/main");
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(snapshot.join("x.gguf"), [0; 10]).unwrap();
        let fetcher = Fetcher {
            catalog: Catalog::shipped().unwrap(),
            cache: Cache::at(folder.clone()),
            hub: Hub::from_variables(|_| None),
            registry: Registry::default(),
        };
        let rows = rows(&fetcher);
        fs::remove_dir_all(&folder).unwrap();
        let table = table(rows.unwrap());
        let lines: Vec<&str> = table.lines().collect();
        let words: Vec<&str> = lines[1].split_whitespace().take(5).collect();
        assert_eq!(words, ["smollm2-135m-instruct", "98", "MB", "Q4_1", "8192"], "{table}");
        assert!(lines[1].ends_with("Apache-2.0  -"), "{table}");
        let other = lines.iter().find(|line| line.starts_with("hf:org/repo/x.gguf ")).unwrap();
        assert!(other.ends_with("snapshots/main/x.gguf") && other.contains("0 MB"), "{table}");
    }
}
