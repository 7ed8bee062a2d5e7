//! Whether traits do what they say on the loaded model: held-out log-odds, perplexity, controls, samples.

use super::calibration;
use super::dose::over_blocks;
use super::error::SteeringError;
use super::extraction::{self, Differences};
use super::measure::{Encoded, Meter};
use super::norms;
use super::plan::edits_for;
use super::traits::{Contrast, Trait};
use super::vector::{Calibration, Vector, norm};
use crate::engine::Engine;
use crate::model::Edits;
use crate::shipped;
use crate::statistics::{mean, t_test};
use crate::text::Text;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// Prompts of the sample answers.
const SAMPLE_PROMPTS: [&str; 2] = ["What is a good way to spend a rainy afternoon?", "How do I cook rice?"];
/// Coefficient and length of the sample answers.
const SAMPLE_COEFFICIENT: f32 = 2.0;
const SAMPLE_TOKENS: u32 = 40;
/// A trait is right when the log-odds move its way at this p or less, and perplexity rises by less than this.
const P_MAX: f64 = 0.01;
const PERPLEXITY_RISE_MAX: f64 = 0.10;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Times that each held-out wording is used, with another prompt and topic each.
    pub rounds: usize,
    pub samples: bool,
}

/// All traits of a model.
#[derive(Clone, Debug, Serialize)]
pub struct TraitsReport {
    /// First hex digits of the weights' digest, and the arithmetic in use.
    pub weights: String,
    pub arithmetic: String,
    /// Perplexity of the held-out neutral text without steering.
    pub perplexity: f64,
    pub traits: Vec<TraitReport>,
}

#[derive(Clone, Debug, Serialize)]
pub struct TraitReport {
    pub name: String,
    pub opposite: String,
    /// The pole that stands for harm, in a negative trait.
    pub harmful: Option<String>,
    pub blocks: Vec<u32>,
    /// Dose of a coefficient of 1 over all blocks (root of the sum of squares), and the sum over blocks.
    pub dose: f32,
    pub dose_sum: f32,
    pub calibration: Option<Calibration>,
    pub items: usize,
    pub wordings: usize,
    /// Coefficients 1 and -1 of the vector.
    pub plus: Effect,
    pub minus: Effect,
    /// The same for the sign-shuffled mean difference of equal dose at each block.
    pub control_plus: Effect,
    pub control_minus: Effect,
    pub samples: Vec<Sample>,
}

/// What one coefficient does.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Effect {
    /// Shift of the held-out log-odds per byte towards the wanted pole, thousandths of a nat.
    pub shift: f64,
    /// Items whose log-odds moved the wanted way.
    pub moved: usize,
    /// Paired t test over items, and over the means of the distinct wordings; two-sided.
    pub p_items: f64,
    pub p_wordings: f64,
    /// Rise of the perplexity of held-out neutral text, as a share.
    pub perplexity_rise: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub prompt: String,
    pub plus: String,
    pub plain: String,
    pub minus: String,
}

/// Measures the named traits (all, if none is named) afresh: nothing stored is used or changed.
pub fn check_traits(
    engine: Engine,
    text: Arc<Text>,
    names: &[String],
    options: CheckOptions,
    progress: &dyn Fn(&str),
) -> Result<TraitsReport, SteeringError> {
    let meter = Meter { engine, text };
    let chosen = chosen(names)?;
    progress("measuring the model's norms");
    let norms = norms::measure(&meter)?;
    let neutral = shipped::file("neutral_held_out.txt").ok_or_else(|| {
        SteeringError::Internal("`models/neutral_held_out.txt` is not in this build".into())
    })?;
    let pieces = meter.pieces(neutral, usize::MAX)?;
    let plain_nll = mean(&meter.nll(&pieces, &Arc::default())?);
    let bench = Bench { meter: &meter, pieces, plain_nll, options };
    let mut traits = Vec::new();
    for one in &chosen {
        let training = one.training();
        let report = |message: &str| progress(&format!("{}: {message}", one.name));
        let differences = Differences::measure(&meter, &training, &|_, message| {
            report(message);
            Ok(())
        })?;
        report("calibrating");
        let vector = extraction::calibrated(&meter, &one.name, &training, &differences, &norms)?;
        let shuffled = differences.sign_shuffled(&one.name, &norms, 1)?;
        let control = shuffled.scaled(|block| size(&vector, block) / size(&shuffled, block), "control")?;
        report("measuring held-out contrasts");
        let mut report = bench.report(one, &vector, &control)?;
        let doses = || vector.blocks().map(|block| norms.dose(block, size(&vector, block)));
        (report.dose, report.dose_sum) = (over_blocks(doses()), doses().sum());
        traits.push(report);
    }
    let info = meter.engine.info();
    Ok(TraitsReport {
        weights: info.weights_digest.short(16),
        arithmetic: info.arithmetic.clone(),
        perplexity: plain_nll.exp(),
        traits,
    })
}

fn chosen(names: &[String]) -> Result<Vec<Trait>, SteeringError> {
    let all = Trait::shipped()?;
    if let Some(name) = names.iter().find(|name| all.iter().all(|one| one.name != **name)) {
        let nearest = super::names::nearest(name, all.iter().map(|one| one.name.as_str()));
        return Err(SteeringError::Unknown { param: "name".into(), name: name.clone(), nearest });
    }
    Ok(all.into_iter().filter(|one| names.is_empty() || names.contains(&one.name)).collect())
}

fn size(vector: &Vector, block: u32) -> f32 {
    vector.directions().get(&block).map_or(f32::NAN, |direction| norm(direction))
}

struct Bench<'a> {
    meter: &'a Meter,
    pieces: Vec<Vec<u32>>,
    plain_nll: f64,
    options: CheckOptions,
}

/// Held-out items: the rounds one after the other, the same wordings in each.
struct Items {
    encoded: Vec<Encoded>,
    /// UTF-8 bytes of either reply.
    bytes: Vec<(f64, f64)>,
    wordings: usize,
    /// Log-odds per byte without steering.
    plain: Vec<f64>,
}

impl Bench<'_> {
    fn report(&self, one: &Trait, vector: &Vector, control: &Vector) -> Result<TraitReport, SteeringError> {
        let items = self.items(one)?;
        let effect = |vector: &Vector, sign: f32| self.effect(&items, vector, sign);
        Ok(TraitReport {
            name: one.name.clone(),
            opposite: one.opposite.clone(),
            harmful: one.harmful.clone(),
            blocks: vector.blocks().collect(),
            dose: 0.0,
            dose_sum: 0.0,
            calibration: vector.calibration,
            items: items.plain.len(),
            wordings: items.wordings,
            plus: effect(vector, 1.0)?,
            minus: effect(vector, -1.0)?,
            control_plus: effect(control, 1.0)?,
            control_minus: effect(control, -1.0)?,
            samples: if self.options.samples && one.harmful.is_none() {
                self.samples(vector)?
            } else {
                Vec::new()
            },
        })
    }

    fn items(&self, one: &Trait) -> Result<Items, SteeringError> {
        let contrasts: Vec<Contrast> =
            (0..self.options.rounds).flat_map(|round| one.held_out_round(round)).collect();
        let encoded =
            contrasts.iter().map(|contrast| self.meter.encode(contrast)).collect::<Result<Vec<_>, _>>()?;
        let bytes = contrasts.iter().map(|item| (item.positive.len() as f64, item.negative.len() as f64));
        let mut items = Items {
            encoded,
            bytes: bytes.collect(),
            wordings: contrasts.len() / self.options.rounds.max(1),
            plain: Vec::new(),
        };
        items.plain = self.odds(&items, &Arc::default())?;
        Ok(items)
    }

    /// Log-odds per byte of each item: how much likelier a byte of the positive reply is, nat.
    fn odds(&self, items: &Items, edits: &Arc<Edits>) -> Result<Vec<f64>, SteeringError> {
        let scores = self.meter.score(&items.encoded, edits)?;
        let odds = scores.iter().zip(&items.bytes);
        Ok(odds.map(|((positive, negative), (a, b))| positive / a - negative / b).collect())
    }

    fn effect(&self, items: &Items, vector: &Vector, sign: f32) -> Result<Effect, SteeringError> {
        let edits = Arc::new(edits_for(vector, sign, self.meter.n_blocks()));
        let steered = self.odds(items, &edits)?;
        let shifts: Vec<f64> = steered
            .iter()
            .zip(&items.plain)
            .map(|(steered, plain)| f64::from(sign) * (steered - plain))
            .collect();
        let nll = mean(&self.meter.nll(&self.pieces, &edits)?);
        Ok(effect_of(&shifts, items.wordings, nll - self.plain_nll))
    }

    fn samples(&self, vector: &Vector) -> Result<Vec<Sample>, SteeringError> {
        let prompts = SAMPLE_PROMPTS.map(str::to_owned);
        let answers = |coefficient: f32| {
            let edits = Arc::new(edits_for(vector, coefficient, self.meter.n_blocks()));
            self.meter.greedy(&prompts, &edits, SAMPLE_TOKENS)
        };
        let (plus, plain, minus) =
            (answers(SAMPLE_COEFFICIENT)?, answers(0.0)?, answers(-SAMPLE_COEFFICIENT)?);
        let samples = prompts.into_iter().zip(plus).zip(plain.into_iter().zip(minus));
        Ok(samples.map(|((prompt, plus), (plain, minus))| Sample { prompt, plus, plain, minus }).collect())
    }
}

/// `shifts` are the items', round after round, in nat per byte; `nll_rise` in nat per token.
fn effect_of(shifts: &[f64], wordings: usize, nll_rise: f64) -> Effect {
    let by_wording: Vec<f64> = (0..wordings)
        .map(|i| mean(&shifts.iter().copied().skip(i).step_by(wordings).collect::<Vec<_>>()))
        .collect();
    Effect {
        shift: 1000.0 * mean(shifts),
        moved: shifts.iter().filter(|shift| **shift > 0.0).count(),
        p_items: t_test(shifts).p,
        p_wordings: t_test(&by_wording).p,
        perplexity_rise: nll_rise.exp() - 1.0,
    }
}

impl Effect {
    /// Moves the wanted way at p < 0.01, over items and over wordings, and perplexity stays under +10 %.
    pub fn is_right(&self) -> bool {
        self.shift > 0.0
            && self.p_items < P_MAX
            && self.p_wordings < P_MAX
            && self.perplexity_rise < PERPLEXITY_RISE_MAX
    }
}

impl TraitReport {
    /// Right at both signs.
    pub fn is_right(&self) -> bool {
        self.plus.is_right() && self.minus.is_right()
    }
}

impl fmt::Display for TraitsReport {
    /// A table, one line per trait and coefficient, then the samples.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = calibration::TARGET_RISE;
        writeln!(
            f,
            "weights {}  {}  held-out perplexity {:.2}",
            self.weights, self.arithmetic, self.perplexity
        )?;
        writeln!(
            f,
            "coefficient 1 is calibrated to a rise of {target} nat per token on other neutral text; dose: over all"
        )?;
        writeln!(
            f,
            "blocks (root of the sum of squares / sum); shift: log-odds, thousandths of a nat per byte"
        )?;
        writeln!(
            f,
            "{:<12} {:>4} {:>11} {:>7} {:>7} {:>9} {:>9} {:>7}   {:>7} {:>9} {:>7}",
            "trait", "c", "dose", "shift", "moved", "p items", "p words", "ppl", "control", "p items", "ppl"
        )?;
        for one in &self.traits {
            let rows = [
                (1, &one.name, one.plus, one.control_plus),
                (-1, &one.opposite, one.minus, one.control_minus),
            ];
            for (coefficient, pole, effect, control) in rows {
                writeln!(
                    f,
                    "{pole:<12} {coefficient:>4} {:>11} {:>7.1} {:>7} {:>9.1e} {:>9.1e} {:>6.1}%   {:>7.1} {:>9.1e} {:>6.1}%{}",
                    format!("{:.3}/{:.3}", one.dose, one.dose_sum),
                    effect.shift,
                    format!("{}/{}", effect.moved, one.items),
                    effect.p_items,
                    effect.p_wordings,
                    100.0 * effect.perplexity_rise,
                    control.shift,
                    control.p_items,
                    100.0 * control.perplexity_rise,
                    if effect.is_right() { "" } else { "  NOT RIGHT" }
                )?;
            }
        }
        let right = self.traits.iter().filter(|one| one.is_right()).count();
        writeln!(
            f,
            "{right} of {} traits right at both signs (p < 0.01 over items and wordings, perplexity < +10 %)",
            self.traits.len()
        )?;
        for one in &self.traits {
            if let Some(pole) = &one.harmful {
                writeln!(f, "{}: a negative trait, `{pole}` stands for harm; no samples", one.name)?;
            }
        }
        for one in &self.traits {
            for sample in &one.samples {
                writeln!(f, "\n{}/{}: {}", one.name, one.opposite, sample.prompt)?;
                writeln!(f, "   {:+}  {:?}", SAMPLE_COEFFICIENT, sample.plus)?;
                writeln!(f, "    0  {:?}", sample.plain)?;
                writeln!(f, "   {:+}  {:?}", -SAMPLE_COEFFICIENT, sample.minus)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects() {
        // Two rounds of three wordings.
        let effect = effect_of(&[0.1, 0.2, 0.3, 0.12, 0.18, 0.3], 3, 1.05f64.ln());
        assert!((effect.shift - 200.0).abs() < 1e-9);
        assert_eq!(effect.moved, 6);
        assert!((effect.perplexity_rise - 0.05).abs() < 1e-12);
        let wordings = t_test(&[0.11, 0.19, 0.3]);
        assert!((effect.p_wordings - wordings.p).abs() < 1e-12);
        assert!(effect.p_items < effect.p_wordings);
        assert!(!effect.is_right(), "three wordings are not enough: p {}", effect.p_wordings);
    }

    #[test]
    fn unknown_traits_are_named() {
        let error = chosen(&["wram".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("warm"), "{error}");
    }
}
