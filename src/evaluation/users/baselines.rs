//! What can be said of a person's answers without a language model.

use super::Respondent;
use super::predict::{Panel, Row};
use crate::algebra::{Square, dot};
use crate::users::people::{HistoryItem, Question};
use std::collections::BTreeMap;

/// Strengths of the ridge that are tried on the stop people.
const RIDGES: [f64; 7] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0];

/// Population mean plus b times the person's mean deviation on the history items of the question's group, each turned to
/// the group's direction; `None` where the data name no groups. b is fitted on the stop people.
pub fn own_group(panel: &Panel<'_>) -> Option<Row> {
    let means = history_means(panel);
    let deviation = |person: &Respondent<'_>, question: &Question| -> Option<f64> {
        let group = question.group.as_deref()?;
        let own = person.history().iter().filter(|item| item.group.as_deref() == Some(group));
        let own = own.filter(|item| item.item.as_deref() != Some(question.item.as_str()));
        let turned: Vec<f64> = own
            .filter_map(|item| {
                let mean = means.get(item.item.as_deref()?)?;
                Some(f64::from(item.sign) * (f64::from(item.weight) - mean))
            })
            .collect();
        let mean = (!turned.is_empty()).then(|| crate::statistics::mean(&turned))?;
        Some(f64::from(question.sign) * mean)
    };
    let all = |people: &[Respondent<'_>]| -> Vec<Vec<f64>> {
        let one = |person: &Respondent<'_>| -> Vec<f64> {
            let questions = panel.questions.iter();
            questions.map(|question| deviation(person, question).unwrap_or(f64::NAN)).collect()
        };
        people.iter().map(one).collect()
    };
    let (stop, test) = (all(&panel.stop), all(&panel.test));
    let (mut xx, mut xy) = (0.0, 0.0);
    for (person, values) in panel.stop.iter().zip(&stop) {
        for (i, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            if let Some(answer) = person.answers[i] {
                xx += value * value;
                xy += value * (answer - panel.population[i]);
            }
        }
    }
    if xx <= 0.0 {
        return None;
    }
    let row = |values: Vec<Vec<f64>>| predictions(panel, values, xy / xx);
    Some(Row { name: "own group's mean (no language model)".into(), stop: row(stop), test: row(test) })
}

/// Population mean plus ridge regression from the weights of all history items to the answers' deviations, learnt on the
/// training people; its strength is chosen on the stop people.
pub fn ridge(panel: &Panel<'_>) -> Row {
    let means = history_means(panel);
    let items: Vec<&str> = means.keys().copied().collect();
    let features = |person: &Respondent<'_>| -> Vec<f64> {
        let mut row = vec![0.0; items.len()];
        for item in person.history() {
            if let Some(at) = item.item.as_deref().and_then(|item| items.binary_search(&item).ok()) {
                row[at] = f64::from(item.weight) - means[items[at]];
            }
        }
        row
    };
    let table = |people: &[Respondent<'_>]| people.iter().map(features).collect::<Vec<_>>();
    let (train, stop, test) = (table(&panel.train), table(&panel.stop), table(&panel.test));
    // In the dual: one weight per training person, for all questions at once.
    let kernel = Square::of_products(&train.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let deviations: Vec<Vec<f64>> = (panel.train.iter())
        .map(|person| {
            let answers = person.answers.iter().zip(&panel.population);
            answers.map(|(answer, mean)| answer.map_or(0.0, |answer| answer - mean)).collect()
        })
        .collect();
    let predict = |weights: &[Vec<f64>], people: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let one = |x: &Vec<f64>| -> Vec<f64> {
            let near: Vec<f64> = train.iter().map(|y| dot(x, y)).collect();
            (0..panel.questions.len())
                .map(|i| near.iter().zip(weights).map(|(near, weights)| near * weights[i]).sum())
                .collect()
        };
        people.iter().map(one).collect()
    };
    let error = |values: &[Vec<f64>]| -> f64 {
        let mut sum = 0.0;
        for (person, values) in panel.stop.iter().zip(values) {
            for (i, answer) in person.answers.iter().enumerate() {
                sum += answer.map_or(0.0, |answer| (answer - panel.population[i] - values[i]).abs());
            }
        }
        sum
    };
    // Weights are in units of answers over a hidden scale; strengths are relative to the mean of the kernel's diagonal.
    let diagonal = (0..train.len()).map(|i| kernel.at(i, i)).sum::<f64>() / train.len().max(1) as f64;
    let best = (RIDGES.iter())
        .filter_map(|strength| {
            let weights = kernel.plus_diagonal(strength * diagonal / 100.0).solve_rows(&deviations)?;
            Some((error(&predict(&weights, &stop)), weights))
        })
        .min_by(|x, y| x.0.total_cmp(&y.0));
    let weights = best.map_or_else(|| vec![vec![0.0; panel.questions.len()]; train.len()], |best| best.1);
    let row = |people: &[Vec<f64>]| predictions(panel, predict(&weights, people), 1.0);
    Row {
        name: "ridge on the history's answers (no language model)".into(),
        stop: row(&stop),
        test: row(&test),
    }
}

/// Mean weight of each history item over the training people.
fn history_means<'p>(panel: &'p Panel<'_>) -> BTreeMap<&'p str, f64> {
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    let items = panel.train.iter().flat_map(|person| person.history());
    for HistoryItem { item, weight, .. } in items {
        if let Some(item) = item {
            let (sum, n) = sums.entry(item).or_default();
            (*sum, *n) = (*sum + f64::from(*weight), *n + 1.0);
        }
    }
    sums.into_iter().map(|(item, (sum, n))| (item, sum / n)).collect()
}

/// Population mean plus `factor` times a deviation; the population mean alone where there is none.
fn predictions(panel: &Panel<'_>, deviations: Vec<Vec<f64>>, factor: f64) -> Vec<Vec<Vec<f64>>> {
    let one = |(i, value): (usize, f64)| {
        let change = if value.is_finite() { factor * value } else { 0.0 };
        vec![panel.clamp(panel.population[i] + change)]
    };
    deviations.into_iter().map(|person| person.into_iter().enumerate().map(one).collect()).collect()
}
