//! Everything that determines an output, resolved; the one way to engine requests.

use crate::digest::{Digest, Digester};
use crate::engine::{Priority, Request, Sampling, Want};
use crate::model::{Edits, SoftRows, TokenId};
use std::sync::Arc;

/// A resolved request. Requests of one condition differ in their prompt and choice only.
#[derive(Clone, Debug)]
pub struct Condition {
    /// [`persona_digest`](super::persona_digest) of the persona; of the plain model where there is none.
    pub persona: Digest,
    /// Label of the user's soft prompt (`u1@3`) or of the named one in force.
    pub soft_label: Option<String>,
    /// The persona's plan and the request's steering together.
    pub edits: Arc<Edits>,
    pub soft: SoftRows,
    /// Soft rows stand after this token where a prompt begins with it, else before everything.
    pub bos: Option<TokenId>,
    /// With the seed; `choice` is set by [`Condition::sampling_of`].
    pub sampling: Sampling,
    /// Digest of what else shapes the prompt: template options.
    pub template_options: Digest,
    /// Digest of what ends an answer: stop strings, stop tokens, number of tokens.
    pub ends: Digest,
    /// Whose data the rows from the soft prompt on are; zero for nobody's. Not in the digest: it names a user's life in
    /// this process, and `soft_label` names the user.
    pub owner: Digest,
    /// Narrows the prefix cache.
    pub cache_salt: Digest,
    pub use_cache: bool,
}

/// What the answering side is: build, arithmetic, weights, and the chat template's source.
pub struct Serving<'a> {
    pub build: &'a str,
    pub arithmetic: &'a str,
    pub weights: Digest,
    pub template: Digest,
}

impl Condition {
    /// Plan and sampling of the plain model, without a soft prompt.
    pub fn new(edits: Arc<Edits>, sampling: Sampling) -> Condition {
        Condition {
            persona: Digest::default(),
            soft_label: None,
            edits,
            soft: SoftRows::none(),
            bos: None,
            sampling,
            template_options: Digest::default(),
            ends: Digest::default(),
            owner: Digest::default(),
            cache_salt: Digest::default(),
            use_cache: true,
        }
    }

    /// The sequence that answers `prompt`. `want`'s own sampling, where it has one, is the caller's.
    pub fn request(&self, prompt: Vec<TokenId>, want: Want) -> Request {
        let after_bos = self.bos.is_some() && prompt.first().copied() == self.bos;
        Request {
            prompt,
            soft: self.soft.clone(),
            soft_at: u32::from(after_bos && !self.soft.is_empty()),
            edits: self.edits.clone(),
            want,
            priority: Priority::Serving,
            owner: self.owner,
            cache_salt: self.cache_salt,
            use_cache: self.use_cache,
        }
    }

    /// The same without edits and soft prompt. A persona's system text is part of the prompt and stays.
    pub fn unsteered(&self) -> Condition {
        Condition {
            edits: Arc::new(Edits::none()),
            soft: SoftRows::none(),
            soft_label: None,
            owner: Digest::default(),
            ..self.clone()
        }
    }

    /// The sampling of one choice.
    pub fn sampling_of(&self, choice: u32) -> Sampling {
        Sampling { choice, ..self.sampling.clone() }
    }

    /// The condition digest: persona digest, user, and all of the request but its messages and whether it streams or
    /// reads the cache. One byte changed in any part changes it. Two requests with one condition digest and the same
    /// messages get the same bytes on one build.
    pub fn digest(&self) -> Digest {
        let mut digester = Digester::new("demeanor.condition/1");
        self.logits_parts(&mut digester);
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            typical_p,
            repetition_penalty,
            repetition_window,
            presence_penalty,
            frequency_penalty,
            logit_bias,
            seed,
            // Choices of one request share their condition.
            choice: _,
        } = &self.sampling;
        digester
            .part(self.soft_label.as_deref().unwrap_or_default().as_bytes())
            .floats(&[*temperature, *top_p, *min_p, *typical_p])
            .floats(&[*repetition_penalty, *presence_penalty, *frequency_penalty])
            .part(&top_k.to_le_bytes())
            .part(&repetition_window.to_le_bytes())
            .part(&seed.to_le_bytes())
            .part(&(logit_bias.len() as u64).to_le_bytes());
        for (token, bias) in logit_bias {
            digester.part(&token.to_le_bytes()).floats(&[*bias]);
        }
        digester.part(&self.ends.0).part(&self.cache_salt.0);
        digester.finish()
    }

    /// `fp_` and 16 hex digits over build, arithmetic, weights and what shapes the logits: the persona digest, the plan,
    /// the soft prompt and the template options. The request's own sampling, ends and salt are no part of it: two answers
    /// with one fingerprint come from the same function from messages to distributions. (A persona's sampling defaults are
    /// part of its digest, so of the fingerprint too.)
    pub fn fingerprint(&self, serving: &Serving) -> String {
        let mut digester = Digester::new("demeanor.fingerprint/2");
        digester
            .part(serving.build.as_bytes())
            .part(serving.arithmetic.as_bytes())
            .part(&serving.weights.0)
            .part(&serving.template.0);
        self.logits_parts(&mut digester);
        format!("fp_{}", digester.finish().short(16))
    }

    fn logits_parts(&self, digester: &mut Digester) {
        digester
            .part(&self.persona.0)
            .part(&self.edits.digest().0)
            .part(&self.soft.digest().0)
            .part(&self.template_options.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BlockEdits, Change, Edit, RowRule};
    use std::collections::BTreeMap;

    const SERVING: Serving = Serving {
        build: "0.1.0",
        arithmetic: "cpu-int8",
        weights: Digest([1; 32]),
        template: Digest([2; 32]),
    };

    fn steered(value: f32) -> Arc<Edits> {
        let edit = Edit::new(Change::Add { delta: Arc::from(vec![value; 4]) }, RowRule::All);
        Arc::new(Edits::new(vec![BlockEdits { attn: vec![], resid: vec![edit] }]))
    }

    fn rows(value: f32) -> SoftRows {
        SoftRows::new(vec![value; 8], 2, 4).expect("finite")
    }

    /// A change of one part; whether it is part of the fingerprint.
    type Part = (&'static str, bool, fn(&mut Condition));

    const PARTS: [Part; 26] = [
        ("persona", true, |c| c.persona = Digest([3; 32])),
        ("steering", true, |c| c.edits = steered(1.0)),
        ("steering's last bit", true, |c| c.edits = steered(f32::from_bits(1.0f32.to_bits() + 1))),
        ("soft rows", true, |c| c.soft = rows(1.0)),
        ("soft rows' last bit", true, |c| c.soft = rows(f32::from_bits(1.0f32.to_bits() + 1))),
        ("template options", true, |c| c.template_options = Digest([4; 32])),
        ("user", false, |c| c.soft_label = Some("u1@3".into())),
        ("user's version", false, |c| c.soft_label = Some("u1@4".into())),
        ("temperature", false, |c| c.sampling.temperature = 0.5),
        ("top_p", false, |c| c.sampling.top_p = 0.5),
        ("min_p", false, |c| c.sampling.min_p = 0.5),
        ("typical_p", false, |c| c.sampling.typical_p = 0.5),
        ("repetition_penalty", false, |c| c.sampling.repetition_penalty = 0.5),
        ("presence_penalty", false, |c| c.sampling.presence_penalty = 0.5),
        ("frequency_penalty", false, |c| c.sampling.frequency_penalty = 0.5),
        ("top_k", false, |c| c.sampling.top_k = 5),
        ("repetition_window", false, |c| c.sampling.repetition_window = 5),
        ("seed", false, |c| c.sampling.seed = 5),
        ("logit_bias", false, |c| c.sampling.logit_bias = vec![(5, 1.0)]),
        ("another bias", false, |c| c.sampling.logit_bias = vec![(5, 2.0)]),
        ("another token", false, |c| c.sampling.logit_bias = vec![(6, 1.0)]),
        ("two biases", false, |c| c.sampling.logit_bias = vec![(5, 1.0), (6, 1.0)]),
        ("ends", false, |c| c.ends = Digest([6; 32])),
        ("other ends", false, |c| c.ends = Digest([7; 32])),
        ("salt", false, |c| c.cache_salt = Digest([6; 32])),
        ("another salt", false, |c| c.cache_salt = Digest([7; 32])),
    ];

    #[test]
    fn every_part_changes_the_digest_and_what_shapes_logits_the_fingerprint() {
        let plain = Condition::new(Arc::default(), Sampling::default());
        let mut seen = BTreeMap::from([(plain.digest(), "nothing")]);
        for (name, in_fingerprint, change) in PARTS {
            let mut changed = plain.clone();
            change(&mut changed);
            if let Some(other) = seen.insert(changed.digest(), name) {
                panic!("`{name}` and `{other}` give one condition digest");
            }
            let differs = changed.fingerprint(&SERVING) != plain.fingerprint(&SERVING);
            assert_eq!(differs, in_fingerprint, "{name}");
        }
    }

    #[test]
    fn what_does_not_change_the_bytes_is_in_no_digest() {
        let plain = Condition::new(Arc::default(), Sampling::default());
        let uncached = Condition { use_cache: false, ..plain.clone() };
        let choice = Condition { sampling: plain.sampling_of(3), ..plain.clone() };
        for other in [uncached, choice] {
            assert_eq!(other.digest(), plain.digest());
            assert_eq!(other.fingerprint(&SERVING), plain.fingerprint(&SERVING));
        }
    }

    #[test]
    fn the_fingerprint_covers_what_answers() {
        let condition = Condition::new(Arc::default(), Sampling::default());
        let prints = [
            SERVING,
            Serving { build: "0.1.1", ..SERVING },
            Serving { arithmetic: "cpu-f32", ..SERVING },
            Serving { weights: Digest([9; 32]), ..SERVING },
            Serving { template: Digest([9; 32]), ..SERVING },
        ]
        .map(|serving| condition.fingerprint(&serving));
        assert!(prints[0].starts_with("fp_") && prints[0].len() == 19, "{prints:?}");
        let different: std::collections::BTreeSet<&String> = prints.iter().collect();
        assert_eq!(different.len(), prints.len());
    }

    #[test]
    fn soft_rows_stand_after_a_leading_bos() {
        let score = || Want::Score(vec![vec![1]]);
        let mut condition = Condition::new(Arc::default(), Sampling::default());
        condition.bos = Some(7);
        assert_eq!(condition.request(vec![7, 8], score()).soft_at, 0, "there are no rows");
        condition.soft = rows(1.0);
        assert_eq!(condition.request(vec![7, 8], score()).soft_at, 1);
        assert_eq!(condition.request(vec![8, 7], score()).soft_at, 0, "ids may come without BOS");
        condition.bos = None;
        assert_eq!(condition.request(vec![7, 8], score()).soft_at, 0);
    }
}
