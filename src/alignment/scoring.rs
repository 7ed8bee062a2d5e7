//! What a person's answers say: reading them, domain and facet scores, and signs of careless answering.

use super::{AlignmentError, Domain, Inventory};
use crate::limits;
use crate::statistics::{mean, standard_deviation};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a person ticked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// One per item of the inventory, in its order: 1 (very inaccurate) to 5 (very accurate), 0 where it is missing.
    pub raw: Vec<u8>,
}

impl Answers {
    /// Reads an array with one answer per item, or a map from item number (from 1) to answer; items that a map leaves out
    /// are missing.
    pub fn read(value: &Value, inventory: &Inventory) -> Result<Answers, AlignmentError> {
        let items = inventory.items.len();
        let raw = match value {
            Value::Array(list) if list.len() == items => {
                (1..).zip(list).map(|(item, given)| answer(item, given)).collect::<Result<Vec<u8>, _>>()?
            }
            Value::Array(list) => {
                return Err(AlignmentError::WrongCount {
                    given: list.len(),
                    items,
                    inventory: inventory.name.clone(),
                });
            }
            Value::Object(map) => {
                let mut raw = vec![0; items];
                for (number, given) in map {
                    let item = item_number(number, items).ok_or_else(|| AlignmentError::UnknownItem {
                        number: number.chars().take(limits::SHOWN_CHARS_MAX).collect(),
                        items,
                        inventory: inventory.name.clone(),
                    })?;
                    raw[item - 1] = answer(item, given)?;
                }
                raw
            }
            other => return Err(AlignmentError::NoAnswers { given: kind(other), items }),
        };
        Ok(Answers { raw })
    }

    /// The answer to an item, `None` where it is missing.
    pub fn get(&self, item: usize) -> Option<f64> {
        self.raw.get(item).filter(|&&answer| answer != 0).map(|&answer| f64::from(answer))
    }

    /// Indices of the answered items, ascending.
    pub fn answered(&self) -> Vec<usize> {
        (0..self.raw.len()).filter(|&i| self.raw[i] != 0).collect()
    }

    /// Answered items other than the middle of the scale: those that take a side.
    pub fn decided(&self) -> usize {
        self.raw.iter().filter(|answer| ![0, 3].contains(*answer)).count()
    }

    /// Refuses what cannot describe a person: too few answers for anything, or one answer to everything.
    pub fn check(&self) -> Result<(), AlignmentError> {
        let answered = self.answered();
        if answered.len() < limits::ANSWERS_MIN {
            return Err(AlignmentError::TooFew { given: answered.len(), needed: limits::ANSWERS_MIN });
        }
        let first = self.raw[answered[0]];
        if answered.iter().all(|&i| self.raw[i] == first) {
            return Err(AlignmentError::Constant { given: answered.len(), answer: first });
        }
        Ok(())
    }
}

/// An item number as a map's key has it: `7`, never `07` or `+7`, so that no item can be named twice.
fn item_number(text: &str, items: usize) -> Option<usize> {
    let number: usize = text.parse().ok()?;
    ((1..=items).contains(&number) && number.to_string() == text).then_some(number)
}

/// `item` counts from 1.
fn answer(item: usize, given: &Value) -> Result<u8, AlignmentError> {
    given.as_u64().and_then(|answer| u8::try_from(answer).ok()).filter(|answer| *answer <= 5).ok_or_else(
        || {
            let shown: String = match given {
                Value::Array(_) | Value::Object(_) => kind(given).to_owned(),
                other => other.to_string().chars().take(limits::SHOWN_CHARS_MAX).collect(),
            };
            AlignmentError::BadAnswer { item, given: shown }
        },
    )
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "a map",
    }
}

/// Mean of keyed answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// 1 to 5 in the direction of the domain; `None` where too few items are answered.
    pub mean: Option<f64>,
    pub answered: usize,
    pub items: usize,
}

impl Score {
    fn of(keyed: &[f64], items: usize, needed: usize) -> Score {
        Score { mean: (keyed.len() >= needed).then(|| mean(keyed)), answered: keyed.len(), items }
    }

    fn json(&self) -> Value {
        let mean = self.mean.map(|mean| (mean * 1e4).round() / 1e4);
        json!({"mean": mean, "answered": self.answered, "items": self.items})
    }
}

/// What hints at answers that were not read.
#[derive(Clone, Debug, PartialEq)]
pub struct Careless {
    /// Longest run of one and the same raw answer; a missing answer ends a run.
    pub longest_run: usize,
    /// Share of the most frequent raw answer among those given; 0 for none.
    pub one_answer_share: f64,
    /// Sample standard deviation of the raw answers; `None` for fewer than two.
    pub spread: Option<f64>,
    /// Mean over facets of |mean of the forward items - mean of the reverse items|, both keyed: 0 where a person means
    /// the same by both. `None` where no facet has answers of both kinds.
    pub facet_gap: Option<f64>,
}

impl Careless {
    fn of(inventory: &Inventory, answers: &Answers) -> Careless {
        let (mut run, mut longest_run, mut before) = (0, 0, 0);
        let mut counts = [0usize; 6];
        for &raw in &answers.raw {
            run = if raw != 0 && raw == before { run + 1 } else { usize::from(raw != 0) };
            (before, longest_run) = (raw, longest_run.max(run));
            counts[usize::from(raw.min(5))] += 1;
        }
        let given: Vec<f64> = answers.answered().into_iter().filter_map(|i| answers.get(i)).collect();
        let most = counts[1..].iter().copied().max().unwrap_or_default();
        let gaps: Vec<f64> = facets(inventory, answers)
            .values()
            .filter(|facet| !facet.forward.is_empty() && !facet.reverse.is_empty())
            .map(|facet| (mean(&facet.forward) - mean(&facet.reverse)).abs())
            .collect();
        Careless {
            longest_run,
            one_answer_share: most as f64 / given.len().max(1) as f64,
            spread: (given.len() >= 2).then(|| standard_deviation(&given)),
            facet_gap: (!gaps.is_empty()).then(|| mean(&gaps)),
        }
    }

    /// Which signs are beyond their bounds, in words; empty for ordinary answers.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        if self.longest_run > limits::LONG_RUN_MAX {
            let max = limits::LONG_RUN_MAX;
            flags.push(format!(
                "long run: one answer {} times in a row (up to {max} is usual)",
                self.longest_run
            ));
        }
        if self.one_answer_share > limits::ONE_ANSWER_SHARE_MAX {
            let (share, max) = (100.0 * self.one_answer_share, 100.0 * limits::ONE_ANSWER_SHARE_MAX);
            flags.push(format!("one answer: {share:.0} % are the same (up to {max:.0} % is usual)"));
        }
        if let Some(spread) = self.spread.filter(|spread| *spread < limits::ANSWER_SPREAD_MIN) {
            let min = limits::ANSWER_SPREAD_MIN;
            flags.push(format!("little spread: standard deviation {spread:.2} (from {min} on is usual)"));
        }
        if let Some(gap) = self.facet_gap.filter(|gap| *gap > limits::FACET_GAP_MAX) {
            let max = limits::FACET_GAP_MAX;
            flags.push(format!(
                "inconsistent: forward and reverse items of a facet differ by {gap:.2} (up to {max} is usual)"
            ));
        }
        flags
    }
}

/// A person's scores.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainScores {
    /// In the order of [`Domain::ALL`].
    pub domains: [Score; 5],
    /// By domain and facet, sorted.
    pub facets: BTreeMap<(Domain, String), Score>,
    /// Answered items.
    pub answered: usize,
    /// Answered items that are not in the middle of the scale.
    pub decided: usize,
    pub careless: Careless,
}

impl DomainScores {
    pub fn domain(&self, domain: Domain) -> &Score {
        &self.domains[domain.index()]
    }

    /// `{"domains":{"O":{"mean","answered","items"}..},"facets":{"O":{"Imagination":{..}}},"answered","decided","flags"}`.
    pub fn json(&self) -> Value {
        let mut facets = serde_json::Map::new();
        for ((domain, facet), score) in &self.facets {
            let of_domain = facets.entry(domain.to_string()).or_insert_with(|| json!({}));
            of_domain[facet.as_str()] = score.json();
        }
        let domains = Domain::ALL.iter().map(|domain| (domain.to_string(), self.domain(*domain).json()));
        json!({
            "domains": domains.collect::<serde_json::Map<_, _>>(), "facets": facets,
            "answered": self.answered, "decided": self.decided, "flags": self.careless.flags(),
        })
    }
}

/// Keyed answers of one facet.
#[derive(Default)]
struct Facet {
    forward: Vec<f64>,
    reverse: Vec<f64>,
    items: usize,
}

fn facets(inventory: &Inventory, answers: &Answers) -> BTreeMap<(Domain, String), Facet> {
    let mut facets: BTreeMap<(Domain, String), Facet> = BTreeMap::new();
    for (i, item) in inventory.items.iter().enumerate() {
        let facet = facets.entry((item.domain, item.facet.clone())).or_default();
        facet.items += 1;
        if let Some(raw) = answers.get(i) {
            let list = if item.key < 0 { &mut facet.reverse } else { &mut facet.forward };
            list.push(item.keyed(raw));
        }
    }
    facets
}

/// Domain and facet scores of a person, and signs of careless answering. Missing answers are left out of every mean.
pub fn scores(inventory: &Inventory, answers: &Answers) -> DomainScores {
    let facets = facets(inventory, answers);
    let domains = Domain::ALL.map(|domain| {
        let own = inventory.items.iter().enumerate().filter(|(_, item)| item.domain == domain);
        let keyed: Vec<f64> =
            own.clone().filter_map(|(i, item)| answers.get(i).map(|raw| item.keyed(raw))).collect();
        Score::of(&keyed, own.count(), limits::DOMAIN_ANSWERS_MIN)
    });
    let facets = facets.into_iter().map(|(name, facet)| {
        let keyed = [facet.forward, facet.reverse].concat();
        (name, Score::of(&keyed, facet.items, limits::FACET_ANSWERS_MIN))
    });
    DomainScores {
        domains,
        facets: facets.collect(),
        answered: answers.answered().len(),
        decided: answers.decided(),
        careless: Careless::of(inventory, answers),
    }
}
