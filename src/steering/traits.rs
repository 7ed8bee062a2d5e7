//! Steering traits: two poles and their contrast sets, independent of any model. One file per trait under
//! `models/traits/`.

use super::error::SteeringError;
use super::names;
use crate::digest::{Digest, Digester};
use crate::limits;
use crate::shipped;
use serde::Deserialize;

const SCHEMA: &str = "demeanor.trait/1";

/// A trait file. Item i of a set uses pair i, prompt i mod n and topic i mod n, each counted from 0.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trait {
    schema: String,
    /// The first pole: what a positive coefficient gives.
    pub name: String,
    /// The second pole: the same vector with the sign reversed.
    pub opposite: String,
    pub description: String,
    /// The pole that stands for harm; `None` for the others. Such a trait is there to be recognised: the gate does not let
    /// a request use it by itself.
    #[serde(default)]
    pub harmful: Option<String>,
    /// System prompts of the poles; for the system-prompt form of extraction.
    pub system: Poles,
    prompts: Vec<String>,
    topics: Vec<String>,
    train: Vec<Poles>,
    held_out: HeldOut,
}

/// A text of each pole.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poles {
    pub positive: String,
    pub negative: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldOut {
    prompts: Vec<String>,
    topics: Vec<String>,
    pairs: Vec<Poles>,
}

/// What a user says, and two replies to it that differ in manner.
#[derive(Clone, Debug, PartialEq)]
pub struct Contrast {
    /// `None`: the replies stand without a prompt.
    pub prompt: Option<String>,
    pub positive: String,
    pub negative: String,
}

impl Trait {
    /// Reads a trait file.
    pub fn parse(text: &str) -> Result<Trait, SteeringError> {
        let read: Trait = serde_json::from_str(text).map_err(|error| SteeringError::BadFile {
            format: "trait",
            rule: error.to_string(),
            offset: None,
        })?;
        read.check().map_err(|rule| SteeringError::BadFile { format: "trait", rule, offset: None })?;
        Ok(read)
    }

    /// The shipped traits, sorted by name.
    pub fn shipped() -> Result<Vec<Trait>, SteeringError> {
        shipped::folder("traits").map(|(_, text)| Trait::parse(text)).collect()
    }

    fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA {
            return Err(format!("schema `{}`; expected `{SCHEMA}`", self.schema));
        }
        for name in [&self.name, &self.opposite] {
            if !names::is_valid_name(name) {
                return Err(format!("`{name}` is no name"));
            }
        }
        if let Some(pole) = self.harmful.as_ref().filter(|pole| self.sign_of(pole).is_none()) {
            return Err(format!("`harmful` is `{pole}`, which is no pole of the trait"));
        }
        let sets = [
            (&self.prompts, &self.topics, &self.train, "train"),
            (&self.held_out.prompts, &self.held_out.topics, &self.held_out.pairs, "held_out"),
        ];
        for (prompts, topics, pairs, set) in sets {
            if prompts.is_empty() || topics.is_empty() || pairs.is_empty() {
                return Err(format!("`{set}` needs prompts, topics and pairs"));
            }
            if pairs.len() > limits::CONTRAST_PAIRS_MAX {
                return Err(format!(
                    "`{set}` has {} pairs; at most {}",
                    pairs.len(),
                    limits::CONTRAST_PAIRS_MAX
                ));
            }
        }
        Ok(())
    }

    /// What a name says of this trait's vector: 1 for the first pole, -1 for the second, `None` for another name. Both
    /// poles with a point between them are the first of the two.
    pub fn sign_of(&self, name: &str) -> Option<f32> {
        let (first, second) = (self.name.as_str(), self.opposite.as_str());
        let is_pair =
            |a: &str, b: &str| name.strip_prefix(a).and_then(|rest| rest.strip_prefix('.')) == Some(b);
        if name == first || is_pair(first, second) {
            return Some(1.0);
        }
        (name == second || is_pair(second, first)).then_some(-1.0)
    }

    /// What vectors are extracted from.
    pub fn training(&self) -> Vec<Contrast> {
        rendered(&self.prompts, &self.topics, &self.train, 0)
    }

    /// What they are tested on: other words, other topics.
    pub fn held_out(&self) -> Vec<Contrast> {
        self.held_out_round(0)
    }

    /// The held-out set again, each pair with the prompt and the topic that lie `round` further on.
    pub fn held_out_round(&self, round: usize) -> Vec<Contrast> {
        rendered(&self.held_out.prompts, &self.held_out.topics, &self.held_out.pairs, round)
    }
}

fn rendered(prompts: &[String], topics: &[String], pairs: &[Poles], round: usize) -> Vec<Contrast> {
    let item = |(i, pair): (usize, &Poles)| {
        let topic = &topics[(i + round) % topics.len()];
        Contrast {
            prompt: Some(filled(&prompts[(i + round) % prompts.len()], topic)),
            positive: filled(&pair.positive, topic),
            negative: filled(&pair.negative, topic),
        }
    };
    pairs.iter().enumerate().map(item).collect()
}

/// `text` with its topic put in and its first letter capitalised.
fn filled(text: &str, topic: &str) -> String {
    let text = text.replace("{topic}", topic);
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Digest of a contrast set: equal sets give equal vectors on one model.
pub fn digest_of(contrasts: &[Contrast]) -> Digest {
    let mut digester = Digester::new("demeanor.contrasts/1");
    for contrast in contrasts {
        let prompt = contrast.prompt.as_deref();
        digester.part(&[u8::from(prompt.is_some())]).part(prompt.unwrap_or_default().as_bytes());
        digester.part(contrast.positive.as_bytes()).part(contrast.negative.as_bytes());
    }
    digester.finish()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// A small trait file.
    pub fn sample(name: &str, opposite: &str) -> serde_json::Value {
        json!({
            "schema": SCHEMA, "name": name, "opposite": opposite, "description": "",
            "system": {"positive": "p", "negative": "n"},
            "prompts": ["Tell me about {topic}.", "what is {topic}?"],
            "topics": ["rain", "bread", "chess"],
            "train": [
                {"positive": "{topic} is lovely.", "negative": "It is {topic}."},
                {"positive": "How nice.", "negative": "So."},
                {"positive": "c", "negative": "d"}
            ],
            "held_out": {"prompts": ["{topic}?"], "topics": ["tea"], "pairs": [{"positive": "e", "negative": "f"}]}
        })
    }

    #[test]
    fn rendering() {
        let sample = Trait::parse(&sample("warm", "cold").to_string()).unwrap();
        let contrast = |prompt: &str, positive: &str, negative: &str| Contrast {
            prompt: Some(prompt.into()),
            positive: positive.into(),
            negative: negative.into(),
        };
        assert_eq!(
            sample.training(),
            [
                contrast("Tell me about rain.", "Rain is lovely.", "It is rain."),
                contrast("What is bread?", "How nice.", "So."),
                contrast("Tell me about chess.", "C", "D"),
            ]
        );
        assert_eq!(sample.held_out(), [contrast("Tea?", "E", "F")]);
        assert_eq!(
            rendered(&sample.prompts, &sample.topics, &sample.train, 2)[0].prompt.as_deref(),
            Some("Tell me about chess.")
        );
        assert_ne!(digest_of(&sample.training()), digest_of(&sample.held_out()));
    }

    #[test]
    fn bad_files() {
        let with = |key: &str, value: serde_json::Value| {
            let mut file = sample("warm", "cold");
            file[key] = value;
            file.to_string()
        };
        for (text, part) in [
            ("{}".to_owned(), "missing field"),
            (with("schema", json!("other/1")), "expected `demeanor.trait/1`"),
            (with("name", json!("Not A Name")), "no name"),
            (with("train", json!([])), "`train` needs"),
            (with("more", json!(1)), "unknown field `more`"),
            (with("harmful", json!("kind")), "`harmful` is `kind`"),
        ] {
            let error = Trait::parse(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn every_shipped_trait_loads() {
        for shipped in Trait::shipped().unwrap() {
            // A trait that is there to be recognised says so: the gate keeps it from requests.
            assert_eq!(shipped.harmful.is_some(), shipped.name == "hateful", "{}", shipped.name);
            assert!(shipped.training().len() >= 40 && shipped.held_out().len() >= 20, "{}", shipped.name);
        }
    }
}
