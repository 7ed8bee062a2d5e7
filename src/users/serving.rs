//! The soft prompt of a user at serving time: from memory, else from the store, else made from the embedded history.

use super::UsersError;
use super::identity::UserId;
use super::memory::{Kept, KeptForm, KeptItem};
use super::projector::{Form, Projector, UserRows, WeightedEmbedding};
use super::prompt::UserPrompt;
use super::recency::Recency;
use super::service::{Inner, now, timestamp};
use crate::digest::Digest;
use crate::encoder::EncoderState;
use crate::model::SoftRows;
use crate::store::{PromptItemRow, SoftPromptRow, UserRow};
use serde_json::{Value, json};
use std::sync::Arc;

const NO_PROJECTOR: &str = "there is no projector for this model, so users have no soft prompt; \
    `demeanor embed train` makes one, `--projector FILE` loads it";

/// A prompt, or why there is none.
type Found = Result<Kept, String>;

impl Inner {
    /// From memory, without store and encoder.
    pub fn prompt_at_hand(&self, id: &UserId) -> Option<UserPrompt> {
        let kept = self.memory.get(id)?;
        let is_quick = matches!(kept.form, KeptForm::Rows { .. });
        (is_quick && kept.as_of_day == self.recency.as_of_day(now())).then(|| self.answer(id, kept, None))
    }

    pub fn prompt_for(&self, id: &UserId, query: Option<&str>) -> UserPrompt {
        let today = self.recency.as_of_day(now());
        if let Some(kept) = self.memory.get(id)
            && kept.as_of_day == today
        {
            return self.answer(id, kept, query);
        }
        let turn = self.turn(id);
        let found = self.load(id);
        drop(turn);
        match found {
            Ok(None) => UserPrompt::Unknown,
            Ok(Some(Ok(kept))) => self.answer(id, kept, query),
            Ok(Some(Err(why))) => UserPrompt::NotReady(why),
            Err(error) => {
                tracing::error!(%error, "a user's soft prompt could not be read");
                UserPrompt::NotReady("the user's data could not be read; the server's log says why".into())
            }
        }
    }

    /// Makes a user's prompt anew after a change of the history; the caller has the user's turn. Failures are logged:
    /// the change itself is durable, and the next request tries again.
    pub fn make_prompt(&self, id: &UserId) {
        self.memory.remove(id);
        if let Err(error) = self.load(id) {
            tracing::error!(%error, "a user's soft prompt could not be made");
        }
    }

    /// From the store, or made; kept in memory while it is of the whole history. `None`: there is no such user. The
    /// caller has the user's turn.
    fn load(&self, id: &UserId) -> Result<Option<Found>, UsersError> {
        let Some(user) = self.store.user(&self.tenant, id.as_str())? else { return Ok(None) };
        let Some(projector) = &self.projector else { return Ok(Some(Err(NO_PROJECTOR.into()))) };
        let stored = match projector.form() {
            Form::Static => self.stored(id, projector)?,
            Form::InputAware => None,
        };
        if let Some(stored) = &stored
            && stored.version == user.version
            && stored.as_of_day == self.recency.as_of_day(now())
        {
            self.memory.put(id, stored.clone());
            return Ok(Some(Ok(stored.clone())));
        }
        let embedded = self.embedded(id)?;
        if embedded < user.items as u64 {
            // The whole history or an earlier whole history, never a part of it.
            let missing = user.items as u64 - embedded;
            return Ok(Some(stored.ok_or_else(|| self.why_not_embedded(projector, missing, user.items))));
        }
        self.make(id, projector)
    }

    /// The stored prompt, if this projector made it with this recency.
    fn stored(&self, id: &UserId, projector: &Projector) -> Result<Option<Kept>, UsersError> {
        let weights = self.engine.info().weights_digest.to_string();
        let row = self.store.soft_prompt(&self.tenant, &id.owner(), &weights)?;
        let d_model = self.engine.info().d_model as usize;
        Ok(row.and_then(|row| {
            let made_so = row.spec.get("projector").and_then(Value::as_str)
                == Some(projector.digest().to_string().as_str())
                && row.spec.get("recency").and_then(Value::as_str) == Some(self.recency.label().as_str());
            let rows = SoftRows::new(floats(&row.data), usize::try_from(row.rows).ok()?, d_model)?;
            let effect = row.spec.get("effect").and_then(Value::as_bool)?;
            let as_of_day = row.spec.get("as_of_day").and_then(Value::as_i64);
            let form = KeptForm::Rows { rows, effect };
            let kept = Kept { version: row.version, owner: self.owner(id), form, as_of_day };
            made_so.then_some(kept)
        }))
    }

    /// From the embedded items.
    fn make(&self, id: &UserId, projector: &Projector) -> Result<Option<Found>, UsersError> {
        let encoder = projector.encoder().to_string();
        let Some((user, items)) = self.store.prompt_items(&self.tenant, id.as_str(), &encoder)? else {
            return Ok(None);
        };
        let as_of_day = self.recency.as_of_day(now());
        let items = weighted(&items, projector.form(), self.recency, as_of_day)?;
        let form = match projector.form() {
            Form::InputAware => KeptForm::Items(Arc::new(items)),
            Form::Static => {
                let prompt = projector.static_prompt(&views(&items));
                let effect = prompt.effect;
                let rows = soft_rows(prompt, projector)?;
                if !items.is_empty() {
                    let row = self.row(id, &user, projector, &rows, effect, as_of_day);
                    self.store.put_soft_prompt(&self.tenant, row)?;
                }
                KeptForm::Rows { rows, effect }
            }
        };
        let kept = Kept { version: user.version, owner: self.owner(id), form, as_of_day };
        self.memory.put(id, kept.clone());
        Ok(Some(Ok(kept)))
    }

    fn owner(&self, id: &UserId) -> Digest {
        id.owner_digest(self.lives.of(id))
    }

    fn row(
        &self,
        id: &UserId,
        user: &UserRow,
        projector: &Projector,
        rows: &SoftRows,
        effect: bool,
        as_of_day: Option<i64>,
    ) -> SoftPromptRow {
        let spec = json!({
            "projector": projector.digest().to_string(),
            "encoder": projector.encoder().to_string(),
            "items": user.items,
            "effect": effect,
            "recency": self.recency.label(),
            "as_of_day": as_of_day,
        });
        SoftPromptRow {
            owner: id.owner(),
            weights_digest: self.engine.info().weights_digest.to_string(),
            version: user.version,
            rows: rows.len() as i64,
            d_model: i64::from(self.engine.info().d_model),
            data: bytes(rows.values()),
            spec,
        }
    }

    fn why_not_embedded(&self, projector: &Projector, missing: u64, items: i64) -> String {
        let why = match self.encoder.start() {
            EncoderState::Failed { reason, .. } => format!(": {reason}"),
            EncoderState::Ready(encoder) if encoder.digest() != projector.encoder() => format!(
                ": the projector reads embeddings of encoder {} ({}), loaded is {} ({})",
                projector.encoder().short(12),
                projector.encoder_name(),
                encoder.digest().short(12),
                encoder.name()
            ),
            _ => String::new(),
        };
        format!("{missing} of {items} history items are not embedded yet{why}")
    }

    fn answer(&self, id: &UserId, kept: Kept, query: Option<&str>) -> UserPrompt {
        let (rows, effect) = match (&kept.form, &self.projector) {
            (KeptForm::Rows { rows, effect }, _) => (rows.clone(), *effect),
            (KeptForm::Items(_), None) => return UserPrompt::NotReady(NO_PROJECTOR.into()),
            (KeptForm::Items(items), Some(projector)) => match self.for_query(projector, items, query) {
                Ok(found) => found,
                Err(why) => return UserPrompt::NotReady(why),
            },
        };
        UserPrompt::Ready { rows, label: format!("{id}@{}", kept.version), effect, owner: kept.owner }
    }

    /// Rows that depend on the request; without a query the ones of nobody in particular.
    fn for_query(
        &self,
        projector: &Projector,
        items: &[KeptItem],
        query: Option<&str>,
    ) -> Result<(SoftRows, bool), String> {
        let prompt = match query {
            None => projector.static_prompt(&views(items)),
            Some(query) => {
                let embedding = self.embed_query(projector, query)?;
                projector.input_aware_prompt(&views(items), &embedding)
            }
        };
        let effect = prompt.effect;
        soft_rows(prompt, projector).map(|rows| (rows, effect)).map_err(|error| error.to_string())
    }

    fn embed_query(&self, projector: &Projector, query: &str) -> Result<Vec<f32>, String> {
        match self.encoder.start() {
            EncoderState::Ready(encoder) if encoder.digest() == projector.encoder() => {
                let embedded = encoder.embed(&[query]).map_err(|error| error.to_string())?;
                embedded.into_iter().next().ok_or_else(|| "the encoder gave nothing".to_owned())
            }
            EncoderState::Ready(_) => Err("the loaded encoder is not the one of the projector".into()),
            EncoderState::Failed { reason, .. } => {
                Err(format!("the sentence encoder is not available: {reason}"))
            }
            EncoderState::Absent | EncoderState::Loading => {
                Err("the sentence encoder is still loading".into())
            }
        }
    }

    /// Items of a user that are embedded for the projector, or without one by the loaded encoder.
    pub fn embedded(&self, id: &UserId) -> Result<u64, UsersError> {
        match self.encoder_digest() {
            Some(digest) => Ok(self.store.embedded_count(&self.tenant, id.as_str(), &digest.to_string())?),
            None => Ok(0),
        }
    }

    pub fn encoder_digest(&self) -> Option<Digest> {
        match (&self.projector, self.encoder.state()) {
            (Some(projector), _) => Some(projector.encoder()),
            (None, EncoderState::Ready(encoder)) => Some(encoder.digest()),
            (None, _) => None,
        }
    }
}

/// Every item with its embedding and the weight that counts.
fn weighted(
    items: &[PromptItemRow],
    form: Form,
    recency: Recency,
    as_of_day: Option<i64>,
) -> Result<Vec<KeptItem>, UsersError> {
    let one = |item: &PromptItemRow| {
        let embedding = item.embedding.as_deref().map(floats).unwrap_or_default();
        if embedding.is_empty() || embedding.iter().any(|value| !value.is_finite()) {
            let message = format!("the stored embedding of history item {} is damaged", item.id);
            return Err(UsersError::Internal(message));
        }
        let day = timestamp(item.time.unwrap_or(item.created)).day();
        let factor = match (form, as_of_day) {
            // Attention chooses the items there.
            (Form::InputAware, _) | (_, None) => 1.0,
            (Form::Static, Some(as_of_day)) => recency.factor(day, as_of_day),
        };
        Ok(KeptItem { embedding, weight: item.weight as f32 * factor })
    };
    items.iter().map(one).collect()
}

fn views<'a>(items: &'a [KeptItem]) -> Vec<WeightedEmbedding<'a>> {
    let view = |item: &'a KeptItem| WeightedEmbedding { embedding: &item.embedding, weight: item.weight };
    items.iter().map(view).collect()
}

fn soft_rows(prompt: UserRows, projector: &Projector) -> Result<SoftRows, UsersError> {
    SoftRows::new(prompt.values, prompt.k, projector.d_model())
        .ok_or_else(|| UsersError::Internal("the projector gave rows that are not finite".into()))
}

/// f32 values in little-endian order, as the store keeps them.
pub(super) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// What [`bytes`] wrote.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}
