//! Reads over a user's whole history: what a soft prompt is made from, and how large it is.

use super::error::StoreError;
use super::users::{UserRow, owner};
use super::{Store, Tenant, rows};

/// What one item adds to a soft prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptItemRow {
    pub id: i64,
    pub weight: f64,
    /// Unix seconds at which it happened, and at which it was added.
    pub time: Option<i64>,
    pub created: i64,
    /// f32 values in little-endian order; `None`: not embedded by this encoder yet.
    pub embedding: Option<Vec<u8>>,
}

impl Store {
    /// A user and all items, ascending, in one state of the database; `None` where there is no such user.
    pub fn prompt_items(
        &self,
        tenant: &Tenant,
        user: &str,
        encoder_digest: &str,
    ) -> Result<Option<(UserRow, Vec<PromptItemRow>)>, StoreError> {
        let sql = "SELECT item.id, item.weight, item.time, item.created, embedding.sealed
            FROM history AS item LEFT JOIN embeddings AS embedding
            ON embedding.tenant = item.tenant AND embedding.owner = item.owner AND embedding.encoder_sha = ?3
                AND embedding.kind = 'item' AND embedding.id = item.id
            WHERE item.tenant = ?1 AND item.owner = ?2 ORDER BY item.id";
        self.read(|connection| {
            let Some(user_row) = super::users::find(connection, tenant, user)? else { return Ok(None) };
            let items = rows::list(connection, sql, (tenant.0, owner(user), encoder_digest), |row| {
                Ok(PromptItemRow {
                    id: row.get(0)?,
                    weight: row.get(1)?,
                    time: row.get(2)?,
                    created: row.get(3)?,
                    embedding: row.get(4)?,
                })
            })?;
            Ok(Some((user_row, items)))
        })
    }

    /// Items of a user that an encoder has embedded.
    pub fn embedded_count(
        &self,
        tenant: &Tenant,
        user: &str,
        encoder_digest: &str,
    ) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM embeddings
            WHERE tenant = ?1 AND owner = ?2 AND encoder_sha = ?3 AND kind = 'item'";
        let parameters = (tenant.0, owner(user), encoder_digest);
        self.read(|connection| Ok(rows::number(connection, sql, parameters)? as u64))
    }

    /// Bytes of the content of a user's items.
    pub fn history_bytes(&self, tenant: &Tenant, user: &str) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(length(sealed)), 0) FROM history WHERE tenant = ?1 AND owner = ?2";
        self.read(|connection| Ok(rows::number(connection, sql, (tenant.0, owner(user)))? as u64))
    }

    /// Digests of the encoders that have embedded something of a user, sorted.
    pub fn encoders_of(&self, tenant: &Tenant, user: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT DISTINCT encoder_sha FROM embeddings WHERE tenant = ?1 AND owner = ?2 ORDER BY 1";
        self.read(|connection| rows::list(connection, sql, (tenant.0, owner(user)), |row| row.get(0)))
    }
}
