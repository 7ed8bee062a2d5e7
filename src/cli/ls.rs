//! `demeanor ls`: the models of the catalogue, and other model files that are on disk.

use crate::weights::Fetcher;
use std::fs;
use std::path::Path;

/// Prints one line per model: name, size, where it is.
pub fn ls() -> anyhow::Result<()> {
    let fetcher = Fetcher::from_environment()?;
    print!("{}", table(&fetcher)?);
    Ok(())
}

/// The lines of the list, with columns in line.
fn table(fetcher: &Fetcher) -> anyhow::Result<String> {
    let mut rows = vec![["NAME", "SIZE", "TYPE", "CONTEXT", "LICENCE", "ON DISK"].map(String::from)];
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
    for (name, path) in fetcher.cache.list().into_iter().filter(|(_, path)| !shown.contains(path)) {
        let unknown = || "-".to_owned();
        rows.push([name, size(&path), unknown(), unknown(), unknown(), path.display().to_string()]);
    }
    Ok(aligned(&rows))
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
        let table = table(&fetcher);
        fs::remove_dir_all(&folder).unwrap();
        let table = table.unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].starts_with("smollm2-135m-instruct  98 MB  Q4_1  8192"), "{table}");
        assert!(lines[1].ends_with("Apache-2.0  -"), "{table}");
        let other = lines.iter().find(|line| line.starts_with("hf:org/repo/x.gguf ")).unwrap();
        assert!(other.ends_with("snapshots/main/x.gguf") && other.contains("0 MB"), "{table}");
    }
}
