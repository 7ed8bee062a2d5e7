//! Scores of rows and their paired differences, with intervals over people and p-values.

use super::data::Data;
use super::rows::{Form, Kind, Row, person_errors};
use crate::statistics::{Interval, clustered_bootstrap, holm, mean, rounded, sign_flip};
use serde_json::{Value, json};

/// Sign flips of a p-value.
const FLIPS: usize = 10_000;
/// With fewer people a page says so: an interval from a few is rough, however it is made.
pub const FEW_PEOPLE: usize = 10;

/// A mean over people with its interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub value: f64,
    pub interval: Interval,
}

impl Estimate {
    /// Bootstrap over people. Equal seeds and counts draw the same people, so differences are paired.
    fn of(values: &[f64], rounds: usize, seed: u64) -> Estimate {
        let each: Vec<usize> = (0..values.len()).collect();
        Estimate { value: mean(values), interval: clustered_bootstrap(values, &each, rounds, seed) }
    }

    pub fn json(&self) -> Value {
        json!({"value": rounded(self.value, 4), "ci": [rounded(self.interval.low, 4), rounded(self.interval.high, 4)]})
    }
}

/// A row in one form. A score is the sum over domains of the mean absolute error, lower is better.
pub struct Figures {
    pub name: String,
    pub kind: Kind,
    pub form: Form,
    pub people: usize,
    pub score: Estimate,
    /// In the order of `Domain::ALL`.
    pub domains: [Estimate; 5],
}

/// One person's score.
struct PersonScore {
    /// In the order of `Domain::ALL`.
    domains: [f64; 5],
    sum: f64,
}

/// `None` for people that the row was not run for.
fn person_scores(data: &Data, row: &Row, form: Form) -> Vec<Option<PersonScore>> {
    let one = |(p, predictions): (usize, &Option<Vec<f64>>)| {
        let errors = person_errors(data, p, predictions.as_ref()?, form);
        // A person without an answer in a domain has no score there and none in sum.
        let errors: Vec<f64> = errors.into_iter().collect::<Option<_>>()?;
        let sum = errors.iter().sum();
        Some(PersonScore { domains: errors.try_into().ok()?, sum })
    };
    row.predictions.iter().enumerate().map(one).collect()
}

pub fn of(data: &Data, row: &Row, form: Form, rounds: usize, seed: u64) -> Figures {
    let scores = person_scores(data, row, form);
    let known: Vec<_> = scores.iter().flatten().collect();
    let column = |pick: &dyn Fn(&PersonScore) -> f64| -> Estimate {
        Estimate::of(&known.iter().map(|score| pick(score)).collect::<Vec<_>>(), rounds, seed)
    };
    Figures {
        name: row.name.clone(),
        kind: row.kind,
        form,
        people: known.len(),
        score: column(&|score| score.sum),
        domains: std::array::from_fn(|d| column(&|score| score.domains[d])),
    }
}

/// One row's score minus another's, over the people that both were run for.
pub struct Difference {
    pub own: String,
    pub other: String,
    pub form: Form,
    pub people: usize,
    pub score: Estimate,
    pub domains: [Estimate; 5],
    /// Of the null hypothesis that signs of people's differences are even, and after Holm's correction over all
    /// differences of the report but the leaky ones; `None` there.
    pub p: f64,
    pub p_holm: Option<f64>,
    /// People whose score is lower, higher, the same.
    pub won: usize,
    pub lost: usize,
    pub tied: usize,
}

impl Difference {
    pub fn of(data: &Data, own: &Row, other: &Row, form: Form, rounds: usize, seed: u64) -> Difference {
        let pairs: Vec<PersonScore> = person_scores(data, own, form)
            .into_iter()
            .zip(person_scores(data, other, form))
            .filter_map(|(own, other)| {
                let (own, other) = (own?, other?);
                let domains = std::array::from_fn(|d| own.domains[d] - other.domains[d]);
                Some(PersonScore { domains, sum: own.sum - other.sum })
            })
            .collect();
        let column = |pick: &dyn Fn(&PersonScore) -> f64| -> Vec<f64> { pairs.iter().map(pick).collect() };
        let sums = column(&|pair| pair.sum);
        // Scores are sums of a few means: differences below this are rounding.
        let tied = sums.iter().filter(|value| value.abs() < 1e-9).count();
        let won = sums.iter().filter(|value| **value <= -1e-9).count();
        Difference {
            own: own.name.clone(),
            other: other.name.clone(),
            form,
            people: pairs.len(),
            score: Estimate::of(&sums, rounds, seed),
            domains: std::array::from_fn(|d| Estimate::of(&column(&|pair| pair.domains[d]), rounds, seed)),
            p: sign_flip(&sums, &(0..sums.len()).collect::<Vec<_>>(), FLIPS, seed),
            p_holm: (own.kind != Kind::Leaky).then_some(f64::NAN),
            won,
            lost: sums.len() - won - tied,
            tied,
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "condition": self.own, "minus": self.other, "form": self.form.name(), "people": self.people,
            "diff": rounded(self.score.value, 4),
            "ci": [rounded(self.score.interval.low, 4), rounded(self.score.interval.high, 4)],
            "p": rounded(self.p, 4), "p_holm": self.p_holm.map(|p| rounded(p, 4)),
            "won": self.won, "lost": self.lost, "tied": self.tied,
            "by_stratum": by_domain(&self.domains),
        })
    }
}

impl Figures {
    pub fn json(&self) -> Value {
        json!({
            "form": self.form.name(), "people": self.people, "score": self.score.json(),
            "by_stratum": by_domain(&self.domains),
        })
    }
}

fn by_domain(domains: &[Estimate; 5]) -> Value {
    let each = crate::alignment::Domain::ALL.iter().zip(domains);
    each.map(|(domain, estimate)| (domain.to_string(), estimate.json()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Puts Holm's adjusted p-values into the differences that belong to the family.
pub fn correct(differences: &mut [Difference]) {
    let family: Vec<usize> = (0..differences.len()).filter(|&i| differences[i].p_holm.is_some()).collect();
    let adjusted = holm(&family.iter().map(|&i| differences[i].p).collect::<Vec<_>>());
    family.into_iter().zip(adjusted).for_each(|(i, p)| differences[i].p_holm = Some(p));
}

#[cfg(test)]
mod tests {
    use super::super::data::tests::invented;
    use super::*;

    fn row(data: &Data, name: &str, kind: Kind, people: usize, off: impl Fn(usize, usize) -> f64) -> Row {
        let test = data.inventory.unseen();
        let person = |p: usize| {
            // Towards the middle, so that the scale's ends do not cut.
            let toward = |raw: f64, off: f64| if raw > 3.0 { raw - off } else { raw + off };
            let of = |(t, &i): (usize, &usize)| toward(f64::from(data.people[p].raw[i]), off(p, t));
            (p < people).then(|| test.iter().enumerate().map(of).collect())
        };
        Row { name: name.into(), kind, predictions: (0..20).map(person).collect() }
    }

    #[test]
    fn scores_and_differences_are_what_was_put_in() {
        let data = invented();
        let good = row(&data, "good", Kind::Model, 20, |p, _| 0.3 + 0.01 * p as f64);
        let bad = row(&data, "bad", Kind::Control, 12, |p, _| 0.5 + 0.01 * p as f64);
        let figures = of(&data, &good, Form::Expected, 500, 1);
        assert_eq!(figures.people, 20);
        // Five domains, each off by .3 to .49.
        assert!((figures.score.value - 5.0 * 0.395).abs() < 1e-9, "{}", figures.score.value);
        assert!((figures.domains[2].value - 0.395).abs() < 1e-9);
        assert!(figures.score.interval.low < 1.975 && figures.score.interval.high > 1.975);
        let difference = Difference::of(&data, &good, &bad, Form::Expected, 500, 1);
        assert_eq!((difference.people, difference.won, difference.lost, difference.tied), (12, 12, 0, 0));
        assert!((difference.score.value + 1.0).abs() < 1e-9);
        // The same difference for everybody: no spread, and only two of all signs reach as far.
        assert!((difference.score.interval.high - difference.score.interval.low).abs() < 1e-9);
        assert!((difference.p - 2.0 / 4096.0).abs() < 1e-12);
        let same = Difference::of(&data, &good, &good, Form::Rounded, 50, 1);
        assert_eq!((same.p, same.tied, same.people), (1.0, 20, 20));
    }

    #[test]
    fn leaky_rows_are_in_no_family() {
        let data = invented();
        let a = row(&data, "a", Kind::Model, 20, |_, _| 0.3);
        let leaky = Row { kind: Kind::Leaky, ..a.clone() };
        let with =
            |own: &Row, p: f64| Difference { p, ..Difference::of(&data, own, &a, Form::Expected, 2, 1) };
        let mut differences =
            [with(&a, 0.04), with(&a, 0.01), with(&leaky, 0.0001), with(&a, 0.03), with(&a, 0.9)];
        correct(&mut differences);
        let found: Vec<Option<f64>> = differences.iter().map(|difference| difference.p_holm).collect();
        // Sorted: .01 x 4, .03 x 3, .04 x 2 (not below .09), .9.
        assert_eq!(found, [Some(0.09), Some(0.04), None, Some(0.09), Some(0.9)]);
    }
}
