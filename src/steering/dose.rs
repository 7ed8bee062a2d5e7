//! Dose: the size of a change against the centred residual norm, so that numbers compare across blocks and models.
//!
//! `dose(l) = |delta_l| / median_t |h_l(t) - mean(h_l)|` at block l; over several blocks the root of the sum of squares.

use super::error::SteeringError;
use super::vector::norm;
use crate::limits;
use crate::model::{Phase, RowRule};
use std::sync::Arc;

/// The dose at which calibration starts and at which an uncalibrated vector's coefficient 1 stands, split over blocks.
pub const DEFAULT_DOSE: f32 = 0.15;

/// Median centred residual norm of neutral text after each block, first token of each text left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms {
    /// `[n_blocks]`, finite and positive.
    centred: Vec<f32>,
}

impl Norms {
    /// `None` when a norm is not finite and positive.
    pub fn new(centred: Vec<f32>) -> Option<Norms> {
        let usable = !centred.is_empty() && centred.iter().all(|norm| norm.is_finite() && *norm > 0.0);
        usable.then_some(Norms { centred })
    }

    pub fn n_blocks(&self) -> usize {
        self.centred.len()
    }

    pub fn values(&self) -> &[f32] {
        &self.centred
    }

    /// Dose of a change of size `size` at a block; infinite where the model has no such block.
    pub fn dose(&self, block: u32, size: f32) -> f32 {
        self.centred.get(block as usize).map_or(f32::INFINITY, |norm| size / norm)
    }
}

/// Dose of a change over several blocks from their doses.
pub fn over_blocks(doses: impl IntoIterator<Item = f32>) -> f32 {
    doses.into_iter().map(|dose| dose * dose).sum::<f32>().sqrt()
}

/// Where in a block an addition is made. Both places are on the residual stream, so that their sizes add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// `attn[l]`: what attention adds.
    Attn,
    /// `resid[l]`: after the block.
    #[default]
    Resid,
}

impl Hook {
    pub fn name(self) -> &'static str {
        match self {
            Hook::Attn => "attn",
            Hook::Resid => "resid",
        }
    }
}

/// One addition at one block, for the check of a plan's sum.
#[derive(Clone, Debug)]
pub struct Part {
    pub block: u32,
    pub hook: Hook,
    /// `[d_model]`, coefficient multiplied in.
    pub delta: Arc<[f32]>,
    pub rows: RowRule,
}

/// Checks a plan's parts: the summed change of the rows that get the most of it, per block and over all blocks, and the
/// sum of the parts' sizes (so that parts that cancel are no way around the limit). Returns the largest dose over blocks.
pub fn check(parts: &[Part], norms: &Norms, max_dose: f32, param: &str) -> Result<f32, SteeringError> {
    let mut largest = 0.0f32;
    let mut seen = Vec::new();
    for phase in phases(parts) {
        let active: Vec<usize> = (0..parts.len()).filter(|&i| parts[i].rows.applies(phase)).collect();
        if seen.contains(&active) {
            continue;
        }
        let dose = check_active(active.iter().map(|&i| &parts[i]), norms, max_dose, param)?;
        largest = largest.max(dose);
        seen.push(active);
    }
    Ok(largest)
}

/// One phase for every set of parts that can be in force together.
fn phases(parts: &[Part]) -> Vec<Phase> {
    let mut rows: Vec<u32> = vec![0];
    for part in parts {
        match part.rows {
            RowRule::First(n) => rows.extend([n.saturating_sub(1), n]),
            RowRule::After(n) => rows.push(n),
            RowRule::All | RowRule::Prompt | RowRule::Response => {}
        }
    }
    rows.sort_unstable();
    rows.dedup();
    std::iter::once(Phase::Prompt).chain(rows.into_iter().map(Phase::Response)).collect()
}

fn check_active<'a>(
    parts: impl Iterator<Item = &'a Part>,
    norms: &Norms,
    max_dose: f32,
    param: &str,
) -> Result<f32, SteeringError> {
    let mut summed: Vec<(u32, Vec<f32>, f32)> = Vec::new();
    for part in parts {
        let size = norms.dose(part.block, norm(&part.delta));
        match summed.iter_mut().find(|(block, ..)| *block == part.block) {
            None => summed.push((part.block, part.delta.to_vec(), size)),
            Some((_, sum, sizes)) => {
                sum.iter_mut().zip(part.delta.iter()).for_each(|(sum, value)| *sum += value);
                *sizes += size;
            }
        }
    }
    let doses: Vec<f32> = summed.iter().map(|(block, sum, _)| norms.dose(*block, norm(sum))).collect();
    for ((block, ..), dose) in summed.iter().zip(&doses) {
        within(*dose, max_dose, || format!("at block {block}"), param)?;
    }
    let total = over_blocks(doses);
    within(total, max_dose, || "over all blocks".to_owned(), param)?;
    let parts_max = max_dose * limits::DOSE_PARTS_FACTOR;
    let parts_total = over_blocks(summed.iter().map(|(_, _, sizes)| *sizes));
    within(parts_total, parts_max, || "as the sum of the parts' sizes".to_owned(), param)?;
    Ok(total)
}

/// Not-a-number counts as above.
fn within(dose: f32, max: f32, place: impl Fn() -> String, param: &str) -> Result<(), SteeringError> {
    if dose <= max {
        return Ok(());
    }
    Err(SteeringError::DoseExceeded { param: param.to_owned(), dose, max, place: place() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(block: u32, delta: [f32; 2], rows: RowRule) -> Part {
        Part { block, hook: Hook::Resid, delta: Arc::from(delta), rows }
    }

    fn norms() -> Norms {
        Norms::new(vec![10.0, 10.0, 20.0]).unwrap()
    }

    #[test]
    fn sums_and_rows() {
        use RowRule::{After, All, First, Prompt, Response};
        // parts, dose of the sum (None: refused), where it is refused
        for (parts, dose, place) in [
            (vec![], Some(0.0), ""),
            (vec![part(0, [3.0, 4.0], All)], Some(0.5), ""),
            (vec![part(2, [3.0, 4.0], All)], Some(0.25), ""),
            (vec![part(0, [3.0, 4.0], All), part(0, [3.0, 4.0], All)], Some(1.0), ""),
            (vec![part(0, [6.0, 0.0], All), part(1, [0.0, 8.0], All)], Some(1.0), ""),
            (vec![part(0, [6.0, 0.0], Prompt), part(0, [8.0, 0.0], Response)], Some(0.8), ""),
            (vec![part(0, [6.0, 0.0], First(3)), part(0, [8.0, 0.0], After(3))], Some(0.8), ""),
            (vec![part(0, [10.1, 0.0], All)], None, "at block 0"),
            (vec![part(0, [6.0, 0.0], First(3)), part(0, [8.0, 0.0], After(2))], None, "at block 0"),
            (vec![part(0, [9.0, 0.0], All), part(1, [9.0, 0.0], All)], None, "over all blocks"),
            (vec![part(0, [100.0, 0.0], All), part(0, [-100.0, 0.0], All)], None, "sum of the parts"),
            (vec![part(0, [15.0, 0.0], All), part(0, [-15.0, 0.0], All)], Some(0.0), ""),
            (vec![part(0, [f32::NAN, 0.0], All)], None, "at block 0"),
        ] {
            let result = check(&parts, &norms(), 1.0, "steering");
            match (dose, result) {
                (Some(dose), Ok(found)) => assert!((found - dose).abs() < 1e-6, "{parts:?}: {found}"),
                (None, Err(SteeringError::DoseExceeded { place: found, .. })) => {
                    assert!(found.contains(place), "{parts:?}: {found}");
                }
                (_, other) => panic!("{parts:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn eight_small_parts_are_one_large_one() {
        let parts = vec![part(1, [9.0, 0.0], RowRule::All); 8];
        assert!(matches!(check(&parts, &norms(), 1.0, "p"), Err(SteeringError::DoseExceeded { .. })));
    }

    #[test]
    fn norms_are_positive() {
        assert_eq!(Norms::new(vec![1.0, 0.0]), None);
        assert_eq!(Norms::new(vec![1.0, f32::NAN]), None);
        assert_eq!(Norms::new(vec![]), None);
    }
}
