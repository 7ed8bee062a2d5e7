//! What one choice thinks, told apart from what it says, and the count of its tokens.

use super::choice::Piece;
use crate::text::{Thinking, ThinkingTags, Thought};

/// Splits the pieces of a choice.
pub struct Thoughts {
    thinking: Thinking,
    tokens: u32,
}

impl Thoughts {
    /// The tags around thinking, where it is told apart, and whether the prompt ends inside a block.
    pub fn new(tags: Option<(ThinkingTags, bool)>) -> Thoughts {
        let (tags, opened) = tags.map_or((None, false), |(tags, opened)| (Some(tags), opened));
        Thoughts { thinking: Thinking::new(tags, opened), tokens: 0 }
    }

    /// Tokens up to the end of the thinking.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// A piece's text, and what was held back if it is the last. `generated`: tokens up to here.
    pub fn take(&mut self, piece: &Piece, generated: u32) -> Thought {
        let was_inside = self.thinking.is_inside();
        let mut thought = self.thinking.push(&piece.text);
        let is_inside = self.thinking.is_inside();
        if was_inside || is_inside || !thought.reasoning.is_empty() {
            self.tokens = generated;
        }
        if piece.finish.is_some() {
            let last = self.thinking.finish();
            thought.reasoning += &last.reasoning;
            thought.content += &last.content;
        }
        thought
    }
}
