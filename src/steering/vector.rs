//! A steering vector: directions by block, where they came from, and what its coefficient means.

use super::dose::Hook;
use super::error::SteeringError;
use crate::digest::{Digest, Digester};
use crate::limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Norms below this are zero: nothing can be scaled by them.
const NORM_MIN: f32 = 1e-12;

/// Directions at one hook point of one model. Checked: at least one block, one width, finite, no zero norm.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    name: String,
    /// `[d_model]` by 0-based block; added at the hook point of that block.
    directions: BTreeMap<u32, Arc<[f32]>>,
    pub hook: Hook,
    pub provenance: Provenance,
    pub calibration: Option<Calibration>,
}

/// Where a vector came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Provenance {
    /// Digest of the weights it was made on; `None`: unknown (a file that does not say).
    pub weights: Option<Digest>,
    pub origin: Origin,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Origin {
    #[default]
    Unknown,
    /// Extracted here. `form` names the recipe; `contrast` is the digest of the contrast set.
    Contrast { name: String, form: String, contrast: Digest },
    /// Aligned to a person's answers. `inventory` and `answers` are digests of what was answered.
    Alignment { algorithm: String, inventory: Digest, answers: Digest },
    /// Read from a file.
    File { format: String, sha256: Digest },
}

/// The point at which a coefficient of 1 stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Factor on the directions at a coefficient of 1; finite and positive.
    pub scale: f32,
    /// Mean rise of the negative log-likelihood of neutral text there, nat per token, at +1 and -1.
    pub rise_plus: f32,
    pub rise_minus: f32,
}

impl Calibration {
    /// Of the same vector with its sign reversed.
    pub fn reversed(self) -> Calibration {
        Calibration { rise_plus: self.rise_minus, rise_minus: self.rise_plus, ..self }
    }
}

/// What a vector must fit.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelShape {
    pub n_blocks: u32,
    pub d_model: u32,
    pub weights: Digest,
}

impl Vector {
    /// Checks the directions. Errors name `param`.
    pub fn new(
        name: impl Into<String>,
        directions: BTreeMap<u32, Arc<[f32]>>,
        param: &str,
    ) -> Result<Vector, SteeringError> {
        let name = name.into();
        let width = directions.values().next().map_or(0, |direction| direction.len());
        if width == 0 {
            return Err(SteeringError::unfit(param, format!("vector `{name}` has no direction")));
        }
        for (block, direction) in &directions {
            if direction.len() != width {
                let message =
                    format!("block {block} has {} values and another block has {width}", direction.len());
                return Err(SteeringError::unfit(param, message));
            }
            check_values(*block, direction, param)?;
        }
        if width > limits::WIDTH_MAX as usize {
            let message = format!("{width} values per direction; at most {}", limits::WIDTH_MAX);
            return Err(SteeringError::unfit(param, message));
        }
        Ok(Vector {
            name,
            directions,
            hook: Hook::default(),
            provenance: Provenance::default(),
            calibration: None,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same under another name.
    pub fn named(mut self, name: impl Into<String>) -> Vector {
        self.name = name.into();
        self
    }

    pub fn directions(&self) -> &BTreeMap<u32, Arc<[f32]>> {
        &self.directions
    }

    pub fn width(&self) -> usize {
        self.directions.values().next().map_or(0, |direction| direction.len())
    }

    pub fn blocks(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.directions.keys().copied()
    }

    /// Every direction of a block times that block's factor.
    pub fn scaled(&self, factor: impl Fn(u32) -> f32, param: &str) -> Result<Vector, SteeringError> {
        let directions = self.directions.iter().map(|(&block, direction)| {
            let factor = factor(block);
            (block, direction.iter().map(|value| value * factor).collect())
        });
        let scaled = Vector::new(self.name.clone(), directions.collect(), param)?;
        Ok(Vector { hook: self.hook, provenance: self.provenance.clone(), ..scaled })
    }

    /// Digest of the directions and, where it is not the residual stream, of their hook point.
    pub fn digest(&self) -> Digest {
        let mut digester = Digester::new("demeanor.vector/1");
        if self.hook != Hook::Resid {
            digester.part(self.hook.name().as_bytes());
        }
        for (block, direction) in &self.directions {
            digester.part(&block.to_le_bytes()).floats(direction);
        }
        digester.finish()
    }

    /// Whether it can be used on a model: width, blocks, weights.
    pub fn check_fits(&self, model: &ModelShape, param: &str) -> Result<(), SteeringError> {
        if self.width() != model.d_model as usize {
            let message = format!(
                "vector `{}` has directions of {} values; the loaded model's width is {}",
                self.name,
                self.width(),
                model.d_model
            );
            return Err(SteeringError::unfit(param, message));
        }
        if let Some(block) = self.blocks().next_back().filter(|&block| block >= model.n_blocks) {
            let message = format!(
                "vector `{}` has a direction for block {block}; the loaded model has blocks 0 to {}",
                self.name,
                model.n_blocks.saturating_sub(1)
            );
            return Err(SteeringError::unfit(param, message));
        }
        match self.provenance.weights {
            Some(weights) if weights != model.weights => Err(SteeringError::OtherModel {
                param: param.to_owned(),
                name: self.name.clone(),
                made_for: weights.short(16),
                loaded: model.weights.short(16),
            }),
            _ => Ok(()),
        }
    }
}

fn check_values(block: u32, direction: &[f32], param: &str) -> Result<(), SteeringError> {
    if let Some(index) = direction.iter().position(|value| !value.is_finite()) {
        let message =
            format!("value {index} of the direction of block {block} is {}, not finite", direction[index]);
        return Err(SteeringError::unfit(param, message));
    }
    let norm = norm(direction);
    if !norm.is_finite() {
        let message = format!("the direction of block {block} has a norm beyond the range of f32");
        return Err(SteeringError::unfit(param, message));
    }
    if norm < NORM_MIN {
        let message = format!("the direction of block {block} has zero norm ({norm:e})");
        return Err(SteeringError::unfit(param, message));
    }
    Ok(())
}

/// Euclidean norm, summed in f64 in index order.
pub fn norm(values: &[f32]) -> f32 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(directions: &[(u32, &[f32])]) -> Result<Vector, SteeringError> {
        let directions = directions.iter().map(|(block, values)| (*block, Arc::from(*values)));
        Vector::new("v", directions.collect(), "p")
    }

    #[test]
    fn bad_directions() {
        for (directions, part) in [
            (vec![], "no direction"),
            (vec![(1, &[][..])], "no direction"),
            (vec![(1, &[1.0, 2.0][..]), (2, &[1.0][..])], "block 2 has 1 values"),
            (vec![(1, &[1.0, f32::NAN][..])], "value 1 of the direction of block 1 is NaN"),
            (vec![(1, &[f32::INFINITY][..])], "not finite"),
            (vec![(1, &[0.0, 0.0][..])], "zero norm"),
            (vec![(1, &[1e-30][..])], "zero norm"),
            (vec![(1, &[1e-40, 1e-41][..])], "zero norm"),
        ] {
            let error = vector(&directions).unwrap_err();
            assert!(matches!(error, SteeringError::DoesNotFit { .. }), "{error:?}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn fitting_says_both_sides() {
        let shape = |n_blocks, d_model| ModelShape { n_blocks, d_model, weights: Digest::of(b"w") };
        let mut v = vector(&[(3, &[1.0, 2.0])]).unwrap();
        assert_eq!(v.check_fits(&shape(4, 2), "p"), Ok(()));
        let width = v.check_fits(&shape(4, 3), "p").unwrap_err().to_string();
        assert!(width.contains("directions of 2 values") && width.contains("width is 3"), "{width}");
        let blocks = v.check_fits(&shape(3, 2), "p").unwrap_err().to_string();
        assert!(blocks.contains("block 3") && blocks.contains("0 to 2"), "{blocks}");
        v.provenance.weights = Some(Digest::of(b"other"));
        assert!(matches!(v.check_fits(&shape(4, 2), "p"), Err(SteeringError::OtherModel { .. })));
    }

    #[test]
    fn digest_is_of_the_directions() {
        let a = vector(&[(3, &[1.0, 2.0])]).unwrap();
        assert_eq!(a.digest(), a.clone().named("w").digest());
        assert_ne!(a.digest(), vector(&[(4, &[1.0, 2.0])]).unwrap().digest());
        assert_ne!(a.digest(), a.scaled(|_| 2.0, "p").unwrap().digest());
        let moved = Vector { hook: Hook::Attn, ..a.clone() };
        assert_ne!(a.digest(), moved.digest());
        assert_eq!(moved.scaled(|_| 2.0, "p").unwrap().hook, Hook::Attn);
    }
}
