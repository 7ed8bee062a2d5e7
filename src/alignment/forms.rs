//! The ways in which a model can be asked how true a statement is of it, as data.

/// A prompt around a statement, the answers it offers and what each stands for.
#[derive(Debug, PartialEq)]
pub struct Form {
    pub name: &'static str,
    before: &'static str,
    after: &'static str,
    /// Continuations; those of one form are distinct tokens of the models in the catalogue.
    pub options: &'static [&'static str],
    /// 1 (very inaccurate) to 5 (very accurate) for each option.
    pub values: &'static [f64],
}

/// All forms; the first is used where an inventory has no norms to choose by. Two words are clearer to small models than
/// letters, whose positions they prefer.
pub const FORMS: &[Form] = &[
    Form {
        name: "true-false",
        before: "Personality questionnaire.\nStatement: I ",
        after: ".\nTrue or false:",
        options: &[" True", " False"],
        values: &[5.0, 1.0],
    },
    Form {
        name: "true-false-lower-case",
        before: "Personality questionnaire.\nStatement: I ",
        after: ".\nTrue or false:",
        options: &[" true", " false"],
        values: &[5.0, 1.0],
    },
    Form {
        name: "agree-disagree",
        before: "Statement: I ",
        after: ".\nDo you agree or disagree? I",
        options: &[" agree", " disagree"],
        values: &[5.0, 1.0],
    },
    Form {
        name: "letters",
        before: "How accurate is the statement about you?\nA very accurate\nB moderately accurate\nC neither accurate \
                 nor inaccurate\nD moderately inaccurate\nE very inaccurate\nStatement: I ",
        after: ".\nOption",
        options: &[" A", " B", " C", " D", " E"],
        values: &[5.0, 4.0, 3.0, 2.0, 1.0],
    },
];

impl Form {
    pub fn named(name: &str) -> Option<&'static Form> {
        FORMS.iter().find(|form| form.name == name)
    }

    /// The prompt for an item's text ("Worry about things" becomes "I worry about things").
    pub fn prompt(&self, text: &str) -> String {
        let text = text.trim().trim_end_matches('.');
        let mut letters = text.chars();
        let first = letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
        format!("{}{first}{}{}", self.before, letters.as_str(), self.after)
    }

    /// What the options' log-probabilities say after each option's mean (`bias`) is taken off: the log-odds of two
    /// options, else the expected value.
    pub fn signal(&self, log_probabilities: &[f64], bias: &[f64]) -> f64 {
        let x: Vec<f64> = log_probabilities.iter().zip(bias).map(|(value, bias)| value - bias).collect();
        if let [first, second] = x[..] {
            return first - second;
        }
        let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (mut sum, mut weighted) = (0.0, 0.0);
        for (x, value) in x.iter().zip(self.values) {
            let weight = (x - largest).exp();
            (sum, weighted) = (sum + weight, weighted + weight * value);
        }
        weighted / sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts() {
        let form = Form::named("true-false").unwrap();
        let wanted = "Personality questionnaire.\nStatement: I worry about things.\nTrue or false:";
        assert_eq!(form.prompt("Worry about things."), wanted);
        for form in FORMS {
            assert_eq!(form.options.len(), form.values.len(), "{}", form.name);
            assert!(!form.prompt("Ärgere mich").contains('Ä'));
        }
    }

    #[test]
    fn signals() {
        let two = Form::named("true-false").unwrap();
        assert_eq!(two.signal(&[-1.0, -3.0], &[-0.5, -1.0]), 1.5);
        let five = Form::named("letters").unwrap();
        let flat = [-2.0, -1.0, -4.0, -0.5, -3.0];
        assert!((five.signal(&flat, &flat) - 3.0).abs() < 1e-12, "what all items have says nothing");
        let sure = [0.0, -50.0, -50.0, -50.0, -50.0];
        assert!((five.signal(&sure, &[0.0; 5]) - 5.0).abs() < 1e-12);
    }
}
