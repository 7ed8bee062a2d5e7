//! One row of the table: predictions for each person, and how far they are from what the person ticked.

use super::data::Data;

/// What a row is, which says how it may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No language model.
    Baseline,
    /// Real forwards of the model.
    Model,
    /// What a gain must be told apart from.
    Control,
    /// Chosen by the answers that are reported on; for comparison with published tables only.
    Leaky,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Baseline => "baseline",
            Kind::Model => "model",
            Kind::Control => "control",
            Kind::Leaky => "chosen on test items",
        }
    }
}

/// The metric rewards integers, so rows are compared in one form only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The expected answer.
    Expected,
    /// The same rounded to a whole answer, halves to the even one.
    Rounded,
}

impl Form {
    pub const ALL: [Form; 2] = [Form::Expected, Form::Rounded];

    pub fn name(self) -> &'static str {
        match self {
            Form::Expected => "expected",
            Form::Rounded => "rounded",
        }
    }

    /// A prediction in this form, within the scale.
    pub fn of(self, prediction: f64) -> f64 {
        let within = prediction.clamp(1.0, 5.0);
        match self {
            Form::Expected => within,
            Form::Rounded => within.round_ties_even(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub kind: Kind,
    /// For each reported person one prediction per test item, raw; `None` for people that the row was not run for.
    pub predictions: Vec<Option<Vec<f64>>>,
}

/// Mean absolute error of a person's (0-based) predictions in each domain, over the test items that the person answered;
/// `None` where there is none.
pub fn person_errors(data: &Data, person: usize, predictions: &[f64], form: Form) -> [Option<f64>; 5] {
    let (mut sums, mut counts) = ([0.0; 5], [0usize; 5]);
    for (&i, prediction) in data.inventory.unseen().iter().zip(predictions) {
        if let Some(answer) = data.people[person].get(i) {
            let d = data.inventory.items[i].domain.index();
            sums[d] += (form.of(*prediction) - answer).abs();
            counts[d] += 1;
        }
    }
    std::array::from_fn(|d| (counts[d] > 0).then(|| sums[d] / counts[d] as f64))
}

#[cfg(test)]
mod tests {
    use super::super::data::tests::invented;
    use super::*;

    #[test]
    fn a_perfect_respondent_scores_zero() {
        let data = invented();
        let test = data.inventory.unseen();
        for person in 0..6 {
            let own: Vec<f64> = test.iter().map(|&i| f64::from(data.people[person].raw[i])).collect();
            for form in Form::ALL {
                assert_eq!(person_errors(&data, person, &own, form), [Some(0.0); 5]);
            }
            let off: Vec<f64> =
                own.iter().map(|raw| if *raw > 3.0 { raw - 1.4 } else { raw + 1.4 }).collect();
            for (form, wanted) in [(Form::Expected, 1.4), (Form::Rounded, 1.0)] {
                let errors = person_errors(&data, person, &off, form);
                assert!(errors.iter().flatten().all(|error| (error - wanted).abs() < 1e-9), "{errors:?}");
            }
        }
    }

    #[test]
    fn forms() {
        for (prediction, expected, rounded) in
            [(0.2, 1.0, 1.0), (2.5, 2.5, 2.0), (3.5, 3.5, 4.0), (3.6, 3.6, 4.0), (9.0, 5.0, 5.0)]
        {
            assert_eq!((Form::Expected.of(prediction), Form::Rounded.of(prediction)), (expected, rounded));
        }
    }
}
