//! What a person's answers say: reading them, domain and facet scores, and signs of careless answering.

use super::{AlignmentError, Domain, Inventory};
use crate::limits;
use crate::statistics::{mean, rounded, standard_deviation};
use crate::text::{json_kind, shown};
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
                        number: shown(number),
                        items,
                        inventory: inventory.name.clone(),
                    })?;
                    raw[item - 1] = answer(item, given)?;
                }
                raw
            }
            other => return Err(AlignmentError::NoAnswers { given: json_kind(other), items }),
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
            let given = match given {
                Value::Array(_) | Value::Object(_) => json_kind(given).to_owned(),
                other => shown(&other.to_string()),
            };
            AlignmentError::BadAnswer { item, given }
        },
    )
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
        let mean = self.mean.map(|mean| rounded(mean, 4));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Draws;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// Two domains of eight items: three facets, of E one with items of both keys.
    fn tiny() -> Inventory {
        let item = |text: &str, domain: &str, facet: &str, key: i8| json!({"text": text, "domain": domain, "facet": facet, "key": key});
        let mut items = Vec::new();
        for i in 0..8 {
            items.push(item(
                &format!("e{i}"),
                "E",
                if i < 4 { "Friendliness" } else { "Activity" },
                [1, -1][i % 2],
            ));
            items.push(item(&format!("n{i}"), "N", "Anger", 1));
        }
        let file = json!({"schema": "demeanor.inventory/1", "name": "tiny", "title": "t", "source": "s", "licence": "l", "items": items});
        Inventory::parse(file.to_string().as_bytes()).expect("right file")
    }

    fn long_form() -> Arc<Inventory> {
        Inventory::named("ipip-neo-300").expect("it ships")
    }

    fn close(found: Option<f64>, wanted: f64) {
        assert!(found.is_some_and(|found| (found - wanted).abs() < 1e-12), "{found:?} is not {wanted}");
    }

    #[test]
    fn scores_are_keyed_and_leave_missing_answers_out() {
        let inventory = tiny();
        // Items of E and N in turn; E has keys + and - in turn.
        let answers = Answers { raw: vec![5, 1, 1, 2, 4, 3, 2, 0, 5, 4, 0, 0, 3, 5, 3, 2] };
        let scores = scores(&inventory, &answers);
        // E: 5, 6-1, 4, 6-2, 5, missing, 3, 6-3.
        close(scores.domain(Domain::E).mean, 29.0 / 7.0);
        // N: 1 2 3 - 4 - 5 2.
        close(scores.domain(Domain::N).mean, 17.0 / 6.0);
        assert_eq!((scores.domain(Domain::N).answered, scores.domain(Domain::N).items), (6, 8));
        assert_eq!(*scores.domain(Domain::O), Score { mean: None, answered: 0, items: 0 });
        close(scores.facets[&(Domain::E, "Friendliness".into())].mean, 18.0 / 4.0);
        assert_eq!((scores.answered, scores.decided), (13, 10));
        // Friendliness: (5, 4) against (5, 4); Activity: (5, 3) against (3): gaps 0 and 1.
        close(scores.careless.facet_gap, 0.5);
        let json = scores.json();
        assert_eq!(json["domains"]["N"], json!({"mean": 2.8333, "answered": 6, "items": 8}));
        assert_eq!(json["facets"]["E"]["Friendliness"]["mean"], 4.5);
        assert!(json["domains"]["O"]["mean"].is_null());
    }

    #[test]
    fn too_few_answers_give_no_score() {
        let inventory = tiny();
        let mut raw = vec![0; 16];
        (0..5).for_each(|i| raw[2 * i + 1] = 4);
        let few = scores(&inventory, &Answers { raw: raw.clone() });
        assert_eq!(*few.domain(Domain::N), Score { mean: None, answered: 5, items: 8 });
        raw[11] = 4;
        close(scores(&inventory, &Answers { raw }).domain(Domain::N).mean, 4.0);
    }

    #[test]
    fn a_respondent_at_a_pole_scores_the_pole() {
        let inventory = long_form();
        for domain in Domain::ALL {
            for pole in [1.0, 5.0] {
                let raw = inventory
                    .items
                    .iter()
                    .map(|item| if item.domain == domain { item.keyed(pole) as u8 } else { 3 });
                let scores = scores(&inventory, &Answers { raw: raw.collect() });
                for other in Domain::ALL {
                    close(scores.domain(other).mean, if other == domain { pole } else { 3.0 });
                }
                close(scores.careless.facet_gap, 0.0);
            }
        }
    }

    #[test]
    fn careless_answers_are_flagged_and_ordinary_ones_are_not() {
        let inventory = long_form();
        let flags = |raw: Vec<u8>| {
            let flags = scores(&inventory, &Answers { raw }).careless.flags();
            flags.iter().map(|flag| flag.split(':').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let mut draws = Draws::new(3, "people", 0);
        // A person with one level a domain and noise around it.
        let level = [3.6, 3.2, 2.9, 3.8, 2.5];
        let ordinary: Vec<u8> = (inventory.items.iter())
            .map(|item| {
                let keyed = (level[item.domain.index()] + draws.normal()).round().clamp(1.0, 5.0);
                item.keyed(keyed) as u8
            })
            .collect();
        assert_eq!(flags(ordinary.clone()), [""; 0]);
        assert_eq!(flags(vec![4; 300]), ["long run", "one answer", "little spread", "inconsistent"]);
        assert_eq!(flags(vec![3; 300]), ["long run", "one answer", "little spread"]);
        let mut tired = ordinary.clone();
        tired[280..].fill(2);
        assert_eq!(flags(tired), ["long run"]);
        // Agreeing with nearly everything, whatever it says.
        let agreeing = (0..300).map(|_| if draws.uniform() < 0.5 { 4 } else { 5 }).collect();
        assert!(flags(agreeing).contains(&"inconsistent".to_owned()));
        // A missing answer ends a run.
        let mut broken = ordinary;
        broken[100..108].fill(2);
        broken[108] = 0;
        broken[109..115].fill(2);
        assert!(scores(&inventory, &Answers { raw: broken }).careless.longest_run < 12);
    }

    #[test]
    fn answers_that_are_read() {
        let inventory = tiny();
        let list = json!([1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4]);
        let read = Answers::read(&list, &inventory).unwrap();
        assert_eq!(read.raw, [1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4]);
        assert_eq!((read.answered().len(), read.get(5), read.get(4)), (14, None, Some(5.0)));
        let read = Answers::read(&json!({"2": 4, "16": 1, "7": 0}), &inventory).unwrap();
        assert_eq!(read.answered(), [1, 15]);
        assert_eq!(read.decided(), 2);
        assert_eq!(Answers::read(&json!({}), &inventory).unwrap().answered(), [0; 0]);
    }

    #[test]
    fn answers_that_are_refused() {
        let inventory = tiny();
        let list = |item: usize, value: Value| {
            let mut list = vec![json!(3); 16];
            list[item - 1] = value;
            Value::Array(list)
        };
        for (given, message) in [
            (Value::Null, "null was given; expected an array of 16 answers"),
            (json!("5,4,3"), "a string was given"),
            (json!(4), "a number was given"),
            (json!([]), "0 answers were given; inventory `tiny` has 16 items"),
            (json!(vec![3; 300]), "300 answers were given"),
            (list(3, json!(6)), "item 3 is 6; expected an integer, 1 to 5"),
            (list(16, json!(-1)), "item 16 is -1"),
            (list(1, json!(2.5)), "item 1 is 2.5"),
            (list(1, json!(4.0)), "item 1 is 4.0"),
            (list(9, json!("4")), "item 9 is \"4\""),
            (list(9, Value::Null), "item 9 is null"),
            (list(9, json!(true)), "item 9 is true"),
            (list(9, json!([4])), "item 9 is an array"),
            (list(9, json!(1e300)), "item 9 is 1e+300"),
            (list(9, json!(u64::MAX)), "item 9 is 18446744073709551615"),
            (json!({"0": 3}), "there is no item `0`; inventory `tiny` has items 1 to 16"),
            (json!({"17": 3}), "there is no item `17`"),
            (json!({"07": 3}), "there is no item `07`"),
            (json!({"i7": 3}), "there is no item `i7`"),
            (json!({"": 3}), "there is no item ``"),
            (json!({"99999999999999999999999": 3}), "there is no item `99999999999999999999999`"),
            (json!({"7": 9}), "item 7 is 9"),
        ] {
            let error = Answers::read(&given, &inventory).unwrap_err().to_string();
            assert!(error.starts_with("`answers`: ") && error.contains(message), "{message}: {error}");
        }
        let long = Answers::read(&json!({"x".repeat(10_000): 3}), &inventory).unwrap_err().to_string();
        assert!(long.len() < 400, "{long}");
    }

    #[test]
    fn answers_that_cannot_describe_a_person() {
        let with = |n: usize, answer: &dyn Fn(usize) -> u8| Answers {
            raw: (0..16).map(|i| if i < n { answer(i) } else { 0 }).collect(),
        };
        let needed = limits::ANSWERS_MIN;
        let varied = |i: usize| 1 + (i % 5) as u8;
        assert_eq!(with(needed, &varied).check(), Ok(()));
        assert_eq!(with(9, &varied).check(), Err(AlignmentError::TooFew { given: 9, needed }));
        assert_eq!(with(0, &varied).check(), Err(AlignmentError::TooFew { given: 0, needed }));
        assert_eq!(with(16, &|_| 4).check(), Err(AlignmentError::Constant { given: 16, answer: 4 }));
        let message = with(16, &|_| 3).check().unwrap_err().to_string();
        assert_eq!(message, "`answers`: all 16 answers are 3; constant answers say nothing about a person");
        let message = with(2, &varied).check().unwrap_err().to_string();
        assert_eq!(message, "`answers`: 2 items are answered; at least 10 are needed");
    }

    proptest! {
        /// Whatever is read scores within the scale, and every answer counts once.
        #[test]
        fn any_answers(raw in proptest::collection::vec(0u8..=5, 16)) {
            let inventory = tiny();
            let read = Answers::read(&json!(raw), &inventory).unwrap();
            let by_number: serde_json::Map<String, Value> =
                raw.iter().enumerate().map(|(i, answer)| ((i + 1).to_string(), json!(answer))).collect();
            prop_assert_eq!(&Answers::read(&Value::Object(by_number), &inventory).unwrap(), &read);
            let scores = scores(&inventory, &read);
            prop_assert_eq!(scores.domains.iter().map(|score| score.answered).sum::<usize>(), scores.answered);
            prop_assert_eq!(scores.facets.values().map(|score| score.answered).sum::<usize>(), scores.answered);
            for score in scores.domains.iter().chain(scores.facets.values()) {
                prop_assert!(score.mean.is_none_or(|mean| (1.0..=5.0).contains(&mean)));
            }
            prop_assert!(scores.careless.longest_run <= scores.answered);
            prop_assert!((0.0..=1.0).contains(&scores.careless.one_answer_share));
        }
    }
}
