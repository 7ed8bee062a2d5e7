//! Why the store refused or failed: which file, what was found, what to do.

use std::io::{self, ErrorKind};
use std::path::Path;

/// Every failure of this room. Cloned, because one failed commit answers all writes that were in it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the data folder.
    #[error("the data folder `{folder}` is in use by {holder}; hint: {}", in_use_hint(.url))]
    InUse {
        folder: String,
        /// `process 123`, as far as it said so.
        holder: String,
        /// Where that process serves HTTP, if it does.
        url: Option<String>,
    },
    /// Written by a later version of this program.
    #[error(
        "`{file}` has schema {found}, this build knows up to {known}; hint: use the newer build, or restore a backup"
    )]
    Newer { file: String, found: i64, known: i64 },
    #[error("`{file}` is no store of demeanor; hint: choose another data folder, or move the file away")]
    NotOurs { file: String },
    /// The file system lost or changed bytes.
    #[error("`{file}` is damaged: {detail}; hint: restore a backup")]
    Corrupt { file: String, detail: String },
    #[error("the disk is full ({action}); hint: free space, the store goes on without a restart")]
    Full { action: String },
    #[error("`{file}` cannot be written: {detail}; hint: --data-dir names a folder of yours")]
    NotWritable { file: String, detail: String },
    /// A sync failed, so that nobody knows what is on disk; nothing more is written until a restart.
    #[error("the disk failed to sync, the store takes no writes until a restart: {detail}")]
    ReadOnly { detail: String },
    /// A bound of the store.
    #[error("{given} {what} are too many; at most {max} are kept")]
    TooMany { what: &'static str, given: u64, max: u64 },
    #[error("`{file}`: {detail}")]
    Exists { file: String, detail: String },
    #[error("the store could not {action}: {detail}")]
    Failed { action: String, detail: String },
    #[error("the store is closed")]
    Closed,
}

fn in_use_hint(url: &Option<String>) -> String {
    match url {
        Some(url) => format!("stop it, use another --data-dir, or ask it: {url}"),
        None => "stop it, or use another --data-dir".to_owned(),
    }
}

impl StoreError {
    /// Whether the disk is full: the client may come back when somebody has freed space.
    pub fn is_full(&self) -> bool {
        matches!(self, StoreError::Full { .. })
    }

    /// Whether a bound refused it: the request is at fault.
    pub fn is_bound(&self) -> bool {
        matches!(self, StoreError::TooMany { .. })
    }

    /// A failed file operation.
    pub(super) fn io(action: &str, path: &Path, error: &io::Error) -> StoreError {
        let action = format!("{action} `{}`", path.display());
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                StoreError::Full { action }
            }
            ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::AlreadyExists => {
                StoreError::NotWritable { file: path.display().to_string(), detail: error.to_string() }
            }
            _ => StoreError::Failed { action, detail: error.to_string() },
        }
    }

    /// Content that this build did not write so.
    pub(super) fn corrupt(file: impl Into<String>, detail: impl Into<String>) -> StoreError {
        StoreError::Corrupt { file: file.into(), detail: detail.into() }
    }
}

/// Extended codes of a failed sync, after which what is on disk is unknown.
const FAILED_SYNCS: [i32; 2] = [rusqlite::ffi::SQLITE_IOERR_FSYNC, rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC];

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        use rusqlite::ErrorCode as E;
        let detail = error.to_string();
        let file = || super::DATABASE.to_owned();
        match &error {
            rusqlite::Error::SqliteFailure(code, _) => match code.code {
                E::DiskFull => StoreError::Full { action: "write the database".to_owned() },
                E::DatabaseCorrupt => StoreError::Corrupt { file: file(), detail },
                E::NotADatabase => StoreError::NotOurs { file: file() },
                E::SystemIoFailure if FAILED_SYNCS.contains(&code.extended_code) => {
                    StoreError::ReadOnly { detail }
                }
                _ => StoreError::Failed { action: "run a statement".to_owned(), detail },
            },
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..) => StoreError::Corrupt { file: file(), detail },
            _ => StoreError::Failed { action: "run a statement".to_owned(), detail },
        }
    }
}
