//! Rows of vectors: a name on one model, its description, and the blob with its numbers.

use super::error::StoreError;
use super::{Store, Tenant, now, rows};
use serde_json::Value;

/// The blob that a name's numbers are in.
const BLOB: &str = "SELECT blob FROM vectors WHERE tenant = ?1 AND weights = ?2 AND name = ?3";

impl Store {
    /// Writes a vector in place of the one of this name.
    pub fn put_vector(
        &self,
        tenant: &Tenant,
        weights_digest: &str,
        name: &str,
        spec: &Value,
        content: &[u8],
    ) -> Result<(), StoreError> {
        let blob = self.put_blob(content)?;
        let (tenant, weights, name, spec) =
            (tenant.0, weights_digest.to_owned(), name.to_owned(), spec.to_string());
        let hash = blob.digest.to_string();
        let replaced = self.write(move |connection| {
            let old =
                rows::first(connection, BLOB, (tenant, &weights, &name), |row| row.get::<_, String>(0))?;
            let put = "INSERT INTO vectors (tenant, weights, name, spec, blob, created)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (tenant, weights, name) DO UPDATE SET
                spec = excluded.spec, blob = excluded.blob, created = excluded.created";
            connection.execute(put, (tenant, &weights, &name, &spec, &hash, now()))?;
            Ok(old.is_some_and(|old| old != hash))
        })?;
        drop(blob);
        if replaced {
            self.collect()?;
        }
        Ok(())
    }

    /// The blob that holds a vector's numbers, 64 hex digits.
    pub fn vector(
        &self,
        tenant: &Tenant,
        weights_digest: &str,
        name: &str,
    ) -> Result<Option<String>, StoreError> {
        let parameters = (tenant.0, weights_digest, name);
        self.read(|connection| rows::first(connection, BLOB, parameters, |row| row.get(0)))
    }

    /// The numbers of a vector, by its blob.
    pub fn vector_content(&self, blob: &str) -> Result<Vec<u8>, StoreError> {
        self.shared.blobs.named(blob)
    }

    /// Names of the vectors of a model, sorted.
    pub fn vector_names(&self, tenant: &Tenant, weights_digest: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT name FROM vectors WHERE tenant = ?1 AND weights = ?2 ORDER BY name";
        self.read(|connection| rows::list(connection, sql, (tenant.0, weights_digest), |row| row.get(0)))
    }

    /// Whether there was one.
    pub fn delete_vector(
        &self,
        tenant: &Tenant,
        weights_digest: &str,
        name: &str,
    ) -> Result<bool, StoreError> {
        let (tenant, weights, name) = (tenant.0, weights_digest.to_owned(), name.to_owned());
        let deleted = self.write(move |connection| {
            let delete = "DELETE FROM vectors WHERE tenant = ?1 AND weights = ?2 AND name = ?3";
            Ok(connection.execute(delete, (tenant, &weights, &name))? > 0)
        })?;
        if deleted {
            self.collect()?;
        }
        Ok(deleted)
    }

    /// Keeps something that was measured once on a model.
    pub fn put_model_fact(&self, weights_digest: &str, name: &str, spec: &Value) -> Result<(), StoreError> {
        let (weights, name, spec) = (weights_digest.to_owned(), name.to_owned(), spec.to_string());
        self.write(move |connection| {
            let put = "INSERT INTO model_facts (weights, name, spec) VALUES (?1, ?2, ?3)
                ON CONFLICT (weights, name) DO UPDATE SET spec = excluded.spec";
            connection.execute(put, (&weights, &name, &spec))?;
            Ok(())
        })
    }

    pub fn model_fact(&self, weights_digest: &str, name: &str) -> Result<Option<Value>, StoreError> {
        let sql = "SELECT spec FROM model_facts WHERE weights = ?1 AND name = ?2";
        self.read(|connection| {
            rows::first(connection, sql, (weights_digest, name), |row| rows::json(row, "spec"))
        })
    }
}
