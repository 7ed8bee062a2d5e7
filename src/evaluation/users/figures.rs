//! Errors, likelihoods, correlations and differences of rows, with intervals over people.

use super::Respondent;
use super::predict::{Panel, Row};
use crate::statistics::{Interval, bootstrap, correlation, mean};
use serde_json::{Value, json};

/// A row's figures over the test people.
pub struct Figures {
    pub name: String,
    /// Mean over people of the mean absolute error.
    pub error: f64,
    pub error_interval: Interval,
    /// Mean over people of the negative log-likelihood of the true option, in nats.
    pub likelihood: f64,
    pub likelihood_interval: Interval,
    /// Correlation of deviations from the item's mean over the test people; NaN where predictions tell nobody apart.
    pub r: f64,
    pub r_interval: Interval,
    /// Answers that the figures rest on.
    pub answers: usize,
}

/// One row's mean absolute error minus another's, over the answers that both predict.
pub struct Difference {
    pub own: String,
    pub other: String,
    pub value: f64,
    pub interval: Interval,
}

impl Figures {
    pub fn json(&self) -> Value {
        json!({
            "row": self.name, "answers": self.answers,
            "mean_absolute_error": self.error, "mean_absolute_error_interval": pair(self.error_interval),
            "negative_log_likelihood": self.likelihood,
            "negative_log_likelihood_interval": pair(self.likelihood_interval),
            "r": self.r, "r_interval": pair(self.r_interval),
        })
    }
}

impl Difference {
    pub fn json(&self) -> Value {
        json!({
            "own": self.own, "other": self.other, "difference": self.value, "interval": pair(self.interval),
        })
    }
}

fn pair(interval: Interval) -> Value {
    json!([interval.low, interval.high])
}

/// Mean and interval over people of one number each; people without one are left out.
fn over_people(values: &[Option<f64>], rounds: usize, seed: u64) -> (f64, Interval) {
    let known: Vec<f64> = values.iter().copied().flatten().collect();
    let of = |drawn: &[usize]| drawn.iter().map(|i| known[*i]).sum::<f64>() / drawn.len() as f64;
    match known.is_empty() {
        true => (f64::NAN, Interval { low: f64::NAN, high: f64::NAN }),
        false => (mean(&known), bootstrap(known.len(), rounds, seed, of)),
    }
}

/// Mean of `measure(prediction, answer)` over a person's predicted answers.
fn of_person(
    person: &Respondent<'_>,
    predictions: &[Vec<f64>],
    measure: impl Fn(f64, f64) -> f64,
) -> Option<f64> {
    let mut values = Vec::new();
    for (answer, predictions) in person.answers.iter().zip(predictions) {
        if let (Some(answer), false) = (answer, predictions.is_empty()) {
            values.push(mean(&predictions.iter().map(|one| measure(*one, *answer)).collect::<Vec<_>>()));
        }
    }
    (!values.is_empty()).then(|| mean(&values))
}

pub fn of(panel: &Panel<'_>, row: &Row, rounds: usize, seed: u64) -> Figures {
    let each = |measure: &dyn Fn(f64, f64) -> f64| -> Vec<Option<f64>> {
        let people = panel.test.iter().zip(&row.test);
        people.map(|(person, predictions)| of_person(person, predictions, measure)).collect()
    };
    let (error, error_interval) =
        over_people(&each(&|prediction, answer| (prediction - answer).abs()), rounds, seed);
    let sigma = best_sigma(panel, row);
    let surprise = |prediction: f64, answer: f64| -probability(prediction, sigma, answer, panel.range).ln();
    let (likelihood, likelihood_interval) = over_people(&each(&surprise), rounds, seed);
    let (r, r_interval) = agreement(panel, row, rounds, seed);
    let answers = (panel.test.iter().zip(&row.test))
        .map(|(person, predictions)| {
            let both = person.answers.iter().zip(predictions);
            both.filter(|(answer, predictions)| answer.is_some() && !predictions.is_empty()).count()
        })
        .sum();
    Figures {
        name: row.name.clone(),
        error,
        error_interval,
        likelihood,
        likelihood_interval,
        r,
        r_interval,
        answers,
    }
}

pub fn difference(panel: &Panel<'_>, own: &Row, other: &Row, rounds: usize, seed: u64) -> Difference {
    let each: Vec<Option<f64>> = (0..panel.test.len())
        .map(|u| {
            let common = |row: &Row, with: &Row| -> Vec<Vec<f64>> {
                let kept = row.test[u].iter().zip(&with.test[u]);
                kept.map(|(own, with)| if with.is_empty() { Vec::new() } else { own.clone() }).collect()
            };
            let person = &panel.test[u];
            let error = |prediction: f64, answer: f64| (prediction - answer).abs();
            let mine = of_person(person, &common(own, other), error)?;
            Some(mine - of_person(person, &common(other, own), error)?)
        })
        .collect();
    let (value, interval) = over_people(&each, rounds, seed);
    Difference { own: own.name.clone(), other: other.name.clone(), value, interval }
}

/// Correlation over all answers of predictions and answers, both minus the item's mean over the test people.
fn agreement(panel: &Panel<'_>, row: &Row, rounds: usize, seed: u64) -> (f64, Interval) {
    let people = panel.test.len();
    let mut predicted = vec![Vec::new(); people];
    let mut answered = vec![Vec::new(); people];
    for i in 0..panel.questions.len() {
        let known: Vec<usize> = (0..people)
            .filter(|u| panel.test[*u].answers[i].is_some() && !row.test[*u][i].is_empty())
            .collect();
        let answer = |u: usize| panel.test[u].answers[i].unwrap_or(f64::NAN);
        let answer_mean = mean(&known.iter().map(|u| answer(*u)).collect::<Vec<_>>());
        let prediction_mean =
            mean(&known.iter().flat_map(|u| row.test[*u][i].iter().copied()).collect::<Vec<_>>());
        for u in known {
            for prediction in &row.test[u][i] {
                predicted[u].push(prediction - prediction_mean);
                answered[u].push(answer(u) - answer_mean);
            }
        }
    }
    let of = |drawn: &[usize]| {
        let gather =
            |values: &[Vec<f64>]| drawn.iter().flat_map(|u| values[*u].iter().copied()).collect::<Vec<_>>();
        correlation(&gather(&predicted), &gather(&answered))
    };
    let spread: f64 = predicted.iter().flatten().map(|value| value * value).sum();
    if spread < 1e-12 {
        return (f64::NAN, Interval { low: f64::NAN, high: f64::NAN });
    }
    (of(&(0..people).collect::<Vec<_>>()), bootstrap(people, rounds, seed, of))
}

/// The spread of answers around predictions that makes the stop people's answers most probable.
fn best_sigma(panel: &Panel<'_>, row: &Row) -> f64 {
    let total = |sigma: f64| -> f64 {
        let people = panel.stop.iter().zip(&row.stop);
        let each = people.filter_map(|(person, predictions)| {
            of_person(person, predictions, |one, answer| -probability(one, sigma, answer, panel.range).ln())
        });
        each.sum()
    };
    let grid = (0..40).map(|i| 0.4 * 1.05f64.powi(i));
    grid.map(|sigma| (total(sigma), sigma)).min_by(|x, y| x.0.total_cmp(&y.0)).map_or(1.0, |best| best.1)
}

/// Probability of the option `answer` where answers are whole numbers of a range and spread normally around a prediction:
/// the mass within half a step; the ends of the range take the tails.
fn probability(prediction: f64, sigma: f64, answer: f64, range: (f64, f64)) -> f64 {
    let below =
        |edge: f64| 0.5 * error_function_complement((prediction - edge) / (sigma * std::f64::consts::SQRT_2));
    let upper = if answer >= range.1 { 1.0 } else { below(answer + 0.5) };
    let lower = if answer <= range.0 { 0.0 } else { below(answer - 0.5) };
    (upper - lower).max(1e-12)
}

/// 1 - erf(x) to 1.5e-7 (Abramowitz and Stegun 7.1.26).
fn error_function_complement(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let poly = t
        * (0.254_829_592
            + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let tail = poly * (-x * x).exp();
    if x >= 0.0 { tail } else { 2.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_share_all_probability() {
        for (prediction, sigma) in [(3.0, 1.0), (1.0, 0.4), (4.7, 2.0)] {
            let total: f64 =
                (1..=5).map(|answer| probability(prediction, sigma, f64::from(answer), (1.0, 5.0))).sum();
            assert!((total - 1.0).abs() < 1e-9, "{total}");
        }
        // Within half a standard deviation: .3829.
        assert!((probability(3.0, 1.0, 3.0, (1.0, 5.0)) - 0.382_925).abs() < 1e-5);
        // Above one and a half: .0668.
        assert!((probability(3.0, 1.0, 5.0, (1.0, 5.0)) - 0.066_807).abs() < 1e-5);
    }
}
