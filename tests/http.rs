//! The HTTP surface over a real server: shapes, streams, disconnects, names, keys.

use crate::harness::{
    Response, Server, Setup, TestModel, chat, content, default_server, read_response, request_bytes, start,
    with,
};
use demeanor::config::Settings;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// A server with a key, one place in the batch, a queue of two, and one origin.
fn strict_server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        start(&Settings {
            api_keys: vec!["secret".into()],
            cors_origins: vec!["https://ok.example".into()],
            max_batch: 1,
            queue: 2,
            ..Setup::new(TestModel::SmolLm2).settings()
        })
    })
}

#[test]
fn a_chat_has_openais_shape_and_ours() {
    let response = default_server().post(CHAT, &chat(json!({"seed": 7})));
    let fingerprint = response.headers["x-demeanor-fingerprint"].clone();
    assert_eq!(response.headers["x-demeanor-warnings"], "0");
    let answer = response.ok();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    assert!(["stop", "length"].contains(&answer["choices"][0]["finish_reason"].as_str().expect("a reason")));
    assert_eq!(answer["system_fingerprint"], fingerprint.as_str());
    assert_eq!(answer["demeanor"]["fingerprint"], fingerprint.as_str());
    assert_eq!(answer["demeanor"]["seed"], 7);
    for field in ["persona", "steering", "steering_from", "soft_prompt", "probe"] {
        assert!(answer["demeanor"][field].is_null(), "{field}");
    }
    let usage = &answer["usage"];
    let number = |field: &str| usage[field].as_u64().expect("a number");
    assert_eq!(number("total_tokens"), number("prompt_tokens") + number("completion_tokens"));
    assert!(usage["prompt_tokens_details"]["cached_tokens"].is_u64());
    assert_eq!(answer["timings"]["predicted_n"], usage["completion_tokens"]);
    assert!(answer["timings"]["predicted_per_second"].as_f64().expect("a number") > 0.0);
}

#[test]
fn a_stream_says_what_the_plain_answer_says() {
    let server = default_server();
    let plain = server.post(CHAT, &chat(json!({}))).ok();
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let stream = server.post(CHAT, &chat(options));
    assert_eq!(stream.streamed_text(), content(&plain));
    let chunks = stream.chunks();
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let finish =
        chunks.iter().find(|chunk| chunk["choices"][0]["finish_reason"].is_string()).expect("a finish");
    let usage = chunks.last().expect("chunks");
    assert_eq!(usage["choices"], json!([]));
    for field in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        assert_eq!(usage["usage"][field], plain["usage"][field], "{field}");
    }
    for chunk in [finish, usage] {
        assert!(
            chunk["demeanor"]["fingerprint"].is_string() && chunk["timings"]["predicted_n"].is_u64(),
            "{chunk}"
        );
    }
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["choices"].is_array()));
}

#[test]
fn the_usage_chunk_comes_only_when_asked() {
    let chunks = default_server().post(CHAT, &chat(json!({"stream": true}))).chunks();
    assert!(chunks.iter().all(|chunk| chunk["choices"].as_array().is_some_and(|list| list.len() == 1)));
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[test]
fn choices_differ_by_their_index_and_repeat_by_their_seed() {
    let server = default_server();
    let body = chat(json!({"n": 3, "temperature": 1, "seed": 11}));
    let texts = |answer: &Value| -> Vec<String> {
        let list = answer["choices"].as_array().expect("choices");
        assert!(list.iter().enumerate().all(|(index, choice)| choice["index"] == index));
        list.iter().map(|choice| choice["message"]["content"].as_str().expect("a text").into()).collect()
    };
    let first = texts(&server.post(CHAT, &body).ok());
    assert_eq!(first, texts(&server.post(CHAT, &body).ok()));
    assert!(first[0] != first[1] && first[1] != first[2], "{first:?}");
    let mut streamed = vec![String::new(); 3];
    for chunk in server.post(CHAT, &with(body, json!({"stream": true}))).chunks() {
        let index = chunk["choices"][0]["index"].as_u64().expect("an index") as usize;
        streamed[index] += chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
    }
    assert_eq!(streamed, first);
}

#[test]
fn a_drawn_seed_repeats_the_answer() {
    let server = default_server();
    let first = server.post(CHAT, &chat(json!({"temperature": 1, "seed": -1}))).ok();
    let seed = first["demeanor"]["seed"].clone();
    assert!(seed.as_u64().is_some_and(|seed| seed < 1 << 53), "{seed}");
    let again = server.post(CHAT, &chat(json!({"temperature": 1, "seed": seed}))).ok();
    assert_eq!(content(&again), content(&first));
}

#[test]
fn log_probabilities_of_a_chat_fit_its_text() {
    let answer = default_server().post(CHAT, &chat(json!({"logprobs": true, "top_logprobs": 4}))).ok();
    let list = answer["choices"][0]["logprobs"]["content"].as_array().expect("log-probabilities");
    let bytes: Vec<u8> = list
        .iter()
        .flat_map(|entry| entry["bytes"].as_array().expect("bytes"))
        .map(|byte| byte.as_u64().expect("a byte") as u8)
        .collect();
    assert_eq!(String::from_utf8(bytes).expect("UTF-8"), content(&answer));
    for entry in list {
        let top = entry["top_logprobs"].as_array().expect("a list");
        assert_eq!(top.len(), 4);
        // Greedy: the drawn token is the most probable one.
        assert_eq!((&top[0]["token"], &top[0]["logprob"]), (&entry["token"], &entry["logprob"]));
        assert!(top.windows(2).all(|pair| pair[0]["logprob"].as_f64() >= pair[1]["logprob"].as_f64()));
    }
}

#[test]
fn a_stop_string_ends_the_answer_before_itself() {
    let server = default_server();
    let whole = server.post(CHAT, &chat(json!({}))).ok();
    let text = content(&whole);
    // A stop that begins inside the text and reaches over token boundaries.
    let start = text.char_indices().nth(4).expect("a longer text").0;
    let end = text.char_indices().nth(9).expect("a longer text").0;
    let stop = &text[start..end];
    let before = &text[..text.find(stop).expect("it is there")];
    let answer = server.post(CHAT, &chat(json!({"stop": [stop], "logprobs": true}))).ok();
    assert_eq!(content(&answer), before);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let stream = server.post(CHAT, &chat(json!({"stop": stop, "stream": true})));
    assert_eq!(stream.streamed_text(), before);
}

#[test]
fn completions_echo_with_log_probabilities() {
    let server = default_server();
    let ids =
        server.post("/tokenize", &json!({"content": "The capital of France is"})).ok()["tokens"].clone();
    let n = ids.as_array().expect("ids").len();
    for tokens_max in [0, 1] {
        let body = json!({"prompt": [ids, ids], "max_tokens": tokens_max, "temperature": 0, "logprobs": 1, "echo": true,
            "seed": 1234});
        let answer = server.post(COMPLETIONS, &body).ok();
        let choices = answer["choices"].as_array().expect("choices");
        assert_eq!(choices.len(), 2);
        assert_eq!(choices[0]["logprobs"], choices[1]["logprobs"]);
        let logprobs = &choices[0]["logprobs"];
        let tokens = logprobs["tokens"].as_array().expect("tokens");
        assert_eq!(tokens.len(), n + tokens_max);
        assert!(logprobs["token_logprobs"][0].is_null() && logprobs["top_logprobs"][0].is_null());
        for i in 1..tokens.len() {
            let map = &logprobs["top_logprobs"][i];
            let own = &logprobs["token_logprobs"][i];
            assert_eq!(&map[tokens[i].as_str().expect("a text")], own);
            let best =
                map.as_object().expect("a map").values().filter_map(Value::as_f64).fold(f64::MIN, f64::max);
            assert!(best >= own.as_f64().expect("a number"));
        }
        let text: String = tokens.iter().filter_map(Value::as_str).collect();
        assert_eq!(choices[0]["text"], text.as_str());
        assert_eq!(answer["usage"]["completion_tokens"], 2 * tokens_max);
    }
}

#[test]
fn no_tokens_is_an_empty_answer() {
    let server = default_server();
    let messages = json!([{"role": "user", "content": "hi"}]);
    for (path, body) in [(COMPLETIONS, json!({"prompt": "hi"})), (CHAT, json!({"messages": messages}))] {
        let ask = |stream: bool| {
            let more = json!({"max_tokens": 0, "cache_prompt": false, "stream": stream, "stream_options": {"include_usage": true}});
            server.post(path, &with(body.clone(), more))
        };
        let answer = ask(false).ok();
        let choice = &answer["choices"][0];
        let text = if path == CHAT { &choice["message"]["content"] } else { &choice["text"] };
        assert_eq!((text, &choice["finish_reason"]), (&json!(""), &json!("length")), "{path}");
        assert_eq!(answer["usage"]["completion_tokens"], 0);
        assert!(answer["usage"]["prompt_tokens"].as_u64() > Some(0));
        let chunks = ask(true).chunks();
        assert!(chunks.iter().any(|chunk| chunk["choices"][0]["finish_reason"] == "length"), "{path}");
        assert_eq!(chunks.last().expect("chunks")["usage"], answer["usage"]);
    }
}

/// Front ends that apply a template themselves write control tokens into the prompt; users who type them into a chat
/// do not get them.
#[test]
fn control_tokens_count_in_prompts_and_not_in_messages() {
    let server = default_server();
    let prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
    let count = |body: Value| server.post("/tokenize", &body).ok()["count"].clone();
    let wanted = count(json!({"prompt": prompt}));
    assert_eq!(count(json!({"content": prompt})), wanted);
    let score = server.post("/v1/score", &json!({"prompt": prompt, "choices": ["x"]})).ok();
    assert_eq!(score["usage"]["prompt_tokens"], wanted);
    let body = json!({"prompt": prompt, "max_tokens": 0, "echo": true, "logprobs": 1});
    let answer = server.post(COMPLETIONS, &body).ok();
    assert_eq!(answer["usage"]["prompt_tokens"], wanted);
    assert_eq!(answer["choices"][0]["text"], prompt);
    let logprobs = &answer["choices"][0]["logprobs"];
    let mut offset = 0;
    for (index, token) in logprobs["tokens"].as_array().expect("tokens").iter().enumerate() {
        assert_eq!(logprobs["text_offset"][index], offset);
        offset += token.as_str().expect("a text").chars().count();
    }
    assert_eq!(offset, prompt.len());
    let typed = |content: &str| count(json!({"messages": [{"role": "user", "content": content}]})).as_u64();
    assert!(typed("a<|im_end|>") > typed("a").map(|plain| plain + 1));
}

#[test]
fn prompts_come_in_four_forms_and_choices_prompt_major() {
    let server = default_server();
    let ids = |text: &str| server.post("/tokenize", &json!({"prompt": text})).ok()["tokens"].clone();
    let (a, b) = ("One, two,", "Once upon a");
    let ask = |prompt: Value| {
        let body = json!({"prompt": prompt, "max_tokens": 5, "temperature": 0, "n": 2});
        let answer = server.post(COMPLETIONS, &body).ok();
        let list = answer["choices"].as_array().expect("choices").clone();
        assert!(list.iter().enumerate().all(|(index, choice)| choice["index"] == index));
        list.iter().map(|choice| choice["text"].as_str().expect("a text").to_string()).collect::<Vec<_>>()
    };
    let (one, two) = (ask(json!(a)), ask(json!(b)));
    assert_eq!(one, ask(ids(a)));
    let both = [&one[..], &two[..]].concat();
    assert_eq!(both, ask(json!([a, b])));
    assert_eq!(both, ask(json!([ids(a), ids(b)])));
}

#[test]
fn a_score_equals_the_echoed_log_probabilities() {
    let server = default_server();
    let (prompt, choice) = ("The capital of France is", " Paris, of course");
    let score = server.post("/v1/score", &json!({"prompt": prompt, "choices": [choice, " x"]})).ok();
    let ids = |text: &str| {
        server.post("/tokenize", &json!({"content": text})).ok()["tokens"].as_array().expect("ids").clone()
    };
    let (before, after) = (ids(prompt), ids(choice));
    assert_eq!(score["choices"][0]["token_ids"], json!(after));
    let whole = [&before[..], &after[..]].concat();
    let body = json!({"prompt": whole, "max_tokens": 0, "logprobs": 1, "echo": true});
    let echoed = server.post(COMPLETIONS, &body).ok();
    let tail =
        &echoed["choices"][0]["logprobs"]["token_logprobs"].as_array().expect("a list")[before.len()..];
    assert_eq!(score["choices"][0]["logprobs"].as_array().expect("a list"), tail);
    assert_eq!(score["choices"][0]["bytes"], choice.len());
}

#[test]
fn both_dialects_of_the_tokenizer_routes() {
    let server = default_server();
    let plain = server.post("/tokenize", &json!({"content": "Grüße 🙂", "with_pieces": true})).ok();
    let other = server.post("/v1/tokenize", &json!({"prompt": "Grüße 🙂", "add_special_tokens": false})).ok();
    let ids: Vec<&Value> =
        plain["tokens"].as_array().expect("tokens").iter().map(|token| &token["id"]).collect();
    assert_eq!(json!(ids), other["tokens"]);
    assert_eq!(other["count"], ids.len());
    assert_eq!(other["max_model_len"], 4096);
    let text = server.post("/detokenize", &json!({"tokens": ids})).ok();
    assert_eq!((&text["content"], &text["prompt"]), (&json!("Grüße 🙂"), &json!("Grüße 🙂")));
    let messages = json!([{"role": "user", "content": "hi"}]);
    let rendered = server.post("/apply-template", &json!({"messages": messages})).ok();
    let from_text = server.post("/tokenize", &json!({"content": rendered["prompt"]})).ok();
    let from_chat = server.post("/tokenize", &json!({"messages": messages})).ok();
    assert_eq!(from_text["tokens"], from_chat["tokens"]);
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let told = json!({"messages": messages, "tools": tools});
    let count = |answer: Value| answer["count"].as_u64().expect("a count");
    let asked = server.post(CHAT, &with(told.clone(), json!({"max_tokens": 1}))).ok();
    let counted = count(server.post("/tokenize", &told).ok());
    assert_eq!(asked["usage"]["prompt_tokens"], counted);
    assert!(counted > count(from_chat), "a function is told of");
    let info = server.get("/tokenizer_info").ok();
    assert!(info["eos_token"].is_string() && info["chat_template"].is_string());
}

#[test]
fn models_are_listed_and_found_under_any_spelling() {
    let server = default_server();
    let list = server.get("/models").ok();
    let first = &list["data"][0];
    assert!(first["created"].is_u64() && first["owned_by"].is_string() && first["name"].is_string());
    for id in ["gpt-4o-mini", "gpt%2D4o-mini"] {
        assert_eq!(server.get(&format!("/v1/models/{id}")).ok()["id"], "gpt-4o-mini");
    }
}

#[test]
fn steering_is_taken_from_body_then_header_then_name() {
    let server = default_server();
    // A coefficient of 0 checks the name and needs no vector.
    let ask = |header: Option<&str>, body: Value| {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(header.map(|value| ("x-demeanor-steering", value)));
        server.send("POST", CHAT, &headers, chat(body).to_string().as_bytes()).ok()
    };
    let named = json!({"model": "M@(0 formal)"});
    let both = json!({"model": "M@(0 formal)", "steering": "0 concise"});
    for (header, body, from, name) in [
        (None, named.clone(), "model", "formal"),
        (Some("0 warm"), named, "header", "warm"),
        (Some("0 warm"), both, "body", "concise"),
    ] {
        let answer = ask(header, body);
        assert_eq!(answer["demeanor"]["steering_from"], from);
        let steering = answer["demeanor"]["steering"].to_string();
        assert!(steering.contains(name), "{steering}");
    }
    let answer = ask(None, json!({"model": "M@(0 formal)"}));
    assert!(answer["model"].as_str().is_some_and(|model| model.contains("@(") && model.contains("formal")));
}

#[test]
fn ignored_fields_with_a_meaning_are_named() {
    let answer = default_server().post(
        CHAT,
        &chat(json!({"dry_multiplier": 0.8, "xtc_probability": 0, "mirostat": 2, "nonsense": [1], "top_k": -1, "min_p": 0,
            "logit_bias": [], "stop": null, "seed": null, "response_format": "", "tools": [], "tool_choice": "none", "grammar": ""})),
    );
    assert_eq!(answer.headers["x-demeanor-warnings"], "2");
    let warnings = answer.ok()["demeanor"]["warnings"].to_string();
    assert!(warnings.contains("dry_multiplier") && warnings.contains("mirostat"), "{warnings}");
    let answer = default_server().post(CHAT, &chat(json!({"reasoning_effort": "low"}))).ok();
    let warnings = answer["demeanor"]["warnings"].to_string();
    assert!(warnings.contains("reasoning_effort"), "{warnings}");
}

/// `fixtures/client_requests.json`: bodies as real clients send them.
#[test]
fn recorded_client_requests_are_answered() {
    let rows: Vec<Value> =
        serde_json::from_str(include_str!("fixtures/client_requests.json")).expect("a table");
    let server = default_server();
    for row in rows {
        let path = row["path"].as_str().expect("a path");
        let response = server.post(path, &row["body"]);
        assert_eq!(
            u64::from(response.status),
            row["status"].as_u64().expect("a status"),
            "{}: {}",
            row["from"],
            response.text()
        );
    }
}

#[test]
fn a_client_that_leaves_frees_its_sequence() {
    let server = start(&Setup::new(TestModel::SmolLm2).settings());
    let stats = server.engine.stats();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    // Bytes behind the body once hid the end of the connection.
    for (stream, surplus) in [(true, ""), (false, ""), (true, "\r\n"), (false, "\r\n")] {
        let (cancelled, steps) = (read(&stats.cancelled_total), read(&stats.steps_total));
        let body = json!({"messages": [{"role": "user", "content": "Count."}], "max_tokens": 4000,
            "ignore_eos": true, "stream": stream});
        let mut client = server.open(CHAT, &body);
        client.write_all(surplus.as_bytes()).expect("taken");
        server.wait_until("the decoding", |_| read(&stats.steps_total) > steps + 2);
        drop(client);
        server.wait_until("the cancellation", |_| read(&stats.cancelled_total) > cancelled);
        let steps = read(&stats.steps_total);
        server.wait_until("the end", |_| {
            read(&stats.requests_running) == 0
                && read(&stats.kv_pages_in_use) == 0
                && read(&stats.inside) == 0
        });
        assert!(read(&stats.steps_total) - steps <= 2, "{stream} {surplus:?}");
        assert_eq!(read(&stats.cancelled_total), cancelled + 1, "{stream} {surplus:?}");
    }
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let server = default_server();
    for stream in [false, true] {
        let client = server.open(CHAT, &chat(json!({"stream": stream})));
        client.shutdown(Shutdown::Write).expect("half-close");
        let mut reader = BufReader::new(client);
        // An interim answer may come first; HTTP/1.1 clients skip it.
        while reader.fill_buf().expect("bytes").starts_with(b"HTTP/1.1 1") {
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).expect("a line");
            }
        }
        let response = read_response(&mut reader).expect("an answer");
        assert_eq!(response.status, 200);
        assert!(stream || !content(&response.json()).is_empty());
        assert!(!stream || !response.chunks().is_empty());
    }
}

/// An answer that does not fit the socket at once was cut off behind what did.
#[test]
fn a_half_closed_client_gets_all_of_a_long_answer() {
    let server = default_server();
    let client = server.open("/tokenize", &json!({"content": "a b ".repeat(100_000)}));
    client.shutdown(Shutdown::Write).expect("half-close");
    let mut reader = BufReader::new(client);
    let response = loop {
        let response = read_response(&mut reader).expect("the whole answer");
        if response.status >= 200 {
            break response;
        }
    };
    assert!(response.body.len() > 256 << 10, "{} bytes", response.body.len());
    assert!(response.ok()["count"].as_u64().is_some_and(|count| count > 100_000));
}

#[test]
fn keys_guard_every_route_but_the_probes() {
    let server = strict_server();
    for path in ["/health", "/v1/health", "/ready", "/v1/ready", "/live", "/v1/live"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let bearer = [("authorization", "Bearer secret")];
    assert_eq!(server.send("GET", "/v1/models", &bearer, b"").status, 200);
    assert_eq!(server.send("GET", "/v1/models", &[("x-api-key", "secret")], b"").status, 200);
    let refused: Vec<Response> = ["/v1/models", "/", "/metrics", "/nothing", "/v1/models?token=secret"]
        .map(|path| server.get(path))
        .into();
    for response in refused {
        assert_eq!(response.status, 401, "{}", response.text());
        assert_eq!(response.headers["www-authenticate"], "Bearer");
        assert_eq!(response.json()["error"]["code"], "invalid_api_key");
    }
}

#[test]
fn named_origins_may_call_from_a_browser() {
    let server = strict_server();
    let origin = ("origin", "https://ok.example");
    let preflight = [origin, ("access-control-request-method", "POST")];
    let response = server.send("OPTIONS", CHAT, &preflight, b"");
    assert_eq!(response.status, 204);
    assert_eq!(response.headers["access-control-allow-origin"], "https://ok.example");
    assert!(response.headers["access-control-allow-headers"].contains("authorization"));
    let response = server.send("GET", "/v1/models", &[origin, ("authorization", "Bearer secret")], b"");
    assert_eq!(response.headers["access-control-allow-origin"], "https://ok.example");
    let other = [("origin", "https://evil.example"), ("authorization", "Bearer secret")];
    let response = server.send("GET", "/v1/models", &other, b"");
    assert!(!response.headers.contains_key("access-control-allow-origin"));
}

#[test]
fn own_pages_and_clients_without_origin_may_post() {
    let server = default_server();
    let body = json!({"content": "a"}).to_string();
    // The second is how Node's fetch calls.
    for header in [("origin", "http://127.0.0.1"), ("sec-fetch-mode", "cors")] {
        let headers = [("content-type", "application/json"), header];
        assert_eq!(server.send("POST", "/tokenize", &headers, body.as_bytes()).status, 200, "{header:?}");
    }
    let named = [
        ("content-type", "application/json"),
        ("origin", "https://ok.example"),
        ("authorization", "Bearer secret"),
    ];
    assert_eq!(strict_server().send("POST", "/tokenize", &named, body.as_bytes()).status, 200);
}

#[test]
fn a_full_queue_is_answered_at_once() {
    let server = strict_server();
    let body = json!({"messages": [{"role": "user", "content": "Count."}], "max_tokens": 3000, "ignore_eos": true,
        "stream": true});
    let headers = [("content-type", "application/json"), ("authorization", "Bearer secret")];
    let bytes = request_bytes("POST", CHAT, &headers, body.to_string().as_bytes());
    let mut clients: Vec<_> = Vec::new();
    let mut refused = None;
    // One runs and two wait; the rest is refused.
    for _ in 0..8 {
        let mut client = server.connect();
        client.write_all(&bytes).expect("taken");
        let mut line = String::new();
        let mut reader = BufReader::new(client);
        // Streams begin with their role at once, so every request has its status now.
        reader.read_line(&mut line).expect("a status line");
        if line.contains("429") {
            refused = Some((line, reader));
            break;
        }
        assert!(line.contains("200"), "{line}");
        clients.push(reader);
    }
    let (line, mut reader) = refused.expect("the queue fills up");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("the answer");
    let text = (line + &rest).to_lowercase();
    assert!(text.contains("retry-after: ") && text.contains("queue_full"), "{text}");
    assert!(clients.len() <= 3, "{} were taken", clients.len());
    assert_eq!(server.get("/live").status, 200);
}

#[test]
fn metrics_count_steps_and_requests() {
    let server = default_server();
    server.post(CHAT, &chat(json!({}))).ok();
    let page = server.get("/metrics").text();
    let value = |name: &str| -> f64 {
        let line =
            page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {page}"));
        line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
    };
    assert!(value("demeanor_steps_total ") > 0.0);
    assert!(value("demeanor_step_rows_total ") >= value("demeanor_steps_total "));
    assert!(value("demeanor_requests_total{route=\"/v1/chat/completions\",status=\"200\"}") >= 1.0);
    assert!(value("demeanor_time_to_first_token_seconds_count") >= 1.0);
    for name in ["demeanor_requests_running ", "demeanor_requests_waiting "] {
        assert!(value(name) >= 0.0);
    }
}

#[test]
fn request_ids_are_echoed() {
    let server = default_server();
    let response = server.send("GET", "/v1/models", &[("x-request-id", "abc-123")], b"");
    assert_eq!(response.headers["x-request-id"], "abc-123");
    assert!(server.get("/nothing").headers["x-request-id"].starts_with("req_"));
}

#[test]
fn curls_own_content_type_is_taken() {
    let body = chat(json!({"max_tokens": 1})).to_string();
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(default_server().send("POST", "/chat/completions", &headers, body.as_bytes()).status, 200);
}

#[test]
fn models_and_tokenizer_answer_while_answers_run() {
    let server = default_server();
    let body = json!({"messages": [{"role": "user", "content": "Count."}], "max_tokens": 500, "ignore_eos": true, "stream": true});
    let clients: Vec<_> = (0..16).map(|_| server.open(CHAT, &body)).collect();
    server.wait_until("sixteen run", |engine| engine.stats().requests_running.load(Ordering::Relaxed) >= 8);
    server.get("/v1/models").ok();
    server.post("/tokenize", &json!({"content": "x ".repeat(5000)})).ok();
    // They answered before the streams could end.
    assert!(server.engine.stats().requests_running.load(Ordering::Relaxed) > 0);
    drop(clients);
}

#[test]
fn hosts_must_be_named_once() {
    let server = default_server();
    for (head, status) in [
        ("GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n", 400),
        ("GET /v1/models HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\nconnection: close\r\n\r\n", 400),
        ("GET /v1/models HTTP/1.1\r\nhost: [::1]:8080\r\nconnection: close\r\n\r\n", 200),
        ("GET /v1/models HTTP/1.1\r\nhost: localhost:8080\r\nconnection: close\r\n\r\n", 200),
        ("GET http://evil.example/v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 421),
        ("GET /v1/models HTTP/1.0\r\n\r\n", 200),
    ] {
        let mut client = server.connect();
        client.write_all(head.as_bytes()).expect("taken");
        let response = read_response(&mut BufReader::new(client)).expect("an answer");
        assert_eq!(response.status, status, "{head}: {}", response.text());
    }
}

#[test]
fn a_body_that_is_declared_too_large_is_refused_unread() {
    let mut client = default_server().connect();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        content-length: 10737418240\r\nexpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).expect("taken");
    let response = read_response(&mut BufReader::new(client)).expect("an answer");
    assert_eq!(response.status, 413, "{}", response.text());
}
