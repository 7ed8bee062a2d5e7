//! Rows of soft prompts: the rows of input embeddings of a user or a name, for one model.

use super::error::StoreError;
use super::{Store, Tenant, now, rows};
use rusqlite::Row;
use serde_json::Value;

/// The soft prompt of an owner on one model.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftPromptRow {
    /// `user:ID` or `name:NAME`.
    pub owner: String,
    /// The model's weights, 64 hex digits.
    pub weights_digest: String,
    /// For a user the version of the history; 0 when it is written: one more than the version there is.
    pub version: i64,
    pub rows: i64,
    pub d_model: i64,
    /// `[rows, d_model]` f32 values in little-endian order.
    pub data: Vec<u8>,
    /// Where it comes from.
    pub spec: Value,
}

const COLUMNS: &str = "owner, weights, version, rows, d_model, sealed, spec";

fn read(row: &Row<'_>) -> rusqlite::Result<SoftPromptRow> {
    Ok(SoftPromptRow {
        owner: row.get("owner")?,
        weights_digest: row.get("weights")?,
        version: row.get("version")?,
        rows: row.get("rows")?,
        d_model: row.get("d_model")?,
        data: row.get("sealed")?,
        spec: rows::json(row, "spec")?,
    })
}

/// A range of the key: tenant, prefix, [`beyond`] the prefix, weights.
const BEGINS_WITH: &str = "tenant = ?1 AND owner >= ?2 AND owner < ?3 AND weights = ?4";

/// Comes after every owner that begins with `prefix`: no owner holds the last code point there is.
fn beyond(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}

impl Store {
    /// Writes an owner's soft prompt for one model in place of the one before, and returns its version.
    pub fn put_soft_prompt(&self, tenant: &Tenant, prompt: SoftPromptRow) -> Result<i64, StoreError> {
        let (tenant, spec) = (tenant.0, prompt.spec.to_string());
        self.write(move |connection| {
            let put = "INSERT INTO soft_prompts
                (tenant, owner, weights, version, rows, d_model, dtype, spec, sealed, created)
                VALUES (?1, ?2, ?3, max(?4, (?4 = 0)), ?5, ?6, 'f32', ?7, ?8, ?9)
                ON CONFLICT (tenant, owner, weights) DO UPDATE SET
                    version = CASE ?4 WHEN 0 THEN version + 1 ELSE ?4 END, rows = excluded.rows,
                    d_model = excluded.d_model, spec = excluded.spec, sealed = excluded.sealed,
                    created = excluded.created
                RETURNING version";
            let SoftPromptRow { owner, weights_digest, version, rows, d_model, data, .. } = &prompt;
            let parameters =
                rusqlite::params![tenant, owner, weights_digest, version, rows, d_model, spec, data, now()];
            rows::number(connection, put, parameters)
        })
    }

    pub fn soft_prompt(
        &self,
        tenant: &Tenant,
        owner: &str,
        weights_digest: &str,
    ) -> Result<Option<SoftPromptRow>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM soft_prompts WHERE tenant = ?1 AND owner = ?2 AND weights = ?3");
        self.read(|connection| rows::first(connection, &sql, (tenant.0, owner, weights_digest), read))
    }

    /// An owner's soft prompts on every model, sorted by model.
    pub fn soft_prompts_of(&self, tenant: &Tenant, owner: &str) -> Result<Vec<SoftPromptRow>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM soft_prompts WHERE tenant = ?1 AND owner = ?2 ORDER BY weights");
        self.read(|connection| rows::list(connection, &sql, (tenant.0, owner), read))
    }

    /// The soft prompts on one model of all whose owner begins with `prefix`: `name:`, `user:`. Sorted by owner.
    pub fn soft_prompts(
        &self,
        tenant: &Tenant,
        prefix: &str,
        weights_digest: &str,
    ) -> Result<Vec<SoftPromptRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM soft_prompts WHERE {BEGINS_WITH} ORDER BY owner");
        let parameters = (tenant.0, prefix, beyond(prefix), weights_digest);
        self.read(|connection| rows::list(connection, &sql, parameters, read))
    }

    /// How many [`Store::soft_prompts`] would give.
    pub fn soft_prompt_count(
        &self,
        tenant: &Tenant,
        prefix: &str,
        weights_digest: &str,
    ) -> Result<u64, StoreError> {
        let sql = format!("SELECT count(*) FROM soft_prompts WHERE {BEGINS_WITH}");
        let parameters = (tenant.0, prefix, beyond(prefix), weights_digest);
        self.read(|connection| Ok(rows::number(connection, &sql, parameters)? as u64))
    }

    /// Removes the soft prompt of an owner on one model; whether there was one.
    pub fn delete_soft_prompt(
        &self,
        tenant: &Tenant,
        owner: &str,
        weights_digest: &str,
    ) -> Result<bool, StoreError> {
        let (tenant, owner, weights) = (tenant.0, owner.to_owned(), weights_digest.to_owned());
        self.erase(move |connection| {
            let delete = "DELETE FROM soft_prompts WHERE tenant = ?1 AND owner = ?2 AND weights = ?3";
            Ok(connection.execute(delete, (tenant, &owner, &weights))? > 0)
        })
    }
}
