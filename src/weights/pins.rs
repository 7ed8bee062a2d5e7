//! Checksums of files that the catalogue has none for: pinned at the first pull, compared ever after.

use super::cache::{Cache, write_whole};
use super::error::{WeightsError, io};
use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::PathBuf;

/// All of `.demeanor/demeanor.lock`.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Pins {
    #[serde(default, rename = "pin")]
    pins: Vec<Pin>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    /// The model's name as it is asked for.
    name: String,
    /// Where it came from, for people.
    source: String,
    sha256: String,
}

/// The checksum pinned for a name.
pub(super) fn find(cache: &Cache, name: &str) -> Result<Option<Digest>, WeightsError> {
    let path = path(cache);
    let Some(pin) = read(&path)?.pins.into_iter().find(|pin| pin.name == name) else { return Ok(None) };
    let problem =
        || WeightsError::Pins { path, problem: format!("`{}` has no sha256 of 64 hex digits", pin.name) };
    Digest::parse(&pin.sha256).map(Some).ok_or_else(problem)
}

/// Pins a checksum. Pulls of different models may do so at the same time.
pub(super) fn add(cache: &Cache, name: &str, source: &str, sha256: Digest) -> Result<(), WeightsError> {
    let lock = cache.own("locks")?.join("pins.lock");
    let guard = File::create(&lock).map_err(io("create", &lock))?;
    guard.lock().map_err(io("lock", &lock))?;
    let path = path(cache);
    let mut all = read(&path)?;
    all.pins.retain(|pin| pin.name != name);
    all.pins.push(Pin { name: name.to_owned(), source: source.to_owned(), sha256: sha256.to_string() });
    all.pins.sort_by(|first, second| first.name.cmp(&second.name));
    let text = toml::to_string(&all)
        .map_err(|error| WeightsError::Pins { path: path.clone(), problem: error.to_string() })?;
    write_whole(&path, text.as_bytes())
}

fn path(cache: &Cache) -> PathBuf {
    cache.folder().join(".demeanor").join("demeanor.lock")
}

fn read(path: &PathBuf) -> Result<Pins, WeightsError> {
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text)
            .map_err(|error| WeightsError::Pins { path: path.clone(), problem: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Pins::default()),
        Err(error) => Err(io("read", path)(error)),
    }
}
