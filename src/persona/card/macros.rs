//! The placeholders of cards: `{{char}}` and `{{user}}` in their spellings, comments, nothing else.
//!
//! What is put in is not looked through again, so a name cannot bring placeholders of its own.

/// The other side's name where a request gives none.
pub const USER: &str = "User";

/// Bytes between the braces; a longer comment is no placeholder.
const PLACEHOLDER_BYTES_MAX: usize = 512;

/// What the placeholders stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    pub character: &'a str,
    pub user: &'a str,
}

/// A placeholder, by what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Character,
    User,
    /// A comment, or the frontend's own prompt that there is none of: nothing.
    Nothing,
    /// Needs an evaluation that there is none of; stays as it stands.
    Kept,
}

/// The parts of a text: plain pieces, and placeholders with their spelling.
fn parts(text: &str) -> impl Iterator<Item = (&str, Option<Kind>)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, kind) = match placeholder(rest) {
            Some((length, kind)) => (&rest[..length], Some(kind)),
            None => {
                let next = rest.char_indices().skip(1).find(|(_, c)| matches!(c, '{' | '<'));
                (&rest[..next.map_or(rest.len(), |(at, _)| at)], None)
            }
        };
        rest = &rest[piece.len()..];
        Some((piece, kind))
    })
}

/// The placeholder that a text begins with: its length in bytes and what it is.
fn placeholder(text: &str) -> Option<(usize, Kind)> {
    if let Some(inner) = text.strip_prefix("{{") {
        // Within bounds, so that a text of nothing but openings is not searched to its end from each.
        let near = &inner.as_bytes()[..inner.len().min(PLACEHOLDER_BYTES_MAX)];
        let end = near.windows(2).position(|pair| pair == b"}}")?;
        let name = inner[..end].trim().to_lowercase();
        let kind = match name.as_str() {
            "char" | "bot" => Kind::Character,
            "user" => Kind::User,
            "original" => Kind::Nothing,
            _ if ["//", "comment:", "hidden_key:"].iter().any(|prefix| name.starts_with(prefix)) => {
                Kind::Nothing
            }
            _ => Kind::Kept,
        };
        return Some((end + 4, kind));
    }
    let tags = [("<bot>", Kind::Character), ("<char>", Kind::Character), ("<user>", Kind::User)];
    let (tag, kind) = tags
        .into_iter()
        .find(|(tag, _)| text.get(..tag.len()).is_some_and(|t| t.eq_ignore_ascii_case(tag)))?;
    Some((tag.len(), kind))
}

/// The text with all placeholders replaced.
pub fn expand(text: &str, names: Names<'_>) -> String {
    let mut out = String::with_capacity(text.len());
    for (piece, kind) in parts(text) {
        out.push_str(match kind {
            Some(Kind::Character) => names.character,
            Some(Kind::User) => names.user,
            Some(Kind::Nothing) => "",
            Some(Kind::Kept) | None => piece,
        });
    }
    out
}

/// Whether any placeholder in it is replaced, and whether one by the user's name.
pub fn uses(text: &str) -> (bool, bool) {
    parts(text)
        .filter_map(|(_, kind)| kind)
        .fold((false, false), |(any, user), kind| (any || kind != Kind::Kept, user || kind == Kind::User))
}

/// Names of the placeholders that stay as they stand, each once, at most a few.
pub fn kept(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (piece, _) in parts(text).filter(|(_, kind)| *kind == Some(Kind::Kept)) {
        let inner = piece.trim_matches(['{', '}', ' ']);
        let name: String = inner.chars().take_while(|c| *c != ':' && !c.is_whitespace()).take(40).collect();
        if !name.is_empty() && !names.contains(&name) && names.len() < 8 {
            names.push(name);
        }
    }
    names
}

/// A name as it may stand in a persona's text: letters, digits and what names have between them.
pub fn is_plain_name(name: &str) -> bool {
    let count = name.chars().count();
    (1..=crate::limits::CARD_USER_NAME_CHARS_MAX).contains(&count)
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | '\''))
        && name.trim() == name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMES: Names<'_> = Names { character: "Mira", user: "Bo" };

    #[test]
    fn placeholders() {
        let table = [
            ("", ""),
            ("plain { text } <b>", "plain { text } <b>"),
            ("{{char}} and {{user}}", "Mira and Bo"),
            ("{{Char}} {{ USER }} <BOT> <user> <Char>", "Mira Bo Mira Bo Mira"),
            ("{{original}}x{{// a note }}y{{comment: b}}z{{hidden_key:c}}", "xyz"),
            ("{{random:a,b}} {{roll:6}}", "{{random:a,b}} {{roll:6}}"),
            ("{{char", "{{char"),
            ("{{{{char}}}}", "{{{{char}}}}"),
            ("é{{char}}é<USER>", "éMiraéBo"),
        ];
        for (text, expected) in table {
            assert_eq!(expand(text, NAMES), expected, "{text}");
        }
    }

    #[test]
    fn what_is_put_in_is_not_looked_through() {
        let names = Names { character: "{{user}}", user: "<BOT>" };
        assert_eq!(expand("{{char}} {{user}}", names), "{{user}} <BOT>");
    }

    #[test]
    fn what_a_text_uses() {
        assert_eq!(uses("a {{b}} c"), (false, false));
        assert_eq!(uses("a {{char}}"), (true, false));
        assert_eq!(uses("a <USER>"), (true, true));
        assert_eq!(kept("{{random:a,b}} {{char}} {{roll 6}} {{random:c}}"), ["random", "roll"]);
    }

    #[test]
    fn names_of_users() {
        for good in ["Bo", "Anne-Marie O'Neil", "日本", "user_1"] {
            assert!(is_plain_name(good), "{good}");
        }
        for bad in ["", " Bo", "a\nb", "{{char}}", "<b>", "x".repeat(65).as_str(), "a: b"] {
            assert!(!is_plain_name(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in "[{}<>a-cé/ :BOTUSERcharuser]{0,60}") {
            let joined: String = parts(&text).map(|(piece, _)| piece).collect();
            prop_assert_eq!(joined, text);
        }
    }
}
