//! Arms: the conditions that a probe compares - plain, prompt alone, the persona, its parts, and controls.

use super::ProbeError;
use super::suites::Suite;
use crate::digest::{Digest, Digester};
use crate::model::{BlockEdits, Change, Edit, Edits, SoftRows};
use crate::persona::PersonaSpec;
use crate::persona::card::Card;
use crate::statistics::Draws;
use crate::users::{UserPrompt, Users};
use serde::Deserialize;
use std::sync::Arc;

/// A persona resolved on the loaded model: what is probed.
#[derive(Clone)]
pub struct Subject {
    pub persona: String,
    pub version: u32,
    /// [`persona_digest`](crate::persona::persona_digest): what the report binds to.
    pub digest: Digest,
    /// Empty: none.
    pub system: String,
    /// The card behind the system text.
    pub card: Option<Arc<Card>>,
    pub edits: Arc<Edits>,
    pub soft: Soft,
}

/// A soft prompt of an arm.
#[derive(Clone)]
pub enum Soft {
    None,
    /// Rows under a label (`poet@1`).
    Rows {
        rows: SoftRows,
        label: String,
    },
    /// A user's rows; they may depend on the prompt.
    User {
        users: Users,
        id: String,
    },
}

/// A one-line persona that serves as a control.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    pub kind: String,
    /// The system text.
    pub text: String,
}

/// One condition of the comparison.
#[derive(Clone)]
pub struct Arm {
    pub name: String,
    pub system: String,
    /// The card behind the system text: all of its lorebook that its budget has room for is read.
    pub card: Option<Arc<Card>>,
    pub edits: Arc<Edits>,
    pub soft: Soft,
}

/// Names of the arms that results look for.
pub const PLAIN: &str = "plain";
pub const PROMPT: &str = "prompt";
pub const PERSONA: &str = "persona";
pub const RANDOM: &str = "random";
pub const PLAN: &str = "plan";
pub const SOFT: &str = "soft_prompt";
/// Neutral paraphrases are `neutral 1` and so on.
pub const NEUTRAL: &str = "neutral ";

impl Soft {
    /// The soft prompt of a stored persona. A user who is gone leaves it without one, as a request does.
    pub fn of(spec: &PersonaSpec, users: &Users) -> Result<Soft, ProbeError> {
        match (&spec.soft_prompt, &spec.user) {
            (_, Some(id)) => match users.prompt_for(id, None) {
                UserPrompt::Unknown => Ok(Soft::None),
                _ => Ok(Soft::User { users: users.clone(), id: id.clone() }),
            },
            (Some(name), None) => match users.named(name)? {
                Some(found) => Ok(Soft::Rows { rows: found.rows, label: found.label }),
                None => Err(ProbeError::NoSoftPrompt { name: name.clone() }),
            },
            (None, None) => Ok(Soft::None),
        }
    }

    pub fn is_none(&self) -> bool {
        matches!(self, Soft::None)
    }

    /// The rows in front of a prompt that ends with `query`, and whose they are.
    pub fn rows_for(&self, query: &str) -> Result<(SoftRows, Digest), ProbeError> {
        match self {
            Soft::None => Ok((SoftRows::none(), Digest::default())),
            Soft::Rows { rows, .. } => Ok((rows.clone(), Digest::default())),
            Soft::User { users, id, .. } => match users.prompt_for(id, Some(query)) {
                UserPrompt::Ready { rows, owner, .. } => Ok((rows, owner)),
                UserPrompt::NotReady(why) => Err(ProbeError::SoftPrompt { id: id.clone(), why }),
                UserPrompt::Unknown => {
                    Err(ProbeError::SoftPrompt { id: id.clone(), why: "there is no such user".to_owned() })
                }
            },
        }
    }
}

impl Arm {
    pub fn of_system(name: &str, system: &str) -> Arm {
        Arm {
            name: name.to_owned(),
            system: system.to_owned(),
            card: None,
            edits: Arc::default(),
            soft: Soft::None,
        }
    }

    /// Identifies what shapes its numbers; `None` where rows of a user are in it, which are not kept.
    pub fn key(&self) -> Option<Digest> {
        let mut digester = Digester::new("demeanor.probe-arm/1");
        digester.part(self.system.as_bytes()).part(&self.edits.digest().0);
        match &self.soft {
            Soft::None => digester.part(b"none"),
            Soft::Rows { rows, .. } => digester.part(&rows.digest().0),
            Soft::User { .. } => return None,
        };
        if let Some(effect) = self.card.as_ref().and_then(|card| card.effect(&self.system)) {
            digester.part(&effect.0);
        }
        Some(digester.finish())
    }

    /// What a report says of it.
    pub fn content(&self) -> String {
        let mut parts = Vec::new();
        if !self.system.is_empty() {
            parts.push("system text".to_owned());
        }
        if self.card.is_some() {
            parts.push("character card".to_owned());
        }
        if !self.edits.is_empty() {
            parts.push(format!("plan {}", self.edits.digest().short(12)));
        }
        match &self.soft {
            Soft::None => {}
            Soft::Rows { label, .. } => parts.push(format!("soft prompt {label}")),
            // A report outlives its user, so it names nobody.
            Soft::User { .. } => parts.push("soft prompt of a user".to_owned()),
        }
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
    }
}

impl Subject {
    pub fn has_plan_or_soft(&self) -> bool {
        !self.edits.is_empty() || !self.soft.is_none()
    }

    /// The user whose rows it uses.
    pub fn user(&self) -> Option<&str> {
        match &self.soft {
            Soft::User { id, .. } => Some(id),
            Soft::None | Soft::Rows { .. } => None,
        }
    }

    /// The arms of a run: always plain and persona; the rest as suite and persona ask for. `attribution` adds plan and
    /// soft prompt alone.
    pub fn arms(&self, suite: &Suite, seed: u64, attribution: bool) -> Vec<Arm> {
        let texts = |name: &str| Arm { card: self.card.clone(), ..Arm::of_system(name, &self.system) };
        let steered = |name: &str, edits: Arc<Edits>| Arm { edits, soft: self.soft.clone(), ..texts(name) };
        let mut arms = vec![Arm::of_system(PLAIN, "")];
        if self.has_plan_or_soft() {
            arms.push(texts(PROMPT));
        }
        arms.push(steered(PERSONA, self.edits.clone()));
        if (suite.random || attribution) && !self.edits.is_empty() {
            arms.push(steered(RANDOM, Arc::new(shuffled(&self.edits, seed))));
        }
        if attribution {
            if !self.edits.is_empty() {
                arms.push(Arm { edits: self.edits.clone(), ..Arm::of_system(PLAN, "") });
            }
            if !self.soft.is_none() {
                arms.push(Arm { soft: self.soft.clone(), ..Arm::of_system(SOFT, "") });
            }
        }
        let neutral = suite.neutral.iter().enumerate();
        arms.extend(neutral.map(|(i, one)| Arm::of_system(&format!("{NEUTRAL}{}", i + 1), &one.text)));
        arms
    }
}

/// A plan of equal dose in a direction that means nothing: the sign of each coordinate is drawn, the same in all blocks.
/// Every coordinate keeps its size, so those in which a model's stream is far larger than elsewhere are moved no further
/// than by the plan itself.
pub fn shuffled(edits: &Edits, seed: u64) -> Edits {
    let mut draws = Draws::new(seed, "signs", 0);
    let mut signs: Vec<f32> = Vec::new();
    let mut flip = |values: &Arc<[f32]>| -> Arc<[f32]> {
        while signs.len() < values.len() {
            signs.push(if draws.bits() >> 63 == 0 { 1.0 } else { -1.0 });
        }
        values.iter().zip(&signs).map(|(value, sign)| value * sign).collect()
    };
    let mut one = |edit: &Edit| {
        let change = match &edit.change {
            Change::Add { delta } => Change::Add { delta: flip(delta) },
            Change::Project { unit, keep, target } => {
                Change::Project { unit: flip(unit), keep: *keep, target: *target }
            }
        };
        Edit::new(change, edit.rows)
    };
    let blocks = edits.blocks.iter().map(|block| BlockEdits {
        attn: block.attn.iter().map(&mut one).collect(),
        resid: block.resid.iter().map(&mut one).collect(),
    });
    Edits::new(blocks.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RowRule;

    fn plan() -> Edits {
        let edit = |values: Vec<f32>| Edit::new(Change::Add { delta: values.into() }, RowRule::Response);
        let block = |resid| BlockEdits { attn: Vec::new(), resid };
        let values: Vec<f32> = (1..=64).map(|i| i as f32).collect();
        Edits::new(vec![block(vec![edit(values.clone())]), block(Vec::new()), block(vec![edit(values)])])
    }

    #[test]
    fn shuffled_signs_keep_every_size_and_follow_the_seed() {
        let plan = plan();
        let other = shuffled(&plan, 7);
        assert_eq!(other, shuffled(&plan, 7));
        assert_ne!(other.digest(), shuffled(&plan, 8).digest());
        assert_ne!(other.digest(), plan.digest());
        let delta = |edits: &Edits, block: usize| match &edits.blocks[block].resid[0].change {
            Change::Add { delta } => delta.to_vec(),
            Change::Project { .. } => Vec::new(),
        };
        assert_eq!(delta(&other, 0), delta(&other, 2), "one pattern of signs for all blocks");
        let pairs = delta(&other, 0).into_iter().zip(delta(&plan, 0));
        assert!(pairs.clone().all(|(flipped, value)| flipped.abs() == value));
        let flips = pairs.filter(|(flipped, value)| flipped != value).count();
        assert!((16..=48).contains(&flips), "{flips} of 64");
        assert_eq!(other.blocks[0].resid[0].rows, RowRule::Response);
        assert!(shuffled(&Edits::none(), 1).is_empty());
    }

    fn names(arms: &[Arm]) -> Vec<&str> {
        arms.iter().map(|arm| arm.name.as_str()).collect()
    }

    #[test]
    fn arms_follow_from_what_the_persona_has() {
        let suite = Suite::shipped("smoke").expect("ships");
        let mut subject = Subject {
            persona: "p".into(),
            version: 1,
            digest: Digest::default(),
            system: "You are Ada.".into(),
            card: None,
            edits: Arc::default(),
            soft: Soft::None,
        };
        assert_eq!(names(&subject.arms(&suite, 1, true)), [PLAIN, PERSONA]);
        subject.edits = Arc::new(plan());
        assert_eq!(names(&subject.arms(&suite, 1, false)), [PLAIN, PROMPT, PERSONA]);
        assert_eq!(names(&subject.arms(&suite, 1, true)), [PLAIN, PROMPT, PERSONA, RANDOM, PLAN]);
        let rows = SoftRows::new(vec![1.0; 8], 2, 4).expect("finite");
        subject.soft = Soft::Rows { rows, label: "poet@1".into() };
        let arms = subject.arms(&suite, 1, true);
        assert_eq!(names(&arms), [PLAIN, PROMPT, PERSONA, RANDOM, PLAN, SOFT]);
        let keys: std::collections::BTreeSet<_> = arms.iter().map(Arm::key).collect();
        assert_eq!(keys.len(), arms.len());
        assert_eq!(arms[1].content(), "system text");
        assert!(arms[2].content().ends_with("soft prompt poet@1"), "{}", arms[2].content());
        let full = Suite::shipped("quick").expect("ships");
        assert_eq!(subject.arms(&full, 1, false).len(), 4 + 5);
    }
}
