//! Rows of reports: what was measured on something, newest first.

use super::error::StoreError;
use super::{Store, Tenant, now, rows};
use crate::limits;
use rusqlite::Row;
use serde_json::Value;

/// One report.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportRow {
    /// Given by the store, ascending.
    pub id: i64,
    pub kind: String,
    /// Digest or owner of what was measured.
    pub subject: String,
    pub spec: Value,
    /// Unix seconds.
    pub created: i64,
}

fn read(row: &Row<'_>) -> rusqlite::Result<ReportRow> {
    Ok(ReportRow {
        id: row.get("id")?,
        kind: row.get("kind")?,
        subject: row.get("subject")?,
        spec: rows::json(row, "spec")?,
        created: row.get("created")?,
    })
}

impl Store {
    /// Writes a report and returns its number. Of one kind and subject the newest are kept.
    pub fn put_report(
        &self,
        tenant: &Tenant,
        kind: &str,
        subject: &str,
        spec: &Value,
    ) -> Result<i64, StoreError> {
        let (tenant, kind, subject, spec) = (tenant.0, kind.to_owned(), subject.to_owned(), spec.to_string());
        self.write(move |connection| {
            let insert = "INSERT INTO reports (tenant, kind, subject, spec, created)
                VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id";
            let id = rows::number(connection, insert, (tenant, &kind, &subject, &spec, now()))?;
            let trim = "DELETE FROM reports WHERE tenant = ?1 AND kind = ?2 AND subject = ?3 AND id NOT IN
                (SELECT id FROM reports WHERE tenant = ?1 AND kind = ?2 AND subject = ?3
                 ORDER BY id DESC LIMIT ?4)";
            connection.execute(trim, (tenant, &kind, &subject, limits::STORE_REPORTS_KEPT))?;
            Ok(id)
        })
    }

    /// The newest report of each subject of one kind: those of the `limit` subjects that were reported on last, newest
    /// first.
    pub fn newest_reports(
        &self,
        tenant: &Tenant,
        kind: &str,
        limit: usize,
    ) -> Result<Vec<ReportRow>, StoreError> {
        let sql = "SELECT id, kind, subject, spec, created FROM reports WHERE id IN
            (SELECT max(id) FROM reports WHERE tenant = ?1 AND kind = ?2 GROUP BY subject)
            ORDER BY id DESC LIMIT ?3";
        self.read(|connection| rows::list(connection, sql, (tenant.0, kind, limit as i64), read))
    }

    /// At most `limit` reports of one kind and subject, newest first.
    pub fn reports(
        &self,
        tenant: &Tenant,
        kind: &str,
        subject: &str,
        limit: usize,
    ) -> Result<Vec<ReportRow>, StoreError> {
        let sql = "SELECT id, kind, subject, spec, created FROM reports
            WHERE tenant = ?1 AND kind = ?2 AND subject = ?3 ORDER BY id DESC LIMIT ?4";
        self.read(|connection| rows::list(connection, sql, (tenant.0, kind, subject, limit as i64), read))
    }
}
