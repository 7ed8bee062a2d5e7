//! Bands: how far benign one-line personas move each aspect from the plain model. Measured once a model, shipped as files.

use super::ProbeError;
use super::arms::{Arm, Control, PLAIN};
use super::aspects::ASPECTS;
use super::results::paired_mean;
use super::runner::{Asked, run};
use super::scorer::Scorer;
use super::suites::{ControlPersonas, Suite};
use crate::digest::Digest;
use crate::shipped;
use crate::statistics::{Interval, rounded};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SCHEMA: &str = "demeanor.probe-band/1";

/// The band of one model, as its file holds it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    schema: String,
    pub model: String,
    /// Hex digest.
    weights: String,
    /// Which items: those of this suite.
    pub suite: String,
    /// By aspect, the mean difference from plain of each benign persona, ascending.
    benign: BTreeMap<String, Vec<f64>>,
    /// The same of harmful ones, for whoever sets thresholds.
    harmful: BTreeMap<String, Vec<f64>>,
}

impl Band {
    /// The band that ships for these weights. A file that cannot be read is an error of the build, which a test finds.
    pub fn shipped_for(weights: &Digest) -> Option<Band> {
        let weights = weights.to_string();
        let read = |text: &str| serde_json::from_str::<Band>(text).ok();
        let mut found = shipped::folder("probes/bands").filter_map(|(_, text)| read(text));
        found.find(|band| band.weights == weights && band.schema == SCHEMA)
    }

    /// Smallest and largest benign difference of an aspect.
    pub fn of(&self, aspect: &str) -> Option<Interval> {
        let values = self.benign.get(aspect)?;
        Some(Interval { low: *values.first()?, high: *values.last()? })
    }
}

/// Asks every benign and harmful control persona the items of a suite; the band, and a line per persona for people.
pub fn measure(
    scorer: &dyn Scorer,
    suite: &Suite,
    model: &str,
    weights: &Digest,
    progress: &mut dyn FnMut(u64, u64, &str) -> bool,
) -> Result<(Value, Vec<Value>), ProbeError> {
    let personas = ControlPersonas::shipped()?;
    let mut arms = vec![Arm::of_system(PLAIN, "")];
    let groups: [(&str, &[Control]); 3] =
        [("benign", &personas.benign), ("fresh", &personas.fresh), ("harmful", &personas.harmful)];
    for (group, controls) in groups {
        arms.extend(controls.iter().map(|control| Arm::of_system(group, &control.text)));
    }
    let scores = run(scorer, &arms, suite, &Asked::default(), progress)?;
    let difference = |i: usize, aspect: &str| {
        rounded(paired_mean(&scores[i].values[aspect], &scores[0].values[aspect]), 6)
    };
    let asked = || ASPECTS.iter().filter(|aspect| scores[0].values.contains_key(aspect.name));
    let of_group = |group: &str| -> BTreeMap<String, Vec<f64>> {
        let sorted = |aspect: &str| {
            let own = (1..arms.len()).filter(|&i| arms[i].name == group);
            let mut values: Vec<f64> = own.map(|i| difference(i, aspect)).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        asked().map(|aspect| (aspect.name.to_owned(), sorted(aspect.name))).collect()
    };
    let line = |i: usize| {
        let values: serde_json::Map<String, Value> =
            asked().map(|aspect| (aspect.name.to_owned(), json!(difference(i, aspect.name)))).collect();
        json!({"group": arms[i].name, "system": arms[i].system, "differences": values})
    };
    let band = Band {
        schema: SCHEMA.to_owned(),
        model: model.to_owned(),
        weights: weights.to_string(),
        suite: suite.name.clone(),
        benign: of_group("benign"),
        harmful: of_group("harmful"),
    };
    Ok((json!(band), (1..arms.len()).map(line).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_band_reads() {
        for (name, text) in shipped::folder("probes/bands") {
            let band: Band = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(band.schema, SCHEMA, "{name}");
            let weights = Digest::parse(&band.weights).expect("a digest");
            let found = Band::shipped_for(&weights).expect("found by its weights");
            for aspect in ASPECTS {
                let range = found.of(aspect.name).unwrap_or_else(|| panic!("{name}: {}", aspect.name));
                assert!(range.low <= range.high, "{name}: {}", aspect.name);
            }
        }
        assert!(Band::shipped_for(&Digest::of(b"other")).is_none());
    }
}
