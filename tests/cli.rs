//! The binary itself: verbs, exit statuses, chat in the terminal, an orderly end.

use crate::harness::{
    TestModel, data_folder, default_server, demeanor, done, folder, read_response, request_bytes,
};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn model() -> String {
    TestModel::SmolLm2.path().display().to_string()
}

#[test]
fn every_verb_has_help_with_an_example() {
    for verb in ["serve", "run", "pull", "ls", "extract", "vectors", "traits", "persona", "probe", "store"] {
        let output = demeanor(&[verb, "--help"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{verb}");
        assert!(text.contains(&format!("demeanor {verb}")) && text.contains("Example"), "{verb}: {text}");
    }
}

#[test]
fn failures_have_their_exit_status_and_say_what_to_do() {
    let broken = folder("cli").join("broken.gguf");
    std::fs::write(&broken, b"GGUF\x03\0\0\0 and then nothing of use").expect("writable");
    let broken = broken.display().to_string();
    let (newer, letters) = (data_folder(), data_folder());
    drop(demeanor::store::Store::open(&newer).expect("a new store"));
    set_schema(&newer.join("state.db"), 99);
    std::fs::create_dir_all(&letters).expect("writable");
    std::fs::write(letters.join("state.db"), "a letter to somebody, and no database").expect("writable");
    let (newer, letters) = (newer.display().to_string(), letters.display().to_string());
    let rows: [(&[&str], i32, &str); 16] = [
        (&["serve", "--port", "notaport"], 2, "--port"),
        (&["frobnicate"], 2, "frobnicate"),
        (&["serve", "--port", "0", "-m", &broken], 65, "broken.gguf"),
        (&["serve", "--port", "0", "-m", "no-such-model"], 1, "no-such-model"),
        (&["pull", "no-such-model"], 1, "smollm2-135m-instruct"),
        (&["pull", "qwen3-4"], 1, "`qwen3-4b` and others"),
        (&["pull", "hf:org/repo:../x"], 1, "is no hub name"),
        (&["serve", "--port", "0", "-m", "ollama:../x"], 1, "wanted `ollama:NAME:TAG`"),
        (&["serve", "--host", "0.0.0.0"], 78, "--api-key"),
        (&["serve", "--max-batch", "0"], 78, "--max-batch"),
        (&["serve", "--port", "0", "-m", &model(), "--isa", "avx9000"], 78, "--isa"),
        (&["store", "check", "--data-dir", "/nowhere"], 1, "--data-dir"),
        (&["vectors", "list", "-m", &model(), "--data-dir", "/dev/null"], 78, "--data-dir"),
        (&["vectors", "list", "-m", &model(), "--data-dir", &newer], 78, "schema 99"),
        (&["store", "check", "--data-dir", &letters], 78, "no store of demeanor"),
        (&["vectors", "import", &broken, "--name", "x", "-m", &model()], 65, "broken.gguf"),
    ];
    for (arguments, status, part) in rows {
        let output = demeanor(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    }
}

/// Writes another schema number into a database: four bytes at a fixed place of its first page.
fn set_schema(database: &Path, number: u32) {
    let mut bytes = std::fs::read(database).expect("a database");
    bytes[60..64].copy_from_slice(&number.to_be_bytes());
    std::fs::write(database, bytes).expect("writable");
}

#[test]
fn a_taken_port_is_named() {
    let port = default_server().address.port().to_string();
    let output = demeanor(&["serve", "-m", &model(), "--port", &port]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("--port"), "{text}");
}

/// A served process and the address it printed.
fn serve(arguments: &[&str]) -> (Child, String) {
    serve_in(&data_folder(), arguments)
}

fn serve_in(data: &Path, arguments: &[&str]) -> (Child, String) {
    serve_on(&data.display().to_string(), arguments)
}

fn serve_on(data: &str, arguments: &[&str]) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_demeanor"))
        .args(["serve", "-m", &model(), "--port", "0", "--data-dir", data])
        .args(arguments)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let address = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| {
            line.split("http://").nth(1).and_then(|rest| rest.split(' ').next()).map(str::to_owned)
        })
        .expect("it says where it listens");
    // The rest is read to the end, so that the process never blocks on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

fn signal(child: &Child) {
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
}

#[test]
fn a_termination_signal_lets_running_streams_finish() {
    let (mut child, address) = serve(&[]);
    let body = json!({"prompt": "The sea", "max_tokens": 200, "stream": true, "ignore_eos": true, "seed": 1});
    let mut stream = TcpStream::connect(&address).expect("it listens");
    let headers = [("content-type", "application/json")];
    stream
        .write_all(&request_bytes("POST", "/v1/completions", &headers, body.to_string().as_bytes()))
        .expect("taken");
    let mut reader = BufReader::new(stream);
    // The head of the answer is here: the stream runs.
    let mut begin = Vec::new();
    reader.read_until(b'\n', &mut begin).expect("a status line");
    assert!(begin.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&begin));
    signal(&child);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("the stream goes on");
    assert!(rest.contains("data: [DONE]"), "the stream was cut");
    assert!(!rest.contains("\"error\""), "{rest}");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_data_folder_in_use_is_said_with_the_request_to_make() {
    let data = data_folder();
    let (mut child, address) = serve_in(&data, &[]);
    let data_dir = data.display().to_string();
    let common = ["-m", &model(), "--data-dir", &data_dir].map(str::to_owned);
    let copy = data.with_extension("backup").display().to_string();
    let _ = std::fs::remove_file(&copy);
    for (arguments, curl) in [
        (["vectors", "list"].to_vec(), format!("curl http://{address}/v1/vectors")),
        (["vectors", "delete", "x"].to_vec(), format!("curl -X DELETE http://{address}/v1/vectors/x")),
        (["extract", "warm"].to_vec(), format!("curl http://{address}/v1/chat/completions")),
        (["embed", "user", "ana"].to_vec(), format!("curl http://{address}/v1/users/ana")),
        (
            ["embed", "export", "poet", "--out", "poet"].to_vec(),
            format!("curl -o poet.zip 'http://{address}/v1/soft_prompts/poet/file?format=peft'"),
        ),
        (["serve", "--port", "0"].to_vec(), address.clone()),
    ] {
        let all: Vec<&str> = arguments.into_iter().chain(common.iter().map(String::as_str)).collect();
        let output = demeanor(&all);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(75), "{all:?}: {text}");
        assert!(text.contains(&curl) && text.contains(&child.id().to_string()), "{all:?}: {text}");
    }
    // These look on while the server works.
    for action in [["check"].to_vec(), ["backup", &copy].to_vec()] {
        let output = demeanor(&[&["store", "--data-dir", &data_dir, "--json"], &action[..]].concat());
        assert!(output.status.success(), "{action:?}: {}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(said["contents"]["schema"], 1, "{said}");
    }
    let again = demeanor(&["store", "backup", &copy, "--data-dir", &data_dir]);
    assert_eq!(again.status.code(), Some(1), "a backup does not replace a file");
    signal(&child);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert!(!data.join("state.open").exists(), "the store was closed in order");
}

#[test]
fn a_key_opens_a_served_process() {
    let (mut child, address) = serve(&["--api-key", "sesame", "--alias", "gpt-x"]);
    let get = |headers: &[(&str, &str)]| {
        let mut stream = TcpStream::connect(&address).expect("it listens");
        stream.write_all(&request_bytes("GET", "/v1/models", headers, b"")).expect("taken");
        read_response(&mut BufReader::new(stream)).expect("an answer")
    };
    assert_eq!(get(&[]).status, 401);
    let models = get(&[("authorization", "Bearer sesame")]).ok();
    let ids: Vec<&str> =
        models["data"].as_array().expect("a list").iter().filter_map(|m| m["id"].as_str()).collect();
    assert!(ids.contains(&"gpt-x"), "{ids:?}");
    signal(&child);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_chat_in_the_terminal_steers_and_compares() {
    let server = format!("http://{}", default_server().address);
    let script = "/set system You are brief.\nSay hello.\n/steer 1.5 warm\n/compare Say hello.\n/steer nonsense[\nHi.\n/wrong\n/bye\n";
    let mut child = Command::new(env!("CARGO_BIN_EXE_demeanor"))
        .args(["run", "--server", &server, "--seed", "3"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let (answers, notes) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{notes}");
    assert!(answers.lines().filter(|line| !line.trim().is_empty()).count() >= 3, "three answers: {answers}");
    assert!(notes.contains("── plain") && notes.contains("── 1.5 warm"), "{notes}");
    assert!(notes.contains("steering"), "the bad expression is explained: {notes}");
    assert!(notes.contains("`/wrong` is unknown"), "{notes}");
}

#[test]
fn vectors_go_out_and_come_in_again() {
    let data = folder("cli-vectors");
    let (data_dir, out) = (data.display().to_string(), data.join("made.gguf").display().to_string());
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/control_smollm2.gguf");
    let common = ["-m", &model(), "--data-dir", &data_dir].map(str::to_owned);
    let run = |arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().copied().chain(common.iter().map(String::as_str)).collect();
        done(&all)
    };
    let (said, noted) =
        run(&["vectors", "import", &fixture.display().to_string(), "--name", "random", "--replace"]);
    let said = format!("{said}{noted}");
    assert!(said.contains("add") && said.contains("resid"), "the import says what it assumed: {said}");
    run(&["vectors", "export", "random", "--format", "gguf", "--out", &out]);
    let same = |path: &str| {
        let file = demeanor::weights::ModelFile::open(Path::new(path)).expect("a GGUF");
        file.tensors()
            .map(|tensor| (tensor.name.to_owned(), tensor.data.to_vec()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(same(&out), same(&fixture.display().to_string()));
    assert!(run(&["vectors", "list"]).0.contains("random"));
    let shown: Value = serde_json::from_str(&run(&["vectors", "show", "random", "--json"]).0).expect("JSON");
    assert_eq!(shown["name"], "random");
    run(&["vectors", "delete", "random"]);
    assert!(!run(&["vectors", "list"]).0.contains("random"));
}

/// The fixture's control vector on the shared server, as `name`.
fn upload(name: &str) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/control_smollm2.gguf");
    let file = std::fs::read(fixture).expect("the fixture is there");
    let parts: [(&str, &[u8]); 3] = [("name", name.as_bytes()), ("replace", b"true"), ("file", &file)];
    default_server().upload("/v1/vectors", &parts).created();
}

#[test]
fn personas_go_to_a_running_server_and_come_back() {
    let server = format!("http://{}", default_server().address);
    let at = ["--server", &server];
    let persona = |arguments: &[&str]| done(&[&["persona"], arguments, &at[..]].concat()).0;
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_str(&persona(&[arguments, &["--json"]].concat())).expect("JSON")
    };
    upload("cli-vector");
    // What an aborted run may have left.
    default_server().delete("/v1/personas/cli-ada");
    let first =
        ["set", "cli-ada", "--system", "You are Ada.", "--steering", "0 cli-vector", "--temperature", "0.5"];
    let made = json(&first);
    assert_eq!((&made["system"], &made["steering"]), (&"You are Ada.".into(), &"0 cli-vector".into()));
    let changed = json(&["set", "cli-ada", "--temperature", "0.25"]);
    assert_eq!(changed["system"], "You are Ada.", "the rest stays");
    assert_eq!(changed["sampling"], json!({"temperature": 0.25}));
    let version = |persona: &Value| persona["version"].as_u64().expect("a number");
    assert_eq!(version(&changed), version(&made) + 1);
    assert!(persona(&["list"]).contains(&format!("cli-ada@{}", changed["version"])));
    let old = made["version"].to_string();
    assert_eq!(json(&["show", "cli-ada", "--version", &old])["digest"], made["digest"]);

    let file = folder("cli").join("ada.json").display().to_string();
    persona(&["export", "cli-ada", "--with-vectors", "--out", &file]);
    let exported: Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("written")).expect("JSON");
    assert!(exported["vectors"]["cli-vector"].is_string(), "the plan's vector is in the file");
    assert!(persona(&["delete", "cli-ada"]).contains("2 versions"));
    assert_eq!(default_server().delete("/v1/vectors/cli-vector").status, 200);
    let (said, noted) = done(&["persona", "import", &file, "--server", &server]);
    assert!(said.contains("cli-ada@") && !noted.contains("digest differs"), "{said}{noted}");
    assert_eq!(json(&["show", "cli-ada"])["digest"], changed["digest"]);

    let again = demeanor(&["persona", "import", &file, "--server", &server]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("PUT /v1/personas/cli-ada"));
    std::fs::write(&file, "{\"schema\": \"demeanor.persona/9\"}").expect("writable");
    assert_eq!(demeanor(&["persona", "import", &file, "--server", &server]).status.code(), Some(65));
    persona(&["delete", "cli-ada"]);
    default_server().delete("/v1/vectors/cli-vector");
}

#[test]
fn personas_live_in_the_data_folder() {
    let data = folder("cli-personas").display().to_string();
    let at = ["-m", &model(), "--data-dir", &data].map(str::to_owned);
    let at: Vec<&str> = at.iter().map(String::as_str).collect();
    done(&[&["persona", "set", "ada", "--system", "You are Ada."], &at[..]].concat());
    let (listed, _) = done(&[&["persona", "list"], &at[..]].concat());
    assert!(listed.contains("ada@") && listed.contains("unprobed"), "{listed}");
    let (mut child, address) = serve_on(&data, &[]);
    let output = demeanor(&[&["persona", "show", "ada"], &at[..]].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert_eq!(output.status.code(), Some(75), "{told}");
    assert!(told.contains(&format!("curl http://{address}/v1/personas/ada")), "{told}");
}
