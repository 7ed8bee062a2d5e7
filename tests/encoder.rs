//! The sentence encoder against sentence-transformers, and what its answers depend on.

use crate::harness;
use crate::run::fixture;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use demeanor::encoder::Encoder;
use half::f16;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

/// One encoder for all tests: its weights take 90 MB.
pub fn encoder() -> Arc<Encoder> {
    static LOADED: OnceLock<Arc<Encoder>> = OnceLock::new();
    LOADED
        .get_or_init(|| Arc::new(Encoder::load(&harness::encoder_folder()).expect("the encoder loads")))
        .clone()
}

/// Texts and the embeddings that sentence-transformers gives.
fn reference() -> Vec<(String, Vec<f64>)> {
    let file = fixture("encoder_minilm.json");
    let texts = file["texts"].as_array().expect("texts");
    let embeddings = file["embeddings"].as_array().expect("embeddings");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let decode = |value: &Value| {
        let bytes = STANDARD.decode(text(value)).expect("base64");
        bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f64()).collect()
    };
    texts.iter().map(text).zip(embeddings.iter().map(decode)).collect()
}

fn cosine(a: &[f32], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(x, y)| f64::from(*x) * y).sum();
    let norm = |sum: f64| sum.sqrt();
    dot / norm(a.iter().map(|x| f64::from(*x).powi(2)).sum()) / norm(b.iter().map(|y| y * y).sum())
}

#[test]
fn embeddings_equal_sentence_transformers() {
    let (encoder, reference) = (encoder(), reference());
    assert_eq!(reference.len(), 200);
    let texts: Vec<&str> = reference.iter().map(|(text, _)| text.as_str()).collect();
    let begin = Instant::now();
    let embedded = encoder.embed_counted(&texts).expect("all texts are embedded");
    let seconds = begin.elapsed().as_secs_f64();
    let counts = fixture("encoder_minilm.json")["tokens"].clone();
    let expected: u64 = counts.as_array().expect("counts").iter().filter_map(Value::as_u64).sum();
    assert_eq!(embedded.tokens as u64, expected, "tokens of all texts");
    let cosines = embedded.embeddings.iter().zip(&reference).map(|(ours, (_, theirs))| cosine(ours, theirs));
    let cosines: Vec<f64> = cosines.collect();
    let worst = cosines.iter().copied().fold(1.0, f64::min);
    println!(
        "200 texts, {} tokens: smallest cosine {worst:.7}; {:.1} texts/s",
        embedded.tokens,
        200.0 / seconds
    );
    let at = cosines.iter().position(|cosine| *cosine == worst).expect("one is the smallest");
    assert!(worst >= 0.9999, "cosine {worst} for {:?}", texts[at]);
    for embedding in &embedded.embeddings {
        let norm: f32 = embedding.iter().map(|value| value * value).sum();
        assert!((norm - 1.0).abs() < 1e-5, "length {norm}");
    }
    // The comparison can fail: another text's embedding is far away.
    assert!(cosine(&embedded.embeddings[60], &reference[61].1) < 0.999);
}

#[test]
fn a_text_has_one_embedding_whatever_is_asked_beside_it() {
    let (encoder, reference) = (encoder(), reference());
    let texts: Vec<&str> = reference.iter().map(|(text, _)| text.as_str()).step_by(9).collect();
    let together = encoder.embed(&texts).expect("embedded");
    let backwards: Vec<&str> = texts.iter().rev().copied().collect();
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| found.lock().expect("no panic").extend(encoder.embed(&backwards).expect("embedded")));
        for (text, expected) in texts.iter().zip(&together) {
            let alone = encoder.embed(&[text]).expect("embedded").remove(0);
            assert!(alone == *expected, "bits differ for {text:?}");
        }
    });
    let mut found = found.into_inner().expect("no panic");
    found.reverse();
    assert!(found == together, "two callers at once get the same bits");
}

#[test]
fn digest_and_name() {
    let encoder = encoder();
    assert_eq!((encoder.name(), encoder.width()), ("all-minilm-l6-v2", 384));
    let again = Encoder::load(&harness::encoder_folder()).expect("the encoder loads");
    assert_eq!(encoder.digest(), again.digest());
}

/// Asks until the encoder is loaded; the answers before that are 503 with advice.
fn ask(server: &harness::Server, body: &Value) -> Value {
    let begin = Instant::now();
    loop {
        let response = server.post("/v1/embeddings", body);
        if response.status != 503 {
            return response.ok();
        }
        assert_eq!(response.json()["error"]["code"], "encoder_not_ready");
        assert_eq!(response.headers["retry-after"], "5");
        assert!(begin.elapsed().as_secs() < 120, "the encoder loads");
        std::thread::yield_now();
    }
}

#[test]
fn the_route_gives_floats_and_base64() {
    let server = harness::default_server();
    let texts = ["The kettle is on.", "今日は"];
    let floats = ask(server, &json!({"input": texts, "model": "all-minilm-l6-v2"}));
    assert_eq!(floats["object"], "list");
    assert_eq!(floats["model"], "all-minilm-l6-v2");
    assert_eq!(floats["usage"]["prompt_tokens"], floats["usage"]["total_tokens"]);
    let expected = encoder().embed_counted(&texts).expect("embedded");
    assert_eq!(floats["usage"]["total_tokens"], expected.tokens);
    for (index, expected) in expected.embeddings.iter().enumerate() {
        let row = &floats["data"][index];
        assert_eq!((&row["object"], &row["index"]), (&json!("embedding"), &json!(index)));
        let values = row["embedding"].as_array().expect("numbers").iter();
        let values: Vec<f32> = values.map(|value| value.as_f64().expect("a number") as f32).collect();
        assert_eq!(values, *expected, "JSON keeps every bit");
    }
    let encoded = ask(server, &json!({"input": texts[0], "encoding_format": "base64", "dimensions": 384}));
    let bytes = STANDARD.decode(encoded["data"][0]["embedding"].as_str().expect("text")).expect("base64");
    let values: Vec<f32> =
        bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().expect("four"))).collect();
    assert_eq!(values, expected.embeddings[0]);
    let refused = server.post("/v1/embeddings", &json!({"input": "a", "dimensions": 256}));
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("this encoder has 384"), "{}", refused.text());
}
