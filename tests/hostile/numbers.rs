//! What moves the model: steering, files of vectors, rows of soft prompts.

use super::routes::asked;
use super::{Row, get, post, text, upload};
use serde_json::{Value, json};

/// Of the default model.
pub const WIDTH: usize = 576;

pub fn rows() -> Vec<Row> {
    [steering(), vectors(), soft_prompts()].into_iter().flatten().collect()
}

/// A direction of the default model's width.
pub fn direction(value: f64) -> Value {
    json!(vec![value; WIDTH])
}

fn steered(id: &'static str, input: &str, steering: Value, expected: &str) -> Row {
    asked(input, id, json!({"steering": steering}), expected)
}

fn steering() -> Vec<Row> {
    let part = |coefficient: f64, unit: &str| json!({"directions": {"15": direction(1.0)}, "coefficient": coefficient, "unit": unit});
    let at =
        |block: &str| json!([{"directions": {block: direction(1.0)}, "coefficient": 0.1, "unit": "dose"}]);
    vec![
        steered("", "10000 brackets", json!("(".repeat(10_000)), "400 invalid_steering"),
        steered("", "an expression of 900 KB", json!("0.1 warm + ".repeat(80_000)), "400 invalid_steering"),
        steered("", "NaN of something", json!("NaN warm"), "400"),
        steered("T070", "1e400 of something", json!("1e400 warm"), "400 invalid_steering"),
        steered("", "a name in full width", json!("0.5 ｗａｒｍ"), "400 invalid_steering"),
        steered("T052", "a path for a name", json!([{"vector": "../../etc/passwd"}]), "400 invalid_steering"),
        steered("T112", "a pickle for a name", json!([{"vector": "x.pt"}]), "400 invalid_steering"),
        steered("T069", "block 2^31", at("2147483648"), "400|422"),
        steered("T069", "block -1", at("-1"), "400|422"),
        steered("T069", "block 30 of 0 to 29", at("30"), "400|422"),
        steered(
            "T069",
            "a block twice",
            json!([{"vector": "warm", "blocks": [3, 3]}]),
            "400 invalid_steering",
        ),
        steered("T070", "a coefficient of 1e39", json!([part(1e39, "raw")]), "400 invalid_steering"),
        steered(
            "T063",
            "a direction of 1e39",
            json!([{"directions": {"15": direction(1e39)}}]),
            "422 vector_does_not_fit",
        ),
        steered("T064", "a direction of 1e-40", json!([{"directions": {"15": direction(1e-40)}}]), "400|422"),
        steered(
            "T066",
            "a direction too long",
            json!([{"directions": {"15": vec![1.0; WIDTH + 1]}}]),
            "422 vector_does_not_fit",
        ),
        steered(
            "T065",
            "1e30 of a direction of 1e30",
            json!([{"directions": {"15": direction(1e30)}, "coefficient": 1e30, "unit": "raw"}]),
            "400",
        ),
        steered("T071", "a dose above the limit", json!([part(1.01, "dose")]), "400 dose_exceeded"),
        steered("T071", "a raw dose of 10^6", json!([part(1e6, "raw")]), "400 dose_exceeded"),
        steered(
            "T072",
            "8 doses of 0.9 on one block",
            json!(vec![part(0.9, "dose"); 8]),
            "400 dose_exceeded",
        ),
        steered(
            "T073",
            "10 and -10 on one block",
            json!([part(10.0, "dose"), part(-10.0, "dose")]),
            "400 dose_exceeded",
        ),
        steered("T075", "9 vectors", json!(vec![part(0.01, "dose"); 9]), "400 invalid_steering"),
        steered(
            "",
            "EasySteer with a file",
            json!({"vectors": [{"source": "/etc/passwd", "scale": 1, "layers": [1]}]}),
            "400",
        ),
        asked("a persona with a path for a name", "T079", json!({"persona": "../../x"}), "400|404"),
        asked(
            "steering in the model's name",
            "",
            json!({"model": "gpt-4o-mini@(1e9 ../warm)"}),
            "400 invalid_steering",
        ),
        post(
            "",
            "a dose above the limit",
            "/v1/score",
            json!({"prompt": "a", "choices": ["b"], "steering": [part(5.0, "dose")]}),
            "400 dose_exceeded",
        ),
        post(
            "",
            "a dose above the limit",
            "/completion",
            json!({"prompt": "a", "n_predict": 1, "steering": [part(5.0, "dose")]}),
            "400 dose_exceeded",
        ),
        post(
            "",
            "a dose above the limit",
            "/v1/responses",
            json!({"input": "a", "max_output_tokens": 1, "steering": [part(5.0, "dose")]}),
            "400 dose_exceeded",
        ),
    ]
}

/// A safetensors file of this header with so many bytes of data.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn floats(value: f32, count: usize) -> Vec<u8> {
    value.to_le_bytes().repeat(count)
}

/// A vector file with one direction of this type and shape.
fn vector(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!(
        r#"{{"direction.15":{{"dtype":"{kind}","shape":{shape},"data_offsets":[0,{}]}}}}"#,
        data.len()
    );
    safetensors(&header, data)
}

fn vectors() -> Vec<Row> {
    let path = "/v1/vectors";
    let file = |id: &'static str, input: &str, bytes: &[u8], expected: &str| {
        upload(id, input, path, &[("name", b"hostile"), ("file", bytes)], expected)
    };
    let one = floats(1.0, WIDTH);
    let mut nan = one.clone();
    nan[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut infinite = one.clone();
    infinite[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let large = safetensors(&format!("{{\"__metadata__\":{{\"a\":\"{}\"}}}}", "x".repeat(9 << 20)), b"");
    let metadata: String = (0..100_000).map(|i| format!("\"k{i}\":\"\",")).collect();
    let twice = r#"{"direction.15":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"direction.15":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    vec![
        file("T111", "a pickle", b"\x80\x04\x95\x10\0\0\0", "422 vector_does_not_fit"),
        file("T111", "a zip", b"PK\x03\x04\x14\0\0\0", "422 vector_does_not_fit"),
        file("", "nothing", b"", "400|422"),
        file("T113", "a header of 2^63", &(1u64 << 63).to_le_bytes(), "422 vector_does_not_fit"),
        file(
            "T113",
            "a header of 100 MB",
            &[&100_000_001u64.to_le_bytes()[..], b"{}"].concat(),
            "422 vector_does_not_fit",
        ),
        file(
            "T113",
            "a header longer than the file",
            &[&64u64.to_le_bytes()[..], b"{}"].concat(),
            "422 vector_does_not_fit",
        ),
        file("T114", "a header of 9 MB", &large, "422 vector_does_not_fit"),
        file(
            "T115",
            "a header 100000 deep",
            &safetensors(&"[".repeat(100_000), b""),
            "422 vector_does_not_fit",
        ),
        file(
            "T115",
            "a header that is not UTF-8",
            &[&4u64.to_le_bytes()[..], b"{\"\xff\""].concat(),
            "422 vector_does_not_fit",
        ),
        file(
            "T115",
            "bytes that are no tensor's",
            &[vector("F32", "[576]", &one), vec![0; 8]].concat(),
            "422 vector_does_not_fit",
        ),
        file(
            "T116",
            "a shape of 2^64",
            &vector("F32", "[4294967296,4294967296]", &one),
            "422 vector_does_not_fit",
        ),
        file(
            "T116",
            "an end before its begin",
            &safetensors(r#"{"direction.15":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, &[0; 4]),
            "422 vector_does_not_fit",
        ),
        file("T117", "a tensor twice", &safetensors(twice, &[0; 4]), "422 vector_does_not_fit"),
        file(
            "T118",
            "100000 entries of metadata",
            &safetensors(&format!("{{\"__metadata__\":{{{}\"z\":\"\"}}}}", metadata), b""),
            "422 vector_does_not_fit",
        ),
        file("T063", "not a number", &vector("F32", "[576]", &nan), "422"),
        file("T063", "infinity", &vector("F32", "[576]", &infinite), "422"),
        file("T064", "all zero", &vector("F32", "[576]", &floats(0.0, WIDTH)), "422"),
        file("T066", "575 values", &vector("F32", "[575]", &floats(1.0, 575)), "422 vector_does_not_fit"),
        file("T066", "no dimension", &vector("F32", "[]", &floats(1.0, 1)), "422 vector_does_not_fit"),
        file("T067", "whole numbers", &vector("I32", "[576]", &one), "422 vector_does_not_fit"),
        file("T067", "truth values", &vector("BOOL", "[576]", &[1; 576]), "422 vector_does_not_fit"),
        file(
            "T101",
            "the beginning of a GGUF",
            b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
            "422 vector_does_not_fit",
        ),
        file("", "JSON 100000 deep", "[".repeat(100_000).as_bytes(), "422|400"),
        upload(
            "T053",
            "a file's own path",
            path,
            &[("name", b"../../etc/cron.d/x"), ("file", &vector("F32", "[576]", &one))],
            "400 invalid_value",
        ),
        upload(
            "",
            "an unknown part",
            path,
            &[("name", b"hostile"), ("path", b"/etc/passwd")],
            "400 unknown_field",
        ),
        upload("", "a part twice", path, &[("name", b"hostile"), ("name", b"other")], "400 duplicate_field"),
        upload(
            "",
            "17 MB",
            path,
            &[("name", b"hostile"), ("file", &vec![0; 17 << 20])],
            "413 body_too_large",
        ),
        text(
            "",
            "a form without an end",
            path,
            "--XX\r\ncontent-disposition: form-data; name=\"name\"\r\n\r\nx",
            "400",
        ),
        post(
            "",
            "2000 pairs",
            path,
            json!({"name": "hostile", "pairs": vec![["a", "b"]; 2000]}),
            "400|413|422",
        ),
        post(
            "",
            "pairs of 100 KB",
            path,
            json!({"name": "hostile", "pairs": [["a".repeat(100_000), "b"]]}),
            "400|413|422",
        ),
        get("", "/v1/vectors/hostile", "404 vector_not_found"),
    ]
}

fn soft_prompts() -> Vec<Row> {
    let path = "/v1/soft_prompts";
    let rows = |id: &'static str, input: &str, rows: Value, expected: &str| {
        post(id, input, path, json!({"name": "hostile", "rows": rows}), expected)
    };
    vec![
        rows("T080", "no rows", json!([]), "422"),
        rows("T080", "65 rows", json!(vec![vec![0.1; 8]; 65]), "422 soft_prompt_does_not_fit"),
        rows("T081", "rows of 577", json!([vec![0.1; WIDTH + 1]]), "422 soft_prompt_does_not_fit"),
        rows(
            "T081",
            "rows of two lengths",
            json!([vec![0.1; WIDTH], vec![0.1; 3]]),
            "422 soft_prompt_does_not_fit",
        ),
        rows("T082", "rows of 1e39", json!([vec![1e39; WIDTH]]), "422"),
        rows(
            "T083",
            "rows 1000 times too long",
            json!([vec![1000.0; WIDTH]]),
            "422 soft_prompt_out_of_range",
        ),
        rows("T083", "rows of nothing", json!([vec![0.0; WIDTH]]), "422 soft_prompt_out_of_range"),
        upload(
            "T086",
            "a pickle",
            path,
            &[("name", b"hostile"), ("file", b"\x80\x04abcdefgh")],
            "422 not_safetensors",
        ),
        upload(
            "T086",
            "a zip",
            path,
            &[("name", b"hostile"), ("file", b"PK\x03\x04abcdefgh")],
            "422 not_safetensors",
        ),
        upload(
            "T085",
            "17 MB",
            path,
            &[("name", b"hostile"), ("file", &vec![0; 17 << 20])],
            "413 body_too_large",
        ),
        upload(
            "T116",
            "a shape of 2^64",
            path,
            &[
                ("name", b"hostile"),
                (
                    "file",
                    &safetensors(
                        r#"{"rows":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#,
                        &[0; 4],
                    ),
                ),
            ],
            "422",
        ),
        upload(
            "",
            "a configuration that is none",
            path,
            &[
                ("name", b"hostile"),
                ("file", &vector("F32", "[1,576]", &floats(0.1, WIDTH))),
                ("config", b"["),
            ],
            "400|422",
        ),
        asked("a soft prompt with a path for a name", "T052", json!({"soft_prompt": "../../x"}), "400|404"),
    ]
}
