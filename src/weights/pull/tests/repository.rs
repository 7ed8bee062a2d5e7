//! Repositories by name: the file of a quantisation, model folders, and listings of hubs that mean no good.

use super::*;
use crate::weights::ModelFolder;
use serde_json::json;
use std::net::TcpStream;
use std::path::PathBuf;

const TOKENIZER: &[u8] = br#"{"model":{}}"#;

/// Files by path, as a hub has them.
type Files = Vec<(String, Vec<u8>)>;

fn files(entries: &[(&str, &[u8])]) -> Files {
    entries.iter().map(|(path, content)| (path.to_string(), content.to_vec())).collect()
}

/// Weights are large files for the hub: it knows their sha256.
fn is_large(path: &str) -> bool {
    path.ends_with(".gguf") || path.ends_with(".safetensors")
}

fn listing(files: &Files) -> String {
    let sibling = |(path, content): &(String, Vec<u8>)| match is_large(path) {
        true => {
            let lfs =
                json!({"sha256": Digest::of(content).to_string(), "size": content.len(), "pointerSize": 135});
            json!({"rfilename": path, "size": content.len(), "blobId": "0", "lfs": lfs})
        }
        false => json!({"rfilename": path, "size": content.len(), "blobId": "0"}),
    };
    let siblings: Vec<_> = files.iter().map(sibling).collect();
    json!({"id": "org/repo", "sha": COMMIT, "gated": false, "siblings": siblings}).to_string()
}

/// A hub that has these files and says `list` of them.
fn hub_with(files: Files, list: String) -> MockHub {
    MockHub::start(move |asked| {
        if asked.line == "GET /api/models/org/repo/revision/main?blobs=true" {
            return Answer { body: list.clone().into_bytes(), ..status("200 OK") };
        }
        let file = files.iter().find(|(path, _)| asked.line.ends_with(&format!("/resolve/main/{path}")));
        let Some((path, content)) = file else { return status("404 Not Found") };
        let sha256 = Digest::of(content);
        let etag = if is_large(path) { sha256.to_string() } else { sha256.short(40) };
        HubFile { content: content.clone(), etag, commit: COMMIT.into() }.answer(asked)
    })
}

fn hub_of(files: Files) -> MockHub {
    let list = listing(&files);
    hub_with(files, list)
}

fn snapshot(scratch: &Scratch) -> PathBuf {
    scratch.0.join("hub/models--org--repo/snapshots").join(COMMIT)
}

#[test]
fn a_quantisation_is_fetched_checked_and_found_again() {
    let scratch = Scratch::new();
    let large = vec![9; 500];
    let hub = hub_of(files(&[
        ("README.md", b"words"),
        ("x-Q4_K_M.gguf", &content()),
        ("x-Q8_0.gguf", &large),
        ("mmproj-x-F16.gguf", b"eyes"),
    ]));
    let fetcher = fetcher(&scratch, &hub.endpoint);
    let path = fetcher.pull("hf:org/repo:q8_0", &mut ()).unwrap();
    assert_eq!(path, snapshot(&scratch).join("x-Q8_0.gguf"));
    assert_eq!(fs::read(&path).unwrap(), large);
    assert_eq!(hub.downloads(), 2, "the listing and the file");
    // What is there is found by every name for it, without the network.
    for name in ["hf:org/repo:Q8_0", "hf:org/repo", "hf:org/repo/x-Q8_0.gguf"] {
        assert_eq!(fetcher.locate(name).unwrap(), Some(path.clone()), "{name}");
        assert_eq!(fetcher.expected_digest(name).unwrap(), Some(Digest::of(&large)), "{name}");
        assert_eq!(fetcher.pull(name, &mut ()).unwrap(), path, "{name}");
    }
    assert_eq!(hub.downloads(), 2);
    // Another quantisation beside it; then the name without one means the usual one.
    let usual = fetcher.pull("hf:org/repo:Q4_K_M", &mut ()).unwrap();
    assert_eq!(fs::read(&usual).unwrap(), content());
    assert_eq!(fetcher.locate("hf:org/repo").unwrap(), Some(usual));
    assert_eq!(fetcher.locate("hf:org/repo:Q8_0").unwrap(), Some(path.clone()));
    // One flipped byte: found and fetched again; the other file stays.
    let blob = fs::canonicalize(&path).unwrap();
    fs::write(&blob, vec![8; 500]).unwrap();
    assert_eq!(fs::read(fetcher.pull("hf:org/repo:Q8_0", &mut ()).unwrap()).unwrap(), large);
    assert!(snapshot(&scratch).join("x-Q4_K_M.gguf").is_file());
}

#[test]
fn what_the_listing_says_of_a_file_must_be_so() {
    let scratch = Scratch::new();
    let good = files(&[("x.gguf", &content())]);
    let other = listing(&files(&[("x.gguf", b"other content")]));
    let hub = hub_with(good.clone(), other);
    let error = fetcher(&scratch, &hub.endpoint).pull("hf:org/repo", &mut ()).unwrap_err();
    assert!(matches!(error, WeightsError::Mismatch { .. }), "{error}");
    assert_eq!(hub.downloads(), 1, "the listing alone");
    assert_eq!(files_below(&scratch.0), [""; 0]);
    // Headers agree with the listing, the content does not.
    let list = listing(&good);
    let hub = MockHub::start(move |asked| match asked.line.contains("/api/") {
        true => Answer { body: list.clone().into_bytes(), ..status("200 OK") },
        false => HubFile { content: vec![0; 300_000], ..hub_file() }.answer(asked),
    });
    let error = fetcher(&scratch, &hub.endpoint).pull("hf:org/repo", &mut ()).unwrap_err().to_string();
    assert!(error.contains(&format!("expected {}", Digest::of(&content()))), "{error}");
    assert_eq!(files_below(&scratch.0), [""; 0]);
}

/// A model in four shards, with files that no model is made of.
fn folder_files() -> Files {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/gemma2");
    let mut files = files(&[
        ("README.md", b"words"),
        ("pytorch_model.bin", b"pickle"),
        ("tokenizer.json", TOKENIZER),
        ("original/model.safetensors", b"another"),
    ]);
    let names = ["config.json", "generation_config.json", "model.safetensors.index.json"].map(String::from);
    let shards = (1..=4).map(|shard| format!("model-{shard:05}-of-00004.safetensors"));
    for name in names.into_iter().chain(shards) {
        let content = fs::read(place.join(&name)).unwrap();
        files.push((name, content));
    }
    files
}

#[test]
fn a_repository_without_gguf_files_gives_its_safetensors() {
    let scratch = Scratch::new();
    let hub = hub_of(folder_files());
    let fetcher = fetcher(&scratch, &hub.endpoint);
    assert_eq!(fetcher.locate("hf:org/repo").unwrap(), None);
    let folder = fetcher.pull("hf:org/repo", &mut ()).unwrap();
    assert_eq!(folder, snapshot(&scratch));
    let mut names: Vec<String> = files_below(&folder);
    names.retain(|name| !name.starts_with("model-"));
    assert_eq!(
        names,
        ["config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json"]
    );
    assert_eq!(fetcher.locate("hf:org/repo").unwrap(), Some(folder.clone()));
    let digest = ModelFolder::open(&folder).unwrap().digest();
    assert_eq!(fetcher.expected_digest("hf:org/repo").unwrap(), Some(digest));
    assert_eq!(fetcher.cache.list(), [("hf:org/repo".to_owned(), folder.clone())]);
    let asked = hub.lines().len();
    assert_eq!(fetcher.pull("hf:org/repo", &mut ()).unwrap(), folder);
    assert_eq!(hub.lines().len(), asked, "what is on disk is not asked for");

    // A changed shard is fetched again, the others are not.
    let shard = folder.join("model-00002-of-00004.safetensors");
    fs::write(fs::canonicalize(&shard).unwrap(), b"changed").unwrap();
    assert_ne!(ModelFolder::open(&folder).map(|folder| folder.digest()).ok(), Some(digest));
    let before = hub.downloads();
    assert_eq!(fetcher.pull("hf:org/repo", &mut ()).unwrap(), folder);
    assert_eq!(ModelFolder::open(&folder).unwrap().digest(), digest);
    assert_eq!(hub.downloads(), before + 2, "the listing and the shard");

    // Without one shard it is no model.
    fetcher.cache.remove(&shard).unwrap();
    assert_eq!(fetcher.locate("hf:org/repo").unwrap(), None);
    assert_eq!(fetcher.cache.list(), []);
}

#[test]
fn hostile_and_unusable_repositories_are_refused_by_what_is_wrong() {
    let tokenizer = ("tokenizer.json", TOKENIZER);
    let index = |file: &str| format!(r#"{{"weight_map":{{"t":"{file}"}}}}"#).into_bytes();
    let (up, absent) = (index("../x.safetensors"), index("x.safetensors"));
    let large = vec![b' '; 2 << 20];
    let many: Files = (0..10_001).map(|n| (format!("{n}.txt"), Vec::new())).collect();
    let whole = |files: Files| (listing(&files), files);
    let text = |list: &str| (list.to_owned(), files(&[("x.gguf", b"x")]));
    for ((list, files), name, message) in [
        (whole(files(&[("a/../../x.gguf", b"x")])), "hf:org/repo", "neither a GGUF file"),
        (whole(files(&[("/etc/x.gguf", b"x"), ("x gguf.gguf", b"x")])), "hf:org/repo", "neither a GGUF file"),
        (
            whole(files(&[("x-Q4_0.gguf", b"x")])),
            "hf:org/repo:Q8_0",
            "no GGUF file of `Q8_0`; it has x-Q4_0.gguf",
        ),
        (
            whole(files(&[("a.gguf", b"x"), ("b.gguf", b"y")])),
            "hf:org/repo",
            "name one of them: a.gguf, b.gguf",
        ),
        (
            whole(files(&[("a-Q4_0-00001-of-00002.gguf", b"x"), ("a-Q4_0-00002-of-00002.gguf", b"x")])),
            "hf:org/repo",
            "in parts, which are not joined",
        ),
        (
            whole(files(&[tokenizer, ("config.json", b"{}"), ("model.safetensors.index.json", &up)])),
            "hf:org/repo",
            "is no `NAME.safetensors`",
        ),
        (
            whole(files(&[tokenizer, ("config.json", b"{}"), ("model.safetensors.index.json", &absent)])),
            "hf:org/repo",
            "an index that lists `x.safetensors`, but no such file",
        ),
        (
            whole(files(&[tokenizer, ("config.json", &large), ("model.safetensors", b"x")])),
            "hf:org/repo",
            "announces 2097152 bytes; at most 1048576 are taken",
        ),
        (whole(many), "hf:org/repo", "lists 10001 files"),
        (text("not json"), "hf:org/repo", "unreadable listing"),
        (text(r#"{"siblings":7}"#), "hf:org/repo", "unreadable listing"),
        (text(&format!(r#"{{"x":"{}""#, "x".repeat(17 << 20))), "hf:org/repo", "unreadable listing"),
        (text(&"[".repeat(1 << 20)), "hf:org/repo", "unreadable listing"),
    ] {
        let scratch = Scratch::new();
        let hub = hub_with(files, list);
        let error = fetcher(&scratch, &hub.endpoint).pull(name, &mut ()).unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
        let kept = files_below(&scratch.0);
        assert!(kept.iter().all(|path| !path.contains("..") && !path.ends_with(".gguf")), "{kept:?}");
    }
    for answer in ["401 Unauthorized", "404 Not Found"] {
        let hub = MockHub::start(move |_| status(answer));
        let error = fetcher(&Scratch::new(), &hub.endpoint).pull("hf:org/repo", &mut ()).unwrap_err();
        assert!(
            error.to_string().contains("no repository `org/repo` or no access to it; set `HF_TOKEN`"),
            "{error}"
        );
    }
}

/// Sends a byte of the listing every 20 ms, for ever.
fn trickle(mut stream: TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"siblings\":[");
    while stream.write_all(b" ").is_ok() {
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_listing_that_never_ends_is_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().flatten().for_each(trickle));
    let scratch = Scratch::new();
    let mut fetcher = fetcher(&scratch, &endpoint);
    fetcher.hub.reach = Duration::from_millis(20);
    let error = fetcher.pull("hf:org/repo", &mut ()).unwrap_err().to_string();
    assert!(error.contains("unreadable listing") && error.contains("timeout"), "{error}");
}
