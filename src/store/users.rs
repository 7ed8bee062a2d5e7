//! Rows of users, and the deletion that leaves nothing of one.

use super::error::StoreError;
use super::{Store, Tenant, now, rows};
use crate::limits;
use rusqlite::{Connection, Row};

/// Somebody whose history the server holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    pub id: String,
    /// Unix seconds.
    pub created: i64,
    /// Items in the history.
    pub items: i64,
    /// Goes up with every change of the history; 0: never changed.
    pub version: i64,
}

/// What a deletion removed, in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// 1, or 0 where there was no such user.
    pub users: usize,
    pub items: usize,
    pub embeddings: usize,
    pub soft_prompts: usize,
    pub reports: usize,
    pub jobs: usize,
    /// Persona versions that named the user as theirs, and no longer do.
    pub personas: usize,
}

/// `owner` of a user's rows.
pub fn owner(id: &str) -> String {
    format!("user:{id}")
}

const COLUMNS: &str = "id, created, items, version";

fn read(row: &Row<'_>) -> rusqlite::Result<UserRow> {
    Ok(UserRow {
        id: row.get("id")?,
        created: row.get("created")?,
        items: row.get("items")?,
        version: row.get("version")?,
    })
}

pub(super) fn find(
    connection: &Connection,
    tenant: &Tenant,
    id: &str,
) -> Result<Option<UserRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM users WHERE tenant = ?1 AND id = ?2");
    rows::first(connection, &sql, (tenant.0, id), read)
}

impl Store {
    /// Whether the user is new.
    pub fn create_user(&self, tenant: &Tenant, id: &str) -> Result<bool, StoreError> {
        let (tenant, id) = (tenant.0, id.to_owned());
        self.write(move |connection| {
            let insert = "INSERT INTO users (tenant, id, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            if connection.execute(insert, (tenant, &id, now()))? == 0 {
                return Ok(false);
            }
            let count = "SELECT count(*) FROM users WHERE tenant = ?1";
            let given = rows::number(connection, count, [tenant])? as u64;
            match given > limits::STORE_USERS_MAX {
                true => Err(StoreError::TooMany { what: "users", given, max: limits::STORE_USERS_MAX }),
                false => Ok(true),
            }
        })
    }

    pub fn user(&self, tenant: &Tenant, id: &str) -> Result<Option<UserRow>, StoreError> {
        self.read(|connection| find(connection, tenant, id))
    }

    /// At most `limit` users whose ids come after `after`, sorted by id.
    pub fn users(
        &self,
        tenant: &Tenant,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<UserRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM users WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3");
        let parameters = (tenant.0, after.unwrap_or_default(), limit as i64);
        self.read(|connection| rows::list(connection, &sql, parameters, read))
    }

    pub fn user_count(&self, tenant: &Tenant) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM users WHERE tenant = ?1";
        self.read(|connection| Ok(rows::number(connection, sql, [tenant.0])? as u64))
    }

    /// Removes every row about a user in one transaction. When it returns, neither the database nor its log holds
    /// their bytes.
    pub fn delete_user(&self, tenant: &Tenant, id: &str) -> Result<Deleted, StoreError> {
        let (tenant, id, owner) = (tenant.0, id.to_owned(), owner(id));
        self.erase(move |connection| {
            let count = |table: &str, column: &str, name: &str| -> Result<usize, StoreError> {
                let sql = format!("DELETE FROM {table} WHERE tenant = ?1 AND {column} = ?2");
                Ok(connection.execute(&sql, (tenant, name))?)
            };
            // The one thing about somebody that stands in what another has made.
            let unlink = "UPDATE personas SET spec = json_remove(spec, '$.user')
                WHERE tenant = ?1 AND json_extract(spec, '$.user') = ?2";
            Ok(Deleted {
                personas: connection.execute(unlink, (tenant, &id))?,
                users: count("users", "id", &id)?,
                items: count("history", "owner", &owner)?,
                embeddings: count("embeddings", "owner", &owner)?,
                soft_prompts: count("soft_prompts", "owner", &owner)?,
                reports: count("reports", "subject", &owner)?,
                jobs: count("jobs", "subject", &owner)?,
            })
        })
    }
}
