//! Named soft prompts: a PEFT adapter gives the logits that transformers + PEFT give; the routes, in and out.

use crate::harness::{self, demeanor, done};
use crate::run;
use demeanor::config::{Backend, Device};
use demeanor::kernels::{Isa, KvFormat, Precision};
use demeanor::model::{
    Edits, Input, Model, ModelOptions, Phase, Reading, Row, Rows, Slot, SoftRows, StepOutput, Wants,
};
use demeanor::users::formats;
use demeanor::weights::{Container, safetensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const PATH: &str = "/v1/soft_prompts";

/// Two f32 implementations of a model of two blocks.
const TOLERANCE: f64 = 1e-4;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft")
}

/// The tiny model in exact mode.
fn tiny_model() -> Model {
    let file = Container::open(&folder().join("model.gguf")).expect("a model");
    let options = ModelOptions {
        backend: Backend::Cpu,
        device: Device::Cpu,
        precision: Precision::F32,
        isa: Isa::detect(),
        threads: 1,
        reading: Reading::default(),
        kv_format: KvFormat::F32,
        pages: 1,
    };
    Model::load(&file, &options).expect("it loads")
}

/// The adapter as our importer reads it.
fn adapter(name: &str) -> SoftRows {
    let read = |file: &str| std::fs::read(folder().join(name).join(file)).expect("the fixture");
    let imported = formats::read(&read(formats::ADAPTER), Some(&read(formats::CONFIG))).expect("an adapter");
    assert_eq!(imported.format, "peft");
    let table = imported.table;
    SoftRows::new(table.values().to_vec(), table.rows(), table.d_model()).expect("finite rows")
}

/// Logits after each token with the rows before the first, `[ids.len()][vocab]`.
fn logits(model: &mut Model, soft: &SoftRows, ids: &[u32]) -> Vec<Vec<f32>> {
    model.reset_page(0);
    let row = |position: usize, input: Input, logits: bool| Row {
        slot: 0,
        position: position as u32,
        phase: Phase::Prompt,
        input,
        wants: Wants { logits, capture: false },
    };
    let soft_inputs = (0..soft.len()).map(|index| (Input::Soft(index as u32), false));
    let inputs = soft_inputs.chain(ids.iter().map(|id| (Input::Token(*id), true)));
    let rows: Vec<Row> =
        inputs.enumerate().map(|(position, (input, wanted))| row(position, input, wanted)).collect();
    let edits = Edits::none();
    let slots = [Slot { pages: &[0], soft, edits: &edits, capture: None }];
    let mut out = StepOutput::default();
    model.step(&Rows { slots: &slots, rows: &rows }, &mut out).expect("the step runs");
    out.logits.chunks_exact(model.config().vocab_size).map(<[f32]>::to_vec).collect()
}

fn difference(ours: &[Vec<f32>], theirs: &Value) -> f64 {
    let theirs = theirs.as_array().expect("rows");
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.iter().zip(theirs).flat_map(|(ours, theirs)| ours.iter().zip(run::floats(theirs)));
    pairs.map(|(ours, theirs)| (f64::from(*ours) - theirs).abs()).fold(0.0, f64::max)
}

#[test]
fn peft_adapters_give_the_logits_of_transformers_and_peft() {
    let reference = run::fixture("peft/logits.json");
    let mut model = tiny_model();
    let none = SoftRows::none();
    for name in ["plain", "prompt_tuning", "p_tuning"] {
        let soft = if name == "plain" { none.clone() } else { adapter(name) };
        let (mut worst, mut effect) = (0f64, 0f64);
        for prompt in reference["prompts"].as_array().expect("prompts") {
            let ids = run::ids(&prompt["ids"]);
            let ours = logits(&mut model, &soft, &ids);
            worst = worst.max(difference(&ours, &prompt[name]));
            effect = effect.max(difference(&ours, &prompt["plain"]));
        }
        println!("{name}: largest |logit difference| {worst:.1e}; effect of the rows {effect:.2}");
        assert!(worst <= TOLERANCE, "{name}: logits differ by {worst}");
        assert!(
            name == "plain" || effect > 1.0,
            "{name}: the rows change the logits, so a wrong row would show"
        );
    }
}

/// Rows near the length of SmolLM2's embeddings, without a direction of their own.
fn rows(seed: u32, n: usize, d_model: usize, norm: f32) -> Vec<Vec<f32>> {
    let mut state = seed;
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let row = |_| {
        let values: Vec<f32> = (0..d_model).map(|_| draw()).collect();
        let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        values.iter().map(|value| value * norm / length).collect()
    };
    (0..n).map(row).collect()
}

#[test]
fn a_named_soft_prompt_goes_in_serves_and_comes_out() {
    let server = harness::default_server();
    let info = server.engine.info();
    let (d_model, median) = (info.d_model as usize, info.embedding.norm_median);
    println!("median length of an embedding: {median:.4}; {} control tokens", info.embedding.controls.len());
    let table = rows(7, 3, d_model, median);
    let made = server.post(PATH, &json!({"name": "tour", "rows": table, "replace": true})).created();
    assert_eq!(
        (&made["rows"], &made["d_model"], &made["format"]),
        (&json!(3), &json!(d_model), &json!("json"))
    );
    assert_eq!(server.get("/v1/soft_prompts/tour").ok()["digest"], made["digest"]);
    let list = server.get(PATH).ok();
    assert!(list["data"].as_array().expect("a list").iter().any(|one| one["name"] == "tour"), "{list}");

    let taken = server.post(PATH, &json!({"name": "tour", "rows": table}));
    assert_eq!((taken.status, &taken.json()["error"]["code"]), (409, &json!("conflict")));

    let chat = |soft: Value| {
        let body = json!({
            "messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 8, "temperature": 0,
            "soft_prompt": soft,
        });
        server.post("/v1/chat/completions", &body).ok()
    };
    let (with, without) = (chat(json!("tour")), chat(json!(false)));
    let label = with["demeanor"]["soft_prompt"].as_str().expect("a label");
    assert_eq!(label, format!("tour@{}", made["version"]));
    assert_eq!(with["demeanor"]["soft_prompt_rows"], 3);
    assert_eq!(without["demeanor"]["soft_prompt"], Value::Null);
    assert_ne!(with["system_fingerprint"], without["system_fingerprint"]);
    let unknown = json!({"messages": [{"role": "user", "content": "x"}], "soft_prompt": "no-such"});
    assert_eq!(server.post("/v1/chat/completions", &unknown).status, 404);

    // Out and in again: the same rows.
    let file = server.get("/v1/soft_prompts/tour/file");
    assert_eq!((file.status, file.headers["content-type"].as_str()), (200, "application/octet-stream"));
    let zip = server.get("/v1/soft_prompts/tour/file?format=peft");
    assert_eq!(zip.headers["content-type"], "application/zip");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(zip.body)).expect("a zip");
    let mut member = |name: &str| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut archive.by_name(name).expect("there"), &mut bytes).expect("read");
        bytes
    };
    let (adapter, config) = (member(formats::ADAPTER), member(formats::CONFIG));
    assert_eq!(adapter, file.body);
    let parts: [(&str, &[u8]); 4] =
        [("name", b"tour2"), ("file", &adapter), ("config", &config), ("replace", b"true")];
    let again = server.upload(PATH, &parts).created();
    assert_eq!((&again["digest"], &again["format"]), (&made["digest"], &json!("peft")));

    for name in ["tour", "tour2"] {
        assert_eq!(server.delete(&format!("/v1/soft_prompts/{name}")).ok()["deleted"], true);
        assert_eq!(server.get(&format!("/v1/soft_prompts/{name}")).status, 404);
    }
}

#[test]
fn bad_soft_prompts_are_refused() {
    let server = harness::default_server();
    let info = server.engine.info();
    let (d_model, median) = (info.d_model as usize, info.embedding.norm_median);
    let flat = |n: usize, norm: f32| -> Vec<f32> { rows(3, n, d_model, norm).concat() };
    let file = |shape: &[usize], values: &[f32]| {
        safetensors::write(&BTreeMap::new(), &[("prompt_embeddings", shape, values)])
    };
    let good = file(&[2, d_model], &flat(2, median));
    let control = &info.embedding.controls[1].direction;
    let control: Vec<f32> = control.iter().map(|value| value * median).collect();
    let mut not_finite = flat(1, median);
    not_finite[3] = f32::NAN;
    let with = |change: &str| {
        let config = json!({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "token_dim": d_model});
        config.to_string().replacen("PROMPT_TUNING", change, 1).into_bytes()
    };
    let cut = &good[..good.len() - 3];
    let pickle = b"\x80\x02ctorch._utils\n_rebuild\n".to_vec();
    let huge_header = [&(65_537u64).to_le_bytes()[..], &vec![b' '; 65_537]].concat();
    /// Name, file, configuration beside it, status, code.
    type Case = (&'static str, Vec<u8>, Option<Vec<u8>>, u16, &'static str);
    let cases: Vec<Case> = vec![
        ("pickle", pickle, None, 422, "not_safetensors"),
        ("torch archive", b"PK\x03\x04data.pkl".to_vec(), None, 422, "not_safetensors"),
        ("empty", Vec::new(), None, 422, "not_safetensors"),
        ("header of 64 KiB and one", huge_header, None, 422, "soft_prompt_does_not_fit"),
        ("cut", cut.to_vec(), None, 422, "soft_prompt_does_not_fit"),
        ("wrong width", file(&[1, 7], &[1.0; 7]), None, 422, "soft_prompt_does_not_fit"),
        ("65 rows", file(&[65, d_model], &flat(65, median)), None, 422, "soft_prompt_does_not_fit"),
        ("one dimension", file(&[d_model], &flat(1, median)), None, 422, "soft_prompt_does_not_fit"),
        ("not finite", file(&[1, d_model], &not_finite), None, 422, "soft_prompt_does_not_fit"),
        ("a LoRA", good.clone(), Some(with("LORA")), 422, "soft_prompt_does_not_fit"),
        ("no JSON", good.clone(), Some(b"{".to_vec()), 422, "soft_prompt_does_not_fit"),
        ("too long", file(&[1, d_model], &flat(1, 1000.0 * median)), None, 422, "soft_prompt_out_of_range"),
        ("too short", file(&[1, d_model], &flat(1, 0.05 * median)), None, 422, "soft_prompt_out_of_range"),
        ("zeros", file(&[1, d_model], &vec![0.0; d_model]), None, 422, "soft_prompt_out_of_range"),
        ("a control token", file(&[1, d_model], &control), None, 422, "control_token_alias"),
    ];
    for (what, file, config, status, code) in cases {
        let mut parts: Vec<(&str, &[u8])> = vec![("name", b"bad"), ("file", &file)];
        if let Some(config) = &config {
            parts.push(("config", config));
        }
        let refused = server.upload(PATH, &parts);
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (status, &json!(code)), "{what}");
        println!("{what}: {} {code}: {}", refused.status, refused.json()["error"]["message"]);
    }
    for (parts, status, code) in [
        (&[("name", &b"bad"[..])][..], 400, "missing_field"),
        (&[("file", &good[..])], 400, "missing_field"),
        (&[("name", b"Bad Name"), ("file", &good)], 400, "invalid_value"),
        (&[("name", b"bad"), ("file", &good), ("file", &good)], 400, "duplicate_field"),
        (&[("name", b"bad"), ("file", &good), ("weights", b"x")], 400, "unknown_field"),
        (&[("name", b"bad"), ("file", &good), ("replace", b"maybe")], 400, "invalid_value"),
    ] {
        let refused = server.upload(PATH, parts);
        assert_eq!(
            (refused.status, &refused.json()["error"]["code"]),
            (status, &json!(code)),
            "{}",
            refused.text()
        );
    }
    for (body, status, code) in [
        (json!({"name": "bad"}), 400, "missing_field"),
        (json!({"rows": [[1]]}), 400, "missing_field"),
        (json!({"name": "bad", "rows": [[1]], "x": 1}), 400, "unknown_field"),
        (json!({"name": "bad", "rows": [["1"]]}), 400, "invalid_value"),
        (json!({"name": "bad", "rows": [[1.0]]}), 422, "soft_prompt_does_not_fit"),
    ] {
        let refused = server.post(PATH, &body);
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (status, &json!(code)), "{body}");
    }
    assert_eq!(server.get("/v1/soft_prompts/bad").status, 404, "nothing was kept");
    assert_eq!(server.get("/v1/soft_prompts/x/file?format=pt").status, 400);
    assert_eq!(server.get("/v1/health").status, 200);
}

#[test]
fn the_command_line_moves_adapters() {
    let server = harness::default_server();
    let base = format!("http://{}", server.address);
    let info = server.engine.info();
    let table = rows(9, 2, info.d_model as usize, info.embedding.norm_median);
    let made = server.post(PATH, &json!({"name": "moved", "rows": table, "replace": true})).created();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("adapter");
    let out = out.display().to_string();
    done(&["embed", "export", "moved", "--out", &out, "--server", &base]);
    let (imported, _) =
        done(&["embed", "import", &out, "--name", "moved-back", "--replace", "--server", &base]);
    let stored: Value = serde_json::from_str(&imported).expect("JSON on stdout");
    assert_eq!((&stored["digest"], &stored["format"]), (&made["digest"], &json!("peft")));
    let config = std::fs::read_to_string(Path::new(&out).join(formats::CONFIG)).expect("written");
    assert!(config.contains("\"PROMPT_TUNING\""), "{config}");

    let tiny = folder().join("p_tuning").display().to_string();
    for (arguments, part) in [
        (
            vec!["embed", "import", &tiny, "--name", "x"],
            "rows of 32 values; the loaded model has d_model 576",
        ),
        (vec!["embed", "import", "/no/such/folder", "--name", "x"], "/no/such/folder"),
        (vec!["embed", "export", "no-such", "--out", &out], "there is no soft prompt `no-such`"),
    ] {
        let refused = demeanor(&[&arguments[..], &["--server", &base]].concat());
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && text.contains(part), "{arguments:?}: {text}");
    }
}
