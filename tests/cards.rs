//! Character cards over HTTP and the command line: imported, chatted with, exported, refused; lorebook entries in chats.

use crate::harness::{Response, Server, chat, default_server, demeanor, done, folder, with};
use serde_json::{Value, json};
use std::path::PathBuf;

const CHAT: &str = "/v1/chat/completions";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cards").join(name)
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Uploads a fixture under a name of the test's own, in place of what an earlier run left.
fn import(server: &Server, file: &str, name: &str) -> Value {
    server.delete(&format!("/v1/personas/{name}"));
    let bytes = fixture(file);
    server.upload("/v1/personas", &[("file", &bytes), ("name", name.as_bytes())]).created()
}

/// The prompt of one chat with a persona, as text.
fn prompt(server: &Server, persona: &str, messages: Value) -> String {
    let answer = server.post("/apply-template", &json!({"persona": persona, "messages": messages})).ok();
    answer["prompt"].as_str().expect("a text").to_owned()
}

fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

fn error(response: &Response) -> (u16, String, String) {
    let body = response.json();
    let field = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    (response.status, field("code"), field("message"))
}

#[test]
fn a_card_is_imported_and_chatted_with() {
    let server = default_server();
    let made = import(server, "mira_both.png", "card-chat");
    assert_eq!(made["character"], json!({"name": "Mira", "lorebook_entries": 6}));
    assert_eq!(made["greetings"].as_array().map(Vec::len), Some(3));
    assert_eq!(made["card"].as_str().map(str::len), Some(64));
    assert!(made["notes"].to_string().contains("unclosed"), "{}", made["notes"]);
    assert_eq!(made["description"], "A quiet character; works best with short answers.");

    // What a chat is read as: constant text, the entry it calls for, the client's words, the last words.
    let read = prompt(server, "card-chat", user("Is the lamp on?"));
    let at = |words: &str| read.find(words).unwrap_or_else(|| panic!("`{words}` is not in {read}"));
    let order = [
        "Write the next reply of Mira in this chat with User.",
        "Mira keeps the lighthouse",
        "The year is 1887.",
        "The lamp burns whale oil",
        "Is the lamp on?",
        "[Stay in the year of the story.",
    ]
    .map(at);
    assert!(order.is_sorted(), "{order:?}");
    assert!(!read.contains("creator") && !read.contains("quiet character"), "{read}");
    let without = prompt(server, "card-chat", user("Is the door shut?"));
    assert!(!without.contains("whale oil") && without.contains("1887"), "{without}");

    // The same over the model's name: the entry's tokens are in the prompt where its key occurs, and only there.
    let ask = |text: &str| {
        let body =
            json!({"model": "smollm2@card-chat", "messages": user(text), "max_tokens": 4, "temperature": 0});
        server.post(CHAT, &body).ok()
    };
    let tokens = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().expect("a count");
    let (fired, quiet) = (ask("Is the lamp on?"), ask("Is the door on?"));
    assert_eq!(fired["demeanor"]["persona"], format!("card-chat@{}", made["version"]));
    let count = |text: &str| {
        let answer = server.post("/tokenize", &json!({"content": text})).ok();
        answer["count"].as_u64().expect("a count")
    };
    let entries = "\n\nThe lamp burns whale oil and is called Old Ansel.\n\nAnsel was Mira's brother; he drowned off the north reef.";
    let grown = tokens(&fired) - tokens(&quiet);
    // Words at the seams may become other tokens.
    assert!(grown.abs_diff(count(entries)) <= 3, "{grown} of {}", count(entries));
    // What is constant is read once.
    let again = ask("Is the lamp dark?");
    let cached = again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count");
    assert!(cached > 100, "{cached} of {}", tokens(&again));

    // A name that a client gives stands where the card has a place for it.
    let named = json!([{"role": "user", "name": "Bo", "content": "Hi"}]);
    assert!(prompt(server, "card-chat", named).contains("Bo has been washed ashore"));
    server.delete("/v1/personas/card-chat").ok();
}

#[test]
fn a_card_is_part_of_what_a_report_binds_to() {
    let server = default_server();
    let made = import(server, "mira_v2.json", "card-digest");
    let digest = |persona: &Value| persona["digest"].as_str().expect("a digest").to_owned();
    let put = |body: Value| {
        let headers = [("content-type", "application/json")];
        server.send("PUT", "/v1/personas/card-digest", &headers, body.to_string().as_bytes()).ok()
    };
    let system = &made["system"];
    // The card is kept by its digest; without it the same text is another persona.
    let kept = put(json!({"card": made["card"], "sampling": {"temperature": 0.5}}));
    assert_eq!((&kept["card"], &kept["system"]), (&made["card"], system));
    assert_ne!(digest(&kept), digest(&made), "the sampling differs");
    assert_eq!(digest(&put(json!({"card": made["card"]}))), digest(&made));
    let mut changed = server.get("/v1/personas/card-digest/card?format=given").ok();
    changed["data"]["character_book"]["entries"][0]["content"] = json!("Another thing.");
    let other = put(json!({"card": changed}));
    assert_eq!(&other["system"], system);
    assert_ne!(digest(&other), digest(&made), "one entry differs");
    let bare = put(json!({"system": system}));
    assert_eq!(bare["card"], Value::Null);
    assert_ne!(digest(&bare), digest(&made));
    let stale = server.post("/v1/personas", &json!({"name": "card-stale", "card": made["card"]}));
    assert_eq!(error(&stale).0, 400, "{}", stale.text());
    server.delete("/v1/personas/card-digest").ok();
}

#[test]
fn hostile_files_are_refused() {
    let server = default_server();
    let table = [
        ("bad_crc.png", 422, "invalid_card"),
        ("bad_length.png", 422, "invalid_card"),
        ("bad_base64.png", 422, "invalid_card"),
        ("bad_bomb.png", 413, "body_too_large"),
        ("bad_bomb.charx", 413, "body_too_large"),
        ("bad_traversal.charx", 422, "invalid_card"),
        ("bad_no_card.charx", 422, "invalid_card"),
        ("bad_deep.json", 422, "invalid_card"),
        ("bad_duplicate.json", 422, "invalid_card"),
        ("bad_spec.json", 422, "invalid_card"),
        ("bad_version.json", 422, "invalid_card"),
        ("bad_surrogate.json", 422, "invalid_card"),
        ("bad_type.json", 422, "invalid_card"),
        ("bad_book.json", 422, "invalid_card"),
        ("bad_adapter.modelfile", 422, "invalid_card"),
    ];
    for (name, status, code) in table {
        let bytes = fixture(name);
        let response = server.upload("/v1/personas", &[("file", &bytes), ("name", b"card-bad")]);
        let (found, found_code, message) = error(&response);
        assert_eq!((found, found_code.as_str()), (status, code), "{name}: {message}");
        assert!(message.starts_with("`file`: "), "{name}: {message}");
        let output = demeanor(&[
            "persona",
            "import",
            &path(name).display().to_string(),
            "--name",
            "card-bad",
            "--server",
            &format!("http://{}", server.address),
        ]);
        assert_eq!(output.status.code(), Some(65), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let huge = json!({"name": "x", "first_mes": "", "description": "d".repeat(10 << 20)}).to_string();
    let parts: [(&[u8], &str, u16); 3] = [
        (huge.as_bytes(), "card-bad", 413),
        (b"{\"name\": \"\xe6\x97\xa5\", \"first_mes\": \"\"}", "", 400),
        (b"{\"name\": \"x\", \"first_mes\": \"\"}", "No Name", 400),
    ];
    for (file, name, status) in parts {
        let response = server.upload("/v1/personas", &[("file", file), ("name", name.as_bytes())]);
        assert_eq!(response.status, status, "{}", response.text());
    }
    assert_eq!(server.get("/v1/personas/card-bad").status, 404);
    assert_eq!(server.post("/v1/personas", &json!({"name": "card-bad", "card": {}})).status, 422);
}

#[test]
fn cards_go_out_and_come_back_by_the_command_line() {
    let server = default_server();
    let at = format!("http://{}", server.address);
    let persona = |arguments: &[&str]| done(&[&["persona"], arguments, &["--server", &at]].concat());
    for name in ["card-out", "card-back"] {
        server.delete(&format!("/v1/personas/{name}"));
    }
    let charx = path("mira_v3.charx").display().to_string();
    let (said, noted) = persona(&["import", &charx, "--name", "card-out"]);
    assert!(said.starts_with("card-out: CHARX archive: system text of"), "{said}");
    assert!(noted.contains("cannot be used and matches nothing"), "{noted}");
    persona(&["set", "card-out", "--steering", "0 warm", "--temperature", "0.7"]);
    let shown = server.get("/v1/personas/card-out").ok();
    assert_eq!(shown["character"]["lorebook_entries"], 6, "a change keeps the card");

    let out = |name: &str| folder("cards").join(name).display().to_string();
    let image = path("mira_v2.png").display().to_string();
    let (json, v2, v3, png) = (out("out.json"), out("v2.json"), out("v3.json"), out("out.png"));
    persona(&["export", "card-out", "--out", &json]);
    persona(&["export", "card-out", "--format", "card-v2", "--out", &v2]);
    persona(&["export", "card-out", "--format", "card-v3", "--out", &v3]);
    persona(&["export", "card-out", "--format", "card-v3", "--image", &image, "--out", &png]);
    for file in [&json, &v2, &v3, &png] {
        let (_, noted) = persona(&["import", file, "--name", "card-back", "--replace"]);
        assert!(!noted.contains("differs"), "{file}: {noted}");
        let back = server.get("/v1/personas/card-back").ok();
        assert_eq!(back["digest"], shown["digest"], "{file}");
        for field in ["system", "steering", "sampling", "description", "greetings", "character"] {
            assert_eq!(back[field], shown[field], "{file}: {field}");
        }
    }
    let modelfile = path("Modelfile").display().to_string();
    let refused = demeanor(&["persona", "import", &modelfile, "--server", &at]);
    assert_eq!(refused.status.code(), Some(65), "{}", String::from_utf8_lossy(&refused.stderr));
    persona(&["import", &modelfile, "--name", "card-back", "--replace"]);
    let back = server.get("/v1/personas/card-back").ok();
    assert_eq!(back["sampling"]["repetition_penalty"], 1.1);
    assert_eq!(back["sampling"]["stop"], json!(["<|eot|>", "Keeper:"]));
    let answer = server.post(CHAT, &chat(json!({"persona": "card-back"}))).ok();
    assert!(answer["usage"]["prompt_tokens"].as_u64() > Some(40), "{answer}");
    for name in ["card-out", "card-back"] {
        server.delete(&format!("/v1/personas/{name}")).ok();
    }
}

#[test]
fn a_persona_without_a_card_reads_as_before() {
    let server = default_server();
    server.delete("/v1/personas/card-none");
    let body = json!({"name": "card-none", "system": "You are {{char}}."});
    server.post("/v1/personas", &body).created();
    let read = prompt(server, "card-none", user("Hi"));
    assert!(read.contains("You are {{char}}."), "{read}");
    let exported = server.get("/v1/personas/card-none/card").ok();
    assert_eq!(exported["data"]["description"], "You are {{char}}.");
    let with_persona =
        with(json!({"messages": user("Hi"), "max_tokens": 1}), json!({"persona": "card-none"}));
    assert_eq!(server.post(CHAT, &with_persona).status, 200);
    server.delete("/v1/personas/card-none").ok();
}
