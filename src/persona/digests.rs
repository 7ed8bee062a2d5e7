//! The persona digest: one number for all that a persona comes to on the loaded model. Reports bind to it.

use super::SamplingDefaults;
use super::card::Card;
use crate::digest::{Digest, Digester};

/// The parts of a persona, resolved. All empty: the plain model.
#[derive(Clone, Copy)]
pub struct PersonaParts<'a> {
    pub weights: Digest,
    /// Digest of the chat template's source.
    pub template: Digest,
    pub system: &'a str,
    /// Digest of the compiled plan, so of its numbers: a vector that was made again under its old name changes it.
    pub edits: Digest,
    pub soft: PersonaSoft<'a>,
    pub sampling: &'a SamplingDefaults,
    /// The card behind `system`.
    pub card: Option<&'a Card>,
}

/// A persona's own soft prompt.
#[derive(Clone, Copy)]
pub enum PersonaSoft<'a> {
    None,
    /// Rows stored under a name.
    Rows(Digest),
    /// A user's, by `u1@3`: name and version of the history. Not by its rows: they may depend on the request.
    User(&'a str),
}

pub fn persona_digest(parts: &PersonaParts) -> Digest {
    let mut digester = Digester::new("demeanor.persona/1");
    digester
        .part(&parts.weights.0)
        .part(&parts.template.0)
        .part(parts.system.as_bytes())
        .part(&parts.edits.0);
    match parts.soft {
        PersonaSoft::None => digester.part(b"none").part(b""),
        PersonaSoft::Rows(rows) => digester.part(b"rows").part(&rows.0),
        PersonaSoft::User(label) => digester.part(b"user").part(label.as_bytes()),
    };
    digester.part(parts.sampling.canonical().as_bytes());
    if let Some(effect) = parts.card.and_then(|card| card.effect(parts.system)) {
        digester.part(b"card").part(&effect.0);
    }
    digester.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_part_changes_it() {
        let defaults = SamplingDefaults::default();
        let sampled = |change: &dyn Fn(&mut SamplingDefaults)| {
            let mut defaults = SamplingDefaults::default();
            change(&mut defaults);
            defaults
        };
        let with = [
            sampled(&|s| s.temperature = Some(0.7)),
            sampled(&|s| s.temperature = Some(f32::from_bits(0.7f32.to_bits() + 1))),
            sampled(&|s| s.top_p = Some(0.7)),
            sampled(&|s| s.top_k = Some(1)),
            sampled(&|s| s.min_p = Some(0.7)),
            sampled(&|s| s.typical_p = Some(0.7)),
            sampled(&|s| s.repetition_penalty = Some(0.7)),
            sampled(&|s| s.presence_penalty = Some(0.7)),
            sampled(&|s| s.frequency_penalty = Some(0.7)),
            sampled(&|s| s.max_tokens = Some(1)),
            sampled(&|s| s.seed = Some(1)),
            sampled(&|s| s.stop = vec!["a".into()]),
            sampled(&|s| s.stop = vec!["a".into(), "".into()]),
            sampled(&|s| s.stop = vec!["b".into()]),
        ];
        let plain = PersonaParts {
            weights: Digest::of(b"w"),
            template: Digest::of(b"t"),
            system: "You are Ada.",
            edits: Digest::default(),
            soft: PersonaSoft::None,
            sampling: &defaults,
            card: None,
        };
        let mut parts = vec![
            ("plain", plain),
            ("weights", PersonaParts { weights: Digest::of(b"v"), ..plain }),
            ("template", PersonaParts { template: Digest::of(b"u"), ..plain }),
            ("system byte", PersonaParts { system: "You are Ada!", ..plain }),
            ("system empty", PersonaParts { system: "", ..plain }),
            ("edits", PersonaParts { edits: Digest::of(b"e"), ..plain }),
            ("soft rows", PersonaParts { soft: PersonaSoft::Rows(Digest::of(b"r")), ..plain }),
            ("other soft rows", PersonaParts { soft: PersonaSoft::Rows(Digest::of(b"s")), ..plain }),
            ("user", PersonaParts { soft: PersonaSoft::User("u1@3"), ..plain }),
            ("user's version", PersonaParts { soft: PersonaSoft::User("u1@4"), ..plain }),
        ];
        parts.extend(with.iter().map(|sampling| ("sampling", PersonaParts { sampling, ..plain })));
        let mut seen = BTreeMap::new();
        for (name, parts) in &parts {
            if let Some(other) = seen.insert(persona_digest(parts), name) {
                panic!("`{name}` and `{other}` give one digest");
            }
        }
        assert_eq!(persona_digest(&plain), persona_digest(&plain), "it is a function of the parts");
    }
}
