//! What a sequence takes out of the prefix cache, and what it leaves there.

use super::Sequence;
use crate::digest::Digest;
use crate::engine::keys::{self, RowInput, RowKey};
use crate::engine::pages::Pages;
use crate::engine::request::{Usage, Want};
use crate::limits::PAGE_POSITIONS;
use crate::model::{Edits, PageId, Phase};
use std::ops::Range;

/// Rows that are worth the copy of a page: the copy costs about as much as computing one or two.
const COPIED_ROWS_MIN: usize = 4;

/// Digests of a request's edits in force, each computed once for all rows that it holds for.
#[derive(Default)]
pub(super) struct InForce {
    prompt: Option<Digest>,
    /// Of some response rows.
    response: (Range<u32>, Digest),
}

impl InForce {
    fn digest(&mut self, edits: &Edits, phase: Phase) -> Digest {
        let Phase::Response(i) = phase else {
            return *self.prompt.get_or_insert_with(|| edits.digest_in_force(phase));
        };
        let (rows, digest) = &mut self.response;
        if !rows.contains(&i) {
            *rows = i..edits.same_until(i);
            *digest = edits.digest_in_force(phase);
        }
        *digest
    }
}

impl Sequence {
    /// Whether the prefix cache may serve rows of this request: not when each prompt row must give something.
    pub fn reads_cache(&self) -> bool {
        let all_rows_needed = match &self.request.want {
            Want::Generate(generate) => generate.prompt_logprobs.is_some(),
            Want::Score(_) => false,
            Want::Capture(_) => true,
        };
        self.request.use_cache && (self.prefilled || !all_rows_needed)
    }

    /// Rows that may be kept for others: the continuations of a score are overwritten.
    fn keeps_rows_until(&self) -> usize {
        match self.request.want {
            _ if !self.request.use_cache => 0,
            Want::Score(_) => self.prompt_rows().min(self.computed),
            _ => self.computed,
        }
    }

    /// What the key of page `index` builds upon; pages before it have their keys.
    fn key_before(&self, index: usize) -> Digest {
        match index.checked_sub(1) {
            Some(before) => self.keys[before],
            None => keys::root(&self.request.cache_salt),
        }
    }

    /// Keys of known rows (rule 8: tokens, soft rows, the edits in force on each row).
    fn row_keys(&mut self, rows: Range<usize>) -> Vec<RowKey> {
        let key = |position: usize| RowKey {
            input: match self.token_index(position) {
                Some(token) => RowInput::Token(self.tokens[token]),
                None => RowInput::Soft(self.request.soft.digest(), position as u32 - self.request.soft_at),
            },
            edits: {
                let phase = self.phase(position);
                self.in_force.digest(&self.request.edits, phase)
            },
            owner: self.owner_of_row(position),
        };
        rows.map(key).collect()
    }

    /// Takes over what the prefix cache has of the known rows: full pages as they are, and of the page after them the rows
    /// that a kept page begins with, which `copy(from, to, rows)` copies. At least one row is left to compute.
    pub fn adopt(&mut self, cache: &mut Pages, mut copy: impl FnMut(PageId, PageId, usize)) {
        let most = self.known_rows() - 1;
        let (before, rows) = loop {
            let from = self.keys.len() * PAGE_POSITIONS;
            let rows = self.row_keys(from..most.min(from + PAGE_POSITIONS));
            let before = self.key_before(self.keys.len());
            if rows.len() < PAGE_POSITIONS {
                break (before, rows);
            }
            let key = keys::page_key(&before, &rows);
            let Some(page) = cache.hold(&key) else { break (before, rows) };
            self.pages.push(page);
            self.keys.push(key);
        };
        self.computed = self.pages.len() * PAGE_POSITIONS;
        if let Some((page, same)) = cache.hold_longest(&before, &rows) {
            if same >= COPIED_ROWS_MIN
                && let Some(own) = cache.take(self.owner_of_page(self.pages.len()))
            {
                copy(page, own, same);
                self.pages.push(own);
                self.computed += same;
            }
            cache.release(page);
        }
        if !self.prefilled {
            let is_token = |position: &usize| self.token_index(*position).is_some();
            self.usage.cached_tokens = (0..self.computed).filter(is_token).count() as u32;
        }
    }

    /// Keeps the pages that became full; each once.
    pub fn keep_full_pages(&mut self, cache: &mut Pages) {
        while (self.keys.len() + 1) * PAGE_POSITIONS <= self.keeps_rows_until() {
            let index = self.keys.len();
            let rows = self.row_keys(index * PAGE_POSITIONS..(index + 1) * PAGE_POSITIONS);
            let before = self.key_before(index);
            let key = keys::page_key(&before, &rows);
            cache.keep(self.pages[index], before, rows, Some(key));
            self.keys.push(key);
        }
    }

    /// Gives the pages back at the end; what stands in the last one, which is not full, is kept too.
    pub fn leave(mut self, cache: &mut Pages) -> Usage {
        let index = self.keys.len();
        let from = index * PAGE_POSITIONS;
        if !self.failed && from < self.keeps_rows_until() {
            let rows = self.row_keys(from..self.keeps_rows_until());
            cache.keep(self.pages[index], self.key_before(index), rows, None);
        }
        release(self.forget_pages(), cache);
        self.usage()
    }
}

/// Gives pages of one sequence back, the last first: of a sequence that is kept, the beginning is evicted last.
pub(in crate::engine) fn release(pages: Vec<PageId>, cache: &mut Pages) {
    pages.into_iter().rev().for_each(|page| cache.release(page));
}
