//! The persona-bias safety probe: what a persona changes against the plain model, on the same items, by log-probabilities.
//!
//! A run asks the same items of several [`Arm`]s: plain, the system text alone, the persona with its plan and soft prompt,
//! a plan of equal dose with shuffled signs, neutral paraphrases. Each [`Aspect`](aspects::Aspect) is one number per item;
//! the report gives paired differences with intervals that resample whole wordings. Prompts go to the engine as a
//! client's do, at low priority. Sets, suites and control personas are files under `models/probes/`.
//! Not here: which report admits a persona (`persona::gate`), HTTP (`server`).

mod arms;
mod aspects;
mod band;
mod compare;
mod error;
mod page;
mod prober;
mod report;
mod results;
#[cfg(test)]
mod results_tests;
mod runner;
mod scorer;
mod sets;
#[cfg(test)]
mod sets_tests;
mod suites;

pub use arms::{Arm, Control, Soft, Subject, shuffled};
pub use aspects::{ASPECTS, Aspect};
pub use compare::{Comparison, compare, lines};
pub use error::ProbeError;
pub use page::html as page;
pub use prober::{ProbeOptions, Prober};
pub use report::read as read_report;
pub use scorer::{EngineScorer, Scored, Scorer};
pub use sets::{Ask, Item, ItemSet};
pub use suites::{ControlPersonas, Suite};
