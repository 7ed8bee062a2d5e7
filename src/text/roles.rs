//! Putting a chat into the roles and order that a template takes.

use serde::Serialize;

/// A message as a template sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Turn {
    pub role: &'static str,
    pub content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Place among the messages that the client sent; `None` for what the server put there.
    #[serde(skip)]
    pub index: Option<usize>,
}

impl Turn {
    pub fn new(role: &'static str, content: &str) -> Turn {
        Turn { role, content: content.to_owned(), name: None, reasoning_content: None, index: None }
    }
}

/// A chat in one form, with what was changed.
pub(super) struct Form {
    pub turns: Vec<Turn>,
    pub notes: Vec<String>,
}

/// Forms of a chat, from the chat as it is to the strictest one: user first, then assistant and
/// user in turn. Forms that change nothing more are left out. With `takes_system` false (the template would drop or
/// refuse it) a chat with a system message starts at the strictest form.
pub(super) fn adaptations(turns: &[Turn], takes_system: bool) -> Vec<Form> {
    let drops = !takes_system && turns.iter().any(|turn| turn.role == "system");
    let steps: &[fn(&[Turn]) -> Form] = if drops { &[strict] } else { &[as_given, system_first, strict] };
    let mut forms: Vec<Form> = Vec::new();
    for form in steps.iter().map(|step| step(turns)) {
        if !forms.iter().any(|known| known.turns == form.turns) {
            forms.push(form);
        }
    }
    forms
}

fn as_given(turns: &[Turn]) -> Form {
    Form { turns: turns.to_vec(), notes: Vec::new() }
}

/// One system message at the front, everything else user and assistant in turn where possible.
fn system_first(turns: &[Turn]) -> Form {
    let mut notes = Notes::default();
    let lead = turns.iter().take_while(|turn| turn.role == "system").count();
    let roles = turns.iter().enumerate().map(|(at, turn)| match turn.role {
        "system" if at >= lead => notes.rerole(turn, "user"),
        "tool" => notes.rerole(turn, "user"),
        _ => turn.clone(),
    });
    let roles: Vec<Turn> = roles.collect();
    Form { turns: merged(roles, &mut notes), notes: notes.0 }
}

/// No system message at all: its text goes into the first user message.
fn strict(turns: &[Turn]) -> Form {
    let mut notes = Notes::default();
    let roles = turns.iter().map(|turn| match turn.role {
        "system" | "tool" => notes.rerole(turn, "user"),
        _ => turn.clone(),
    });
    let mut roles: Vec<Turn> = roles.collect();
    if roles.first().is_some_and(|turn| turn.role != "user") {
        roles.insert(0, Turn::new("user", ""));
        notes.0.push(
            "an empty user message was put before `messages[0]`: the chat template wants one first"
                .to_owned(),
        );
    }
    Form { turns: merged(roles, &mut notes), notes: notes.0 }
}

/// Neighbours of one role become one message, a blank line between them.
fn merged(turns: Vec<Turn>, notes: &mut Notes) -> Vec<Turn> {
    let mut out: Vec<Turn> = Vec::with_capacity(turns.len());
    let mut count = 0;
    for turn in turns {
        match out.last_mut().filter(|last| last.role == turn.role) {
            Some(last) => {
                count += 1;
                last.content = [last.content.as_str(), turn.content.as_str()].join("\n\n");
                last.name = last.name.take().filter(|name| turn.name.as_ref() == Some(name));
            }
            None => out.push(turn),
        }
    }
    if count > 0 {
        notes.0.push(format!(
            "{count} messages were joined to the one before, of the same role, for the chat template"
        ));
    }
    out
}

#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn rerole(&mut self, turn: &Turn, role: &'static str) -> Turn {
        let what = turn.index.map_or_else(
            || format!("the server's own {} message", turn.role),
            |at| format!("`messages[{at}]`"),
        );
        self.0.push(format!(
            "{what} was given to the model as a {role} message: its chat template takes no {} message there",
            turn.role
        ));
        Turn { role, ..turn.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(form: &Form) -> Vec<String> {
        form.turns.iter().map(|turn| format!("{}:{}", turn.role, turn.content)).collect()
    }

    fn chat(roles: &[&'static str]) -> Vec<Turn> {
        let turn = |(at, (role, text)): (usize, (&&'static str, char))| Turn {
            index: Some(at),
            ..Turn::new(role, &text.to_string())
        };
        roles.iter().zip('a'..).enumerate().map(turn).collect()
    }

    #[test]
    fn forms() {
        let given = chat(&["system", "system", "assistant", "user", "system", "tool", "assistant"]);
        let forms = adaptations(&given, true);
        assert_eq!(roles(&forms[0]).len(), 7);
        assert_eq!(roles(&forms[1]), ["system:a\n\nb", "assistant:c", "user:d\n\ne\n\nf", "assistant:g"]);
        assert_eq!(roles(&forms[2]), ["user:a\n\nb", "assistant:c", "user:d\n\ne\n\nf", "assistant:g"]);
        assert_eq!(forms[1].notes.len(), 3, "{:?}", forms[1].notes);
        assert!(forms[1].notes[0].starts_with("`messages[4]` was given to the model as a user message"));
    }

    #[test]
    fn a_chat_that_fits_has_one_form() {
        assert_eq!(adaptations(&chat(&["user", "assistant", "user"]), true).len(), 1);
        assert_eq!(adaptations(&chat(&["user", "assistant", "user"]), false).len(), 1);
    }

    #[test]
    fn a_template_without_system_gets_none() {
        let forms = adaptations(&chat(&["system", "user"]), false);
        assert_eq!(forms.iter().map(roles).collect::<Vec<_>>(), [["user:a\n\nb"]]);
        assert_eq!(roles(&adaptations(&chat(&["assistant"]), true)[1]), ["user:", "assistant:a"]);
    }
}
