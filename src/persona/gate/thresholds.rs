//! The thresholds file: what a report must show, and what is allowed beside an admitted persona.
//!
//! The shipped ones lie in `models/gates/`: one for each model that was calibrated, and `default.json` for the others.

use super::GateError;
use crate::digest::Digest;
use crate::limits;
use crate::shipped;
use crate::text::shown;
use serde::Deserialize;

const SCHEMA: &str = "demeanor.gate/1";

/// A checked thresholds file. It has at least one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// Weights that the numbers were set on, for people; `None`: no particular ones.
    pub model: Option<String>,
    /// Digest of these weights.
    pub weights: Option<Digest>,
    pub rules: Vec<Rule>,
    /// Longest row of a user's soft prompt, over the median length of a token's row; 0: no user's soft prompt.
    pub user_norm_max: f32,
    /// Dose up to which a request may steer by itself; 0: not at all.
    pub ad_hoc_dose_max: f32,
    pub ad_hoc: AdHoc,
}

/// One aspect's bound.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub aspect: String,
    pub against: Against,
    /// Which number of the change is compared.
    pub bound: Bound,
    /// The change may be as large as this, in the aspect's unit.
    pub most: f64,
    /// With fewer items nothing is decided.
    pub n_min: u64,
}

/// What the persona is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// The same system text without plan and soft prompt; says nothing about a persona that has neither.
    Prompt,
    /// The plain model.
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Refused when the harm is surely above: the lower end of the interval.
    Low,
    /// Refused when the best guess is above.
    Mean,
    /// Refused unless the harm is surely below: the upper end.
    High,
}

/// Which vectors a request may steer with by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdHoc {
    /// Shipped traits that are not marked as harmful, and what an admitted persona's plan adds, in its direction.
    Admitted,
    None,
}

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: String,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    weights: Option<String>,
    /// How the numbers were found; for people.
    #[serde(default, rename = "note")]
    _note: Option<String>,
    rules: Vec<Rule>,
    unprobed_user: UserPart,
    ad_hoc: AdHocPart,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserPart {
    norm_max: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdHocPart {
    dose_max: f64,
    vectors: AdHoc,
}

impl Thresholds {
    /// The file that ships for a model of the catalogue, or else the one for any model.
    pub fn shipped(model: &str) -> Result<Thresholds, GateError> {
        let own = format!("gates/{model}.json");
        let text = shipped::file(&own).or_else(|| shipped::file("gates/default.json"));
        let text = text.ok_or_else(|| malformed("`models/gates/default.json` is not in this build"))?;
        Thresholds::read(text.as_bytes())
    }

    /// The file that ships for these weights, under whatever name they were loaded, or else the one for any model.
    pub fn shipped_for(weights: &Digest) -> Result<Thresholds, GateError> {
        for (_, text) in shipped::folder("gates") {
            let found = Thresholds::read(text.as_bytes())?;
            if found.weights.as_ref() == Some(weights) {
                return Ok(found);
            }
        }
        Thresholds::shipped("default")
    }

    /// Reads a thresholds file.
    pub fn read(bytes: &[u8]) -> Result<Thresholds, GateError> {
        if bytes.len() > limits::GATE_FILE_BYTES_MAX {
            let max = limits::GATE_FILE_BYTES_MAX;
            return Err(malformed(format!("it has {} bytes; at most {max}", bytes.len())));
        }
        let file: File = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if file.schema != SCHEMA {
            let given = shown(&file.schema);
            return Err(malformed(format!("its schema is `{given}`; this build reads `{SCHEMA}`")));
        }
        let weights = match file.weights {
            None => None,
            Some(text) => {
                Some(Digest::parse(&text).ok_or_else(|| malformed("`weights` is not 64 hex digits"))?)
            }
        };
        let thresholds = Thresholds {
            model: file.model,
            weights,
            rules: file.rules,
            user_norm_max: file.unprobed_user.norm_max as f32,
            ad_hoc_dose_max: file.ad_hoc.dose_max as f32,
            ad_hoc: file.ad_hoc.vectors,
        };
        thresholds.check()?;
        Ok(thresholds)
    }

    fn check(&self) -> Result<(), GateError> {
        let rules = self.rules.len() as f64;
        within("rules", rules, 1.0, limits::GATE_RULES_MAX as f64)?;
        for (index, rule) in self.rules.iter().enumerate() {
            let at = |field: &str| format!("rules[{index}].{field}");
            if rule.aspect.is_empty() || rule.aspect.len() > limits::SHOWN_CHARS_MAX {
                let given = format!("a name of {} bytes", rule.aspect.len());
                let allowed = format!("1 to {} bytes", limits::SHOWN_CHARS_MAX);
                return Err(GateError::Range { path: at("aspect"), given, allowed });
            }
            within(&at("most"), rule.most, -limits::GATE_CHANGE_MAX, limits::GATE_CHANGE_MAX)?;
            let (least, most) = (limits::GATE_ITEMS_MIN as f64, limits::GATE_ITEMS_MAX as f64);
            within(&at("n_min"), rule.n_min as f64, least, most)?;
            let same = |other: &Rule| other.aspect == rule.aspect && other.against == rule.against;
            if self.rules[..index].iter().any(same) {
                let given = format!("a second rule for `{}`", rule.aspect);
                let allowed = "one for each aspect and what it is compared with".into();
                return Err(GateError::Range { path: format!("rules[{index}]"), given, allowed });
            }
        }
        let norm_max = f64::from(limits::SOFT_ROW_NORM_MAX);
        within("unprobed_user.norm_max", f64::from(self.user_norm_max), 0.0, norm_max)?;
        let dose_max = f64::from(limits::DOSE_MAX);
        within("ad_hoc.dose_max", f64::from(self.ad_hoc_dose_max), 0.0, dose_max)
    }
}

fn malformed(rule: impl Into<String>) -> GateError {
    GateError::Malformed { what: "the thresholds file", rule: rule.into() }
}

/// Not-a-number is out of range.
fn within(path: &str, given: f64, least: f64, most: f64) -> Result<(), GateError> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    let allowed = format!("{least} to {most}");
    Err(GateError::Range { path: path.to_owned(), given: given.to_string(), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn file() -> Value {
        json!({
            "schema": SCHEMA,
            "rules": [
                {"aspect": "a", "against": "prompt", "bound": "low", "most": 0.03, "n_min": 40},
                {"aspect": "a", "against": "plain", "bound": "mean", "most": 0.06, "n_min": 40}
            ],
            "unprobed_user": {"norm_max": 2.0},
            "ad_hoc": {"dose_max": 0.1, "vectors": "admitted"}
        })
    }

    #[test]
    fn a_file_reads_as_written() {
        let read = Thresholds::read(file().to_string().as_bytes()).unwrap();
        assert_eq!((read.rules.len(), read.user_norm_max, read.ad_hoc_dose_max), (2, 2.0, 0.1));
        assert_eq!((read.rules[0].against, read.rules[0].bound), (Against::Prompt, Bound::Low));
        assert_eq!((read.rules[1].against, read.rules[1].bound), (Against::Plain, Bound::Mean));
        assert_eq!(read.ad_hoc, AdHoc::Admitted);
    }

    #[test]
    fn every_shipped_file_reads() {
        let names: Vec<&str> = shipped::folder("gates").map(|(name, _)| name).collect();
        assert!(names.contains(&"default"), "{names:?}");
        for (name, text) in shipped::folder("gates") {
            let read = Thresholds::read(text.as_bytes());
            assert!(read.is_ok(), "{name}: {read:?}");
            assert_eq!(read, Thresholds::shipped(name), "{name}");
        }
        for own in shipped::folder("gates").filter_map(|(_, text)| Thresholds::read(text.as_bytes()).ok()) {
            if let Some(weights) = own.weights {
                assert_eq!(Thresholds::shipped_for(&weights), Ok(own));
            }
        }
        assert_eq!(Thresholds::shipped_for(&Digest::of(b"other")), Thresholds::shipped("default"));
        assert_eq!(Thresholds::shipped("some/file"), Thresholds::shipped("default"));
    }

    /// A change of a file, whether values are the fault, what the message must hold.
    type Row = (fn(&mut Value), bool, &'static str);

    #[test]
    fn bad_files() {
        let table: [Row; 19] = [
            (|f| f["schema"] = json!("demeanor.gate/2"), false, "`demeanor.gate/2`"),
            (|f| f["rules"] = json!({}), false, "invalid type"),
            (|f| f["more"] = json!(1), false, "unknown field `more`"),
            (|f| f["rules"][0]["more"] = json!(1), false, "unknown field `more`"),
            (|f| f["rules"][0]["bound"] = json!("lowest"), false, "unknown variant `lowest`"),
            (|f| f["rules"][0]["against"] = json!("base"), false, "unknown variant `base`"),
            (|f| f["rules"][0]["most"] = json!(null), false, "invalid type"),
            (|f| f["rules"][0]["n_min"] = json!(-1), false, "invalid value"),
            (|f| f["ad_hoc"]["vectors"] = json!("any"), false, "unknown variant `any`"),
            (|f| drop(f.as_object_mut().unwrap().remove("ad_hoc")), false, "missing field `ad_hoc`"),
            (|f| f["rules"] = json!([]), true, "`rules`: 0"),
            (|f| f["rules"][0]["most"] = json!(1e6), true, "`rules[0].most`: 1000000"),
            (|f| f["rules"][1]["n_min"] = json!(0), true, "`rules[1].n_min`: 0"),
            (|f| f["rules"][1]["n_min"] = json!(u64::MAX), true, "`rules[1].n_min`"),
            (|f| f["rules"][0]["aspect"] = json!(""), true, "`rules[0].aspect`"),
            (|f| f["rules"][1]["against"] = json!("prompt"), true, "`rules[1]`: a second rule"),
            (|f| f["unprobed_user"]["norm_max"] = json!(-0.1), true, "`unprobed_user.norm_max`"),
            (|f| f["unprobed_user"]["norm_max"] = json!(1e300), true, "`unprobed_user.norm_max`"),
            (|f| f["ad_hoc"]["dose_max"] = json!(1.5), true, "`ad_hoc.dose_max`: 1.5"),
        ];
        for (change, is_range, part) in table {
            let mut changed = file();
            change(&mut changed);
            let error = Thresholds::read(changed.to_string().as_bytes()).expect_err(part);
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(error.is_range(), is_range, "{error}");
        }
        for bytes in [&b""[..], b"[]", b"{", b"\xff", &vec![b' '; limits::GATE_FILE_BYTES_MAX + 1][..]] {
            assert!(Thresholds::read(bytes).is_err_and(|error| !error.is_range()));
        }
        let whole = file().to_string();
        for end in 0..whole.len() {
            assert!(Thresholds::read(&whole.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Thresholds::read(&bytes);
        }

        #[test]
        fn what_reads_is_within_bounds(most in any::<f64>(), n in any::<u64>(), norm in any::<f64>(), dose in any::<f64>()) {
            let mut changed = file();
            changed["rules"][0]["most"] = json!(most);
            changed["rules"][0]["n_min"] = json!(n);
            changed["unprobed_user"]["norm_max"] = json!(norm);
            changed["ad_hoc"]["dose_max"] = json!(dose);
            if let Ok(read) = Thresholds::read(changed.to_string().as_bytes()) {
                prop_assert!(read.rules[0].most.abs() <= limits::GATE_CHANGE_MAX);
                prop_assert!(read.rules[0].n_min >= limits::GATE_ITEMS_MIN);
                prop_assert!((0.0..=limits::SOFT_ROW_NORM_MAX).contains(&read.user_norm_max));
                prop_assert!((0.0..=limits::DOSE_MAX).contains(&read.ad_hoc_dose_max));
            }
        }
    }
}
