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
    /// A function is to be called.
    ToolCalls,
}

impl Finish {
    pub fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::ToolCalls => "tool_calls",
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
    /// The stop string that ended the choice.
    pub stop: Option<String>,
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
    /// Shared by all choices of a request.
    pub stop_strings: Arc<[String]>,
    pub stop_tokens: Arc<[u32]>,
    /// Completions list the end token among the log-probabilities, chats do not.
    pub lists_end_token: bool,
    /// Control tokens that are part of the text: tags around thinking.
    pub shown: Arc<[u32]>,
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
            decoder: StreamDecoder::showing(rules.tokenizer.clone(), rules.shown.clone()),
            stops: StopStrings::new(rules.stop_strings.to_vec()),
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
        let stop = stopped.hit.and_then(|index| self.rules.stop_strings.get(index).cloned());
        Piece { text, entries, finish: hit.then_some(Finish::Stop), stop }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::fixtures::bytes_alone;
    use proptest::prelude::*;

    const END: u32 = 256;

    fn rules(stops: &[&str], lists_end_token: bool) -> ChoiceRules {
        ChoiceRules {
            tokenizer: Arc::new(bytes_alone()),
            stop_strings: stops.iter().map(|stop| stop.to_string()).collect(),
            stop_tokens: Arc::from([END]),
            lists_end_token,
            shown: Arc::default(),
        }
    }

    fn token(id: u32) -> Option<TokenLogprob> {
        Some(TokenLogprob { id, logprob: -1.0, top: vec![] })
    }

    /// Text, ids of the listed tokens with their offsets, and the finish.
    type Told = (String, Vec<(u32, usize)>, Option<Finish>);

    fn run(rules: &ChoiceRules, ids: &[u32], end: Finish) -> Told {
        let mut choice = Choice::new(rules);
        let (mut text, mut listed, mut finish) = (String::new(), Vec::new(), None);
        let mut take = |piece: Piece| {
            text += &piece.text;
            listed.extend(piece.entries.iter().map(|entry| (entry.token.id, entry.offset)));
            finish = finish.or(piece.finish);
        };
        for id in ids {
            take(choice.push(*id, token(*id)));
            if choice.finished() {
                return (text, listed, finish);
            }
        }
        take(choice.finish(end));
        (text, listed, finish)
    }

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    #[test]
    fn log_probabilities_come_with_their_text_and_not_with_the_stop() {
        let ids = bytes("abXYcd");
        let mut choice = Choice::new(&rules(&["ab ", "XY"], false));
        let stop = ids.iter().find_map(|id| choice.push(*id, None).stop);
        assert_eq!(stop.as_deref(), Some("XY"));
        let (text, listed, finish) = run(&rules(&["XY"], false), &ids, Finish::Length);
        assert_eq!((text.as_str(), finish), ("ab", Some(Finish::Stop)));
        assert_eq!(listed, [(97, 0), (98, 1)]);
        let (text, listed, finish) = run(&rules(&["XZ"], false), &bytes("abX"), Finish::Length);
        assert_eq!((text.as_str(), finish), ("abX", Some(Finish::Length)));
        assert_eq!(listed.len(), 3);
    }

    #[test]
    fn the_end_token_is_listed_for_completions_only() {
        for lists in [false, true] {
            let (text, listed, finish) = run(&rules(&[], lists), &[97, END], Finish::Stop);
            assert_eq!((text.as_str(), finish), ("a", Some(Finish::Stop)));
            assert_eq!(listed.len(), 1 + usize::from(lists));
        }
    }

    #[test]
    fn a_character_in_several_tokens_is_shown_whole() {
        let mut choice = Choice::new(&rules(&[], false));
        let ids = bytes("é");
        assert_eq!(choice.push(ids[0], token(ids[0])), Piece::default());
        let piece = choice.push(ids[1], token(ids[1]));
        assert_eq!(piece.text, "é");
        assert_eq!(piece.entries.len(), 2);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled(text in "[a-cé🙂]{0,20}", stop in "[a-c]{1,3}") {
            let (shown, listed, finish) = run(&rules(&[&stop], false), &bytes(&text), Finish::Length);
            let wanted = text.find(&stop).map_or(text.as_str(), |at| &text[..at]);
            prop_assert_eq!(&shown, wanted);
            prop_assert_eq!(finish, Some(if wanted.len() < text.len() { Finish::Stop } else { Finish::Length }));
            prop_assert_eq!(listed.len(), wanted.len());
        }
    }
}
