//! The book of probe reports: the newest of each persona digest, its judged part in memory, the whole in the store.

use super::GateError;
use super::measured::Measured;
use crate::digest::Digest;
use crate::limits;
use crate::store::{Store, Tenant};
use crate::sync::lock;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Kind of these rows in the store; their subject is the persona digest in hex.
const KIND: &str = "probe";

/// Handle to the kept reports; cheap to clone. [`Reports::measured`] never touches the disk, the others do.
#[derive(Clone)]
pub struct Reports {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    /// By persona digest, with the store's number of the report: higher is newer.
    newest: Mutex<BTreeMap<Digest, (i64, Arc<Measured>)>>,
    /// Held from a write to the change in memory, so that both agree on which is the newest.
    writing: Mutex<()>,
}

impl Reports {
    /// Reads the newest report of each persona. One that cannot be read leaves its persona unprobed, with a line in the
    /// log.
    pub fn open(store: Store) -> Result<Reports, GateError> {
        let mut newest = BTreeMap::new();
        for row in store.newest_reports(&Tenant::local(), KIND, limits::GATE_REPORTS_IN_MEMORY_MAX)? {
            let read = Measured::read(&row.spec).and_then(|measured| checked(measured, &row.subject));
            match read {
                Ok(measured) => drop(newest.insert(measured.subject, (row.id, Arc::new(measured)))),
                Err(error) => tracing::error!(subject = row.subject, %error, "a probe report was left out"),
            }
        }
        let shared = Shared { store, newest: Mutex::new(newest), writing: Mutex::default() };
        Ok(Reports { shared: Arc::new(shared) })
    }

    /// Keeps a report on the persona of this digest; it is the newest from then on. Returns its number.
    pub fn put(&self, digest: &Digest, report: &Value) -> Result<i64, GateError> {
        let subject = digest.to_string();
        let measured = checked(Measured::read(report)?, &subject)?;
        let given = report.to_string().len();
        if given > limits::GATE_REPORT_BYTES_MAX {
            return Err(GateError::TooLarge { given, max: limits::GATE_REPORT_BYTES_MAX });
        }
        let _writing = lock(&self.shared.writing);
        let id = self.shared.store.put_report(&Tenant::local(), KIND, &subject, report)?;
        let mut newest = lock(&self.shared.newest);
        newest.insert(*digest, (id, Arc::new(measured)));
        if newest.len() > limits::GATE_REPORTS_IN_MEMORY_MAX {
            let oldest = newest.iter().min_by_key(|(_, (id, _))| *id).map(|(digest, _)| *digest);
            oldest.map(|oldest| newest.remove(&oldest));
        }
        Ok(id)
    }

    /// The newest report on a persona as it was put. What cannot be read counts as none, with a line in the log.
    pub fn newest(&self, digest: &Digest) -> Option<Arc<Value>> {
        let found = self.shared.store.reports(&Tenant::local(), KIND, &digest.to_string(), 1);
        match found {
            Ok(rows) => rows.into_iter().next().map(|row| Arc::new(row.spec)),
            Err(error) => {
                tracing::error!(%error, "a probe report could not be read");
                None
            }
        }
    }

    /// What the newest report on a persona measured, from memory.
    pub fn measured(&self, digest: &Digest) -> Option<Arc<Measured>> {
        lock(&self.shared.newest).get(digest).map(|(_, measured)| measured.clone())
    }
}

/// A report is kept under the digest that it names itself.
fn checked(measured: Measured, subject: &str) -> Result<Measured, GateError> {
    let given = measured.subject.to_string();
    if given == subject {
        return Ok(measured);
    }
    Err(GateError::OtherSubject { given, wanted: subject.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::SCHEMA;
    use super::*;
    use crate::store::tests::Folder;
    use serde_json::json;

    fn report(digest: &Digest, n: u64) -> Value {
        json!({
            "schema": SCHEMA, "digest": digest.to_string(), "suite": "smoke",
            "aspects": [{"name": "hostile", "n": n, "difference": 0.0, "interval": [0.0, 0.0]}]
        })
    }

    #[test]
    fn the_newest_counts_also_after_a_restart() {
        let folder = Folder::new("reports");
        let (ada, bob) = (Digest::of(b"ada"), Digest::of(b"bob"));
        let n_of = |reports: &Reports, digest| reports.measured(digest).map(|found| found.aspects[0].n);
        let store = Store::open(&folder.0).unwrap();
        let reports = Reports::open(store.clone()).unwrap();
        assert_eq!((n_of(&reports, &ada), reports.newest(&ada)), (None, None));
        reports.put(&ada, &report(&ada, 40)).unwrap();
        reports.put(&ada, &report(&ada, 41)).unwrap();
        reports.put(&bob, &report(&bob, 42)).unwrap();
        // Written past the book, as by another build: it must not stand in the way of the others.
        store.put_report(&Tenant::local(), KIND, &bob.to_string(), &json!({"schema": "later"})).unwrap();
        assert_eq!((n_of(&reports, &ada), n_of(&reports, &bob)), (Some(41), Some(42)));
        drop(reports);
        drop(store);
        let reports = Reports::open(Store::open(&folder.0).unwrap()).unwrap();
        assert_eq!((n_of(&reports, &ada), n_of(&reports, &bob)), (Some(41), None));
        assert_eq!(reports.newest(&ada).as_deref(), Some(&report(&ada, 41)));
    }

    #[test]
    fn what_is_no_report_on_it_is_not_kept() {
        let folder = Folder::new("no-reports");
        let reports = Reports::open(Store::open(&folder.0).unwrap()).unwrap();
        let (ada, bob) = (Digest::of(b"ada"), Digest::of(b"bob"));
        let mut large = report(&ada, 40);
        large["arms"] = json!("x".repeat(limits::GATE_REPORT_BYTES_MAX));
        for bad in [json!(null), json!({}), report(&bob, 40), large] {
            assert!(reports.put(&ada, &bad).is_err());
        }
        assert_eq!((reports.measured(&ada), reports.newest(&ada)), (None, None));
    }
}
