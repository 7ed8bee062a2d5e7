//! A person's answers become a persona over HTTP and from the command line; what cannot become one is refused.

use crate::harness::{Server, Setup, TestModel, start};
use demeanor::config::Settings;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let settings = Setup::new(TestModel::SmolLm2).settings();
        start(&Settings { data_dir: folder("align"), ..settings })
    })
}

/// An inventory of our own: the first items of a shipped one, so that its measurement takes seconds.
fn inventory(items: usize) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/inventories/ipip-neo-120.json");
    let text = std::fs::read_to_string(path).expect("the inventory is there");
    let mut inventory: Value = serde_json::from_str(&text).expect("JSON");
    inventory["name"] = json!("short");
    let list = inventory["items"].as_array_mut().expect("items");
    list.truncate(items);
    list.iter_mut().skip(50).for_each(|item| item["known"] = json!(false));
    inventory
}

/// Somebody who is very extraverted and never in between.
fn extravert(inventory: &Value) -> Vec<u8> {
    let items = inventory["items"].as_array().expect("items");
    let answer = |(i, item): (usize, &Value)| match (item["domain"].as_str(), item["key"].as_i64()) {
        (Some("E"), Some(1)) => 5,
        (Some("E"), _) => 1,
        _ if i % 2 == 0 => 4,
        _ => 2,
    };
    items.iter().enumerate().map(answer).collect()
}

/// The end of a request's job, with all that was told on the way.
fn run(server: &Server, body: &Value) -> (Value, Vec<Value>) {
    let response = server.post("/v1/align", body);
    assert_eq!(response.status, 202, "{}", response.text());
    let job = response.json()["job"].clone();
    assert_eq!((&job["kind"], &job["state"]), (&json!("align"), &json!("queued")));
    let events = server.get(&format!("/v1/jobs/{}/events", job["id"].as_str().expect("an id"))).events();
    let events: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    (events.last().expect("an end").clone(), events)
}

fn done(server: &Server, body: &Value) -> Value {
    let (last, _) = run(server, body);
    assert_eq!(last["state"], "done", "{last}");
    last["result"].clone()
}

/// Log-probabilities of the reply's tokens.
fn reply(server: &Server, model: &str) -> Value {
    let body = json!({
        "model": model, "messages": [{"role": "user", "content": "How do you spend a free evening?"}],
        "max_tokens": 8, "temperature": 0, "logprobs": true,
    });
    server.post("/v1/chat/completions", &body).ok()["choices"][0]["logprobs"]["content"].clone()
}

#[test]
fn answers_become_a_persona() {
    let server = server();
    let inventory = inventory(60);
    let answers = extravert(&inventory);
    let body = |name: &str, more: &[(&str, Value)]| {
        let mut body = json!({"name": name, "inventory": inventory, "answers": answers});
        more.iter().for_each(|(field, value)| body[*field] = value.clone());
        body
    };
    let (last, events) = run(server, &body("ada", &[("system", json!("You are Ada."))]));
    assert_eq!(last["state"], "done", "{last}");
    let told: Vec<&str> = events.iter().filter_map(|event| event["message"].as_str()).collect();
    assert!(told.iter().any(|message| message.contains("asking the model")), "{told:?}");
    let result = &last["result"];
    assert_eq!((&result["persona"], &result["version"]), (&json!("ada"), &json!(1)));
    assert_eq!((&result["probe"], &result["algorithm"]), (&json!("unprobed"), &json!("ridge")));
    assert_eq!((&result["coefficient"], &result["answered"]), (&json!(1), &json!(60)));
    let curve = result["curve"].as_array().expect("a curve");
    let score = |at: usize| curve[at]["score"].as_f64().expect("a score");
    assert!(curve.len() >= 3 && curve[0]["coefficient"] == 0.0 && curve[2]["coefficient"] == 1.0);
    assert!(score(2) < score(0), "the answers come nearer: {curve:?}");
    for whose in ["person", "before", "after"] {
        let domains = result["domains"][whose].as_object().expect("domains");
        assert_eq!(domains.keys().collect::<Vec<_>>(), ["O", "C", "E", "A", "N"], "{whose}");
    }
    let extraversion = |whose: &str| result["domains"][whose]["E"].as_f64().expect("a mean");
    assert!(extraversion("after") > extraversion("before"), "{result}");
    assert!(result["norm_cap"].as_f64().is_some_and(|cap| cap > 0.0), "{result}");

    let persona = server.get("/v1/personas/ada").ok();
    assert_eq!(
        (&persona["system"], &persona["probe"]["status"]),
        (&json!("You are Ada."), &json!("unprobed"))
    );
    assert_eq!(persona["steering"], json!([{"vector": "ada.alignment", "coefficient": 1.0, "unit": "raw"}]));
    let vector = server.get("/v1/vectors/ada.alignment").ok();
    assert_eq!((&vector["hook"], &vector["origin"]["kind"]), (&json!("attn"), &json!("alignment")));
    assert_eq!(vector["blocks"][0], 10, "the first third is left alone: {vector}");
    let list = server.get("/v1/vectors").ok();
    assert!(list["data"].as_array().expect("a list").contains(&vector));
    // What no other format can say is refused in them.
    assert_eq!(server.get("/v1/vectors/ada.alignment/file").status, 200);
    let gguf = server.get("/v1/vectors/ada.alignment/file?format=gguf");
    assert_eq!(gguf.status, 422, "{}", gguf.text());

    let (plain, aligned) = (reply(server, "smollm2"), reply(server, "smollm2@ada"));
    assert_ne!(plain, aligned, "the persona speaks otherwise");
    // The same without its system text: so it is the vector that does it.
    done(server, &body("ada-silent", &[]));
    assert_ne!(reply(server, "smollm2@ada-silent"), plain);

    let again = server.post("/v1/align", &body("ada", &[]));
    assert_eq!((again.status, &again.json()["error"]["code"]), (409, &json!("conflict")));
    // The vector of a persona that is gone is made again.
    assert_eq!(server.send("DELETE", "/v1/personas/ada", &[], b"").status, 200);
    let second = done(server, &body("ada", &[]));
    assert_eq!(second["version"], 2);
    assert!(second["seconds"]["once"].as_f64().is_some_and(|once| once < 1.0), "measured before: {second}");

    // Too few answers for a person: people in general, and it is said.
    let few: Map<String, Value> = (1..=12).map(|item| (item.to_string(), json!(1 + item % 5))).collect();
    let general = done(server, &json!({"name": "few", "inventory": inventory, "answers": few}));
    assert_eq!(general["algorithm"], "population");
    assert!(general["warnings"][0].as_str().is_some_and(|text| text.contains("in general")), "{general}");

    // The published search: heads with their scores, and nothing moved where nothing helps.
    for (name, protocol) in [("pas-honest", "honest"), ("pas-paper", "paper")] {
        let result = done(server, &body(name, &[("algorithm", json!("pas")), ("protocol", json!(protocol))]));
        assert_eq!((&result["algorithm"], &result["protocol"]), (&json!("pas"), &json!(protocol)));
        let moved = result["found"]["alpha"] != 0.0;
        assert_eq!(result["vector"].is_string(), moved, "{result}");
        assert_eq!(result["found"]["heads"].as_array().map(Vec::len), Some(24));
        assert_eq!(server.get(&format!("/v1/vectors/{name}.alignment")).status == 200, moved);
    }
}

#[test]
fn what_cannot_become_a_persona() {
    let server = server();
    let inventory = inventory(60);
    let answers = json!(extravert(&inventory));
    let good = json!({"name": "bad", "inventory": inventory, "answers": answers});
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    let without = |field: &str| {
        let mut body = good.clone();
        body.as_object_mut().expect("an object").remove(field);
        body
    };
    let answered = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut list = answers.as_array().expect("a list").clone();
        change(&mut list);
        with("answers", json!(list))
    };
    let of_inventory = |field: &str, value: Value| {
        let mut other = inventory.clone();
        other[field] = value;
        with("inventory", other)
    };
    let bare = {
        let mut other = inventory.clone();
        for item in other["items"].as_array_mut().expect("items") {
            item.as_object_mut().expect("an item").remove("norm");
        }
        other
    };
    let taken = server.post("/v1/personas", &json!({"name": "taken"}));
    assert!([201, 409].contains(&taken.status));
    let values = vec![0.5; 576];
    let own = json!({"name": "mine.alignment", "directions": {"12": values}, "replace": true});
    assert_eq!(server.post("/v1/vectors", &own).status, 201);
    let few: Map<String, Value> = (1..=9).map(|item| (item.to_string(), json!(1 + item % 5))).collect();
    let some: Map<String, Value> = (1..=30).map(|item| (item.to_string(), json!(1 + item % 5))).collect();
    let known_only = json!((0..60).map(|i| if i < 50 { 1 + i % 5 } else { 0 }).collect::<Vec<_>>());

    let rows = [
        (without("name"), 400, "missing_field", "name", "missing"),
        (without("answers"), 400, "missing_field", "answers", "missing"),
        (with("name", json!("Ada Lovelace")), 400, "invalid_value", "name", "[a-z0-9]"),
        (with("name", json!("a".repeat(60))), 400, "invalid_value", "name", "at most 54"),
        (with("name", json!(7)), 400, "invalid_value", "name", "must be a string"),
        (with("name", json!("taken")), 409, "conflict", "name", "taken"),
        (with("name", json!("mine")), 409, "conflict", "name", "mine.alignment"),
        (with("inventory", json!("big-five")), 404, "inventory_not_found", "inventory", "ipip-neo-300"),
        (with("inventory", json!(3)), 400, "invalid_value", "inventory", "a name or an inventory"),
        (of_inventory("items", json!([])), 400, "invalid_value", "inventory", "0 items"),
        (of_inventory("schema", json!("x/1")), 400, "invalid_value", "inventory", "schema"),
        (of_inventory("extra", json!(1)), 400, "invalid_value", "inventory", "extra"),
        (with("answers", json!("4,5,3")), 400, "invalid_value", "answers", "array"),
        (answered(&|list| drop(list.pop())), 422, "answers_refused", "answers", "59 answers"),
        (with("inventory", json!("ipip-neo-120")), 422, "answers_refused", "answers", "120 items"),
        (answered(&|list| list[6] = json!(6)), 422, "answers_refused", "answers", "item 7 is 6"),
        (answered(&|list| list[0] = json!(-1)), 422, "answers_refused", "answers", "item 1 is -1"),
        (answered(&|list| list[1] = json!(2.5)), 422, "answers_refused", "answers", "item 2 is 2.5"),
        (answered(&|list| list[2] = json!(null)), 422, "answers_refused", "answers", "item 3 is null"),
        (with("answers", json!({"61": 3})), 422, "answers_refused", "answers", "no item `61`"),
        (with("answers", json!({"01": 3})), 422, "answers_refused", "answers", "no item `01`"),
        (answered(&|list| list.fill(json!(3))), 422, "answers_refused", "answers", "constant"),
        (answered(&|list| list.fill(json!(0))), 422, "answers_refused", "answers", "at least 10"),
        (with("answers", json!(few)), 422, "answers_refused", "answers", "9 items are answered"),
        (
            json!({"name": "bad", "inventory": bare, "answers": some}),
            422,
            "answers_refused",
            "answers",
            "at least 40",
        ),
        (with("algorithm", json!("gated")), 400, "invalid_value", "algorithm", "allowed: ridge, pas"),
        (with("protocol", json!("published")), 400, "invalid_value", "protocol", "allowed: honest, paper"),
        (with("protocol", json!("paper")), 400, "invalid_value", "protocol", "`pas`"),
        (
            json!({"name": "bad", "inventory": inventory, "answers": known_only, "algorithm": "pas", "protocol": "paper"}),
            422,
            "answers_refused",
            "protocol",
            "unseen",
        ),
        (with("system", json!(["x"])), 400, "invalid_value", "system", "must be a string"),
        (with("system", json!("x".repeat(70_000))), 400, "invalid_value", "system", "at most"),
        (with("coefficient", json!(2)), 400, "unknown_field", "coefficient", "unknown field"),
    ];
    for (body, status, code, param, part) in rows {
        let response = server.post("/v1/align", &body);
        let error = response.json()["error"].clone();
        let found = (response.status, error["code"].as_str(), error["param"].as_str());
        assert_eq!(found, (status, Some(code), Some(param)), "{part}: {error}");
        println!("POST /v1/align | {status} {code} | {}", error["message"]);
        assert!(error["message"].as_str().is_some_and(|message| message.contains(part)), "{part}: {error}");
    }
    let text = server.send("POST", "/v1/align", &[("content-type", "application/json")], b"{\"name\":\"x\"");
    assert_eq!(text.status, 400, "{}", text.text());
    assert_eq!(server.get("/v1/align").status, 405);
    // Nothing of it was stored, and the server answers.
    assert_eq!(server.get("/v1/personas/bad").status, 404);
    assert_eq!(server.get("/v1/vectors/bad.alignment").status, 404);
    assert_eq!(server.get("/v1/health").status, 200);
}

/// Attention is behind a norm there: ridge moves what attention adds, the published search is refused.
#[test]
fn a_family_whose_heads_cannot_be_moved() {
    let settings = Setup::new(TestModel::Gemma).settings();
    let server = start(&Settings { data_dir: folder("align-gemma"), ..settings });
    let inventory = inventory(60);
    let mut body = json!({"name": "ada", "inventory": inventory, "answers": extravert(&inventory)});
    let result = done(&server, &body);
    let curve = result["curve"].as_array().expect("a curve");
    assert!(curve[2]["score"].as_f64() < curve[0]["score"].as_f64(), "{curve:?}");
    body["name"] = json!("bob");
    body["algorithm"] = json!("pas");
    let refused = server.post("/v1/align", &body);
    let error = refused.json()["error"].clone();
    assert_eq!((refused.status, error["param"].as_str()), (400, Some("algorithm")), "{error}");
}
