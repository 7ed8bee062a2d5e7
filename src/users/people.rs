//! Training and test people as a file (`demeanor.people/1`): JSON Lines, one person a line, everything checked.
//!
//! `{"user":"p17","split":"train|stop|test","history":[{"text":"...","weight":-0.5,"item":"i3"}],"targets":[...]}` with
//! targets of one kind in the whole file: a *question* with a numeric answer, `{"prompt":"...","choices":[" True"," False"],
//! "answer":4,"item":"i3"}`, or a *reply* in a conversation, `{"messages":[{"role":"user","content":"..."}],"reply":"..."}`;
//! with `"open":true` it is the beginning of a longer one, whose end is not learnt.
//! `item` names what a history item and a target are about: a target's own item is left out of the history that predicts
//! it. `group` and `sign` (1 or -1) say which items measure the same, for baselines that use no language model.

use crate::digest::Digest;
use crate::limits;
use serde::Deserialize;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Trained on.
    Train,
    /// Chooses when to stop, and fits readouts.
    Stop,
    /// Reported on.
    Test,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryItem {
    pub text: String,
    /// In [-1, 1]: how much the person is for it.
    #[serde(default = "one")]
    pub weight: f32,
    pub item: Option<String>,
    pub group: Option<String>,
    #[serde(default = "one")]
    pub sign: f32,
}

/// A question whose answer is a number, asked as a choice between two next tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub prompt: String,
    pub choices: [String; 2],
    pub answer: f32,
    /// The prompt where the file names no item.
    pub item: String,
    pub group: Option<String>,
    pub sign: f32,
}

/// A reply that is to become more probable.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub messages: Vec<ReplyMessage>,
    pub reply: String,
    /// The reply goes on behind this text.
    pub open: bool,
    pub item: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyMessage {
    pub role: String,
    pub content: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    Questions(Vec<Question>),
    Replies(Vec<Reply>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    pub user: String,
    pub split: Split,
    pub history: Vec<HistoryItem>,
    pub targets: Targets,
}

/// The people of a file, in its order.
#[derive(Clone, Debug)]
pub struct People {
    pub people: Vec<Person>,
    /// Of the file.
    pub digest: Digest,
}

/// A line of the file that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct PeopleFault {
    pub line: usize,
    pub message: String,
}

impl People {
    pub fn parse(text: &str) -> Result<People, PeopleFault> {
        let fault = |line, message: String| PeopleFault { line, message };
        if text.len() as u64 > limits::PEOPLE_BYTES_MAX {
            let max = limits::PEOPLE_BYTES_MAX;
            return Err(fault(1, format!("the file has {} bytes; at most {max}", text.len())));
        }
        let mut people: Vec<Person> = Vec::new();
        let mut seen = BTreeSet::new();
        for (line, content) in (1..).zip(text.lines()).filter(|(_, content)| !content.trim().is_empty()) {
            let person = person(content).map_err(|message| fault(line, message))?;
            if !seen.insert(person.user.clone()) {
                return Err(fault(line, format!("user `{}` occurs twice", person.user)));
            }
            let same = people.first().is_none_or(|first| first.targets.kind() == person.targets.kind());
            if !same {
                let message = "questions here and replies before; a file has targets of one kind";
                return Err(fault(line, message.to_owned()));
            }
            people.push(person);
        }
        match people.iter().any(|person| person.split == Split::Train) {
            true => Ok(People { people, digest: Digest::of(text.as_bytes()) }),
            false => Err(fault(1, "no person has `\"split\":\"train\"`".to_owned())),
        }
    }

    /// People of a split, in the file's order.
    pub fn of(&self, split: Split) -> impl Iterator<Item = &Person> {
        self.people.iter().filter(move |person| person.split == split)
    }
}

impl Targets {
    fn kind(&self) -> std::mem::Discriminant<Targets> {
        std::mem::discriminant(self)
    }

    pub fn len(&self) -> usize {
        match self {
            Targets::Questions(questions) => questions.len(),
            Targets::Replies(replies) => replies.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A person as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    user: String,
    split: Split,
    history: Vec<HistoryItem>,
    targets: Vec<TargetLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetLine {
    prompt: Option<String>,
    choices: Option<[String; 2]>,
    answer: Option<f32>,
    messages: Option<Vec<ReplyMessage>>,
    reply: Option<String>,
    #[serde(default)]
    open: bool,
    item: Option<String>,
    group: Option<String>,
    #[serde(default = "one")]
    sign: f32,
}

fn one() -> f32 {
    1.0
}

fn person(content: &str) -> Result<Person, String> {
    let line: Line = serde_json::from_str(content).map_err(|error| error.to_string())?;
    for (i, item) in line.history.iter().enumerate() {
        check_text(&format!("history[{i}].text"), &item.text)?;
        check_sign(&format!("history[{i}].sign"), item.sign)?;
        if !(-1.0..=1.0).contains(&item.weight) {
            return Err(format!("`history[{i}].weight` is {}; allowed: -1 to 1", item.weight));
        }
    }
    let (mut questions, mut replies) = (Vec::new(), Vec::new());
    for (i, target) in line.targets.into_iter().enumerate() {
        check_sign(&format!("targets[{i}].sign"), target.sign)?;
        match target {
            TargetLine {
                prompt: Some(prompt),
                choices: Some(choices),
                answer: Some(answer),
                messages: None,
                reply: None,
                open: false,
                item,
                group,
                sign,
            } => {
                check_text(&format!("targets[{i}].prompt"), &prompt)?;
                if !answer.is_finite() {
                    return Err(format!("`targets[{i}].answer` is {answer}; expected a number"));
                }
                let item = item.unwrap_or_else(|| prompt.clone());
                questions.push(Question { prompt, choices, answer, item, group, sign });
            }
            TargetLine {
                prompt: None,
                choices: None,
                answer: None,
                messages: Some(messages),
                reply: Some(reply),
                open,
                item,
                ..
            } => {
                check_text(&format!("targets[{i}].reply"), &reply)?;
                for (j, message) in messages.iter().enumerate() {
                    check_text(&format!("targets[{i}].messages[{j}].content"), &message.content)?;
                }
                replies.push(Reply { messages, reply, open, item });
            }
            _ => {
                return Err(format!(
                    "`targets[{i}]` is neither `prompt`, `choices` and `answer` nor `messages` and `reply`"
                ));
            }
        }
    }
    let targets = match (questions.is_empty(), replies.is_empty()) {
        (false, true) => Targets::Questions(questions),
        (true, false) => Targets::Replies(replies),
        (true, true) => return Err("`targets` is empty".to_owned()),
        (false, false) => return Err("`targets` has questions and replies; expected one kind".to_owned()),
    };
    Ok(Person { user: line.user, split: line.split, history: line.history, targets })
}

fn check_text(name: &str, text: &str) -> Result<(), String> {
    let max = limits::PEOPLE_TEXT_BYTES_MAX;
    match text.len() {
        0 => Err(format!("`{name}` is empty")),
        bytes if bytes > max => Err(format!("`{name}` has {bytes} bytes; at most {max}")),
        _ => Ok(()),
    }
}

fn check_sign(name: &str, sign: f32) -> Result<(), String> {
    match sign.abs() == 1.0 {
        true => Ok(()),
        false => Err(format!("`{name}` is {sign}; allowed: 1, -1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"user":"a","split":"train","history":[{"text":"Tea."}],"targets":[{"prompt":"p","choices":[" a"," b"],"answer":3}]}"#;
    const REPLY: &str = r#"{"user":"b","split":"stop","history":[],"targets":[{"messages":[{"role":"user","content":"hi"}],"reply":"ho"}]}"#;

    #[test]
    fn lines_are_read() {
        let people = People::parse(GOOD).unwrap();
        assert_eq!(people.people[0].history[0].weight, 1.0);
        let Targets::Questions(questions) = &people.people[0].targets else { panic!("questions") };
        assert_eq!((&questions[0].item[..], questions[0].answer), ("p", 3.0));
        let reply = People::parse(&REPLY.replace("stop", "train")).unwrap();
        assert!(matches!(&reply.people[0].targets, Targets::Replies(r) if r[0].reply == "ho" && !r[0].open));
        let open = REPLY.replace("stop", "train").replace(r#""ho""#, r#""ho","open":true"#);
        let open = People::parse(&open).unwrap();
        assert!(matches!(&open.people[0].targets, Targets::Replies(replies) if replies[0].open));
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, part) in [
            (String::new(), "no person"),
            (REPLY.to_owned(), "no person"),
            (format!("{GOOD}\n\n{REPLY}"), "line 3: questions here"),
            (format!("{GOOD}\n{GOOD}"), "line 2: user `a` occurs twice"),
            (GOOD.replace("Tea.", ""), "`history[0].text` is empty"),
            (GOOD.replace("Tea.", &"x".repeat(17_000)), "at most 16384"),
            (GOOD.replace(r#""Tea.""#, r#""Tea.","weight":2"#), "`history[0].weight` is 2"),
            (GOOD.replace(r#""Tea.""#, r#""Tea.","sign":0"#), "`history[0].sign` is 0"),
            (GOOD.replace(r#","answer":3"#, ""), "`targets[0]` is neither"),
            (GOOD.replace(r#""answer":3"#, r#""answer":3,"reply":"x""#), "`targets[0]` is neither"),
            (GOOD.replace(r#""answer":3"#, r#""answer":3,"open":true"#), "`targets[0]` is neither"),
            (GOOD.replace("answer", "answers"), "unknown field `answers`"),
            (GOOD.replace(r#"[" a"," b"]"#, r#"[" a"]"#), "line 1: invalid length"),
            (GOOD.replace("train", "tests"), "unknown variant"),
            ("{".to_owned(), "line 1: EOF"),
        ] {
            let error = People::parse(&text).unwrap_err().to_string();
            assert!(error.contains(part), "expected {part}: {error}");
        }
    }
}
