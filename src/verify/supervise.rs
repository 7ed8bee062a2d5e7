//! The process that checks a file, seen from the one that asked for it.

use super::Report;
use crate::limits::{VERIFY_CPU_SECONDS_MAX, VERIFY_MEMORY_BYTES_MAX, VERIFY_OUTPUT_BYTES_MAX};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a running check is looked at; it takes some tens of milliseconds.
const POLL: Duration = Duration::from_millis(1);

/// What a check may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub memory_bytes: u64,
    /// Of the processor; of the clock it may take twice as many, since a disk may be slow.
    pub seconds: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { memory_bytes: VERIFY_MEMORY_BYTES_MAX, seconds: VERIFY_CPU_SECONDS_MAX }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Nothing is known of the file.
    #[error("the check of `{}` cannot be started: {source}; hint: `--no-verify` goes on without it", path.display())]
    Start { path: PathBuf, source: std::io::Error },
    /// The file did something to whoever read it.
    #[error("`{}`: the check {what}; do not use this file unless you trust who made it{hint}", path.display())]
    Ended { path: PathBuf, what: String, hint: &'static str },
}

/// Runs `command`, which checks `path` within `bounds` and writes a [`Report`] as JSON to its standard output.
pub fn supervise(mut command: Command, path: &Path, bounds: Bounds) -> Result<Report, VerifyError> {
    let start = |source| VerifyError::Start { path: path.to_owned(), source };
    // Variables stand for flags, and some hold keys: neither is the check's.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["DEMEANOR_", "HF_", "RUST_"].iter().any(|start| name.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start)?;
    let out = child.stdout.take().map(beginning);
    let errors = child.stderr.take().map(beginning);
    let status = wait(&mut child, Duration::from_secs(bounds.seconds.saturating_mul(2))).map_err(start)?;
    let text = |reader: Option<JoinHandle<Vec<u8>>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    let (out, errors) = (text(out), text(errors));
    let ended = |what: String, hint| VerifyError::Ended { path: path.to_owned(), what, hint };
    if let Some((what, hint)) = broken(status, bounds, &String::from_utf8_lossy(&errors)) {
        return Err(ended(what, hint));
    }
    serde_json::from_slice(&out).map_err(|_| ended("gave no report".to_owned(), ""))
}

/// Waits for the process, and ends it once its time is over: then there is no status.
fn wait(child: &mut Child, most: Duration) -> std::io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() > most {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Reads the beginning of a pipe on a thread; the rest is left to whoever writes it.
fn beginning(pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.take(VERIFY_OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        bytes
    })
}

/// What went wrong with the process, and what helps where the file may be an honest one.
fn broken(status: Option<ExitStatus>, bounds: Bounds, errors: &str) -> Option<(String, &'static str)> {
    const MORE_TIME: &str = "; hint: `demeanor verify --seconds N` gives it more time";
    const MORE_MEMORY: &str = "; hint: `demeanor verify --memory-mib N` gives it more memory";
    let Some(status) = status else {
        return Some((format!("did not end within {} s", bounds.seconds.saturating_mul(2)), MORE_TIME));
    };
    let mib = bounds.memory_bytes >> 20;
    match (status.code(), status.signal()) {
        // 0 and 65: there is a report.
        (Some(0 | 65), _) => None,
        _ if errors.contains("memory allocation of") || errors.contains("failed to spawn thread") => {
            Some((format!("needed more than {mib} MiB of memory"), MORE_MEMORY))
        }
        (Some(101), _) => Some(("panicked".to_owned(), "")),
        (Some(code), _) => Some((format!("ended with status {code}"), "")),
        // SIGXCPU; and SIGKILL, which follows it.
        (None, Some(24)) => {
            Some((format!("took more than {} s of the processor", bounds.seconds), MORE_TIME))
        }
        (None, Some(9)) => Some(("was killed, perhaps for its memory".to_owned(), MORE_MEMORY)),
        (None, Some(6)) => Some(("aborted".to_owned(), "")),
        (None, signal) => Some((format!("was ended by signal {}", signal.unwrap_or(0)), "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_the_process() {
        let bounds = Bounds { memory_bytes: 64 << 20, seconds: 3 };
        // As `wait` encodes it: an exit status in the second byte, a signal in the first.
        let table = [
            (Some(0), "", None),
            (Some(65 << 8), "", None),
            (Some(101 << 8), "", Some("panicked")),
            (Some(78 << 8), "", Some("ended with status 78")),
            (Some(6), "", Some("aborted")),
            (Some(6), "memory allocation of 8 bytes failed", Some("needed more than 64 MiB of memory")),
            (Some(9), "", Some("was killed, perhaps for its memory")),
            (Some(11), "", Some("was ended by signal 11")),
            (Some(24), "", Some("took more than 3 s of the processor")),
            (None, "", Some("did not end within 6 s")),
        ];
        for (raw, errors, expected) in table {
            let status = raw.map(ExitStatus::from_raw);
            let found = broken(status, bounds, errors).map(|(what, _)| what);
            assert_eq!(found.as_deref(), expected, "{raw:?} {errors}");
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_report_comes_through_and_nothing_else() {
        let path = Path::new("x.gguf");
        let bounds = Bounds { memory_bytes: 64 << 20, seconds: 30 };
        let good = r#"echo '{"path":"x.gguf","kind":null,"model":null,"findings":[]}'"#;
        assert_eq!(supervise(shell(good), path, bounds).unwrap().path, "x.gguf");
        for (script, part) in [
            ("exit 0", "gave no report"),
            ("echo '{\"path\":1}'", "gave no report"),
            // A flood is not kept: the reader goes away and the writer ends.
            ("exec yes", "was ended by signal 13"),
            ("kill -ABRT $$", "aborted"),
        ] {
            let error = supervise(shell(script), path, bounds).unwrap_err().to_string();
            assert!(error.contains(part) && error.starts_with("`x.gguf`: "), "{script}: {error}");
        }
        let none = supervise(Command::new("/nowhere/at/all"), path, bounds).unwrap_err().to_string();
        assert!(none.contains("--no-verify"), "{none}");
    }
}
