//! Jobs over HTTP: an extraction is told of, streamed, cancelled, and found again.

use crate::harness::default_server;
use serde_json::{Value, json};

fn pairs(n: usize) -> Value {
    let pair =
        |i| json!([format!("Wonderful to see you, friend number {i}!"), format!("Go away, number {i}.")]);
    (0..n).map(pair).collect()
}

#[test]
fn an_extraction_is_a_job() {
    let server = default_server();
    server.delete("/v1/vectors/jobs-one");
    let answer = server.post("/v1/vectors", &json!({"name": "jobs-one", "pairs": pairs(4)}));
    assert_eq!(answer.status, 202, "{}", answer.text());
    let job = answer.json()["job"].clone();
    assert_eq!(
        (&job["kind"], &job["state"], &job["total"]),
        (&json!("extract"), &json!("queued"), &json!(8))
    );
    let path = format!("/v1/jobs/{}", job["id"].as_str().expect("an id"));

    let events = server.get(&format!("{path}/events")).chunks();
    let last = events.last().expect("at least one");
    assert_eq!((&last["state"], &last["done"]), (&json!("done"), &json!(8)), "{last}");
    assert_eq!(last["result"], json!({"vector": "jobs-one"}));
    let done: Vec<u64> = events.iter().filter_map(|event| event["done"].as_u64()).collect();
    assert!(done.is_sorted(), "{done:?}");

    assert_eq!(server.get(&path).ok(), *last);
    let list = server.get("/v1/jobs").ok();
    assert!(list["data"].as_array().expect("a list").contains(last), "{list}");
    let again = server.delete(&path).ok();
    assert_eq!(again["state"], "done", "over is over");
    assert_eq!(server.get(&format!("{path}/events")).events().len(), 2, "the end and [DONE]");
    assert_eq!(server.get("/v1/vectors/jobs-one").status, 200);
}

#[test]
fn a_waiting_extraction_is_cancelled() {
    let server = default_server();
    let end_of =
        |id: &str| server.get(&format!("/v1/jobs/{id}/events")).chunks().pop().expect("at least one");
    let mut ids = Vec::new();
    for name in ["jobs-busy", "jobs-never"] {
        server.delete(&format!("/v1/vectors/{name}"));
        let answer = server.post("/v1/vectors", &json!({"name": name, "pairs": pairs(8)}));
        assert_eq!(answer.status, 202, "{}", answer.text());
        ids.push(answer.json()["job"]["id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(server.delete(&format!("/v1/jobs/{}", ids[1])).status, 200);
    let last = end_of(&ids[1]);
    assert_eq!(last["state"], "cancelled", "{last}");
    assert_eq!(server.get("/v1/vectors/jobs-never").status, 404);
    let last = end_of(&ids[0]);
    assert_eq!(last["state"], "done", "{last}");
}

#[test]
fn unknown_jobs_are_404() {
    let server = default_server();
    for id in ["job-999999999", "job-0", "job-01", "x", "job-9223372036854775808", "%20", "job--1"] {
        for (method, path) in [
            ("GET", format!("/v1/jobs/{id}")),
            ("DELETE", format!("/v1/jobs/{id}")),
            ("GET", format!("/jobs/{id}/events")),
        ] {
            let answer = server.send(method, &path, &[], b"");
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
            assert_eq!(answer.json()["error"]["code"], "job_not_found");
        }
    }
    assert_eq!(server.send("POST", "/v1/jobs", &[], b"{}").status, 405);
    assert_eq!(server.get("/v1/jobs/%ff").status, 400);
}
