//! One database and its blobs: rows of bytes and JSON, no domain types. The only room that knows SQL.
//!
//! A data folder holds `state.db` (SQLite, WAL), `blobs/ab/<sha256>` (large content) and `lock`. One thread writes
//! ([`Writer`]); a few connections read. Every function blocks until its answer is true on disk, so async code calls it
//! through `spawn_blocking`. Not here: what a persona, user or vector means.

mod backup;
mod blobs;
mod connection;
mod error;
mod history;
mod jobs;
mod lock;
mod migrate;
mod personas;
mod prompt_items;
mod readers;
mod reports;
mod rows;
mod soft_prompts;
#[cfg(test)]
pub(crate) mod tests;
mod users;
mod vectors;
mod writer;

pub use backup::{Checked, backup, check};
pub use blobs::PinnedBlob;
pub use error::StoreError;
pub use history::{Added, HistoryRow, PendingItem};
pub use jobs::JobRow;
pub use personas::PersonaRow;
pub use prompt_items::PromptItemRow;
pub use reports::ReportRow;
pub use soft_prompts::SoftPromptRow;
pub use users::{Deleted, UserRow, owner as user_owner};

use crate::digest::Digest;
use crate::sync::lock;
use blobs::{Blobs, Found};
use lock::FolderLock;
use migrate::MIGRATIONS;
use readers::Readers;
use rusqlite::Connection;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use writer::{After, Writer};

/// Name of the database in the data folder.
const DATABASE: &str = "state.db";
/// There while a store is open; left behind by a process that was killed.
const OPEN_MARK: &str = "state.open";

/// Whose rows a call is about. Every function takes it first, so that none can be asked without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant(i64);

impl Tenant {
    /// The only tenant until keys have tenants.
    pub fn local() -> Tenant {
        Tenant(1)
    }
}

/// An open data folder. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// Dropped in this order: readers let go of the log, the writer empties it, the mark goes, then the lock.
struct Shared {
    readers: Readers,
    writer: Writer,
    blobs: Blobs,
    folder: PathBuf,
    mark: OpenMark,
    lock: Mutex<FolderLock>,
}

impl Store {
    /// Opens the data folder for this process alone; made when it is missing.
    pub fn open(data_dir: &Path) -> Result<Store, StoreError> {
        blobs::make_folder(data_dir)?;
        let lock = FolderLock::take(data_dir)?;
        let path = data_dir.join(DATABASE);
        let was_killed = data_dir.join(OPEN_MARK).exists();
        let connection = connection::writing(&path)?;
        migrate::schema(&connection, &path, MIGRATIONS.len() as i64)?;
        if was_killed {
            tracing::info!("the store was not closed the last time; it is being checked");
            connection::check_integrity(&connection, &path.display().to_string(), false)?;
        }
        let migrated = migrate::migrate(&connection, &path, &MIGRATIONS)?;
        let blobs = Blobs::open(data_dir)?;
        backup::unpack(&connection, &blobs)?;
        if was_killed {
            sweep(&connection, &blobs)?;
        }
        let mark = OpenMark::set(data_dir)?;
        if !migrated {
            migrate::remove_copies(&path)?;
        }
        let readers = Readers::open(&path)?;
        let writer = Writer::start(connection)?;
        let folder = data_dir.to_owned();
        let shared = Shared { readers, writer, blobs, folder, mark, lock: Mutex::new(lock) };
        Ok(Store { shared: Arc::new(shared) })
    }

    /// Tells others who find the folder locked where this process can be asked.
    pub fn announce(&self, url: &str) {
        lock(&self.shared.lock).announce(url);
    }

    /// Ends in order while clones are still about: writes that wait are done, later ones are refused.
    pub fn close(&self) {
        self.shared.writer.close();
        self.shared.mark.remove();
    }

    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Stores content under its hash. A row that shall name it must be written while the answer lives.
    pub fn put_blob(&self, content: &[u8]) -> Result<PinnedBlob, StoreError> {
        let pinned = self.shared.blobs.put(content)?;
        let (name, bytes) = (pinned.digest.to_string(), pinned.bytes as i64);
        self.write(move |connection| {
            let insert =
                "INSERT INTO blobs (sha256, bytes, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            connection.execute(insert, (&name, bytes, now()))?;
            Ok(())
        })?;
        Ok(pinned)
    }

    /// Content by its hash, which is checked.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared.blobs.get(digest)
    }

    /// Removes blobs that no row names and nobody is about to name; how many.
    pub fn collect(&self) -> Result<usize, StoreError> {
        let blobs = self.shared.blobs.clone();
        // First the rows, durably; then the files.
        let unnamed = self.write(move |connection| forget_unnamed(connection, &blobs))?;
        let mut removed = 0;
        for digest in unnamed {
            removed += usize::from(self.shared.blobs.remove(&digest)?);
        }
        Ok(removed)
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.shared.readers.read(work)
    }

    /// See [`Writer::write`].
    fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.writer.write(After::Nothing, work)
    }

    /// As `write`, and nothing of what was deleted is left in the log afterwards.
    fn erase<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // A copy from before a migration still has it.
        migrate::remove_copies(&self.shared.folder.join(DATABASE))?;
        self.shared.writer.write(After::Truncate, work)
    }
}

/// Deletes the rows of blobs that nothing refers to.
fn forget_unnamed(connection: &Connection, blobs: &Blobs) -> Result<Vec<Digest>, StoreError> {
    let unnamed = "SELECT sha256 FROM blobs WHERE sha256 NOT IN (SELECT blob FROM vectors) ORDER BY sha256";
    let names = rows::list(connection, unnamed, [], |row| row.get::<_, String>(0))?;
    let mut digests = Vec::new();
    for name in names {
        let digest = Digest::parse(&name).ok_or_else(|| StoreError::corrupt(DATABASE, "a blob's name"))?;
        if !blobs.is_pinned(&digest) {
            connection.execute("DELETE FROM blobs WHERE sha256 = ?1", [&name])?;
            digests.push(digest);
        }
    }
    Ok(digests)
}

/// Removes what a killed process left: temporary files, and files whose row was never committed.
fn sweep(connection: &Connection, blobs: &Blobs) -> Result<(), StoreError> {
    for found in blobs.files()? {
        match found {
            Found::Part(path) => {
                blobs::remove_file(&path)?;
            }
            Found::Blob(digest) => {
                let named = "SELECT count(*) FROM blobs WHERE sha256 = ?1";
                if rows::number(connection, named, [digest.to_string()])? == 0 {
                    blobs.remove(&digest)?;
                }
            }
        }
    }
    Ok(())
}

/// The file that says "open"; dropped after the writer has closed the database.
struct OpenMark(PathBuf);

impl OpenMark {
    fn set(data_dir: &Path) -> Result<OpenMark, StoreError> {
        let path = data_dir.join(OPEN_MARK);
        fs::write(&path, b"").map_err(|error| StoreError::io("write", &path, &error))?;
        blobs::sync_folder(data_dir)?;
        Ok(OpenMark(path))
    }

    fn remove(&self) {
        if let Err(error) = blobs::remove_file(&self.0) {
            tracing::warn!(%error, "the next start will check the store: its mark could not be removed");
        }
    }
}

impl Drop for OpenMark {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Unix seconds of the wall clock.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}
