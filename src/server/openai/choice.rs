//! One choice of an answer: from drawn tokens to text that may be shown, with the log-probabilities that belong to it.

use crate::engine::TokenLogprob;
use crate::text::{StopStrings, StreamDecoder, Tokenizer};
use std::collections::VecDeque;
use std::sync::Arc;

/// Why a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token was drawn or a stop string appeared.
    Stop,
    Length,
}

impl Finish {
    pub fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

/// A token's log-probabilities and where its text begins, in characters of this choice's text.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub token: TokenLogprob,
    pub offset: usize,
}

/// What became certain by one event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    pub text: String,
    pub entries: Vec<Entry>,
    pub finish: Option<Finish>,
}

impl Piece {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.entries.is_empty() && self.finish.is_none()
    }
}

/// How a choice treats what the engine draws.
#[derive(Clone)]
pub struct ChoiceRules {
    pub tokenizer: Arc<Tokenizer>,
    pub stop_strings: Vec<String>,
    pub stop_tokens: Arc<[u32]>,
    /// Completions list the end token among the log-probabilities, chats do not.
    pub lists_end_token: bool,
}

/// Text is held back while it could be the beginning of a stop string or of a character; log-probabilities wait with
/// their text.
pub struct Choice {
    rules: ChoiceRules,
    decoder: StreamDecoder,
    stops: StopStrings,
    waiting: VecDeque<Entry>,
    decoded_chars: usize,
    shown_chars: usize,
    tokens: u32,
    finished: bool,
}

impl Choice {
    pub fn new(rules: &ChoiceRules) -> Choice {
        Choice {
            decoder: StreamDecoder::new(rules.tokenizer.clone()),
            stops: StopStrings::new(rules.stop_strings.clone()),
            rules: rules.clone(),
            waiting: VecDeque::new(),
            decoded_chars: 0,
            shown_chars: 0,
            tokens: 0,
            finished: false,
        }
    }

    /// Drawn tokens, the end token included.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    pub fn finished(&self) -> bool {
        self.finished
    }

    /// A drawn token. A stop string in its text ends the choice.
    pub fn push(&mut self, id: u32, logprob: Option<TokenLogprob>) -> Piece {
        self.tokens += 1;
        let is_end = self.rules.stop_tokens.contains(&id);
        if let Some(token) = logprob.filter(|_| !is_end || self.rules.lists_end_token) {
            self.waiting.push_back(Entry { token, offset: self.decoded_chars });
        }
        if is_end {
            return Piece::default();
        }
        let decoded = self.decoder.push(id);
        self.take(&decoded, false)
    }

    /// The engine has ended the sequence.
    pub fn finish(&mut self, finish: Finish) -> Piece {
        let rest = self.decoder.finish();
        let mut piece = self.take(&rest, true);
        self.finished = true;
        piece.finish.get_or_insert(finish);
        piece
    }

    fn take(&mut self, decoded: &str, last: bool) -> Piece {
        self.decoded_chars += decoded.chars().count();
        let stopped = self.stops.push(decoded);
        let mut text = stopped.emit;
        let hit = stopped.hit.is_some();
        if last && !hit {
            text += &self.stops.finish();
        }
        self.shown_chars += text.chars().count();
        self.finished |= hit;
        let mut entries = Vec::new();
        while let Some(entry) = self.waiting.front() {
            let shown = entry.offset < self.shown_chars || (last && !hit);
            if !shown {
                break;
            }
            entries.extend(self.waiting.pop_front());
        }
        Piece { text, entries, finish: hit.then_some(Finish::Stop) }
    }
}
