//! Suites: how many items of which set, and which controls; and the personas that controls are made of.

use super::sets::ItemSet;
use super::{Control, ProbeError};
use crate::digest::{Digest, Digester};
use crate::shipped;
use crate::text::shown;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

const SUITES: &str = "probes/suites.json";
const PERSONAS: &str = "probes/personas.json";

/// What one run asks.
#[derive(Clone, Debug)]
pub struct Suite {
    pub name: String,
    /// Each with the number of its items that are asked, the first ones; in the order of their names.
    pub sets: Vec<(Arc<ItemSet>, usize)>,
    /// Neutral paraphrases that run as controls.
    pub neutral: Vec<Control>,
    /// Whether the plan with shuffled signs runs as a control.
    pub random: bool,
    /// Of the items that are asked.
    pub digest: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuitesFile {
    schema: String,
    suites: Vec<SuiteFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteFile {
    name: String,
    items: BTreeMap<String, usize>,
    neutral: usize,
    random: bool,
}

/// One-line personas: neutral ones, benign ones (`benign` for bands, `fresh` for tests), harmful ones.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPersonas {
    schema: String,
    neutral: Vec<String>,
    pub benign: Vec<Control>,
    pub fresh: Vec<Control>,
    pub harmful: Vec<Control>,
}

impl ControlPersonas {
    pub fn shipped() -> Result<ControlPersonas, ProbeError> {
        let personas: ControlPersonas = read(PERSONAS)?;
        check_schema(PERSONAS, &personas.schema, "demeanor.probe-personas/1")?;
        Ok(personas)
    }

    /// Paraphrases of "a helpful assistant".
    pub fn neutral(&self) -> Vec<Control> {
        let control = |text: &String| Control { kind: "neutral".to_owned(), text: text.clone() };
        self.neutral.iter().map(control).collect()
    }
}

impl Suite {
    /// Names of the suites that ship, in the file's order.
    pub fn names() -> Result<Vec<String>, ProbeError> {
        Ok(file()?.suites.into_iter().map(|suite| suite.name).collect())
    }

    pub fn shipped(name: &str) -> Result<Suite, ProbeError> {
        let suites = file()?.suites;
        let known = || suites.iter().map(|suite| suite.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = suites.iter().find(|suite| suite.name == name);
        let found = found.ok_or_else(|| ProbeError::UnknownSuite { given: shown(name), known: known() })?;
        let mut sets = Vec::new();
        for (set, &count) in &found.items {
            let set = ItemSet::shipped(set)?;
            if count == 0 || count > set.items.len() {
                let message =
                    format!("{name}: {count} items of `{}`; there are {}", set.name, set.items.len());
                return Err(ProbeError::file(SUITES, message));
            }
            sets.push((Arc::new(set), count));
        }
        let neutral = ControlPersonas::shipped()?.neutral().into_iter().take(found.neutral).collect();
        Ok(Suite { digest: digest(&sets), name: name.to_owned(), sets, neutral, random: found.random })
    }

    /// The sets asked of each arm and how many prompts they are.
    pub fn prompts(&self) -> usize {
        let items = self.sets.iter().flat_map(|(set, count)| set.items.iter().take(*count));
        items.map(|item| item.asks.len()).sum()
    }
}

fn digest(sets: &[(Arc<ItemSet>, usize)]) -> Digest {
    let mut digester = Digester::new("demeanor.probe-suite/1");
    for (set, count) in sets {
        digester.part(&set.digest(*count).0);
    }
    digester.finish()
}

fn file() -> Result<SuitesFile, ProbeError> {
    let suites: SuitesFile = read(SUITES)?;
    check_schema(SUITES, &suites.schema, "demeanor.probe-suites/1")?;
    Ok(suites)
}

fn read<T: serde::de::DeserializeOwned>(path: &str) -> Result<T, ProbeError> {
    let text = shipped::file(path).ok_or_else(|| ProbeError::file(path, "the file is missing"))?;
    serde_json::from_str(text).map_err(|error| ProbeError::file(path, error.to_string()))
}

fn check_schema(path: &str, given: &str, expected: &str) -> Result<(), ProbeError> {
    match given == expected {
        true => Ok(()),
        false => Err(ProbeError::file(path, format!("its schema is `{given}`; expected `{expected}`"))),
    }
}
