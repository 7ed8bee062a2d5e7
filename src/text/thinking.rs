//! Blocks of thinking: what a model writes between two tags before its answer.

use super::calls::beginning_at_end;

/// The tags around what a model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThinkingTags {
    pub open: &'static str,
    pub close: &'static str,
}

/// Pairs in use; of two that a template names the first counts.
const TAGS: [ThinkingTags; 5] = [
    ThinkingTags { open: "<think>", close: "</think>" },
    ThinkingTags { open: "[THINK]", close: "[/THINK]" },
    ThinkingTags { open: "<thinking>", close: "</thinking>" },
    ThinkingTags { open: "<thought>", close: "</thought>" },
    ThinkingTags { open: "<reasoning>", close: "</reasoning>" },
];

impl ThinkingTags {
    /// The pair that a chat template names: it opens a block in the prompt, or cuts old ones out of the history.
    pub fn named_in(template: &str) -> Option<ThinkingTags> {
        TAGS.into_iter().find(|tags| template.contains(tags.open) || template.contains(tags.close))
    }

    /// Whether a prompt ends with an opening tag.
    pub(super) fn opened_by(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.open)
    }

    /// Whether a block is begun in an answer and not ended.
    pub(super) fn left_open_in(&self, answer: &str) -> bool {
        answer.rfind(self.open).is_some_and(|at| !answer[at..].contains(self.close))
    }
}

/// What became certain by a piece of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thought {
    pub reasoning: String,
    pub content: String,
}

/// Splits a growing answer into what is thought and what is said, wherever the pieces are cut.
///
/// Only a block that an answer begins with counts: later tags are somebody's subject. White space around the tags belongs
/// to neither part.
#[derive(Debug)]
pub struct Thinking {
    tags: Option<ThinkingTags>,
    place: Place,
    /// White space, or what may become a tag.
    held: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing but white space yet.
    Before,
    /// In a block, still without text.
    Opened,
    Inside,
    /// After a block, still without text.
    Closed,
    Saying,
}

impl Thinking {
    /// `opened`: the prompt ends inside a block. Without tags everything is said.
    pub fn new(tags: Option<ThinkingTags>, opened: bool) -> Thinking {
        let place = match (tags, opened) {
            (None, _) => Place::Saying,
            (Some(_), true) => Place::Opened,
            (Some(_), false) => Place::Before,
        };
        Thinking { tags, place, held: String::new() }
    }

    /// Whether the answer is in a block now.
    pub fn is_inside(&self) -> bool {
        matches!(self.place, Place::Opened | Place::Inside)
    }

    /// Takes a piece; gives what is certain now.
    pub fn push(&mut self, piece: &str) -> Thought {
        let mut thought = Thought::default();
        self.held.push_str(piece);
        while self.step(&mut thought) {}
        thought
    }

    /// The end: what was held back.
    pub fn finish(&mut self) -> Thought {
        let held = std::mem::take(&mut self.held);
        match self.place {
            Place::Before | Place::Saying => Thought { content: held, ..Thought::default() },
            Place::Opened | Place::Inside => {
                Thought { reasoning: held.trim_end().to_owned(), ..Thought::default() }
            }
            Place::Closed => Thought::default(),
        }
    }

    /// Whether there may be more to do with what is held.
    fn step(&mut self, thought: &mut Thought) -> bool {
        let Some(tags) = self.tags else {
            thought.content += &std::mem::take(&mut self.held);
            return false;
        };
        let start = self.held.len() - self.held.trim_start().len();
        let text = &self.held[start..];
        let next = match self.place {
            Place::Before | Place::Opened if tags.open.starts_with(text) && text != tags.open => {
                return false;
            }
            // A block that the prompt has opened may be opened again.
            Place::Before | Place::Opened if text.starts_with(tags.open) => {
                self.held.drain(..start + tags.open.len());
                Place::Opened
            }
            Place::Before => Place::Saying,
            Place::Opened => {
                self.held.drain(..start);
                Place::Inside
            }
            Place::Inside => match self.held.find(tags.close) {
                Some(at) => {
                    thought.reasoning += self.held[..at].trim_end();
                    self.held.drain(..at + tags.close.len());
                    Place::Closed
                }
                None => {
                    let kept = self.held.len() - undecided(&self.held, tags.close);
                    thought.reasoning.extend(self.held.drain(..kept));
                    return false;
                }
            },
            Place::Closed if text.is_empty() => return false,
            Place::Closed => {
                self.held.drain(..start);
                Place::Saying
            }
            Place::Saying => {
                thought.content += &std::mem::take(&mut self.held);
                return false;
            }
        };
        self.place = next;
        true
    }
}

/// Bytes at the end of `text` that may become `tag`, with the white space before them.
fn undecided(text: &str, tag: &str) -> usize {
    let tail = beginning_at_end(text, tag);
    text.len() - text[..text.len() - tail].trim_end().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TAGS: Option<ThinkingTags> = Some(ThinkingTags { open: "<think>", close: "</think>" });

    fn run(opened: bool, pieces: &[&str]) -> (String, String, bool) {
        let mut thinking = Thinking::new(TAGS, opened);
        let (mut reasoning, mut content) = (String::new(), String::new());
        let mut parts: Vec<Thought> = pieces.iter().map(|piece| thinking.push(piece)).collect();
        let inside = thinking.is_inside();
        parts.push(thinking.finish());
        for part in parts {
            reasoning += &part.reasoning;
            content += &part.content;
        }
        (reasoning, content, inside)
    }

    #[test]
    fn blocks_at_the_start() {
        for (opened, answer, reasoning, content, inside) in [
            (false, "plain", "", "plain", false),
            (false, "  plain ", "", "  plain ", false),
            (false, "", "", "", false),
            (false, "<think>\na\nb\n</think>\n\nsaid\n", "a\nb", "said\n", false),
            (false, "\n<think></think>said", "", "said", false),
            (false, "<think>a", "a", "", true),
            (false, "<thin", "", "<thin", false),
            (false, "say <think>x</think>", "", "say <think>x</think>", false),
            (false, "<think>a</think>b<think>c</think>", "a", "b<think>c</think>", false),
            (true, "a</think>b", "a", "b", false),
            (true, "\n\n</think>\n\nb", "", "b", false),
            (true, "<think>\na</think>b", "a", "b", false),
            (true, "a <b> </thin", "a <b> </thin", "", true),
            (true, "a\n\n", "a", "", true),
        ] {
            let expected = (reasoning.to_owned(), content.to_owned(), inside);
            assert_eq!(run(opened, &[answer]), expected, "{answer:?} whole");
            let letters: Vec<String> = answer.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            assert_eq!(run(opened, &letters), expected, "{answer:?} in letters");
        }
    }

    #[test]
    fn text_is_not_held_longer_than_needed() {
        let mut thinking = Thinking::new(TAGS, true);
        for (piece, reasoning, content) in [
            ("\n", "", ""),
            ("so ", "so", ""),
            ("it <", " it", ""),
            ("b", " <b", ""),
            (" </th", "", ""),
            ("ink> \n", "", ""),
            (" yes", "", "yes"),
            (" </think>", "", " </think>"),
        ] {
            let thought = thinking.push(piece);
            assert_eq!(
                (thought.reasoning.as_str(), thought.content.as_str()),
                (reasoning, content),
                "{piece:?}"
            );
        }
    }

    #[test]
    fn without_tags_everything_is_said() {
        let mut thinking = Thinking::new(None, true);
        assert_eq!(thinking.push("<think>a").content, "<think>a");
        assert_eq!(thinking.finish(), Thought::default());
    }

    #[test]
    fn tags_of_templates_and_prompts() {
        let tags = TAGS.unwrap();
        for (template, found) in [
            ("{{ m.content.split('</think>')[-1] }}", Some("<think>")),
            ("{{ '<think>\\n' }}", Some("<think>")),
            ("[THINK]", Some("[THINK]")),
            ("{{ m.content }}", None),
        ] {
            assert_eq!(ThinkingTags::named_in(template).map(|tags| tags.open), found, "{template}");
        }
        assert!(tags.opened_by("x<think>\n") && !tags.opened_by("<think>\n\n</think>\n"));
        assert!(tags.left_open_in("<think>a") && !tags.left_open_in("<think>a</think>b"));
        assert!(!tags.left_open_in("a"));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            opened: bool,
            pieces in prop::collection::vec("(<think>|</think>|<th|ink>|[a \\n<é])?", 0..12),
        ) {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let whole = pieces.concat();
            prop_assert_eq!(run(opened, &pieces), run(opened, &[&whole]));
        }
    }
}
