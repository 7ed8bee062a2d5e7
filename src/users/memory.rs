//! Soft prompts of users kept in memory, so that a returning user costs no read: bounded, least recently used first out.

use super::identity::UserId;
use crate::digest::Digest;
use crate::limits;
use crate::model::SoftRows;
use crate::sync::lock;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

/// What a request of a user needs.
#[derive(Clone)]
pub(super) struct Kept {
    /// Of the history that it was made from.
    pub version: i64,
    /// The user in the life that it was made in.
    pub owner: Digest,
    pub form: KeptForm,
    /// Day (UTC, since 1970) that recency was counted from, where it counts.
    pub as_of_day: Option<i64>,
}

#[derive(Clone)]
pub(super) enum KeptForm {
    Rows {
        rows: SoftRows,
        effect: bool,
    },
    /// For projectors that look at the request.
    Items(Arc<Vec<KeptItem>>),
}

pub(super) struct KeptItem {
    /// `[width]`, wiped when the last holder is gone.
    pub embedding: Vec<f32>,
    pub weight: f32,
}

impl Drop for KeptItem {
    fn drop(&mut self) {
        self.embedding.fill(0.0);
        // Else the compiler sees that nobody reads the zeros.
        std::hint::black_box(&self.embedding);
    }
}

impl Kept {
    fn bytes(&self) -> usize {
        match &self.form {
            KeptForm::Rows { rows, .. } => rows.bytes(),
            KeptForm::Items(items) => items.iter().map(|item| item.embedding.len() * 4 + 32).sum(),
        }
    }
}

#[derive(Default)]
pub(super) struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    kept: HashMap<UserId, (u64, Kept)>,
    /// Users by the time of their last request.
    by_use: BTreeMap<u64, UserId>,
    clock: u64,
    bytes: usize,
}

impl Memory {
    pub fn get(&self, id: &UserId) -> Option<Kept> {
        let mut state = lock(&self.0);
        state.clock += 1;
        let now = state.clock;
        let (used, kept) = state.kept.get_mut(id)?;
        let (before, kept) = (std::mem::replace(used, now), kept.clone());
        state.by_use.remove(&before);
        state.by_use.insert(now, id.clone());
        Some(kept)
    }

    pub fn put(&self, id: &UserId, kept: Kept) {
        let mut state = lock(&self.0);
        state.remove(id);
        state.clock += 1;
        let now = state.clock;
        state.bytes += kept.bytes();
        state.by_use.insert(now, id.clone());
        state.kept.insert(id.clone(), (now, kept));
        while state.bytes > limits::USER_PROMPTS_IN_MEMORY_BYTES_MAX {
            let Some(oldest) = state.by_use.first_key_value().map(|(_, id)| id.clone()) else { break };
            state.remove(&oldest);
        }
    }

    pub fn remove(&self, id: &UserId) {
        lock(&self.0).remove(id);
    }
}

impl State {
    fn remove(&mut self, id: &UserId) {
        if let Some((used, kept)) = self.kept.remove(id) {
            self.by_use.remove(&used);
            self.bytes -= kept.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> UserId {
        UserId::parse(&format!("u{n}"), "id").unwrap()
    }

    /// Takes a quarter of the memory.
    fn quarter(version: i64) -> Kept {
        let n = limits::USER_PROMPTS_IN_MEMORY_BYTES_MAX / 4 / (1024 + 32);
        let items = (0..n).map(|_| KeptItem { embedding: vec![1.0; 256], weight: 1.0 }).collect();
        Kept { version, owner: Digest::default(), form: KeptForm::Items(Arc::new(items)), as_of_day: None }
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let memory = Memory::default();
        (0..4).for_each(|n| memory.put(&id(n), quarter(1)));
        assert!(memory.get(&id(0)).is_some());
        memory.put(&id(4), quarter(1));
        assert!(memory.get(&id(1)).is_none());
        assert_eq!([0, 2, 3, 4].map(|n| memory.get(&id(n)).is_some()), [true; 4]);
        // One of a user replaces the other.
        memory.put(&id(4), quarter(2));
        assert_eq!(memory.get(&id(4)).unwrap().version, 2);
        assert!(memory.get(&id(2)).is_some());
        memory.remove(&id(2));
        assert!(memory.get(&id(2)).is_none());
        memory.put(&id(5), quarter(1));
        assert!(memory.get(&id(0)).is_some());
    }
}
