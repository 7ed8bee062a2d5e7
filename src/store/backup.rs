//! Copies and checks of a store, also while another process serves from it.
//!
//! A backup is one file: the database with the blobs in a table of its own. It is restored by putting it as `state.db`
//! into an empty data folder; the next opening writes the blobs out again.

use super::blobs::{Blobs, protect, sync_folder};
use super::connection::{check_integrity, reading};
use super::error::StoreError;
use super::{DATABASE, rows};
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pages copied in one step; between steps the writer goes on.
const PAGES_PER_STEP: i32 = 256;

/// Tries of a backup beside a server that removes blobs meanwhile.
const TRIES: usize = 3;

/// What is in a store, as counted by [`check`] or written by [`backup`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Checked {
    pub schema: i64,
    pub personas: i64,
    pub users: i64,
    pub items: i64,
    pub soft_prompts: i64,
    pub vectors: i64,
    pub blobs: i64,
}

/// Writes the store of `data_dir` to `file`, which must not exist, and checks what was written.
pub fn backup(data_dir: &Path, file: &Path) -> Result<Checked, StoreError> {
    if file.exists() {
        let detail = "there is a file of this name; choose another".to_owned();
        return Err(StoreError::Exists { file: file.display().to_string(), detail });
    }
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut result = copy(data_dir, &part);
    for _ in 1..TRIES {
        if !matches!(result, Err(StoreError::Corrupt { .. })) {
            break;
        }
        result = copy(data_dir, &part);
    }
    let done = result.and_then(|checked| {
        fs::rename(&part, file).map_err(|error| StoreError::io("write", file, &error))?;
        sync_folder(file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        Ok(checked)
    });
    done.inspect_err(|_| drop(fs::remove_file(&part)))
}

fn copy(data_dir: &Path, part: &Path) -> Result<Checked, StoreError> {
    let source = open(data_dir)?;
    let blobs = Blobs::open(data_dir)?;
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(part)
        .map_err(|error| StoreError::io("create", part, &error))?;
    protect(part)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target = Connection::open_with_flags(part, flags)?;
    Backup::new(&source, &mut target)?.run_to_completion(PAGES_PER_STEP, Duration::ZERO, None)?;
    // One file: no log beside it.
    let _: String = target.query_row("PRAGMA journal_mode=DELETE", [], |row| row.get(0))?;
    let write = target.unchecked_transaction()?;
    write
        .execute_batch("CREATE TABLE backup_blobs (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT")?;
    for name in blob_names(&write)? {
        write.execute("INSERT INTO backup_blobs VALUES (?1, ?2)", (&name, blobs.named(&name)?))?;
    }
    write.commit()?;
    check_integrity(&target, &part.display().to_string(), true)?;
    let checked = count(&target)?;
    target.close().map_err(|(_, error)| StoreError::from(error))?;
    File::open(part)
        .and_then(|file| file.sync_all())
        .map_err(|error| StoreError::io("sync", part, &error))?;
    Ok(checked)
}

/// Opens the database for reading beside whoever holds the folder.
fn open(data_dir: &Path) -> Result<Connection, StoreError> {
    let path = data_dir.join(DATABASE);
    if !path.exists() {
        let detail = "there is no such file; hint: --data-dir names the data folder".to_owned();
        return Err(StoreError::Failed { action: format!("open `{}`", path.display()), detail });
    }
    reading(&path)
}

fn blob_names(connection: &Connection) -> Result<Vec<String>, StoreError> {
    rows::list(connection, "SELECT DISTINCT blob FROM vectors ORDER BY blob", [], |row| row.get(0))
}

/// Reads everything: the database's structure, references between rows, every blob a row names.
pub fn check(data_dir: &Path) -> Result<Checked, StoreError> {
    let connection = open(data_dir)?;
    let blobs = Blobs::open(data_dir)?;
    let file = data_dir.join(DATABASE).display().to_string();
    check_integrity(&connection, &file, true)?;
    let broken = rows::list(&connection, "PRAGMA foreign_key_check", [], |row| row.get::<_, String>(0))?;
    if let Some(table) = broken.first() {
        let detail = format!("{} rows refer to rows that are missing, first in `{table}`", broken.len());
        return Err(StoreError::corrupt(file, detail));
    }
    for name in blob_names(&connection)? {
        blobs.named(&name)?;
    }
    count(&connection)
}

fn count(connection: &Connection) -> Result<Checked, StoreError> {
    let rows_of = |table: &str| rows::number(connection, &format!("SELECT count(*) FROM {table}"), []);
    Ok(Checked {
        schema: rows::number(connection, "PRAGMA user_version", [])?,
        personas: rows::number(connection, "SELECT count(DISTINCT name) FROM personas", [])?,
        users: rows_of("users")?,
        items: rows_of("history")?,
        soft_prompts: rows_of("soft_prompts")?,
        vectors: rows_of("vectors")?,
        blobs: rows::number(connection, "SELECT count(DISTINCT blob) FROM vectors", [])?,
    })
}

/// Writes the blobs of a restored backup out. Killed in between, the next opening does it again.
pub fn unpack(connection: &Connection, blobs: &Blobs) -> Result<(), StoreError> {
    let packed = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'backup_blobs'";
    if rows::number(connection, packed, [])? == 0 {
        return Ok(());
    }
    let names = rows::list(connection, "SELECT sha256 FROM backup_blobs", [], |row| row.get::<_, String>(0))?;
    tracing::info!(blobs = names.len(), "a backup is being restored");
    for name in names {
        let read = "SELECT content FROM backup_blobs WHERE sha256 = ?1";
        let content: Vec<u8> = connection.query_row(read, [&name], |row| row.get(0))?;
        let put = blobs.put(&content)?;
        if put.digest != rows::digest(&name)? {
            return Err(StoreError::corrupt(
                DATABASE,
                format!("blob {name} of the backup has other content"),
            ));
        }
    }
    connection.execute_batch("DROP TABLE backup_blobs; VACUUM")?;
    Ok(())
}
