//! Rows of personas: every version stays as it was written.

use super::error::StoreError;
use super::{Store, Tenant, now, rows};
use crate::limits;
use rusqlite::Row;
use serde_json::Value;

/// One version of a persona.
#[derive(Clone, Debug, PartialEq)]
pub struct PersonaRow {
    pub name: String,
    /// Counts from 1; given by the store when the row is written.
    pub version: i64,
    pub spec: Value,
    pub digest: String,
    /// Unix seconds; given by the store when the row is written.
    pub created: i64,
}

const COLUMNS: &str = "name, version, spec, digest, created";

fn read(row: &Row<'_>) -> rusqlite::Result<PersonaRow> {
    Ok(PersonaRow {
        name: row.get("name")?,
        version: row.get("version")?,
        spec: rows::json(row, "spec")?,
        digest: row.get("digest")?,
        created: row.get("created")?,
    })
}

impl Store {
    /// Writes the next version of a name and returns its number.
    pub fn put_persona(&self, tenant: &Tenant, persona: PersonaRow) -> Result<i64, StoreError> {
        let (tenant, spec) = (tenant.0, persona.spec.to_string());
        self.write(move |connection| {
            let known = "SELECT count(*) FROM personas WHERE tenant = ?1 AND name = ?2";
            if rows::number(connection, known, (tenant, &persona.name))? == 0 {
                let count = "SELECT count(DISTINCT name) FROM personas WHERE tenant = ?1";
                let given = rows::number(connection, count, [tenant])? as u64 + 1;
                if given > limits::STORE_PERSONAS_MAX {
                    let max = limits::STORE_PERSONAS_MAX;
                    return Err(StoreError::TooMany { what: "personas", given, max });
                }
            }
            let next = "INSERT INTO persona_names (tenant, name, last_version) VALUES (?1, ?2, 1)
                ON CONFLICT (tenant, name) DO UPDATE SET last_version = last_version + 1 RETURNING last_version";
            let version = rows::number(connection, next, (tenant, &persona.name))?;
            if version as u64 > limits::STORE_PERSONA_VERSIONS_MAX {
                let max = limits::STORE_PERSONA_VERSIONS_MAX;
                return Err(StoreError::TooMany { what: "versions of one persona", given: version as u64, max });
            }
            let insert = "INSERT INTO personas (tenant, name, version, spec, digest, created)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            connection.execute(insert, (tenant, &persona.name, version, &spec, &persona.digest, now()))?;
            Ok(version)
        })
    }

    /// The newest version of a name.
    pub fn persona(&self, tenant: &Tenant, name: &str) -> Result<Option<PersonaRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM personas WHERE tenant = ?1 AND name = ?2 ORDER BY version DESC LIMIT 1"
        );
        self.read(|connection| rows::first(connection, &sql, (tenant.0, name), read))
    }

    pub fn persona_version(
        &self,
        tenant: &Tenant,
        name: &str,
        version: i64,
    ) -> Result<Option<PersonaRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM personas WHERE tenant = ?1 AND name = ?2 AND version = ?3");
        self.read(|connection| rows::first(connection, &sql, (tenant.0, name, version), read))
    }

    /// The newest version of every name, sorted by name.
    pub fn personas(&self, tenant: &Tenant) -> Result<Vec<PersonaRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM personas AS one WHERE tenant = ?1 AND version =
             (SELECT max(version) FROM personas WHERE tenant = ?1 AND name = one.name) ORDER BY name"
        );
        self.read(|connection| rows::list(connection, &sql, [tenant.0], read))
    }

    /// Removes all versions of a name; how many there were. Its last number is kept.
    pub fn delete_persona(&self, tenant: &Tenant, name: &str) -> Result<usize, StoreError> {
        let (tenant, name) = (tenant.0, name.to_owned());
        self.write(move |connection| {
            let delete = "DELETE FROM personas WHERE tenant = ?1 AND name = ?2";
            Ok(connection.execute(delete, (tenant, &name))?)
        })
    }
}
