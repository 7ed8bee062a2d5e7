//! Cutting text into words before byte-level merging, by the rules that a model file names or spells out.

use super::TextError;
use regex::Regex;

/// GPT-2's words: contractions, then letters, digits or the rest with one space before, then white space.
///
/// This and the other patterns have `\s+(?!\S)` before the last alternative in their own form: white space leaves its last
/// character to what follows. `word_len` does that part: an engine without look-around takes time linear in the text,
/// whatever the text.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";

/// Llama 3's: contractions in any case, letters with any one sign before, up to three digits, signs with the line breaks
/// after them, white space up to its last line break, white space.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";

/// The same with digits alone.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";

/// Mistral Nemo's: a word ends where lower case is followed by upper case; slashes stay with the signs before.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";

/// GPT-4o's: as Mistral Nemo's, contractions stay with their word, up to three digits.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";

/// One rule; each rule sees only the pieces that the rule before it made.
enum Rule {
    /// Every digit stands alone.
    Digits,
    /// Matches and what lies between them stand alone.
    Apart(&'static str),
    /// Words that the pattern matches one after another; they cover any text.
    Words(&'static str),
    /// The same, and white space that ends in a line break is a word as it is.
    Lines(&'static str),
}

/// A way to make words, and what files that name it leave out.
pub(super) struct Kind {
    /// Values of `tokenizer.ggml.pre`; the first is its usual name.
    names: &'static [&'static str],
    rules: &'static [Rule],
    /// Whether texts are composed (NFC) first.
    pub nfc: bool,
    /// Whether a word that is a token becomes it whatever the merges say.
    pub whole_words: bool,
    /// Whether a prompt begins with BOS where the file does not say.
    pub add_bos: bool,
}

const PLAIN: Kind = Kind { names: &[], rules: &[], nfc: false, whole_words: false, add_bos: false };

static KINDS: &[Kind] = &[
    Kind { names: &["gpt-2", "phi-2"], rules: &[Rule::Words(GPT2)], ..PLAIN },
    Kind { names: &["smollm"], rules: &[Rule::Digits, Rule::Words(GPT2)], ..PLAIN },
    Kind {
        names: &["llama-bpe", "llama3", "llama-v3"],
        rules: &[Rule::Lines(LLAMA3)],
        whole_words: true,
        add_bos: true,
        ..PLAIN
    },
    // The same words under the names of Phi 4 and of a family of Llama 3's tunes.
    Kind { names: &["dbrx", "smaug-bpe"], rules: &[Rule::Lines(LLAMA3)], ..PLAIN },
    Kind { names: &["qwen2"], rules: &[Rule::Lines(QWEN2)], nfc: true, ..PLAIN },
    Kind { names: &["deepseek-r1-qwen"], rules: &[Rule::Lines(QWEN2)], ..PLAIN },
    Kind { names: &["tekken"], rules: &[Rule::Lines(TEKKEN)], whole_words: true, add_bos: true, ..PLAIN },
    Kind { names: &["gpt-4o"], rules: &[Rule::Lines(GPT4O)], ..PLAIN },
    // What converters wrote before they knew better: a cut that fits no model quite.
    Kind {
        names: &["default"],
        rules: &[
            Rule::Apart(r"[\p{P}$+<=>^~|]+"),
            Rule::Words(GPT2),
            Rule::Apart(r"\p{N}+"),
            Rule::Apart("[0-9][0-9][0-9]"),
        ],
        ..PLAIN
    },
];

/// The end of the patterns' own form that `word_len` stands for.
const LAST_LEFT_OVER: &str = r"|\s+(?!\S)|\s+";

impl Kind {
    /// The kind of a name; an unknown one is an error that lists the known ones.
    pub fn named(pre: &str) -> Result<&'static Kind, TextError> {
        KINDS.iter().find(|kind| kind.names.contains(&pre)).ok_or_else(|| {
            let names = KINDS.iter().flat_map(|kind| kind.names).map(|name| format!("`{name}`"));
            let supported = names.collect::<Vec<_>>().join(", ");
            TextError::Unsupported { key: "tokenizer.ggml.pre", given: pre.to_owned(), supported }
        })
    }

    /// The name of the rules that a `tokenizer.json` spells out: single digits first or not, then a pattern in its own
    /// form. Only known patterns: one from a stranger may take hours.
    pub fn spelled(digits: bool, pattern: &str) -> Option<&'static str> {
        let pattern = pattern.strip_suffix(LAST_LEFT_OVER)?;
        let known = |kind: &&Kind| match kind.rules {
            [Rule::Words(ours) | Rule::Lines(ours)] => !digits && ours.strip_suffix(r"|\s+") == Some(pattern),
            [Rule::Digits, Rule::Words(ours)] => digits && ours.strip_suffix(r"|\s+") == Some(pattern),
            _ => false,
        };
        KINDS.iter().find(known).and_then(|kind| kind.names.first().copied())
    }
}

enum Step {
    Digits,
    Apart(Regex),
    Words { pattern: Regex, lines: bool },
}

pub(super) struct Splitter(Vec<Step>);

impl Splitter {
    pub fn new(kind: &Kind) -> Result<Splitter, TextError> {
        let compile = |pattern: &str| {
            Regex::new(pattern).map_err(|error| {
                TextError::Vocabulary(format!("word pattern of `{:?}`: {error}", kind.names))
            })
        };
        let step = |rule: &Rule| -> Result<Step, TextError> {
            Ok(match rule {
                Rule::Digits => Step::Digits,
                Rule::Apart(pattern) => Step::Apart(compile(pattern)?),
                Rule::Words(pattern) => Step::Words { pattern: compile(pattern)?, lines: false },
                Rule::Lines(pattern) => Step::Words { pattern: compile(pattern)?, lines: true },
            })
        };
        Ok(Splitter(kind.rules.iter().map(step).collect::<Result<_, _>>()?))
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
        Step::Apart(pattern) => {
            let mut done = 0;
            for found in pattern.find_iter(text) {
                run(rest, &text[done..found.start()], word);
                run(rest, found.as_str(), word);
                done = found.end();
            }
            run(rest, &text[done..], word);
        }
        Step::Words { pattern, lines } => {
            let mut left = text;
            while !left.is_empty() {
                let (piece, after) = left.split_at(word_len(pattern, *lines, left));
                run(rest, piece, word);
                left = after;
            }
        }
    }
}

/// Bytes of the word that `text`, not empty, begins with.
fn word_len(pattern: &Regex, lines: bool, text: &str) -> usize {
    let len = match pattern.find(text).map(|found| (found.start(), found.end())) {
        Some((0, end)) if end > 0 => end,
        // Cannot be with a pattern that covers any text.
        Some((start, _)) if start > 0 => start,
        _ => text.len(),
    };
    let mut backwards = text[..len].chars().rev();
    let last =
        backwards.next().filter(|last| last.is_whitespace() && !(lines && matches!(last, '\r' | '\n')));
    // White space of two characters and more before something else.
    match last.map(char::len_utf8) {
        Some(last) if last < len && len < text.len() && backwards.all(char::is_whitespace) => len - last,
        _ => len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words<'t>(pre: &str, text: &'t str) -> Vec<&'t str> {
        let mut words = Vec::new();
        Splitter::new(Kind::named(pre).unwrap()).unwrap().words(text, &mut |word| words.push(word));
        words
    }

    #[test]
    fn known_kinds() {
        for (pre, text, expected) in [
            ("gpt-2", "It's 1234  now", vec!["It", "'s", " 1234", " ", " now"]),
            ("smollm", "It's 12  now", vec!["It", "'s", " ", "1", "2", " ", " now"]),
            ("smollm", "  7\n\n\nx", vec!["  ", "7", "\n\n", "\n", "x"]),
            ("smollm", "", vec![]),
            (
                "llama-bpe",
                "It'S 1234 \n\n  x.\ny",
                vec!["It", "'S", " ", "123", "4", " \n\n", " ", " x", ".\n", "y"],
            ),
            ("qwen2", "n=12\t\t3 \n", vec!["n", "=", "1", "2", "\t", "\t", "3", " \n"]),
            ("tekken", "aBc XMLHttp it's//\n", vec!["a", "Bc", " XMLHttp", " it", "'s", "//\n"]),
            ("gpt-4o", "It's HTTPServer 12345", vec!["It's", " HTTPServer", " ", "123", "45"]),
            ("default", "it's $12345 x", vec!["it", "'", "s", " ", "$", "123", "45", " x"]),
        ] {
            assert_eq!(words(pre, text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let error = Kind::named("wonder").err().unwrap().to_string();
        let start =
            "`tokenizer.ggml.pre`: `wonder` is not supported; supported: `gpt-2`, `phi-2`, `smollm`, ";
        assert!(error.starts_with(start), "{error}");
    }

    #[test]
    fn long_runs_of_white_space_stay_one_word() {
        // A regular expression with backtracking gives up somewhere; this must lie beyond what a request can hold.
        let text = format!("{}x", "\n".repeat(1 << 20));
        let lens: Vec<usize> = words("smollm", &text).iter().map(|word| word.len()).collect();
        assert_eq!(lens, [(1 << 20) - 1, 1, 1]);
    }

    #[test]
    fn kinds_are_known_by_their_pattern() {
        for kind in KINDS {
            let (digits, pattern) = match kind.rules {
                [Rule::Words(pattern) | Rule::Lines(pattern)] => (false, pattern),
                [Rule::Digits, Rule::Words(pattern)] => (true, pattern),
                _ => continue,
            };
            let own = format!("{}{LAST_LEFT_OVER}", pattern.strip_suffix(r"|\s+").unwrap());
            let found = Kind::named(Kind::spelled(digits, &own).unwrap()).unwrap();
            assert!(matches!(
                (found.rules.last(), kind.rules.last()),
                (Some(Rule::Words(a)), Some(Rule::Words(b))) | (Some(Rule::Lines(a)), Some(Rule::Lines(b))) if a == b
            ));
        }
        assert_eq!(Kind::spelled(false, r"(a|aa)+$"), None);
        assert_eq!(Kind::spelled(false, r"(a|aa)+|\s+(?!\S)|\s+"), None);
    }

    proptest! {
        #[test]
        fn words_are_the_text(text in "\\PC{0,60}|[ \\n\\t'a1é٣.]{0,60}") {
            for kind in KINDS {
                prop_assert_eq!(words(kind.names[0], &text).concat(), text.as_str());
            }
        }
    }
}
