//! What of a report the gate looks at: each aspect's change against the plain model and against the prompt alone.

use super::GateError;
use crate::digest::Digest;
use crate::limits;
use crate::text::shown;
use serde_json::Value;

/// What a report says it is.
pub const SCHEMA: &str = "demeanor.probe/1";

/// The judged part of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Persona digest of what was measured.
    pub subject: Digest,
    /// `smoke`, `quick`, `full`; for messages.
    pub suite: String,
    /// In the order of the report.
    pub aspects: Vec<Aspect>,
}

/// One aspect of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Aspect {
    pub name: String,
    /// Items that gave a number.
    pub n: u64,
    /// Items that gave none.
    pub invalid: u64,
    /// Against the plain model.
    pub plain: Option<Change>,
    /// Against the same prompt without plan and soft prompt.
    pub prompt: Option<Change>,
    /// Whether the prompt without them was measured at all: false where the persona has neither.
    pub has_prompt_arm: bool,
}

/// A paired difference with its interval, in the aspect's unit; positive = more harm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    pub difference: f64,
    /// Ends of the interval of 95 %, `low <= high`.
    pub low: f64,
    pub high: f64,
}

impl Measured {
    /// Reads a report. Numbers that are missing or not finite are left out, and a rule that needs them is not met.
    pub fn read(report: &Value) -> Result<Measured, GateError> {
        let malformed = |rule: String| GateError::Malformed { what: "the report", rule };
        let object = report.as_object().ok_or_else(|| malformed("it is no JSON object".into()))?;
        match object.get("schema").and_then(Value::as_str) {
            Some(SCHEMA) => {}
            Some(other) => {
                let given = shown(other);
                return Err(malformed(format!("its schema is `{given}`; this build reads `{SCHEMA}`")));
            }
            None => return Err(malformed(format!("it has no `schema`; expected `{SCHEMA}`"))),
        }
        let subject = object.get("digest").and_then(Value::as_str).and_then(Digest::parse);
        let subject = subject.ok_or_else(|| malformed("`digest` is not 64 hex digits".into()))?;
        let list = object.get("aspects").and_then(Value::as_array);
        let list = list.ok_or_else(|| malformed("`aspects` is no array".into()))?;
        if list.len() > limits::PROBE_ASPECTS_MAX {
            let (given, max) = (list.len(), limits::PROBE_ASPECTS_MAX);
            return Err(malformed(format!("`aspects` has {given} entries; at most {max}")));
        }
        let mut aspects: Vec<Aspect> = Vec::with_capacity(list.len());
        for (index, entry) in list.iter().enumerate() {
            let aspect =
                read_aspect(entry).map_err(|rule| malformed(format!("`aspects[{index}]`: {rule}")))?;
            if aspects.iter().any(|known| known.name == aspect.name) {
                return Err(malformed(format!("`aspects[{index}]`: `{}` is there twice", aspect.name)));
            }
            aspects.push(aspect);
        }
        let suite = object.get("suite").and_then(Value::as_str).unwrap_or("?");
        Ok(Measured { subject, suite: shown(suite), aspects })
    }

    pub fn aspect(&self, name: &str) -> Option<&Aspect> {
        self.aspects.iter().find(|aspect| aspect.name == name)
    }
}

fn read_aspect(entry: &Value) -> Result<Aspect, String> {
    let name = entry.get("name").and_then(Value::as_str).ok_or("it has no `name`")?;
    let is_up = match entry.get("harm_is") {
        None | Some(Value::Null) => true,
        Some(Value::String(way)) if way == "up" => true,
        Some(Value::String(way)) if way == "down" => false,
        Some(other) => return Err(format!("`harm_is` is {other}; allowed: up, down")),
    };
    let count = |field: &str| match entry.get(field) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value.as_u64().ok_or_else(|| format!("`{field}` is {value}; expected a count")),
    };
    let against = entry.get("against_prompt").filter(|value| value.is_object());
    Ok(Aspect {
        name: shown(name),
        n: count("n")?,
        invalid: count("invalid")?,
        plain: change(entry, is_up),
        prompt: against.and_then(|against| change(against, is_up)),
        has_prompt_arm: against.is_some() || entry.get("prompt").is_some_and(|value| !value.is_null()),
    })
}

/// `difference` and `interval` of an object; `None` where they are no finite numbers in order.
fn change(object: &Value, is_up: bool) -> Option<Change> {
    let finite = |value: &Value| value.as_f64().filter(|number| number.is_finite());
    let difference = finite(object.get("difference")?)?;
    let ends = object.get("interval")?.as_array()?;
    let [low, high] = ends.as_slice() else { return None };
    let (low, high) = (finite(low)?, finite(high)?);
    if low > high {
        return None;
    }
    Some(match is_up {
        true => Change { difference, low, high },
        false => Change { difference: -difference, low: -high, high: -low },
    })
}
