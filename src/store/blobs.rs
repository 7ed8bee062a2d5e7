//! Large content as files named by their sha256: seen whole or not at all, checked on every read.

use super::error::StoreError;
use super::rows;
use crate::digest::Digest;
use crate::limits;
use crate::sync::lock;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// `DATA/blobs/ab/<sha256>`. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    folder: PathBuf,
    /// How many hold each blob that a row may not name yet: the collector leaves them alone.
    pins: Arc<Mutex<BTreeMap<Digest, usize>>>,
}

/// A blob that stays while this lives, whether a row names it or not.
pub struct PinnedBlob {
    pub digest: Digest,
    /// Bytes of the content.
    pub bytes: u64,
    pins: Arc<Mutex<BTreeMap<Digest, usize>>>,
}

impl Drop for PinnedBlob {
    fn drop(&mut self) {
        let mut pins = lock(&self.pins);
        match pins.get_mut(&self.digest) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(pins.remove(&self.digest)),
        }
    }
}

impl Blobs {
    pub fn open(data_dir: &Path) -> Result<Blobs, StoreError> {
        let folder = data_dir.join("blobs");
        make_folder(&folder)?;
        Ok(Blobs { folder, pins: Arc::default() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.folder.join(&name[..2]).join(&name)
    }

    /// Writes the content unless it is there, and returns when it is on disk under its name.
    pub fn put(&self, content: &[u8]) -> Result<PinnedBlob, StoreError> {
        let bytes = content.len() as u64;
        if bytes > limits::BLOB_BYTES_MAX {
            return Err(StoreError::TooMany {
                what: "bytes of one blob",
                given: bytes,
                max: limits::BLOB_BYTES_MAX,
            });
        }
        let digest = Digest::of(content);
        // First the pin: the collector, which removes under the same lock, cannot come between.
        *lock(&self.pins).entry(digest).or_insert(0) += 1;
        let pinned = PinnedBlob { digest, bytes, pins: self.pins.clone() };
        let path = self.path(&digest);
        // What is there is compared: a damaged file is written anew.
        if !fs::read(&path).is_ok_and(|found| found == content) {
            write(&path, content)?;
        }
        Ok(pinned)
    }

    /// The content, checked against its name; `None` where there is none.
    pub fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &path, &error)),
        };
        let mut content = Vec::new();
        file.take(limits::BLOB_BYTES_MAX + 1)
            .read_to_end(&mut content)
            .map_err(|error| StoreError::io("read", &path, &error))?;
        let found = Digest::of(&content);
        if found != *digest {
            let detail = format!("its sha256 is {found}");
            return Err(StoreError::corrupt(path.display().to_string(), detail));
        }
        Ok(Some(content))
    }

    /// The content that a row of the database names.
    pub fn named(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.get(&rows::digest(name)?)?
            .ok_or_else(|| StoreError::corrupt(format!("blob {name}"), "its file is missing"))
    }

    /// Unlinks a blob that no row names any more, unless somebody is about to name it.
    pub fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        let pins = lock(&self.pins);
        if pins.contains_key(digest) {
            return Ok(false);
        }
        remove_file(&self.path(digest))
    }

    pub fn is_pinned(&self, digest: &Digest) -> bool {
        lock(&self.pins).contains_key(digest)
    }

    /// Every file of the folder: blobs, and what an interrupted write left.
    pub fn files(&self) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        for folder in entries(&self.folder)? {
            if !folder.is_dir() {
                continue;
            }
            for path in entries(&folder)? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                match Digest::parse(name) {
                    Some(digest) => found.push(Found::Blob(digest)),
                    None if name.ends_with(PART) => found.push(Found::Part(path)),
                    None => {}
                }
            }
        }
        Ok(found)
    }
}

/// A file in the folder of blobs.
pub enum Found {
    Blob(Digest),
    /// The temporary file of a write that was interrupted.
    Part(PathBuf),
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |error: &std::io::Error| StoreError::io("list", folder, error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(&error))? {
        paths.push(entry.map_err(|error| failed(&error))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// End of a temporary file's name.
const PART: &str = ".part";

/// Temporary file in the same folder, sync, rename, sync of the folder.
fn write(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.is_dir() {
        make_folder(folder)?;
        sync_folder(folder.parent().unwrap_or(Path::new(".")))?;
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let part = folder.join(format!("{}-{number}{PART}", std::process::id()));
    let create = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let written = create().and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&part, path))
        .inspect_err(|_| drop(fs::remove_file(&part)))
        .map_err(|error| StoreError::io("write", path, &error))?;
    sync_folder(folder)
}

pub fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|error| StoreError::io("sync", folder, &error))
}

/// Makes a folder that only its owner may read; one that is there stays as it is.
pub fn make_folder(folder: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| StoreError::io("make", folder, &error))
}

/// Removes a file; whether it was there.
pub fn remove_file(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("remove", path, &error)),
    }
}

/// Makes a file readable by its owner only.
pub fn protect(path: &Path) -> Result<(), StoreError> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|error| StoreError::io("protect", path, &error))
}
