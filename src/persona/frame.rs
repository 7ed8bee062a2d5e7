//! What a persona puts around a chat: its system text first, its lorebook's entries behind it, its last words at the end.
//!
//! Entries that the chat calls for stand behind everything constant, so that the prefix cache keeps the persona's text.

use super::card::{Card, Names, Said, USER, Which, expand, is_plain_name, joined};
use crate::text::{Message, Role, TextError};

/// A chat as its persona has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Framed {
    pub messages: Vec<Message>,
    /// Messages in front that are not the client's.
    pub put_first: usize,
    /// Place of a message behind the history that is not the client's.
    pub put_last: Option<usize>,
    pub warnings: Vec<String>,
    /// Whether the persona's text has something in it that its probe did not see: a name of the request's, or entries
    /// for which the probe had no room.
    pub has_unprobed: bool,
}

/// Puts a persona's texts around a chat. The persona says who speaks, the request what is to be done: a system message
/// that stands first is joined to the persona's, with a blank line between, as templates know one at most. `tokens` counts
/// those of a text.
pub fn frame(
    system: &str,
    card: Option<&Card>,
    mut messages: Vec<Message>,
    tokens: &dyn Fn(&str) -> Result<usize, TextError>,
    which: Which,
) -> Result<Framed, TextError> {
    let Some(card) = card else {
        let put_first = put_system(&mut messages, system);
        return Ok(Framed { messages, put_first, ..Framed::default() });
    };
    let mut warnings = Vec::new();
    let user = user_name(card, system, &messages, &mut warnings).to_owned();
    let names = Names { character: &card.character, user: &user };
    let spoken = || messages.iter().filter(|message| matches!(message.role, Role::User | Role::Assistant));
    let texts: Vec<&str> = spoken().map(|message| message.content.as_str()).collect();
    let answers = spoken().filter(|message| message.role == Role::Assistant).count() as u32;
    let entries = card.in_force(Said { texts: &texts, answers }, which, &user, tokens)?;
    if entries.left_out > 0 && which == Which::Called {
        warnings.push(format!(
            "{} entries of the persona's lorebook were left out: its budget of tokens is full",
            entries.left_out
        ));
    }
    let has_unprobed = !entries.are_probed || user != USER;
    let mut parts = vec![expand(system, names)];
    parts.extend(entries.constant.into_iter().chain(entries.called));
    let put_first = put_system(&mut messages, &joined(&parts));
    let last_words = expand(&card.after_history, names);
    let put_last = (!last_words.is_empty()).then(|| {
        // An answer that is to be continued stays last.
        let is_begun = messages.last().is_some_and(|last| last.role == Role::Assistant);
        let at = messages.len() - usize::from(is_begun);
        messages.insert(at, Message::new(Role::System, &last_words));
        at
    });
    Ok(Framed { messages, put_first, put_last, warnings, has_unprobed })
}

/// The name on the last message of the user's, where the persona's texts have a place for it.
fn user_name<'a>(card: &Card, system: &str, messages: &'a [Message], warnings: &mut Vec<String>) -> &'a str {
    let last = messages.iter().rev().find(|message| message.role == Role::User);
    let Some(name) = last.and_then(|message| message.name.as_deref()).filter(|name| !name.is_empty()) else {
        return USER;
    };
    if !card.names_user(system) {
        return USER;
    }
    if is_plain_name(name) {
        return name;
    }
    warnings.push(format!("the persona calls the user `{USER}`: the message's `name` is no plain name"));
    USER
}

/// Puts a system text first: before the text of a system message that stands there, else as a message of its own.
/// Returns the number of messages put in front.
pub fn put_system(messages: &mut Vec<Message>, system: &str) -> usize {
    if system.is_empty() {
        return 0;
    }
    match messages.first_mut().filter(|first| matches!(first.role, Role::System | Role::Developer)) {
        Some(first) => {
            first.content = format!("{system}\n\n{}", first.content).trim_end().to_owned();
            0
        }
        None => {
            messages.insert(0, Message::new(Role::System, system));
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn count_words(text: &str) -> Result<usize, TextError> {
        Ok(text.split_whitespace().count())
    }

    #[test]
    fn a_personas_system_text_comes_first() {
        use Role::{Developer, System, User};
        type Roles = &'static [(Role, &'static str)];
        let table: [(&str, Roles, Roles, usize); 6] = [
            ("", &[(User, "q")], &[(User, "q")], 0),
            ("A", &[(User, "q")], &[(System, "A"), (User, "q")], 1),
            ("A", &[(System, "s"), (User, "q")], &[(System, "A\n\ns"), (User, "q")], 0),
            ("A", &[(Developer, "s"), (User, "q")], &[(Developer, "A\n\ns"), (User, "q")], 0),
            ("A", &[(System, ""), (User, "q")], &[(System, "A"), (User, "q")], 0),
            ("A", &[(User, "q"), (System, "s")], &[(System, "A"), (User, "q"), (System, "s")], 1),
        ];
        let built = |roles: Roles| -> Vec<Message> {
            roles.iter().map(|(role, text)| Message::new(*role, text)).collect()
        };
        for (system, given, expected, count) in table {
            let framed = frame(system, None, built(given), &count_words, Which::Called).expect("counts");
            assert_eq!((framed.put_first, framed.put_last), (count, None), "{given:?}");
            assert_eq!(framed.messages, built(expected), "{given:?}");
        }
    }

    fn card() -> Card {
        let entry = |key: &str, content: &str| json!({"keys": [key], "content": content});
        let data = json!({
            "name": "Mira", "description": "{{char}} waits for {{user}}.",
            "post_history_instructions": "Answer {{user}}.",
            "character_book": {"token_budget": 6, "scan_depth": 9, "entries": [
                entry("sea", "The sea is {{user}}'s."), entry("reef", "A reef of many sharp stones."),
            ]},
        });
        let Value::Object(map) = json!({"spec": "chara_card_v2", "data": data}) else {
            unreachable!("an object")
        };
        Card::from_map(map).expect("a card").0
    }

    fn framed(messages: Vec<Message>) -> (Vec<String>, Framed) {
        let card = card();
        let framed = frame(&card.system, Some(&card), messages, &count_words, Which::Called).expect("counts");
        let shown = |message: &Message| format!("{:?}: {}", message.role, message.content);
        (framed.messages.iter().map(shown).collect(), framed)
    }

    #[test]
    fn a_card_stands_around_the_chat() {
        let (shown, plain) = framed(vec![Message::new(Role::User, "Hi")]);
        assert_eq!(shown, ["System: Mira waits for User.", "User: Hi", "System: Answer User."]);
        assert_eq!((plain.put_first, plain.put_last, plain.has_unprobed), (1, Some(2), false));

        // Constant text first, then what the chat calls for, then the request's own.
        let own = Message::new(Role::System, "Be brief.");
        let said = Message { name: Some("Bo".to_owned()), ..Message::new(Role::User, "The sea") };
        let begun = Message::new(Role::Assistant, "It");
        let (shown, named) = framed(vec![own, said, begun]);
        let expected = [
            "System: Mira waits for Bo.\n\nThe sea is Bo's.\n\nBe brief.",
            "User: The sea",
            "System: Answer Bo.",
            "Assistant: It",
        ];
        assert_eq!(shown, expected);
        assert_eq!((named.put_first, named.put_last, named.has_unprobed), (0, Some(2), true));
    }

    #[test]
    fn what_has_no_room_is_told() {
        let (shown, full) = framed(vec![Message::new(Role::User, "sea and reef")]);
        assert_eq!(shown[0], "System: Mira waits for User.\n\nThe sea is User's.");
        assert!(full.warnings[0].starts_with("1 entries"), "{:?}", full.warnings);
        let hostile = Message { name: Some("Bo. {{x}}".to_owned()), ..Message::new(Role::User, "Hi") };
        let (shown, hostile) = framed(vec![hostile]);
        assert_eq!(shown[0], "System: Mira waits for User.");
        assert!(hostile.warnings[0].contains("no plain name") && !hostile.has_unprobed);
    }
}
