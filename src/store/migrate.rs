//! Brings a database to this build's schema: numbered steps, one transaction each, a checked copy before the first.

use super::blobs::{protect, remove_file};
use super::connection::{APPLICATION_ID, check_integrity, reading};
use super::error::StoreError;
use super::rows;
use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// Step N makes schema N out of schema N-1. A step that was released never changes.
pub const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_people.sql")];

/// Schema of a database; one from the future is refused.
pub fn schema(connection: &Connection, path: &Path, known: i64) -> Result<i64, StoreError> {
    let found = rows::number(connection, "PRAGMA user_version", [])?;
    if !(0..=known).contains(&found) {
        return Err(StoreError::Newer { file: path.display().to_string(), found, known });
    }
    Ok(found)
}

/// Runs the steps that the database lacks; whether there were any.
pub fn migrate(connection: &Connection, path: &Path, steps: &[&str]) -> Result<bool, StoreError> {
    let known = steps.len() as i64;
    let found = schema(connection, path, known)?;
    if found == known {
        return Ok(false);
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
    Ok(true)
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
    remove_file(&copy)?;
    connection.execute("VACUUM INTO ?1", [&name])?;
    protect(&copy)?;
    check_integrity(&reading(&copy)?, &name, false)
}

/// Removes the copies of earlier migrations: the store came up well, and they hold what was deleted since.
pub fn remove_copies(path: &Path) -> Result<(), StoreError> {
    for number in 1..=MIGRATIONS.len() as i64 + 1 {
        remove_file(&copy_path(path, number))?;
    }
    Ok(())
}
