//! What the repository promises about itself: ranks of rooms, dependencies, files its documents name, shipped data.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rank table of ARCHITECTURE.md: a file uses rooms of a lower rank only.
const RANKS: &[(&str, u32)] = &[
    ("limits", 0),
    ("digest", 0),
    ("statistics", 0),
    ("algebra", 0),
    ("format", 0),
    ("shipped", 0),
    ("names", 0),
    ("sync", 0),
    ("config", 1),
    ("kernels", 1),
    ("report", 1),
    ("store", 1),
    ("weights", 1),
    ("jobs", 2),
    ("text", 2),
    ("constraint", 3),
    ("encoder", 3),
    ("model", 3),
    ("engine", 4),
    ("verify", 4),
    ("speed", 5),
    ("steering", 5),
    ("users", 5),
    ("persona", 6),
    ("alignment", 7),
    ("probe", 7),
    ("evaluation", 8),
    ("server", 9),
    ("app", 10),
    ("fuzz", 10),
    ("cli", 11),
    ("main", 12),
];

fn rank(room: &str) -> u32 {
    RANKS.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("room `{room}` has no rank")).1
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder exists") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Rooms named after `crate::` in a file, `crate::{a, b}` included.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| -> String {
            text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
        };
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = &group[..group.find("};").unwrap_or(group.len())];
                let mut depth = 0;
                let mut start = true;
                for (i, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && !c.is_whitespace() => {
                            rooms.insert(word(&group[i..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
            None => {
                rooms.insert(word(rest));
            }
        }
    }
    rooms
}

#[test]
fn files_use_rooms_of_a_lower_rank_only() {
    let source = root().join("src");
    let mut found = 0;
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).expect("below it");
        let room =
            relative.components().next().expect("a name").as_os_str().to_string_lossy().replace(".rs", "");
        if room == "lib" {
            continue;
        }
        let code = fs::read_to_string(&file).expect("text");
        for used in rooms_used(&code).into_iter().filter(|used| *used != room) {
            found += 1;
            assert!(
                rank(&used) < rank(&room),
                "{} (rank {}) uses `{used}` (rank {})",
                relative.display(),
                rank(&room),
                rank(&used)
            );
            let hidden = ["weights", "model", "kernels"].contains(&used.as_str());
            assert!(!(room == "server" && hidden), "{}: server names no `{used}`", relative.display());
        }
    }
    assert!(found > 20, "the test reads the sources");
}

#[test]
fn unsafe_stands_in_kernels_and_the_memory_map_only() {
    let source = root().join("src");
    for file in rust_files(&source) {
        let name = file.strip_prefix(&source).expect("below it").to_string_lossy().replace('\\', "/");
        let code = fs::read_to_string(&file).expect("text");
        let code_lines = || code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let uses = code_lines().any(|line| line.contains("unsafe "));
        let relies = code_lines().any(|line| line.contains("unsafe {") || line.contains("unsafe impl"));
        if uses {
            assert!(name.starts_with("kernels/") || name.starts_with("weights/"), "{name} contains `unsafe`");
            assert!(!relies || code.contains("SAFETY"), "{name} says why its `unsafe` is sound");
        }
    }
}

/// Licences that a binary under MIT OR Apache-2.0 may carry.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unlicense",
    "Unicode-3.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "BSL-1.0",
    "MIT-0",
];

/// Versions known to carry a fix that matters here.
const FLOORS: &[(&str, [u64; 3])] =
    &[("bytes", [1, 11, 1]), ("memmap2", [0, 9, 11]), ("zip", [2, 3, 0]), ("tokio", [1, 44, 2])];

/// Crates that may never come in: HTTP/2, OpenSSL, pickle readers.
const FORBIDDEN: &[&str] = &["h2", "openssl-sys", "onig_sys", "serde-pickle"];

/// Crates in more than one version, each with who holds the older one.
const DUPLICATES: &[(&str, &str)] = &[
    ("base64", "a character table of tokenizers beside ours"),
    ("getrandom", "ring, for TLS to the hub"),
    ("hashbrown", "safetensors beside indexmap"),
    ("rand", "candle beside proptest, which is not in the binary"),
    ("rand_core", "candle beside proptest, which is not in the binary"),
    ("syn", "macros at build time, not in the binary"),
];

#[test]
fn dependencies_are_licensed_current_and_few() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("a list") {
        let (name, version) =
            (package["name"].as_str().expect("text"), package["version"].as_str().expect("text"));
        versions.entry(name.to_owned()).or_default().insert(version.to_owned());
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(licence_fits(licence), "{name} {version} is under `{licence}`");
        assert!(!FORBIDDEN.contains(&name), "{name} must not come in");
        if let Some((_, floor)) = FLOORS.iter().find(|(floor, _)| *floor == name) {
            assert!(numbers(version) >= *floor, "{name} {version} is below {floor:?}");
        }
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        assert!(
            DUPLICATES.iter().any(|(known, _)| known == name),
            "{name} comes in versions {versions:?}; unify them or name the reason in this test"
        );
    }
}

fn licence_fits(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
    !expression.is_empty()
        && expression.split(" AND ").all(|part| part.split(" OR ").any(|one| LICENCES.contains(&one.trim())))
}

fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

#[test]
fn files_named_in_the_documents_exist() {
    let mut named = 0;
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root().join(document)).expect("it exists");
        for word in text.split(['`', '(', ')', ' ', '\n']) {
            let word = word.trim_end_matches([',', '.', ';', ':']);
            let local = ["src/", "tests/", "models/", "scripts/", "benches/", ".ci/"]
                .iter()
                .any(|top| word.starts_with(top));
            if local && !word.contains(['*', '<', '{']) {
                named += 1;
                assert!(root().join(word).exists(), "{document} names `{word}`, which does not exist");
            }
        }
    }
    assert!(named > 10, "the documents name files");
}

#[test]
fn every_file_says_its_purpose_first() {
    for folder in ["src", "tests", "benches"] {
        for file in rust_files(&root().join(folder)) {
            let code = fs::read_to_string(&file).expect("text");
            assert!(code.starts_with("//! "), "{} begins with its purpose", file.display());
        }
    }
}
