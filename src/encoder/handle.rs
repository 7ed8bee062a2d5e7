//! An encoder that may still be on its way: what a server holds.
//!
//! The first who asks starts a thread that finds the files, fetches them if need be, and loads them; nobody waits for it
//! on a request's path.

use super::error::EncoderError;
use super::{DEFAULT_ENCODER, Encoder};
use crate::digest::Digest;
use crate::limits::ENCODER_RETRY_SECONDS;
use crate::sync::lock;
use crate::weights::{Fetcher, Progress};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where the encoder comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The catalogue's default one, with the user's settings of cache and hub.
    Catalogue,
    /// A folder in the layout of sentence-transformers.
    Folder(PathBuf),
}

/// How far it is.
#[derive(Clone)]
pub enum State {
    /// Nobody has asked for it yet.
    Absent,
    Loading,
    Ready(Arc<Encoder>),
    /// Asking again a while after `at` tries again.
    Failed {
        reason: String,
        at: Instant,
    },
}

/// Shared by all who embed; cheap to clone.
#[derive(Clone)]
pub struct EncoderHandle {
    shared: Arc<Shared>,
}

struct Shared {
    source: Source,
    state: Mutex<State>,
    changed: Condvar,
}

impl EncoderHandle {
    /// Nothing is loaded before [`EncoderHandle::start`].
    pub fn new(source: Source) -> EncoderHandle {
        let shared = Shared { source, state: Mutex::new(State::Absent), changed: Condvar::new() };
        EncoderHandle { shared: Arc::new(shared) }
    }

    /// The encoder's name, loaded or not.
    pub fn name(&self) -> &'static str {
        DEFAULT_ENCODER
    }

    pub fn state(&self) -> State {
        lock(&self.shared.state).clone()
    }

    /// Begins to load on a thread of its own, unless that has happened. Returns at once, with the state as it is then.
    pub fn start(&self) -> State {
        let mut state = lock(&self.shared.state);
        let due = match &*state {
            State::Absent => true,
            State::Failed { at, .. } => at.elapsed() >= Duration::from_secs(ENCODER_RETRY_SECONDS),
            State::Loading | State::Ready(_) => false,
        };
        if due {
            *state = State::Loading;
            let shared = self.shared.clone();
            let spawned =
                std::thread::Builder::new().name("encoder load".into()).spawn(move || shared.load());
            if let Err(error) = spawned {
                *state = State::Failed { reason: error.to_string(), at: Instant::now() };
            }
        }
        drop(state);
        self.state()
    }

    /// The encoder if it is there; begins to load it if it is not.
    pub fn ready(&self) -> Option<Arc<Encoder>> {
        match self.start() {
            State::Ready(encoder) => Some(encoder),
            _ => None,
        }
    }

    /// Waits until the encoder is there or cannot be had. Not for async code.
    pub fn wait(&self) -> Result<Arc<Encoder>, String> {
        self.start();
        let loading = |state: &mut State| matches!(state, State::Absent | State::Loading);
        let state = self.shared.changed.wait_while(lock(&self.shared.state), loading);
        match &*state.unwrap_or_else(PoisonError::into_inner) {
            State::Ready(encoder) => Ok(encoder.clone()),
            State::Failed { reason, .. } => Err(reason.clone()),
            State::Absent | State::Loading => Err("the encoder is still loading".into()),
        }
    }
}

impl Shared {
    fn load(&self) {
        let loaded = std::panic::catch_unwind(|| find_and_load(&self.source))
            .unwrap_or_else(|_| Err("loading the encoder panicked".into()));
        *lock(&self.state) = match loaded {
            Ok(encoder) => State::Ready(Arc::new(encoder)),
            Err(reason) => {
                tracing::warn!("the sentence encoder is not available: {reason}");
                State::Failed { reason, at: Instant::now() }
            }
        };
        self.changed.notify_all();
    }
}

fn find_and_load(source: &Source) -> Result<Encoder, String> {
    let failed = |error: EncoderError| error.to_string();
    let (folder, expected): (PathBuf, Vec<(String, Digest)>) = match source {
        Source::Folder(folder) => (folder.clone(), Vec::new()),
        Source::Catalogue => {
            let fetcher = Fetcher::from_environment().map_err(|error| error.to_string())?;
            let folder = fetcher.locate_encoder(DEFAULT_ENCODER).map_err(|error| error.to_string())?;
            let expected = fetcher.encoder_digests(DEFAULT_ENCODER).map_err(|error| error.to_string())?;
            let folder = match folder {
                Some(folder) => folder,
                None => fetcher.pull_encoder(DEFAULT_ENCODER, &mut Logged).map_err(|error| {
                    format!("{error}; hint: `demeanor pull {DEFAULT_ENCODER}` where there is a network")
                })?,
            };
            (folder, expected)
        }
    };
    Encoder::load_checked(&folder, &expected).map_err(failed)
}

/// Progress of a fetch that nobody watches.
struct Logged;

impl Progress for Logged {
    fn note(&mut self, message: &str) {
        tracing::info!("{message}");
    }
    fn total(&mut self, _bytes: u64) {}
    fn advance(&mut self, _bytes: u64) {}
    fn done(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_is_a_state_with_its_reason() {
        let handle = EncoderHandle::new(Source::Folder("/no/such/encoder".into()));
        assert!(matches!(handle.state(), State::Absent));
        let reason = handle.wait().err().unwrap();
        assert!(reason.contains("/no/such/encoder/config.json"), "{reason}");
        // A second request within a moment does not try again.
        assert!(matches!(handle.start(), State::Failed { .. }));
        assert!(handle.ready().is_none());
    }
}
