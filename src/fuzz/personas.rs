//! Personas and what they are made of: character cards, Modelfiles, lorebooks.

use super::texts::bytes_alone;
use crate::limits;
use crate::persona::PersonaSpec;
use crate::persona::card::{Card, Said, Which, import};
use crate::text::Tokenizer;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(bytes_alone);

/// A file of any of the kinds: what is kept of a card reads back as the same card, and works.
pub fn card(bytes: &[u8]) -> bool {
    let Ok(imported) = import(bytes) else { return false };
    assert!(imported.notes.len() <= 2 * limits::CARD_NOTES_MAX, "{}", imported.notes.len());
    if let Some(Value::Object(map)) = imported.fields.get("card") {
        let (card, _) = Card::from_map(map.clone()).expect("an imported card was read");
        works(&card);
    }
    true
}

fn works(card: &Card) {
    let (again, _) = Card::from_map(card.map()).expect("a card reads back");
    assert_eq!(again.digest(), card.digest());
    assert_eq!(again.effect(&card.system), card.effect(&card.system));
    assert!(card.entries() <= limits::LORE_ENTRIES_MAX);
    let texts = ["Where is the lighthouse?", "In the lamp, Mira said.", "a b c 1887"];
    for which in [Which::Called, Which::All] {
        let said = Said { texts: &texts, answers: 1 };
        let found = card.in_force(said, which, "Kim", &|text| TOKENIZER.count(text));
        let Ok(found) = found else { continue };
        let tokens: usize =
            found.constant.iter().chain(&found.called).filter_map(|text| TOKENIZER.count(text).ok()).sum();
        assert!(tokens <= limits::LORE_TOKENS_MAX as usize, "{tokens} tokens");
    }
}

/// A lorebook, as the `character_book` of a card.
pub fn lorebook(bytes: &[u8]) -> bool {
    let Ok(book) = serde_json::from_slice::<Value>(bytes) else { return false };
    let mut map = Map::new();
    for (name, value) in [("name", json!("Mira")), ("first_mes", json!("Hi")), ("character_book", book)] {
        map.insert(name.to_owned(), value);
    }
    let Ok((card, _)) = Card::from_map(map) else { return false };
    works(&card);
    card.entries() > 0
}

/// A persona's file: it reads back from what is kept of it.
pub fn persona(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return false };
    let Ok(spec) = PersonaSpec::from_value(&value) else { return false };
    // Ranges are read where clients send them, before anything is kept.
    let s = &spec.sampling;
    let numbers = [s.temperature, s.top_p, s.min_p, s.typical_p, s.repetition_penalty];
    let penalties = [s.presence_penalty, s.frequency_penalty];
    if spec.check().is_err() || !numbers.into_iter().chain(penalties).flatten().all(f32::is_finite) {
        return false;
    }
    let again = PersonaSpec::from_value(&spec.to_value()).expect("what is kept can be read");
    assert_eq!(again, spec);
    true
}
