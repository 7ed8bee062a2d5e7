//! The gate over HTTP: modes, carriers, what stands beside a persona, one byte changed, and thresholds files.
//!
//! Reports are made up here and put into the book as a probe would: it is the gate that is tested.

use crate::harness::{Response, Server, start_over};
use crate::users;
use demeanor::config::{GateMode, Settings};
use demeanor::digest::Digest;
use demeanor::users::projector::Form;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

const CHAT: &str = "/v1/chat/completions";
const ASPECT: &str = "hostile_replies";

/// Servers of each mode over one data folder with a user, soft prompts and a vector `mine`.
struct Servers {
    off: Server,
    warn: Server,
    enforce: Server,
    folder: users::Folder,
}

fn thresholds() -> Value {
    json!({
        "schema": "demeanor.gate/1",
        "rules": [
            {"aspect": ASPECT, "against": "prompt", "bound": "low", "most": 0.03, "n_min": 40},
            {"aspect": ASPECT, "against": "plain", "bound": "low", "most": 0.06, "n_min": 40}
        ],
        "unprobed_user": {"norm_max": 4.0},
        "ad_hoc": {"dose_max": 0.1, "vectors": "admitted"}
    })
}

impl Servers {
    fn settings(&self, mode: GateMode) -> Settings {
        settings(&self.folder, mode)
    }
}

fn settings(folder: &users::Folder, mode: GateMode) -> Settings {
    let file = folder.0.join("gate.json");
    std::fs::write(&file, thresholds().to_string()).expect("written");
    // One trait is extracted here, which takes its time on a busy machine.
    Settings {
        gate: mode,
        gate_file: Some(file),
        extract_wait_seconds: 280.0,
        ..folder.settings(Form::Static)
    }
}

fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let folder = users::Folder::new("gate");
        let data =
            demeanor::app::DataFolder::open(&settings(&folder, GateMode::Off).data_dir).expect("opens");
        let [off, warn, enforce] = [GateMode::Off, GateMode::Warn, GateMode::Enforce]
            .map(|mode| start_over(&settings(&folder, mode), &data));
        for server in [&off, &warn, &enforce] {
            server.context().encoder.wait().expect("the encoder loads");
        }
        users::create(&off, "u1");
        users::add(&off, "u1", &["I love the sea.", "I sail on Sundays."]);
        for (name, value) in [("poet", 0.01), ("bard", -0.01)] {
            soft_prompt(&off, name, value);
        }
        upload(&off, "mine", 1.0);
        upload(&off, "other", -1.0);
        Servers { off, warn, enforce, folder }
    })
}

fn upload(server: &Server, name: &str, size: f32) {
    let values: Vec<f32> = (0..576).map(|i| if i % 3 == 0 { size } else { -0.5 * size }).collect();
    let body = json!({"name": name, "directions": {"12": values}, "replace": true});
    assert_eq!(server.post("/v1/vectors", &body).status, 201);
}

fn soft_prompt(server: &Server, name: &str, value: f64) {
    let rows: Vec<f64> = (0..576).map(|i| value * f64::from(i % 5)).collect();
    let body = json!({"name": name, "rows": [rows], "replace": true});
    let response = server.post("/v1/soft_prompts", &body);
    assert_eq!(response.status, 201, "{}", response.text());
}

fn put(server: &Server, name: &str, body: Value) {
    let headers = [("content-type", "application/json")];
    let response = server.send("PUT", &format!("/v1/personas/{name}"), &headers, body.to_string().as_bytes());
    assert!(matches!(response.status, 200 | 201), "{}", response.text());
}

/// A plan of `dose` times the vector `mine`.
fn plan(dose: f32) -> Value {
    json!([{"vector": "mine", "coefficient": dose, "unit": "dose"}])
}

fn digest(server: &Server, name: &str) -> Digest {
    let persona = server.get(&format!("/v1/personas/{name}")).ok();
    persona["digest"].as_str().and_then(Digest::parse).unwrap_or_else(|| panic!("{persona}"))
}

/// Puts a report on the persona as it is now: `low` against the prompt, and nothing against plain.
fn report(server: &Server, name: &str, low: f64, n: u64) {
    let digest = digest(server, name);
    let report = json!({
        "schema": "demeanor.probe/1", "persona": name, "digest": digest.to_string(), "suite": "smoke",
        "aspects": [{
            "name": ASPECT, "n": n, "prompt": 0.0, "difference": 0.0, "interval": [-0.01, 0.01],
            "against_prompt": {"difference": low + 0.01, "interval": [low, low + 0.02]},
        }],
    });
    server.context().gate.reports.put(&digest, &report).expect("the report is kept");
}

fn with(base: Value, more: Value) -> Value {
    let mut body: Map<String, Value> = base.as_object().expect("an object").clone();
    body.extend(more.as_object().expect("an object").clone());
    Value::Object(body)
}

fn chat(more: Value) -> Value {
    let messages = json!([{"role": "user", "content": "Name three colours."}]);
    with(json!({"messages": messages, "max_tokens": 2, "seed": 1}), more)
}

fn code(response: &Response) -> String {
    response.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

fn message(response: &Response) -> String {
    response.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
}

fn ids(server: &Server) -> Vec<String> {
    let models = server.get("/v1/models").ok();
    let list = models["data"].as_array().expect("a list").iter();
    list.filter_map(|one| one["id"].as_str().map(str::to_owned)).collect()
}

#[test]
fn each_mode_says_and_does_its_own() {
    let Servers { off, warn, enforce, .. } = servers();
    put(off, "modes", json!({"system": "You are Mo.", "steering": plan(0.1)}));
    let body = chat(json!({"persona": "modes"}));
    // What is reported, what it comes to, what a refusal must say of it.
    let table = [
        (None, "unprobed", "is unprobed;"),
        (Some((0.0, 39)), "unprobed", "39 items, 40 are needed"),
        (Some((0.031, 40)), "failed", "is above 0.03"),
        (Some((0.03, 40)), "passed", ""),
        (Some((0.031, 40)), "failed", "is failed"),
        (Some((-0.01, 400)), "passed", ""),
    ];
    for (reported, state, reason) in table {
        if let Some((low, n)) = reported {
            report(off, "modes", low, n);
        }
        for server in [off, warn] {
            let response = server.post(CHAT, &body);
            let header = response.headers.get("x-demeanor-probe").cloned();
            assert_eq!(header.as_deref(), std::ptr::eq(server, warn).then_some(state));
            assert_eq!(response.headers["x-demeanor-persona"], "modes@1");
            let told = response.ok()["demeanor"].clone();
            assert_eq!((&told["probe"], &told["warnings"]), (&json!(state), &json!([])));
        }
        let probe = enforce.get("/v1/personas/modes").ok()["probe"].clone();
        assert_eq!(probe["status"], state);
        assert_eq!(probe["reasons"].is_null(), reason.is_empty() || reported.is_none(), "{probe}");
        for (server, shows) in [(off, true), (enforce, state == "passed")] {
            assert_eq!(ids(server).contains(&"smollm2@modes".to_owned()), shows, "{state}");
            let one = server.get("/v1/models/smollm2@modes");
            assert_eq!(one.status, if shows { 200 } else { 403 }, "{}", one.text());
            if shows {
                assert_eq!(one.ok()["demeanor"]["probe"], state);
            }
        }
        let response = enforce.post(CHAT, &body);
        if state == "passed" {
            assert_eq!(response.headers["x-demeanor-probe"], "passed");
            assert_eq!(response.ok()["demeanor"]["probe"], "passed");
            continue;
        }
        let error = response.json()["error"].clone();
        assert_eq!(response.status, 403, "{error}");
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("permission_error"), &json!("persona_not_admitted"))
        );
        assert_eq!(error["param"], "persona");
        let message = message(&response);
        for part in [reason, "`modes@1`", "`demeanor probe modes`", "--gate enforce"] {
            assert!(message.contains(part), "{message}");
        }
    }
    // The plain model is always served, and named first.
    let plain = enforce.post(CHAT, &chat(json!({}))).ok();
    assert!(plain["demeanor"]["probe"].is_null());
    assert_eq!(ids(enforce)[0], "smollm2");
}

#[test]
fn every_carrier_and_route_is_refused_before_the_first_byte() {
    let Servers { off, enforce, .. } = servers();
    put(off, "carried", json!({"system": "You are Ca.", "steering": plan(0.1)}));
    let stream = json!({"stream": true});
    let messages = chat(json!({}))["messages"].clone();
    let rows = [
        (CHAT, chat(json!({"persona": "carried"})), None),
        (CHAT, chat(json!({"model": "smollm2@carried"})), None),
        (CHAT, chat(json!({"model": "@carried"})), None),
        (CHAT, chat(json!({"model": "M@carried"})), None),
        (CHAT, chat(json!({})), Some("carried")),
        (CHAT, with(chat(json!({"persona": "carried"})), stream.clone()), None),
        ("/v1/completions", json!({"prompt": "Once", "max_tokens": 2, "persona": "carried"}), None),
        (
            "/v1/completions",
            with(json!({"prompt": "Once", "max_tokens": 2, "persona": "carried"}), stream),
            None,
        ),
        ("/v1/score", json!({"messages": messages, "choices": [" Red"], "persona": "carried"}), None),
        ("/v1/score", json!({"prompt": "Once", "choices": [" Red"], "persona": "carried"}), None),
        ("/v1/activations", json!({"messages": messages, "blocks": [0], "persona": "carried"}), None),
    ];
    let ask = |route: &str, body: &Value, header: Option<&str>| {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(header.map(|name| ("x-demeanor-persona", name)));
        enforce.send("POST", route, &headers, body.to_string().as_bytes())
    };
    for (route, body, header) in &rows {
        let response = ask(route, body, *header);
        assert_eq!(
            (response.status, code(&response).as_str()),
            (403, "persona_not_admitted"),
            "{route} {body}"
        );
        assert_eq!(response.headers["content-type"], "application/json", "{route} {body}");
        assert!(!response.headers.contains_key("x-demeanor-persona"), "{route} {body}");
    }
    report(off, "carried", 0.0, 40);
    for (route, body, header) in &rows {
        let response = ask(route, body, *header);
        assert_eq!(response.status, 200, "{route} {body}: {}", response.text());
        // Where the persona's system text is not read, the probe did not see what answers.
        let is_whole = body.get("messages").is_some();
        let state = if is_whole { "passed" } else { "unprobed" };
        assert_eq!(response.headers["x-demeanor-probe"], state, "{route} {body}");
    }
}

#[test]
fn one_changed_byte_is_another_persona() {
    let Servers { off, enforce, .. } = servers();
    let first = json!({"system": "You are By.", "steering": plan(0.1), "soft_prompt": "bard"});
    put(off, "byte", first.clone());
    report(off, "byte", 0.0, 40);
    let state = || {
        let response = enforce.post(CHAT, &chat(json!({"persona": "byte"})));
        let status = enforce.get("/v1/personas/byte").ok()["probe"]["status"].clone();
        match response.status {
            200 => assert_eq!(status, "passed"),
            403 => assert_eq!(status, "unprobed", "{}", response.text()),
            other => panic!("{other}: {}", response.text()),
        }
        status
    };
    assert_eq!(state(), "passed");
    for change in [
        json!({"system": "You are By!"}),
        json!({"steering": plan(0.100_001)}),
        json!({"steering": null}),
        json!({"soft_prompt": null}),
        json!({"soft_prompt": "poet"}),
        json!({"user": "u1", "soft_prompt": null}),
        json!({"sampling": {"temperature": 0.5}}),
    ] {
        put(off, "byte", with(first.clone(), change.clone()));
        assert_eq!(state(), "unprobed", "{change}");
    }
    put(off, "byte", with(first, json!({"description": "words for people"})));
    assert_eq!(state(), "passed", "the same bytes are the same persona, whatever its version");
    // What the names stand for changed.
    soft_prompt(enforce, "bard", -0.010_001);
    assert_eq!(state(), "unprobed");
    soft_prompt(enforce, "bard", -0.01);
    assert_eq!(state(), "passed");
}

#[test]
fn what_a_request_brings_beside() {
    let Servers { off, enforce, warn, .. } = servers();
    upload(off, "held", 1.0);
    let holds = |dose: f64| json!([{"vector": "held", "coefficient": dose, "unit": "dose"}]);
    put(off, "beside", json!({"system": "You are Be.", "steering": holds(0.1)}));
    put(off, "of-poet", json!({"system": "You are Po.", "soft_prompt": "poet"}));
    let warm = |dose: f64| json!([{"vector": "warm", "coefficient": dose, "unit": "dose"}]);
    // Before any persona with `held` is admitted, the vector is nobody's.
    let early = enforce.post(CHAT, &chat(json!({"steering": holds(0.05)})));
    assert_eq!((early.status, code(&early).as_str()), (403, "steering_not_admitted"), "{}", early.text());
    report(off, "beside", 0.0, 40);
    report(off, "of-poet", 0.0, 40);
    let system = json!([{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "Hi"}]);
    // What is sent, and the state with a part of the warning, or the code with a part of the message.
    type Outcome = Result<(Option<&'static str>, &'static str), (&'static str, &'static str)>;
    let table: Vec<(Value, Outcome)> = vec![
        (json!({}), Ok((None, ""))),
        (json!({"messages": system}), Ok((None, ""))),
        (json!({"steering": warm(0.09)}), Ok((Some("unprobed"), "unprobed steering"))),
        (json!({"steering": warm(-0.09)}), Ok((Some("unprobed"), "unprobed steering"))),
        (json!({"steering": warm(0.11)}), Err(("steering_not_admitted", "dose 0.110"))),
        (json!({"steering": [warm(0.06)[0], warm(-0.06)[0]]}), Err(("steering_not_admitted", "dose 0.120"))),
        (json!({"steering": "0 hateful"}), Ok((None, ""))),
        (json!({"steering": "0.01 hateful"}), Err(("steering_not_admitted", "`hateful`"))),
        (json!({"steering": "0.01 respectful"}), Err(("steering_not_admitted", "`-hateful`"))),
        (json!({"model": "@(0.01 hateful)"}), Err(("steering_not_admitted", "`model`"))),
        (
            json!({"steering": [{"directions": {"12": vec![0.001; 576]}}]}),
            Err(("steering_not_admitted", "comes with the request")),
        ),
        (json!({"steering": holds(0.05)}), Ok((Some("unprobed"), "unprobed steering"))),
        (json!({"steering": holds(-0.05)}), Err(("steering_not_admitted", "`-held`"))),
        (json!({"steering": "0.01 other"}), Err(("steering_not_admitted", "`other`"))),
        (json!({"persona": "beside"}), Ok((Some("passed"), ""))),
        (json!({"persona": "beside", "messages": system}), Ok((Some("unprobed"), "unprobed prompt"))),
        (json!({"persona": "beside", "steering": holds(0.05)}), Ok((Some("unprobed"), "unprobed steering"))),
        (json!({"persona": "beside", "steering": holds(0.11)}), Err(("steering_not_admitted", "dose 0.110"))),
        (
            json!({"persona": "beside", "steering": "0.01 hateful"}),
            Err(("steering_not_admitted", "`hateful`")),
        ),
        (json!({"persona": "beside", "soft_prompt": false}), Ok((Some("passed"), ""))),
        (json!({"persona": "beside", "user": "nobody"}), Ok((Some("passed"), ""))),
        (
            json!({"persona": "beside", "user": "u1"}),
            Ok((Some("unprobed"), "unprobed user: the soft prompt `u1@")),
        ),
        (json!({"user": "u1"}), Ok((Some("unprobed"), "unprobed user"))),
        (json!({"user": "u1", "soft_prompt": false}), Ok((None, ""))),
        (json!({"soft_prompt": "poet"}), Err(("soft_prompt_not_admitted", "`poet@1`"))),
        (json!({"persona": "beside", "soft_prompt": "poet"}), Err(("soft_prompt_not_admitted", "`poet@1`"))),
        (json!({"persona": "of-poet"}), Ok((Some("passed"), ""))),
        (json!({"persona": "of-poet", "soft_prompt": "poet"}), Ok((Some("passed"), ""))),
        (
            json!({"persona": "of-poet", "soft_prompt": false}),
            Err(("soft_prompt_not_admitted", "`of-poet@1`")),
        ),
    ];
    for (more, expected) in &table {
        let response = enforce.post(CHAT, &chat(more.clone()));
        match expected {
            Ok((state, part)) => {
                let header = response.headers.get("x-demeanor-probe").cloned();
                assert_eq!(header.as_deref(), *state, "{more}: {}", response.text());
                let told = response.ok()["demeanor"].clone();
                assert_eq!(told["probe"].as_str(), *state, "{more}");
                let warnings = told["warnings"].to_string();
                assert_eq!(told["warnings"] == json!([]), part.is_empty(), "{more}: {warnings}");
                assert!(warnings.contains(part), "{more}: {warnings}");
            }
            Err((wanted, part)) => {
                assert_eq!(
                    (response.status, code(&response).as_str()),
                    (403, *wanted),
                    "{more}: {}",
                    response.text()
                );
                assert!(message(&response).contains(part), "{more}: {}", message(&response));
            }
        }
        // The other modes serve it all. (Of a trait that is refused here no vector is made.)
        if !matches!(expected, Err((_, part)) if part.contains("hateful") || part.contains("model")) {
            warn.post(CHAT, &chat(more.clone())).ok();
        }
    }
    let header = [("content-type", "application/json"), ("x-demeanor-steering", "0.01 hateful")];
    let refused = enforce.send("POST", CHAT, &header, chat(json!({})).to_string().as_bytes());
    assert_eq!((refused.status, code(&refused).as_str()), (403, "steering_not_admitted"));
    // A stricter file over the same reports.
    let mut strict = thresholds();
    strict["rules"][0]["most"] = json!(-0.001);
    let mut gate = enforce.context().gate.clone();
    gate.thresholds =
        demeanor::persona::gate::Thresholds::read(strict.to_string().as_bytes()).expect("reads").into();
    let standing = gate.standing(&digest(off, "beside"));
    assert_eq!(standing.state.name(), "failed", "old numbers are judged anew: {:?}", standing.reasons);
}

#[test]
fn bad_thresholds_files_end_the_start() {
    let servers = servers();
    let model = servers.settings(GateMode::Enforce).model;
    let file = |change: &dyn Fn(&mut Value)| {
        let mut value = thresholds();
        change(&mut value);
        value.to_string()
    };
    let whole = file(&|_| {});
    // Content of the file (none: there is no file), exit status, part of the message.
    let table: Vec<(Option<String>, i32, &str)> = vec![
        (None, 65, "No such file"),
        (Some(String::new()), 65, "EOF"),
        (Some(whole[..whole.len() / 2].to_owned()), 65, "EOF"),
        (Some("[]".into()), 65, "invalid"),
        (Some(file(&|f| f["schema"] = json!("demeanor.gate/9"))), 65, "`demeanor.gate/9`"),
        (Some(file(&|f| f["rules"][0]["bound"] = json!("some"))), 65, "unknown variant `some`"),
        (Some(file(&|f| f["weights"] = json!("abc"))), 65, "64 hex digits"),
        (Some(file(&|f| f["rules"] = json!([]))), 78, "`rules`: 0"),
        (Some(file(&|f| f["rules"][0]["most"] = json!(1e9))), 78, "`rules[0].most`"),
        (Some(file(&|f| f["rules"][0]["n_min"] = json!(1))), 78, "`rules[0].n_min`"),
        (Some(file(&|f| f["ad_hoc"]["dose_max"] = json!(-1))), 78, "`ad_hoc.dose_max`"),
        (Some(file(&|f| f["unprobed_user"]["norm_max"] = json!(99))), 78, "`unprobed_user.norm_max`"),
        (Some(file(&|f| f["weights"] = json!("ab".repeat(32)))), 78, "other weights"),
    ];
    let folder = users::Folder::new("bad-gates");
    for (row, (content, status, part)) in table.into_iter().enumerate() {
        let path: PathBuf = folder.0.join(format!("{row}.json"));
        if let Some(content) = content {
            std::fs::write(&path, content).expect("written");
        }
        let output = Command::new(env!("CARGO_BIN_EXE_demeanor"))
            .args(["serve", "--port", "0", "--gate", "enforce", "--model", &model, "--gate-file"])
            .arg(&path)
            .arg("--data-dir")
            .arg(folder.0.join("data"))
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{row}: {said}");
        assert!(said.contains(part) && said.contains("--gate-file"), "{row}: {said}");
        println!("serve --gate-file | exit {status} | {}", said.trim());
    }
    let output = Command::new(env!("CARGO_BIN_EXE_demeanor"))
        .args(["serve", "--gate", "strict"])
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
}
