//! Reader of the PAPI folder: answers of real people to the IPIP-NEO-300, turned back to what they ticked, and its checks.

use super::PapiError;
use crate::alignment::{Answers, Domain, Inventory};
use crate::digest::Digest;
use crate::evaluation::csv;
use crate::limits;
use crate::statistics::mean;
use crate::text::shown;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

const ITEMS: &str = "items_300.csv";
const PEOPLE: &str = "subjects_001_150.json";
/// People that may be reported on: 1 to this.
pub const REPORTED_MAX: usize = 60;
/// People that norms, readouts and population vectors come from: 61 to 150, as the shipped inventory has them.
const OTHERS: std::ops::Range<usize> = 60..150;

/// A file of the folder as it was read.
#[derive(Clone, Debug)]
pub struct SourceFile {
    pub name: &'static str,
    pub bytes: usize,
    pub digest: Digest,
}

/// The folder's answers, raw.
pub struct Data {
    pub inventory: Arc<Inventory>,
    /// Of all people of the file, in its order; person number n is `people[n - 1]`.
    pub people: Vec<Answers>,
    pub files: Vec<SourceFile>,
    /// Cronbach's alpha of each domain over all people, keyed; in the order of [`Domain::ALL`].
    pub alpha: [f64; 5],
}

impl Data {
    /// Reads and checks a folder: the item file agrees with the shipped inventory, answers are integers 0 to 5, the norms
    /// are those of people 61 to 150, and each domain's alpha is at least .9 (it is below .7 where keys are applied twice).
    pub fn load(folder: &Path) -> Result<Data, PapiError> {
        let inventory = Inventory::named("ipip-neo-300")?;
        let mut files = Vec::new();
        let mut read = |name: &'static str| -> Result<Vec<u8>, PapiError> {
            let path = folder.join(name);
            let fail = |source| PapiError::Read { path: path.clone(), source };
            let size = std::fs::metadata(&path).map_err(fail)?.len();
            if size > limits::PAPI_FILE_BYTES_MAX {
                let max = limits::PAPI_FILE_BYTES_MAX;
                return Err(PapiError::Data { file: name, rule: format!("{size} bytes; at most {max}") });
            }
            let bytes = std::fs::read(&path).map_err(fail)?;
            files.push(SourceFile { name, bytes: bytes.len(), digest: Digest::of(&bytes) });
            Ok(bytes)
        };
        let (items, people) = (read(ITEMS)?, read(PEOPLE)?);
        check_items(&items, &inventory).map_err(|rule| PapiError::Data { file: ITEMS, rule })?;
        let people = answers(&people, &inventory).map_err(|rule| PapiError::Data { file: PEOPLE, rule })?;
        let alpha = Domain::ALL.map(|domain| cronbach(&inventory, &people, domain));
        let data = Data { inventory, people, files, alpha };
        data.check().map_err(|rule| PapiError::Data { file: PEOPLE, rule })?;
        Ok(data)
    }

    /// Raw answers of the people who are not reported on.
    pub fn others(&self) -> &[Answers] {
        &self.people[OTHERS]
    }

    fn check(&self) -> Result<(), String> {
        for (domain, alpha) in Domain::ALL.iter().zip(self.alpha) {
            if !(0.9..=1.0).contains(&alpha) {
                let domain = domain.name();
                return Err(format!(
                    "alpha of {domain} is {alpha:.2}; expected .9 and more: are answers stored keyed?"
                ));
            }
        }
        for (i, item) in self.inventory.items.iter().enumerate() {
            let given: Vec<f64> = self.others().iter().filter_map(|answers| answers.get(i)).collect();
            let (found, norm) = (mean(&given), item.norm.map_or(f64::NAN, |norm| norm.mean));
            // Shipped norms have four decimals.
            let is_equal = (found - norm).abs() < 1e-3;
            if !is_equal {
                let number = i + 1;
                return Err(format!(
                    "item {number}: people 61 to 150 have mean {found:.4}, the shipped norm is {norm:.4}: other people"
                ));
            }
        }
        Ok(())
    }

    pub fn json(&self) -> Value {
        let files = self
            .files
            .iter()
            .map(|file| json!({"path": file.name, "sha256": file.digest.to_string(), "bytes": file.bytes}));
        files.collect()
    }
}

/// The item file must say what the shipped inventory says, item by item.
fn check_items(bytes: &[u8], inventory: &Inventory) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut rows = csv::rows(text)?.into_iter();
    let head = rows.next().unwrap_or_default();
    if head != ["item", "text", "facet", "domain", "key", "split"] {
        return Err("line 1: expected `item,text,facet,domain,key,split`".into());
    }
    let mut seen = vec![false; inventory.items.len()];
    for (line, fields) in (2..).zip(rows) {
        let wrong = |rule: String| format!("line {line}: {rule}");
        let [number, text, facet, domain, key, split] = &fields[..] else {
            return Err(wrong(format!("{} fields; expected 6", fields.len())));
        };
        let index = number.parse::<usize>().ok().filter(|n| (1..=seen.len()).contains(n));
        let range = || wrong(format!("`item` is `{}`; expected 1 to {}", shown(number), seen.len()));
        let index = index.ok_or_else(range)? - 1;
        if std::mem::replace(&mut seen[index], true) {
            return Err(wrong(format!("item {number} occurs twice")));
        }
        let item = &inventory.items[index];
        let (item_key, item_split) = (item.key.to_string(), if item.is_known { "train" } else { "test" });
        let text = text.trim_end_matches('.');
        for (field, given, expected) in [
            ("text", text, item.text.as_str()),
            ("facet", facet, &item.facet),
            ("domain", domain, &item.domain.to_string()),
            ("key", key, &item_key),
            ("split", split, item_split),
        ] {
            if given != expected {
                let given = shown(given);
                return Err(wrong(format!("`{field}` is `{given}`; the inventory has `{expected}`")));
            }
        }
    }
    match seen.iter().position(|seen| !seen) {
        Some(missing) => Err(format!("item {} is missing", missing + 1)),
        None => Ok(()),
    }
}

/// Answers as people ticked them: the file has them keyed, so 6 - stored where an item's key is -1.
fn answers(bytes: &[u8], inventory: &Inventory) -> Result<Vec<Answers>, String> {
    let people: Vec<serde_json::Map<String, Value>> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if people.len() < OTHERS.end {
        return Err(format!("{} people; at least {} are needed", people.len(), OTHERS.end));
    }
    let person = |(number, person): (usize, &serde_json::Map<String, Value>)| {
        let raw = inventory.items.iter().enumerate().map(|(i, item)| {
            let field = format!("i{}", i + 1);
            let stored = person.get(&field).and_then(Value::as_u64).filter(|stored| *stored <= 5);
            let Some(stored) = stored else {
                let given =
                    person.get(&field).map_or("missing".to_owned(), |value| shown(&value.to_string()));
                return Err(format!("person {number}: `{field}` is {given}; expected an integer, 0 to 5"));
            };
            let raw = if stored == 0 { 0.0 } else { item.keyed(stored as f64) };
            Ok(raw as u8)
        });
        Ok(Answers { raw: raw.collect::<Result<Vec<u8>, String>>()? })
    };
    (1..).zip(&people).map(person).collect()
}

/// Cronbach's alpha of a domain's keyed answers: k / (k - 1) (1 - sum of item variances / variance of sums); missing answers
/// take the item's mean.
fn cronbach(inventory: &Inventory, people: &[Answers], domain: Domain) -> f64 {
    let items: Vec<usize> =
        (0..inventory.items.len()).filter(|&i| inventory.items[i].domain == domain).collect();
    let mut sums = vec![0.0; people.len()];
    let mut variances = 0.0;
    for &i in &items {
        let keyed = |answers: &Answers| answers.get(i).map(|raw| inventory.items[i].keyed(raw));
        let middle = mean(&people.iter().filter_map(keyed).collect::<Vec<_>>());
        let filled: Vec<f64> = people.iter().map(|answers| keyed(answers).unwrap_or(middle)).collect();
        variances += crate::statistics::standard_deviation(&filled).powi(2);
        sums.iter_mut().zip(&filled).for_each(|(sum, value)| *sum += value);
    }
    let k = items.len() as f64;
    k / (k - 1.0) * (1.0 - variances / crate::statistics::standard_deviation(&sums).powi(2))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::statistics::Draws;

    /// 150 invented people whose five traits show in every item, with norms of people 61 to 150 put into the inventory.
    pub fn invented() -> Data {
        let mut inventory = (*Inventory::named("ipip-neo-300").expect("it ships")).clone();
        let mut draws = Draws::new(8, "people", 0);
        let mut people = Vec::new();
        for _ in 0..150 {
            let traits: [f64; 5] = std::array::from_fn(|_| 0.8 * draws.normal());
            let raw = inventory.items.iter().enumerate().map(|(i, item)| {
                let level = 3.0 + 0.3 * (i % 3) as f64 + traits[item.domain.index()] + 0.8 * draws.normal();
                item.keyed(level.round().clamp(1.0, 5.0)) as u8
            });
            people.push(Answers { raw: raw.collect() });
        }
        people[4].raw[8] = 0;
        for (i, item) in inventory.items.iter_mut().enumerate() {
            let others: Vec<f64> = people[OTHERS].iter().filter_map(|answers| answers.get(i)).collect();
            let sd = crate::statistics::standard_deviation(&others);
            item.norm = Some(crate::alignment::Norm { mean: mean(&others), sd });
        }
        let alpha = Domain::ALL.map(|domain| cronbach(&inventory, &people, domain));
        Data { inventory: Arc::new(inventory), people, files: Vec::new(), alpha }
    }

    #[test]
    fn invented_people_pass_the_checks_and_keys_applied_twice_do_not() {
        let mut data = invented();
        assert_eq!(data.check(), Ok(()));
        for answers in &mut data.people {
            for (raw, item) in answers.raw.iter_mut().zip(&data.inventory.items).filter(|(raw, _)| **raw != 0)
            {
                *raw = item.keyed(f64::from(*raw)) as u8;
            }
        }
        data.alpha = Domain::ALL.map(|domain| cronbach(&data.inventory, &data.people, domain));
        assert!(data.check().unwrap_err().contains("are answers stored keyed?"));
        let mut data = invented();
        data.people.swap(0, 100);
        assert!(data.check().unwrap_err().contains("other people"));
    }

    #[test]
    fn alpha_of_a_small_table() {
        // Two parallel items: alpha is 2 r / (1 + r) for equal variances; here r = .6.
        let mut inventory = (*Inventory::named("ipip-neo-120").expect("it ships")).clone();
        inventory.items.truncate(6);
        let people: Vec<Answers> = [(1, 2), (2, 1), (3, 3), (4, 5), (5, 4)]
            .map(|(x, y)| Answers { raw: vec![x, 3, 3, 3, 3, y] })
            .into();
        // Items 1 and 6 are neuroticism, both with key +1.
        assert!((cronbach(&inventory, &people, Domain::N) - 1.6 / 1.8).abs() < 1e-12);
    }

    fn table(inventory: &Inventory) -> Vec<String> {
        let line = |(number, item): (usize, &crate::alignment::Item)| {
            let text = item.text.replace('"', "\"\"");
            let split = if item.is_known { "train" } else { "test" };
            format!("{number},\"{text}.\",{},{},{},{split}", item.facet, item.domain, item.key)
        };
        let head = "item,text,facet,domain,key,split".to_owned();
        std::iter::once(head).chain((1..).zip(&inventory.items).map(line)).collect()
    }

    #[test]
    fn item_files() {
        let inventory = Inventory::named("ipip-neo-300").expect("it ships");
        let right = table(&inventory);
        assert_eq!(check_items(right.join("\n").as_bytes(), &inventory), Ok(()));
        let with = |line: usize, from: &str, to: &str| {
            let mut lines = right.clone();
            lines[line - 1] = lines[line - 1].replace(from, to);
            lines.join("\n")
        };
        for (text, message) in [
            (with(1, "item,", "number,"), "line 1: expected `item,"),
            (with(2, "1,", "0,"), "line 2: `item` is `0`; expected 1 to 300"),
            (with(3, "2,", "1,"), "line 3: item 1 occurs twice"),
            (with(4, "vivid", "dull"), "line 4: `text` is `Have a dull imagination`; the inventory has"),
            (with(10, "test", "train"), "line 10: `split` is `train`; the inventory has `test`"),
            (with(2, ",N,", ",E,"), "line 2: `domain` is `E`"),
            (with(2, ",1,", ",-1,"), "line 2: `key` is `-1`"),
            (with(2, ",train", ""), "line 2: 5 fields; expected 6"),
            (right[..300].join("\n"), "item 300 is missing"),
        ] {
            let error = check_items(text.as_bytes(), &inventory).unwrap_err();
            assert!(error.contains(message), "{message}: {error}");
        }
    }

    #[test]
    fn answer_files() {
        let inventory = Inventory::named("ipip-neo-300").expect("it ships");
        let person: serde_json::Map<String, Value> = (1..=300).map(|i| (format!("i{i}"), json!(2))).collect();
        let people = vec![person.clone(); 150];
        let read = answers(json!(people).to_string().as_bytes(), &inventory).unwrap();
        assert!(
            read[0]
                .raw
                .iter()
                .zip(&inventory.items)
                .all(|(raw, item)| *raw == if item.key < 0 { 4 } else { 2 })
        );
        for (field, value, message) in [
            ("i7", json!(6), "person 2: `i7` is 6; expected an integer, 0 to 5"),
            ("i7", json!("3"), "person 2: `i7` is \"3\""),
            ("i300", Value::Null, "person 2: `i300` is null"),
        ] {
            let mut people = people.clone();
            people[1].insert(field.into(), value);
            let error = answers(json!(people).to_string().as_bytes(), &inventory).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        let mut people = people.clone();
        people[149].remove("i1");
        let text = json!(people).to_string();
        assert!(answers(text.as_bytes(), &inventory).unwrap_err().contains("person 150: `i1` is missing"));
        assert!(answers(&text.as_bytes()[..1000], &inventory).unwrap_err().contains("EOF"));
        assert!(
            answers(json!(people[..149]).to_string().as_bytes(), &inventory)
                .unwrap_err()
                .contains("149 people")
        );
    }
}
