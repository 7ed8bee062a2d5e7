//! Rows of jobs: how far long work was when it was last written down.

use super::error::StoreError;
use super::{Store, Tenant, now, rows};
use crate::limits;
use rusqlite::Row;
use serde_json::Value;

/// One piece of long work.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRow {
    /// Given by the store, ascending.
    pub id: i64,
    pub kind: String,
    /// `queued`, `running`, `done`, `failed`, `cancelled` or `interrupted`.
    pub state: String,
    pub done: i64,
    pub total: Option<i64>,
    pub message: String,
    pub result: Option<Value>,
    pub error: Option<String>,
    /// Unix seconds; given by the store.
    pub created: i64,
}

const COLUMNS: &str = "id, kind, state, done, total, message, result, error, created";
const UNFINISHED: &str = "('queued', 'running')";

fn read(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        id: row.get("id")?,
        kind: row.get("kind")?,
        state: row.get("state")?,
        done: row.get("done")?,
        total: row.get("total")?,
        message: row.get("message")?,
        result: rows::optional_json(row, "result")?,
        error: row.get("error")?,
        created: row.get("created")?,
    })
}

impl Store {
    /// Writes a queued job and returns it with its number. It goes with its `subject` (`user:ID`) when that user is
    /// deleted. Of the finished ones the newest are kept.
    pub fn create_job(
        &self,
        tenant: &Tenant,
        kind: &str,
        subject: Option<&str>,
        total: Option<i64>,
    ) -> Result<JobRow, StoreError> {
        let (tenant, kind, subject) = (tenant.0, kind.to_owned(), subject.map(str::to_owned));
        self.write(move |connection| {
            let trim = format!(
                "DELETE FROM jobs WHERE tenant = ?1 AND state NOT IN {UNFINISHED} AND id NOT IN
                 (SELECT id FROM jobs WHERE tenant = ?1 AND state NOT IN {UNFINISHED} ORDER BY id DESC LIMIT ?2)"
            );
            connection.execute(&trim, (tenant, limits::STORE_JOBS_KEPT))?;
            let insert = format!(
                "INSERT INTO jobs (tenant, kind, subject, state, done, total, message, created, changed)
                 VALUES (?1, ?2, ?3, 'queued', 0, ?4, '', ?5, ?5) RETURNING {COLUMNS}"
            );
            Ok(connection.query_row(&insert, (tenant, &kind, &subject, total, now()), read)?)
        })
    }

    /// Writes how a job stands; one that is gone stays gone.
    pub fn update_job(&self, tenant: &Tenant, job: &JobRow) -> Result<(), StoreError> {
        let (tenant, job) = (tenant.0, job.clone());
        let result = job.result.as_ref().map(Value::to_string);
        self.write(move |connection| {
            let update =
                "UPDATE jobs SET state = ?3, done = ?4, total = ?5, message = ?6, result = ?7, error = ?8,
                changed = ?9 WHERE tenant = ?1 AND id = ?2";
            let JobRow { id, state, done, total, message, error, .. } = &job;
            connection.execute(
                update,
                rusqlite::params![tenant, id, state, done, total, message, result, error, now()],
            )?;
            Ok(())
        })
    }

    pub fn job(&self, tenant: &Tenant, id: i64) -> Result<Option<JobRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM jobs WHERE tenant = ?1 AND id = ?2");
        self.read(|connection| rows::first(connection, &sql, (tenant.0, id), read))
    }

    /// All jobs, newest first.
    pub fn jobs(&self, tenant: &Tenant) -> Result<Vec<JobRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM jobs WHERE tenant = ?1 ORDER BY id DESC");
        self.read(|connection| rows::list(connection, &sql, [tenant.0], read))
    }

    /// Calls every unfinished job interrupted: their process is gone. How many.
    pub fn interrupt_jobs(&self) -> Result<usize, StoreError> {
        self.write(|connection| {
            let update =
                format!("UPDATE jobs SET state = 'interrupted', changed = ?1 WHERE state IN {UNFINISHED}");
            Ok(connection.execute(&update, [now()])?)
        })
    }
}
