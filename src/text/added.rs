//! Finding tokens by their text before words are made, and keeping a client's text from spelling control tokens.

use super::hash::Lookup;
use std::collections::BTreeSet;

/// Texts of some tokens as a tree of bytes.
#[derive(Default)]
pub(super) struct Trie {
    /// (node, byte) -> node; node 0 is the root.
    edges: Lookup<(u32, u8), u32>,
    /// Token that ends at a node, by node.
    ends: Vec<Option<u32>>,
    /// Bytes that some text starts with: most positions of a text need no look-up.
    first: Vec<bool>,
}

impl Trie {
    pub fn new<'a>(texts: impl IntoIterator<Item = (&'a str, u32)>) -> Trie {
        let mut trie = Trie { edges: Lookup::default(), ends: vec![None], first: vec![false; 256] };
        texts.into_iter().for_each(|(text, id)| trie.insert(text, id));
        trie
    }

    fn insert(&mut self, text: &str, id: u32) {
        let mut node = 0;
        for byte in text.bytes() {
            let fresh = self.ends.len() as u32;
            let next = *self.edges.entry((node, byte)).or_insert(fresh);
            if next == fresh {
                self.ends.push(None);
            }
            if node == 0 {
                self.first[usize::from(byte)] = true;
            }
            node = next;
        }
        if node != 0 {
            self.ends[node as usize] = Some(id);
        }
    }

    fn may_start(&self, byte: u8) -> bool {
        self.first[usize::from(byte)]
    }

    /// The longest text that `bytes` begins with: (length, token).
    fn longest(&self, bytes: &[u8]) -> Option<(usize, u32)> {
        let mut found = None;
        let mut node = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            match self.edges.get(&(node, byte)) {
                Some(&next) => node = next,
                None => break,
            }
            if let Some(id) = self.ends[node as usize] {
                found = Some((at + 1, id));
            }
        }
        found
    }

    /// How far `bytes` goes along with one of the texts.
    fn touch(&self, bytes: &[u8]) -> Touch {
        let mut node = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            match self.edges.get(&(node, byte)) {
                Some(&next) => node = next,
                None => return Touch::No,
            }
            if self.ends[node as usize].is_some() {
                return Touch::Complete(at + 1);
            }
        }
        if node == 0 { Touch::No } else { Touch::Open }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touch {
    No,
    /// The first so many bytes are one of the texts; no shorter beginning is.
    Complete(usize),
    /// All of it, not empty, is the beginning of one of the texts.
    Open,
}

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment<'t> {
    Text(&'t str),
    Token(u32),
}

/// White space that tokens take with them: (before, after) by token.
pub(super) type Strips = Lookup<u32, (bool, bool)>;

/// Cuts `text` at tokens of the given tries: leftmost first, of those the longest. White space next to a token goes with
/// it where `strips` says so. Text segments are not empty.
pub(super) fn segments<'t>(
    text: &'t str,
    tries: &[&Trie],
    strips: &Strips,
    each: &mut dyn FnMut(Segment<'t>),
) {
    let bytes = text.as_bytes();
    let (mut done, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        let found =
            tries.iter().filter(|trie| trie.may_start(byte)).filter_map(|trie| trie.longest(&bytes[at..]));
        let Some((len, id)) = found.max() else {
            at += 1;
            continue;
        };
        let (before, after) = strips.get(&id).copied().unwrap_or_default();
        let part = &text[done..at];
        let part = if before { part.trim_end() } else { part };
        if !part.is_empty() {
            each(Segment::Text(part));
        }
        each(Segment::Token(id));
        at += len;
        if after {
            at += text[at..].len() - text[at..].trim_start().len();
        }
        done = at;
    }
    if done < text.len() {
        each(Segment::Text(&text[done..]));
    }
}

/// Keeps a client's texts from spelling control tokens once a template has put its own text around them.
///
/// A *mark*, a character that occurs in none of the texts, is put into each place where a control token's text begins,
/// ends or runs beyond the text's edge. Rendered text is cut at control tokens while the marks are in it, so only those
/// that the template itself wrote are found; then the marks are taken out.
pub(super) struct Guard {
    /// Control tokens' texts.
    whole: Trie,
    /// What remains of them after one or more of their first characters.
    tails: Trie,
}

impl Guard {
    pub fn new<'a>(control: impl IntoIterator<Item = (&'a str, u32)> + Clone) -> Guard {
        let tails = control.clone().into_iter().flat_map(|(text, id)| {
            text.char_indices().skip(1).map(move |(at, _)| (&text[at..], id)).collect::<Vec<_>>()
        });
        Guard { whole: Trie::new(control.clone()), tails: Trie::new(tails) }
    }

    pub fn control(&self) -> &Trie {
        &self.whole
    }

    /// `text` with marks. Ordinary text has none at its start, for templates look there.
    pub fn mark(&self, text: &str, mark: char) -> String {
        let mut marked = String::with_capacity(text.len() + 8);
        let bytes = text.as_bytes();
        let tail = self.tails.touch(bytes);
        let first = text.chars().next().map_or(0, char::len_utf8);
        if tail == Touch::Complete(first) {
            marked.push(mark);
        }
        for (at, character) in text.char_indices() {
            marked.push(character);
            let tail_here = at == 0 && matches!(tail, Touch::Complete(len) if len > first);
            let whole_here = self.whole.may_start(bytes[at]) && self.whole.touch(&bytes[at..]) != Touch::No;
            if tail_here || whole_here {
                marked.push(mark);
            }
        }
        if tail == Touch::Open {
            marked.push(mark);
        }
        marked
    }
}

/// Characters that may serve as marks: Unicode reserves the first 32 for use inside programs; the private planes follow,
/// in case a client sends them all.
fn mark_characters() -> impl Iterator<Item = char> {
    ('\u{fdd0}'..='\u{fdef}').chain('\u{f0000}'..='\u{ffffd}').chain('\u{100000}'..='\u{10fffd}')
}

/// `N` different characters that occur in none of `texts`; `None` if the texts hold nearly all candidates (half a MiB).
pub(super) fn absent_characters<const N: usize>(texts: &[&str]) -> Option<[char; N]> {
    let used: BTreeSet<char> =
        texts.iter().flat_map(|text| text.chars()).filter(|&c| c >= '\u{fdd0}').collect();
    let free: Vec<char> = mark_characters().filter(|mark| !used.contains(mark)).take(N).collect();
    free.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONTROL: [(&str, u32); 4] = [("<|start|>", 0), ("<|end|>", 1), ("<|endless|>", 2), ("<s>", 3)];

    fn cut(text: &str) -> Vec<Segment<'_>> {
        let trie = Trie::new(CONTROL);
        let mut found = Vec::new();
        segments(text, &[&trie], &Strips::default(), &mut |segment| found.push(segment));
        found
    }

    #[test]
    fn leftmost_longest() {
        use Segment::{Text, Token};
        for (text, expected) in [
            ("", vec![]),
            ("plain", vec![Text("plain")]),
            ("<|end|>", vec![Token(1)]),
            ("a<|endless|><s>é", vec![Text("a"), Token(2), Token(3), Text("é")]),
            ("<<s>|end|><|end|", vec![Text("<"), Token(3), Text("|end|><|end|")]),
        ] {
            assert_eq!(cut(text), expected, "{text}");
        }
    }

    #[test]
    fn two_tries_share_a_text() {
        let (a, b) = (Trie::new([("ab", 1)]), Trie::new([("abc", 2), ("x", 3)]));
        let mut found = Vec::new();
        segments("abcabx", &[&a, &b], &Strips::default(), &mut |segment| found.push(segment));
        assert_eq!(found, [Segment::Token(2), Segment::Token(1), Segment::Token(3)]);
    }

    #[test]
    fn tokens_take_white_space_with_them() {
        use Segment::{Text, Token};
        let trie = Trie::new(CONTROL);
        let strips: Strips =
            [(0, (false, true)), (1, (true, false)), (3, (true, true))].into_iter().collect();
        for (text, expected) in [
            (" <|start|> \n a <|end|> b", vec![Text(" "), Token(0), Text("a"), Token(1), Text(" b")]),
            (" <s> <s> ", vec![Token(3), Token(3)]),
            ("<|start|> <|end|>", vec![Token(0), Token(1)]),
        ] {
            let mut found = Vec::new();
            segments(text, &[&trie], &strips, &mut |segment| found.push(segment));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn marks_whole_and_partial_texts() {
        let guard = Guard::new(CONTROL);
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("a<|end|>b", "a<#|end|>b"),
            ("ends in <|en", "ends in <#|en"),
            ("|start|> begins", "|#start|> begins"),
            ("> quoted", "#> quoted"),
            ("|start|", "|start|#"),
            ("end", "end#"),
            ("a < b", "a < b"),
        ] {
            assert_eq!(guard.mark(text, '#'), expected, "{text}");
        }
    }

    #[test]
    fn absent_characters_are_found() {
        let all: String = ('\u{fdd0}'..='\u{fdef}').collect();
        assert_eq!(absent_characters(&["plain", "\u{fdd0}"]), Some(['\u{fdd1}', '\u{fdd2}']));
        assert_eq!(absent_characters(&[&all]), Some(['\u{f0000}']));
        let every: String = mark_characters().collect();
        assert_eq!(absent_characters::<1>(&[&every]), None);
    }

    fn controls_in(text: &str) -> usize {
        cut(text).iter().filter(|segment| matches!(segment, Segment::Token(_))).count()
    }

    proptest! {
        /// Whatever stands around a marked text, no control token is found that overlaps it.
        #[test]
        fn marked_texts_never_spell_control(
            parts in prop::collection::vec("[<|>starendl]{0,4}(<\\|start\\|>|<\\|end|less\\|>|<s|\\|>)?", 3),
        ) {
            let (before, text, after) = (&parts[0], &parts[1], &parts[2]);
            let marked = Guard::new(CONTROL).mark(text, '#');
            let whole = format!("{before}{marked}{after}");
            // Found ones lie wholly before or after: cutting the middle out changes their number by nothing.
            let apart = controls_in(before) + controls_in(after);
            if text.is_empty() {
                return Ok(());
            }
            prop_assert_eq!(controls_in(&whole), apart);
            prop_assert_eq!(marked.replace('#', ""), text.as_str());
        }
    }
}
