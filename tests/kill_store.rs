//! A store that is killed at random moments: what was acknowledged is there whole, what was not is there whole or not at all.
//!
//! A child process (this test binary again) writes with several threads and says each write that came back. It is
//! killed, the store is opened anew and compared with a model of the writes. Each thread's writes are a function of its
//! number and count, so the state must be that after the acknowledged writes, or after one more.

use crate::harness::empty_folder;
use demeanor::digest::Digest;
use demeanor::store::{self, HistoryRow, PersonaRow, SoftPromptRow, Store, Tenant};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Threads that write at once.
const THREADS: usize = 6;
/// Names per thread: few, so that writes meet, replace and delete each other.
const NAMES: u64 = 3;
/// Tells the child where to write and from which count each thread goes on: `FOLDER:1,2,3,...`.
const CHILD: &str = "DEMEANOR_STORE_WRITER";
const WEIGHTS: &str = "0f0f";
const ENCODER: &str = "e0e0";

/// A small generator with a fixed sequence (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(n).collect()
    }
}

/// One write. Names are of its thread alone.
#[derive(Debug)]
enum Op {
    PutPersona(String, Value),
    DeletePersona(String),
    CreateUser(String),
    /// Texts, each with its embedding.
    AddHistory(String, Vec<(String, Vec<u8>)>),
    DeleteItem(String, i64),
    DeleteUser(String),
    PutSoftPrompt(String, Vec<u8>),
    PutVector(String, Vec<u8>),
    DeleteVector(String),
    PutReport(String, Value),
}

/// Write number `count` of a thread.
fn op(thread: usize, count: u64) -> Op {
    let mut random = Random(count.wrapping_mul(1_000_003) ^ ((thread as u64) << 48));
    random.next();
    let name = format!("t{thread}-{}", random.below(NAMES));
    match random.below(16) {
        0..=2 => Op::PutPersona(name, json!({"system": format!("{thread} {count}")})),
        3 => Op::DeletePersona(name),
        4..=5 => Op::CreateUser(name),
        6..=8 => {
            let items = 1 + random.below(5);
            let one = |i| (format!("item {thread} {count} {i}"), random.bytes(384 * 4));
            Op::AddHistory(name, (0..items).map(one).collect())
        }
        9 => Op::DeleteItem(name, 1 + random.below(8) as i64),
        10 => Op::DeleteUser(name),
        11 => Op::PutSoftPrompt(name, random.bytes(4 * 576 * 4)),
        12..=13 => {
            // Two threads may write the same content: one blob, two names.
            let mut content = Random(random.below(64));
            let length = 1 + content.below(40_000) as usize;
            Op::PutVector(name, content.bytes(length))
        }
        14 => Op::DeleteVector(name),
        _ => Op::PutReport(name, json!({"count": count})),
    }
}

fn item(text: &str) -> HistoryRow {
    HistoryRow {
        id: 0,
        time: None,
        kind: "message".into(),
        session: None,
        source: None,
        weight: 0.5,
        dwell_s: None,
        content: json!({"text": text}),
        text_hmac: Digest::of(text.as_bytes()).0.to_vec(),
        created: 0,
    }
}

fn run(store: &Store, op: Op) -> Result<(), store::StoreError> {
    let local = Tenant::local();
    match op {
        Op::PutPersona(name, spec) => {
            let digest = Digest::of(spec.to_string().as_bytes()).to_string();
            store.put_persona(&local, PersonaRow { name, version: 0, spec, digest, created: 0 }).map(drop)
        }
        Op::DeletePersona(name) => store.delete_persona(&local, &name).map(drop),
        Op::CreateUser(name) => store.create_user(&local, &name).map(drop),
        Op::AddHistory(name, items) => {
            let (texts, embeddings): (Vec<_>, Vec<_>) = items.into_iter().unzip();
            let rows = texts.iter().map(|text| item(text)).collect();
            store.add_history(&local, &name, rows, Some((ENCODER.into(), embeddings))).map(drop)
        }
        Op::DeleteItem(name, id) => store.delete_history_item(&local, &name, id).map(drop),
        Op::DeleteUser(name) => store.delete_user(&local, &name).map(drop),
        Op::PutSoftPrompt(name, data) => {
            let row = SoftPromptRow {
                owner: format!("user:{name}"),
                weights_digest: WEIGHTS.into(),
                version: 1,
                rows: 4,
                d_model: 576,
                data,
                spec: json!({}),
            };
            store.put_soft_prompt(&local, row).map(drop)
        }
        Op::PutVector(name, content) => store.put_vector(&local, WEIGHTS, &name, &json!({}), &content),
        Op::DeleteVector(name) => store.delete_vector(&local, WEIGHTS, &name).map(drop),
        Op::PutReport(name, spec) => store.put_report(&local, "kill", &name, &spec).map(drop),
    }
}

/// Text and embedding of each item.
type History = BTreeMap<i64, (String, Vec<u8>)>;

/// What the rows of one thread come to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Rows {
    /// Version -> specification, by name.
    personas: BTreeMap<String, BTreeMap<i64, Value>>,
    /// Version and history, by id.
    users: BTreeMap<String, (i64, History)>,
    soft_prompts: BTreeMap<String, Vec<u8>>,
    vectors: BTreeMap<String, Vec<u8>>,
    newest_report: BTreeMap<String, Value>,
}

/// Rows with what is not seen in them: numbers that go on after a deletion.
#[derive(Clone, Default)]
struct Model {
    rows: Rows,
    last_version: BTreeMap<String, i64>,
    last_item: BTreeMap<String, i64>,
}

impl Model {
    fn apply(&mut self, op: Op) {
        let rows = &mut self.rows;
        match op {
            Op::PutPersona(name, spec) => {
                let version = self.last_version.entry(name.clone()).or_default();
                *version += 1;
                rows.personas.entry(name).or_default().insert(*version, spec);
            }
            Op::DeletePersona(name) => drop(rows.personas.remove(&name)),
            Op::CreateUser(name) => {
                if !rows.users.contains_key(&name) {
                    rows.users.insert(name.clone(), (0, BTreeMap::new()));
                    self.last_item.insert(name, 0);
                }
            }
            Op::AddHistory(name, items) => {
                let Some((version, history)) = rows.users.get_mut(&name) else { return };
                let last = self.last_item.entry(name).or_default();
                *version += 1;
                for one in items {
                    *last += 1;
                    history.insert(*last, one);
                }
            }
            Op::DeleteItem(name, id) => {
                let Some((version, history)) = rows.users.get_mut(&name) else { return };
                if history.remove(&id).is_some() {
                    *version += 1;
                    rows.soft_prompts.remove(&name);
                }
            }
            Op::DeleteUser(name) => {
                rows.users.remove(&name);
                rows.soft_prompts.remove(&name);
            }
            Op::PutSoftPrompt(name, data) => drop(rows.soft_prompts.insert(name, data)),
            Op::PutVector(name, content) => drop(rows.vectors.insert(name, content)),
            Op::DeleteVector(name) => drop(rows.vectors.remove(&name)),
            Op::PutReport(name, spec) => drop(rows.newest_report.insert(name, spec)),
        }
    }
}

/// Reads what a thread's names hold.
fn read(store: &Store, thread: usize) -> Result<Rows, store::StoreError> {
    let local = Tenant::local();
    let mut rows = Rows::default();
    for name in (0..NAMES).map(|n| format!("t{thread}-{n}")) {
        let newest = store.persona(&local, &name)?.map_or(0, |row| row.version);
        for version in 1..=newest {
            if let Some(row) = store.persona_version(&local, &name, version)? {
                rows.personas.entry(name.clone()).or_default().insert(version, row.spec);
            }
        }
        if let Some(user) = store.user(&local, &name)? {
            let texts = store.history(&local, &name, 0, usize::MAX >> 1)?;
            let vectors = store.embeddings(&local, &name, ENCODER)?;
            assert_eq!(texts.len() as i64, user.items, "the count beside the history");
            let pairs = texts.into_iter().zip(vectors).map(|(text, (id, vector))| {
                assert_eq!(text.id, id, "every item has its embedding");
                (id, (text.content["text"].as_str().expect("text").to_owned(), vector))
            });
            rows.users.insert(name.clone(), (user.version, pairs.collect()));
        }
        if let Some(row) = store.soft_prompt(&local, &format!("user:{name}"), WEIGHTS)? {
            rows.soft_prompts.insert(name.clone(), row.data);
        }
        if let Some(blob) = store.vector(&local, WEIGHTS, &name)? {
            rows.vectors.insert(name.clone(), store.vector_content(&blob)?);
        }
        if let Some(row) = store.reports(&local, "kill", &name, 1)?.into_iter().next() {
            rows.newest_report.insert(name, row.spec);
        }
    }
    Ok(rows)
}

/// The child: opens, writes, says what came back, until it is killed.
#[test]
#[ignore = "the child process of the other test"]
fn writer() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (folder, counts) = task.rsplit_once(':').expect("a folder and counts");
    let store = Store::open(Path::new(folder)).expect("the store opens");
    println!("\nopen");
    std::thread::scope(|scope| {
        for (thread, count) in counts.split(',').enumerate() {
            let (store, mut count) = (&store, count.parse::<u64>().expect("a number"));
            scope.spawn(move || {
                loop {
                    run(store, op(thread, count)).expect("the write is taken");
                    count += 1;
                    // One write of one line: it arrives whole or not at all.
                    let line = format!("ack {thread} {count}\n");
                    let _ = std::io::stdout().lock().write_all(line.as_bytes());
                }
            });
        }
    });
}

fn spawn(folder: &Path, counts: &[u64]) -> (Child, Receiver<String>) {
    let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "kill_store::writer", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{}:{}", folder.display(), counts.join(",")))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts");
    let (sender, lines) = channel();
    let out = BufReader::new(child.stdout.take().expect("piped"));
    std::thread::spawn(move || {
        out.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
    });
    (child, lines)
}

/// What the cycles came to.
#[derive(Debug, Default)]
struct Tally {
    cycles: u64,
    /// Killed before the store was open.
    while_opening: u64,
    acknowledged: u64,
    /// Threads whose last write was on disk though nobody had been told.
    one_more: u64,
    blobs_seen: u64,
    parts_seen: u64,
}

/// One life of the child: killed `after` it was open, or after its start. Returns whether it was open.
fn kill_after(folder: &Path, counts: &mut [u64], after: Duration, from_start: bool) -> bool {
    let (mut child, lines) = spawn(folder, counts);
    let mut is_open = false;
    let mut deadline = from_start.then(|| Instant::now() + after);
    loop {
        let wait =
            deadline.map_or(Duration::from_secs(60), |at| at.saturating_duration_since(Instant::now()));
        match lines.recv_timeout(wait) {
            Ok(line) if line == "open" => {
                is_open = true;
                deadline.get_or_insert(Instant::now() + after);
            }
            Ok(line) => count(&line, counts),
            Err(RecvTimeoutError::Timeout) if deadline.is_some() => break,
            Err(error) => panic!("the child does not write: {error}"),
        }
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("it is gone");
    // What it said before it died still counts.
    for line in lines {
        is_open |= line == "open";
        count(&line, counts);
    }
    is_open
}

fn count(line: &str, counts: &mut [u64]) {
    let mut words = line.split(' ');
    if let (Some("ack"), Some(thread), Some(count), None) =
        (words.next(), words.next(), words.next(), words.next())
    {
        counts[thread.parse::<usize>().expect("a thread")] = count.parse().expect("a number");
    }
}

/// Every visible blob, before anybody opens the store: its content must be what its name says.
fn check_visible_blobs(folder: &Path, tally: &mut Tally) {
    let Ok(folders) = std::fs::read_dir(folder.join("blobs")) else { return };
    for place in folders.map(|entry| entry.expect("readable").path()) {
        for file in std::fs::read_dir(place).expect("readable").map(|entry| entry.expect("readable").path()) {
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            if name.ends_with(".part") {
                tally.parts_seen += 1;
                continue;
            }
            let content = std::fs::read(&file).expect("readable");
            assert_eq!(Digest::of(&content).to_string(), name, "a half-written blob is visible");
            tally.blobs_seen += 1;
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let cycles = std::env::var("DEMEANOR_KILL_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let seed = std::env::var("DEMEANOR_KILL_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let folder = empty_folder("kill-store");
    let mut random = Random(seed);
    let mut tally = Tally::default();
    let mut counts = vec![0u64; THREADS];
    let mut models = vec![Model::default(); THREADS];
    for cycle in 0..cycles {
        let before = counts.clone();
        // Every eighth time in the middle of opening what the last one left.
        let (from_start, most) = if cycle % 8 == 7 { (true, 30_000) } else { (false, 250_000) };
        let after = Duration::from_micros(random.below(most));
        let was_open = kill_after(&folder, &mut counts, after, from_start);
        tally.cycles += 1;
        tally.while_opening += u64::from(!was_open);
        check_visible_blobs(&folder, &mut tally);
        let store = Store::open(&folder).expect("it opens again");
        store::check(&folder).expect("integrity, references and blobs are right");
        for (thread, model) in models.iter_mut().enumerate() {
            (before[thread]..counts[thread]).for_each(|count| model.apply(op(thread, count)));
            tally.acknowledged += counts[thread] - before[thread];
            let found = read(&store, thread).expect("readable");
            if found == model.rows {
                continue;
            }
            let mut next = model.clone();
            next.apply(op(thread, counts[thread]));
            assert_eq!(
                found, next.rows,
                "cycle {cycle}, thread {thread}: neither what was acknowledged nor one write more"
            );
            (*model, counts[thread]) = (next, counts[thread] + 1);
            tally.one_more += 1;
        }
        store.collect().expect("what nobody names goes");
    }
    println!("{tally:?}");
    assert!(tally.acknowledged > 0, "the child wrote something: {tally:?}");
    let blobs = store::check(&folder).expect("right").blobs;
    let mut last = Tally::default();
    check_visible_blobs(&folder, &mut last);
    assert_eq!((last.blobs_seen as i64, last.parts_seen), (blobs, 0), "nothing is left over");
}

/// Writes `total` reports with so many threads, for a count of syncs.
#[test]
#[ignore = "run by scripts/count_syncs.sh"]
fn grouped_writes() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let (threads, total) =
        (number("DEMEANOR_SYNC_THREADS").unwrap_or(1), number("DEMEANOR_SYNC_WRITES").unwrap_or(100));
    let store = Store::open(&empty_folder(&format!("sync-{threads}"))).expect("the store opens");
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let store = &store;
            scope.spawn(move || {
                for n in 0..total / threads {
                    let spec = json!({"text": "x".repeat(1500), "n": n});
                    let subject = format!("{thread}-{n}");
                    store.put_report(&Tenant::local(), "sync", &subject, &spec).expect("taken");
                }
            });
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    println!("{} writes of {threads} threads, {:.0} a second", total, total as f64 / seconds);
}

/// Fills a small disk, and frees it again: what does not fit is refused by name, the rest goes on.
#[test]
#[ignore = "run by scripts/full_disk.sh, which makes the disk"]
fn a_full_disk() {
    let disk = PathBuf::from(std::env::var_os("DEMEANOR_SMALL_DISK").expect("a small file system"));
    let local = Tenant::local();
    let store = Store::open(&disk.join("data")).expect("the store opens");
    store.create_user(&local, "u").expect("taken");
    let filler = disk.join("filler");
    let full = |what: &str, result: Result<(), store::StoreError>| {
        let error = result.expect_err(what);
        assert!(error.is_full(), "{what}: {error}");
        println!("{what}: {error}");
    };
    let mut random = Random(1);
    for round in 0..3 {
        // Only the last bytes of the disk are left.
        let mut file = std::fs::File::create(&filler).expect("created");
        while file.write_all(&[7; 4096]).is_ok() {}
        let before = read_user(&store);
        full("a history", {
            let big = item(&format!("{round} {}", "x".repeat(200_000)));
            store.add_history(&local, "u", vec![big], None).map(drop)
        });
        full("a blob", store.put_blob(&random.bytes(50_000)).map(drop));
        assert_eq!(read_user(&store), before, "reading goes on and sees nothing of it");
        drop(file);
        std::fs::remove_file(&filler).expect("removed");
        store.add_history(&local, "u", vec![item(&round.to_string())], None).expect("taken again");
        store.put_vector(&local, WEIGHTS, "v", &json!({}), &random.bytes(50_000)).expect("taken again");
    }
    drop(store);
    assert_eq!(store::check(&disk.join("data")).expect("right").items, 3);
}

fn read_user(store: &Store) -> Option<store::UserRow> {
    store.user(&Tenant::local(), "u").expect("readable")
}

#[test]
fn the_comparison_notices_what_is_missing() {
    let folder = empty_folder("kill-compare");
    let store = Store::open(&folder).expect("it opens");
    let mut model = Model::default();
    for count in 0..60 {
        run(&store, op(0, count)).expect("taken");
        model.apply(op(0, count));
    }
    assert_eq!(read(&store, 0).expect("readable"), model.rows);
    let user = model.rows.users.keys().next().expect("a user").clone();
    let item = *model.rows.users[&user].1.keys().next().expect("an item");
    assert!(store.delete_history_item(&Tenant::local(), &user, item).expect("taken"));
    assert_ne!(read(&store, 0).expect("readable"), model.rows);
}
