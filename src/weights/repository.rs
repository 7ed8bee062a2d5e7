//! Models that are named by their repository on the hub: `hf:ORG/REPO/FILE`, `hf:ORG/REPO` and `hf:ORG/REPO:QUANTISATION`.
//!
//! What a name without a file means is decided over the files on disk first, so that a model that is there needs no
//! network; then over the hub's listing. Checksums are pinned by file, under `hf:ORG/REPO/FILE` whatever the name was, and
//! the digest of a whole folder under `hf:ORG/REPO`.

use super::catalog::HubSource;
use super::choice::{Choice, Listed, SETTINGS, choose, files_of, is_complete};
use super::error::{SourceFailure, WeightsError};
use super::folder::{INDEX, ONE_FILE, digest_of, shards_of};
use super::names::Part;
use super::pins;
use super::pull::{Fetcher, Progress, first_that_gives};
use crate::digest::Digest;
use crate::limits::{DOWNLOAD_BYTES_MAX, SHARD_INDEX_BYTES_MAX};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What of a repository is current.
const REVISION: &str = "main";

impl Fetcher {
    /// The file or the complete folder, if it is on disk.
    pub(super) fn locate_in_repository(&self, repository: &str, part: &Part) -> Option<PathBuf> {
        let quantisation = match part {
            Part::File(file) => {
                return self.cache.find(&super::cache::Place { repository, revision: REVISION, file });
            }
            Part::Chosen { quantisation } => quantisation.as_deref(),
        };
        let (folder, files) = self.cache.files(repository, REVISION)?;
        let files: Vec<Listed> = files.into_iter().map(|path| Listed { path, sha256: None }).collect();
        match choose(repository, quantisation, &files) {
            Ok(Choice::File(file)) => Some(folder.join(file.path)),
            Ok(Choice::Folder) => is_complete(&folder).then_some(folder),
            Err(_) => None,
        }
    }

    /// The pinned digest of what [`Fetcher::locate_in_repository`] finds.
    pub(super) fn expected_in_repository(
        &self,
        repository: &str,
        part: &Part,
    ) -> Result<Option<Digest>, WeightsError> {
        let Some(path) = self.locate_in_repository(repository, part) else { return Ok(None) };
        match self.file_of(repository, &path) {
            Some(file) => pins::find(&self.cache, &pin(repository, &file)),
            None => pins::find(&self.cache, &folder_pin(repository)),
        }
    }

    /// What is meant, checked; fetched where it is not on disk or is not what was pinned.
    pub(super) fn pull_from_repository(
        &self,
        name: &str,
        repository: &str,
        part: &Part,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, WeightsError> {
        if let Some(path) = self.locate_in_repository(repository, part)
            && self.is_as_pinned(repository, &path, progress)?
        {
            return Ok(path);
        }
        first_that_gives(name, &[part], progress, |part, progress| {
            let (choice, files) = match part {
                Part::File(file) => (Choice::File(Listed { path: file.clone(), sha256: None }), Vec::new()),
                Part::Chosen { quantisation } => {
                    let files = self.hub.files(repository, REVISION)?;
                    (choose(repository, quantisation.as_deref(), &files)?, files)
                }
            };
            match choice {
                Choice::File(file) => {
                    Ok(self.pull_listed(repository, &file, DOWNLOAD_BYTES_MAX, progress)?.0)
                }
                Choice::Folder => self.pull_folder(repository, &files, progress),
            }
        })
    }

    /// Fetches a file and pins it.
    fn pull_listed(
        &self,
        repository: &str,
        file: &Listed,
        bytes_max: u64,
        progress: &mut dyn Progress,
    ) -> Result<(PathBuf, Digest), SourceFailure> {
        let name = pin(repository, &file.path);
        let pinned = pins::find(&self.cache, &name)?;
        let source = HubSource {
            repository: repository.to_owned(),
            revision: REVISION.to_owned(),
            file: file.path.clone(),
            sha256: pinned.or(file.sha256),
        };
        let fetched = self.fetch_hub(&source, bytes_max, progress)?;
        if pinned.is_none() {
            pins::add(&self.cache, &name, &self.hub.origin(&source), fetched.1)?;
        }
        Ok(fetched)
    }

    /// Fetches settings, tokenizer and weights of a model folder, the small files first.
    fn pull_folder(
        &self,
        repository: &str,
        files: &[Listed],
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, SourceFailure> {
        let listed = |name: &str| files.iter().find(|file| file.path == name);
        for (name, bytes_max) in SETTINGS {
            if let Some(file) = listed(name) {
                self.pull_listed(repository, file, bytes_max, progress)?;
                progress.done();
            }
        }
        // Where a repository has both, the one file is read.
        let names = match (listed(ONE_FILE), listed(INDEX)) {
            (None, Some(file)) => {
                let (index, _) = self.pull_listed(repository, file, SHARD_INDEX_BYTES_MAX, progress)?;
                shards_of(&index)?.into_iter().collect()
            }
            _ => vec![ONE_FILE.to_owned()],
        };
        let mut shards = BTreeMap::new();
        for name in names {
            let missing = || WeightsError::NoModel {
                repository: repository.to_owned(),
                problem: format!("an index that lists `{name}`, but no such file"),
            };
            let file = listed(&name).ok_or_else(missing)?;
            let (_, digest) = self.pull_listed(repository, file, DOWNLOAD_BYTES_MAX, progress)?;
            progress.done();
            shards.insert(name, digest);
        }
        let changed =
            || SourceFailure::Unavailable(format!("`{repository}` changed while it was fetched; pull again"));
        let part = Part::Chosen { quantisation: None };
        let folder = self.locate_in_repository(repository, &part).ok_or_else(changed)?;
        let digest = digest_of(&folder, &shards)?;
        pins::add(
            &self.cache,
            &folder_pin(repository),
            &format!("{} for {repository}", self.hub.name()),
            digest,
        )?;
        Ok(folder)
    }

    /// Whether a file, or every file of a folder, has the sha256 that was pinned for it, if one was; wrong ones are
    /// removed.
    fn is_as_pinned(
        &self,
        repository: &str,
        path: &Path,
        progress: &mut dyn Progress,
    ) -> Result<bool, WeightsError> {
        let files = match self.file_of(repository, path) {
            Some(file) => vec![file],
            None => files_of(path)?,
        };
        let folder = self.cache.files(repository, REVISION).map(|(folder, _)| folder).unwrap_or_default();
        let mut intact = true;
        for file in files {
            let place = folder.join(&file);
            if let Some(expected) = pins::find(&self.cache, &pin(repository, &file))?
                && place.is_file()
            {
                intact &= self.is_intact(&place, expected, progress)?;
            }
        }
        Ok(intact)
    }

    /// Path of a file in its repository; `None` for the folder itself.
    fn file_of(&self, repository: &str, path: &Path) -> Option<String> {
        let (folder, _) = self.cache.files(repository, REVISION)?;
        let file = path.strip_prefix(folder).ok()?.to_str()?;
        (!file.is_empty()).then(|| file.to_owned())
    }
}

fn pin(repository: &str, file: &str) -> String {
    format!("hf:{repository}/{file}")
}

fn folder_pin(repository: &str) -> String {
    format!("hf:{repository}")
}
