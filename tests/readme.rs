//! The README's examples, run as they stand against a real server.

use crate::harness::{self, Setup, TestModel};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Fenced `sh` blocks of the README.
fn blocks() -> Vec<String> {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("it exists");
    let fenced = text.split("```sh\n").skip(1);
    fenced.map(|rest| rest.split("```").next().expect("text").to_owned()).collect()
}

#[test]
fn every_curl_example_works() {
    let mut settings = Setup::new(TestModel::SmolLm2).settings();
    settings.aliases.push("smollm2-135m-instruct".into());
    let server = harness::start(&settings);
    // What an aborted run may have left.
    server.delete("/v1/vectors/mine");
    let folder = harness::folder("readme");
    let mut outputs = Vec::new();
    for block in blocks().into_iter().filter(|block| block.contains("curl")) {
        let script = block.replace("127.0.0.1:8080", &server.address.to_string());
        let output = Command::new("bash")
            .args(["-e", "-o", "pipefail", "-c", &script])
            .current_dir(&folder)
            .output()
            .expect("bash runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("\"error\""), "{script}\n{text}");
        assert!(text.len() > 40, "{script}\n{text}");
        outputs.push(text);
    }
    assert!(outputs.len() >= 7, "{} examples", outputs.len());
    assert!(outputs[1].trim_end().ends_with("data: [DONE]"), "the second example streams");
    let answer = |output: &str| output.split("\"content\":\"").nth(1).map(str::to_owned);
    assert_ne!(answer(&outputs[0]), answer(&outputs[2]), "the steered answer is another one");
}

#[test]
fn the_two_commands_are_the_ones_that_are_tested() {
    let commands = &blocks()[0];
    assert!(commands.contains("cargo run --release -- serve"));
    assert!(commands.contains("cargo test --release"));
    let ci = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/run")).expect("it exists");
    assert!(ci.contains("cargo test --locked --release"));
}
