//! What can be said of a person's test answers without a language model: constants, the population, the person's own means.

use super::data::Data;
use super::rows::{Kind, Row};
use crate::algebra::{Square, dot};
use crate::alignment::{Answers, Domain};
use crate::statistics::{Draws, mean, median};

/// How much of a person's deviation in a domain carries over to its other items; of the study that this protocol is from.
const DEVIATION_KEPT: f64 = 0.85;
/// Strength of the ridge from known to test answers, in squared steps of the scale.
const RIDGE_STRENGTH: f64 = 100.0;

/// All baselines for people 1 to `people`, in the order in which they are reported. Own values come from a person's known
/// items, population values from the people who are not reported on.
pub fn all(data: &Data, people: usize, seed: u64) -> Vec<Row> {
    let inventory = &data.inventory;
    let (known, test) = (inventory.known(), inventory.unseen());
    let population: Vec<f64> = (0..inventory.items.len()).map(|i| mean(&given(data.others(), i))).collect();
    let reported = || data.people[..people].iter();
    let row = |name: &str, of: &dyn Fn(usize, &Answers) -> Vec<f64>| Row {
        name: name.into(),
        kind: Kind::Baseline,
        predictions: (1..).zip(reported()).map(|(number, answers)| Some(of(number, answers))).collect(),
    };
    let own_means = |answers: &Answers| -> [f64; 5] {
        Domain::ALL.map(|domain| {
            let own = known.iter().filter(|&&i| inventory.items[i].domain == domain);
            mean(
                &own.filter_map(|&i| answers.get(i).map(|raw| inventory.items[i].keyed(raw)))
                    .collect::<Vec<_>>(),
            )
        })
    };
    // Means over people of their own domain means would weigh people equally; the study weighs answers equally.
    let domain_means = Domain::ALL.map(|domain| {
        let own = known.iter().filter(|&&i| inventory.items[i].domain == domain);
        let keyed = |&i: &usize| {
            let given = given(data.others(), i);
            given.into_iter().map(move |raw| inventory.items[i].keyed(raw))
        };
        mean(&own.flat_map(keyed).collect::<Vec<_>>())
    });
    let ceiling = Ceiling::new(data, &population);
    vec![
        row("constant 3", &|_, _| vec![3.0; test.len()]),
        row("own mean answer", &|_, answers| {
            let own = known.iter().filter_map(|&i| answers.get(i)).collect::<Vec<_>>();
            vec![mean(&own); test.len()]
        }),
        row("uniform random", &|number, _| {
            let mut draws = Draws::new(seed, "uniform answers", number as u64);
            test.iter().map(|_| 1.0 + draws.below(5) as f64).collect()
        }),
        row("population mean", &|_, _| test.iter().map(|&i| population[i]).collect()),
        row("population median", &|_, _| {
            let middle = |&i: &usize| {
                let given: Vec<f32> = given(data.others(), i).into_iter().map(|raw| raw as f32).collect();
                f64::from(median(&given))
            };
            test.iter().map(middle).collect()
        }),
        row("own domain means", &|_, answers| {
            let own = own_means(answers);
            test.iter().map(|&i| inventory.items[i].keyed(own[inventory.items[i].domain.index()])).collect()
        }),
        row("population mean and own domain deviation", &|_, answers| {
            let own = own_means(answers);
            let one = |&i: &usize| {
                let (item, d) = (&inventory.items[i], inventory.items[i].domain.index());
                item.keyed(item.keyed(population[i]) + DEVIATION_KEPT * (own[d] - domain_means[d]))
            };
            test.iter().map(one).collect()
        }),
        row("ridge of answers on answers (ceiling)", &|_, answers| ceiling.predict(answers)),
    ]
}

/// Answers of people to one item, those that are missing left out.
fn given(people: &[Answers], item: usize) -> Vec<f64> {
    people.iter().filter_map(|answers| answers.get(item)).collect()
}

/// Ridge regression from deviations of the known answers to those of the test answers, learnt on the other people; in the
/// dual, one weight a person. Missing answers deviate by nothing.
struct Ceiling<'a> {
    population: &'a [f64],
    known: Vec<usize>,
    test: Vec<usize>,
    /// Deviations of each other person at the known items.
    seen: Vec<Vec<f64>>,
    /// (K + strength I)^-1 times the deviations at the test items: `[others, test]`.
    weights: Vec<Vec<f64>>,
}

impl<'a> Ceiling<'a> {
    fn new(data: &Data, population: &'a [f64]) -> Ceiling<'a> {
        let (known, test) = (data.inventory.known(), data.inventory.unseen());
        let table = |items: &[usize]| -> Vec<Vec<f64>> {
            data.others().iter().map(|answers| deviations(answers, items, population)).collect()
        };
        let (seen, unseen) = (table(&known), table(&test));
        let kernel = Square::of_products(&seen.iter().map(Vec::as_slice).collect::<Vec<_>>());
        // A kernel plus a positive strength always has an inverse.
        let weights = kernel.plus_diagonal(RIDGE_STRENGTH).solve_rows(&unseen).unwrap_or_default();
        Ceiling { population, known, test, seen, weights }
    }

    fn predict(&self, answers: &Answers) -> Vec<f64> {
        let own = deviations(answers, &self.known, self.population);
        let near: Vec<f64> = self.seen.iter().map(|other| dot(other, &own)).collect();
        let one = |(t, &i): (usize, &usize)| {
            self.population[i]
                + near.iter().zip(&self.weights).map(|(near, weights)| near * weights[t]).sum::<f64>()
        };
        self.test.iter().enumerate().map(one).collect()
    }
}

fn deviations(answers: &Answers, items: &[usize], population: &[f64]) -> Vec<f64> {
    items.iter().map(|&i| answers.get(i).map_or(0.0, |raw| raw - population[i])).collect()
}

#[cfg(test)]
mod tests {
    use super::super::data::tests::invented;
    use super::super::rows::{Form, person_errors};
    use super::*;

    #[test]
    fn what_each_baseline_says() {
        let data = invented();
        let rows = all(&data, 6, 1);
        let row = |name: &str| rows.iter().find(|row| row.name == name).expect("it exists");
        let of = |name: &str, person: usize| row(name).predictions[person].clone().expect("every person");
        let test = data.inventory.unseen();
        assert!(rows.iter().all(|row| row.predictions.len() == 6));
        assert!(of("constant 3", 0).iter().all(|value| *value == 3.0));
        // Person 1's own domain mean, by hand.
        let item = &data.inventory.items[test[0]];
        let own: Vec<f64> = (data.inventory.known().into_iter())
            .filter(|&i| data.inventory.items[i].domain == item.domain)
            .map(|i| data.inventory.items[i].keyed(f64::from(data.people[0].raw[i])))
            .collect();
        assert_eq!(own.len(), 24);
        assert!((of("own domain means", 0)[0] - item.keyed(own.iter().sum::<f64>() / 24.0)).abs() < 1e-12);
        let norm = item.norm.expect("a norm").mean;
        assert!((of("population mean", 3)[0] - norm).abs() < 1e-12);
        assert_ne!(of("uniform random", 0), of("uniform random", 1));
        assert_eq!(of("uniform random", 0), all(&data, 1, 1)[2].predictions[0].clone().expect("person 1"));
        // Where five traits make the answers, those who know the person do better in this order.
        let score = |name: &str| {
            let each = (0..6).map(|p| {
                let errors = person_errors(&data, p, &of(name, p), Form::Expected);
                errors.iter().flatten().sum::<f64>()
            });
            each.sum::<f64>() / 6.0
        };
        let deviation = "population mean and own domain deviation";
        let ceiling = "ridge of answers on answers (ceiling)";
        for (better, worse) in [
            (deviation, "population mean"),
            (ceiling, "population mean"),
            (deviation, "own domain means"),
            ("population mean", "uniform random"),
        ] {
            let (own, other) = (score(better), score(worse));
            assert!(own < other, "{better} {own}, {worse} {other}");
        }
    }

    #[test]
    fn no_baseline_looks_at_test_answers() {
        let mut data = invented();
        let before = all(&data, 3, 1);
        for i in data.inventory.unseen() {
            data.people[..3].iter_mut().for_each(|answers| answers.raw[i] = 6 - answers.raw[i].max(1));
        }
        for (row, other) in before.iter().zip(all(&data, 3, 1)) {
            assert_eq!(row.predictions, other.predictions, "{}", row.name);
        }
    }
}
