//! `demeanor eval papi` from the command line: the check of a folder, and every bad folder of a table.

use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

struct Item {
    text: String,
    domain: String,
    facet: String,
    key: i64,
    mean: f64,
    known: bool,
}

fn items() -> Vec<Item> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/inventories/ipip-neo-300.json");
    let file: Value = serde_json::from_slice(&std::fs::read(path).expect("it ships")).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let item = |item: &Value| Item {
        text: text(&item["text"]),
        domain: text(&item["domain"]),
        facet: text(&item["facet"]),
        key: item["key"].as_i64().expect("a key"),
        mean: item["norm"]["mean"].as_f64().expect("a norm"),
        known: item["known"].as_bool().expect("a split"),
    };
    file["items"].as_array().expect("items").iter().map(item).collect()
}

fn table(items: &[Item]) -> String {
    let mut text = "item,text,facet,domain,key,split\n".to_owned();
    for (number, item) in (1..).zip(items) {
        let (quoted, split) = (item.text.replace('"', "\"\""), if item.known { "train" } else { "test" });
        writeln!(text, "{number},\"{quoted}.\",{},{},{},{split}", item.facet, item.domain, item.key).unwrap();
    }
    text
}

/// 150 made-up people, keyed as the published file has them, whose people 61 to 150 have the shipped norms.
fn people(items: &[Item]) -> Vec<Map<String, Value>> {
    let mut state = 7u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    };
    let traits: Vec<[f64; 5]> = (0..150).map(|_| std::array::from_fn(|_| 3.4 * noise())).collect();
    let mut people = vec![Map::new(); 150];
    for (i, item) in items.iter().enumerate() {
        let domain = "OCEAN".find(&item.domain).expect("a domain");
        let mut raw: Vec<i64> = (0..150)
            .map(|p| {
                (item.mean + item.key as f64 * traits[p][domain] + 1.6 * noise()).round().clamp(1.0, 5.0)
                    as i64
            })
            .collect();
        // How many of the 90 answered is in the norm: some number of answers has this mean.
        let off = |n: usize| (item.mean * n as f64 - (item.mean * n as f64).round()).abs() / n as f64;
        let n = (80..=90).rev().min_by(|x, y| off(*x).total_cmp(&off(*y))).expect("eleven numbers");
        raw[60 + n..].fill(0);
        let wanted = (item.mean * n as f64).round() as i64;
        let mut at = 0;
        while raw[60..60 + n].iter().sum::<i64>() != wanted {
            let step = (wanted - raw[60..60 + n].iter().sum::<i64>()).signum();
            let answer = &mut raw[60 + at % n];
            *answer = (*answer + step).clamp(1, 5);
            at += 7;
        }
        for (person, raw) in people.iter_mut().zip(raw) {
            let stored = if raw == 0 || item.key > 0 { raw } else { 6 - raw };
            person.insert(format!("i{}", i + 1), json!(stored));
        }
    }
    people
}

/// A folder with these files.
fn folder(name: &str, table: &str, people: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("papi").join(name);
    std::fs::create_dir_all(&folder).expect("writable");
    std::fs::write(folder.join("items_300.csv"), table).expect("writable");
    std::fs::write(folder.join("subjects_001_150.json"), people).expect("writable");
    folder
}

fn check(folder: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demeanor"))
        .args(["eval", "papi", "--check", "--data"])
        .arg(folder)
        .args(more)
        .stdin(Stdio::null())
        .output()
        .expect("it runs")
}

#[test]
fn a_folder_is_checked_without_a_model() {
    let items = items();
    let right = folder("right", &table(&items), &json!(people(&items)).to_string());
    let output = check(&right, &["--people", "12", "--model", "there-is-no-such-model"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "items_300.csv",
        "sha256",
        "12 reported, 90 others",
        "120 known, 180 to predict",
        "alpha      O .9",
        "constant 3",
        "population median",
        "forwards",
    ] {
        assert!(text.replace("0.9", ".9").contains(part), "{part}: {text}");
    }
}

#[test]
fn bad_folders_are_refused() {
    let items = items();
    let (right, answers) = (table(&items), people(&items));
    let all = json!(answers).to_string();
    let changed = |person: usize, field: &str, value: Value| {
        let mut people = answers.clone();
        people[person].insert(field.into(), value);
        json!(people).to_string()
    };
    let mut raw = answers.clone();
    for (i, _) in items.iter().enumerate().filter(|(_, item)| item.key < 0) {
        for person in &mut raw {
            let stored = person[&format!("i{}", i + 1)].as_i64().expect("an answer");
            person.insert(format!("i{}", i + 1), json!(if stored == 0 { 0 } else { 6 - stored }));
        }
    }
    let mut swapped = answers.clone();
    swapped.rotate_left(30);
    for (number, (table, people, message)) in [
        (right.replace("item,", "number,"), all.clone(), "items_300.csv: line 1: expected `item,text"),
        (
            right.replacen(",train", ",test", 1),
            all.clone(),
            "line 2: `split` is `test`; the inventory has `train`",
        ),
        (right.replacen("Worry", "Laugh", 1), all.clone(), "line 2: `text` is `Laugh about things`"),
        (right.replacen(",N,1", ",N,-1", 1), all.clone(), "line 2: `key` is `-1`"),
        (right[..9000].to_owned(), all.clone(), "items_300.csv: line"),
        (right.replacen("\"Worry", "Wor\"ry", 1), all.clone(), "line 2: a quote"),
        (right.clone(), all[..100_000].to_owned(), "subjects_001_150.json: EOF"),
        (right.clone(), "{}".into(), "subjects_001_150.json: invalid type: map"),
        (right.clone(), json!(answers[..149]).to_string(), "149 people; at least 150 are needed"),
        (right.clone(), changed(3, "i9", json!(7)), "person 4: `i9` is 7; expected an integer, 0 to 5"),
        (right.clone(), changed(3, "i9", json!(2.5)), "person 4: `i9` is 2.5"),
        (right.clone(), changed(3, "i9", json!("x".repeat(5000))), "person 4: `i9` is \"xxx"),
        (right.clone(), json!(raw).to_string(), "are answers stored keyed?"),
        (right.clone(), json!(swapped).to_string(), "other people"),
    ]
    .into_iter()
    .enumerate()
    {
        let output = check(&folder(&format!("bad-{number}"), &table, &people), &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{message}: {text}");
        assert!(text.contains(message) && text.len() < 600, "{message}: {text}");
        println!("eval papi | exit 65 | {}", text.trim());
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn wrong_usage_is_refused() {
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("papi-nowhere");
    for (more, code, message) in [
        (&["--people", "0"][..], 2, "--people"),
        (&["--people", "61"], 2, "--people"),
        (&["--seed=-1"], 2, "--seed"),
        (&[], 1, "cannot read"),
    ] {
        let output = check(&nowhere, more);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(message), "{text}");
    }
}
