//! Outside data of every kind, changed at random: the corpus of the fuzz targets and some thousand changes of it each run.
//!
//! The changes come from a seed, so that a failure can be repeated; `scripts/fuzz.sh` searches longer, with coverage.

use demeanor::fuzz::{TARGETS, Target};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Changed inputs of one target.
const ROUNDS: usize = 1000;
/// Bytes of a changed input.
const BYTES_MAX: usize = 64 << 10;
/// What parsers of lengths, numbers and brackets stumble over.
const WORDS: [&[u8]; 20] = [
    b"\0",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0\x01\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"null",
    b"[[[[[[[[",
    b"{\"a\":",
    b"\"",
    b"\\ud800",
    b"\\",
    b"{{",
    b"{%",
    b"(?:",
    b"*",
    b"\xc3\xa9",
    b"<|im_end|>",
    b"\n",
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// File names in a folder without their extensions.
fn stems(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    entries.filter_map(|entry| stem(entry.ok()?.path())).collect()
}

/// The corpus of a target, by file name.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(target.name);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), fs::read(path).expect("readable"))).collect()
}

/// Numbers from a seed (an LCG with its high bits mixed), the same on every machine.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) ^ (self.0 >> 17)) as usize % end.max(1)
    }

    /// A part of something of this length.
    fn part(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        start..start + self.below((len - start).min(64) + 1)
    }
}

/// One to four small changes.
fn changed(numbers: &mut Numbers, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        match numbers.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            1 if at < bytes.len() => bytes[at] = numbers.below(256) as u8,
            2 => drop(bytes.drain(numbers.part(bytes.len()))),
            3 => drop(bytes.splice(at..at, WORDS[numbers.below(WORDS.len())].iter().copied())),
            4 => drop(bytes.splice(at..at, other[numbers.part(other.len())].iter().copied())),
            5 => {
                let twice = bytes[numbers.part(bytes.len())].to_vec();
                bytes.splice(at..at, twice);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

/// Every kind has its file, its binary and its corpus.
#[test]
fn targets_are_the_same_everywhere() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(stems(&fuzz().join("fuzz_targets")), names);
    assert_eq!(stems(&fuzz().join("corpus")), names);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("it exists");
    let binaries = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
    assert_eq!(
        binaries.map(|rest| rest.trim_end_matches(".rs\"").to_owned()).collect::<BTreeSet<_>>(),
        names
    );
}

/// Each corpus has something in it that is taken and something that is not, or changes would never get past the first
/// check.
#[test]
fn each_corpus_is_taken() {
    for target in TARGETS {
        let taken = corpus(&target).iter().filter(|(_, bytes)| (target.read)(bytes)).count();
        assert!(taken > 0, "{}: nothing in its corpus is taken", target.name);
    }
}

#[test]
fn changed_inputs_keep_every_promise() {
    let seed = std::env::var("DEMEANOR_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for target in TARGETS {
        let corpus = corpus(&target);
        let mut numbers = Numbers(seed);
        for round in 0..ROUNDS {
            let [first, second] = [0, 1].map(|_| numbers.below(corpus.len()));
            let bytes = changed(&mut numbers, &corpus[first].1, &corpus[second].1);
            let run = std::panic::catch_unwind(|| (target.read)(&bytes));
            if run.is_err() {
                let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name));
                fs::write(&kept, &bytes).expect("writable");
                panic!("{}: round {round} of seed {seed} breaks it; input: {}", target.name, kept.display());
            }
        }
    }
}
