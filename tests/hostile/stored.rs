//! What is stored of characters: personas and their cards.

use super::numbers::direction;
use super::routes::nested;
use super::{Row, get, post, upload};
use crate::harness::with;
use serde_json::{Value, json};
use std::path::Path;

pub fn rows() -> Vec<Row> {
    [personas(), cards()].into_iter().flatten().collect()
}

fn personas() -> Vec<Row> {
    let path = "/v1/personas";
    let named = |name: &str| {
        post(
            "T052",
            &format!("a persona called {name:.20}"),
            path,
            json!({"name": name}),
            "400 invalid_value",
        )
    };
    let with_fields = |input: &str, more: Value, expected: &str| {
        post("", input, path, with(json!({"name": "hostile"}), more), expected)
    };
    let long = "x".repeat(65);
    let mut rows: Vec<Row> =
        ["../../x", "..%2f", "a/b", "CON", "a\0b", "Ａ", "", &long].into_iter().map(named).collect();
    rows.extend([
        with_fields("an unknown field", json!({"template": "{{ 1 }}"}), "400 unknown_field"),
        with_fields("a system text of 900 KB", json!({"system": "x".repeat(900_000)}), "400|413|422"),
        with_fields(
            "inline directions",
            json!({"steering": [{"directions": {"15": direction(1.0)}}]}),
            "400",
        ),
        with_fields(
            "sampling that is none",
            json!({"sampling": {"temperature": "hot"}}),
            "400 invalid_value",
        ),
        with_fields(
            "sampling of another kind",
            json!({"sampling": {"logit_bias": {"1": 100}}}),
            "400 unknown_field",
        ),
        with_fields("a user and a soft prompt", json!({"user": "ada", "soft_prompt": "x"}), "400|404|422"),
        with_fields("a user with a path for a name", json!({"user": "../x"}), "400"),
        with_fields("a card 60 deep", json!({"card": nested(60)}), "400|422"),
        get("", "/v1/personas/hostile", "404 persona_not_found"),
    ]);
    rows
}

fn cards() -> Vec<Row> {
    let card = |input: &str, bytes: &[u8], expected: &str| {
        upload("", input, "/v1/personas", &[("name", b"hostile-card"), ("file", bytes)], expected)
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cards");
    let mut names: Vec<String> = std::fs::read_dir(folder.clone())
        .expect("the fixtures")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("bad_"))
        .collect();
    names.sort();
    let mut rows: Vec<Row> = names
        .iter()
        .map(|name| {
            let expected =
                if name.starts_with("bad_bomb") { "413 body_too_large" } else { "422 invalid_card" };
            card(name, &std::fs::read(folder.join(name)).expect("a fixture"), expected)
        })
        .collect();
    let book = |entries: Value| {
        json!({"spec": "chara_card_v2", "spec_version": "2.0", "data": {"name": "x", "character_book": {"entries": entries}}}).to_string()
    };
    let entry = |keys: Value| json!({"keys": keys, "content": "x", "enabled": true, "insertion_order": 1});
    rows.extend([
        card(
            "a lorebook of 20000 entries",
            book(json!(vec![entry(json!(["a"])); 20_000])).as_bytes(),
            "413|422",
        ),
        card("an entry of 10000 keys", book(json!([entry(json!(vec!["a"; 10_000]))])).as_bytes(), "413|422"),
        card("a card of nothing", b"", "400|422"),
        card("a PNG of one chunk", b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIHDR", "422 invalid_card"),
        card("a zip cut short", b"PK\x03\x04\x14\0\0\0\x08\0", "422 invalid_card"),
        card(
            "a Modelfile that reads a file",
            b"FROM /etc/passwd\nTEMPLATE \"\"\"{{ .System }}\"\"\"\nSYSTEM hi",
            "200|201|422",
        ),
        card("HTML", b"<!doctype html><script>alert(1)</script>", "422 invalid_card"),
    ]);
    rows
}
