//! The connections that read: a few, handed out for one read at a time, beside the writer.

use super::connection::reading;
use super::error::StoreError;
use crate::limits;
use crate::sync::{lock, wait};
use rusqlite::Connection;
use std::path::Path;
use std::sync::{Condvar, Mutex};

pub struct Readers {
    idle: Mutex<Vec<Connection>>,
    returned: Condvar,
}

impl Readers {
    pub fn open(path: &Path) -> Result<Readers, StoreError> {
        let connections = (0..limits::STORE_READERS).map(|_| reading(path)).collect::<Result<_, _>>()?;
        Ok(Readers { idle: Mutex::new(connections), returned: Condvar::new() })
    }

    /// Runs `work` on one state of the database: what was committed before this call is in it.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let borrowed = Borrowed { connection: Some(self.take()), readers: self };
        let Some(connection) = &borrowed.connection else { return Err(StoreError::Closed) };
        let transaction = connection.unchecked_transaction()?;
        let result = work(&transaction)?;
        transaction.rollback()?;
        Ok(result)
    }

    fn take(&self) -> Connection {
        let mut idle = lock(&self.idle);
        loop {
            match idle.pop() {
                Some(connection) => return connection,
                None => idle = wait(&self.returned, idle),
            }
        }
    }
}

/// Gives its connection back, after a panic of the reading too.
struct Borrowed<'a> {
    connection: Option<Connection>,
    readers: &'a Readers,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            lock(&self.readers.idle).push(connection);
            self.readers.returned.notify_one();
        }
    }
}
