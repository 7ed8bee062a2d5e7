//! Hook points against `transformers` with hooks: outputs of single heads, and what moving one does; activations over HTTP.

use crate::harness::{self, Setup, TestModel};
use crate::run::{self, fixture};
use demeanor::engine::{Capture, Reduce};
use demeanor::model::{BlockEdits, CaptureSpec, Change, Edit, Edits, RowRule};
use serde_json::{Value, json};
use std::sync::Arc;

/// Nat, and relative size of a head's output; two independent f32 implementations differ by a tenth of it.
const TOLERANCE: f64 = 5e-4;

fn heads_of(reference: &Value) -> Vec<(u32, u32)> {
    let pair = |head: &Value| {
        let ids = run::ids(head);
        (ids[0], ids[1])
    };
    reference["heads"].as_array().expect("a list").iter().map(pair).collect()
}

#[test]
fn heads_of_smollm2_are_the_references() {
    check(TestModel::SmolLm2, "heads_smollm2.json", true);
}

/// gemma norms what attention adds: heads can be read there, and moved only inside.
#[test]
fn heads_of_gemma_are_the_references() {
    check(TestModel::Gemma, "heads_gemma.json", false);
}

fn check(model: TestModel, name: &str, moves: bool) {
    let engine = &harness::server(&Setup::exact(model)).engine;
    let reference = fixture(name);
    let heads = heads_of(&reference);
    let mut sorted = heads.clone();
    sorted.sort_unstable();
    assert_eq!(heads, sorted, "captures want them ascending");
    let (mut worst_output, mut worst_move, mut changes) = (0f64, 0f64, Vec::new());
    for prompt in reference["prompts"].as_array().expect("a list") {
        let ids = run::ids(&prompt["ids"]);
        let spec = CaptureSpec { resid: vec![], heads: heads.clone() };
        let capture = Capture { spec, from: ids.len() as u32 - 1, reduce: Reduce::Each };
        let captured = run::captured(engine, &ids, capture).remove(0);
        let d_head = engine.info().d_head as usize;
        for (ours, wanted) in captured.chunks_exact(d_head).zip(prompt["outputs"].as_array().expect("a list"))
        {
            let wanted = run::floats(wanted);
            let size = wanted.iter().map(|x| x * x).sum::<f64>().sqrt();
            let off = ours.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>().sqrt();
            worst_output = worst_output.max(off / size);
        }
        let (top, plain) = (run::ids(&prompt["top"]), run::floats(&prompt["plain"]));
        for (index, (l, h)) in heads.iter().enumerate() {
            let delta: Vec<f32> =
                run::floats(&reference["deltas"][index]).iter().map(|x| *x as f32).collect();
            let Ok(direction) = engine.heads().direction(*l, *h, &delta) else {
                assert!(!moves, "head {h} of block {l}");
                continue;
            };
            assert!(moves);
            let mut blocks = vec![BlockEdits::default(); engine.info().n_blocks as usize];
            blocks[*l as usize].attn.push(Edit::new(Change::Add { delta: direction.into() }, RowRule::All));
            let moved = run::next_logprobs(engine, &ids, &Arc::new(Edits::new(blocks)), &top);
            let wanted = run::floats(&prompt["moved"][index]);
            for ((ours, wanted), plain) in moved.iter().zip(&wanted).zip(&plain) {
                worst_move = worst_move.max((ours - wanted).abs());
                changes.push((wanted - plain).abs());
            }
        }
    }
    let mean = changes.iter().sum::<f64>() / changes.len().max(1) as f64;
    println!(
        "{name}: head outputs off by {worst_output:.1e} of their size; moved heads off by {worst_move:.1e} of {mean:.2} nat"
    );
    assert!(worst_output <= TOLERANCE, "{worst_output}");
    assert!(worst_move <= TOLERANCE, "{worst_move}");
    assert!(!moves || mean > 0.2, "moving a head does something");
}

/// Over HTTP a head's direction does what the same direction does at the engine.
#[test]
fn a_request_may_move_a_head() {
    let server = harness::default_server();
    let direction: Vec<f32> = (0..64).map(|i| if i % 2 == 0 { 1.0 } else { -0.5 }).collect();
    let mut body = json!({"prompt": "The weather today", "max_tokens": 8, "temperature": 0, "logprobs": 3});
    let plain = server.post("/v1/completions", &body).ok();
    let head =
        |coefficient: f32| json!([{"heads": {"12.3": direction}, "coefficient": coefficient, "unit": "raw"}]);
    body["steering"] = head(1.0);
    let moved = server.post("/v1/completions", &body).ok();
    assert_ne!(moved["choices"], plain["choices"]);
    let applied = &moved["demeanor"]["vectors"][0];
    assert_eq!((&applied["name"], &applied["blocks"]), (&json!("inline"), &json!([12, 12])));
    assert!(applied["dose"].as_f64().is_some_and(|dose| dose > 0.0));
    body["steering"] = head(0.0);
    assert_eq!(server.post("/v1/completions", &body).ok()["choices"], plain["choices"]);
    for (steering, part) in [
        (json!([{"heads": {"12.9": direction}}]), "head 9 of block 12 does not exist"),
        (json!([{"heads": {"30.0": direction}}]), "head 0 of block 30 does not exist"),
        (json!([{"heads": {"12.3": [1.0]}}]), "1 values for a head of width 64"),
    ] {
        body["steering"] = steering.clone();
        let response = server.post("/v1/completions", &body);
        let error = response.json()["error"].clone();
        assert_eq!((response.status, &error["param"]), (422, &json!("steering[0].heads")), "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(part)), "{error}");
    }
    let gemma = harness::server(&Setup::new(TestModel::Gemma));
    let direction = vec![1.0; gemma.engine.info().d_head as usize];
    body["steering"] = json!([{"heads": {"3.0": direction}}]);
    let response = gemma.post("/v1/completions", &body);
    assert_eq!((response.status, &response.json()["error"]["code"]), (400, &json!("unsupported")));
}

#[test]
fn activations_are_norms_and_projections_of_what_is_captured() {
    let server = harness::default_server();
    let (n_blocks, d_model) = (server.engine.info().n_blocks as usize, server.engine.info().d_model as usize);
    let direction: Vec<f32> = (0..d_model).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let upload =
        json!({"name": "axis-of-hooks", "directions": {"9": direction, "12": direction}, "replace": true});
    let stored = server.post("/v1/vectors", &upload);
    assert!(stored.status < 300, "{}", stored.text());
    let body = json!({"prompt": "The weather today is", "vectors": ["axis-of-hooks"], "blocks": [12, 3, 12]});
    let answer = server.post("/v1/activations", &body).ok();
    let mut uncached = body.clone();
    uncached["cache_prompt"] = json!(false);
    assert_eq!(server.post("/v1/activations", &uncached).ok()["norms"], answer["norms"]);
    let ids: Vec<u32> = answer["tokens"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|token| token["id"].as_u64().expect("an id") as u32)
        .collect();
    assert_eq!(answer["blocks"], json!([3, 12]));
    let rows = run::captured(&server.engine, &ids, Capture::after_blocks(&[3, 12], 0, Reduce::Each));
    assert_eq!(rows.len(), ids.len());
    let near = |value: &Value, wanted: f32| {
        value
            .as_f64()
            .is_some_and(|x| (x - f64::from(wanted)).abs() <= 1e-4 * f64::from(wanted.abs()).max(1.0))
    };
    let norm = |values: &[f32]| values.iter().map(|x| x * x).sum::<f32>().sqrt();
    for (token, row) in rows.iter().enumerate() {
        for (place, h) in row.chunks_exact(d_model).enumerate() {
            assert!(near(&answer["norms"][token][place], norm(h)), "{}", answer["norms"]);
        }
        let h = &row[d_model..];
        let along = h.iter().zip(&direction).map(|(a, b)| a * b).sum::<f32>() / norm(&direction);
        assert!(near(&answer["vectors"][0]["projections"][token][0], along), "{}", answer["vectors"]);
    }
    assert_eq!(answer["vectors"][0]["blocks"], json!([12]));
    // Steered at block 3, the stream after block 3 moves by what was added and no block before does.
    let mut steered = json!({"prompt": "The weather today is", "from": 1,
        "steering": [{"directions": {"3": direction}, "coefficient": 0.5, "unit": "raw"}]});
    let moved = server.post("/v1/activations", &steered).ok();
    steered["steering"] = Value::Null;
    let plain = server.post("/v1/activations", &steered).ok();
    assert_eq!(plain["blocks"].as_array().map(Vec::len), Some(n_blocks));
    assert_eq!(plain["tokens"].as_array().map(Vec::len), Some(ids.len() - 1));
    for token in 0..ids.len() - 1 {
        for block in 0..n_blocks {
            let same = moved["norms"][token][block] == plain["norms"][token][block];
            assert_eq!(same, block < 3, "token {token}, block {block}");
        }
    }
    for (field, value, part) in [
        ("blocks", json!([30]), "the blocks 0 to 29"),
        ("blocks", json!([]), "names no block"),
        ("blocks", json!("all"), "array"),
        ("blocks", json!([1.5]), "no block"),
        ("vectors", json!([1]), "a name"),
        ("vectors", json!(vec!["warm"; 17]), "at most 16"),
        ("vectors", json!(["warm - formal"]), "one vector"),
        ("from", json!(100), "behind the last"),
        ("from", json!(-1), ""),
        ("block", json!([1]), ""),
    ] {
        let mut bad = json!({"prompt": "The weather today is"});
        bad[field] = value;
        let response = server.post("/v1/activations", &bad);
        let error = response.json()["error"].clone();
        assert_eq!(response.status, 400, "{bad}: {error}");
        assert!(error["param"].as_str().is_some_and(|param| param.starts_with(field)), "{bad}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(part)), "{bad}: {error}");
    }
    let unknown = json!({"prompt": "a", "vectors": ["no-such-axis"]});
    assert_eq!(server.post("/v1/activations", &unknown).status, 404);
    let long = json!({"prompt": "word ".repeat(400)});
    let response = server.post("/v1/activations", &long);
    assert_eq!((response.status, &response.json()["error"]["param"]), (400, &json!("blocks")));
    let one = json!({"prompt": "word ".repeat(400), "blocks": [29]});
    assert_eq!(server.post("/v1/activations", &one).status, 200);
}
