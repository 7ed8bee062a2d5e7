//! Character cards (V1, V2, V3) and Ollama Modelfiles: what of one shapes a persona, and the card itself as it was given.
//!
//! A card is a stranger's text. It is bounded (`limits`), read strictly, never a template: two names are put in
//! (`macros`), nothing is evaluated, nothing is fetched. Its fields make a persona's system text once, when it is stored
//! (`compose`); its lorebook and what stands after the history are applied to each chat (`scan`, [`frame`](super::frame)).
//! Not here: who is served (`gate`), what HTTP and the command line call these things.

mod compose;
mod decorators;
mod error;
mod export;
mod file;
mod lorebook;
mod macros;
mod modelfile;
mod png;
mod reading;
mod scan;
#[cfg(test)]
mod tests;

pub use compose::joined;
pub use error::CardError;
pub use export::{CardFormat, card_of};
pub use file::{Imported, import};
pub use macros::{Names, USER, expand, is_plain_name, uses};
pub use png::with_card as picture_with_card;
pub use scan::{InForce, Said, Which};

use crate::digest::{Digest, Digester};
use crate::limits;
use lorebook::Lorebook;
use reading::{Data, clean, clipped};
use serde_json::{Map, Value};

/// The key of our own data in a card's `extensions`.
pub const EXTENSION: &str = "demeanor";

/// The form of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Six fields without an envelope.
    V1,
    V2,
    V3,
}

/// A card as it was given, and what of it shapes a prompt beside the system text that it makes.
#[derive(Clone, Debug)]
pub struct Card {
    /// The whole card as compact JSON, without our own extension; unknown keys are in it.
    text: Box<str>,
    digest: Digest,
    /// Of all that an answer may depend on beside the system text.
    effect: Digest,
    pub version: Version,
    /// What `{{char}}` becomes.
    pub character: String,
    /// The system text that its fields make, placeholders in it.
    pub system: String,
    /// Stands after the history; empty: nothing.
    pub after_history: String,
    /// What the character opens a chat with, the first one first. The server says none of them by itself.
    pub greetings: Vec<String>,
    /// What the maker says of it, for people.
    pub notes_of_maker: String,
    lorebook: Lorebook,
}

impl PartialEq for Card {
    fn eq(&self, other: &Card) -> bool {
        self.digest == other.digest
    }
}

impl Card {
    /// Reads a card that was parsed strictly; what a person should know of it comes beside. Our own extension is left
    /// out: it is another reader's.
    pub fn from_map(mut map: Map<String, Value>) -> Result<(Card, Vec<String>), CardError> {
        let version = version_of(&map)?;
        take_extension(&mut map, version);
        let text = Value::Object(map).to_string();
        CardError::check_bytes(text.len(), limits::CARD_BYTES_MAX, || "the card's JSON".to_owned())?;
        Card::read(text, version)
    }

    fn read(text: String, version: Version) -> Result<(Card, Vec<String>), CardError> {
        let map = reading::object(text.as_bytes())?;
        let data = match version {
            Version::V1 => Data::new(&map, ""),
            Version::V2 | Version::V3 => {
                let envelope = Data::new(&map, "");
                envelope.object("data")?.ok_or(CardError::Kind {
                    path: "data".to_owned(),
                    wanted: "an object",
                    given: "absent",
                })?
            }
        };
        let mut notes = Vec::new();
        if let Some(newer) = newer(&map) {
            notes.push(newer);
        }
        let nickname = clean(data.text("nickname")?).trim().to_owned();
        let character = match nickname.is_empty() {
            true => clean(data.text("name")?).trim().to_owned(),
            false => nickname,
        };
        if character.is_empty() {
            let (path, given) = (data.path("name"), "empty");
            return Err(CardError::Kind { path, wanted: "the character's name", given });
        }
        let name = || format!("`{}`", data.path("name"));
        CardError::check_bytes(character.len(), limits::LORE_KEY_BYTES_MAX, name)?;
        let (system, left_out) = compose::system_text(&data)?;
        notes.extend(left_out);
        let after_history = clean(data.text("post_history_instructions")?).trim().to_owned();
        let this = || format!("`{}`", data.path("post_history_instructions"));
        CardError::check_bytes(after_history.len(), limits::PERSONA_SYSTEM_BYTES_MAX, this)?;
        let first = data.text("first_mes")?;
        let others = data.texts("alternate_greetings")?;
        let greetings = std::iter::once(first).chain(others).map(clean);
        let lorebook = match data.object("character_book")? {
            Some(book) => {
                let (book, of_book) = Lorebook::read(&book, &character)?;
                notes.extend(of_book);
                book
            }
            None => Lorebook::default(),
        };
        let kept = macros::kept(&[&system[..], &after_history].concat());
        if !kept.is_empty() {
            notes.push(format!("not evaluated, so read as they stand: {{{{{}}}}}", kept.join("}}, {{")));
        }
        notes.truncate(limits::CARD_NOTES_MAX);
        let mut effect = Digester::new("demeanor.card/1");
        effect
            .part(character.as_bytes())
            .part(after_history.as_bytes())
            .part(lorebook.canonical().as_bytes());
        let card = Card {
            digest: Digest::of(text.as_bytes()),
            effect: effect.finish(),
            version,
            system,
            after_history,
            greetings: greetings.filter(|greeting| !greeting.trim().is_empty()).collect(),
            notes_of_maker: clean(data.text("creator_notes")?),
            lorebook,
            character,
            text: text.into(),
        };
        Ok((card, notes))
    }

    /// Identifies the card as it was given.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The card as it was given, without our own extension.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn map(&self) -> Map<String, Value> {
        reading::object(self.text.as_bytes()).unwrap_or_default()
    }

    /// Identifies all of the card that an answer may depend on beside `system`, the persona's system text; `None`:
    /// nothing of it. So a card without lorebook is as good as its system text.
    pub fn effect(&self, system: &str) -> Option<Digest> {
        let has_effect =
            uses(system).0 || !self.after_history.is_empty() || !self.lorebook.entries.is_empty();
        has_effect.then_some(self.effect)
    }

    /// Entries of the lorebook that could ever be in force.
    pub fn entries(&self) -> usize {
        self.lorebook.entries.len()
    }

    /// The entries of the lorebook in force; `tokens` counts those of a text.
    pub fn in_force<E>(
        &self,
        said: Said<'_>,
        which: Which,
        user: &str,
        tokens: &dyn Fn(&str) -> Result<usize, E>,
    ) -> Result<InForce, E> {
        let names = Names { character: &self.character, user };
        self.lorebook.in_force(said, which, names, tokens)
    }

    /// Whether the user's name would stand in the prompt.
    pub fn names_user(&self, system: &str) -> bool {
        uses(system).1
            || uses(&self.after_history).1
            || self.lorebook.entries.iter().any(|entry| uses(&entry.content).1)
    }
}

/// Whether a JSON object looks like a card.
pub fn is_card(map: &Map<String, Value>) -> bool {
    let has = |name: &str| map.get(name).is_some_and(Value::is_string);
    has("spec") || (has("name") && (has("first_mes") || has("mes_example") || has("personality")))
}

fn version_of(map: &Map<String, Value>) -> Result<Version, CardError> {
    let refuse = |path, given: &Value, allowed| {
        let given = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
        Err(CardError::Version { path, given: clipped(&given), allowed })
    };
    let version = match map.get("spec") {
        None | Some(Value::Null) if is_card(map) => return Ok(Version::V1),
        None | Some(Value::Null) => {
            return Err(CardError::Unknown(
                "the object has neither `spec` nor the fields of a V1 card".to_owned(),
            ));
        }
        Some(spec) if spec == "chara_card_v2" => Version::V2,
        Some(spec) if spec == "chara_card_v3" => Version::V3,
        Some(spec) if spec == "lorebook_v3" => {
            return Err(CardError::Unknown("it is a lorebook without a character".to_owned()));
        }
        Some(other) => {
            return refuse("spec", other, "`chara_card_v2`, `chara_card_v3` and cards without `spec`");
        }
    };
    match map.get("spec_version") {
        None | Some(Value::Null) => Ok(version),
        Some(given) if number(given).is_some_and(|number| number >= 1.0) => Ok(version),
        Some(other) => refuse("spec_version", other, "numbers such as `2.0` and `3.0`"),
    }
}

fn number(value: &Value) -> Option<f64> {
    let number = value.as_str().map_or_else(|| value.as_f64(), |text| text.trim().parse().ok());
    number.filter(|number: &f64| number.is_finite())
}

/// What to say of a card of a later specification.
fn newer(map: &Map<String, Value>) -> Option<String> {
    let given = map.get("spec_version").and_then(number)?;
    let known = if map.get("spec").is_some_and(|spec| spec == "chara_card_v2") { 2.0 } else { 3.0 };
    let message = format!(
        "the card says it is of version {given}, this build knows {known:.1}: what is new in it is kept only"
    );
    (given > known).then_some(message)
}

/// Takes our own data out of a card.
fn take_extension(map: &mut Map<String, Value>, version: Version) -> Option<Value> {
    let data = match version {
        Version::V1 => map,
        Version::V2 | Version::V3 => map.get_mut("data")?.as_object_mut()?,
    };
    data.get_mut("extensions")?.as_object_mut()?.shift_remove(EXTENSION)
}
