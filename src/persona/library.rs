//! The personas of a server by name: the newest version of each in memory, all versions in the store.

use super::PersonaError;
use super::spec::{Persona, PersonaSpec, check_name};
use crate::digest::Digest;
use crate::steering::nearest_names;
use crate::store::{PersonaRow, Store, StoreError, Tenant};
use crate::sync::lock;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

/// Handle to the stored personas; cheap to clone. Functions that write or read old versions block on the disk.
#[derive(Clone)]
pub struct Personas {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    /// Newest version of each, by name. A request takes its snapshot here, so that none waits for the disk.
    newest: Mutex<BTreeMap<String, Arc<Persona>>>,
    /// Held from the check of a write to its end: what was checked is what is replaced.
    writing: Mutex<()>,
}

/// What the caller of a write believes to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing said.
    Anything,
    /// Any version, but one there must be.
    Some,
    /// One of these versions.
    Versions(Vec<u32>),
}

impl Expected {
    fn check(&self, name: &str, current: Option<&Arc<Persona>>) -> Result<(), PersonaError> {
        let version = current.map(|persona| persona.version);
        let met = match self {
            Expected::Anything => true,
            Expected::Some => version.is_some(),
            Expected::Versions(versions) => version.is_some_and(|version| versions.contains(&version)),
        };
        if met { Ok(()) } else { Err(PersonaError::Changed { name: name.to_owned(), version }) }
    }
}

impl Personas {
    /// Reads all personas. One that cannot be read is left out, with a line in the log: it must not keep the others
    /// from being served.
    pub fn open(store: Store) -> Result<Personas, PersonaError> {
        let mut newest = BTreeMap::new();
        for row in store.personas(&Tenant::local())? {
            match read(row) {
                Ok(persona) => drop(newest.insert(persona.name.clone(), Arc::new(persona))),
                Err(error) => tracing::error!(%error, "a persona was left out"),
            }
        }
        Ok(Personas {
            shared: Arc::new(Shared { store, newest: Mutex::new(newest), writing: Mutex::default() }),
        })
    }

    /// The newest version. `param` is the field that names it, for the refusal.
    pub fn find(&self, name: &str, param: &str) -> Result<Arc<Persona>, PersonaError> {
        let newest = lock(&self.shared.newest);
        newest.get(name).cloned().ok_or_else(|| PersonaError::Unknown {
            param: param.to_owned(),
            name: name.chars().take(80).collect(),
            nearest: nearest_names(name, newest.keys().map(String::as_str)),
        })
    }

    /// One version of a persona that exists.
    pub fn version(&self, name: &str, version: u32) -> Result<Arc<Persona>, PersonaError> {
        let newest = self.find(name, "name")?;
        if newest.version == version {
            return Ok(newest);
        }
        match self.shared.store.persona_version(&Tenant::local(), name, i64::from(version))? {
            Some(row) => read(row).map(Arc::new),
            None => {
                Err(PersonaError::UnknownVersion { name: name.to_owned(), version, newest: newest.version })
            }
        }
    }

    /// Up to `limit` personas by name, those after `after`, and whether there are more.
    pub fn page(&self, after: Option<&str>, limit: usize) -> (Vec<Arc<Persona>>, bool) {
        let newest = lock(&self.shared.newest);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = newest.range::<str, _>((from, Bound::Unbounded)).map(|(_, persona)| persona.clone());
        let page = rest.by_ref().take(limit).collect();
        (page, rest.next().is_some())
    }

    /// Whether a persona of this name can be made: before its content is looked at, which may take a while.
    pub fn check_new(&self, name: &str) -> Result<(), PersonaError> {
        check_name("name", name)?;
        match lock(&self.shared.newest).get(name) {
            Some(known) => Err(PersonaError::Exists { name: name.to_owned(), version: known.version }),
            None => Ok(()),
        }
    }

    /// Whether a new version can be stored.
    pub fn check(&self, name: &str, expected: &Expected) -> Result<(), PersonaError> {
        check_name("name", name)?;
        expected.check(name, lock(&self.shared.newest).get(name))
    }

    /// Stores a persona that must not exist yet. `digest` is its persona digest, kept beside it.
    pub fn create(
        &self,
        name: &str,
        spec: PersonaSpec,
        digest: Digest,
    ) -> Result<Arc<Persona>, PersonaError> {
        let _writing = lock(&self.shared.writing);
        self.check_new(name)?;
        self.write(name, spec, digest)
    }

    /// Stores a new version, the first one where there is none. True: it is the first one.
    pub fn put(
        &self,
        name: &str,
        spec: PersonaSpec,
        expected: &Expected,
        digest: Digest,
    ) -> Result<(Arc<Persona>, bool), PersonaError> {
        let _writing = lock(&self.shared.writing);
        self.check(name, expected)?;
        let is_first = !lock(&self.shared.newest).contains_key(name);
        self.write(name, spec, digest).map(|persona| (persona, is_first))
    }

    fn write(&self, name: &str, spec: PersonaSpec, digest: Digest) -> Result<Arc<Persona>, PersonaError> {
        spec.check()?;
        // Version and time are the store's to give.
        let row = PersonaRow {
            name: name.to_owned(),
            version: 0,
            spec: spec.to_value(),
            digest: digest.to_string(),
            created: 0,
        };
        let tenant = Tenant::local();
        let version = self.shared.store.put_persona(&tenant, row)?;
        let row = self.shared.store.persona_version(&tenant, name, version)?;
        let row = row.ok_or_else(|| PersonaError::Store(format!("`{name}` was written and is gone")))?;
        let persona = Arc::new(read(row)?);
        lock(&self.shared.newest).insert(name.to_owned(), persona.clone());
        Ok(persona)
    }

    /// Takes a deleted user out of the personas in memory, as the deletion did in the store.
    pub fn forget_user(&self, id: &str) {
        let _writing = lock(&self.shared.writing);
        for persona in lock(&self.shared.newest).values_mut() {
            if persona.spec.user.as_deref() == Some(id) {
                let spec = PersonaSpec { user: None, ..persona.spec.clone() };
                *persona = Arc::new(Persona { spec, ..Persona::clone(persona) });
            }
        }
    }

    /// Removes all versions; running requests keep theirs. Returns how many there were.
    pub fn delete(&self, name: &str, expected: &Expected) -> Result<u64, PersonaError> {
        let _writing = lock(&self.shared.writing);
        expected.check(name, lock(&self.shared.newest).get(name))?;
        // What cannot be read can still be removed.
        let removed = self.shared.store.delete_persona(&Tenant::local(), name)?;
        lock(&self.shared.newest).remove(name);
        if removed == 0 {
            return Err(match self.find(name, "name") {
                Err(error) => error,
                Ok(_) => PersonaError::Store(format!("`{name}` was removed twice")),
            });
        }
        Ok(removed as u64)
    }
}

fn read(row: PersonaRow) -> Result<Persona, PersonaError> {
    let version = u32::try_from(row.version).unwrap_or(u32::MAX);
    let spec = PersonaSpec::from_value(&row.spec).map_err(|message| PersonaError::Stored {
        name: row.name.clone(),
        version,
        message,
    })?;
    Ok(Persona { name: row.name, version, created: row.created, spec })
}

impl From<StoreError> for PersonaError {
    fn from(error: StoreError) -> PersonaError {
        match error {
            StoreError::Full { .. } => PersonaError::DiskFull,
            StoreError::TooMany { what, max, .. } => PersonaError::TooMany { what, max },
            other => PersonaError::Store(other.to_string()),
        }
    }
}
