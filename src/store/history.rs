//! Rows of a user's history and the embeddings of its items.

use super::error::StoreError;
use super::users::owner;
use super::{Store, Tenant, now, rows};
use crate::limits;
use rusqlite::{Connection, Row};
use serde_json::Value;

/// One item of a history.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRow {
    /// Counts from 1 within a user and is never given again; given by the store.
    pub id: i64,
    /// Unix seconds at which it happened.
    pub time: Option<i64>,
    pub kind: String,
    pub session: Option<String>,
    pub source: Option<String>,
    /// Signed, -1 to 1.
    pub weight: f64,
    /// Seconds spent on it.
    pub dwell_s: Option<f64>,
    /// `{"input"?, "text"}`.
    pub content: Value,
    /// Two items of a user with the same one are the same item.
    pub text_hmac: Vec<u8>,
    /// Unix seconds; given by the store.
    pub created: i64,
}

/// What came of added items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    pub added: u64,
    /// Items that were there already, or twice among those given.
    pub duplicates: u64,
    /// Items of the user now.
    pub total: u64,
    pub version: i64,
}

/// An item that lacks its embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingItem {
    pub user: String,
    pub id: i64,
    pub content: Value,
}

const COLUMNS: &str = "id, time, kind, session, source, weight, dwell_s, sealed, text_hmac, created";

fn read(row: &Row<'_>) -> rusqlite::Result<HistoryRow> {
    Ok(HistoryRow {
        id: row.get("id")?,
        time: row.get("time")?,
        kind: row.get("kind")?,
        session: row.get("session")?,
        source: row.get("source")?,
        weight: row.get("weight")?,
        dwell_s: row.get("dwell_s")?,
        content: rows::json_bytes(row, "sealed")?,
        text_hmac: row.get("text_hmac")?,
        created: row.get("created")?,
    })
}

/// Embedding of the item `id`; f32 values in little-endian order.
fn insert_embedding(
    connection: &Connection,
    tenant: i64,
    owner: &str,
    encoder: &str,
    id: i64,
    data: &[u8],
) -> Result<(), StoreError> {
    let insert = "INSERT INTO embeddings (tenant, owner, encoder_sha, kind, id, dim, dtype, sealed)
        VALUES (?1, ?2, ?3, 'item', ?4, ?5, 'f32', ?6)
        ON CONFLICT DO UPDATE SET dim = excluded.dim, sealed = excluded.sealed";
    connection.execute(insert, (tenant, owner, encoder, id, data.len() as i64 / 4, data))?;
    Ok(())
}

impl Store {
    /// Adds items to a user's history, all or none; `None` where there is no such user. `embeddings`, one of each item
    /// under the digest of its encoder, are written in the same transaction.
    pub fn add_history(
        &self,
        tenant: &Tenant,
        user: &str,
        items: Vec<HistoryRow>,
        embeddings: Option<(String, Vec<Vec<u8>>)>,
    ) -> Result<Option<Added>, StoreError> {
        let (tenant, id, owner) = (tenant.0, user.to_owned(), owner(user));
        let contents: Vec<Vec<u8>> = items.iter().map(|item| item.content.to_string().into_bytes()).collect();
        self.write(move |connection| {
            let sql = "SELECT last_item FROM users WHERE tenant = ?1 AND id = ?2";
            let Some(mut last) = rows::first(connection, sql, (tenant, &id), |row| row.get::<_, i64>(0))?
            else {
                return Ok(None);
            };
            let mut added = 0;
            let mut insert = connection.prepare(
                "INSERT INTO history (tenant, owner, id, time, kind, session, source, weight, dwell_s, sealed,
                 text_hmac, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                 ON CONFLICT (tenant, owner, text_hmac) DO NOTHING",
            )?;
            for (index, (item, content)) in items.iter().zip(&contents).enumerate() {
                let created = now();
                let count = insert.execute(rusqlite::params![
                    tenant,
                    owner,
                    last + 1,
                    item.time,
                    item.kind,
                    item.session,
                    item.source,
                    item.weight,
                    item.dwell_s,
                    content,
                    item.text_hmac,
                    created,
                ])?;
                if count == 0 {
                    continue;
                }
                last += 1;
                added += 1;
                if let Some((encoder, embeddings)) = &embeddings
                    && let Some(data) = embeddings.get(index)
                {
                    insert_embedding(connection, tenant, &owner, encoder, last, data)?;
                }
            }
            let update = "UPDATE users SET items = items + ?3, last_item = ?4, version = version + (?3 > 0)
                WHERE tenant = ?1 AND id = ?2 RETURNING items, version";
            let (total, version): (i64, i64) =
                connection
                    .query_row(update, (tenant, &id, added, last), |row| Ok((row.get(0)?, row.get(1)?)))?;
            let (given, max) = (total as u64, limits::STORE_HISTORY_ITEMS_MAX);
            if given > max {
                return Err(StoreError::TooMany { what: "items of one user's history", given, max });
            }
            let duplicates = items.len() as u64 - added as u64;
            Ok(Some(Added { added: added as u64, duplicates, total: given, version }))
        })
    }

    /// At most `limit` items with numbers above `after`, ascending.
    pub fn history(
        &self,
        tenant: &Tenant,
        user: &str,
        after: i64,
        limit: usize,
    ) -> Result<Vec<HistoryRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM history WHERE tenant = ?1 AND owner = ?2 AND id > ?3 ORDER BY id LIMIT ?4"
        );
        let parameters = (tenant.0, owner(user), after, limit as i64);
        self.read(|connection| rows::list(connection, &sql, parameters, read))
    }

    /// Removes one item with what was derived from it; whether it was there.
    pub fn delete_history_item(&self, tenant: &Tenant, user: &str, item: i64) -> Result<bool, StoreError> {
        let (tenant, id, owner) = (tenant.0, user.to_owned(), owner(user));
        self.erase(move |connection| {
            let delete = "DELETE FROM history WHERE tenant = ?1 AND owner = ?2 AND id = ?3";
            if connection.execute(delete, (tenant, &owner, item))? == 0 {
                return Ok(false);
            }
            let embeddings = "DELETE FROM embeddings
                WHERE tenant = ?1 AND owner = ?2 AND kind = 'item' AND id = ?3";
            connection.execute(embeddings, (tenant, &owner, item))?;
            let prompts = "DELETE FROM soft_prompts WHERE tenant = ?1 AND owner = ?2";
            connection.execute(prompts, (tenant, &owner))?;
            let update =
                "UPDATE users SET items = items - 1, version = version + 1 WHERE tenant = ?1 AND id = ?2";
            connection.execute(update, (tenant, &id))?;
            Ok(true)
        })
    }

    /// Stores embeddings of a user's items, f32 values in little-endian order. Items that are gone are left out; how
    /// many were stored.
    pub fn put_embeddings(
        &self,
        tenant: &Tenant,
        user: &str,
        encoder_digest: &str,
        embeddings: Vec<(i64, Vec<u8>)>,
    ) -> Result<usize, StoreError> {
        let (tenant, owner, encoder) = (tenant.0, owner(user), encoder_digest.to_owned());
        self.write(move |connection| {
            let known = "SELECT count(*) FROM history WHERE tenant = ?1 AND owner = ?2 AND id = ?3";
            let mut stored = 0;
            for (id, data) in &embeddings {
                if rows::number(connection, known, (tenant, &owner, id))? > 0 {
                    insert_embedding(connection, tenant, &owner, &encoder, *id, data)?;
                    stored += 1;
                }
            }
            Ok(stored)
        })
    }

    /// Embeddings of a user's items by one encoder: `(item, f32 values in little-endian order)`, ascending.
    pub fn embeddings(
        &self,
        tenant: &Tenant,
        user: &str,
        encoder_digest: &str,
    ) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
        let sql = "SELECT id, sealed FROM embeddings
            WHERE tenant = ?1 AND owner = ?2 AND encoder_sha = ?3 AND kind = 'item' ORDER BY id";
        let parameters = (tenant.0, owner(user), encoder_digest);
        self.read(|connection| rows::list(connection, sql, parameters, |row| Ok((row.get(0)?, row.get(1)?))))
    }

    /// At most `limit` items of any user that this encoder has not embedded yet.
    pub fn items_without_embedding(
        &self,
        tenant: &Tenant,
        encoder_digest: &str,
        limit: usize,
    ) -> Result<Vec<PendingItem>, StoreError> {
        let sql = "SELECT substr(owner, 6) AS user, id, sealed FROM history AS item
            WHERE tenant = ?1 AND owner >= 'user:' AND owner < 'user;' AND NOT EXISTS
                (SELECT 1 FROM embeddings WHERE tenant = ?1 AND owner = item.owner AND encoder_sha = ?2
                 AND kind = 'item' AND id = item.id)
            ORDER BY owner, id LIMIT ?3";
        let parameters = (tenant.0, encoder_digest, limit as i64);
        self.read(|connection| {
            rows::list(connection, sql, parameters, |row| {
                let content = rows::json_bytes(row, "sealed")?;
                Ok(PendingItem { user: row.get("user")?, id: row.get("id")?, content })
            })
        })
    }
}
