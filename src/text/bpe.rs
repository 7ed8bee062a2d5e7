//! Byte pair encoding on token ids: a word becomes symbols, and the pair of lowest rank is merged until none is left.
//!
//! Our own instead of the tokenizers crate's model: that one keeps each token as two strings, needs merges as pairs of
//! strings (gemma's 262,144 tokens imply more than half a million) and keeps 40 bytes and a string per symbol of a word,
//! where a word may be a whole text.

use super::hash::Lookup;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No symbol: end of a list, or one that was merged away.
const NONE: u32 = u32::MAX;

/// `left` and `right`, adjacent, become `merged`. Merges are listed best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    pub left: u32,
    pub right: u32,
    pub merged: u32,
}

/// `pair(left, right)` -> (rank, merged).
type Merges = Lookup<u64, (u32, u32)>;

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// What stands for characters (or bytes) without a token.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unknown {
    /// Without one they are left out, as the tokenizers this follows do.
    pub id: Option<u32>,
    /// Whether one stands for a whole run of them.
    pub fuse: bool,
}

/// How a word becomes its first symbols.
pub(super) enum Alphabet {
    /// One symbol a byte.
    Bytes { bytes: [Option<u32>; 256], unknown: Unknown },
    /// One symbol a character; for a character without a token its bytes' tokens.
    Chars { chars: Lookup<char, u32>, bytes: [Option<u32>; 256], unknown: Unknown },
}

impl Alphabet {
    fn symbols(&self, word: &str) -> Vec<u32> {
        let mut symbols = Vec::with_capacity(word.len());
        let mut in_unknown = false;
        let mut note = |known: bool, unknown: &Unknown, symbols: &mut Vec<u32>| {
            if !known && !(in_unknown && unknown.fuse) {
                symbols.extend(unknown.id);
            }
            in_unknown = !known;
        };
        match self {
            Alphabet::Bytes { bytes, unknown } => {
                for byte in word.bytes() {
                    let id = bytes[usize::from(byte)];
                    symbols.extend(id);
                    note(id.is_some(), unknown, &mut symbols);
                }
            }
            Alphabet::Chars { chars, bytes, unknown } => {
                for character in word.chars() {
                    let known = chars.get(&character).is_some_and(|&id| {
                        symbols.push(id);
                        true
                    }) || push_bytes(bytes, character, &mut symbols);
                    note(known, unknown, &mut symbols);
                }
            }
        }
        symbols
    }
}

/// Appends the tokens of a character's bytes if all of them exist.
fn push_bytes(table: &[Option<u32>; 256], character: char, symbols: &mut Vec<u32>) -> bool {
    let start = symbols.len();
    let mut buffer = [0; 4];
    for byte in character.encode_utf8(&mut buffer).bytes() {
        match table[usize::from(byte)] {
            Some(id) => symbols.push(id),
            None => {
                symbols.truncate(start);
                return false;
            }
        }
    }
    true
}

pub(super) struct Bpe {
    alphabet: Alphabet,
    /// `pair(left, right)` -> (rank, merged).
    merges: Merges,
}

impl Bpe {
    /// `merges` best first; of a pair listed twice the last counts.
    pub fn new(alphabet: Alphabet, merges: &[Merge]) -> Bpe {
        let ranked =
            merges.iter().zip(0..).map(|(merge, rank)| (pair(merge.left, merge.right), (rank, merge.merged)));
        Bpe { alphabet, merges: ranked.collect() }
    }

    /// Appends the tokens of one word. O(n log n) in its length.
    pub fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        let symbols = self.alphabet.symbols(word);
        match symbols.as_slice() {
            [] | [_] => ids.extend(symbols),
            _ => Merging::new(&self.merges, symbols).run(ids),
        }
    }
}

/// A word on its way: a linked list over positions of its first symbols. Positions fit u32 (texts are bounded).
struct Merging<'a> {
    merges: &'a Merges,
    /// Token at a position, `NONE` once it went into its left neighbour.
    ids: Vec<u32>,
    previous: Vec<u32>,
    next: Vec<u32>,
    /// `pair(rank, position of the left symbol)`: lowest rank first, leftmost first.
    queue: BinaryHeap<Reverse<u64>>,
}

impl<'a> Merging<'a> {
    fn new(merges: &'a Merges, ids: Vec<u32>) -> Merging<'a> {
        let len = ids.len() as u32;
        let previous = (0..len).map(|at| at.checked_sub(1).unwrap_or(NONE)).collect();
        let next = (1..=len).map(|at| if at == len { NONE } else { at }).collect();
        let mut merging = Merging { merges, ids, previous, next, queue: BinaryHeap::new() };
        let first: Vec<_> =
            (0..len).filter_map(|at| merging.rank(at).map(|rank| Reverse(pair(rank, at)))).collect();
        merging.queue = BinaryHeap::from(first);
        merging
    }

    /// The merge of the symbol at `at` with its right neighbour: (rank, merged).
    fn merge_at(&self, at: u32) -> Option<(u32, u32)> {
        let left = *self.ids.get(at as usize)?;
        let right = *self.ids.get(*self.next.get(at as usize)? as usize)?;
        self.merges.get(&pair(left, right)).copied()
    }

    fn rank(&self, at: u32) -> Option<u32> {
        self.merge_at(at).map(|(rank, _)| rank)
    }

    fn run(mut self, out: &mut Vec<u32>) {
        while let Some(Reverse(best)) = self.queue.pop() {
            let (rank, at) = ((best >> 32) as u32, best as u32);
            // Entries go stale when a neighbour changes: a pair's rank tells, for each pair has its own.
            match self.merge_at(at) {
                Some((now, merged)) if now == rank => self.apply(at, merged),
                _ => {}
            }
        }
        out.extend(self.ids.iter().filter(|&&id| id != NONE));
    }

    fn apply(&mut self, at: u32, merged: u32) {
        let gone = self.next[at as usize];
        let after = self.next[gone as usize];
        self.ids[at as usize] = merged;
        self.ids[gone as usize] = NONE;
        self.next[at as usize] = after;
        self.next[gone as usize] = NONE;
        if after != NONE {
            self.previous[after as usize] = at;
        }
        for left in [self.previous[at as usize], at] {
            if let Some(rank) = self.rank(left) {
                self.queue.push(Reverse(pair(rank, left)));
            }
        }
    }
}

/// Merges that a vocabulary implies where the file lists none: each way to cut a piece into two pieces, in the order of
/// the pieces (a trainer numbers them as it makes them), longest left part first.
///
/// `pieces[id]` is the spelling; `closed[id]` marks tokens that text must never become (control tokens): no merge makes
/// them. A file's scores say the same, except that tokens added later carry a constant.
pub(super) fn implied_merges(pieces: &[&str], closed: &[bool]) -> Vec<Merge> {
    let index: Lookup<&str, u32> = pieces.iter().copied().zip(0..).collect();
    let mut merges = Vec::with_capacity(pieces.len() * 2);
    for ((piece, &closed), merged) in pieces.iter().zip(closed).zip(0..) {
        if closed {
            continue;
        }
        for (cut, _) in piece.char_indices().rev().filter(|(cut, _)| *cut > 0) {
            let (left, right) = piece.split_at(cut);
            let Some(&left) = index.get(left) else { continue };
            if let Some(&right) = index.get(right) {
                merges.push(Merge { left, right, merged });
            }
        }
    }
    merges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PIECES: [&str; 12] = ["a", "b", "c", "ab", "bc", "abc", "aa", "aaa", "cab", "ca", "aab", "<a>"];

    fn bpe() -> Bpe {
        let chars = [('a', 0), ('b', 1), ('c', 2)].into_iter().collect();
        let closed: Vec<bool> = PIECES.iter().map(|piece| piece.starts_with('<')).collect();
        let alphabet =
            Alphabet::Chars { chars, bytes: [None; 256], unknown: Unknown { id: Some(99), fuse: true } };
        Bpe::new(alphabet, &implied_merges(&PIECES, &closed))
    }

    fn encode(word: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        bpe().encode(word, &mut ids);
        ids
    }

    /// The textbook loop: find the best pair, leftmost first, merge it, again.
    fn naive(word: &str) -> Vec<u32> {
        let bpe = bpe();
        let mut ids = bpe.alphabet.symbols(word);
        loop {
            let best = ids.windows(2).enumerate().filter_map(|(at, pair)| {
                bpe.merges.get(&super::pair(pair[0], pair[1])).map(|&(rank, merged)| (rank, at, merged))
            });
            let Some((_, at, merged)) = best.min() else { return ids };
            ids.splice(at..at + 2, [merged]);
        }
    }

    #[test]
    fn merges_by_rank_then_position() {
        for (word, ids) in [
            ("", vec![]),
            ("a", vec![0]),
            ("ab", vec![3]),
            ("abc", vec![5]),
            ("aaaa", vec![6, 6]),
            ("xya", vec![99, 0]),
            ("axb", vec![0, 99, 1]),
        ] {
            assert_eq!(encode(word), ids, "{word}");
        }
    }

    #[test]
    fn control_tokens_are_never_a_result() {
        let merges = implied_merges(&["<", "a>", "<a>"], &[false, false, true]);
        assert_eq!(merges, []);
    }

    #[test]
    fn bytes_without_a_token_are_left_out() {
        let mut table = [None; 256];
        table[usize::from(b'x')] = Some(7);
        let mut ids = Vec::new();
        let bytes = |id| Alphabet::Bytes { bytes: table, unknown: Unknown { id, fuse: false } };
        Bpe::new(bytes(None), &[]).encode("x\u{4}x", &mut ids);
        Bpe::new(bytes(Some(9)), &[]).encode("x\u{4}\u{5}", &mut ids);
        assert_eq!(ids, [7, 7, 7, 9, 9]);
    }

    proptest! {
        #[test]
        fn equals_the_textbook_loop(word in "[abcx]{0,40}") {
            prop_assert_eq!(encode(&word), naive(&word));
        }
    }
}
