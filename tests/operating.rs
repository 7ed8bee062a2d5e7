//! What operators use: the description of all routes, metrics in two dialects, the log, flags as variables, completions
//! and manual pages.

use crate::harness::{
    Server, Setup, TestModel, chat, data_folder, default_server, done, empty_folder, start,
};
use demeanor::config::{MetricsDialect, Settings};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Every path of the description, its variable parts filled in, with the methods that it lists.
fn described(server: &Server) -> Vec<(String, Vec<String>)> {
    let document = server.get("/openapi.json").ok();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    let methods = |entry: &Value| {
        let names = entry.as_object().expect("an object").keys().filter(|name| *name != "parameters");
        names.map(|name| name.to_uppercase()).collect()
    };
    let filled = |path: &str| {
        let parts = path.split('/').map(|part| if part.starts_with('{') { "absent" } else { part });
        parts.collect::<Vec<_>>().join("/")
    };
    paths.iter().map(|(path, entry)| (filled(path), methods(entry))).collect()
}

#[test]
fn the_description_lists_the_methods_that_routes_have() {
    let server = default_server();
    let paths = described(server);
    assert!(paths.len() > 35, "{}", paths.len());
    for (path, methods) in paths {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            // A body that no route takes: nothing is changed by the asking.
            let headers = [("content-type", "application/json")];
            let response = server.send(method, &path, &headers, b"[]");
            let is_listed = methods.iter().any(|listed| listed == method);
            assert_eq!(response.status == 405, !is_listed, "{method} {path}: {}", response.text());
            assert!(!response.text().contains("route_not_found"), "{method} {path}");
        }
    }
}

#[test]
fn every_described_route_wants_the_key_but_the_probes() {
    let settings = Settings { api_keys: vec!["secret".into()], ..Setup::new(TestModel::SmolLm2).settings() };
    let server = start(&settings);
    for (path, methods) in described(default_server()) {
        let is_open = ["/v1/health", "/v1/ready", "/v1/live"].contains(&path.as_str());
        for method in methods {
            let status = server.send(&method, &path, &[], b"").status;
            // Wrong keys have a rate.
            assert_eq!(status == 401 || status == 429, !is_open, "{method} {path}: {status}");
        }
    }
}

#[test]
fn every_described_route_is_counted_under_its_path() {
    let server = default_server();
    let document = server.get("/openapi.json").ok();
    let names: Vec<String> = document["paths"].as_object().expect("paths").keys().cloned().collect();
    for (path, _) in described(server) {
        // No route takes it, every one counts it.
        assert_eq!(server.send("PATCH", &path, &[], b"").status, 405, "{path}");
    }
    let page = server.get("/metrics").text();
    for name in names {
        // A path with slashes in its last part is written `{*id}` where routes are told apart.
        let label = name.replace("/v1/models/{id}", "/v1/models/{*id}");
        let line = format!("demeanor_requests_total{{route=\"{label}\",status=\"405\"}}");
        assert!(page.contains(&line), "{line}");
    }
}

#[test]
fn the_page_of_the_routes_comes_from_here_alone() {
    let response = default_server().get("/docs");
    assert_eq!(response.status, 200);
    assert!(response.headers["content-type"].starts_with("text/html"));
    let page = response.text();
    assert!(page.contains("POST /v1/chat/completions") && page.contains("steering"));
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"), "{page}");
    assert!(default_server().get("/").text().contains("/docs"));
}

/// An answer of each kind is what the description says of it.
#[test]
fn answers_have_the_described_fields() {
    let server = default_server();
    let document = server.get("/openapi.json").ok();
    let hi = json!([{"role": "user", "content": "hi"}]);
    for (path, body) in [
        ("/v1/chat/completions", chat(json!({}))),
        ("/v1/completions", json!({"prompt": "a", "max_tokens": 1})),
        ("/v1/responses", json!({"input": "hi", "max_output_tokens": 1})),
        ("/v1/score", json!({"prompt": "a", "choices": [" b"]})),
        ("/v1/tokenize", json!({"content": "a"})),
        ("/v1/detokenize", json!({"tokens": [1]})),
        ("/v1/apply-template", json!({"messages": hi})),
    ] {
        let post = &document["paths"][path]["post"];
        let schema = &post["responses"]["200"]["content"]["application/json"]["schema"];
        let answer = server.post(path, &body).ok();
        let required = schema["required"].as_array().expect("fields");
        assert!(!required.is_empty(), "{path}");
        for field in required {
            assert!(answer.get(field.as_str().expect("a name")).is_some(), "{path}: {field}");
        }
        let fields = &post["requestBody"]["content"]["application/json"]["schema"]["properties"];
        for name in body.as_object().expect("an object").keys() {
            assert!(fields.get(name).is_some(), "{path}: {name}");
        }
    }
}

#[test]
fn metrics_answer_under_the_names_that_were_chosen() {
    let own = default_server().get("/metrics").text();
    assert!(own.contains("demeanor_requests_running ") && !own.contains("vllm:"), "{own}");
    let settings =
        Settings { metrics_dialect: MetricsDialect::Both, ..Setup::new(TestModel::SmolLm2).settings() };
    let server = start(&settings);
    server.post("/v1/chat/completions", &chat(json!({"max_tokens": 3, "steering": "2 warm"}))).ok();
    let page = server.get("/metrics").text();
    let value = |start: &str| -> f64 {
        let line = page.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("{start} in {page}"));
        line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
    };
    for name in ["vllm:num_requests_running{", "vllm:num_requests_waiting{", "vllm:kv_cache_usage_perc{"] {
        assert!(value(name) >= 0.0);
    }
    assert_eq!(value("vllm:generation_tokens_total{"), value("demeanor_generation_tokens_total "));
    assert!(value("vllm:time_to_first_token_seconds_count{") >= 1.0);
    assert!(value("demeanor_queue_seconds_count ") >= 1.0);
    assert!(
        value("demeanor_gate_total{decision=\"served\"}") + value("demeanor_gate_total{decision=\"warned\"}")
            >= 1.0
    );
    assert!(value("demeanor_steered_rows_total ") >= 1.0);
    assert!(page.contains("vllm:cache_config_info{model_name="), "{page}");
}

/// Starts the binary with a log and sends it one request; gives the lines of its log that came behind the start.
fn logged(level: &str, request: &str) -> String {
    let model = TestModel::SmolLm2.path().display().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_demeanor"))
        .args(["serve", "--port", "0"])
        // Flags as variables.
        .env("DEMEANOR_MODEL", model)
        .env("DEMEANOR_DATA_DIR", data_folder())
        .env("DEMEANOR_ALIAS", "named-by-variable")
        .env("RUST_LOG", level)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let ready = lines.find(|line| line.starts_with("ready")).expect("it says where it listens");
    let address = ready.split("http://").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(request.as_bytes()).expect("taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("named-by-variable"), "{answer}");
    let end = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(end.success());
    let log: Vec<String> = lines.collect();
    child.wait().expect("it ends");
    log.join("\n")
}

#[test]
fn the_log_carries_request_ids_and_no_texts() {
    let request =
        "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-request-id: my-id-1\r\nconnection: close\r\n\r\n";
    let log = logged("info", request);
    let line = log.lines().find(|line| line.contains("answered")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("my-id-1") && line.contains("/v1/models") && line.contains("status=200"), "{line}");
    assert!(!logged("warn", request).contains("answered"));
}

#[test]
fn switches_and_values_come_from_variables() {
    let list = |value: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_demeanor"))
            .args(["ls"])
            .env("DEMEANOR_JSON", value)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).is_ok()
    };
    assert!(list("1") && list("true"));
    assert!(!list("0") && !list(""));
}

#[test]
fn shells_and_man_are_told_of_every_verb() {
    for shell in ["bash", "zsh", "fish"] {
        let (text, _) = done(&["completions", shell]);
        for word in ["serve", "persona", "metrics-dialect"] {
            assert!(text.contains(word), "{shell}: {word}");
        }
    }
    assert!(done(&["man"]).0.contains(".TH demeanor 1"));
    let folder = empty_folder("man");
    done(&["man", "--out", &folder.display().to_string()]);
    let serve = std::fs::read_to_string(folder.join("demeanor-serve.1")).expect("a page");
    assert!(serve.contains("DEMEANOR_METRICS_DIALECT"), "{serve}");
}
