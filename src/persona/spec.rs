//! What a persona is made of, as stored and as read back.

use super::card::Card;
use super::{PersonaError, SamplingDefaults};
use crate::limits;
use crate::steering::{RequestRules, SteeringRequest, is_valid_name};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// One version of a persona. Never changed once stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Persona {
    pub name: String,
    /// From 1; goes on counting when a deleted name is made again.
    pub version: u32,
    /// Unix seconds.
    pub created: i64,
    pub spec: PersonaSpec,
}

/// The content of a persona. Names in it are looked up on every use: a vector may be made again meanwhile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PersonaSpec {
    /// Empty: none. With a card, its placeholders are replaced in each chat.
    pub system: String,
    /// Interventions by name; the `param` of each is `persona`.
    pub steering: SteeringRequest,
    /// Name of a stored soft prompt.
    pub soft_prompt: Option<String>,
    /// Id of the user whose soft prompt it uses.
    pub user: Option<String>,
    pub sampling: SamplingDefaults,
    /// For people; no part of any digest.
    pub description: String,
    /// The character card that it came from: its lorebook and last words are applied to each chat.
    pub card: Option<Arc<Card>>,
}

/// The form in the store.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    system: String,
    /// Canonical.
    steering: Value,
    soft_prompt: Option<String>,
    user: Option<String>,
    sampling: SamplingDefaults,
    description: String,
    /// As it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    card: Option<Map<String, Value>>,
}

impl Persona {
    /// `ada@1`.
    pub fn label(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

impl PersonaSpec {
    /// Refuses texts that are too long and a soft prompt beside a user's.
    pub fn check(&self) -> Result<(), PersonaError> {
        for (param, text, max) in [
            ("system", &self.system, limits::PERSONA_SYSTEM_BYTES_MAX),
            ("description", &self.description, limits::PERSONA_DESCRIPTION_BYTES_MAX),
        ] {
            if text.len() > max {
                return Err(PersonaError::TooLong { param, given: text.len(), max });
            }
        }
        match (&self.soft_prompt, &self.user) {
            (Some(name), Some(id)) => Err(PersonaError::TwoSoftPrompts {
                first: "soft_prompt",
                first_is: format!("the soft prompt `{name}`"),
                second: "user",
                second_is: format!("the soft prompt of user `{id}`"),
            }),
            _ => Ok(()),
        }
    }

    /// The form in the store, numbers by their shortest digits.
    pub fn to_value(&self) -> Value {
        let mut value = Value::Object(self.fields());
        if let Some(card) = &self.card {
            value["card"] = Value::Object(card.map());
        }
        value
    }

    /// The same without the card.
    pub fn fields(&self) -> Map<String, Value> {
        let stored = Stored {
            system: self.system.clone(),
            steering: self.steering.canonical(),
            soft_prompt: self.soft_prompt.clone(),
            user: self.user.clone(),
            sampling: self.sampling.clone(),
            description: self.description.clone(),
            card: None,
        };
        // By way of text: a JSON value would show 0.7 as the f64 nearest to the f32.
        let text = serde_json::to_string(&stored).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Reads the form in the store.
    pub fn from_value(value: &Value) -> Result<PersonaSpec, String> {
        let stored = Stored::deserialize(value).map_err(|error| error.to_string())?;
        let steering = SteeringRequest::from_json(&stored.steering, "persona", RequestRules::default())
            .map_err(|error| error.to_string())?;
        let card = stored.card.map(|card| Card::from_map(card).map_err(|error| error.to_string()));
        Ok(PersonaSpec {
            card: card.transpose()?.map(|(card, _)| Arc::new(card)),
            system: stored.system,
            steering: steering.named("persona"),
            soft_prompt: stored.soft_prompt,
            user: stored.user,
            sampling: stored.sampling,
            description: stored.description,
        })
    }
}

/// Whether a persona may have this name: the rule of all names.
pub(super) fn check_name(param: &'static str, name: &str) -> Result<(), PersonaError> {
    if is_valid_name(name) {
        return Ok(());
    }
    Err(PersonaError::BadName { param, given: name.chars().take(80).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipped;
    use crate::steering::Trait;
    use serde_json::json;

    fn spec() -> PersonaSpec {
        PersonaSpec {
            system: "You are Ada.".into(),
            steering: SteeringRequest::from_json(
                &json!([{"vector": "warm", "coefficient": 0.1, "unit": "dose"}]),
                "persona",
                RequestRules::default(),
            )
            .unwrap()
            .named("persona"),
            soft_prompt: Some("poet".into()),
            user: None,
            sampling: SamplingDefaults {
                temperature: Some(0.7),
                seed: Some(u64::MAX),
                stop: vec!["X".into()],
                ..SamplingDefaults::default()
            },
            description: "d".into(),
            card: None,
        }
    }

    #[test]
    fn a_stored_spec_reads_back() {
        for spec in [spec(), PersonaSpec::default()] {
            let value = spec.to_value();
            assert_eq!(PersonaSpec::from_value(&value).unwrap(), spec, "{value}");
        }
        let value = spec().to_value();
        assert_eq!(value["sampling"], json!({"temperature": 0.7, "seed": u64::MAX, "stop": ["X"]}));
        assert_eq!(value["steering"][0]["coefficient"], json!(0.1));
    }

    #[test]
    fn rows_of_another_build_are_refused() {
        let mut newer = spec().to_value();
        newer["voice"] = json!("low");
        let mut broken = spec().to_value();
        broken["steering"] = json!("0.8 warm +");
        for value in [newer, broken, json!([]), json!({"system": 1})] {
            assert!(PersonaSpec::from_value(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn shipped_personas_are_mild_and_plain() {
        let traits = Trait::shipped().unwrap();
        let mut count = 0;
        for (stem, text) in shipped::folder("personas") {
            let mut file: Value =
                serde_json::from_str(text).unwrap_or_else(|error| panic!("{stem}: {error}"));
            assert_eq!((&file["schema"], &file["name"]), (&json!("demeanor.persona/1"), &json!(stem)));
            for own in ["schema", "name"] {
                file.as_object_mut().unwrap().remove(own);
            }
            let spec = PersonaSpec::from_value(&file).unwrap_or_else(|error| panic!("{stem}: {error}"));
            spec.check().unwrap();
            assert!(!spec.system.is_empty() && !spec.description.is_empty(), "{stem}");
            assert!(!spec.steering.is_empty() && spec.soft_prompt.is_none() && spec.user.is_none(), "{stem}");
            for one in &spec.steering.interventions {
                let of = traits.iter().find(|known| known.sign_of(one.name()).is_some());
                let of = of.unwrap_or_else(|| panic!("{stem}: `{}` is no shipped trait", one.name()));
                assert!(of.harmful.is_none() && one.coefficient.abs() <= 0.6, "{stem}: {}", one.name());
            }
            count += 1;
        }
        assert!(count >= 5, "{count} personas");
    }

    #[test]
    fn bounds() {
        let long = PersonaSpec {
            system: "x".repeat(limits::PERSONA_SYSTEM_BYTES_MAX + 1),
            ..PersonaSpec::default()
        };
        assert_eq!(long.check().unwrap_err().param(), Some("system"));
        let exact =
            PersonaSpec { system: "x".repeat(limits::PERSONA_SYSTEM_BYTES_MAX), ..PersonaSpec::default() };
        assert_eq!(exact.check(), Ok(()));
        let both = PersonaSpec { user: Some("u1".into()), ..spec() };
        let message = both.check().unwrap_err().to_string();
        assert!(message.contains("`poet`") && message.contains("`u1`"), "{message}");
    }
}
