//! Personas over HTTP: stored versions, a persona in any client's model field, what adds up and what is refused.

use crate::harness::{
    Response, Server, Setup, TestModel, chat, content, empty_folder, start, start_over, with,
};
use crate::users;
use demeanor::config::Settings;
use demeanor::users::projector::Form;
use serde_json::{Value, json};
use std::sync::OnceLock;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// Over an empty data folder.
fn settings(name: &str) -> Settings {
    Settings { data_dir: empty_folder(name), ..Setup::new(TestModel::SmolLm2).settings() }
}

/// The server of this module, with a stored vector `mine`.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = start(&settings("personas"));
        upload(&server, "mine", 1.0);
        server
    })
}

/// A vector at block 12 with alternating signs.
fn upload(server: &Server, name: &str, size: f32) {
    let values: Vec<f32> = (0..576).map(|i| if i % 3 == 0 { size } else { -0.5 * size }).collect();
    let body = json!({"name": name, "directions": {"12": values}, "replace": true});
    server.post("/v1/vectors", &body).created();
}

fn create(server: &Server, body: Value) -> Value {
    server.post("/v1/personas", &body).created()
}

fn put(server: &Server, name: &str, body: Value, headers: &[(&str, &str)]) -> Response {
    let all = [&[("content-type", "application/json")], headers].concat();
    server.send("PUT", &format!("/v1/personas/{name}"), &all, body.to_string().as_bytes())
}

fn delete(server: &Server, name: &str) -> Response {
    server.delete(&format!("/v1/personas/{name}"))
}

/// A plan of `dose` times the vector `mine`.
fn plan(dose: f32) -> Value {
    json!([{"vector": "mine", "coefficient": dose, "unit": "dose"}])
}

fn error(response: &Response) -> (u16, String, String, String) {
    let body = response.json();
    let field = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    (response.status, field("code"), field("param"), field("message"))
}

#[test]
fn a_persona_is_made_read_changed_and_removed() {
    let server = server();
    let sent = json!({
        "name": "crud", "system": "You are Ada.", "steering": "0 mine", "soft_prompt": null, "user": null,
        "sampling": {"temperature": 0.7, "top_k": -1, "stop": "END"}, "description": "d",
    });
    let response = server.post("/v1/personas", &sent);
    assert_eq!((response.status, response.headers["etag"].as_str()), (201, "\"1\""), "{}", response.text());
    let made = response.json();
    assert_eq!((&made["name"], &made["version"]), (&json!("crud"), &json!(1)));
    assert_eq!(made["probe"], json!({"status": "unprobed"}));
    assert_eq!(made["model"], "smollm2@crud");
    assert_eq!(made["digest"].as_str().map(str::len), Some(64));
    for (field, value) in [
        ("system", json!("You are Ada.")),
        ("steering", json!("0 mine")),
        ("soft_prompt", Value::Null),
        ("user", Value::Null),
        ("sampling", json!({"temperature": 0.7, "top_k": 0, "stop": ["END"]})),
        ("description", json!("d")),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    assert_eq!(server.get("/v1/personas/crud").ok(), made);

    let again = error(&server.post("/v1/personas", &sent));
    assert_eq!((again.0, again.1.as_str(), again.2.as_str()), (409, "conflict", "name"));
    assert!(again.3.contains("PUT /v1/personas/crud"), "{}", again.3);

    // Fields left out go back to their defaults; every PUT is a new version.
    let response = put(server, "crud", json!({"system": "You are Bob."}), &[("if-match", "\"1\"")]);
    assert_eq!((response.status, response.headers["etag"].as_str()), (200, "\"2\""), "{}", response.text());
    let second = response.json();
    assert_eq!((&second["version"], &second["sampling"]), (&json!(2), &json!({})));
    assert_ne!(second["digest"], made["digest"]);
    let stale = error(&put(server, "crud", json!({}), &[("if-match", "\"1\"")]));
    assert_eq!((stale.0, stale.1.as_str()), (412, "precondition_failed"));
    assert_eq!(put(server, "crud", json!({"system": "You are Bob."}), &[]).json()["version"], 3);
    assert_eq!(server.get("/v1/personas/crud?version=1").ok(), made, "versions never change");

    let removed = delete(server, "crud").ok();
    assert_eq!((&removed["deleted"], &removed["versions"]), (&json!(true), &json!(3)));
    assert_eq!(error(&server.get("/v1/personas/crud")).1, "persona_not_found");
    assert_eq!(error(&delete(server, "crud")).0, 404);
    let made_again = put(server, "crud", json!({}), &[]).created();
    assert_eq!(made_again["version"], 4, "a name that is made again goes on counting");
    delete(server, "crud").ok();
}

#[test]
fn listings_come_in_pages_and_models_name_personas() {
    let server = server();
    for name in ["list-a", "list-b", "list-c"] {
        create(server, json!({"name": name}));
    }
    let page = server.get("/v1/personas?after=list&limit=2").ok();
    let names = |page: &Value| -> Vec<String> {
        page["data"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["name"].as_str().expect("a name").into())
            .collect()
    };
    assert_eq!((names(&page), &page["has_more"]), (vec!["list-a".into(), "list-b".into()], &json!(true)));
    let last = page["last_id"].as_str().expect("a name");
    let rest = server.get(&format!("/v1/personas?after={last}&limit=1")).ok();
    assert_eq!(names(&rest), ["list-c"]);

    let models = server.get("/v1/models").ok();
    let ids: Vec<&str> =
        models["data"].as_array().expect("a list").iter().filter_map(|one| one["id"].as_str()).collect();
    assert_eq!(ids[..3], ["smollm2", "gpt-4o-mini", "M"], "plain names come first");
    assert!(ids.contains(&"smollm2@list-b"), "{ids:?}");
    let few = server.get("/v1/models?limit=0").ok();
    assert_eq!(few["data"].as_array().map(Vec::len), Some(3));
    let one = server.get("/v1/models/smollm2@list-b").ok();
    assert_eq!(one["demeanor"]["persona"], "list-b@1");
    assert_eq!(one["demeanor"]["probe"], "unprobed");
    assert_eq!(error(&server.get("/v1/models/smollm2@list-d")).1, "persona_not_found");
    for name in ["list-a", "list-b", "list-c"] {
        delete(server, name).ok();
    }
}

#[test]
fn a_persona_answers_as_its_parts_do() {
    let server = server();
    let sampling = json!({"temperature": 0.9, "seed": 5, "max_tokens": 9, "stop": ["\n\n\n"]});
    let body = json!({"name": "parts", "system": "Answer in one word.", "steering": plan(0.3), "sampling": sampling});
    create(server, body);
    let messages = json!([{"role": "user", "content": "Name three colours."}]);
    let parts = json!({
        "messages": [{"role": "system", "content": "Answer in one word."}, messages[0]],
        "steering": plan(0.3), "temperature": 0.9, "seed": 5, "max_tokens": 9, "stop": ["\n\n\n"],
    });
    let by_parts = server.post(CHAT, &parts).ok();
    let response = server.post(CHAT, &json!({"model": "smollm2@parts", "messages": messages}));
    assert_eq!(response.headers["x-demeanor-probe"], "unprobed");
    assert_eq!(response.headers["x-demeanor-persona"], "parts@1");
    let by_name = response.ok();
    assert_eq!(content(&by_name), content(&by_parts));
    assert_eq!(by_name["usage"]["completion_tokens"], by_parts["usage"]["completion_tokens"]);
    assert_eq!(by_name["model"], "smollm2@parts");
    let told = &by_name["demeanor"];
    assert_eq!((&told["persona"], &told["probe"]), (&json!("parts@1"), &json!("unprobed")));
    assert_eq!((&told["steering_from"], &told["seed"]), (&json!("persona"), &json!(5)));
    assert_eq!(told["steering"], by_parts["demeanor"]["steering"]);
    assert_eq!(told["vectors"], by_parts["demeanor"]["vectors"]);
    assert!(told["soft_prompt"].is_null());

    // Any carrier, any route.
    for (more, headers) in [
        (json!({"persona": "parts"}), vec![]),
        (json!({"model": "M@parts", "persona": "parts"}), vec![("x-demeanor-persona", "parts")]),
        (json!({"model": "@parts"}), vec![]),
        (json!({}), vec![("x-demeanor-persona", "parts")]),
    ] {
        let body = with(json!({"messages": messages}), more);
        let headers = [&[("content-type", "application/json")], &headers[..]].concat();
        let answer = server.send("POST", CHAT, &headers, body.to_string().as_bytes()).ok();
        assert_eq!(content(&answer), content(&by_name), "{body}");
    }
    let stream = server.post(
        CHAT,
        &json!({"model": "smollm2@parts", "messages": messages, "stream": true, "stream_options": {"include_usage": true}}),
    );
    assert_eq!(stream.headers["x-demeanor-probe"], "unprobed");
    assert_eq!(stream.streamed_text(), content(&by_name));
    let chunks = stream.chunks();
    let told: Vec<&Value> =
        chunks.iter().map(|chunk| &chunk["demeanor"]).filter(|told| told.is_object()).collect();
    assert_eq!(told.len(), 2, "with the finish and with the usage");
    assert!(told.iter().all(|told| **told == by_name["demeanor"]), "{told:?}");

    // In completions a persona is its plan and sampling, not its system text.
    let by_parts = server.post(
        COMPLETIONS,
        &json!({"prompt": "Once", "steering": plan(0.3), "temperature": 0.9, "seed": 5, "max_tokens": 9}),
    );
    let by_name = server.post(COMPLETIONS, &json!({"prompt": "Once", "model": "smollm2@parts"})).ok();
    assert_eq!(by_name["choices"][0]["text"], by_parts.ok()["choices"][0]["text"]);
    assert_eq!(by_name["demeanor"]["persona"], "parts@1");

    // Scores follow it too.
    let score = |body: Value| server.post("/v1/score", &body);
    let by_parts =
        score(json!({"messages": parts["messages"], "steering": plan(0.3), "choices": [" Red"]})).ok();
    let response = score(json!({"messages": messages, "model": "smollm2@parts", "choices": [" Red"]}));
    assert_eq!(response.headers["x-demeanor-probe"], "unprobed");
    let by_name = response.ok();
    assert_eq!(by_name["choices"], by_parts["choices"]);
    assert_eq!(by_name["demeanor"]["persona"], "parts@1");
    delete(server, "parts").ok();
}

#[test]
fn what_a_request_adds_to_a_persona() {
    let server = server();
    create(
        server,
        json!({
            "name": "base", "system": "Be brief.", "steering": plan(0.2), "sampling": {"temperature": 0.9, "seed": 5, "max_tokens": 6},
        }),
    );
    let q = json!({"role": "user", "content": "Name three colours."});
    let messages = |system: Option<&str>| match system {
        None => json!([q]),
        Some(system) => json!([{"role": "system", "content": system}, q]),
    };
    // A request to the persona `base`, and the one without a persona that must give the same text.
    let table = [
        (
            "steering adds up",
            json!({"messages": messages(None), "steering": plan(0.1)}),
            json!({"messages": messages(Some("Be brief.")), "steering": [plan(0.2)[0], plan(0.1)[0]], "temperature": 0.9, "seed": 5, "max_tokens": 6}),
        ),
        (
            "the request's sampling wins",
            json!({"messages": messages(None), "temperature": 0, "max_completion_tokens": 9}),
            json!({"messages": messages(Some("Be brief.")), "steering": plan(0.2), "temperature": 0, "max_tokens": 9}),
        ),
        (
            "null is no wish",
            json!({"messages": messages(None), "temperature": null, "seed": null}),
            json!({"messages": messages(Some("Be brief.")), "steering": plan(0.2), "temperature": 0.9, "seed": 5, "max_tokens": 6}),
        ),
        (
            "the persona's system text comes first",
            json!({"messages": messages(Some("Speak of the sea."))}),
            json!({"messages": messages(Some("Be brief.\n\nSpeak of the sea.")), "steering": plan(0.2), "temperature": 0.9, "seed": 5, "max_tokens": 6}),
        ),
        (
            "an unknown user is nobody",
            json!({"messages": messages(None), "user": "someone", "safety_identifier": "other"}),
            json!({"messages": messages(Some("Be brief.")), "steering": plan(0.2), "temperature": 0.9, "seed": 5, "max_tokens": 6}),
        ),
        (
            "no soft prompt to turn off",
            json!({"messages": messages(None), "soft_prompt": false}),
            json!({"messages": messages(Some("Be brief.")), "steering": plan(0.2), "temperature": 0.9, "seed": 5, "max_tokens": 6}),
        ),
    ];
    for (what, mut request, parts) in table {
        request["persona"] = json!("base");
        let (named, plain) = (server.post(CHAT, &request).ok(), server.post(CHAT, &parts).ok());
        assert_eq!(content(&named), content(&plain), "{what}");
        assert_eq!(named["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"], "{what}");
        assert!(named["demeanor"]["soft_prompt"].is_null(), "{what}");
    }
    // What the answer says about where the steering is from, and what it calls the model.
    let told = |more: Value| {
        let answer = server.post(CHAT, &with(chat(json!({"max_tokens": 1})), more)).ok();
        (
            answer["model"].clone(),
            answer["demeanor"]["steering_from"].clone(),
            answer["demeanor"]["steering"].clone(),
        )
    };
    let base = json!({"vector": "mine", "coefficient": 0.2, "unit": "dose"});
    let list = json!([base, {"vector": "mine", "coefficient": 0.0, "unit": "calibrated"}]);
    assert_eq!(told(json!({"persona": "base"})), (json!("smollm2@base"), json!("persona"), json!([base])));
    assert_eq!(
        told(json!({"persona": "base", "steering": "0 mine"})),
        (json!("smollm2@base"), json!("body"), list.clone())
    );
    assert_eq!(
        told(json!({"persona": "base", "model": "M@(0 mine)"})),
        (json!("smollm2@(0 mine)"), json!("model"), list)
    );
    // Limits hold for the sum.
    let over = error(&server.post(CHAT, &chat(json!({"persona": "base", "steering": plan(0.9)}))));
    assert_eq!((over.0, over.1.as_str()), (400, "dose_exceeded"), "{}", over.3);
    server.post(CHAT, &chat(json!({"steering": plan(0.9), "max_tokens": 1}))).ok();
    let eight = Value::Array(vec![json!({"vector": "mine", "coefficient": 0}); 8]);
    let many = error(&server.post(CHAT, &chat(json!({"persona": "base", "steering": eight}))));
    assert_eq!(
        (many.0, many.1.as_str(), many.2.as_str()),
        (400, "invalid_steering", "steering"),
        "{}",
        many.3
    );
    delete(server, "base").ok();
}

#[test]
fn the_digest_follows_every_part_and_nothing_else() {
    let server = server();
    upload(server, "swap", 1.0);
    let base = json!({
        "system": "You are Ada.", "steering": [{"vector": "swap", "coefficient": 0.1, "unit": "raw"}],
        "sampling": {"temperature": 0.7},
    });
    let digest = |body: &Value| put(server, "digest", body.clone(), &[]).json()["digest"].clone();
    let first = digest(&base);
    assert_eq!(digest(&base), first, "a new version with the same content is the same persona");
    let print = |server: &Server| {
        server.post(CHAT, &chat(json!({"persona": "digest"}))).ok()["system_fingerprint"].clone()
    };
    let first_print = print(server);
    let changed = |field: &str, value: Value| {
        let mut body = base.clone();
        body[field] = value;
        body
    };
    let mut seen = vec![first.clone()];
    for body in [
        changed("system", json!("You are Ada!")),
        changed("system", Value::Null),
        changed("steering", json!([{"vector": "swap", "coefficient": 0.2, "unit": "raw"}])),
        changed(
            "steering",
            json!([{"vector": "swap", "coefficient": 0.1, "unit": "raw", "positions": "response"}]),
        ),
        changed("steering", Value::Null),
        changed("sampling", json!({"temperature": 0.71})),
        changed("sampling", json!({"temperature": 0.7, "top_p": 0.9})),
        changed("sampling", json!({"temperature": 0.7, "stop": ["x"]})),
        changed("sampling", json!({"temperature": 0.7, "seed": 0})),
    ] {
        let digest = digest(&body);
        assert!(!seen.contains(&digest), "{body}");
        assert_ne!(print(server), first_print, "the fingerprint covers the persona: {body}");
        seen.push(digest);
    }
    for same in [changed("description", json!("a text for people")), changed("user", Value::Null)] {
        assert_eq!(digest(&same), first, "{same}");
    }
    assert_eq!(print(server), first_print);
    // The request's own sampling is no part of the fingerprint, its steering is.
    let of = |more: Value| {
        let body = with(chat(json!({"persona": "digest", "max_tokens": 1})), more);
        server.post(CHAT, &body).ok()["system_fingerprint"].clone()
    };
    assert_eq!(of(json!({"temperature": 1.5, "seed": 3, "stop": ["y"], "cache_salt": "s"})), first_print);
    assert_ne!(of(json!({"steering": plan(0.1)})), first_print);
    // The condition digest covers sampling, ends and salt too.
    let condition = |more: Value| {
        let body = with(chat(json!({"persona": "digest", "max_tokens": 1, "seed": 1})), more);
        server.post(CHAT, &body).ok()["demeanor"]["condition"].clone()
    };
    let mut seen = vec![condition(json!({}))];
    assert_eq!(
        condition(json!({"cache_prompt": false, "messages": [{"role": "user", "content": "x"}]})),
        seen[0]
    );
    for more in [
        json!({"temperature": 0.1}),
        json!({"seed": 2}),
        json!({"logit_bias": {"5": 1}}),
        json!({"stop": ["y"]}),
        json!({"max_tokens": 2}),
        json!({"cache_salt": "s"}),
        json!({"steering": plan(0.1)}),
        json!({"add_generation_prompt": false}),
        json!({"persona": null}),
    ] {
        let condition = condition(more.clone());
        assert!(!seen.contains(&condition), "{more}");
        seen.push(condition);
    }
    // A vector made again under its name changes the persona without a new version of it.
    let version = server.get("/v1/personas/digest").ok()["version"].clone();
    upload(server, "swap", 1.5);
    let now = server.get("/v1/personas/digest").ok();
    assert_eq!(now["version"], version);
    assert_ne!(now["digest"], first);
    assert_ne!(print(server), first_print);
    // Without the vector there is no digest, and it says why.
    assert_eq!(server.delete("/v1/vectors/swap").status, 200);
    let gone = server.get("/v1/personas/digest").ok();
    assert!(
        gone["digest"].is_null() && gone["digest_note"].as_str().is_some_and(|why| why.contains("`swap`")),
        "{gone}"
    );
    let refused = error(&server.post(CHAT, &chat(json!({"persona": "digest"}))));
    assert_eq!((refused.0, refused.1.as_str(), refused.2.as_str()), (404, "vector_not_found", "persona"));
    delete(server, "digest").ok();
}

#[test]
fn a_restart_keeps_every_byte() {
    let settings = settings("personas-restart");
    let body = json!({"name": "ada", "system": "You are Ada.", "steering": plan(0.3), "sampling": {"temperature": 0.9, "seed": 3}});
    let ask = |server: &Server| {
        let answer = server
            .post(CHAT, &json!({"model": "smollm2@ada", "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 16}))
            .ok();
        (answer["choices"].clone(), answer["demeanor"].clone())
    };
    let first = start(&settings);
    upload(&first, "mine", 1.0);
    create(&first, body);
    let persona = first.get("/v1/personas/ada").ok();
    let before = ask(&first);
    users::drop_and_wait(first);
    let second = start(&settings);
    assert_eq!(second.get("/v1/personas/ada").ok(), persona);
    assert_eq!(ask(&second), before);
}

#[test]
fn a_running_answer_outlives_its_persona() {
    let server = server();
    create(server, json!({"name": "brief", "system": "Tell a long story.", "steering": plan(0.1)}));
    let body = json!({"model": "smollm2@brief", "messages": [{"role": "user", "content": "Begin."}],
        "max_tokens": 40, "temperature": 0, "ignore_eos": true, "stream": true});
    let alone = server.post(CHAT, &body).streamed_text();
    let mut stream = std::io::BufReader::new(server.open(CHAT, &body));
    server.wait_until("it runs", |engine| {
        engine.stats().requests_running.load(std::sync::atomic::Ordering::Relaxed) > 0
    });
    delete(server, "brief").ok();
    let response = crate::harness::read_response(&mut stream).expect("a response comes");
    assert_eq!(response.streamed_text(), alone);
}

#[test]
fn bad_personas_are_refused_as_stated() {
    let server = server();
    create(server, json!({"name": "taken"}));
    let long_system = "x".repeat((64 << 10) + 1);
    let long_text = "x".repeat((4 << 10) + 1);
    let rows = [
        (json!({}), 400, "missing_field", "name", "missing"),
        (json!({"name": 1}), 400, "invalid_value", "name", "must be a string"),
        (json!({"name": ""}), 400, "invalid_value", "name", "[a-z0-9]"),
        (json!({"name": "Ada"}), 400, "invalid_value", "name", "`Ada`"),
        (json!({"name": "../ada"}), 400, "invalid_value", "name", "no name"),
        (json!({"name": "a".repeat(65)}), 400, "invalid_value", "name", "no name"),
        (json!({"name": "taken"}), 409, "conflict", "name", "version 1"),
        (json!({"name": "x", "sistem": "s"}), 400, "unknown_field", "sistem", "`system`"),
        (json!({"name": "x", "system": 1}), 400, "invalid_value", "system", "must be a string"),
        (json!({"name": "x", "system": long_system}), 400, "invalid_value", "system", "at most 65536"),
        (json!({"name": "x", "description": long_text}), 400, "invalid_value", "description", "at most 4096"),
        (json!({"name": "x", "steering": "0.8 warm +"}), 400, "invalid_steering", "steering", "at byte"),
        (json!({"name": "x", "steering": 3}), 400, "invalid_steering", "steering", "expected a string"),
        (json!({"name": "x", "steering": "1 mime"}), 404, "vector_not_found", "steering", "nearest: `mine`"),
        (json!({"name": "x", "steering": plan(2.0)}), 400, "dose_exceeded", "steering", "above the limit"),
        (json!({"name": "x", "steering": "!mine"}), 400, "unsupported", "steering", "not supported yet"),
        (
            json!({"name": "x", "steering": [{"directions": {"1": [1.0]}}]}),
            400,
            "invalid_steering",
            "steering[0].directions",
            "POST /v1/vectors",
        ),
        (json!({"name": "x", "soft_prompt": "poet"}), 404, "soft_prompt_not_found", "soft_prompt", "`poet`"),
        (json!({"name": "x", "soft_prompt": false}), 400, "invalid_value", "soft_prompt", "a name or null"),
        (json!({"name": "x", "soft_prompt": "poet", "user": "u1"}), 400, "invalid_value", "user", "`poet`"),
        (json!({"name": "x", "user": "../u1"}), 400, "invalid_value", "user", "no user id"),
        (json!({"name": "x", "sampling": []}), 400, "invalid_value", "sampling", "must be an object"),
        (
            json!({"name": "x", "sampling": {"temperature": 2.5}}),
            400,
            "invalid_value",
            "sampling.temperature",
            "allowed 0 to 2",
        ),
        (
            json!({"name": "x", "sampling": {"top_p": 0}}),
            400,
            "invalid_value",
            "sampling.top_p",
            "out of range",
        ),
        (
            json!({"name": "x", "sampling": {"temperatur": 1}}),
            400,
            "unknown_field",
            "sampling.temperatur",
            "`temperature`",
        ),
        (json!({"name": "x", "sampling": {"n": 2}}), 400, "unknown_field", "sampling.n", "no such"),
        (
            json!({"name": "x", "sampling": {"stop": [1]}}),
            400,
            "invalid_value",
            "sampling.stop[0]",
            "must be a string",
        ),
    ];
    for (body, status, code, param, part) in rows {
        let (got_status, got_code, got_param, message) = error(&server.post("/v1/personas", &body));
        let shown: String = body.to_string().chars().take(120).collect();
        assert_eq!(
            (got_status, got_code.as_str(), got_param.as_str()),
            (status, code, param),
            "{shown}: {message}"
        );
        assert!(message.contains(part), "{shown}: {message}");
    }
    let send = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let headers = [&[("content-type", "application/json")], headers].concat();
        let response = server.send(method, path, &headers, body.as_bytes());
        let (status, code, param, _) = error(&response);
        (status, code, param)
    };
    let said = |status: u16, code: &str, param: &str| (status, code.to_owned(), param.to_owned());
    let rows = [
        (send("PUT", "/v1/personas/Ada", &[], "{}"), said(400, "invalid_value", "name")),
        (send("PUT", "/v1/personas/a%2Fb", &[], "{}"), said(400, "invalid_value", "name")),
        (send("PUT", "/v1/personas/taken", &[], "{\"name\":\"other\"}"), said(400, "invalid_value", "name")),
        (send("PUT", "/v1/personas/taken", &[], "[]"), said(400, "invalid_json", "")),
        (
            send("PUT", "/v1/personas/taken", &[("if-match", "\"7\"")], "{}"),
            said(412, "precondition_failed", "if-match"),
        ),
        (
            send("PUT", "/v1/personas/none", &[("if-match", "*")], "{}"),
            said(412, "precondition_failed", "if-match"),
        ),
        (
            send("PUT", "/v1/personas/taken", &[("if-match", "1")], "{}"),
            said(400, "invalid_value", "if-match"),
        ),
        (
            send("DELETE", "/v1/personas/taken", &[("if-match", "\"7\"")], ""),
            said(412, "precondition_failed", "if-match"),
        ),
        (send("DELETE", "/v1/personas/none", &[], ""), said(404, "persona_not_found", "name")),
        (send("GET", "/v1/personas/takem", &[], ""), said(404, "persona_not_found", "name")),
        (send("GET", "/v1/personas/taken?version=2", &[], ""), said(404, "persona_not_found", "version")),
        (send("GET", "/v1/personas/taken?version=x", &[], ""), said(400, "invalid_value", "version")),
        (send("GET", "/v1/personas/taken?v=1", &[], ""), said(400, "unknown_field", "v")),
        (send("GET", "/v1/personas?limit=0", &[], ""), said(400, "invalid_value", "limit")),
        (send("GET", "/v1/models?limit=x", &[], ""), said(400, "invalid_value", "limit")),
        (send("PATCH", "/v1/personas/taken", &[], "{}"), said(405, "method_not_allowed", "")),
    ];
    for (index, (got, expected)) in rows.into_iter().enumerate() {
        assert_eq!(got, expected, "row {index}");
    }
    // In a chat.
    let rows = [
        (json!({"model": "smollm2@takem"}), 404, "persona_not_found", "model", "nearest: `taken`"),
        (json!({"persona": "takem"}), 404, "persona_not_found", "persona", "`takem`"),
        (json!({"model": "smollm2@taken", "persona": "other"}), 400, "invalid_value", "persona", "`taken`"),
        (json!({"persona": 1}), 400, "invalid_value", "persona", "must be a string"),
        (
            json!({"persona": "taken", "soft_prompt": 1}),
            400,
            "invalid_value",
            "soft_prompt",
            "a name or false",
        ),
        (
            json!({"persona": "taken", "soft_prompt": "poet"}),
            404,
            "soft_prompt_not_found",
            "soft_prompt",
            "`poet`",
        ),
        (json!({"persona": "taken", "user": 7}), 400, "invalid_value", "user", "must be a string"),
    ];
    for (more, status, code, param, part) in rows {
        let (got_status, got_code, got_param, message) = error(&server.post(CHAT, &chat(more.clone())));
        assert_eq!(
            (got_status, got_code.as_str(), got_param.as_str()),
            (status, code, param),
            "{more}: {message}"
        );
        assert!(message.contains(part), "{more}: {message}");
    }
    assert_eq!(server.get("/v1/personas/taken").ok()["version"], 1, "nothing of this left a mark");
    assert_eq!(error(&server.get("/v1/personas/x")).0, 404);
    delete(server, "taken").ok();
}

/// Users `u1` and `u2` with histories, soft prompts `poet` and `bard`, personas of each kind; the second server takes
/// the user from a header.
fn people() -> [Server; 2] {
    let folder = Box::leak(Box::new(users::Folder::new("personas")));
    let settings = folder.settings(Form::Static);
    let data = demeanor::app::DataFolder::open(&settings.data_dir).expect("the data folder opens");
    let trusting = Settings { user_header: Some("X-Demeanor-User".into()), ..settings.clone() };
    let servers = [&settings, &trusting].map(|settings| start_over(settings, &data));
    servers.iter().for_each(|server| drop(server.context().encoder.wait().expect("the encoder loads")));
    let server = &servers[0];
    for (id, texts) in
        [("u1", ["I love the sea.", "I sail on Sundays."]), ("u2", ["I paint walls.", "I hate noise."])]
    {
        users::create(server, id);
        users::add(server, id, &texts);
    }
    for (name, value) in [("poet", 0.01), ("bard", -0.01)] {
        let rows: Vec<Vec<f64>> =
            (0..2).map(|row| (0..576).map(|i| value * f64::from((i + row) % 5)).collect()).collect();
        server.post("/v1/soft_prompts", &json!({"name": name, "rows": rows})).created();
    }
    create(server, json!({"name": "plain"}));
    create(server, json!({"name": "of-poet", "soft_prompt": "poet"}));
    create(server, json!({"name": "of-u1", "user": "u1"}));
    servers
}

#[test]
fn one_soft_prompt_of_all_that_is_offered() {
    let [server, trusting] = people();
    let ask = |server: &Server, more: Value, header: Option<&str>| {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(header.map(|user| ("x-demeanor-user", user)));
        server.send("POST", CHAT, &headers, chat(more).to_string().as_bytes())
    };
    // Fields, then the label of the soft prompt, or the two things that a refusal names.
    /// What answers - the label, or none -, or the two that a refusal names.
    type Outcome = Result<Option<&'static str>, [&'static str; 2]>;
    let table: [(Value, Outcome); 19] = [
        (json!({"persona": "plain"}), Ok(None)),
        (json!({"user": "u1"}), Ok(Some("u1"))),
        (json!({"persona": "plain", "safety_identifier": "u1"}), Ok(Some("u1"))),
        (json!({"user": "u1", "safety_identifier": "u1"}), Ok(Some("u1"))),
        (json!({"user": "session-77", "safety_identifier": "u2"}), Ok(Some("u2"))),
        (json!({"user": "u1", "safety_identifier": "u2"}), Err(["`u1`", "`u2`"])),
        (json!({"user": "u1", "soft_prompt": false}), Ok(None)),
        (json!({"soft_prompt": "poet"}), Ok(Some("poet"))),
        (json!({"soft_prompt": "poet", "user": "nobody"}), Ok(Some("poet"))),
        (json!({"soft_prompt": "poet", "user": "u1"}), Err(["`poet`", "`u1`"])),
        (json!({"persona": "of-poet"}), Ok(Some("poet"))),
        (json!({"persona": "of-poet", "soft_prompt": "poet"}), Ok(Some("poet"))),
        (json!({"persona": "of-poet", "soft_prompt": "bard"}), Err(["`poet`", "`bard`"])),
        (json!({"persona": "of-poet", "user": "u1"}), Err(["`poet`", "`u1`"])),
        (json!({"persona": "of-poet", "user": "u1", "soft_prompt": false}), Ok(None)),
        (json!({"persona": "of-u1"}), Ok(Some("u1"))),
        (json!({"persona": "of-u1", "user": "u1"}), Ok(Some("u1"))),
        (json!({"persona": "of-u1", "user": "u2"}), Err(["`u1`", "`u2`"])),
        (json!({"persona": "of-u1", "user": "nobody"}), Ok(Some("u1"))),
    ];
    let mut texts = std::collections::BTreeMap::new();
    for (more, expected) in table {
        let response = ask(&server, more.clone(), None);
        match expected {
            Ok(name) => {
                let answer = response.ok();
                let told = &answer["demeanor"];
                let label = told["soft_prompt"].as_str();
                assert_eq!(label.and_then(|label| label.split('@').next()), name, "{more}: {told}");
                let rows = match name {
                    None => 0,
                    Some("poet") => 2,
                    Some(_) => 4,
                };
                assert_eq!(told["soft_prompt_rows"], rows, "{more}");
                let first = texts.entry(name).or_insert_with(|| content(&answer).to_owned());
                assert_eq!(content(&answer), first.as_str(), "{more}: one soft prompt, one answer");
            }
            Err(both) => {
                let (status, code, _, message) = error(&response);
                assert_eq!((status, code.as_str()), (400, "invalid_value"), "{more}: {message}");
                assert!(both.iter().all(|part| message.contains(part)), "{more}: {message}");
            }
        }
    }
    let mut different: Vec<&String> = texts.values().collect();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 4, "none, u1, u2 and poet: {texts:?}");
    // Where no header is trusted, ours is one more place to say who asks.
    for (more, name) in
        [(json!({}), "u2"), (json!({"user": "u2"}), "u2"), (json!({"persona": "plain"}), "u2")]
    {
        let told = ask(&server, more.clone(), Some("u2")).ok()["demeanor"]["soft_prompt"].clone();
        assert_eq!(told.as_str().and_then(|label| label.split('@').next()), Some(name), "{more}");
    }
    // With a trusted header the body says nothing about who asks.
    for (more, header, name) in [
        (json!({"user": "u1"}), None, None),
        (json!({"user": "u1"}), Some("u2"), Some("u2")),
        (json!({"user": "u1", "safety_identifier": "u2"}), Some("nobody"), None),
        (json!({"persona": "of-u1"}), Some("u1"), Some("u1")),
    ] {
        let told = ask(&trusting, more.clone(), header).ok()["demeanor"]["soft_prompt"].clone();
        assert_eq!(told.as_str().and_then(|label| label.split('@').next()), name, "{more} {header:?}");
    }
    // A persona's digest follows its soft prompt.
    let digest = |name: &str| server.get(&format!("/v1/personas/{name}")).ok()["digest"].clone();
    let before = [digest("plain"), digest("of-poet"), digest("of-u1")];
    let rows = json!([vec![0.02; 576]]);
    server.post("/v1/soft_prompts", &json!({"name": "poet", "rows": rows, "replace": true})).created();
    users::add(&server, "u1", &["I left the sea."]);
    let after = [digest("plain"), digest("of-poet"), digest("of-u1")];
    assert_eq!(after[0], before[0]);
    assert!(after[1] != before[1] && after[2] != before[2]);
    // What is gone: a deleted user leaves every persona that named them, a named soft prompt is an error as a vector is.
    assert_eq!(server.delete("/v1/users/u1").status, 200);
    assert_eq!(server.delete("/v1/soft_prompts/poet").status, 200);
    let told = ask(&server, json!({"persona": "of-u1"}), None).ok()["demeanor"].clone();
    assert!(told["soft_prompt"].is_null(), "{told}");
    assert_eq!(told["warnings"], json!([]));
    assert_eq!(server.get("/v1/personas/of-u1").ok()["user"], Value::Null);
    let gone = error(&ask(&server, json!({"persona": "of-poet"}), None));
    assert_eq!((gone.0, gone.1.as_str(), gone.2.as_str()), (404, "soft_prompt_not_found", "persona"));
    ask(&server, json!({"persona": "of-poet", "soft_prompt": false}), None).ok();
}
