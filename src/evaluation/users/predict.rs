//! From log-odds to answers, with everything fitted on people that are not reported on.

use super::{EvaluationError, Respondent};
use crate::users::people::{People, Person, Question, Split, Targets};
use std::collections::BTreeMap;

/// How a row's name ends.
pub const RAW: &str = "raw";
pub const WITH_POPULATION: &str = "population + deviation";
pub const POPULATION: &str = "population mean";

/// People and questions of an evaluation.
pub struct Panel<'a> {
    pub train: Vec<Respondent<'a>>,
    pub stop: Vec<Respondent<'a>>,
    pub test: Vec<Respondent<'a>>,
    /// Mean answer of the training people to each question.
    pub population: Vec<f64>,
    /// Smallest and largest answer of the training people.
    pub range: (f64, f64),
    pub questions: Vec<&'a Question>,
}

/// Log-odds by person and question; NaN where nothing was asked.
pub struct Scores {
    pub stop: Vec<Vec<f64>>,
    pub test: Vec<Vec<f64>>,
}

/// A way to predict answers.
pub struct Row {
    pub name: String,
    /// Predictions of each person's answer to each question: none, one, or one per other person.
    pub stop: Vec<Vec<Vec<f64>>>,
    pub test: Vec<Vec<Vec<f64>>>,
}

impl<'a> Panel<'a> {
    pub fn new(people: &'a People, questions: &[&'a Question]) -> Result<Panel<'a>, EvaluationError> {
        let index: BTreeMap<&str, usize> =
            questions.iter().enumerate().map(|(i, question)| (question.item.as_str(), i)).collect();
        let respondents = |split| -> Vec<Respondent<'a>> {
            people.of(split).map(|person| respondent(person, &index, questions.len())).collect()
        };
        let (train, stop, test) =
            (respondents(Split::Train), respondents(Split::Stop), respondents(Split::Test));
        let mut population = Vec::new();
        for (i, question) in questions.iter().enumerate() {
            let known: Vec<f64> = train.iter().filter_map(|person| person.answers[i]).collect();
            if known.is_empty() {
                let item = &question.item;
                return Err(EvaluationError::People(format!("no training person answers item `{item}`")));
            }
            population.push(crate::statistics::mean(&known));
        }
        let all = train.iter().flat_map(|person| person.answers.iter().flatten().copied());
        let range = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), answer| {
            (low.min(answer), high.max(answer))
        });
        Ok(Panel { train, stop, test, population, range, questions: questions.to_vec() })
    }

    pub fn clamp(&self, value: f64) -> f64 {
        value.clamp(self.range.0, self.range.1)
    }
}

fn respondent<'a>(person: &'a Person, index: &BTreeMap<&str, usize>, count: usize) -> Respondent<'a> {
    let mut answers = vec![None; count];
    if let Targets::Questions(questions) = &person.targets {
        for question in questions {
            if let Some(&i) = index.get(question.item.as_str()) {
                answers[i] = Some(f64::from(question.answer));
            }
        }
    }
    Respondent { person, answers }
}

/// `(value, answer, question)` of all answers that have a value.
fn known<'v>(
    people: &'v [Respondent<'_>],
    values: &'v [Vec<f64>],
) -> impl Iterator<Item = (f64, f64, usize)> + 'v {
    people.iter().zip(values).flat_map(|(person, values)| {
        let pairs = person.answers.iter().zip(values).enumerate();
        pairs.filter_map(|(i, (answer, value))| answer.filter(|_| value.is_finite()).map(|a| (*value, a, i)))
    })
}

/// A line from log-odds to answers: slope and offset by least squares on the stop people.
fn line(panel: &Panel<'_>, scores: &Scores) -> (f64, f64) {
    let (mut n, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (value, answer, _) in known(&panel.stop, &scores.stop) {
        (n, x, y) = (n + 1.0, x + value, y + answer);
        (xx, xy) = (xx + value * value, xy + value * answer);
    }
    let spread = xx - x * x / n;
    let slope = if spread > 1e-9 { (xy - x * y / n) / spread } else { 0.0 };
    (slope, (y - slope * x) / n)
}

/// Mean log-odds of the stop people for each question; NaN where nothing was asked.
fn stop_means(panel: &Panel<'_>, scores: &Scores) -> Vec<f64> {
    (0..panel.questions.len())
        .map(|i| crate::statistics::mean(&scores.stop.iter().map(|person| person[i]).collect::<Vec<_>>()))
        .collect()
}

/// Factor of deviations, by least squares on the stop people.
fn factor(panel: &Panel<'_>, scores: &Scores, means: &[f64]) -> f64 {
    let (mut xx, mut xy) = (0.0, 0.0);
    for (value, answer, i) in known(&panel.stop, &scores.stop) {
        let deviation = value - means[i];
        xx += deviation * deviation;
        xy += deviation * (answer - panel.population[i]);
    }
    if xx > 1e-9 { xy / xx } else { 0.0 }
}

/// What turns the log-odds for a question into an answer.
type Readout<'r> = dyn Fn(f64, usize) -> f64 + 'r;

fn raw_readout<'r>(panel: &'r Panel<'_>, scores: &Scores) -> impl Fn(f64, usize) -> f64 + 'r {
    let (slope, offset) = line(panel, scores);
    move |value, _| panel.clamp(slope * value + offset)
}

fn population_readout<'r>(panel: &'r Panel<'_>, scores: &Scores) -> impl Fn(f64, usize) -> f64 + 'r {
    let means = stop_means(panel, scores);
    let factor = factor(panel, scores, &means);
    move |value, i| panel.clamp(panel.population[i] + factor * (value - means[i]))
}

/// Each person's own log-odds.
fn own(values: &[Vec<f64>], readout: &Readout<'_>) -> Vec<Vec<Vec<f64>>> {
    let one = |(i, value): (usize, &f64)| {
        let finite = Some(*value).filter(|value| value.is_finite());
        finite.map(|value| readout(value, i)).into_iter().collect()
    };
    values.iter().map(|person| person.iter().enumerate().map(one).collect()).collect()
}

/// Whose log-odds stand for a person's own.
#[derive(Clone, Copy, PartialEq)]
enum Whose {
    /// Each other person's, one prediction each.
    Others,
    /// Everybody's, averaged to one prediction.
    Mean,
}

/// Each person's answers from other people's log-odds.
fn from_others(values: &[Vec<f64>], readout: &Readout<'_>, whose: Whose) -> Vec<Vec<Vec<f64>>> {
    let person = |u: usize| -> Vec<Vec<f64>> {
        let question = |i: usize| {
            let chosen = (0..values.len()).filter(|v| whose == Whose::Mean || *v != u).map(|v| values[v][i]);
            let read = chosen.filter(|value| value.is_finite()).map(|value| readout(value, i));
            let read: Vec<f64> = read.collect();
            match whose {
                Whose::Mean if !read.is_empty() => vec![crate::statistics::mean(&read)],
                _ => read,
            }
        };
        (0..values[u].len()).map(question).collect()
    };
    (0..values.len()).map(person).collect()
}

pub fn raw(panel: &Panel<'_>, name: &str, scores: &Scores) -> Row {
    let readout = raw_readout(panel, scores);
    Row {
        name: format!("{name}, {RAW}"),
        stop: own(&scores.stop, &readout),
        test: own(&scores.test, &readout),
    }
}

pub fn with_population(panel: &Panel<'_>, name: &str, scores: &Scores) -> Row {
    let readout = population_readout(panel, scores);
    let name = format!("{name}, {WITH_POPULATION}");
    Row { name, stop: own(&scores.stop, &readout), test: own(&scores.test, &readout) }
}

/// The item's mean over the training people.
pub fn population(panel: &Panel<'_>) -> Row {
    let all = |people: usize| vec![panel.population.iter().map(|mean| vec![*mean]).collect(); people];
    Row { name: POPULATION.to_owned(), stop: all(panel.stop.len()), test: all(panel.test.len()) }
}

/// Every other person's rows in turn: errors are averaged over them, not predictions.
pub fn others(panel: &Panel<'_>, name: &str, scores: &Scores) -> Vec<Row> {
    both(panel, scores, |form| format!("another person's {name}, {form}"), Whose::Others)
}

/// The mean prediction over all people's rows: what they say of nobody in particular.
pub fn mean_prompt(panel: &Panel<'_>, name: &str, scores: &Scores) -> Vec<Row> {
    both(panel, scores, |form| format!("mean over people of {name}, {form}"), Whose::Mean)
}

fn both(panel: &Panel<'_>, scores: &Scores, name: impl Fn(&str) -> String, whose: Whose) -> Vec<Row> {
    let raw = raw_readout(panel, scores);
    let deviation = population_readout(panel, scores);
    let readouts: [(&str, &Readout<'_>); 2] = [(RAW, &raw), (WITH_POPULATION, &deviation)];
    let row = |(form, readout): (&str, &Readout<'_>)| Row {
        name: name(form),
        stop: from_others(&scores.stop, readout, whose),
        test: from_others(&scores.test, readout, whose),
    };
    readouts.into_iter().map(row).collect()
}
