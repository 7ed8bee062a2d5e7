//! The system text that a card's fields make.
//!
//! Examples stand in it as text: as turns a small model takes them for things that were said. They are the first to be
//! left out where the text is too long.

use super::CardError;
use super::reading::{Data, clean};
use crate::limits::PERSONA_SYSTEM_BYTES_MAX;

/// The text, placeholders still in it, and what was left out.
pub fn system_text(data: &Data<'_>) -> Result<(String, Option<String>), CardError> {
    let field = |name: &str| data.text(name).map(|text| clean(text).trim().to_owned());
    let (instructions, description) = (field("system_prompt")?, field("description")?);
    let personality = titled("{{char}}'s personality: ", &field("personality")?);
    let scenario = titled("Scenario: ", &field("scenario")?);
    let examples = titled("Example dialogue:\n", &examples(&field("mes_example")?));
    let mut parts = vec![instructions, description, personality, scenario, examples];
    let whole = joined(&parts);
    if whole.len() <= PERSONA_SYSTEM_BYTES_MAX {
        return Ok((whole, None));
    }
    parts.pop();
    let without = joined(&parts);
    CardError::check_bytes(without.len(), PERSONA_SYSTEM_BYTES_MAX, || {
        format!("the texts of `{}`", data.path("description"))
    })?;
    Ok((without, Some("the example dialogue was left out: the text would be too long with it".to_owned())))
}

fn titled(title: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{title}{text}") }
}

/// Texts that are not empty, with a blank line between.
pub fn joined(parts: &[String]) -> String {
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join("\n\n")
}

/// Dialogues that `<START>` separates, with a blank line between.
fn examples(text: &str) -> String {
    const START: &str = "<START>";
    let mut dialogues = vec![String::new()];
    for line in text.lines() {
        if line.trim().eq_ignore_ascii_case(START) {
            dialogues.push(String::new());
        } else if let Some(last) = dialogues.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    let dialogues: Vec<String> = dialogues.iter().map(|one| one.trim().to_owned()).collect();
    joined(&dialogues)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn compose(data: &Value) -> Result<(String, Option<String>), CardError> {
        system_text(&Data::of(data, "data")?)
    }

    #[test]
    fn fields_stand_in_one_order() {
        let card = json!({
            "description": "{{char}} sails.\r\n", "personality": "calm", "scenario": "at sea",
            "mes_example": "<START>\n{{user}}: Hi\n{{char}}: Ahoy\u{7}\n<start>\n\n{{char}}: Bye",
            "system_prompt": "{{original}}Play {{char}}.", "creator_notes": "never read", "tags": ["x"],
        });
        let expected = "{{original}}Play {{char}}.\n\n{{char}} sails.\n\n{{char}}'s personality: calm\n\n\
            Scenario: at sea\n\nExample dialogue:\n{{user}}: Hi\n{{char}}: Ahoy\n\n{{char}}: Bye";
        assert_eq!(compose(&card), Ok((expected.to_owned(), None)));
        assert_eq!(compose(&json!({"description": "d"})), Ok(("d".to_owned(), None)));
    }

    #[test]
    fn examples_go_first_where_it_is_too_long() {
        let long = "x".repeat(PERSONA_SYSTEM_BYTES_MAX);
        let (text, note) = compose(&json!({"description": long, "mes_example": "y"})).unwrap();
        assert_eq!(text.len(), PERSONA_SYSTEM_BYTES_MAX);
        assert!(note.is_some_and(|note| note.contains("example")));
        let error = compose(&json!({"description": format!("{long}x")})).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
