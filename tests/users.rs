//! Users: history over HTTP, soft prompts made of it, export, and deletion that leaves nothing.

use crate::encoder::encoder;
use crate::harness::{self, Server, Setup, TestModel, content, read_response, with};
use demeanor::config::Settings;
use demeanor::digest::Digest;
use demeanor::users::projector::{Form, Layer, Parts, Projector};
use demeanor::users::{UserPrompt, Users};
use demeanor::weights::ModelFile;
use demeanor::weights::safetensors::StoredType;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const K: usize = 4;
const D_MODEL: usize = 576;
const WIDTH: usize = 384;

/// Numbers between -1 and 1 that look random and never change.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A projector of nobody's training: rows that clearly depend on the history.
fn projector(form: Form) -> Projector {
    static DIGESTS: OnceLock<(Digest, Digest)> = OnceLock::new();
    let (weights, encoder) = *DIGESTS.get_or_init(|| {
        let model = ModelFile::open(&TestModel::SmolLm2.path()).expect("the model opens");
        (model.digest(), encoder().digest())
    });
    let inputs = form.input_width(WIDTH);
    let scaled = |values: Vec<f32>, factor: f32| values.into_iter().map(|value| value * factor).collect();
    let parts = Parts {
        form,
        k: K,
        d_model: D_MODEL,
        e: WIDTH,
        constant: scaled(noise(1, K * D_MODEL), 0.2),
        centre: vec![0.0; inputs],
        scale: 20.0,
        layers: vec![Layer {
            weight: scaled(noise(2, K * D_MODEL * inputs), 0.05),
            bias: vec![0.0; K * D_MODEL],
        }],
        query: if form == Form::InputAware { noise(3, WIDTH * WIDTH) } else { Vec::new() },
        temperature: 1.0,
        static_mean: vec![0.0; WIDTH],
        variance_between: 4.0,
        variance_within: 4.0,
        n0: 0.0,
        n_min: 1.0,
        cap: 3.0,
        weights,
        encoder,
        encoder_name: "all-minilm-l6-v2".into(),
        data: Digest::of(b"none"),
        recipe: "noise".into(),
    };
    Projector::from_parts(&parts, StoredType::F32).expect("the parts fit")
}

/// A data folder of its own, removed at the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("users-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the folder can be made");
        Folder(folder)
    }

    pub fn settings(&self, form: Form) -> Settings {
        let file = self.0.join("projector.safetensors");
        fs::write(&file, projector(form).write()).expect("the projector is written");
        let data_dir = self.0.join("data");
        Settings { data_dir, projector: Some(file), ..Setup::new(TestModel::SmolLm2).settings() }
    }

    /// Files of the data folder that hold `bytes`.
    fn files_with(&self, bytes: &[u8]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.join("data")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("readable") {
                let path = entry.expect("readable").path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => {
                        let content = fs::read(&path).expect("readable");
                        if content.windows(bytes.len()).any(|window| window == bytes) {
                            found.push(path);
                        }
                    }
                }
            }
        }
        found
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The server that most tests of this file share; each has its own users.
fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| {
        let folder = Box::leak(Box::new(Folder::new("shared")));
        started(&folder.settings(Form::Static))
    })
}

/// With the encoder there, so that few items are embedded at once.
pub fn started(settings: &Settings) -> Server {
    let server = harness::start(settings);
    server.context().encoder.wait().expect("the encoder loads");
    server
}

pub fn create(server: &Server, id: &str) {
    server.post("/v1/users", &json!({"id": id})).created();
}

pub fn add(server: &Server, id: &str, texts: &[&str]) -> Value {
    let items: Vec<Value> = texts.iter().map(|text| json!({"text": text})).collect();
    server.post(&format!("/v1/users/{id}/history"), &json!({"items": items})).ok()
}

fn chat(user: Option<&str>) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": "What should I do on Sunday?"}],
        "max_tokens": 24, "seed": 5, "temperature": 0.8,
    });
    if let Some(user) = user {
        body["user"] = user.into();
    }
    body
}

/// Text and `demeanor` of an answer.
fn answer(server: &Server, body: &Value) -> (String, Value) {
    let answer = server.post("/v1/chat/completions", body).ok();
    (content(&answer).to_owned(), answer["demeanor"].clone())
}

fn rows_of(users: &Users, id: &str) -> (Vec<f32>, Digest) {
    match users.prompt_for(id, None) {
        UserPrompt::Ready { rows, owner, .. } => (rows.values().to_vec(), owner),
        other => panic!("{id}: {other:?}"),
    }
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn a_history_makes_a_soft_prompt_that_every_change_renews() {
    let server = shared();
    let plain = answer(server, &chat(None));
    let stranger = answer(server, &chat(Some("nobody-of-this-name")));
    assert_eq!(plain.0, stranger.0, "an unknown user is served plainly");
    assert_eq!(stranger.1["soft_prompt"], Value::Null);
    assert_eq!(stranger.1["warnings"], json!([]));

    create(server, "ana");
    let (empty, demeanor) = answer(server, &chat(Some("ana")));
    assert_eq!(demeanor["soft_prompt"], "ana@0");
    assert!(demeanor["warnings"].to_string().contains("no user effect expected"), "{demeanor}");
    assert_ne!(empty, plain.0);

    let added = add(server, "ana", &["I sail every weekend.", "My boat is blue."]);
    assert_eq!(added, json!({"added": 2, "duplicates": 0, "total": 2, "embedded": 2, "version": 1}));
    let (first, demeanor) = answer(server, &chat(Some("ana")));
    assert_eq!((&demeanor["soft_prompt"], &demeanor["soft_prompt_rows"]), (&json!("ana@1"), &json!(K)));
    assert_eq!(demeanor["warnings"], json!([]));
    assert_eq!(answer(server, &chat(Some("ana"))).0, first);

    // Items that are there already change nothing.
    let again = add(server, "ana", &["I sail every weekend."]);
    assert_eq!(again, json!({"added": 0, "duplicates": 1, "total": 2, "embedded": 2, "version": 1}));

    add(server, "ana", &["I hate rain."]);
    let rows = rows_of(&server.context().users, "ana").0;
    let (second, demeanor) = answer(server, &chat(Some("ana")));
    assert_eq!(demeanor["soft_prompt"], "ana@2");
    // The third item goes: the soft prompt is the one before, under a new version.
    let page = server.get("/v1/users/ana/history?after=2").ok();
    assert_eq!((&page["data"][0]["text"], &page["has_more"]), (&json!("I hate rain."), &json!(false)));
    let item = page["data"][0]["id"].as_str().expect("an id").to_owned();
    let removed = server.delete(&format!("/v1/users/ana/history/{item}")).ok();
    assert_eq!(removed["removed"]["items"], 1);
    assert_eq!(removed["removed"]["embeddings"], 1);
    assert_ne!(rows_of(&server.context().users, "ana").0, rows);
    let (third, demeanor) = answer(server, &chat(Some("ana")));
    assert_eq!(demeanor["soft_prompt"], "ana@3");
    assert_eq!(third, first, "made from the same items");
    assert_ne!(second, first);

    let off = with(chat(Some("ana")), json!({"soft_prompt": false}));
    let (text, demeanor) = answer(server, &off);
    assert_eq!((text, &demeanor["soft_prompt"]), (plain.0, &Value::Null));
}

#[test]
fn users_are_listed_and_shown_in_pages() {
    let server = shared();
    for id in ["page-1", "page-2", "page-3"] {
        create(server, id);
    }
    let again = server.post("/v1/users", &json!({"id": "page-1"}));
    assert_eq!((again.status, again.json()["error"]["code"].as_str()), (409, Some("conflict")));
    let page = server.get("/v1/users?after=page-&limit=2").ok();
    let ids: Vec<&str> =
        page["data"].as_array().expect("a list").iter().filter_map(|user| user["id"].as_str()).collect();
    assert_eq!(
        (ids, &page["has_more"], &page["last_id"]),
        (vec!["page-1", "page-2"], &json!(true), &json!("page-2"))
    );
    let user = server.get("/v1/users/page-3").ok();
    let (items, version) = (&user["items"], &user["version"]);
    assert_eq!((items, version, &user["soft_prompt"]["effect"]), (&json!(0), &json!(0), &json!(false)));
    // Ids as accounts have them travel in paths percent-encoded.
    create(server, "auth0|ana@example.org");
    assert_eq!(server.get("/v1/users/auth0%7Cana%40example.org").ok()["id"], "auth0|ana@example.org");
}

#[test]
fn json_lines_make_the_same_history_as_json() {
    let server = shared();
    create(server, "lines");
    create(server, "array");
    let items = [
        json!({"text": "I like tea", "time": "2026-01-02T03:04:05+01:00", "kind": "message", "session": "s1"}),
        json!({"text": "no", "input": "Coffee?", "kind": "answered", "weight": -0.5, "dwell": 2.5}),
        json!({"text": "A note", "time": 1_700_000_000, "kind": "wrote", "source": "diary"}),
    ];
    let lines: String = items.iter().map(|item| format!("{item}\r\n\n")).collect();
    let headers = [("content-type", "application/x-ndjson; charset=utf-8")];
    let added = server.send("POST", "/v1/users/lines/history", &headers, lines.as_bytes()).ok();
    assert_eq!(added["added"], 3);
    server.post("/v1/users/array/history", &json!({"items": items})).ok();
    let history = |id: &str| {
        let mut data = server.get(&format!("/v1/users/{id}/history")).ok()["data"].clone();
        data.as_array_mut().expect("a list").iter_mut().for_each(|item| {
            item.as_object_mut().expect("an object").remove("created");
        });
        data
    };
    assert_eq!(history("lines"), history("array"));
    assert_eq!(
        history("lines")[0],
        json!({"id": "1", "text": "I like tea", "kind": "said", "weight": 1.0, "time": "2026-01-02T02:04:05Z", "session": "s1"})
    );
    let rows = |id: &str| rows_of(&server.context().users, id).0;
    assert_eq!(rows("lines"), rows("array"));
}

#[test]
fn a_long_history_is_embedded_in_the_background() {
    let server = shared();
    create(server, "long");
    let texts: Vec<String> = (0..80).map(|i| format!("Note number {i} about the garden.")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let added = add(server, "long", &texts);
    assert_eq!((&added["total"], &added["embedded"]), (&json!(80), &json!(0)));
    server.wait_until("the background work", |_| server.get("/v1/users/long").ok()["embedded"] == 80);
    server.wait_until("the soft prompt", |_| {
        server.get("/v1/users/long").ok()["soft_prompt"]["label"] == "long@1"
    });
}

#[test]
fn an_export_holds_everything() {
    let server = shared();
    create(server, "export");
    add(server, "export", &["I collect stamps.", "Mostly from Peru."]);
    let (rows, _) = rows_of(&server.context().users, "export");
    let response = server.get("/v1/users/export/export");
    assert_eq!((response.status, response.headers["content-type"].as_str()), (200, "application/zip"));
    let mut zip = zip::ZipArchive::new(Cursor::new(response.body)).expect("a zip");
    let mut file = |name: &str| {
        let mut content = Vec::new();
        zip.by_name(name).expect("it is there").read_to_end(&mut content).expect("readable");
        content
    };
    let user: Value = serde_json::from_slice(&file("user.json")).expect("JSON");
    assert_eq!((&user["id"], &user["items"], &user["version"]), (&json!("export"), &json!(2), &json!(1)));
    let history = String::from_utf8(file("history.jsonl")).expect("text");
    let texts: Vec<Value> = history
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["text"].clone())
        .collect();
    assert_eq!(texts, ["I collect stamps.", "Mostly from Peru."]);
    let embeddings = file("embeddings.safetensors");
    let tensors = safetensors::SafeTensors::deserialize(&embeddings).expect("safetensors");
    let encoder = user["encoders"][0].as_str().expect("a digest");
    assert_eq!(tensors.tensor(encoder).expect("by the encoder's digest").shape(), [2, WIDTH]);
    let prompts = file("soft_prompt.safetensors");
    let tensors = safetensors::SafeTensors::deserialize(&prompts).expect("safetensors");
    let weights = user["soft_prompts"][0]["weights"].as_str().expect("a digest");
    let tensor = tensors.tensor(weights).expect("by the digest of the weights");
    assert_eq!((tensor.shape(), tensor.data()), (&[K, D_MODEL][..], &little_endian(&rows)[..]));
    // What was exported can be sent again.
    create(server, "imported");
    let lines: String = history
        .lines()
        .map(|line| {
            let mut item: Value = serde_json::from_str(line).expect("JSON");
            for name in ["id", "created"] {
                item.as_object_mut().expect("an object").remove(name);
            }
            format!("{item}\n")
        })
        .collect();
    let headers = [("content-type", "application/jsonl")];
    server.send("POST", "/v1/users/imported/history", &headers, lines.as_bytes()).ok();
    assert_eq!(rows_of(&server.context().users, "imported").0, rows);
}

/// Reads events of a stream until `done` says so; true when it did.
fn read_events(reader: &mut impl BufRead, mut done: impl FnMut(&str) -> bool) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).expect("readable") == 0 {
            return false;
        }
        if let Some(event) = line.trim_end().strip_prefix("data: ")
            && done(event)
        {
            return true;
        }
    }
}

fn streamed(user: &str, tokens: u32) -> Value {
    with(chat(Some(user)), json!({"stream": true, "max_tokens": tokens, "ignore_eos": true}))
}

#[test]
fn a_deleted_user_leaves_nothing_and_nobody_else_notices() {
    const CANARY: &str = "zq7-canary-of-the-victim";
    let folder = Folder::new("deleted");
    let server = started(&folder.settings(Form::Static));
    let users = server.context().users.clone();
    for id in ["victim", "witness"] {
        create(&server, id);
    }
    add(&server, "victim", &[&format!("My word is {CANARY}."), "I like trains."]);
    add(&server, "witness", &["I like trains too."]);
    let linked = json!({"name": "linked", "user": "victim"});
    server.post("/v1/personas", &linked);
    let (rows, owner) = rows_of(&users, "victim");
    let needle = little_endian(&rows[..16]);
    let embedding = {
        let encoder = server.context().encoder.wait().expect("it is loaded");
        little_endian(&encoder.embed(&["I like trains."]).expect("it works")[0][..16])
    };
    // A stream of the witness while nobody is deleted.
    let mut reader = BufReader::new(server.open("/v1/chat/completions", &streamed("witness", 150)));
    let expected = read_response(&mut reader).expect("a stream").streamed_text();
    // One whole answer of the victim leaves pages in the cache.
    let prompt = "Tell me all about trains and timetables. ".repeat(20);
    let mut body = chat(Some("victim"));
    body["messages"][0]["content"] = prompt.into();
    answer(&server, &body);
    assert!(server.engine.owner_pages(owner) > 0, "the search can find pages");
    for (what, bytes) in [("text", CANARY.as_bytes()), ("rows", &needle), ("embedding", &embedding)] {
        assert!(!folder.files_with(bytes).is_empty(), "the search can find the {what}");
    }

    let mut victim = BufReader::new(server.open("/v1/chat/completions", &streamed("victim", 3000)));
    let witness = server.open("/v1/chat/completions", &streamed("witness", 150));
    assert!(read_events(&mut victim, |event| event.contains("\"content\"")), "the victim's answer runs");
    let receipt = server.delete("/v1/users/victim").ok();
    assert_eq!(
        receipt["removed"],
        json!({
            "items": 2, "embeddings": 2, "soft_prompts": 1, "reports": 0, "jobs": 0, "persona_versions": 1,
        })
    );
    assert_eq!(receipt["requests_ended"], 1);
    assert_eq!(server.get("/v1/personas/linked").ok()["user"], Value::Null);
    assert_eq!(folder.files_with(b"victim"), Vec::<PathBuf>::new(), "not even the name");
    assert!(receipt["kv_pages_cleared"].as_u64() > Some(0), "{receipt}");

    // From here on nothing of theirs is anywhere.
    assert_eq!(server.engine.owner_pages(owner), 0);
    for (what, bytes) in [("text", CANARY.as_bytes()), ("rows", &needle), ("embedding", &embedding)] {
        assert_eq!(folder.files_with(bytes), Vec::<PathBuf>::new(), "{what}");
    }
    // The stream ends with an error that says why, and then as streams end.
    let mut error = None;
    let mut is_done = false;
    read_events(&mut victim, |event| {
        match event {
            "[DONE]" => is_done = true,
            event => {
                let event: Value = serde_json::from_str(event).expect("JSON");
                error = event.get("error").cloned().or(error.take());
            }
        }
        is_done
    });
    let error = error.expect("an error event");
    assert!(is_done);
    assert_eq!(error["code"], "user_deleted", "{error}");

    let seen = read_response(&mut BufReader::new(witness)).expect("a stream").streamed_text();
    assert_eq!(seen, expected, "the witness's answer is the same, bit for bit");
    assert_eq!(server.get("/v1/users/victim").status, 404);
    assert_eq!(server.get("/v1/users/victim/export").status, 404);
    assert_eq!(server.delete("/v1/users/victim").status, 404);
    assert_eq!(answer(&server, &chat(Some("victim"))), {
        let (text, mut demeanor) = answer(&server, &chat(None));
        demeanor["seed"] = 5.into();
        (text, demeanor)
    });
    // Whoever comes under the old name is somebody new.
    create(&server, "victim");
    add(&server, "victim", &["I like trains."]);
    let (_, demeanor) = answer(&server, &chat(Some("victim")));
    assert_eq!((&demeanor["soft_prompt"], &demeanor["warnings"]), (&json!("victim@1"), &json!([])));
}

#[test]
fn what_is_on_its_way_does_not_bring_a_deleted_user_back() {
    let folder = Folder::new("late");
    let server = started(&folder.settings(Form::Static));
    let users = server.context().users.clone();
    for round in 0..8 {
        create(&server, "late");
        // A large part, embedded in the background, and small ones embedded at once; then the deletion in between.
        let texts: Vec<String> = (0..100).map(|i| format!("late-canary {round} {i}")).collect();
        add(&server, "late", &texts.iter().map(String::as_str).collect::<Vec<_>>());
        let held = match users.prompt_for("late", None) {
            UserPrompt::Ready { owner, .. } => Some(owner),
            _ => None,
        };
        let writer = std::thread::spawn({
            let users = users.clone();
            move || {
                let now = demeanor::users::now();
                for i in 0..20 {
                    let item = json!({"text": format!("late-canary small {round} {i}")});
                    let Value::Object(map) = item else { unreachable!() };
                    let item = demeanor::users::NewItem::from_json(map, "", now).expect("it is valid");
                    if users.add("late", vec![item]).is_err() {
                        return;
                    }
                }
            }
        });
        server.delete("/v1/users/late").ok();
        writer.join().expect("it ends");
        assert_eq!(server.get("/v1/users/late").status, 404);
        if let Some(owner) = held {
            assert_eq!(server.engine.owner_pages(owner), 0);
        }
        create(&server, "late");
        let user = server.get("/v1/users/late").ok();
        assert_eq!((&user["items"], &user["embedded"]), (&json!(0), &json!(0)), "round {round}");
        add(&server, "late", &["A new life."]);
        let export = users.export("late").expect("it is there");
        assert!(!String::from_utf8_lossy(&export).contains("late-canary"));
        let (rows, _) = rows_of(&users, "late");
        server.delete("/v1/users/late").ok();
        create(&server, "late");
        add(&server, "late", &["A new life."]);
        assert_eq!(rows_of(&users, "late").0, rows);
        server.delete("/v1/users/late").ok();
        assert_eq!(folder.files_with(b"late-canary"), Vec::<PathBuf>::new(), "round {round}");
    }
}

#[test]
fn a_restart_keeps_the_bytes_and_the_loose_ends() {
    let folder = Folder::new("restart");
    let settings = folder.settings(Form::Static);
    let server = started(&settings);
    create(&server, "ana");
    add(&server, "ana", &["I sail every weekend.", "My boat is blue."]);
    let before = answer(&server, &chat(Some("ana")));
    drop_and_wait(server);
    // A prompt that is stored needs no encoder.
    let server = harness::start(&Settings { encoder: Some("/nowhere".into()), ..settings.clone() });
    assert_eq!(answer(&server, &chat(Some("ana"))), before);
    let added = add(&server, "ana", &["I also ski."]);
    assert_eq!((&added["total"], &added["embedded"]), (&json!(3), &json!(2)));
    let (text, demeanor) = answer(&server, &chat(Some("ana")));
    assert_eq!((text, &demeanor["soft_prompt"]), (before.0, &json!("ana@1")), "the last whole history");
    create(&server, "bob");
    add(&server, "bob", &["Hello."]);
    let (_, demeanor) = answer(&server, &chat(Some("bob")));
    assert_eq!(demeanor["soft_prompt"], Value::Null);
    let warnings = demeanor["warnings"].to_string();
    assert!(warnings.contains("1 of 1 history items are not embedded yet"), "{warnings}");
    drop_and_wait(server);
    // With the encoder there again, what was left over is embedded.
    let server = harness::start(&settings);
    server.wait_until("the soft prompt", |_| {
        server.get("/v1/users/ana").ok()["soft_prompt"]["label"] == "ana@2"
            && server.get("/v1/users/bob").ok()["soft_prompt"]["label"] == "bob@1"
    });
}

/// A data folder is free again when the server's threads have let go of it.
pub fn drop_and_wait(server: Server) {
    let folder = server.context().settings.data_dir.clone();
    drop(server);
    let begin = std::time::Instant::now();
    while demeanor::store::Store::open(&folder).is_err() {
        assert!(begin.elapsed().as_secs() < 60, "the data folder stays locked");
        std::thread::yield_now();
    }
}

#[test]
fn an_input_aware_projector_looks_at_the_request() {
    let folder = Folder::new("aware");
    let server = started(&folder.settings(Form::InputAware));
    create(&server, "ana");
    add(&server, "ana", &["I sail every weekend.", "I bake bread at night."]);
    let ask = |question: &str| {
        let users = &server.context().users;
        match users.prompt_for("ana", Some(question)) {
            UserPrompt::Ready { rows, effect, label, .. } => (rows, effect, label),
            other => panic!("{other:?}"),
        }
    };
    let (boats, effect, label) = ask("Which boat?");
    assert_eq!((effect, label.as_str()), (true, "ana@1"));
    assert_ne!(boats, ask("Which flour?").0);
    assert_eq!(boats, ask("Which boat?").0);
    let (_, demeanor) = answer(&server, &chat(Some("ana")));
    assert_eq!((&demeanor["soft_prompt"], &demeanor["warnings"]), (&json!("ana@1"), &json!([])));
}

/// Method, path, content type, body, status, code, parameter, part of the message.
type Bad = (
    &'static str,
    &'static str,
    &'static str,
    Vec<u8>,
    u16,
    &'static str,
    Option<&'static str>,
    &'static str,
);

#[test]
fn bad_requests_over_the_user_routes_are_refused_as_stated() {
    let server = shared();
    create(server, "bad");
    add(server, "bad", &["Here before."]);
    let before = server.get("/v1/users/bad").ok();
    const JSON: &str = "application/json";
    const LINES: &str = "application/jsonl";
    const HISTORY: &str = "/v1/users/bad/history";
    let items = |item: Value| json!({"items": [{"text": "good"}, item]}).to_string().into_bytes();
    let million = || {
        let mut body = b"{\"items\":[".to_vec();
        body.extend(b"{\"text\":\"x\"},".repeat(1_000_000));
        body.extend(b"{\"text\":\"x\"}]}");
        body
    };
    let rows: Vec<Bad> = vec![
        ("POST", "/v1/users", JSON, b"{}".to_vec(), 400, "missing_field", Some("id"), "missing"),
        ("POST", "/v1/users", JSON, b"{\"id\":7}".to_vec(), 400, "invalid_value", Some("id"), "a string"),
        (
            "POST",
            "/v1/users",
            JSON,
            b"{\"id\":\"../x\"}".to_vec(),
            400,
            "invalid_value",
            Some("id"),
            "ids match",
        ),
        ("POST", "/v1/users", JSON, b"{\"id\":\"\"}".to_vec(), 400, "invalid_value", Some("id"), "ids match"),
        (
            "POST",
            "/v1/users",
            JSON,
            b"{\"id\":\"a\",\"name\":\"b\"}".to_vec(),
            400,
            "unknown_field",
            Some("name"),
            "knows `id`",
        ),
        ("POST", "/v1/users", JSON, b"{\"id\":\"bad\"}".to_vec(), 409, "conflict", None, "already"),
        ("GET", "/v1/users?limit=0", JSON, vec![], 400, "invalid_value", Some("limit"), "1 to 1000"),
        ("GET", "/v1/users?limit=x", JSON, vec![], 400, "invalid_value", Some("limit"), "whole numbers"),
        ("GET", "/v1/users?page=2", JSON, vec![], 400, "unknown_field", Some("page"), "after, limit"),
        ("GET", "/v1/users/never-seen", JSON, vec![], 404, "user_not_found", None, "no user `never-seen`"),
        ("GET", "/v1/users/%2e%2e%2fetc", JSON, vec![], 400, "invalid_value", Some("id"), "ids match"),
        ("GET", "/v1/users/%ff", JSON, vec![], 400, "bad_request", None, "UTF-8"),
        ("DELETE", "/v1/users/never-seen", JSON, vec![], 404, "user_not_found", None, "no user"),
        ("PUT", "/v1/users/bad", JSON, b"{}".to_vec(), 405, "method_not_allowed", None, "PUT"),
        ("GET", "/v1/users/never-seen/export", JSON, vec![], 404, "user_not_found", None, "no user"),
        ("GET", "/v1/users/never-seen/history", JSON, vec![], 404, "user_not_found", None, "no user"),
        (
            "GET",
            "/v1/users/bad/history?after=-1",
            JSON,
            vec![],
            400,
            "invalid_value",
            Some("after"),
            "whole numbers",
        ),
        (
            "DELETE",
            "/v1/users/bad/history/999",
            JSON,
            vec![],
            404,
            "history_item_not_found",
            None,
            "no history item `999`",
        ),
        (
            "DELETE",
            "/v1/users/bad/history/x",
            JSON,
            vec![],
            404,
            "history_item_not_found",
            None,
            "no history item `x`",
        ),
        (
            "DELETE",
            "/v1/users/bad/history/+1",
            JSON,
            vec![],
            404,
            "history_item_not_found",
            None,
            "no history item",
        ),
        (
            "POST",
            "/v1/users/never-seen/history",
            JSON,
            items(json!({"text": "a"})),
            404,
            "user_not_found",
            None,
            "POST /v1/users",
        ),
        ("POST", HISTORY, JSON, b"{\"items\":[]}".to_vec(), 400, "invalid_value", Some("items"), "no item"),
        ("POST", HISTORY, JSON, b"{}".to_vec(), 400, "missing_field", Some("items"), "missing"),
        ("POST", HISTORY, JSON, b"{\"items\":{}}".to_vec(), 400, "invalid_value", Some("items"), "an array"),
        (
            "POST",
            HISTORY,
            JSON,
            b"{\"items\":[\"a\"]}".to_vec(),
            400,
            "invalid_value",
            Some("items[0]"),
            "an object",
        ),
        (
            "POST",
            HISTORY,
            JSON,
            b"{\"items\":[{\"text\":\"a\"}],\"partial\":true}".to_vec(),
            400,
            "unknown_field",
            Some("partial"),
            "knows",
        ),
        (
            "POST",
            HISTORY,
            JSON,
            items(json!({"text": "a", "weight": 2})),
            400,
            "invalid_value",
            Some("items[1].weight"),
            "allowed -1 to 1",
        ),
        (
            "POST",
            HISTORY,
            JSON,
            b"{\"items\":[{\"text\":\"a\",\"weight\":NaN}]}".to_vec(),
            400,
            "invalid_json",
            Some("items"),
            "not valid JSON",
        ),
        (
            "POST",
            HISTORY,
            JSON,
            items(json!({"text": "a", "dwell": -1})),
            400,
            "invalid_value",
            Some("items[1].dwell"),
            "out of range",
        ),
        (
            "POST",
            HISTORY,
            JSON,
            items(json!({"text": "a", "time": "soon"})),
            400,
            "invalid_value",
            Some("items[1].time"),
            "RFC 3339",
        ),
        (
            "POST",
            HISTORY,
            JSON,
            items(json!({"text": "a", "time": 99_999_999_999i64})),
            400,
            "invalid_value",
            Some("items[1].time"),
            "future",
        ),
        (
            "POST",
            HISTORY,
            JSON,
            items(json!({"text": "a", "kind": "sang"})),
            400,
            "invalid_value",
            Some("items[1].kind"),
            "no kind `sang`",
        ),
        (
            "POST",
            HISTORY,
            JSON,
            items(json!({"text": "  "})),
            400,
            "invalid_value",
            Some("items[1].text"),
            "not blank",
        ),
        (
            "POST",
            HISTORY,
            JSON,
            items(json!({"text": "x".repeat(65_537)})),
            400,
            "invalid_value",
            Some("items[1].text"),
            "at most 65536",
        ),
        (
            "POST",
            HISTORY,
            JSON,
            items(json!({"text": "a", "embedding": [1.0]})),
            400,
            "unknown_field",
            Some("items[1].embedding"),
            "knows text",
        ),
        ("POST", HISTORY, JSON, million(), 413, "body_too_large", None, "in parts"),
        (
            "POST",
            HISTORY,
            JSON,
            format!("{{\"items\":[{}]}}", vec!["{\"text\":\"x\"}"; 10_001].join(",")).into_bytes(),
            413,
            "body_too_large",
            Some("items"),
            "more than 10000 items",
        ),
        (
            "POST",
            HISTORY,
            LINES,
            b"{\"text\":\"x\"}\n".repeat(10_001),
            413,
            "body_too_large",
            Some("items"),
            "more than 10000 items",
        ),
        (
            "POST",
            HISTORY,
            LINES,
            b"{\"text\":\"a\"}\n{\"text\":\"b\",\"weight\":7}".to_vec(),
            400,
            "invalid_value",
            Some("items[1].weight"),
            "line 2",
        ),
        (
            "POST",
            HISTORY,
            LINES,
            b"{\"text\":\"a\"}\nnot json".to_vec(),
            400,
            "invalid_json",
            Some("items[1]"),
            "line 2",
        ),
        (
            "POST",
            HISTORY,
            "text/csv",
            b"text\na".to_vec(),
            415,
            "unsupported_media_type",
            None,
            "application/json",
        ),
    ];
    let mut faults = Vec::new();
    for (method, path, kind, body, status, code, param, message) in &rows {
        let response = server.send(method, path, &[("content-type", kind)], body);
        let error = &response.json()["error"];
        let said = error["message"].as_str().unwrap_or_default();
        let right = response.status == *status
            && error["code"] == *code
            && error["param"].as_str() == *param
            && said.contains(message);
        if !right {
            faults.push(format!("{method} {path}: {} {error}", response.status));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(server.get("/v1/users/bad").ok(), before, "nothing of a refused request is kept");
}
