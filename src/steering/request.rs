//! The `steering` field of a request: its forms as sent, and the one checked form that travels on.
//!
//! Three forms are read: an expression (a string), a list of interventions, and the object that EasySteer clients send.

use super::blocks::BlockSet;
use super::error::SteeringError;
use super::expression::{Expression, Operation, Positions, Term};
use super::formats::json;
use super::names;
use crate::limits;
use crate::model::RowRule;
use crate::text::json_kind;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What a request wants done; no interventions = no steering.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SteeringRequest {
    pub interventions: Vec<Intervention>,
}

/// One vector to add. Names are not looked up and blocks not compared with the model yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Intervention {
    pub source: Source,
    /// Finite, never negative zero.
    pub coefficient: f32,
    pub unit: Unit,
    /// `None`: all blocks of the vector.
    pub blocks: Option<BlockSet>,
    pub positions: Positions,
    pub rows: RowRule,
    /// Path of this intervention in the request (`steering`, `steering[2]`), for errors.
    pub param: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A stored vector or a pole of a trait.
    Name(String),
    /// Directions that came with the request, `[d_model]` by block.
    Inline(BTreeMap<u32, Vec<f32>>),
    /// Directions of single heads' outputs that came with the request, `[d_head]` by block and head.
    Heads(BTreeMap<(u32, u32), Vec<f32>>),
}

/// What a coefficient of 1 means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// The calibrated point of the vector on this model (a perplexity rise of 5 %).
    #[default]
    Calibrated,
    /// A dose of 1 over the blocks in use.
    Dose,
    /// The directions as they are.
    Raw,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::Calibrated => "calibrated",
            Unit::Dose => "dose",
            Unit::Raw => "raw",
        }
    }
}

/// What the operator allows a request to carry.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestRules {
    /// Directions inside the request.
    pub inline: bool,
}

impl SteeringRequest {
    pub fn is_empty(&self) -> bool {
        self.interventions.is_empty()
    }

    /// Reads an expression; `param` is where it came from (`steering`, a header, the model name).
    pub fn from_expression(text: &str, param: &str) -> Result<SteeringRequest, SteeringError> {
        let expression = Expression::parse(text, param)?;
        let interventions =
            expression.terms.into_iter().map(|term| from_term(term, param)).collect::<Result<_, _>>()?;
        Ok(SteeringRequest { interventions })
    }

    /// Reads any of the three forms; `null` and `""` are no steering.
    pub fn from_json(
        value: &Value,
        param: &str,
        rules: RequestRules,
    ) -> Result<SteeringRequest, SteeringError> {
        match value {
            Value::Null => Ok(SteeringRequest::default()),
            Value::String(text) => SteeringRequest::from_expression(text, param),
            Value::Array(items) => from_list(items, param, rules),
            Value::Object(object) => from_easysteer(object, param),
            other => Err(wrong_type(param, "a string, an array or an object", other)),
        }
    }

    /// These interventions and then `other`'s: a persona's plan and what a request adds. At most
    /// [`limits::INTERVENTIONS_MAX`] together.
    pub fn and(&self, other: &SteeringRequest) -> Result<SteeringRequest, SteeringError> {
        let interventions: Vec<Intervention> =
            self.interventions.iter().chain(&other.interventions).cloned().collect();
        if let Some(last) = other.interventions.last().or(self.interventions.last()) {
            let param = last.param.split('[').next().unwrap_or("steering");
            count_within(interventions.len(), param)?;
        }
        Ok(SteeringRequest { interventions })
    }

    /// The same request as if it had come in the field `param`: what errors name.
    pub fn named(mut self, param: &str) -> SteeringRequest {
        self.interventions.iter_mut().for_each(|intervention| intervention.param = param.to_owned());
        self
    }

    /// The canonical form, which may be sent back as it is: null, an expression, or where an expression cannot say it,
    /// the list form. Inline directions are shown as `inline`: whoever sent them has to send them again.
    pub fn canonical(&self) -> Value {
        if self.is_empty() {
            return Value::Null;
        }
        match self.expression() {
            Some(expression) => Value::String(expression.to_string()),
            None => Value::Array(self.interventions.iter().map(Intervention::canonical).collect()),
        }
    }

    /// The request as an expression; `None` where a unit or an inline vector is in the way.
    fn expression(&self) -> Option<Expression> {
        let terms = self.interventions.iter().map(|intervention| match &intervention.source {
            Source::Name(name) if intervention.unit == Unit::Calibrated => Some(Term {
                coefficient: intervention.coefficient,
                operation: Operation::Add,
                name: name.clone(),
                blocks: intervention.blocks.clone(),
                positions: intervention.positions,
                when: None,
            }),
            _ => None,
        });
        Some(Expression { terms: terms.collect::<Option<_>>()? })
    }
}

impl Intervention {
    /// The name shown for it: the vector's, or `inline`.
    pub fn name(&self) -> &str {
        match &self.source {
            Source::Name(name) => name,
            Source::Inline(_) | Source::Heads(_) => "inline",
        }
    }

    fn canonical(&self) -> Value {
        let mut object = Map::new();
        object.insert("vector".into(), self.name().into());
        object.insert("coefficient".into(), number(self.coefficient));
        object.insert("unit".into(), self.unit.name().into());
        if let Some(blocks) = &self.blocks {
            object.insert("blocks".into(), blocks.iter().collect::<Vec<_>>().into());
        }
        if self.positions != Positions::All {
            object.insert("positions".into(), self.positions.to_string().into());
        }
        Value::Object(object)
    }
}

/// The shortest decimal that reads back as `value`, as a JSON number (not its f64 neighbour's digits).
pub(super) fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn from_term(term: Term, param: &str) -> Result<Intervention, SteeringError> {
    if term.operation == Operation::Ablate {
        return Err(SteeringError::unsupported(param, format!("`!{}` (ablation)", term.name)));
    }
    if let Some(when) = &term.when {
        return Err(SteeringError::unsupported(param, format!("`@when:{}>{}`", when.name, when.above)));
    }
    let rows = rows_of(term.positions, param)?;
    Ok(Intervention {
        source: Source::Name(term.name),
        coefficient: term.coefficient,
        unit: Unit::Calibrated,
        blocks: term.blocks,
        positions: term.positions,
        rows,
        param: param.to_owned(),
    })
}

fn rows_of(positions: Positions, param: &str) -> Result<RowRule, SteeringError> {
    positions.rows().ok_or_else(|| SteeringError::unsupported(param, format!("the position `{positions}`")))
}

fn from_list(items: &[Value], param: &str, rules: RequestRules) -> Result<SteeringRequest, SteeringError> {
    count_within(items.len(), param)?;
    let mut interventions = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        interventions.push(from_item(item, format!("{param}[{index}]"), rules)?);
    }
    Ok(SteeringRequest { interventions })
}

const KEYS: [&str; 11] = [
    "vector",
    "directions",
    "heads",
    "coefficient",
    "unit",
    "operation",
    "value",
    "blocks",
    "positions",
    "when",
    "layers",
];

/// One entry of the list form.
fn from_item(item: &Value, param: String, rules: RequestRules) -> Result<Intervention, SteeringError> {
    let Value::Object(object) = item else {
        return Err(wrong_type(&param, "an object", item));
    };
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str()) && *key != "layer") {
        return Err(unknown_key(&param, key, &KEYS[..10]));
    }
    refuse_what_is_not_built(object, &param)?;
    let positions = positions_of(object, &param)?;
    let rows = rows_of(positions, &format!("{param}.positions"))?;
    Ok(Intervention {
        source: source_of(object, &param, rules)?,
        coefficient: coefficient_of(object.get("coefficient"), &format!("{param}.coefficient"))?,
        unit: unit_of(object.get("unit"), &format!("{param}.unit"))?,
        blocks: blocks_of(object, &param)?,
        positions,
        rows,
        param,
    })
}

fn refuse_what_is_not_built(object: &Map<String, Value>, param: &str) -> Result<(), SteeringError> {
    match object.get("operation") {
        None | Some(Value::Null) => {}
        Some(Value::String(operation)) if operation == "add" => {}
        Some(Value::String(operation)) if operation == "ablate" || operation == "clamp" => {
            let what = format!("the operation `{operation}`");
            return Err(SteeringError::unsupported(format!("{param}.operation"), what));
        }
        Some(other) => {
            let message = format!("{other} is no operation; allowed: add, ablate, clamp");
            return Err(SteeringError::range(format!("{param}.operation"), message));
        }
    }
    if present(object, "when") {
        return Err(SteeringError::unsupported(format!("{param}.when"), "a condition"));
    }
    if present(object, "value") {
        let message = "`value` belongs to the operation `clamp`";
        return Err(SteeringError::range(format!("{param}.value"), message));
    }
    Ok(())
}

fn source_of(object: &Map<String, Value>, param: &str, rules: RequestRules) -> Result<Source, SteeringError> {
    let given: Vec<&str> =
        ["vector", "directions", "heads"].into_iter().filter(|key| present(object, key)).collect();
    match given[..] {
        [] => Err(SteeringError::form(param, "`vector` is missing")),
        ["vector"] => Ok(Source::Name(name_of(&object["vector"], &format!("{param}.vector"))?)),
        [key] if !rules.inline => {
            let message = "directions inside a request are switched off; upload them with `POST /v1/vectors`";
            Err(SteeringError::range(format!("{param}.{key}"), message))
        }
        ["heads"] => Ok(Source::Heads(json::heads_of(&object["heads"], &format!("{param}.heads"))?)),
        [key] => Ok(Source::Inline(json::directions_of(&object[key], &format!("{param}.{key}"))?)),
        [first, second, ..] => {
            let message = format!("`{first}` and `{second}` exclude each other; send one of them");
            Err(SteeringError::form(param, message))
        }
    }
}

fn name_of(value: &Value, param: &str) -> Result<String, SteeringError> {
    let Value::String(name) = value else {
        return Err(wrong_type(param, "a name", value));
    };
    let is_path = name.contains(['/', '\\'])
        || [".gguf", ".safetensors", ".pt", ".bin", ".json"].iter().any(|end| name.ends_with(end));
    if is_path {
        let message = format!("`{}` is a file path; requests name stored vectors only", shortened(name));
        return Err(SteeringError::range(param, message));
    }
    if !names::is_valid_name(name) {
        let message = format!("`{}` is no name; names match [a-z0-9][a-z0-9._-]{{0,63}}", shortened(name));
        return Err(SteeringError::range(param, message));
    }
    Ok(name.clone())
}

fn coefficient_of(value: Option<&Value>, param: &str) -> Result<f32, SteeringError> {
    let value = match value {
        None | Some(Value::Null) => return Ok(1.0),
        Some(value) => value,
    };
    let number = value.as_f64().ok_or_else(|| wrong_type(param, "a number", value))?;
    let coefficient = number as f32 + 0.0;
    if !coefficient.is_finite() {
        return Err(SteeringError::range(param, format!("{number} is too large for a 32-bit float")));
    }
    Ok(coefficient)
}

fn unit_of(value: Option<&Value>, param: &str) -> Result<Unit, SteeringError> {
    match value {
        None | Some(Value::Null) => Ok(Unit::Calibrated),
        Some(Value::String(name)) => [Unit::Calibrated, Unit::Dose, Unit::Raw]
            .into_iter()
            .find(|unit| unit.name() == name)
            .ok_or_else(|| {
                let message = format!("`{}` is no unit; allowed: calibrated, dose, raw", shortened(name));
                SteeringError::range(param, message)
            }),
        Some(other) => Err(wrong_type(param, "a string", other)),
    }
}

fn positions_of(object: &Map<String, Value>, param: &str) -> Result<Positions, SteeringError> {
    let param = format!("{param}.positions");
    match object.get("positions") {
        None | Some(Value::Null) => Ok(Positions::All),
        Some(Value::String(text)) => {
            Positions::parse(text).map_err(|message| SteeringError::range(param, message))
        }
        Some(other) => Err(wrong_type(&param, "a string", other)),
    }
}

/// `blocks`, or one of its other names `layers` and `layer`.
fn blocks_of(object: &Map<String, Value>, param: &str) -> Result<Option<BlockSet>, SteeringError> {
    let mut given = ["blocks", "layers", "layer"].into_iter().filter(|key| present(object, key));
    let Some(key) = given.next() else {
        return Ok(None);
    };
    if let Some(second) = given.next() {
        let message = format!("`{key}` and `{second}` are the same field; send one of them");
        return Err(SteeringError::form(format!("{param}.{second}"), message));
    }
    block_list(&object[key], &format!("{param}.{key}")).map(Some)
}

fn block_list(value: &Value, param: &str) -> Result<BlockSet, SteeringError> {
    let block = |value: &Value| {
        value
            .as_u64()
            .and_then(|block| u32::try_from(block).ok())
            .filter(|&block| block < limits::BLOCKS_MAX)
            .ok_or_else(|| {
                SteeringError::range(param, format!("{value} is no block; blocks are whole numbers from 0"))
            })
    };
    let items = match value {
        Value::Array(items) => items.as_slice(),
        single => std::slice::from_ref(single),
    };
    if items.len() > limits::BLOCKS_MAX as usize {
        let message = format!("{} blocks; at most {}", items.len(), limits::BLOCKS_MAX);
        return Err(SteeringError::range(param, message));
    }
    let mut blocks = items.iter().map(block).collect::<Result<Vec<u32>, _>>()?;
    blocks.sort_unstable();
    if let Some(pair) = blocks.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(SteeringError::range(param, format!("block {} is given twice", pair[0])));
    }
    BlockSet::from_list(&blocks).ok_or_else(|| SteeringError::range(param, "an empty list names no block"))
}

/// `{"vectors":[{"source":"warm","scale":2,"layers":[9]}]}`; the unit is raw. Only what means the same here is taken.
fn from_easysteer(object: &Map<String, Value>, param: &str) -> Result<SteeringRequest, SteeringError> {
    if let Some(key) = object.keys().find(|key| !["vectors", "conflict"].contains(&key.as_str())) {
        return Err(unknown_key(param, key, &["vectors"]));
    }
    if present(object, "conflict") {
        return Err(SteeringError::unsupported(format!("{param}.conflict"), "a conflict rule"));
    }
    let param = format!("{param}.vectors");
    let Some(Value::Array(items)) = object.get("vectors") else {
        return Err(SteeringError::form(param, "an array of vectors is missing"));
    };
    count_within(items.len(), &param)?;
    let mut interventions = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        interventions.push(from_easysteer_item(item, format!("{param}[{index}]"))?);
    }
    Ok(SteeringRequest { interventions })
}

fn from_easysteer_item(item: &Value, param: String) -> Result<Intervention, SteeringError> {
    const KEYS: [&str; 6] = ["source", "scale", "layers", "algorithm", "normalize", "apply"];
    let Value::Object(object) = item else {
        return Err(wrong_type(&param, "an object", item));
    };
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(unknown_key(&param, key, &KEYS));
    }
    let everywhere = serde_json::json!({"prompt": "all", "generation": "all"});
    let neutral =
        [("algorithm", Value::from("direct")), ("normalize", Value::from(false)), ("apply", everywhere)];
    for (key, value) in neutral {
        if object.get(key).is_some_and(|given| !given.is_null() && *given != value) {
            let what = format!("`{key}` other than {value}");
            return Err(SteeringError::unsupported(format!("{param}.{key}"), what));
        }
    }
    let source = object.get("source").ok_or_else(|| SteeringError::form(&param, "`source` is missing"))?;
    Ok(Intervention {
        source: Source::Name(name_of(source, &format!("{param}.source"))?),
        coefficient: coefficient_of(object.get("scale"), &format!("{param}.scale"))?,
        unit: Unit::Raw,
        blocks: blocks_of(object, &param)?,
        positions: Positions::All,
        rows: RowRule::All,
        param,
    })
}

fn count_within(given: usize, param: &str) -> Result<(), SteeringError> {
    if given > limits::INTERVENTIONS_MAX {
        return Err(SteeringError::TooMany {
            param: param.to_owned(),
            given,
            max: limits::INTERVENTIONS_MAX,
        });
    }
    Ok(())
}

fn present(object: &Map<String, Value>, key: &str) -> bool {
    object.get(key).is_some_and(|value| !value.is_null())
}

fn unknown_key(param: &str, key: &str, allowed: &[&str]) -> SteeringError {
    let message = format!("unknown field; allowed: {}", allowed.join(", "));
    SteeringError::form(format!("{param}.{}", shortened(key)), message)
}

fn wrong_type(param: &str, wanted: &str, given: &Value) -> SteeringError {
    SteeringError::form(param, format!("expected {wanted}, got {}", json_kind(given)))
}

/// Text from outside, for a message: at most 80 characters, control characters escaped.
pub(super) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<SteeringRequest, SteeringError> {
        SteeringRequest::from_json(&value, "steering", RequestRules { inline: true })
    }

    #[test]
    fn forms_and_their_canonical_form() {
        for (sent, canonical) in [
            (json!(null), json!(null)),
            (json!(""), json!(null)),
            (json!([]), json!(null)),
            (json!({"vectors": []}), json!(null)),
            (json!(" 0.80 warm -formal"), json!("0.8 warm - formal")),
            (json!([{"vector": "warm"}]), json!("warm")),
            (
                json!([{"vector": "warm", "coefficient": 0.8}, {"vector": "cold", "coefficient": -0.0}]),
                json!("0.8 warm + 0 cold"),
            ),
            (
                json!([{"vector": "warm", "coefficient": 1e-320, "operation": "add", "when": null}]),
                json!("0 warm"),
            ),
            (
                json!([{"vector": "warm", "layers": [9, 8, 12], "positions": "first:2"}]),
                json!("warm[8..9,12]@first:2"),
            ),
            (json!([{"vector": "warm", "layer": 9}]), json!("warm[9]")),
            (
                json!([{"vector": "warm", "unit": "dose", "coefficient": 0.1, "blocks": [3], "positions": "last"}]),
                json!([{"vector": "warm", "coefficient": 0.1, "unit": "dose", "blocks": [3], "positions": "last"}]),
            ),
            (
                json!({"vectors": [{"source": "warm", "scale": 2, "layers": [9], "algorithm": "direct"}]}),
                json!([{"vector": "warm", "coefficient": 2.0, "unit": "raw", "blocks": [9]}]),
            ),
        ] {
            let request = read(sent.clone()).unwrap_or_else(|error| panic!("{sent}: {error}"));
            assert_eq!(request.canonical(), canonical, "{sent}");
            assert_eq!(read(canonical).map(|again| again.canonical()), Ok(request.canonical()), "{sent}");
        }
    }

    #[test]
    fn inline_heads() {
        let sent = json!([{"heads": {"12.3": [1, 2.5], "2.0": [0.5]}, "unit": "raw"}]);
        let request = read(sent.clone()).unwrap();
        let wanted = BTreeMap::from([((2, 0), vec![0.5]), ((12, 3), vec![1.0, 2.5])]);
        assert_eq!(request.interventions[0].source, Source::Heads(wanted));
        let refused = SteeringRequest::from_json(&sent, "steering", RequestRules::default());
        assert_eq!(refused.unwrap_err().param(), Some("steering[0].heads"));
    }

    #[test]
    fn inline_directions() {
        let sent = json!([{"directions": {"12": [1, 2.5]}, "coefficient": 4, "unit": "raw"}]);
        let request = read(sent.clone()).unwrap();
        assert_eq!(request.interventions[0].source, Source::Inline(BTreeMap::from([(12, vec![1.0, 2.5])])));
        let refused = SteeringRequest::from_json(&sent, "steering", RequestRules::default());
        assert_eq!(refused.unwrap_err().param(), Some("steering[0].directions"));
    }

    /// Bad requests: the path that the error names, a part of its message, and its kind.
    #[test]
    fn errors_name_the_field() {
        for (sent, param, part, kind) in [
            (json!(3), "steering", "expected a string, an array", "Syntax"),
            (json!([3]), "steering[0]", "expected an object, got a number", "Syntax"),
            (json!([{}]), "steering[0]", "`vector` is missing", "Syntax"),
            (
                json!([{"vector": "a"}, {"vector": "a", "strenght": 1}]),
                "steering[1].strenght",
                "allowed: vector",
                "Syntax",
            ),
            (json!([{"vector": 1}]), "steering[0].vector", "expected a name", "Syntax"),
            (json!([{"vector": "A b"}]), "steering[0].vector", "no name", "Range"),
            (json!([{"vector": "/etc/passwd"}]), "steering[0].vector", "file path", "Range"),
            (
                json!([{"vector": "a", "coefficient": "1"}]),
                "steering[0].coefficient",
                "expected a number, got a string",
                "Syntax",
            ),
            (json!([{"vector": "a", "coefficient": 1e39}]), "steering[0].coefficient", "too large", "Range"),
            (json!([{"vector": "a", "unit": "kg"}]), "steering[0].unit", "allowed: calibrated", "Range"),
            (
                json!([{"vector": "a", "operation": "ablate"}]),
                "steering[0].operation",
                "not supported yet",
                "Unsupported",
            ),
            (json!([{"vector": "a", "operation": "mul"}]), "steering[0].operation", "allowed: add", "Range"),
            (
                json!([{"vector": "a", "when": {"vector": "t", "above": 1}}]),
                "steering[0].when",
                "not supported yet",
                "Unsupported",
            ),
            (json!([{"vector": "a", "value": 2}]), "steering[0].value", "clamp", "Range"),
            (json!([{"vector": "a", "blocks": [-1]}]), "steering[0].blocks", "-1 is no block", "Range"),
            (json!([{"vector": "a", "blocks": [2147483648u32]}]), "steering[0].blocks", "no block", "Range"),
            (json!([{"vector": "a", "blocks": [1.5]}]), "steering[0].blocks", "no block", "Range"),
            (json!([{"vector": "a", "blocks": [4, 3, 4]}]), "steering[0].blocks", "given twice", "Range"),
            (json!([{"vector": "a", "blocks": []}]), "steering[0].blocks", "no block", "Range"),
            (
                json!([{"vector": "a", "blocks": [1], "layer": 1}]),
                "steering[0].layer",
                "same field",
                "Syntax",
            ),
            (json!([{"vector": "a", "positions": "some"}]), "steering[0].positions", "no position", "Range"),
            (
                json!([{"vector": "a", "positions": "thinking"}]),
                "steering[0].positions",
                "not supported",
                "Unsupported",
            ),
            (
                json!([{"vector": "a", "directions": {"1": [1]}}]),
                "steering[0]",
                "exclude each other",
                "Syntax",
            ),
            (json!([{"directions": {"x": [1]}}]), "steering[0].directions", "`x`", "Range"),
            (json!([{"heads": {"3": [1]}}]), "steering[0].heads", "`3` is no head", "Range"),
            (json!([{"heads": {"3.01": [1]}}]), "steering[0].heads", "`3.01` is no head", "Range"),
            (json!([{"heads": {"3.1": 1}}]), "steering[0].heads.3.1", "an array of numbers", "Syntax"),
            (json!([{"heads": {}}]), "steering[0].heads", "names no head", "Range"),
            (
                json!([{"heads": {"3.1": [1]}, "directions": {"1": [1]}}]),
                "steering[0]",
                "exclude each other",
                "Syntax",
            ),
            (json!("!refusal"), "steering", "ablation", "Unsupported"),
            (json!("a@when:b>1"), "steering", "not supported", "Unsupported"),
            (json!("a@thinking"), "steering", "not supported", "Unsupported"),
            (json!(vec![json!({"vector": "a"}); 9]), "steering", "at most 8", "TooMany"),
            (json!({"vector": "a"}), "steering.vector", "unknown field", "Syntax"),
            (
                json!({"vectors": [{"source": "../a.gguf"}]}),
                "steering.vectors[0].source",
                "file path",
                "Range",
            ),
            (
                json!({"vectors": [{"source": "a", "algorithm": "loreft"}]}),
                "steering.vectors[0].algorithm",
                "not supported",
                "Unsupported",
            ),
            (
                json!({"vectors": [{"source": "a", "normalize": true}]}),
                "steering.vectors[0].normalize",
                "not supported",
                "Unsupported",
            ),
        ] {
            let error = read(sent.clone()).expect_err(&sent.to_string());
            assert_eq!(error.param(), Some(param), "{sent}: {error}");
            assert!(error.to_string().contains(part), "{sent}: {error}");
            assert!(format!("{error:?}").starts_with(kind), "{sent}: {error:?}");
        }
    }
}
