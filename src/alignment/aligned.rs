//! What an alignment is asked for and what comes of it.

use super::pas::Head;
use serde_json::{Value, json};

/// How a person's answers become a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Kernel ridge on the items' gradients.
    Ridge,
    /// The published activation search.
    Pas,
    /// What people on average answer; no person in it.
    Population,
    /// A common shift of all answers; no person in it.
    Shift,
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Ridge => "ridge",
            Algorithm::Pas => "pas",
            Algorithm::Population => "population",
            Algorithm::Shift => "shift",
        }
    }
}

/// How the published search is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Raw answers as labels, the strength by cross-validation on what is known of the person.
    Honest,
    /// As published: answers turned to the domain's direction as labels, the strength chosen on the unseen items. For
    /// comparison only.
    Paper,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Honest => "honest",
            Protocol::Paper => "paper",
        }
    }
}

/// A vector for one person, with how it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Aligned {
    pub algorithm: Algorithm,
    /// Added to every row at the place of the gradients, `[n_blocks * width]`.
    pub constants: Vec<f64>,
    /// Answer to each item by the gradients, not held to the scale.
    pub predicted: Vec<f64>,
    /// Penalty of the ridge.
    pub lambda: Option<f64>,
    /// Norm of the constants before they were capped, and the factor of the cap.
    pub norm: f64,
    pub scale: f64,
    /// Difference of mean answers that was measured, and the norm of what was added against it.
    pub shift: Option<(f64, f64)>,
    /// Strength that the published search chose.
    pub alpha: Option<f64>,
    /// Heads that it moves, best first.
    pub heads: Vec<Head>,
    /// Answers it was made from.
    pub used: usize,
    pub warnings: Vec<String>,
}

impl Aligned {
    /// How it came about, for results and reports.
    pub fn json(&self) -> Value {
        let of_heads = |part: fn(&Head) -> Value| self.heads.iter().map(part).collect::<Vec<_>>();
        json!({
            "algorithm": self.algorithm.name(), "used": self.used, "lambda": self.lambda,
            "norm": self.norm, "scale": self.scale,
            "shift": self.shift.map(|(measured, norm)| json!({"measured": measured, "norm": norm})),
            "alpha": self.alpha, "heads": of_heads(|head| json!(head.head)),
            "scores": of_heads(|head| json!(head.score)), "sigmas": of_heads(|head| json!(head.sigma)),
        })
    }
}
