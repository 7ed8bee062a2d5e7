//! Which entries of a lorebook are in force in a chat, within the budget of tokens.

use super::lorebook::{Entry, Key, Lorebook};
use super::macros::{Names, expand};
use crate::limits;
use std::collections::BTreeMap;

/// The chat as far as entries look at it.
#[derive(Clone, Copy)]
pub struct Said<'a> {
    /// What user and assistant said, oldest first.
    pub texts: &'a [&'a str],
    /// How many of them are the assistant's.
    pub answers: u32,
}

/// Which entries count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that the chat calls for.
    Called,
    /// All, as far as the budget goes: how the probe reads a card.
    All,
}

/// Entries in force, placeholders replaced, in the order in which they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// Those that are in force in every chat.
    pub constant: Vec<String>,
    pub called: Vec<String>,
    /// Entries that the chat called for and the budget had no room for.
    pub left_out: usize,
    /// Whether all of them are among those that [`Which::All`] gives.
    pub are_probed: bool,
}

impl Entry {
    /// Whether no chat can change that it is in force.
    fn is_always(&self) -> bool {
        self.forced
            || (self.constant
                && self.also.is_empty()
                && self.excluded.is_empty()
                && self.after_answers.is_none()
                && self.every_answers.is_none())
    }
}

impl Lorebook {
    /// `tokens` counts those of a text.
    pub fn in_force<E>(
        &self,
        said: Said<'_>,
        which: Which,
        names: Names<'_>,
        tokens: &dyn Fn(&str) -> Result<usize, E>,
    ) -> Result<InForce, E> {
        let all: Vec<usize> = (0..self.entries.len()).collect();
        let wanted = match which {
            Which::All => all.clone(),
            Which::Called => self.called(said),
        };
        let kept = self.within_budget(&wanted, names, tokens)?;
        let are_probed = match which {
            Which::All => true,
            Which::Called if kept.is_empty() => true,
            Which::Called => {
                let probed = self.within_budget(&all, names, tokens)?;
                kept.keys().all(|index| probed.contains_key(index))
            }
        };
        let left_out = wanted.len() - kept.len();
        let mut found: Vec<(&Entry, String)> =
            kept.into_iter().map(|(index, text)| (&self.entries[index], text)).collect();
        // Entries of one place and order stay in the card's.
        found.sort_by(|(a, _), (b, _)| b.before.cmp(&a.before).then(a.order.total_cmp(&b.order)));
        let (constant, called): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(entry, _)| entry.is_always());
        let texts = |found: Vec<(&Entry, String)>| found.into_iter().map(|(_, text)| text).collect();
        Ok(InForce { constant: texts(constant), called: texts(called), left_out, are_probed })
    }

    /// The entries of `wanted` that fit, by index, with their texts: those of every chat first, then by priority. Where
    /// one has no room, those behind it are left out too.
    fn within_budget<E>(
        &self,
        wanted: &[usize],
        names: Names<'_>,
        tokens: &dyn Fn(&str) -> Result<usize, E>,
    ) -> Result<BTreeMap<usize, String>, E> {
        let mut ranked: Vec<(usize, &Entry)> =
            wanted.iter().map(|index| (*index, &self.entries[*index])).collect();
        ranked.sort_by(|(_, a), (_, b)| {
            b.is_always().cmp(&a.is_always()).then(b.priority.total_cmp(&a.priority))
        });
        let mut room = self.token_budget as usize;
        let mut kept = BTreeMap::new();
        for (index, entry) in ranked {
            let text = expand(&entry.content, names);
            // A token takes some bytes: what is far too long is not counted.
            let count = if text.len() / 64 > room { usize::MAX } else { tokens(&text)? };
            match room.checked_sub(count) {
                Some(rest) => room = rest,
                None => break,
            }
            kept.insert(index, text);
        }
        Ok(kept)
    }

    /// Indices of the entries that the chat calls for, ascending.
    fn called(&self, said: Said<'_>) -> Vec<usize> {
        let mut windows = Windows { said: said.texts, by_depth: BTreeMap::new() };
        let mut called = vec![false; self.entries.len()];
        for (found, entry) in called.iter_mut().zip(&self.entries) {
            let window = windows.of(entry.scan_depth.unwrap_or(self.scan_depth));
            *found = is_called(entry, window, said.answers);
        }
        let rounds = if self.recursive { limits::LORE_ROUNDS_MAX } else { 0 };
        let mut news: Vec<usize> = indices(&called);
        for _ in 0..rounds {
            let contents: Vec<&str> =
                news.iter().map(|index| self.entries[*index].content.as_str()).collect();
            let window = Window::of(&contents);
            news.clear();
            for (index, entry) in self.entries.iter().enumerate() {
                if !called[index] && is_called(entry, &window, said.answers) {
                    news.push(index);
                }
            }
            if news.is_empty() {
                break;
            }
            news.iter().for_each(|index| called[*index] = true);
        }
        indices(&called)
    }
}

fn indices(flags: &[bool]) -> Vec<usize> {
    flags.iter().enumerate().filter(|(_, flag)| **flag).map(|(index, _)| index).collect()
}

fn is_called(entry: &Entry, window: &Window, answers: u32) -> bool {
    if entry.forced {
        return true;
    }
    let occurs = |keys: &[Key]| keys.iter().any(|key| key.occurs_in(&window.text, &window.folded));
    (entry.constant || occurs(&entry.keys))
        && entry.also.iter().all(|keys| occurs(keys))
        && !occurs(&entry.excluded)
        && entry.after_answers.is_none_or(|least| answers >= least)
        && entry.every_answers.is_none_or(|every| answers.is_multiple_of(every))
}

/// The end of a chat that keys are looked for in.
struct Window {
    text: String,
    folded: String,
}

impl Window {
    fn of(texts: &[&str]) -> Window {
        let mut kept: Vec<&str> = Vec::new();
        let mut room = limits::LORE_SCANNED_BYTES_MAX;
        for text in texts.iter().rev() {
            let least = text.len().saturating_sub(room);
            let from = (least..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
            kept.push(&text[from..]);
            // Not to the byte where a character is cut off.
            room -= text.len() - least;
            if room == 0 {
                break;
            }
        }
        kept.reverse();
        let text = kept.join("\n");
        Window { folded: text.to_lowercase(), text }
    }
}

/// Windows by their depth in messages.
struct Windows<'a> {
    said: &'a [&'a str],
    by_depth: BTreeMap<usize, Window>,
}

impl Windows<'_> {
    fn of(&mut self, depth: u32) -> &Window {
        let depth = (depth as usize).min(self.said.len());
        let said = &self.said[self.said.len() - depth..];
        self.by_depth.entry(depth).or_insert_with(|| Window::of(said))
    }
}
