//! Questionnaires as data: items with text, domain, facet, key and norms. One file each under `models/inventories/`.

use super::AlignmentError;
use crate::digest::{Digest, Digester};
use crate::text::shown;
use crate::{limits, shipped};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

const SCHEMA: &str = "demeanor.inventory/1";

/// The five broad traits, in the order in which they are listed everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub enum Domain {
    /// Openness.
    O,
    /// Conscientiousness.
    C,
    /// Extraversion.
    E,
    /// Agreeableness.
    A,
    /// Neuroticism.
    N,
}

impl Domain {
    pub const ALL: [Domain; 5] = [Domain::O, Domain::C, Domain::E, Domain::A, Domain::N];

    /// Position in [`Domain::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    pub fn name(self) -> &'static str {
        ["openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism"][self.index()]
    }

    pub fn letter(self) -> char {
        ['O', 'C', 'E', 'A', 'N'][self.index()]
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}

/// What other people answered to an item: of raw answers, 1 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Norm {
    pub mean: f64,
    /// Sample standard deviation between people.
    pub sd: f64,
}

/// One statement, to be rated from 1 (very inaccurate) to 5 (very accurate).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// In the first person without "I" and without a full stop: `Worry about things`.
    pub text: String,
    pub domain: Domain,
    pub facet: String,
    /// +1 where agreeing raises the domain's score, -1 where it lowers it.
    pub key: i8,
    #[serde(default)]
    pub norm: Option<Norm>,
    /// One of those that a person is known by in the published split; the others serve to test predictions. True where a
    /// file says nothing.
    #[serde(rename = "known", default = "yes")]
    pub is_known: bool,
}

impl Item {
    /// An answer in the direction of the domain: 6 - answer where the key is -1. Its own inverse.
    pub fn keyed(&self, answer: f64) -> f64 {
        if self.key < 0 { 6.0 - answer } else { answer }
    }
}

fn yes() -> bool {
    true
}

/// A questionnaire.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    schema: String,
    pub name: String,
    pub title: String,
    /// Where the items come from, and what their use is bound to.
    pub source: String,
    pub licence: String,
    /// Who the norms describe; `None` where the items have none.
    #[serde(default)]
    pub norms: Option<String>,
    /// In the order of asking; item number n is `items[n - 1]`.
    pub items: Vec<Item>,
}

impl Inventory {
    /// Reads an inventory file: of the schema, within the bounds, each item once.
    pub fn parse(bytes: &[u8]) -> Result<Inventory, AlignmentError> {
        let bad = |rule: String| AlignmentError::BadInventory { rule };
        if bytes.len() > limits::INVENTORY_BYTES_MAX {
            let (given, max) = (bytes.len(), limits::INVENTORY_BYTES_MAX);
            return Err(bad(format!("{given} bytes; at most {max}")));
        }
        let read: Inventory = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        read.check().map_err(bad)?;
        Ok(read)
    }

    /// A shipped inventory.
    pub fn shipped(name: &str) -> Option<Arc<Inventory>> {
        let (_, text) = shipped::folder("inventories").find(|(stem, _)| *stem == name)?;
        Inventory::parse(text.as_bytes()).ok().map(Arc::new)
    }

    /// Names of the shipped inventories, sorted.
    pub fn shipped_names() -> Vec<&'static str> {
        shipped::folder("inventories").map(|(stem, _)| stem).collect()
    }

    /// A shipped inventory, or an error that names all of them.
    pub fn named(name: &str) -> Result<Arc<Inventory>, AlignmentError> {
        Inventory::shipped(name).ok_or_else(|| AlignmentError::UnknownInventory {
            name: shown(name),
            known: Inventory::shipped_names().into_iter().map(str::to_owned).collect(),
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA {
            return Err(format!("schema `{}`; expected `{SCHEMA}`", shown(&self.schema)));
        }
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(is_name) {
            let allowed = "1 to 64 of a-z, 0-9, `.`, `_`, `-`";
            return Err(format!("`name`: `{}` is no name; expected {allowed}", shown(&self.name)));
        }
        let labels = [("title", &self.title), ("source", &self.source), ("licence", &self.licence)];
        let labels = labels.into_iter().chain(self.norms.as_ref().map(|norms| ("norms", norms)));
        for (field, text) in labels {
            line(text, limits::INVENTORY_LABEL_BYTES_MAX).map_err(|rule| format!("`{field}`: {rule}"))?;
        }
        let max = limits::INVENTORY_ITEMS_MAX;
        if !(1..=max).contains(&self.items.len()) {
            return Err(format!("{} items; expected 1 to {max}", self.items.len()));
        }
        let mut texts = BTreeSet::new();
        for (number, item) in (1..).zip(&self.items) {
            item.check().map_err(|rule| format!("item {number}: {rule}"))?;
            if !texts.insert(item.text.to_lowercase()) {
                return Err(format!("item {number}: `{}` occurs twice", shown(&item.text)));
            }
        }
        if !self.items.iter().any(|item| item.is_known) {
            return Err("no item is `known`; a person is described by those".into());
        }
        Ok(())
    }

    /// Weights of sum 1 whose weighted mean of answers to `items` says how much is agreed with, and not what: every domain
    /// has the same part, and in it the items of either key have a half. Domains with items of one key only have none,
    /// unless all are so.
    pub fn agreement_weights(&self, items: &[usize]) -> Vec<f64> {
        let kind = |item: &usize| (self.items[*item].domain, self.items[*item].key);
        let count = |domain, key| items.iter().filter(|item| kind(item) == (domain, key)).count();
        let both = Domain::ALL.into_iter().filter(|&domain| count(domain, 1) > 0 && count(domain, -1) > 0);
        let both: Vec<Domain> = both.collect();
        let weight = |item: &usize| match kind(item) {
            _ if both.is_empty() => 1.0 / items.len() as f64,
            (domain, key) if both.contains(&domain) => 0.5 / (both.len() * count(domain, key)) as f64,
            _ => 0.0,
        };
        items.iter().map(weight).collect()
    }

    /// Of everything that scores and alignments depend on: items, keys, split and norms.
    pub fn digest(&self) -> Digest {
        let mut digester = Digester::new(SCHEMA);
        for item in &self.items {
            digester.part(item.text.as_bytes()).part(item.facet.as_bytes());
            digester.part(&[item.domain as u8, u8::from(item.key > 0), u8::from(item.is_known)]);
            let norm = item.norm.map(|norm| [norm.mean.to_le_bytes(), norm.sd.to_le_bytes()].concat());
            digester.part(&norm.unwrap_or_default());
        }
        digester.finish()
    }

    /// Indices of the items that a person is known by, ascending.
    pub fn known(&self) -> Vec<usize> {
        (0..self.items.len()).filter(|&i| self.items[i].is_known).collect()
    }

    /// Indices of the other items, ascending.
    pub fn unseen(&self) -> Vec<usize> {
        (0..self.items.len()).filter(|&i| !self.items[i].is_known).collect()
    }
}

impl Item {
    fn check(&self) -> Result<(), String> {
        line(&self.text, limits::INVENTORY_TEXT_BYTES_MAX).map_err(|rule| format!("`text`: {rule}"))?;
        line(&self.facet, limits::INVENTORY_LABEL_BYTES_MAX).map_err(|rule| format!("`facet`: {rule}"))?;
        if self.key != 1 && self.key != -1 {
            return Err(format!("`key`: {}; expected 1 or -1", self.key));
        }
        if let Some(Norm { mean, sd }) = self.norm {
            if !(1.0..=5.0).contains(&mean) {
                return Err(format!("`norm.mean`: {mean}; expected 1 to 5, of raw answers"));
            }
            // Half the people at either end of the scale spread by 2, in a small sample a little more.
            if !(0.0..=3.0).contains(&sd) {
                return Err(format!("`norm.sd`: {sd}; expected 0 to 3"));
            }
        }
        Ok(())
    }
}

/// One line of text that is not empty.
fn line(text: &str, bytes_max: usize) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("it is empty".into());
    }
    if text.len() > bytes_max {
        return Err(format!("{} bytes; at most {bytes_max}", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err("it has control characters; expected one line".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn sample() -> Value {
        json!({
            "schema": SCHEMA, "name": "tiny", "title": "Tiny", "source": "made up", "licence": "CC0",
            "items": [
                {"text": "Like people", "domain": "E", "facet": "Friendliness", "key": 1},
                {"text": "Avoid crowds", "domain": "E", "facet": "Gregariousness", "key": -1,
                 "norm": {"mean": 3.1, "sd": 1.2}, "known": false},
            ],
        })
    }

    #[test]
    fn every_shipped_inventory_loads() {
        assert_eq!(Inventory::shipped_names(), ["ipip-neo-120", "ipip-neo-300"]);
        for (name, items, known, facet_items) in
            [("ipip-neo-120", 120, 120, 4), ("ipip-neo-300", 300, 120, 10)]
        {
            let inventory = Inventory::shipped(name).expect("it loads");
            assert_eq!((inventory.name.as_str(), inventory.items.len()), (name, items));
            assert_eq!((inventory.known().len(), inventory.unseen().len()), (known, items - known));
            assert_eq!(Inventory::named(name).unwrap().digest(), inventory.digest());
            for (i, item) in inventory.items.iter().enumerate() {
                // The forms ask for the domains in turn.
                assert_eq!(item.domain.letter(), ['N', 'E', 'O', 'A', 'C'][i % 5], "item {}", i + 1);
                assert!(item.norm.is_some() && !item.text.ends_with('.'), "item {}", i + 1);
                let facet = inventory.items.iter().filter(|other| other.facet == item.facet);
                assert_eq!(facet.clone().count(), facet_items);
                assert!(facet.clone().all(|other| other.domain == item.domain));
            }
        }
        let (short, long) = (Inventory::named("ipip-neo-120"), Inventory::named("ipip-neo-300"));
        let (short, long) = (short.unwrap(), long.unwrap());
        assert_ne!(short.digest(), long.digest());
        for item in &short.items {
            assert!(long.items.contains(item), "{} is a known item of the long form", item.text);
        }
    }

    #[test]
    fn names_that_do_not_exist() {
        let error = Inventory::named("big-five").unwrap_err().to_string();
        assert_eq!(error, "there is no inventory `big-five`; there are `ipip-neo-120`, `ipip-neo-300`");
    }

    #[test]
    fn bad_files() {
        let with = |path: &str, value: Value| {
            let mut file = sample();
            *file.pointer_mut(path).expect("a field") = value;
            file.to_string()
        };
        let added = |key: &str, value: Value| {
            let mut file = sample();
            file[key] = value;
            file.to_string()
        };
        let item = json!({"text": "Like people", "domain": "E", "facet": "f", "key": 1});
        for (text, part) in [
            (String::new(), "EOF"),
            ("[]".into(), "invalid"),
            (sample().to_string()[..90].to_owned(), "EOF"),
            (with("/schema", json!("demeanor.inventory/2")), "expected `demeanor.inventory/1`"),
            (with("/name", json!("Tiny One")), "is no name"),
            (with("/title", json!("two\nlines")), "`title`: it has control characters"),
            (with("/licence", json!(" ")), "`licence`: it is empty"),
            (added("more", json!(1)), "unknown field `more`"),
            (with("/items", json!([])), "0 items; expected 1 to 1000"),
            (with("/items", json!(vec![item.clone(); 1001])), "1001 items"),
            (with("/items", json!([item, item])), "item 2: `Like people` occurs twice"),
            (with("/items/0/domain", json!("X")), "unknown variant `X`"),
            (with("/items/0/key", json!(0)), "item 1: `key`: 0; expected 1 or -1"),
            (with("/items/0/key", json!(300)), "expected i8"),
            (with("/items/0/text", json!("")), "item 1: `text`: it is empty"),
            (with("/items/0/text", json!("x".repeat(513))), "item 1: `text`: 513 bytes; at most 512"),
            (with("/items/1/norm/mean", json!(5.5)), "item 2: `norm.mean`: 5.5; expected 1 to 5"),
            (with("/items/1/norm/sd", json!(-0.1)), "item 2: `norm.sd`: -0.1; expected 0 to 3"),
            (with("/items/1/norm", json!({"mean": 3})), "missing field `sd`"),
            (
                with("/items", json!([{"text": "a", "domain": "E", "facet": "f", "key": 1, "known": false}])),
                "no item is `known`",
            ),
            (" ".repeat(limits::INVENTORY_BYTES_MAX + 1), "1048577 bytes; at most 1048576"),
        ] {
            let error = Inventory::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("inventory: ") && error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn what_the_digest_covers() {
        let digest = |file: &Value| Inventory::parse(file.to_string().as_bytes()).unwrap().digest();
        let first = digest(&sample());
        for (path, value) in [
            ("/items/0/text", json!("Like dogs")),
            ("/items/0/domain", json!("A")),
            ("/items/0/key", json!(-1)),
            ("/items/1/known", json!(true)),
            ("/items/1/norm/sd", json!(1.3)),
        ] {
            let mut file = sample();
            *file.pointer_mut(path).expect("a field") = value;
            assert_ne!(digest(&file), first, "{path}");
        }
        let mut renamed = sample();
        renamed["title"] = json!("Other");
        assert_eq!(digest(&renamed), first);
    }

    proptest! {
        /// No bytes make the reader panic, and what it takes keeps its rules.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Inventory::parse(&bytes);
        }

        #[test]
        fn a_file_with_one_byte_changed(at in 0usize..400, byte in any::<u8>()) {
            let mut bytes = sample().to_string().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(read) = Inventory::parse(&bytes) {
                prop_assert_eq!(read.items.len(), 2);
                prop_assert!(read.items.iter().all(|item| item.key.abs() == 1 && !item.text.trim().is_empty()));
            }
        }
    }

    /// What is agreed with in one direction of a domain does not count as agreeing; agreeing with everything does.
    #[test]
    fn agreement_is_apart_from_what_is_agreed_with() {
        let inventory = Inventory::shipped("ipip-neo-300").unwrap();
        let known = inventory.known();
        let weighted = |items: &[usize], answer: &dyn Fn(&Item) -> f64| -> f64 {
            let weights = inventory.agreement_weights(items);
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            items.iter().zip(weights).map(|(&item, weight)| weight * answer(&inventory.items[item])).sum()
        };
        for pole in Domain::ALL {
            let extreme =
                |item: &Item| 3.0 + if item.domain == pole { 2.0 * f64::from(item.key) } else { 0.0 };
            assert!((weighted(&known, &extreme) - 3.0).abs() < 1e-12);
            assert!((weighted(&known, &|item| extreme(item) + 0.5) - 3.5).abs() < 1e-12);
        }
        // Of one key only: the mean is all there is.
        let upwards: Vec<usize> = known.into_iter().filter(|&item| inventory.items[item].key == 1).collect();
        let first = upwards[0];
        let only_first = |item: &Item| f64::from(item.text == inventory.items[first].text);
        assert!((weighted(&upwards, &only_first) - 1.0 / upwards.len() as f64).abs() < 1e-12);
    }
}
