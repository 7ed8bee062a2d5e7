//! Lists every text file and every tensor file under `models/` so that the library carries it: one more trait, catalogue
//! entry or projector is one more file and no Rust.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("models");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let (binaries, texts): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| file.extension().is_some_and(|kind| kind == "safetensors"));
    write_list("shipped.rs", "include_str", &root, &texts);
    write_list("shipped_binaries.rs", "include_bytes", &root, &binaries);
}

/// A list of `(path under models/, content)` as Rust source.
fn write_list(name: &str, include: &str, root: &Path, files: &[PathBuf]) {
    let mut code = String::from("&[\n");
    for file in files {
        let path = file.strip_prefix(root).expect("found below it").to_string_lossy().replace('\\', "/");
        code.push_str(&format!("    ({path:?}, {include}!({:?})),\n", file.display().to_string()));
    }
    code.push(']');
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo")).join(name);
    fs::write(out, code).expect("the output folder is writable");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    println!("cargo:rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if ["toml", "json", "jsonl", "txt", "jinja", "safetensors"]
            .iter()
            .any(|kind| path.extension().is_some_and(|e| e == *kind))
        {
            files.push(path);
        }
    }
}
