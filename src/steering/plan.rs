//! From named vectors and coefficients to the numbers that the loaded model adds, with their dose.

use super::dose::{self, DEFAULT_DOSE, Hook, Norms, Part};
use super::error::SteeringError;
use super::request::{Intervention, Source, SteeringRequest, Unit};
use super::vector::{ModelShape, Vector, norm};
use crate::limits;
use crate::model::{BlockEdits, Change, Edit, Edits};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// A request's steering, ready to run, and what the answer says about it.
#[derive(Clone, Debug)]
pub struct Applied {
    pub edits: Arc<Edits>,
    /// The canonical request: null, an expression, or a list.
    pub steering: Value,
    pub vectors: Vec<AppliedVector>,
    pub warnings: Vec<String>,
}

/// One entry of `demeanor.vectors`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AppliedVector {
    /// As the request named it.
    pub name: String,
    pub coefficient: f32,
    /// What a coefficient of 1 meant: `calibrated`, `dose`, `raw`, or `provisional` (not calibrated yet).
    pub unit: &'static str,
    /// Its own dose over its blocks.
    pub dose: f32,
    /// First and last block in use.
    pub blocks: [u32; 2],
}

/// An intervention whose vector is found.
#[derive(Clone, Debug)]
pub struct Resolved<'a> {
    pub intervention: &'a Intervention,
    pub vector: Arc<Vector>,
    /// -1 for the second pole of a trait.
    pub sign: f32,
}

impl Applied {
    /// No steering.
    pub fn none() -> Applied {
        Applied {
            edits: Arc::new(Edits::none()),
            steering: Value::Null,
            vectors: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// Compiles a plan. `resolved` are the interventions of `request` with a coefficient other than 0, in order.
///
/// Errors: a vector that does not fit the model, blocks it has no direction for, numbers that overflow, a dose above
/// `max_dose`.
pub fn compile(
    request: &SteeringRequest,
    resolved: &[Resolved<'_>],
    norms: &Norms,
    model: &ModelShape,
    max_dose: f32,
) -> Result<Applied, SteeringError> {
    let mut applied = Applied { steering: request.canonical(), ..Applied::none() };
    let mut parts = Vec::new();
    for entry in resolved {
        parts.extend(parts_of(entry, norms, model, &mut applied)?);
    }
    let param = request.interventions.first().map_or("steering", |first| root(&first.param));
    let dose = dose::check(&parts, norms, max_dose, param)?;
    if dose >= limits::DOSE_WARN {
        applied.warnings.push(format!(
            "the steering dose is {dose:.2}; from {} on the text usually falls apart",
            limits::DOSE_WARN
        ));
    }
    applied.edits = Arc::new(edits_of(parts, model.n_blocks));
    Ok(applied)
}

/// The additions of one intervention, `coefficient * direction` per block; notes its entry and warnings in `applied`.
fn parts_of(
    entry: &Resolved<'_>,
    norms: &Norms,
    model: &ModelShape,
    applied: &mut Applied,
) -> Result<Vec<Part>, SteeringError> {
    let Resolved { intervention, vector, sign } = entry;
    vector.check_fits(model, &intervention.param)?;
    let blocks = blocks_in_use(intervention, vector, model, applied)?;
    let (factor, unit) = factor(intervention.unit, vector, &blocks, norms);
    let scale = sign * intervention.coefficient * factor;
    let hook = match &intervention.source {
        Source::Heads(_) => Hook::Attn,
        Source::Name(_) | Source::Inline(_) => vector.hook,
    };
    let mut parts = Vec::with_capacity(blocks.len());
    for &block in &blocks {
        let direction = vector.directions().get(&block).map_or(&[][..], |direction| &direction[..]);
        let delta: Arc<[f32]> = direction.iter().map(|value| value * scale).collect();
        if delta.iter().any(|value| !value.is_finite()) {
            return Err(SteeringError::Overflow {
                param: intervention.param.clone(),
                name: intervention.name().to_owned(),
                coefficient: intervention.coefficient,
                block,
            });
        }
        parts.push(Part { block, hook, delta, rows: intervention.rows });
    }
    let doses = parts.iter().map(|part| norms.dose(part.block, norm(&part.delta)));
    applied.vectors.push(AppliedVector {
        name: intervention.name().to_owned(),
        coefficient: intervention.coefficient,
        unit,
        dose: dose::over_blocks(doses),
        blocks: [blocks[0], blocks[blocks.len() - 1]],
    });
    Ok(parts)
}

/// The vector's blocks that the intervention asks for, ascending; never empty.
fn blocks_in_use(
    intervention: &Intervention,
    vector: &Vector,
    model: &ModelShape,
    applied: &mut Applied,
) -> Result<Vec<u32>, SteeringError> {
    let Some(wanted) = &intervention.blocks else {
        return Ok(vector.blocks().collect());
    };
    let last = model.n_blocks.saturating_sub(1);
    if wanted.last() > last {
        let message =
            format!("block {} is out of range; the loaded model has blocks 0 to {last}", wanted.last());
        return Err(SteeringError::range(blocks_param(intervention), message));
    }
    let found: Vec<u32> = vector.blocks().filter(|&block| wanted.contains(block)).collect();
    let name = intervention.name();
    let (first, last) = (vector.blocks().next().unwrap_or(0), vector.blocks().next_back().unwrap_or(0));
    if found.is_empty() {
        let message =
            format!("vector `{name}` has directions in the blocks {first} to {last} and none in {wanted}");
        return Err(SteeringError::unfit(blocks_param(intervention), message));
    }
    if found.len() < wanted.iter().count() {
        applied.warnings.push(format!(
            "`{name}` has no direction in some blocks of {wanted} (it has them in the blocks {first} to {last})"
        ));
    }
    Ok(found)
}

/// `steering[2].blocks` for the list form; an expression has no finer path than its own.
fn blocks_param(intervention: &Intervention) -> String {
    match intervention.param.ends_with(']') {
        true => format!("{}.blocks", intervention.param),
        false => intervention.param.clone(),
    }
}

/// What one unit of the coefficient multiplies the directions with, and the unit's name for the answer.
fn factor(unit: Unit, vector: &Vector, blocks: &[u32], norms: &Norms) -> (f32, &'static str) {
    match (unit, &vector.calibration) {
        (Unit::Raw, _) => (1.0, "raw"),
        (Unit::Dose, _) => (1.0 / dose::over_blocks(raw_doses(vector, blocks, norms)), "dose"),
        (Unit::Calibrated, Some(calibration)) => (calibration.scale, "calibrated"),
        (Unit::Calibrated, None) => (provisional_scale(vector, norms), "provisional"),
    }
}

/// The factor at which the doses of all blocks of a vector sum up to [`DEFAULT_DOSE`]: directions of neighbouring blocks
/// point the same way and add up, so that a range costs what one block of the summed dose costs.
pub fn provisional_scale(vector: &Vector, norms: &Norms) -> f32 {
    let blocks: Vec<u32> = vector.blocks().collect();
    DEFAULT_DOSE / raw_doses(vector, &blocks, norms).sum::<f32>()
}

fn raw_doses<'a>(vector: &'a Vector, blocks: &'a [u32], norms: &'a Norms) -> impl Iterator<Item = f32> + 'a {
    blocks.iter().filter_map(|block| {
        vector.directions().get(block).map(|direction| norms.dose(*block, norm(direction)))
    })
}

fn edits_of(parts: Vec<Part>, n_blocks: u32) -> Edits {
    let mut blocks = vec![BlockEdits::default(); n_blocks as usize];
    for part in parts {
        // The vector was compared with the model: its blocks exist.
        if let Some(block) = blocks.get_mut(part.block as usize) {
            let list = match part.hook {
                Hook::Attn => &mut block.attn,
                Hook::Resid => &mut block.resid,
            };
            list.push(Edit::new(Change::Add { delta: part.delta }, part.rows));
        }
    }
    Edits::new(blocks)
}

/// Edits that add `scale` times a vector to every row: what measuring runs use.
pub fn edits_for(vector: &Vector, scale: f32, n_blocks: u32) -> Edits {
    let parts = vector.directions().iter().map(|(&block, direction)| Part {
        block,
        hook: vector.hook,
        delta: direction.iter().map(|value| value * scale).collect(),
        rows: crate::model::RowRule::All,
    });
    edits_of(parts.collect(), n_blocks)
}

/// The field of a path like `steering[2]` or `steering.vectors[0]`.
fn root(param: &str) -> &str {
    param.split(['[', '.']).next().unwrap_or(param)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::model::RowRule;
    use crate::steering::request::RequestRules;
    use crate::steering::vector::Calibration;
    use serde_json::json;
    use std::collections::BTreeMap;

    const MODEL: ModelShape = ModelShape { n_blocks: 4, d_model: 2, weights: Digest([7; 32]) };

    fn norms() -> Norms {
        Norms::new(vec![10.0; 4]).unwrap()
    }

    fn vector(calibration: Option<f32>) -> Arc<Vector> {
        let directions = BTreeMap::from([(1, Arc::from([1.0f32, 0.0])), (2, Arc::from([0.0f32, 1.0]))]);
        let mut vector = Vector::new("v", directions, "p").unwrap();
        vector.calibration =
            calibration.map(|scale| Calibration { scale, rise_plus: 0.05, rise_minus: 0.05 });
        Arc::new(vector)
    }

    /// Every intervention with the same vector, the sign negative for the name `anti`.
    fn run(steering: Value, vector: Arc<Vector>) -> Result<Applied, SteeringError> {
        let request = SteeringRequest::from_json(&steering, "steering", RequestRules::default())?;
        let resolved: Vec<Resolved<'_>> = request
            .interventions
            .iter()
            .map(|intervention| Resolved {
                intervention,
                vector: vector.clone(),
                sign: if intervention.name() == "anti" { -1.0 } else { 1.0 },
            })
            .collect();
        compile(&request, &resolved, &norms(), &MODEL, 1.0)
    }

    fn deltas(applied: &Applied) -> Vec<(usize, Vec<f32>, RowRule)> {
        let blocks = applied.edits.blocks.iter().enumerate();
        blocks
            .flat_map(|(block, edits)| edits.resid.iter().map(move |edit| (block, edit)))
            .map(|(block, edit)| match &edit.change {
                Change::Add { delta } => (block, delta.to_vec(), edit.rows),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn units() {
        for (unit, calibration, scale, name) in [
            ("raw", Some(3.0), 1.0, "raw"),
            ("calibrated", Some(3.0), 3.0, "calibrated"),
            ("calibrated", None, 0.75, "provisional"),
            ("dose", None, 10.0 / 2f32.sqrt(), "dose"),
        ] {
            let sent = json!([{"vector": "v", "unit": unit, "coefficient": -0.5}]);
            let applied = run(sent, vector(calibration)).unwrap();
            let size = -0.5 * scale;
            for (at, (block, delta, rows)) in deltas(&applied).into_iter().enumerate() {
                assert_eq!((block, rows, delta[1 - at]), (at + 1, RowRule::All, 0.0), "{unit}");
                assert!((delta[at] / size - 1.0).abs() < 1e-6, "{unit}: {delta:?}");
            }
            assert_eq!(applied.vectors[0].unit, name);
            let dose = 0.5 * scale / 10.0 * 2f32.sqrt();
            assert!((applied.vectors[0].dose - dose).abs() < 1e-6, "{unit}");
        }
    }

    #[test]
    fn blocks_signs_and_rows() {
        let applied = run(json!("2 v[2..3]@response - anti@first:2"), vector(Some(1.0))).unwrap();
        let mut found = deltas(&applied);
        found.sort_by_key(|(block, delta, _)| (*block, format!("{delta:?}")));
        assert_eq!(
            found,
            [
                (1, vec![1.0, 0.0], RowRule::First(2)),
                (2, vec![0.0, 1.0], RowRule::First(2)),
                (2, vec![0.0, 2.0], RowRule::Response),
            ]
        );
        assert_eq!(applied.vectors[0].blocks, [2, 2]);
        assert_eq!(applied.warnings.len(), 1, "{:?}", applied.warnings);
        assert_eq!(applied.steering, json!("2 v[2..3]@response - anti@first:2"));
    }

    #[test]
    fn refusals_name_the_field() {
        for (steering, param, part) in [
            (
                json!([{"vector": "v"}, {"vector": "v", "blocks": [4]}]),
                "steering[1].blocks",
                "block 4 is out of range",
            ),
            (json!([{"vector": "v", "blocks": [3]}]), "steering[0].blocks", "none in [3]"),
            (json!("v[0]"), "steering", "blocks 1 to 2"),
            (json!("3e38 v - 3e38 v + 3e38 v"), "steering", "dose"),
            (json!("9 v"), "steering", "dose 1.273 over all blocks"),
            (json!([{"vector": "v", "coefficient": 11}]), "steering", "dose 1.100 at block 1"),
        ] {
            let error = run(steering.clone(), vector(Some(1.0))).map(|applied| applied.vectors);
            let error = error.expect_err(&steering.to_string());
            assert_eq!(error.param(), Some(param), "{steering}: {error}");
            assert!(error.to_string().contains(part), "{steering}: {error}");
        }
    }

    #[test]
    fn overflow_is_no_dose() {
        let error = run(json!("3e38 v"), vector(Some(2.0))).map(|applied| applied.vectors).unwrap_err();
        assert!(matches!(error, SteeringError::Overflow { block: 1, .. }), "{error}");
    }

    #[test]
    fn a_high_dose_is_a_warning() {
        let applied = run(json!("5 v"), vector(Some(1.0))).unwrap();
        assert!(applied.warnings[0].contains("dose is 0.71"), "{:?}", applied.warnings);
        assert!(run(json!("v"), vector(Some(1.0))).unwrap().warnings.is_empty());
    }

    #[test]
    fn no_interventions_are_no_edits() {
        let applied = run(json!(""), vector(None)).unwrap();
        assert_eq!((applied.edits.digest(), applied.steering), (Digest::default(), Value::Null));
    }
}
