//! The arithmetic of the evaluation on invented people whose answers follow from their history.

use super::predict::{POPULATION, RAW, WITH_POPULATION};
use super::*;
use crate::statistics::Draws;

const QUESTIONS: usize = 12;

/// People whose one trait shows in four history items and, with noise, in the answers to twelve questions.
fn people() -> People {
    let mut draws = Draws::new(4, "people", 0);
    let mut lines = Vec::new();
    for (split, count) in [("train", 40), ("stop", 12), ("test", 14)] {
        for u in 0..count {
            let trait_value = 2.0 * draws.uniform() - 1.0;
            let mut noisy = |spread: f64| (trait_value + spread * draws.normal()).clamp(-1.0, 1.0);
            let history: Vec<Value> = (0..4)
                .map(|i| json!({"text": format!("history {i}"), "weight": noisy(0.2), "item": format!("h{i}"), "group": "G"}))
                .collect();
            let targets: Vec<Value> = (0..QUESTIONS)
                .map(|i| {
                    let answer = (3.0 + 0.1 * i as f64 + 1.6 * noisy(0.3)).round().clamp(1.0, 5.0);
                    json!({"prompt": format!("question {i}"), "choices": [" True", " False"], "answer": answer,
                           "item": format!("q{i}"), "group": "G"})
                })
                .collect();
            let line = json!({"user": format!("{split}{u}"), "split": split, "history": history, "targets": targets});
            lines.push(line.to_string());
        }
    }
    People::parse(&lines.join("\n")).expect("right people")
}

fn options() -> Options {
    Options { limit: None, text_limit: 4, timed: 0, rounds: 300, seed: 1 }
}

/// Log-odds that follow a person's history, plus a lean that is the same for all.
fn scores(panel: &Panel<'_>) -> Scores {
    let of = |people: &[Respondent<'_>]| -> Vec<Vec<f64>> {
        let one = |person: &Respondent<'_>| {
            let mean = person.history().iter().map(|item| f64::from(item.weight)).sum::<f64>() / 4.0;
            (0..QUESTIONS).map(|i| 0.7 * mean - 2.0 + (i % 3) as f64).collect()
        };
        people.iter().map(one).collect()
    };
    Scores { stop: of(&panel.stop), test: of(&panel.test) }
}

#[test]
fn own_rows_beat_the_population_and_other_peoples_do_not() {
    let people = people();
    let questions = chosen_questions(&people, &options()).unwrap();
    let panel = Panel::new(&people, &questions).unwrap();
    let scores = scores(&panel);
    let mut rows = vec![
        predict::population(&panel),
        predict::raw(&panel, "static", &scores),
        predict::with_population(&panel, "static", &scores),
        baselines::ridge(&panel),
    ];
    rows.extend(predict::others(&panel, "static", &scores));
    rows.extend(predict::mean_prompt(&panel, "static", &scores));
    rows.extend(baselines::own_group(&panel));
    let figures: Vec<Figures> = rows.iter().map(|row| figures::of(&panel, row, 300, 1)).collect();
    let figure = |name: &str| figures.iter().find(|row| row.name == name).expect("the row exists");
    let own = figure("static, population + deviation");
    assert!(own.r > 0.7 && own.r_interval.low > 0.5 && own.r_interval.high < 1.0, "{}", own.r);
    assert!(own.error < figure(POPULATION).error - 0.2);
    assert!(own.likelihood < figure(POPULATION).likelihood);
    assert!(figure(POPULATION).r.is_nan() && figure("mean over people of static, raw").r.is_nan());
    assert!(figure("another person's static, raw").r < 0.1);
    assert!(
        figure("ridge on the history's answers (no language model)").error < figure(POPULATION).error - 0.2
    );
    assert!(figure("own group's mean (no language model)").error < figure(POPULATION).error - 0.2);
    // Raw, the model's lean of a question stands for its mean, which it does not know.
    assert!(figure("static, raw").error > own.error);
    let differences = differences(&panel, &rows, &["static"], &options());
    assert_eq!(differences.len(), 6);
    for name in ["another person's static", "mean over people of static"] {
        let other = format!("{name}, {WITH_POPULATION}");
        let found = differences.iter().find(|row| row.other == other).expect("the difference exists");
        assert!(found.interval.high < 0.0 && found.interval.low <= found.value, "{name}: {}", found.value);
    }
    assert!(differences.iter().any(|row| row.own == format!("static, {RAW}") && row.other == POPULATION));
    let lines = answers(&panel, &questions, &rows);
    assert_eq!(lines.len(), 14 * QUESTIONS);
    assert!(lines[0]["predictions"].get("another person's static, raw").is_none());
    let html = page::html(&json!({"people": {}}), &figures, &differences, &BTreeMap::new());
    assert!(html.contains("another person&#39;s static") || html.contains("another person's static"));
}

#[test]
fn a_prediction_of_nothing_is_the_population() {
    let people = people();
    let questions = chosen_questions(&people, &options()).unwrap();
    let panel = Panel::new(&people, &questions).unwrap();
    let flat = Scores { stop: vec![vec![0.3; QUESTIONS]; 12], test: vec![vec![0.3; QUESTIONS]; 14] };
    let row = predict::with_population(&panel, "flat", &flat);
    assert_eq!(row.test, predict::population(&panel).test);
    // Questions that were not asked have no prediction, and differences rest on the others.
    let mut some = scores(&panel);
    some.test.iter_mut().for_each(|person| person[1..].fill(f64::NAN));
    some.stop.iter_mut().for_each(|person| person[1..].fill(f64::NAN));
    let row = predict::with_population(&panel, "some", &some);
    assert_eq!(figures::of(&panel, &row, 10, 1).answers, 14);
    let difference = figures::difference(&panel, &row, &predict::population(&panel), 50, 1);
    assert!(difference.value.is_finite());
}

#[test]
fn people_that_cannot_be_evaluated() {
    let people = people();
    assert_eq!(chosen_questions(&people, &Options { limit: Some(5), ..options() }).unwrap().len(), 5);
    assert_eq!(every_nth(12, 4), [0, 3, 6, 9]);
    assert_eq!(every_nth(3, 10), [0, 1, 2]);
    let without = |split: Split| People {
        people: people.people.iter().filter(|person| person.split != split).cloned().collect(),
        digest: people.digest,
    };
    for split in [Split::Stop, Split::Test] {
        let error = chosen_questions(&without(split), &options()).unwrap_err().to_string();
        assert!(error.contains("all three splits"), "{error}");
    }
}
