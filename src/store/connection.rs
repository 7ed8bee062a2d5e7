//! How every connection is opened: pragmas set and read back, the file known to be ours.

use super::blobs::protect;
use super::error::StoreError;
use super::rows;
use crate::limits;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// "demr": marks the file as ours.
pub const APPLICATION_ID: i64 = 0x6465_6d72;

/// The first SQLite without the fault by which a log that is reset at a bad moment loses commits.
const VERSION_MIN: i32 = 3_051_003;

/// Settings of every connection, each with the value that reading it back must give.
const SETTINGS: [(&str, &str, &str); 8] = [
    ("synchronous", "FULL", "2"),
    ("foreign_keys", "ON", "1"),
    ("secure_delete", "ON", "1"),
    ("trusted_schema", "OFF", "0"),
    ("cell_size_check", "ON", "1"),
    ("temp_store", "MEMORY", "2"),
    ("fullfsync", "ON", "1"),
    ("checkpoint_fullfsync", "ON", "1"),
];

/// Opens the database for writing; a missing file is created, readable by its owner only.
pub fn writing(path: &Path) -> Result<Connection, StoreError> {
    check_library()?;
    let created = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    created.map_err(|error| StoreError::io("create", path, &error))?;
    // The log and its index take the mode of the database.
    protect(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    check_ours(&connection, path)?;
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    expect("journal_mode", &mode, "wal")?;
    configure(&connection)?;
    for (name, value) in [("wal_autocheckpoint", 1000), ("journal_size_limit", limits::STORE_LOG_BYTES_MAX)] {
        let found = rows::number(&connection, &format!("PRAGMA {name}={value}"), [])?;
        expect(name, &found.to_string(), &value.to_string())?;
    }
    Ok(connection)
}

/// Opens the database for reading only.
pub fn reading(path: &Path) -> Result<Connection, StoreError> {
    check_library()?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    check_ours(&connection, path)?;
    configure(&connection)?;
    connection.execute_batch("PRAGMA query_only=ON")?;
    Ok(connection)
}

fn check_library() -> Result<(), StoreError> {
    let found = rusqlite::version_number();
    if found < VERSION_MIN {
        let detail = format!("SQLite {} is linked, 3.51.3 or later is needed", rusqlite::version());
        return Err(StoreError::Failed { action: "open the database".to_owned(), detail });
    }
    Ok(())
}

/// An empty file is a new store; another program's database is left alone.
fn check_ours(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let not_ours = |_| StoreError::NotOurs { file: path.display().to_string() };
    let id = rows::number(connection, "PRAGMA application_id", []).map_err(not_ours)?;
    let tables = rows::number(connection, "SELECT count(*) FROM sqlite_schema", []).map_err(not_ours)?;
    if id == APPLICATION_ID || (id == 0 && tables == 0) {
        return Ok(());
    }
    Err(StoreError::NotOurs { file: path.display().to_string() })
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(std::time::Duration::from_millis(limits::STORE_BUSY_MS_MAX))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    for (name, value, expected) in SETTINGS {
        connection.execute_batch(&format!("PRAGMA {name}={value}"))?;
        let found = rows::number(connection, &format!("PRAGMA {name}"), [])?;
        expect(name, &found.to_string(), expected)?;
    }
    let mapped = rows::number(connection, "PRAGMA mmap_size=0", [])?;
    expect("mmap_size", &mapped.to_string(), "0")
}

fn expect(name: &str, found: &str, expected: &str) -> Result<(), StoreError> {
    if found == expected {
        return Ok(());
    }
    let detail =
        format!("`{name}` is {found} after it was set to {expected}; is this a network file system?");
    Err(StoreError::Failed { action: "configure the database".to_owned(), detail })
}

/// SQLite's own look at the whole file; `thorough` compares indexes with tables too.
pub fn check_integrity(connection: &Connection, file: &str, thorough: bool) -> Result<(), StoreError> {
    let pragma = if thorough { "PRAGMA integrity_check(10)" } else { "PRAGMA quick_check(10)" };
    let lines: Vec<String> = rows::list(connection, pragma, [], |row| row.get(0))?;
    if lines == ["ok"] {
        return Ok(());
    }
    Err(StoreError::corrupt(file, lines.join("; ")))
}
