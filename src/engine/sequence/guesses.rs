//! Rows of guessed tokens in a sequence: how many a step gets, and which turned out right.

use super::Sequence;
use crate::engine::request::Want;
use crate::model::{Input, Row, TokenId};

impl Sequence {
    /// Guesses tokens beyond the next one, to be checked in the same step by rows after those that are ready. Returns how
    /// many, at most `most`. A mask needs to know the token before, so constrained answers have no guesses.
    pub fn guess(&mut self, most: usize) -> usize {
        match &self.request.want {
            Want::Generate(generate) if self.masks.is_none() => {
                let left = generate.tokens_max.saturating_sub(self.generated + 1) as usize;
                self.drafts.guess(&self.tokens, most.min(left))
            }
            _ => 0,
        }
    }

    /// Whether a row feeds what stands at its position: a guess does if its token was drawn meanwhile.
    pub(super) fn holds(&self, row: &Row) -> bool {
        match (row.input, self.token_index(row.position as usize)) {
            (Input::Token(id), Some(index)) => self.tokens.get(index) == Some(&id),
            _ => true,
        }
    }

    /// The token at an index, a guessed one behind those that are known.
    pub(super) fn token(&self, index: usize) -> TokenId {
        match index.checked_sub(self.tokens.len()) {
            None => self.tokens[index],
            Some(guess) => self.drafts.token(guess),
        }
    }
}
