//! Brings a database to this build's schema: numbered steps, one transaction each, a checked copy before the first.

use super::connection::{APPLICATION_ID, check_integrity, reading};
use super::error::StoreError;
use rusqlite::Connection;
use std::fs;
use std::path::{Path, PathBuf};

/// Step N makes schema N out of schema N-1. A step that was released never changes.
pub const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_people.sql")];

/// What [`migrate`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrated {
    New,
    Current,
    From(i64),
}

/// Schema of a database; one from the future is refused.
pub fn schema(connection: &Connection, path: &Path, known: i64) -> Result<i64, StoreError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if !(0..=known).contains(&found) {
        return Err(StoreError::Newer { file: path.display().to_string(), found, known });
    }
    Ok(found)
}

/// Runs the steps that the database lacks.
pub fn migrate(connection: &Connection, path: &Path, steps: &[&str]) -> Result<Migrated, StoreError> {
    let known = steps.len() as i64;
    let found = schema(connection, path, known)?;
    if found == known {
        return Ok(Migrated::Current);
    }
    if found > 0 {
        copy_before(connection, path, known)?;
    }
    for (number, step) in (1..).zip(steps).skip(found as usize) {
        let script = format!(
            "BEGIN IMMEDIATE;\n{step}\nPRAGMA application_id={APPLICATION_ID};\nPRAGMA user_version={number};\nCOMMIT;"
        );
        if let Err(error) = connection.execute_batch(&script) {
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            return Err(error.into());
        }
    }
    Ok(if found == 0 { Migrated::New } else { Migrated::From(found) })
}

/// `state.db.pre-N` beside the database.
fn copy_path(path: &Path, number: i64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".pre-{number}"));
    name.into()
}

/// Writes the copy that a failed migration is undone with, and reads it once through.
fn copy_before(connection: &Connection, path: &Path, known: i64) -> Result<(), StoreError> {
    let copy = copy_path(path, known);
    let name = copy.display().to_string();
    // A copy of an attempt that was killed may be half written.
    if copy.exists() {
        fs::remove_file(&copy).map_err(|error| StoreError::io("replace", &copy, &error))?;
    }
    connection.execute("VACUUM INTO ?1", [&name])?;
    super::blobs::protect(&copy)?;
    check_integrity(&reading(&copy)?, &name, false)
}

/// Removes the copies of earlier migrations: the store came up well, and they hold what was deleted since.
pub fn remove_copies(path: &Path) -> Result<(), StoreError> {
    for number in 1..=MIGRATIONS.len() as i64 + 1 {
        let copy = copy_path(path, number);
        match fs::remove_file(&copy) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("remove", &copy, &error)),
        }
    }
    Ok(())
}
