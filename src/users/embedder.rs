//! The thread that embeds history in the background: what came in larger parts, or before the encoder was there.

use super::history::{NewItem, embedding_text};
use super::identity::UserId;
use super::service::Inner;
use super::serving::bytes;
use crate::encoder::{Encoder, EncoderHandle};
use crate::limits;
use crate::store::{PendingItem, StoreError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Says that there is work; a word that is waiting already covers the next one.
pub(super) struct Wake(SyncSender<()>);

impl Wake {
    pub fn up(&self) {
        let _ = self.0.try_send(());
    }
}

pub(super) struct Embedder;

impl Embedder {
    pub fn channel() -> (Wake, Receiver<()>) {
        let (sender, receiver) = sync_channel(1);
        (Wake(sender), receiver)
    }

    /// Ends with the last handle to the users.
    pub fn start(inner: &Arc<Inner>, work: Receiver<()>) -> std::io::Result<()> {
        let (users, encoder) = (Arc::downgrade(inner), inner.encoder.clone());
        std::thread::Builder::new().name("embed".into()).spawn(move || run(&users, &encoder, &work))?;
        Ok(())
    }
}

fn run(users: &Weak<Inner>, encoder: &EncoderHandle, work: &Receiver<()>) {
    let retry = Duration::from_secs(limits::EMBEDDING_RETRY_SECONDS);
    let mut unfinished = false;
    loop {
        let word = match unfinished {
            false => work.recv().map_err(|_| RecvTimeoutError::Disconnected),
            true => work.recv_timeout(retry),
        };
        if word == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        // The users may be dropped while the encoder loads.
        unfinished = match encoder.wait() {
            Ok(encoder) => !embed_all(users, &encoder),
            Err(_) => true,
        };
    }
}

/// Embeds until nothing is left. False: something failed and is to be tried again.
fn embed_all(users: &Weak<Inner>, encoder: &Encoder) -> bool {
    loop {
        let Some(inner) = users.upgrade() else { return true };
        // Read before the items: whoever begins a new life after this moment is left alone.
        let moment = inner.lives.now();
        let digest = encoder.digest().to_string();
        let pending =
            inner.store.items_without_embedding(&inner.tenant, &digest, limits::EMBEDDING_ITEMS_READ);
        drop(inner);
        let pending = match pending {
            Ok(pending) if pending.is_empty() => return true,
            Ok(pending) => pending,
            Err(error) => {
                tracing::error!(%error, "history that is to be embedded could not be read");
                return false;
            }
        };
        for batch in pending.chunks(limits::EMBEDDING_BATCH) {
            // Dropped between batches, so that the last handle elsewhere ends this thread soon.
            let Some(inner) = users.upgrade() else { return true };
            if !inner.embed_batch(encoder, batch, moment) {
                return false;
            }
        }
    }
}

impl Inner {
    /// Embeds items and stores the result, user by user.
    fn embed_batch(&self, encoder: &Encoder, batch: &[PendingItem], moment: u64) -> bool {
        let texts: Vec<String> = batch.iter().map(text_of).collect();
        let embeddings = match encoder.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>()) {
            Ok(embeddings) => embeddings,
            Err(error) => {
                tracing::error!(%error, "history could not be embedded");
                return false;
            }
        };
        let mut of: BTreeMap<&str, Vec<(i64, Vec<u8>)>> = BTreeMap::new();
        for (item, embedding) in batch.iter().zip(&embeddings) {
            of.entry(&item.user).or_default().push((item.id, bytes(embedding)));
        }
        for (user, embeddings) in of {
            // Not a name that this program would have stored.
            let Ok(id) = UserId::parse(user, "id") else { return false };
            if let Err(error) = self.put_embeddings(&id, encoder, embeddings, moment) {
                tracing::error!(%error, "embeddings could not be stored");
                return false;
            }
        }
        true
    }

    fn put_embeddings(
        &self,
        id: &UserId,
        encoder: &Encoder,
        embeddings: Vec<(i64, Vec<u8>)>,
        moment: u64,
    ) -> Result<(), StoreError> {
        let _turn = self.turn(id);
        if self.lives.began_after(id, moment) {
            return Ok(());
        }
        let digest = encoder.digest().to_string();
        self.store.put_embeddings(&self.tenant, id.as_str(), &digest, embeddings)?;
        let Some(user) = self.store.user(&self.tenant, id.as_str())? else { return Ok(()) };
        if self.store.embedded_count(&self.tenant, id.as_str(), &digest)? == user.items as u64 {
            self.make_prompt(id);
        }
        Ok(())
    }

    /// Embeddings of a few new items, if the encoder is there; with the encoder's digest.
    pub fn embed_few(&self, items: &[NewItem]) -> Option<(String, Vec<Vec<u8>>)> {
        let encoder = self.encoder.ready().filter(|_| items.len() <= limits::HISTORY_EMBEDDED_INLINE_MAX)?;
        let texts: Vec<String> =
            items.iter().map(|item| embedding_text(item.input.as_deref(), &item.text)).collect();
        match encoder.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>()) {
            Ok(embeddings) => Some((
                encoder.digest().to_string(),
                embeddings.iter().map(|embedding| bytes(embedding)).collect(),
            )),
            Err(error) => {
                tracing::error!(%error, "new history could not be embedded");
                None
            }
        }
    }
}

fn text_of(item: &PendingItem) -> String {
    let text = |name: &str| item.content.get(name).and_then(Value::as_str);
    embedding_text(text("input"), text("text").unwrap_or_default())
}
