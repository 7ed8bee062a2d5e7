//! Limits that a process sets on itself before it reads what a stranger made.

use crate::limits::VERIFY_SPACE_BYTES;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::path::Path;

/// Limits this process: memory that it may write to, address space (that much, and what is mapped: the program, the files
/// at `path`), seconds of the processor, no core dump. A system that knows one of them not (macOS does not keep the one on address
/// space) keeps the others, and whoever waits for this process has a clock of its own.
pub fn confine(path: &Path, memory_bytes: u64, cpu_seconds: u64) {
    let space = memory_bytes.saturating_add(VERIFY_SPACE_BYTES).saturating_add(mapped_bytes(path));
    for (resource, most) in [
        (Resource::Data, memory_bytes),
        (Resource::As, space),
        (Resource::Cpu, cpu_seconds),
        (Resource::Core, 0),
    ] {
        let hard = getrlimit(resource).maximum;
        // Above the first number there is a signal that says why; at the second the process is gone.
        let (current, maximum) = (most, most.saturating_add(u64::from(resource == Resource::Cpu)));
        let [current, maximum] = [current, maximum].map(|most| hard.map_or(most, |hard| hard.min(most)));
        let _ = setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) });
    }
}

/// Bytes of the files that reading a model maps: one file, or the shards of a folder.
fn mapped_bytes(path: &Path) -> u64 {
    let size = |path: &Path| fs::metadata(path).map_or(0, |data| data.len());
    if !path.is_dir() {
        return size(path);
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let shards = entries.filter(|path| path.extension().is_some_and(|kind| kind == "safetensors"));
    shards.map(|shard| size(&shard)).fold(0, u64::saturating_add)
}
