//! Rows in and out: JSON columns, digests, lists.

use super::DATABASE;
use super::error::StoreError;
use crate::digest::Digest;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Params, Row};
use serde_json::Value;

/// All rows of a query.
pub fn list<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare(sql)?;
    let found = statement.query_map(parameters, read)?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// The first row of a query.
pub fn first<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    Ok(connection.query_row(sql, parameters, read).optional()?)
}

/// One number, as `count(*)` gives it.
pub fn number(connection: &Connection, sql: &str, parameters: impl Params) -> Result<i64, StoreError> {
    Ok(connection.query_row(sql, parameters, |row| row.get(0))?)
}

/// A column of JSON text.
pub fn json(row: &Row<'_>, column: &str) -> rusqlite::Result<Value> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| conversion(Type::Text, error))
}

pub fn optional_json(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Value>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| serde_json::from_str(&text).map_err(|error| conversion(Type::Text, error))).transpose()
}

/// A column of JSON bytes.
pub fn json_bytes(row: &Row<'_>, column: &str) -> rusqlite::Result<Value> {
    let bytes: Vec<u8> = row.get(column)?;
    serde_json::from_slice(&bytes).map_err(|error| conversion(Type::Blob, error))
}

fn conversion(from: Type, error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, from, Box::new(error))
}

pub fn digest(name: &str) -> Result<Digest, StoreError> {
    Digest::parse(name).ok_or_else(|| StoreError::corrupt(DATABASE, "a digest is not 64 hex digits"))
}
