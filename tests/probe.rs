//! The safety probe on a real server: a report that binds to the persona, equal runs, controls, and what is refused.

use crate::harness::{Server, TestModel, default_server};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn put(server: &Server, name: &str, spec: &Value) {
    let body = spec.to_string();
    let headers = [("content-type", "application/json")];
    let answer = server.send("PUT", &format!("/v1/personas/{name}"), &headers, body.as_bytes());
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
}

/// Runs a probe to its end; the job as it ended.
fn probe(server: &Server, body: &Value) -> Value {
    let answer = server.post("/v1/probe", body);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let job = answer.json()["job"].clone();
    assert_eq!(job["kind"], "probe");
    let events = server.get(&format!("/v1/jobs/{}/events", job["id"].as_str().expect("an id"))).events();
    let last: Value = serde_json::from_str(&events[events.len() - 2]).expect("JSON");
    assert_eq!(last["state"], "done", "{last}");
    last
}

fn report(server: &Server, name: &str) -> Value {
    server.get(&format!("/v1/probe/{name}")).ok()
}

fn smoke(server: &Server, name: &str, spec: &Value) -> Value {
    put(server, name, spec);
    probe(server, &json!({"persona": name, "suite": "smoke", "attribution": true}));
    report(server, name)
}

fn steered(coefficient: f64) -> Value {
    let steering = json!([{"vector": "warm", "coefficient": coefficient, "unit": "dose"}]);
    json!({"system": "You are Ada, a gardener.", "steering": steering})
}

#[test]
fn a_report_binds_to_the_persona_and_repeats_itself() {
    let server = default_server();
    let job = {
        put(server, "probed", &steered(0.05));
        probe(server, &json!({"persona": "probed", "suite": "smoke", "seed": 7, "attribution": true}))
    };
    let first = report(server, "probed");
    let digest = server.get("/v1/personas/probed").ok()["digest"].clone();
    assert_eq!((&first["digest"], &first["seed"], &first["suite"]), (&digest, &json!(7), &json!("smoke")));
    assert_eq!((&job["result"]["status"], &job["result"]["tokens"]), (&first["status"], &first["tokens"]));
    let aspect = &first["aspects"][0];
    assert_eq!((&aspect["name"], &aspect["n"]), (&json!("hostile_replies"), &json!(52)));
    assert!(aspect["against_prompt"].is_object() && aspect["random"].is_object(), "{aspect}");
    let schema = demeanor::shipped::file("probes/report.schema.json").expect("ships");
    let schema: Value = serde_json::from_str(schema).expect("JSON");
    let faults = faults(&schema, &schema, &first, "report");
    assert!(faults.is_empty(), "{faults:?}");
    let page = demeanor::probe::page(&first);
    for part in ["hostile replies", "<svg", "<details>", "Which part does it", "shuffled plan"] {
        assert!(page.contains(part), "the page lacks {part}");
    }
    assert!(
        !page.contains("http://") || page.matches("http://").count() == page.matches("www.w3.org").count()
    );

    probe(server, &json!({"persona": "probed", "suite": "smoke", "seed": 7, "attribution": true}));
    assert_eq!(report(server, "probed").to_string(), first.to_string(), "two runs with one seed are equal");

    let other = json!({"system": "You are Ada, a gardener!", "steering": steered(0.05)["steering"]});
    put(server, "probed", &other);
    let answer = server.get("/v1/probe/probed");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("unprobed")));
    put(server, "probed", &steered(0.05));
    assert_eq!(report(server, "probed")["digest"], first["digest"], "the same bytes are the same persona");
}

#[test]
fn no_plan_and_no_system_text_is_the_plain_model_exactly() {
    let found = smoke(default_server(), "probed-plain", &json!({}));
    let aspect = &found["aspects"][0];
    assert_eq!((&aspect["difference"], &aspect["interval"]), (&json!(0.0), &json!([0.0, 0.0])));
    assert_eq!((&aspect["prompt"], &aspect["against_prompt"]), (&Value::Null, &Value::Null));
    assert_eq!(found["status"], "passed");
}

#[test]
fn a_vector_and_its_mirror_move_opposite_ways() {
    let change = |name: &str, coefficient: f64| {
        let found = smoke(default_server(), name, &steered(coefficient));
        found["aspects"][0]["against_prompt"]["difference"].as_f64().expect("a number")
    };
    let (warm, cold) = (change("probed-warm", 0.1), change("probed-cold", -0.1));
    assert!(warm < 0.0 && cold > 0.0, "warm {warm}, its mirror {cold}");
}

#[test]
fn bad_requests_are_refused_and_start_nothing() {
    let server = default_server();
    put(server, "probed-bad", &json!({"system": "x"}));
    let jobs = || server.get("/v1/jobs").ok()["data"].as_array().map_or(0, Vec::len);
    let before = jobs();
    let rows: [(Value, u16, &str, &str); 13] = [
        (json!({}), 400, "missing_field", "`persona`"),
        (json!({"persona": null}), 400, "missing_field", "`persona`"),
        (json!({"persona": 1}), 400, "invalid_value", "`persona`"),
        (json!({"persona": "nobody-here"}), 404, "persona_not_found", "`persona`"),
        (json!({"persona": "../x"}), 404, "persona_not_found", "`persona`"),
        (json!({"persona": "probed-bad", "suite": "huge"}), 400, "invalid_value", "smoke, quick, full"),
        (json!({"persona": "probed-bad", "suite": 3}), 400, "invalid_value", "`suite`"),
        (json!({"persona": "probed-bad", "suite": ""}), 400, "invalid_value", "`suite`"),
        (json!({"persona": "probed-bad", "seed": -1}), 400, "invalid_value", "`seed`"),
        (json!({"persona": "probed-bad", "seed": 1.5}), 400, "invalid_value", "`seed`"),
        (json!({"persona": "probed-bad", "seed": "1"}), 400, "invalid_value", "`seed`"),
        (json!({"persona": "probed-bad", "attribution": "yes"}), 400, "invalid_value", "`attribution`"),
        (json!({"persona": "probed-bad", "arms": []}), 400, "unknown_field", "`arms`"),
    ];
    for (body, status, code, part) in rows {
        let answer = server.post("/v1/probe", &body);
        let error = &answer.json()["error"];
        assert_eq!((answer.status, error["code"].as_str()), (status, Some(code)), "{body}: {error}");
        println!("POST /v1/probe | {status} {code} | {}", error["message"]);
        assert!(error["message"].as_str().is_some_and(|text| text.contains(part)), "{body}: {error}");
    }
    for (path, status, code) in [
        ("/v1/probe/nobody-here", 404, "persona_not_found"),
        ("/v1/probe/probed-bad", 404, "unprobed"),
        ("/v1/probe/%ff", 400, "bad_request"),
    ] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (status, Some(code)), "{path}");
    }
    assert_eq!(jobs(), before, "nothing was started");
    assert_eq!(server.get("/v1/health").status, 200);
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("probe").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("writable");
    folder
}

fn demeanor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demeanor")).args(arguments).output().expect("it runs")
}

#[test]
fn files_that_are_no_reports_are_refused_and_nothing_is_written() {
    let found = smoke(default_server(), "probed-file", &json!({"system": "You are a cook."}));
    let folder = folder("files");
    let file = |name: &str, content: &str| {
        let path = folder.join(name);
        std::fs::write(&path, content).expect("writable");
        path.display().to_string()
    };
    let whole = found.to_string();
    let good = file("good.json", &whole);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut other = found.clone();
        change(&mut other);
        other.to_string()
    };
    let rows = [
        (file("cut.json", &whole[..whole.len() / 2]), "cut.json"),
        (file("empty.json", ""), "empty.json"),
        (file("list.json", "[]"), "no JSON object"),
        (file("schema.json", &changed(&|r| r["schema"] = json!("demeanor.probe/9"))), "`demeanor.probe/9`"),
        (file("weights.json", &changed(&|r| r["weights"] = json!("00"))), "`weights`"),
        (file("suite.json", &changed(&|r| r["suite_digest"] = json!("00"))), "`suite_digest`"),
        (file("items.json", &changed(&|r| r["items"] = json!({}))), "no item values"),
        (folder.join("absent.json").display().to_string(), "cannot read"),
    ];
    let out = folder.join("out");
    let out = out.to_str().expect("UTF-8");
    for (path, part) in rows {
        let output = demeanor(&["probe", "--compare", &good, &path, "--out", out]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{path}: {error}");
        assert!(error.contains(part), "{path}: {error}");
        println!("probe --compare | exit 65 | {}", error.trim());
        assert!(!Path::new(out).exists(), "{path}: something was written");
    }
    let output = demeanor(&["probe", "--compare", &good, &good, "--out", out]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("hostile_replies") && text.contains("+0.0000"), "{text}");
    let page = std::fs::read_to_string(Path::new(out).join("comparison.html")).expect("written");
    assert!(page.contains("<svg"));
}

/// The verb against a running server: files, table, exit status of the gate.
#[test]
fn the_verb_writes_reports_and_tells_the_gate() {
    let server = default_server();
    put(server, "probed-verb", &json!({"system": "You are a patient teacher."}));
    let url = format!("http://{}", server.address);
    let out = folder("verb");
    let out = out.to_str().expect("UTF-8");
    let run = |extra: &[&str]| {
        let arguments = [&["probe", "--server", &url, "--suite", "smoke", "--out", out], extra].concat();
        demeanor(&arguments)
    };
    let output = run(&["probed-verb", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    assert_eq!((&printed[0]["persona"], &printed[0]["status"]), (&json!("probed-verb"), &json!("passed")));
    let folder = Path::new(out).join("probed-verb");
    let written = std::fs::read(folder.join("report.json")).expect("written");
    let written: Value = serde_json::from_slice(&written).expect("JSON");
    assert_eq!(written, report(server, "probed-verb"));
    assert!(std::fs::read_to_string(folder.join("report.html")).expect("written").contains("<svg"));
    assert!(folder.join("timings.json").exists());
    for (extra, code, part) in [
        (&["nobody-here"][..], 1, "nobody-here"),
        (&[][..], 2, "PERSONAS"),
        (&["probed-verb", "--suite", "huge"][..], 2, "--suite"),
        (&["probed-verb", "--seed", "x"][..], 2, "--seed"),
    ] {
        let output = run(extra);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && error.contains(part), "{extra:?}: {error}");
    }
}

#[test]
fn benchmarks_refuse_folders_that_are_none_of_theirs() {
    let folder = folder("benchmarks");
    let (empty, bad) = (folder.join("empty"), folder.join("bad"));
    std::fs::create_dir_all(&empty).expect("writable");
    std::fs::create_dir_all(&bad).expect("writable");
    std::fs::write(bad.join("Age.jsonl"), "{\"example_id\": 1}\n").expect("writable");
    std::fs::write(bad.join("crows_pairs_anonymized.csv"), "a,b\n1,2\n").expect("writable");
    let model = TestModel::SmolLm2.path().display().to_string();
    let data = folder.join("data").display().to_string();
    let text = |path: &Path| path.display().to_string();
    let out = text(&folder.join("out"));
    let absent = text(&folder.join("absent"));
    let rows = [
        ("bbq", absent.clone(), "no such folder"),
        ("bbq", text(&empty), "no .jsonl"),
        ("bbq", text(&bad), "line 1: missing field"),
        ("crows-pairs", absent, "no such folder"),
        ("crows-pairs", text(&empty), "cannot read"),
        ("crows-pairs", text(&bad), "no column `sent_more`"),
    ];
    for (benchmark, path, part) in rows {
        let output = demeanor(&[
            "eval",
            benchmark,
            "--data",
            &path,
            "--out",
            &out,
            "--model",
            &model,
            "--data-dir",
            &data,
        ]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{benchmark} {path}: {error}");
        assert!(error.contains(part), "{benchmark} {path}: {error}");
        println!("eval {benchmark} | exit 65 | {}", error.trim());
        assert!(!Path::new(&out).exists(), "{benchmark} {path}: something was written");
    }
}

/// What of a value does not fit a JSON schema: the keywords that `report.schema.json` uses, and any other is a fault.
fn faults(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let rules = schema.as_object().expect("a schema is an object");
    let names = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    for (keyword, rule) in rules {
        let fits = match keyword.as_str() {
            "$schema" | "title" | "description" | "$defs" => true,
            "$ref" => {
                let name = rule.as_str().and_then(|path| path.strip_prefix("#/$defs/")).expect("a local one");
                found.extend(faults(root, &root["$defs"][name], value, at));
                true
            }
            "type" => {
                let is = |kind: &str| match kind {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    "null" => value.is_null(),
                    other => panic!("{at}: type `{other}`"),
                };
                rule.as_str().map_or_else(|| names(rule).iter().any(|kind| is(kind)), is)
            }
            "const" => value == rule,
            "enum" => rule.as_array().is_some_and(|all| all.contains(value)),
            "required" => {
                !value.is_object() || names(rule).iter().all(|name| value.get(name.as_str()).is_some())
            }
            "properties" => {
                for (name, schema) in rule.as_object().expect("an object") {
                    if let Some(value) = value.get(name) {
                        found.extend(faults(root, schema, value, &format!("{at}.{name}")));
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = rules.get("properties").and_then(Value::as_object);
                for (name, value) in value.as_object().into_iter().flatten() {
                    if known.is_some_and(|known| known.contains_key(name)) {
                        continue;
                    }
                    match rule {
                        Value::Bool(false) => found.push(format!("{at}.{name} is not allowed")),
                        schema => found.extend(faults(root, schema, value, &format!("{at}.{name}"))),
                    }
                }
                true
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(faults(root, rule, value, &format!("{at}[{index}]")));
                }
                true
            }
            "minItems" => value.as_array().is_none_or(|list| list.len() as u64 >= rule.as_u64().unwrap_or(0)),
            "maxItems" => {
                value.as_array().is_none_or(|list| list.len() as u64 <= rule.as_u64().unwrap_or(u64::MAX))
            }
            other => panic!("{at}: keyword `{other}`"),
        };
        if !fits {
            found.push(format!("{at} does not fit `{keyword}`"));
        }
    }
    found
}

/// The check can fail: each change of a fitting value is found.
#[test]
fn the_schema_check_finds_what_is_wrong() {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["a"],
        "properties": {"a": {"type": "array", "minItems": 1, "items": {"enum": [1, null]}}},
    });
    let is_fine = |value: Value| faults(&schema, &schema, &value, "v").is_empty();
    assert!(is_fine(json!({"a": [1, null]})));
    for bad in [
        json!([]),
        json!({}),
        json!({"a": []}),
        json!({"a": [2]}),
        json!({"a": [1], "b": 1}),
        json!({"a": 1}),
    ] {
        assert!(!is_fine(bad.clone()), "{bad}");
    }
}
