//! What shares a batch stays apart: bytes of sixteen differently steered streams equal their solo runs, whatever the
//! chunking, threads, instruction set and cache.

use crate::harness::{self, Server, Setup, TestModel, read_response, with};
use crate::users;
use demeanor::config::{KvCacheFormat, Settings};
use demeanor::kernels::Isa;
use demeanor::users::projector::Form;
use serde_json::{Value, json};
use std::io::BufReader;
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;

/// Sixteen plans, some empty. Inline directions keep extraction out of it.
fn plans() -> Vec<Value> {
    (0..16)
        .map(|i| match i % 4 {
            0 => Value::Null,
            _ => {
                let direction: Vec<f32> = (0..576).map(|j| (((i * 7919 + j * 104_729) % 1009) as f32 / 504.5) - 1.0).collect();
                let positions = ["all", "response", "prompt"][i % 3];
                json!([{"directions": {(10 + i % 9).to_string(): direction}, "coefficient": 0.2 + 0.05 * i as f32,
                        "unit": "raw", "positions": positions}])
            }
        })
        .collect()
}

const QUESTIONS: [&str; 16] = [
    "How do I bake bread?",
    "Tell me about the sea.",
    "What is a prime number?",
    "Why is the sky blue?",
    "Write a line about autumn.",
    "How does a bicycle stay upright?",
    "What do bees eat?",
    "Name three rivers.",
    "How is glass made?",
    "What is a sonnet?",
    "Why do leaves fall?",
    "How do I learn to swim?",
    "What is inflation?",
    "Tell me about bridges.",
    "What makes thunder?",
    "How do cats see at night?",
];

fn body(i: usize, prefix: &str, plan: &Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": format!("{prefix}{}", QUESTIONS[i])}],
        "stream": true, "max_tokens": 40, "seed": 100 + i, "temperature": 0.8, "top_p": 0.95,
    });
    if !plan.is_null() {
        body["steering"] = plan.clone();
    }
    body
}

/// Reads a stream to its end: its text, and how it ended.
fn read(stream: TcpStream) -> (String, String) {
    let response = read_response(&mut BufReader::new(stream)).expect("a stream");
    let (mut text, mut reason) = (String::new(), String::new());
    for chunk in response.chunks() {
        assert!(chunk.get("error").is_none(), "{chunk}");
        let choice = &chunk["choices"][0];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or(""));
        reason.push_str(choice["finish_reason"].as_str().unwrap_or(""));
    }
    (text, reason)
}

fn solo(server: &Server, body: &Value) -> (String, String) {
    read(server.open("/v1/chat/completions", body))
}

fn uncached(server: &Server, body: &Value) -> (String, String) {
    solo(server, &with(body.clone(), json!({"cache_prompt": false})))
}

/// All bodies at once; also the mean number of rows of a step meanwhile.
fn together(server: &Server, bodies: &[Value]) -> (Vec<(String, String)>, f64) {
    let stats = server.engine.stats();
    let before = (stats.steps_total.load(Relaxed), stats.step_rows_total.load(Relaxed));
    let streams: Vec<_> = bodies.iter().map(|body| server.open("/v1/chat/completions", body)).collect();
    let texts = std::thread::scope(|scope| {
        let readers: Vec<_> = streams.into_iter().map(|stream| scope.spawn(move || read(stream))).collect();
        readers.into_iter().map(|reader| reader.join().expect("no panic")).collect()
    });
    let steps = stats.steps_total.load(Relaxed) - before.0;
    let rows = stats.step_rows_total.load(Relaxed) - before.1;
    (texts, rows as f64 / steps as f64)
}

#[test]
fn sixteen_plans_in_one_batch_equal_their_solo_runs() {
    // A server of its own: other tests would fill steps too.
    let server = harness::start(&Setup::new(TestModel::SmolLm2).settings());
    let bodies: Vec<Value> = plans().iter().enumerate().map(|(i, plan)| body(i, "", plan)).collect();
    let solos: Vec<_> = bodies.iter().map(|body| solo(&server, body)).collect();
    let (texts, rows) = together(&server, &bodies);
    println!("sixteen streams: {rows:.1} rows per step");
    assert_eq!(texts, solos);
    assert!(texts.iter().all(|(text, _)| !text.is_empty()), "no text is empty");
    assert!(rows >= 8.0, "{rows} rows per step: the streams did not share steps");
    let distinct: std::collections::BTreeSet<_> = texts.iter().collect();
    assert_eq!(distinct.len(), 16);
    // Where the plan is empty, a server that never steered says the same.
    for i in (0..16).step_by(4) {
        assert_eq!(solo(harness::default_server(), &bodies[i]), texts[i]);
    }
    // And a plan does change the text.
    for i in (0..16).filter(|i| i % 4 != 0) {
        assert_ne!(
            solo(harness::default_server(), &body(i, "", &Value::Null)).0,
            texts[i].0,
            "plan {i} did nothing"
        );
    }
}

/// Everything that a request can be made of, four of each kind: nothing, steering, a user, a persona; and some of it
/// together.
fn conditions() -> Vec<Value> {
    let plans = plans();
    (0..16)
        .map(|i| {
            let mut body = body(i, "", &Value::Null);
            match i % 4 {
                0 => {}
                1 => body["steering"] = plans[i].clone(),
                2 => body["user"] = json!(format!("u{i}")),
                _ => body["model"] = json!(format!("M@p{i}")),
            }
            match i {
                6 => body["steering"] = plans[i].clone(),
                7 => body["user"] = json!("u2"),
                10 => body["soft_prompt"] = json!(false),
                11 => body["steering"] = plans[i].clone(),
                13 => body["user"] = json!("u14"),
                _ => {}
            }
            body
        })
        .collect()
}

/// Users with a history of their own, and personas with what they are made of.
fn people(server: &Server) {
    for (i, texts) in [
        (2, ["I grow roses.", "I like long walks in the rain.", "My sister is a nurse."]),
        (6, ["I fix old radios.", "Numbers calm me.", "I never learnt to swim."]),
        (10, ["I sing in a choir.", "I am afraid of dogs.", "Tea, never coffee."]),
        (14, ["I drive a night train.", "I write poems nobody reads.", "I sleep badly."]),
    ] {
        users::create(server, &format!("u{i}"));
        users::add(server, &format!("u{i}"), &texts);
    }
    let direction: Vec<f32> = (0..576).map(|j| ((j * 7919 % 1009) as f32 / 504.5) - 1.0).collect();
    let vector = json!({"name": "tide", "directions": {"14": direction}});
    server.post("/v1/vectors", &vector).created();
    let tide = json!([{"vector": "tide", "coefficient": 0.6, "unit": "raw"}]);
    for persona in [
        json!({"name": "p3", "system": "You are a harbour master and speak of the sea."}),
        json!({"name": "p7", "system": "You answer in short sentences.", "steering": tide}),
        json!({"name": "p11", "steering": tide, "sampling": {"temperature": 1.1}}),
        json!({"name": "p15", "system": "You are a gardener.", "steering": tide, "user": "u6"}),
    ] {
        server.post("/v1/personas", &persona).created();
    }
}

#[test]
fn sixteen_conditions_in_one_batch_equal_their_solo_runs() {
    let folder = users::Folder::new("sixteen");
    let server = users::started(&folder.settings(Form::Static));
    people(&server);
    let bodies = conditions();
    let solos: Vec<_> = bodies.iter().map(|body| uncached(&server, body)).collect();
    for round in ["cold", "warm"] {
        let (texts, rows) = together(&server, &bodies);
        println!("sixteen conditions, {round}: {rows:.1} rows per step");
        assert_eq!(texts, solos, "{round}");
        assert!(rows >= 8.0, "{rows} rows per step: the streams did not share steps");
    }
    // A condition does something, or the test shows nothing: its text is not the plain one's.
    for (i, body) in bodies.iter().enumerate() {
        let plain = solo(harness::default_server(), &self::body(i, "", &Value::Null));
        let is_plain = i % 4 == 0 || i == 10;
        assert_eq!(plain == solos[i], is_plain, "{body}");
    }
}

#[test]
fn a_shared_prefix_changes_no_byte_hit_or_miss_chunked_or_whole_on_any_machine() {
    let prefix = format!(
        "{}\n\n",
        "Here is what the harbour master wrote about the tides, winds and ships of the year. ".repeat(36)
    );
    let plans = plans();
    let bodies: Vec<Value> = (0..6).map(|i| body(i, &prefix, &plans[i])).collect();
    let base = Setup::new(TestModel::SmolLm2);
    let reference = harness::start(&base.settings());
    let miss: Vec<_> = bodies.iter().map(|body| uncached(&reference, body)).collect();
    let (first, _) = together(&reference, &bodies);
    let (second, _) = together(&reference, &bodies);
    assert_eq!(first, miss);
    assert_eq!(second, miss);
    let stats = reference.engine.stats();
    assert!(stats.prefix_cache_hits_tokens_total.load(Relaxed) >= 6 * 512, "the second round hits the cache");
    assert!(stats.draft_accepted_tokens_total.load(Relaxed) > 0, "answers alone have guesses");
    let variants = [
        Setup { step_budget_ms: 1.0, ..base.clone() },
        Setup { step_budget_ms: 50.0, ..base.clone() },
        Setup { threads: 1, ..base.clone() },
        Setup { draft_max: 0, ..base.clone() },
    ];
    let others = Isa::available().into_iter().filter(|isa| *isa != Isa::Portable && *isa != Isa::detect());
    let others = others.map(|isa| Setup { isa: Some(isa.name()), ..base.clone() });
    for setup in variants.into_iter().chain(others) {
        let server = harness::start(&setup.settings());
        assert_eq!(together(&server, &bodies).0, miss, "{setup:?}");
    }
}

#[test]
fn other_keys_and_values_depend_on_no_company() {
    let plans = plans();
    let prefix = "The harbour master wrote about the tides, winds and ships of the year. ".repeat(14);
    let bodies: Vec<Value> = (0..6).map(|i| body(i, &prefix, &plans[i])).collect();
    for kv_format in [KvCacheFormat::Q8, KvCacheFormat::Bf16] {
        let setup = Setup { kv_format, ..Setup::new(TestModel::SmolLm2) };
        let server = harness::server(&setup);
        let alone: Vec<_> = bodies.iter().map(|body| uncached(server, body)).collect();
        for round in ["cold", "warm"] {
            assert_eq!(together(server, &bodies).0, alone, "{kv_format:?} {round}");
        }
        // Matrix units and vectors sum in one order.
        let vectors =
            Isa::available().into_iter().rev().find(|isa| *isa != Isa::Amx && *isa != Isa::Portable);
        if let Some(isa) = vectors {
            let server = harness::start(&Setup { isa: Some(isa.name()), ..setup }.settings());
            assert_eq!(together(&server, &bodies).0, alone, "{kv_format:?} {isa:?}");
        }
    }
}

#[test]
fn zero_coefficient_is_no_steering() {
    let server = harness::default_server();
    let mut body = json!({"prompt": "The weather today", "max_tokens": 24, "temperature": 0, "logprobs": 5});
    let plain = server.post("/v1/completions", &body).ok();
    body["steering"] = json!([{"directions": {"15": vec![1.0; 576]}, "coefficient": 0, "unit": "raw"}]);
    let zero = server.post("/v1/completions", &body).ok();
    assert_eq!(plain["choices"], zero["choices"]);
    body["steering"] = json!([{"directions": {"15": vec![1.0; 576]}, "coefficient": 2, "unit": "raw"}]);
    let two = server.post("/v1/completions", &body).ok();
    assert_ne!(plain["choices"], two["choices"]);
}

/// With pages for one context only, sequences give theirs up and are computed again; nothing of it shows.
#[test]
fn too_little_memory_costs_time_and_changes_no_byte() {
    let settings = Settings { kv_bytes: 1, context: Some(1024), ..Setup::new(TestModel::SmolLm2).settings() };
    let scarce = harness::start(&settings);
    let plans = plans();
    let prefix = "The harbour master wrote about the tides, winds and ships of the year. ".repeat(14);
    let chats: Vec<Value> = (0..6)
        .map(|i| {
            let mut body = body(i, &prefix, &plans[i]);
            // All of them outgrow the pages that let them in, whenever they came: any three need more than there are.
            body["max_tokens"] = json!(240);
            body["ignore_eos"] = json!(true);
            body
        })
        .collect();
    // Two long continuations each, the second of which rewinds into the first one's pages.
    let scores: Vec<Value> = (0..3)
        .map(|i| {
            let choice = |word: &str| format!(" The {word} ship number {i} came home.").repeat(14);
            json!({"prompt": format!("{prefix}{i}"), "choices": [choice("old"), choice("new")]})
        })
        .collect();
    let run = |server: &Server| {
        std::thread::scope(|scope| {
            let scores: Vec<_> = scores
                .iter()
                .map(|body| scope.spawn(move || server.post("/v1/score", body).ok()["choices"].clone()))
                .collect();
            let chats = together(server, &chats).0;
            (chats, scores.into_iter().map(|score| score.join().expect("no panic")).collect::<Vec<_>>())
        })
    };
    let wanted = run(harness::default_server());
    let got = run(&scarce);
    let preempted = scarce.engine.stats().preemptions_total.load(Relaxed);
    println!("scarce pages: {preempted} preemptions");
    assert!(preempted > 0, "the test is about preemption");
    assert_eq!(got, wanted);
    // What the cache kept meanwhile is right too.
    assert_eq!(run(&scarce), wanted);
    scarce.wait_until("all pages are free", |engine| engine.stats().kv_pages_in_use.load(Relaxed) == 0);
}
