//! Cutting text into words before byte-level merging, by the rules that a model file names.

use super::TextError;
use regex::Regex;

/// GPT-2's words: contractions, then letters, digits or the rest with one space before, then white space. Its own form
/// has `\s+(?!\S)` before the last alternative: white space leaves its last character to what follows. `word_len` does
/// that part: an engine without look-around takes time linear in the text, whatever the text.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";

/// One rule; each rule sees only the pieces that the rule before it made.
enum Rule {
    /// Every digit stands alone.
    Digits,
    /// Words that the pattern matches one after another; they cover any text.
    Words(&'static str),
}

/// `tokenizer.ggml.pre` -> rules.
const KINDS: &[(&str, &[Rule])] =
    &[("gpt-2", &[Rule::Words(GPT2)]), ("smollm", &[Rule::Digits, Rule::Words(GPT2)])];

enum Step {
    Digits,
    Words(Regex),
}

pub(super) struct Splitter(Vec<Step>);

impl Splitter {
    /// The rules of one kind; an unknown kind is an error that lists the known ones.
    pub fn new(pre: &str) -> Result<Splitter, TextError> {
        let rules =
            KINDS.iter().find(|(name, _)| *name == pre).map(|(_, rules)| *rules).ok_or_else(|| {
                let supported =
                    KINDS.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                TextError::Unsupported { key: "tokenizer.ggml.pre", given: pre.to_owned(), supported }
            })?;
        let step = |rule: &Rule| match rule {
            Rule::Digits => Ok(Step::Digits),
            Rule::Words(pattern) => Regex::new(pattern)
                .map(Step::Words)
                .map_err(|error| TextError::Vocabulary(format!("word pattern of `{pre}`: {error}"))),
        };
        Ok(Splitter(rules.iter().map(step).collect::<Result<_, _>>()?))
    }

    /// Calls `word` with each word in order. Together they are the text.
    pub fn words<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        run(&self.0, text, word);
    }
}

fn run<'t>(steps: &[Step], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    let Some((step, rest)) = steps.split_first() else {
        if !text.is_empty() {
            word(text);
        }
        return;
    };
    match step {
        Step::Digits => {
            let mut done = 0;
            for (start, digit) in text.char_indices().filter(|(_, character)| character.is_numeric()) {
                let end = start + digit.len_utf8();
                run(rest, &text[done..start], word);
                run(rest, &text[start..end], word);
                done = end;
            }
            run(rest, &text[done..], word);
        }
        Step::Words(regex) => {
            let mut left = text;
            while !left.is_empty() {
                let (piece, after) = left.split_at(word_len(regex, left));
                run(rest, piece, word);
                left = after;
            }
        }
    }
}

/// Bytes of the word that `text`, not empty, begins with.
fn word_len(regex: &Regex, text: &str) -> usize {
    let len = match regex.find(text).map(|found| (found.start(), found.end())) {
        Some((0, end)) if end > 0 => end,
        // Cannot be with a pattern that covers any text.
        Some((start, _)) if start > 0 => start,
        _ => text.len(),
    };
    let last = text[..len].chars().next_back().filter(|last| last.is_whitespace()).map_or(0, char::len_utf8);
    // White space of two characters and more before something else.
    if 0 < last && last < len && len < text.len() { len - last } else { len }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words<'t>(pre: &str, text: &'t str) -> Vec<&'t str> {
        let mut words = Vec::new();
        Splitter::new(pre).unwrap().words(text, &mut |word| words.push(word));
        words
    }

    #[test]
    fn known_kinds() {
        for (pre, text, expected) in [
            ("gpt-2", "It's 1234  now", vec!["It", "'s", " 1234", " ", " now"]),
            ("smollm", "It's 12  now", vec!["It", "'s", " ", "1", "2", " ", " now"]),
            ("smollm", "  7\n\n\nx", vec!["  ", "7", "\n\n", "\n", "x"]),
            ("smollm", "", vec![]),
        ] {
            assert_eq!(words(pre, text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let error = Splitter::new("wonder").err().unwrap().to_string();
        assert_eq!(error, "`tokenizer.ggml.pre`: `wonder` is not supported; supported: `gpt-2`, `smollm`");
    }

    #[test]
    fn long_runs_of_white_space_stay_one_word() {
        // A regular expression with backtracking gives up somewhere; this must lie beyond what a request can hold.
        let text = format!("{}x", "\n".repeat(1 << 20));
        let lens: Vec<usize> = words("smollm", &text).iter().map(|word| word.len()).collect();
        assert_eq!(lens, [(1 << 20) - 1, 1, 1]);
    }

    proptest! {
        #[test]
        fn words_are_the_text(text in "\\PC{0,60}|[ \\n\\t'a1é٣]{0,60}") {
            prop_assert_eq!(words("smollm", &text).concat(), text);
        }
    }
}
