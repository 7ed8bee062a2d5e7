//! What happens to a text before merging: it is composed, spaces are put before it or made visible, it is cut.

use super::pre::Splitter;
use super::source::SpacePrefix;
use std::borrow::Cow;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// SentencePiece's visible space.
pub(super) const VISIBLE_SPACE: char = '\u{2581}';

/// Makes words of stretches of text.
pub(super) enum Words {
    /// Cut into words of bytes.
    ByteLevel { splitter: Splitter, nfc: bool },
    /// One word with visible spaces.
    Whole(SpacePrefix),
}

impl Words {
    pub fn byte_level(splitter: Splitter, nfc: bool) -> Words {
        Words::ByteLevel { splitter, nfc }
    }

    pub fn whole(prefix: SpacePrefix) -> Words {
        Words::Whole(prefix)
    }

    /// Whether a text begins with a space that is not its own.
    pub fn puts_space(&self) -> bool {
        matches!(self, Words::Whole(prefix) if *prefix != SpacePrefix::Never)
    }

    /// Calls `word` with each word of a stretch that is not empty, in order. `first`: nothing stands before it.
    pub fn each(&self, text: &str, first: bool, word: &mut dyn FnMut(&str)) {
        match self {
            Words::ByteLevel { splitter, nfc } => {
                let composed = if *nfc { composed(text) } else { text.into() };
                splitter.words(&composed, &mut |piece| word(piece));
            }
            Words::Whole(prefix) => {
                let put = match prefix {
                    SpacePrefix::Never => false,
                    SpacePrefix::Always => true,
                    SpacePrefix::Missing => !text.starts_with([' ', VISIBLE_SPACE]),
                    SpacePrefix::First => first && !text.starts_with([' ', VISIBLE_SPACE]),
                };
                let before = if put { "\u{2581}" } else { "" };
                word(&[before, &text.replace(' ', "\u{2581}")].concat());
            }
        }
    }
}

/// A text in Unicode's composed form.
fn composed(text: &str) -> Cow<'_, str> {
    if is_nfc(text) { text.into() } else { text.nfc().collect() }
}

#[cfg(test)]
mod tests {
    use super::super::pre::Kind;
    use super::*;

    fn words(words: &Words, text: &str, first: bool) -> Vec<String> {
        let mut found = Vec::new();
        words.each(text, first, &mut |word| found.push(word.to_owned()));
        found
    }

    #[test]
    fn a_space_is_put_before() {
        use SpacePrefix::{Always, First, Missing, Never};
        for (prefix, text, first, later) in [
            (Never, "a b", "a▁b", "a▁b"),
            (Always, "a b", "▁a▁b", "▁a▁b"),
            (Always, " a", "▁▁a", "▁▁a"),
            (Missing, "a", "▁a", "▁a"),
            (Missing, " a", "▁a", "▁a"),
            (Missing, "▁a", "▁a", "▁a"),
            (First, "a", "▁a", "a"),
            (First, " a", "▁a", "▁a"),
        ] {
            let made = Words::whole(prefix);
            assert_eq!(words(&made, text, true), [first], "{prefix:?} {text}");
            assert_eq!(words(&made, text, false), [later], "{prefix:?} {text}");
        }
    }

    #[test]
    fn texts_are_composed_where_wanted() {
        let made = |nfc| Words::byte_level(Splitter::new(Kind::named("qwen2").unwrap()).unwrap(), nfc);
        assert_eq!(words(&made(true), "e\u{301} \u{1100}\u{1161}", true), ["é", " 가"]);
        assert_eq!(words(&made(false), "e\u{301}", true), ["e", "\u{301}"]);
    }
}
