//! The users of a server: the one handle through which history is added, read, embedded and forgotten.
//!
//! All functions block (on the disk, some on the encoder): async code calls them off its threads. Who writes for a user
//! takes that user's turn, so that a deletion has nothing of theirs behind its back.

use super::embedder::{Embedder, Wake};
use super::error::UsersError;
use super::export;
use super::history::{Item, Kind, NewItem};
use super::identity::UserId;
use super::lives::Lives;
use super::memory::Memory;
use super::projector::Projector;
use super::prompt::{NamedPrompt, UserPrompt};
use super::recency::Recency;
use super::soft_prompts::SoftPrompts;
use super::time::Timestamp;
use crate::encoder::EncoderHandle;
use crate::engine::Engine;
use crate::limits;
use crate::store::{HistoryRow, Store, StoreError, Tenant, UserRow};
use crate::sync::lock;
use serde_json::{Value, json};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// Turns are shared by users whose ids hash alike: few enough to be cheap, enough that people rarely wait for others.
const TURNS: usize = 64;

/// What the rooms below give to the users of a server.
pub struct UsersOptions {
    pub store: Store,
    pub engine: Engine,
    pub encoder: EncoderHandle,
    /// The projector for the loaded model; `None`: users are kept, but have no soft prompts.
    pub projector: Option<Projector>,
    pub recency: Recency,
}

/// Handle to everything the server holds of people; cheap to clone.
#[derive(Clone)]
pub struct Users {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub store: Store,
    pub tenant: Tenant,
    pub engine: Engine,
    pub encoder: EncoderHandle,
    pub projector: Option<Projector>,
    pub recency: Recency,
    pub soft_prompts: SoftPrompts,
    pub memory: Memory,
    pub lives: Lives,
    /// Held while an archive is made.
    pub exports: Mutex<()>,
    turns: [Mutex<()>; TURNS],
    wake: Wake,
}

/// A user as others may see it.
#[derive(Clone, Debug)]
pub struct UserState {
    pub id: String,
    pub created: Timestamp,
    /// Items of the history, and how many of them are embedded.
    pub items: u64,
    pub embedded: u64,
    /// Goes up with every change of the history.
    pub version: u64,
    pub prompt: UserPrompt,
}

/// What came of items that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedItems {
    pub added: u64,
    /// Items that were there already.
    pub duplicates: u64,
    pub total: u64,
    pub version: u64,
    /// Items of the history that are embedded.
    pub embedded: u64,
}

/// What a deletion removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    pub items: usize,
    pub embeddings: usize,
    pub soft_prompts: usize,
    pub reports: usize,
    pub jobs: usize,
    /// Persona versions that named the user.
    pub personas: usize,
    /// Requests that were running or waiting, and were ended.
    pub requests: usize,
    /// Pages of the KV cache that were cleared.
    pub kv_pages: usize,
}

impl Users {
    /// Opens the users of a store for a running engine, and goes on with what is not embedded yet.
    pub fn start(options: UsersOptions) -> Result<Users, UsersError> {
        let info = options.engine.info();
        if let Some(projector) = &options.projector {
            check_fit(projector, info.d_model as usize, info.weights_digest)?;
        }
        let (wake, work) = Embedder::channel();
        let inner = Arc::new(Inner {
            tenant: Tenant::local(),
            soft_prompts: SoftPrompts::new(options.store.clone(), options.engine.info()),
            store: options.store,
            engine: options.engine,
            encoder: options.encoder,
            projector: options.projector,
            recency: options.recency,
            memory: Memory::default(),
            lives: Lives::default(),
            exports: Mutex::new(()),
            turns: std::array::from_fn(|_| Mutex::new(())),
            wake,
        });
        Embedder::start(&inner, work).map_err(|error| UsersError::Internal(error.to_string()))?;
        if inner.store.user_count(&inner.tenant)? > 0 {
            inner.wake.up();
        }
        Ok(Users { inner })
    }

    /// The soft prompt of a user. `query` is the last user message, for projectors that look at it. Mostly an answer
    /// from memory; may read the store, and run the encoder on `query`.
    pub fn prompt_for(&self, id: &str, query: Option<&str>) -> UserPrompt {
        match UserId::parse(id, "user") {
            Ok(id) => self.inner.prompt_for(&id, query),
            // A name that no user can have.
            Err(_) => UserPrompt::Unknown,
        }
    }

    /// The sentence encoder, there or on its way.
    pub fn encoder(&self) -> &EncoderHandle {
        &self.inner.encoder
    }

    /// The same where memory alone has the answer, which is then quick enough for any thread: a user's later requests
    /// with a static projector.
    pub fn prompt_at_hand(&self, id: &str) -> Option<UserPrompt> {
        self.inner.prompt_at_hand(&UserId::parse(id, "user").ok()?)
    }

    /// A stored soft prompt for the loaded model.
    pub fn named(&self, name: &str) -> Result<Option<NamedPrompt>, UsersError> {
        self.inner.soft_prompts.get(name)
    }

    /// The soft prompts that have names of their own.
    pub fn soft_prompts(&self) -> &SoftPrompts {
        &self.inner.soft_prompts
    }

    /// At most `limit` users whose ids come after `after`, by id.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<UserRow>, UsersError> {
        Ok(self.inner.store.users(&self.inner.tenant, after, limit)?)
    }

    pub fn create(&self, id: &str) -> Result<UserState, UsersError> {
        let id = UserId::parse(id, "id")?;
        let inner = &*self.inner;
        {
            let _turn = inner.turn(&id);
            if !inner.store.create_user(&inner.tenant, id.as_str())? {
                return Err(UsersError::Exists { id: id.to_string() });
            }
            inner.lives.begin(&id);
        }
        // Its history will need it; loading takes a second or, the first time, a download.
        inner.encoder.start();
        self.show(id.as_str())
    }

    /// Refuses a name that no user has.
    pub fn exists(&self, id: &str) -> Result<(), UsersError> {
        self.inner.find(id).map(drop)
    }

    pub fn show(&self, id: &str) -> Result<UserState, UsersError> {
        let (id, user) = self.inner.find(id)?;
        Ok(UserState {
            id: user.id.clone(),
            created: timestamp(user.created),
            items: user.items as u64,
            embedded: self.inner.embedded(&id)?,
            version: user.version as u64,
            prompt: self.inner.prompt_for(&id, None),
        })
    }

    /// Adds items, all or none. Few items are embedded at once, so that the next request has them; many later.
    pub fn add(&self, id: &str, items: Vec<NewItem>) -> Result<AddedItems, UsersError> {
        let inner = &*self.inner;
        let (id, _) = inner.find(id)?;
        let new_bytes: u64 = items.iter().map(NewItem::bytes).sum();
        let embeddings = inner.embed_few(&items);
        let rows: Vec<HistoryRow> = items.iter().map(|item| row(item, &id)).collect();
        let _turn = inner.turn(&id);
        let given = inner.store.history_bytes(&inner.tenant, id.as_str())? + new_bytes;
        if given > limits::HISTORY_BYTES_MAX {
            let max = limits::HISTORY_BYTES_MAX;
            return Err(UsersError::Full { id: id.to_string(), given, max, unit: "bytes of text" });
        }
        let added = match inner.store.add_history(&inner.tenant, id.as_str(), rows, embeddings) {
            Ok(Some(added)) => added,
            Ok(None) => return Err(UsersError::Unknown { id: id.to_string() }),
            Err(StoreError::TooMany { given, max, .. }) => {
                return Err(UsersError::Full { id: id.to_string(), given, max, unit: "items" });
            }
            Err(error) => return Err(error.into()),
        };
        if added.added > 0 {
            inner.make_prompt(&id);
        }
        let embedded = inner.embedded(&id)?;
        if embedded < added.total {
            inner.wake.up();
        }
        Ok(AddedItems {
            added: added.added,
            duplicates: added.duplicates,
            total: added.total,
            version: added.version as u64,
            embedded,
        })
    }

    /// At most `limit` items with numbers above `after`.
    pub fn history(&self, id: &str, after: i64, limit: usize) -> Result<Vec<Item>, UsersError> {
        let (id, _) = self.inner.find(id)?;
        let rows = self.inner.store.history(&self.inner.tenant, id.as_str(), after, limit)?;
        rows.into_iter().map(item).collect()
    }

    /// Removes one item and all that was derived from it: what the soft prompt so far was made from ends with it, as
    /// for a deleted user.
    pub fn delete_item(&self, id: &str, item: &str) -> Result<Receipt, UsersError> {
        let inner = &*self.inner;
        let (id, _) = inner.find(id)?;
        let unknown =
            || UsersError::UnknownItem { id: id.to_string(), item: item.chars().take(32).collect() };
        let is_number = item.bytes().all(|byte| byte.is_ascii_digit());
        let number = item.parse().ok().filter(|_| is_number).ok_or_else(unknown)?;
        let _turn = inner.turn(&id);
        let before = inner.embedded(&id)?;
        if !inner.store.delete_history_item(&inner.tenant, id.as_str(), number)? {
            return Err(unknown());
        }
        let forgotten = inner.forget(&id);
        inner.lives.begin(&id);
        let embeddings = before.saturating_sub(inner.embedded(&id)?) as usize;
        inner.make_prompt(&id);
        Ok(Receipt {
            items: 1,
            embeddings,
            requests: forgotten.sequences,
            kv_pages: forgotten.pages,
            ..Receipt::default()
        })
    }

    /// Removes every trace of a user: requests end, pages of the KV cache and memory are cleared, rows are erased and
    /// overwritten. What was derived before and comes late finds nobody.
    pub fn delete(&self, id: &str) -> Result<Receipt, UsersError> {
        let inner = &*self.inner;
        let (id, _) = inner.find(id)?;
        let _turn = inner.turn(&id);
        // Somebody else may have been quicker.
        inner.find(id.as_str())?;
        let deleted = inner.store.delete_user(&inner.tenant, id.as_str());
        let forgotten = inner.forget(&id);
        match deleted {
            Ok(deleted) => {
                inner.lives.end(&id);
                Ok(Receipt {
                    items: deleted.items,
                    embeddings: deleted.embeddings,
                    soft_prompts: deleted.soft_prompts,
                    reports: deleted.reports,
                    jobs: deleted.jobs,
                    personas: deleted.personas,
                    requests: forgotten.sequences,
                    kv_pages: forgotten.pages,
                })
            }
            Err(error) => {
                // The rows are still there, or half of what a deletion is; the user goes on as somebody new.
                inner.lives.begin(&id);
                Err(error.into())
            }
        }
    }

    /// Everything the server holds of a user, as a zip archive.
    pub fn export(&self, id: &str) -> Result<Vec<u8>, UsersError> {
        let (id, user) = self.inner.find(id)?;
        export::archive(&self.inner, &id, &user)
    }
}

impl Inner {
    /// While this is held, nobody else writes for the user.
    pub fn turn(&self, id: &UserId) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let turn = &self.turns[hasher.finish() as usize % TURNS];
        lock(turn)
    }

    pub fn find(&self, id: &str) -> Result<(UserId, UserRow), UsersError> {
        let checked = UserId::parse(id, "id")?;
        match self.store.user(&self.tenant, id)? {
            Some(user) => Ok((checked, user)),
            None => Err(UsersError::Unknown { id: checked.to_string() }),
        }
    }

    /// Ends what runs with the user's soft prompt so far and clears it from memory and KV cache. The life must end next.
    fn forget(&self, id: &UserId) -> crate::engine::Forgotten {
        self.memory.remove(id);
        self.engine.forget(id.owner_digest(self.lives.of(id)))
    }
}

fn check_fit(
    projector: &Projector,
    d_model: usize,
    weights: crate::digest::Digest,
) -> Result<(), UsersError> {
    if projector.d_model() != d_model {
        return Err(UsersError::DoesNotFit(format!(
            "the projector makes rows of width {}; the loaded model has d_model {d_model}",
            projector.d_model()
        )));
    }
    if projector.weights() != weights {
        return Err(UsersError::DoesNotFit(format!(
            "the projector was trained through the weights {}; loaded are {}",
            projector.weights().short(16),
            weights.short(16)
        )));
    }
    Ok(())
}

fn row(item: &NewItem, owner: &UserId) -> HistoryRow {
    let content = match &item.input {
        Some(input) => json!({"input": input, "text": item.text}),
        None => json!({"text": item.text}),
    };
    HistoryRow {
        id: 0,
        time: item.time.map(Timestamp::unix),
        kind: item.kind.name().to_owned(),
        session: item.session.clone(),
        source: item.source.clone(),
        weight: f64::from(item.weight),
        dwell_s: item.dwell_s,
        content,
        text_hmac: item.mark(owner).0.to_vec(),
        created: 0,
    }
}

/// A stored row as an item. What cannot be read was not written by this program.
pub(super) fn item(row: HistoryRow) -> Result<Item, UsersError> {
    let id = row.id;
    let damaged = |what: &str| UsersError::Internal(format!("history item {id} in the store has no {what}"));
    let text = |name: &str| row.content.get(name).and_then(Value::as_str).map(str::to_owned);
    let item = NewItem {
        text: text("text").ok_or_else(|| damaged("text"))?,
        input: text("input"),
        time: row.time.and_then(Timestamp::from_unix),
        weight: row.weight as f32,
        kind: Kind::parse(&row.kind).ok_or_else(|| damaged("known kind"))?,
        dwell_s: row.dwell_s,
        session: row.session.clone(),
        source: row.source.clone(),
    };
    Ok(Item { id, created: timestamp(row.created), item })
}

pub(super) fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_unix(seconds).unwrap_or(Timestamp::EPOCH)
}

/// The clock of this machine.
pub fn now() -> Timestamp {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    timestamp(i64::try_from(seconds).unwrap_or(0))
}

impl From<StoreError> for UsersError {
    fn from(error: StoreError) -> UsersError {
        match error {
            StoreError::Full { .. } => UsersError::DiskFull,
            StoreError::TooMany { what: "users", given, max } => UsersError::TooManyUsers { given, max },
            other => UsersError::Internal(other.to_string()),
        }
    }
}
