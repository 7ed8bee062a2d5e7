//! Calls of functions as models write them: how each family spells one, and reading them out of a growing answer.

use serde_json::{Map, Value};
use std::sync::Arc;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
/// Llama's token before a call; the text of an answer has it only where the file does not call it a control token.
const PYTHON_TAG: &str = "<|python_tag|>";

pub(super) const CALL_TAGS: [&str; 2] = [OPEN, CLOSE];

/// How a family spells a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallSyntax {
    /// `<tool_call>`, `{"name": .., "arguments": ..}`, `</tool_call>`, each on a line: Qwen, Hermes, SmolLM; and models
    /// whose template knows no tools, which are told so.
    Tagged,
    /// `{"name": .., "parameters": ..}` and nothing else: Llama 3.
    Bare,
}

impl CallSyntax {
    /// By the source of a chat template.
    pub fn of(template: &str) -> CallSyntax {
        let is_llama = template.contains("ipython") && template.contains("\"parameters\"");
        if is_llama && !template.contains(OPEN) { CallSyntax::Bare } else { CallSyntax::Tagged }
    }

    /// What stands before the arguments of a call of `name`, and after them.
    pub fn around(self, name: &str) -> (String, &'static str) {
        let name = Value::from(name);
        match self {
            CallSyntax::Tagged => (format!("{OPEN}\n{{\"name\": {name}, \"arguments\": "), "}\n</tool_call>"),
            CallSyntax::Bare => (format!("{{\"name\": {name}, \"parameters\": "), "}"),
        }
    }

    /// What stands between two calls.
    pub fn between(self) -> &'static str {
        match self {
            CallSyntax::Tagged => "\n",
            CallSyntax::Bare => "; ",
        }
    }

    /// A call as the model would have written it. `arguments` is JSON.
    pub fn spelled(self, name: &str, arguments: &str) -> String {
        let (before, after) = self.around(name);
        format!("{before}{arguments}{after}")
    }
}

/// Something that became certain about an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Content(String),
    /// Call number `index` begins.
    Call {
        index: u32,
        name: String,
    },
    /// More of the arguments of call `index`, JSON as the model writes it.
    Arguments {
        index: u32,
        text: String,
    },
}

/// Reads calls out of an answer that comes in pieces. Text that is none is content, passed on as soon as it can be
/// nothing else; the pieces joined do not depend on how the answer was cut.
pub struct CallReader {
    /// Functions that may be called; an object that names another one is content.
    names: Arc<[String]>,
    state: State,
    held: String,
    /// Whether content was passed on: an untagged call stands at the beginning.
    has_content: bool,
    calls: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Before, between and after calls.
    Outside,
    /// In a call, before its arguments.
    Head { tagged: bool },
    /// In the object of the arguments.
    Arguments { tagged: bool, scan: Scan },
    /// Between the arguments and the end of the call.
    Tail { tagged: bool },
}

/// Where a JSON object that is being read ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Scan {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Scan {
    /// Whether the object is complete with this character.
    fn ends_with(&mut self, character: char) -> bool {
        match character {
            _ if self.escaped => self.escaped = false,
            '\\' if self.in_text => self.escaped = true,
            '"' => self.in_text = !self.in_text,
            '{' | '[' if !self.in_text => self.depth += 1,
            '}' | ']' if !self.in_text => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

impl CallReader {
    pub fn new(names: Arc<[String]>) -> CallReader {
        CallReader { names, state: State::Outside, held: String::new(), has_content: false, calls: 0 }
    }

    /// Calls that have begun.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// More of the answer.
    pub fn push(&mut self, text: &str) -> Vec<Told> {
        self.held += text;
        let mut told = Vec::new();
        while self.step(&mut told) {}
        told
    }

    /// The end of the answer: what was held back is a call or content.
    pub fn finish(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Outside if held.trim().is_empty() && self.calls > 0 => {}
            State::Outside => self.content(held, &mut told),
            State::Head { tagged } => self.whole(&held, (if tagged { OPEN } else { "" }, ""), &mut told),
            // An answer that was cut.
            State::Arguments { .. } | State::Tail { .. } => {}
        }
        self.state = State::Outside;
        told
    }

    fn content(&mut self, text: String, told: &mut Vec<Told>) {
        if !text.is_empty() {
            self.has_content = true;
            told.push(Told::Content(text));
        }
    }

    /// Takes one step if what is held allows one.
    fn step(&mut self, told: &mut Vec<Told>) -> bool {
        match self.state {
            State::Outside => self.outside(told),
            State::Head { tagged } => self.head(tagged, told),
            State::Arguments { tagged, scan } => self.arguments(tagged, scan, told),
            State::Tail { tagged } => self.tail(tagged),
        }
    }

    fn outside(&mut self, told: &mut Vec<Told>) -> bool {
        let start = self.held.trim_start_matches(|c: char| c.is_whitespace() || (self.calls > 0 && c == ';'));
        if start.is_empty() {
            return false;
        }
        let tags: &[&str] = if self.has_content { &[OPEN] } else { &[OPEN, PYTHON_TAG] };
        for tag in tags.iter().copied() {
            if let Some(rest) = start.strip_prefix(tag) {
                self.held = rest.to_owned();
                self.state = State::Head { tagged: tag == OPEN };
                return true;
            }
            if tag.starts_with(start) {
                return false;
            }
        }
        if start.starts_with('{') && !self.has_content {
            self.held = start.to_owned();
            self.state = State::Head { tagged: false };
            return true;
        }
        if let Some(at) = self.held.find(OPEN) {
            let before = self.held[..at].trim_end().to_owned();
            self.held.drain(..at);
            self.content(before, told);
            return true;
        }
        let open = beginning_at_end(&self.held, OPEN);
        // White space before a call is dropped, so it waits for what follows.
        let text = self.held[..self.held.len() - open].trim_end().to_owned();
        self.held.drain(..text.len());
        self.content(text, told);
        false
    }

    fn head(&mut self, tagged: bool, told: &mut Vec<Told>) -> bool {
        if let Some((name, begin)) = head(&self.held)
            && self.names.contains(&name)
        {
            told.push(Told::Call { index: self.calls, name });
            self.calls += 1;
            self.held.drain(..begin);
            self.state = State::Arguments { tagged, scan: Scan::default() };
            return true;
        }
        if tagged {
            let Some(at) = self.held.find(CLOSE) else { return false };
            let inner = self.held[..at].to_owned();
            self.held.drain(..at + CLOSE.len());
            self.state = State::Outside;
            self.whole(&inner, (OPEN, CLOSE), told);
            return true;
        }
        if first_key(&self.held)
            .is_some_and(|key| !["name", "type", "function", "parameters", "arguments"].contains(&key))
        {
            // An object that is no call: the answer is JSON.
            self.state = State::Outside;
            self.has_content = true;
            return true;
        }
        false
    }

    fn arguments(&mut self, tagged: bool, mut scan: Scan, told: &mut Vec<Told>) -> bool {
        let end =
            self.held.char_indices().find(|(_, character)| scan.ends_with(*character)).map(|(at, _)| at + 1);
        let text = self.held[..end.unwrap_or(self.held.len())].to_owned();
        self.held.drain(..text.len());
        if !text.is_empty() {
            told.push(Told::Arguments { index: self.calls - 1, text });
        }
        self.state = match end {
            Some(_) => State::Tail { tagged },
            None => State::Arguments { tagged, scan },
        };
        end.is_some()
    }

    fn tail(&mut self, tagged: bool) -> bool {
        let close = if tagged { CLOSE } else { "}" };
        let Some(at) = self.held.find(close) else { return false };
        self.held.drain(..at + close.len());
        self.state = State::Outside;
        true
    }

    /// A call whose parts stand in another order, several in a list, or text that only looked like one; `around` is what
    /// stood before and after it.
    fn whole(&mut self, text: &str, around: (&str, &str), told: &mut Vec<Told>) {
        let calls = serde_json::from_str::<Value>(text.trim()).ok().map(|value| match value {
            Value::Array(items) => items,
            one => vec![one],
        });
        let calls: Option<Vec<(String, String)>> =
            calls.and_then(|items| items.iter().map(|item| call(item, &self.names)).collect());
        match calls.filter(|calls| !calls.is_empty()) {
            Some(calls) => {
                for (name, arguments) in calls {
                    told.push(Told::Call { index: self.calls, name });
                    told.push(Told::Arguments { index: self.calls, text: arguments });
                    self.calls += 1;
                }
            }
            None => self.content([around.0, text, around.1].concat(), told),
        }
    }
}

/// A call with its arguments as JSON text.
fn call(item: &Value, names: &[String]) -> Option<(String, String)> {
    let item: &Map<String, Value> = item.get("function").unwrap_or(item).as_object()?;
    let name = item.get("name")?.as_str().filter(|name| names.iter().any(|known| known == name))?;
    let arguments = match item.get("arguments").or(item.get("parameters")) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "{}".to_owned(),
    };
    Some((name.to_owned(), arguments))
}

/// The name of a call that begins `{"name": "..", "arguments": {`, and where its arguments begin.
fn head(text: &str) -> Option<(String, usize)> {
    let rest = text.trim_start().strip_prefix('{')?;
    let rest = rest.trim_start().strip_prefix("\"name\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let end = rest.strip_prefix('"')?.find('"')? + 2;
    let name: String = serde_json::from_str(rest.get(..end)?).ok()?;
    let rest = rest[end..].trim_start().strip_prefix(',')?.trim_start();
    let rest = rest.strip_prefix("\"arguments\"").or_else(|| rest.strip_prefix("\"parameters\""))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    rest.starts_with('{').then(|| (name, text.len() - rest.len()))
}

fn first_key(text: &str) -> Option<&str> {
    let rest = text.trim_start().strip_prefix('{')?.trim_start().strip_prefix('"')?;
    rest.find('"').map(|end| &rest[..end])
}

/// Bytes at the end of `text` that `tag` could begin with.
pub(super) fn beginning_at_end(text: &str, tag: &str) -> usize {
    (1..tag.len()).rev().find(|length| text.ends_with(&tag[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> Arc<[String]> {
        Arc::from(["f".to_owned(), "g".to_owned()])
    }

    /// Content and calls of an answer that comes in these pieces.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (String, Vec<(String, String)>) {
        let mut reader = CallReader::new(names());
        let mut told: Vec<Told> = pieces.into_iter().flat_map(|piece| reader.push(piece)).collect();
        told.extend(reader.finish());
        let (mut content, mut calls) = (String::new(), Vec::<(String, String)>::new());
        for one in told {
            match one {
                Told::Content(text) => content += &text,
                Told::Call { index, name } => {
                    assert_eq!(index as usize, calls.len());
                    calls.push((name, String::new()));
                }
                Told::Arguments { index, text } => calls[index as usize].1 += &text,
            }
        }
        assert_eq!(reader.calls() as usize, calls.len());
        (content, calls)
    }

    /// Name and arguments.
    type Call = (&'static str, &'static str);

    const ANSWERS: [(&str, &str, &[Call]); 16] = [
        ("Hello <tool", "Hello <tool", &[]),
        (
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"\"}}\n</tool_call>",
            "",
            &[("f", "{\"a\": \"}\\\"\"}")],
        ),
        ("Look: <tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call> ok", "Look: ok", &[("f", "{}")]),
        (
            "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>\n{\"name\":\"g\",\"arguments\":{\"x\":[1]}}</tool_call>\n",
            "",
            &[("f", "{}"), ("g", "{\"x\":[1]}")],
        ),
        ("<tool_call>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]</tool_call>", "", &[("f", "{\"a\":1}")]),
        ("<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>", "", &[("f", "{\"a\":1}")]),
        ("{\"name\": \"g\", \"parameters\": {\"a\": 1}}", "", &[("g", "{\"a\": 1}")]),
        ("<|python_tag|>{\"name\": \"g\", \"parameters\": {}}", "", &[("g", "{}")]),
        (
            "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}",
            "",
            &[("f", "{}"), ("g", "{}")],
        ),
        (
            "{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{}\"}}",
            "",
            &[("f", "{}")],
        ),
        ("{\"name\": \"unknown\", \"arguments\": {}}", "{\"name\": \"unknown\", \"arguments\": {}}", &[]),
        ("{\"colour\": \"red\"}", "{\"colour\": \"red\"}", &[]),
        ("<tool_call>nonsense</tool_call>", "<tool_call>nonsense</tool_call>", &[]),
        ("Set {\"name\": \"f\", \"arguments\": {}}", "Set {\"name\": \"f\", \"arguments\": {}}", &[]),
        ("{\"name\": \"f\", \"arguments\": {\"a\": \"cut", "", &[("f", "{\"a\": \"cut")]),
        ("", "", &[]),
    ];

    #[test]
    fn answers_in_one_piece_and_in_characters() {
        for (text, content, calls) in ANSWERS {
            let calls: Vec<(String, String)> =
                calls.iter().map(|(name, arguments)| (name.to_string(), arguments.to_string())).collect();
            assert_eq!(read([text]), (content.to_owned(), calls.clone()), "{text}");
            let characters: Vec<String> = text.chars().map(String::from).collect();
            assert_eq!(read(characters.iter().map(String::as_str)), (content.to_owned(), calls), "{text}");
        }
    }

    #[test]
    fn content_is_passed_on_at_once() {
        let mut reader = CallReader::new(names());
        assert_eq!(reader.push("Hello"), [Told::Content("Hello".into())]);
        assert_eq!(reader.push(" a<"), [Told::Content(" a".into())]);
        assert_eq!(reader.push("b"), [Told::Content("<b".into())]);
    }

    #[test]
    fn what_is_spelled_is_read() {
        for syntax in [CallSyntax::Tagged, CallSyntax::Bare] {
            let one = syntax.spelled("f", "{\"a\": {}}");
            let text = [one.as_str(), &syntax.spelled("g", "{}")].join(syntax.between());
            let calls = vec![("f".to_owned(), "{\"a\": {}}".to_owned()), ("g".to_owned(), "{}".to_owned())];
            assert_eq!(read([text.as_str()]), (String::new(), calls));
        }
        assert_eq!(CallSyntax::of("{{ ipython }} \"parameters\""), CallSyntax::Bare);
        assert_eq!(CallSyntax::of("<tool_call>"), CallSyntax::Tagged);
        assert_eq!(CallSyntax::of(""), CallSyntax::Tagged);
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(parts in prop::collection::vec(
            "(<tool_call>|</tool_call>|\\{\"name\": ?\"f\", \"arguments\": ?\\{|\\}|\"a\": 1|[ a\\n;é]|<tool)", 0..12),
            cut in 0usize..40,
        ) {
            let text = parts.concat();
            let at = (0..=text.len().min(cut)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            prop_assert_eq!(read([text.as_str()]), read([&text[..at], &text[at..]]));
        }
    }
}
