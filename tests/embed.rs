//! `demeanor embed train` and `demeanor eval users`: a projector of a few steps, its evaluation, and bad files.

use crate::harness::{TestModel, demeanor, done, empty_folder, encoder_folder};
use serde_json::{Value, json};
use std::path::Path;

fn write(path: &Path, content: impl AsRef<[u8]>) -> String {
    std::fs::write(path, content).expect("writable");
    path.display().to_string()
}

const STATEMENTS: [&str; 6] =
    ["I like company.", "I sing aloud.", "I plan ahead.", "I keep calm.", "I trust others.", "I love maps."];

/// Eight people who answer by a rule: two of them agree with everything, two with nothing.
fn people() -> String {
    let splits = ["train", "train", "train", "train", "stop", "stop", "test", "test"];
    let person = |(u, split): (usize, &&str)| {
        let answer = |i: usize| 1 + (2 * u + i * (u % 3)) % 5;
        let history: Vec<Value> = (0..4)
            .map(|i| json!({"text": STATEMENTS[i], "weight": (answer(i) as f64 - 3.0) / 2.0, "item": format!("i{i}")}))
            .collect();
        let targets: Vec<Value> = (0..6)
            .map(|i| {
                json!({"prompt": format!("Statement: {}\nTrue or false:", STATEMENTS[i]), "answer": answer(i),
                       "choices": [" True", " False"], "item": format!("i{i}")})
            })
            .collect();
        json!({"user": format!("u{u}"), "split": split, "history": history, "targets": targets}).to_string()
    };
    splits.iter().enumerate().map(person).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_projector_is_trained_and_evaluated() {
    let folder = empty_folder("embed");
    let data = write(&folder.join("people.jsonl"), people());
    let model = TestModel::SmolLm2.path().display().to_string();
    let encoder = encoder_folder().display().to_string();
    for form in ["static", "input-aware"] {
        let out = folder.join(format!("{form}.safetensors")).display().to_string();
        let log = folder.join(form).display().to_string();
        let mut arguments = vec!["embed", "train", "--data", &data, "--out", &out, "--model", &model];
        arguments.extend(["--encoder", &encoder, "--form", form, "--log", &log]);
        arguments.extend(["--steps", "2", "--steps-constant", "1", "--steps-first-order", "20", "--k", "2"]);
        arguments.extend(["--people-per-step", "2", "--targets-per-person", "2"]);
        done(&arguments);
        let first = std::fs::read(&out).expect("a projector was written");
        let log = std::fs::read_to_string(Path::new(&log).join("log.jsonl")).expect("a log was written");
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.iter().filter(|line| line["loss"].is_number()).count(), 1 + 20 + 2);
        let last = lines.last().expect("lines");
        assert!(
            last["done"] == true && last["peak_memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20)
        );
        // A run that is over is resumed to the same file.
        arguments.push("--resume");
        done(&arguments);
        assert!(std::fs::read(&out).expect("written again") == first, "{form}: the resumed run differs");
    }
    let path = |name: &str| folder.join(name).display().to_string();
    let (table, _) = done(&[
        "eval",
        "users",
        "--data",
        &data,
        "--projector",
        &path("static.safetensors"),
        "--input-aware",
        &path("input-aware.safetensors"),
        "--encoder",
        &encoder,
        "--model",
        &model,
        "--out",
        &path("evaluation"),
        "--text-limit",
        "2",
        "--data-dir",
        &path("data"),
    ]);
    let summary = std::fs::read_to_string(folder.join("evaluation/summary.json")).expect("written");
    let summary: Value = serde_json::from_str(&summary).expect("JSON");
    let rows: Vec<&str> =
        summary["rows"].as_array().expect("rows").iter().filter_map(|row| row["row"].as_str()).collect();
    for row in [
        "no user information, raw",
        "population mean",
        "constant prompt, raw",
        "history as text, all, population + deviation",
        "history as text, 10 nearest, raw",
        "static soft prompt, population + deviation",
        "another person's static soft prompt, population + deviation",
        "mean over people of input-aware soft prompt, raw",
        "ridge on the history's answers (no language model)",
    ] {
        assert!(rows.contains(&row) && table.contains(row), "{row} is missing: {rows:?}");
    }
    assert_eq!(summary["costs"]["static soft prompt"]["soft_rows"], 2.0);
    let (text, rows) = (&summary["costs"]["history as text, all"], &summary["costs"]["static soft prompt"]);
    assert!(text["prompt_tokens"].as_f64() > rows["prompt_tokens"].as_f64());
    let answers = std::fs::read_to_string(folder.join("evaluation/answers.jsonl")).expect("written");
    assert_eq!(answers.lines().count(), 2 * 6);
    let report = std::fs::read_to_string(folder.join("evaluation/report.html")).expect("written");
    assert!(report.contains("<svg") && !report.contains("NaN"));
}

#[test]
fn bad_files_have_their_exit_status_and_say_what_is_wrong() {
    let folder = empty_folder("embed-bad");
    let good = write(&folder.join("good.jsonl"), people());
    let bad = write(&folder.join("bad.jsonl"), people().replace("\"weight\":-1.0", "\"weight\":-7.0"));
    let pickle = write(&folder.join("pickle.pt"), b"\x80\x02}q\x00.");
    let short = write(&folder.join("short.safetensors"), [9; 4]);
    let out = folder.join("out").display().to_string();
    let rows: [(&[&str], i32, &str); 8] = [
        (&["embed", "train", "--out", "x"], 2, "--data"),
        (&["embed", "train", "--data", &good, "--out", "x", "--resume"], 2, "--log"),
        (&["embed", "train", "--data", &good, "--out", "x", "--form", "both"], 2, "input-aware"),
        (&["embed", "train", "--data", "no-such-file", "--out", "x"], 1, "no-such-file"),
        (&["embed", "train", "--data", &bad, "--out", "x"], 65, "`history[0].weight` is -7"),
        (&["embed", "train", "--data", &good, "--out", "x", "--start", &pickle], 65, "pickle.pt"),
        (
            &["eval", "users", "--data", &good, "--out", &out, "--projector", &short],
            65,
            "shorter than 8 bytes",
        ),
        (&["eval", "users", "--data", &bad, "--out", &out], 65, "line"),
    ];
    for (arguments, status, part) in rows {
        let output = demeanor(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
        assert!(text.contains(part) && !text.contains("panicked"), "{arguments:?}: {text}");
    }
}
