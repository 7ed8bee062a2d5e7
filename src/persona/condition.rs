//! Everything that determines an output, resolved; the one way to engine requests.

use crate::digest::{Digest, Digester};
use crate::engine::{Priority, Request, Sampling, Want};
use crate::model::{Edits, SoftRows, TokenId};
use std::sync::Arc;

/// A resolved request. Requests of one condition differ in their prompt and choice only.
#[derive(Clone, Debug)]
pub struct Condition {
    pub edits: Arc<Edits>,
    pub soft: SoftRows,
    /// Index in the prompt before which the soft rows stand.
    pub soft_at: u32,
    /// With the seed; `choice` is set by [`Condition::request`].
    pub sampling: Sampling,
    /// Whose data the rows from `soft_at` on are; zero for nobody's.
    pub owner: Digest,
    /// Narrows the prefix cache.
    pub cache_salt: Digest,
    pub use_cache: bool,
}

/// What the answering side is: build, arithmetic and weights.
pub struct Serving<'a> {
    pub build: &'a str,
    pub arithmetic: &'a str,
    pub weights: Digest,
}

impl Condition {
    /// Plan and sampling, without a soft prompt.
    pub fn new(edits: Arc<Edits>, sampling: Sampling) -> Condition {
        Condition {
            edits,
            soft: SoftRows::none(),
            soft_at: 0,
            sampling,
            owner: Digest::default(),
            cache_salt: Digest::default(),
            use_cache: true,
        }
    }

    /// The sequence that answers `prompt`. `want`'s own sampling, where it has one, is the caller's.
    pub fn request(&self, prompt: Vec<TokenId>, want: Want) -> Request {
        Request {
            prompt,
            soft: self.soft.clone(),
            soft_at: self.soft_at,
            edits: self.edits.clone(),
            want,
            priority: Priority::Serving,
            owner: self.owner,
            cache_salt: self.cache_salt,
            use_cache: self.use_cache,
        }
    }

    /// The sampling of one choice.
    pub fn sampling_of(&self, choice: u32) -> Sampling {
        Sampling { choice, ..self.sampling.clone() }
    }

    /// `fp_` and 16 hex digits over build, arithmetic, weights, plan and soft prompt. Sampling is not part of it: two
    /// answers with one fingerprint come from the same distribution over logits.
    pub fn fingerprint(&self, serving: &Serving) -> String {
        let mut digester = Digester::new("demeanor.fingerprint/1");
        digester
            .part(serving.build.as_bytes())
            .part(serving.arithmetic.as_bytes())
            .part(&serving.weights.0)
            .part(&self.edits.digest().0)
            .part(&self.soft.digest().0)
            .part(&self.soft_at.to_le_bytes());
        format!("fp_{}", digester.finish().short(16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BlockEdits, Change, Edit, RowRule};

    fn steered(value: f32) -> Arc<Edits> {
        let edit = Edit::new(Change::Add { delta: Arc::from(vec![value; 4]) }, RowRule::All);
        Arc::new(Edits::new(vec![BlockEdits { attn: vec![], resid: vec![edit] }]))
    }

    fn print(edits: Arc<Edits>, sampling: Sampling, weights: &[u8]) -> String {
        let serving = Serving { build: "0.1.0", arithmetic: "cpu-int8", weights: Digest::of(weights) };
        Condition::new(edits, sampling).fingerprint(&serving)
    }

    #[test]
    fn fingerprint_follows_plan_and_weights_not_sampling() {
        let plain = print(Arc::new(Edits::none()), Sampling::default(), b"w");
        assert!(plain.starts_with("fp_") && plain.len() == 19, "{plain}");
        let hot = Sampling { temperature: 2.0, seed: 9, ..Sampling::default() };
        assert_eq!(plain, print(Arc::new(Edits::none()), hot, b"w"));
        assert_ne!(plain, print(steered(1.0), Sampling::default(), b"w"));
        assert_ne!(
            print(steered(1.0), Sampling::default(), b"w"),
            print(steered(2.0), Sampling::default(), b"w")
        );
        assert_ne!(plain, print(Arc::new(Edits::none()), Sampling::default(), b"v"));
    }
}
