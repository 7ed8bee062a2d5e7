//! The store as its users see it: what is written is there, what is deleted is nowhere, what fails harms nobody else.

use super::*;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder of its own for one test, removed at the end.
pub(crate) struct Folder(pub PathBuf);

impl Folder {
    pub fn new(test: &str) -> Folder {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("demeanor-{test}-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn local() -> Tenant {
    Tenant::local()
}

pub(crate) fn persona(name: &str, spec: Value) -> PersonaRow {
    PersonaRow { name: name.into(), version: 0, spec, digest: "d".into(), created: 0 }
}

pub(crate) fn item(text: &str) -> HistoryRow {
    HistoryRow {
        id: 0,
        time: Some(1_700_000_000),
        kind: "message".into(),
        session: None,
        source: None,
        weight: 1.0,
        dwell_s: None,
        content: json!({"text": text}),
        text_hmac: Digest::of(text.as_bytes()).0.to_vec(),
        created: 0,
    }
}

fn prompt(owner: &str, version: i64, data: Vec<u8>) -> SoftPromptRow {
    let weights_digest = Digest::of(b"w").to_string();
    SoftPromptRow {
        owner: owner.into(),
        weights_digest,
        version,
        rows: 1,
        d_model: 1,
        data,
        spec: json!({"from": "test"}),
    }
}

#[test]
fn personas_keep_every_version() {
    let folder = Folder::new("personas");
    let store = Store::open(&folder.0).unwrap();
    assert_eq!(store.persona(&local(), "ada").unwrap(), None);
    for (version, spec) in [(1, json!({"system": "a"})), (2, json!({"system": "b"}))] {
        assert_eq!(store.put_persona(&local(), persona("ada", spec)).unwrap(), version);
    }
    store.put_persona(&local(), persona("a-first", json!({}))).unwrap();
    let newest = store.persona(&local(), "ada").unwrap().unwrap();
    assert_eq!((newest.version, &newest.spec), (2, &json!({"system": "b"})));
    let first = store.persona_version(&local(), "ada", 1).unwrap().unwrap();
    assert_eq!(first.spec, json!({"system": "a"}));
    let names: Vec<_> =
        store.personas(&local()).unwrap().into_iter().map(|row| (row.name, row.version)).collect();
    assert_eq!(names, [("a-first".to_owned(), 1), ("ada".to_owned(), 2)]);
    assert_eq!(store.delete_persona(&local(), "ada").unwrap(), 2);
    assert_eq!(store.delete_persona(&local(), "ada").unwrap(), 0);
    assert_eq!(store.put_persona(&local(), persona("ada", json!({}))).unwrap(), 3, "numbers go on");
    drop(store);
    let store = Store::open(&folder.0).unwrap();
    assert_eq!(store.persona(&local(), "ada").unwrap().unwrap().version, 3);
    let other = Tenant(2);
    assert_eq!(store.persona(&other, "ada").unwrap(), None, "another tenant's are not seen");
    assert!(store.put_persona(&other, persona("x", json!({}))).is_err(), "there is no such tenant");
}

#[test]
fn histories_count_and_know_what_is_there() {
    let folder = Folder::new("history");
    let store = Store::open(&folder.0).unwrap();
    assert_eq!(store.add_history(&local(), "u1", vec![item("a")], None).unwrap(), None);
    assert!(store.create_user(&local(), "u1").unwrap());
    assert!(!store.create_user(&local(), "u1").unwrap());
    store.create_user(&local(), "u2").unwrap();
    let added =
        store.add_history(&local(), "u1", vec![item("a"), item("b"), item("a")], None).unwrap().unwrap();
    assert_eq!(added, Added { added: 2, duplicates: 1, total: 2, version: 1 });
    let kept = || -> Vec<(i64, Value)> {
        let rows = store.history(&local(), "u1", 0, 10).unwrap();
        rows.into_iter().map(|row| (row.id, row.content)).collect()
    };
    assert_eq!(kept(), [(1, json!({"text": "a"})), (2, json!({"text": "b"}))], "the second `a` is the first");
    let again = store.add_history(&local(), "u1", vec![item("b")], None).unwrap().unwrap();
    assert_eq!((again.added, again.version), (0, 1), "nothing new, no new version");
    assert!(store.delete_history_item(&local(), "u1", 2).unwrap());
    assert!(!store.delete_history_item(&local(), "u1", 2).unwrap());
    let added = store.add_history(&local(), "u1", vec![item("c")], None).unwrap().unwrap();
    assert_eq!((added.added, added.total, added.version), (1, 2, 3));
    let now = [(1, json!({"text": "a"})), (3, json!({"text": "c"}))];
    assert_eq!(kept(), now, "numbers are not given again");
    let page = store.history(&local(), "u1", 1, 10).unwrap();
    assert_eq!((page.len(), page[0].id, &page[0].content), (1, 3, &json!({"text": "c"})));
    assert_eq!(store.history(&local(), "u2", 0, 10).unwrap(), []);

    let pending: Vec<_> = store.items_without_embedding(&local(), "e", 10).unwrap();
    assert_eq!(
        pending.iter().map(|item| (item.user.as_str(), item.id)).collect::<Vec<_>>(),
        [("u1", 1), ("u1", 3)]
    );
    let embeddings = vec![(1, vec![0, 0, 128, 63]), (2, vec![0; 4])];
    assert_eq!(store.put_embeddings(&local(), "u1", "e", embeddings).unwrap(), 1, "item 2 is gone");
    store
        .add_history(
            &local(),
            "u1",
            vec![item("c"), item("d")],
            Some(("e".into(), vec![vec![9; 4], vec![7; 4]])),
        )
        .unwrap();
    let found = store.embeddings(&local(), "u1", "e").unwrap();
    assert_eq!(found, [(1, vec![0, 0, 128, 63]), (4, vec![7; 4])]);
    assert_eq!(store.items_without_embedding(&local(), "e", 10).unwrap().len(), 1);
    assert_eq!(store.items_without_embedding(&local(), "other", 10).unwrap().len(), 3);

    let ids = |after| -> Vec<String> {
        store.users(&local(), after, 1).unwrap().into_iter().map(|user| user.id).collect()
    };
    assert_eq!((ids(None), ids(Some("u1")), ids(Some("u2"))), (vec!["u1".into()], vec!["u2".into()], vec![]));
    let user = store.user(&local(), "u1").unwrap().unwrap();
    assert_eq!((user.items, user.version), (3, 4));
}

/// Whether any file below the folder holds these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => holds(&path, bytes),
            false => fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes),
        }
    })
}

#[test]
fn a_deleted_user_is_nowhere() {
    let folder = Folder::new("delete");
    let store = Store::open(&folder.0).unwrap();
    let canary = "the canary sings at dawn";
    let vector: Vec<u8> = (0..64u8).flat_map(|i| (f32::from(i) * 0.37 + 0.11).to_le_bytes()).collect();
    for user in ["u1", "u2"] {
        store.create_user(&local(), user).unwrap();
        let text = if user == "u1" { canary.to_owned() } else { "stays".to_owned() };
        store.add_history(&local(), user, vec![item(&text)], None).unwrap();
    }
    store.put_embeddings(&local(), "u1", "e", vec![(1, vector.clone())]).unwrap();
    store.put_soft_prompt(&local(), prompt("user:u1", 1, vector.clone())).unwrap();
    store.put_report(&local(), "kind", "user:u1", &json!({"text": canary})).unwrap();
    store.create_job(&local(), "embed", Some("user:u1"), None).unwrap();
    assert!(
        holds(&folder.0, canary.as_bytes()) && holds(&folder.0, &vector),
        "the search finds what is there"
    );
    let copy = folder.0.join("state.db.pre-1");
    fs::write(&copy, canary).unwrap();

    let deleted = store.delete_user(&local(), "u1").unwrap();
    let expected =
        Deleted { users: 1, items: 1, embeddings: 1, soft_prompts: 1, reports: 1, jobs: 1, personas: 0 };
    assert_eq!(deleted, expected);
    assert!(!holds(&folder.0, canary.as_bytes()), "no file holds the text");
    assert!(!holds(&folder.0, &vector), "no file holds the numbers");
    assert!(holds(&folder.0, b"stays"));
    assert_eq!(store.delete_user(&local(), "u1").unwrap(), Deleted::default());
    assert_eq!(store.user(&local(), "u2").unwrap().unwrap().items, 1);
}

#[test]
fn soft_prompts_belong_to_an_owner_and_a_model() {
    let folder = Folder::new("soft");
    let store = Store::open(&folder.0).unwrap();
    let weights = Digest::of(b"w").to_string();
    assert_eq!(store.put_soft_prompt(&local(), prompt("user:u1", 7, vec![1; 4])).unwrap(), 7);
    assert_eq!(store.put_soft_prompt(&local(), prompt("name:poet", 0, vec![2; 4])).unwrap(), 1);
    assert_eq!(store.put_soft_prompt(&local(), prompt("name:poet", 0, vec![3; 4])).unwrap(), 2);
    let poet = store.soft_prompt(&local(), "name:poet", &weights).unwrap().unwrap();
    assert_eq!((poet.version, poet.data), (2, vec![3; 4]));
    assert_eq!(store.soft_prompt(&local(), "name:poet", "other").unwrap(), None);
    let owners = |prefix| -> Vec<String> {
        let found = store.soft_prompts(&local(), prefix, &weights).unwrap();
        assert_eq!(store.soft_prompt_count(&local(), prefix, &weights).unwrap(), found.len() as u64);
        assert_eq!(store.soft_prompts(&local(), prefix, "other").unwrap(), []);
        found.into_iter().map(|row| row.owner).collect()
    };
    let of = |owner| -> Vec<(String, i64)> {
        let found = store.soft_prompts_of(&local(), owner).unwrap();
        found.into_iter().map(|row| (row.owner, row.version)).collect()
    };
    assert_eq!((of("user:u1"), of("user:u")), (vec![("user:u1".to_owned(), 7)], vec![]));
    assert_eq!(owners("name:"), ["name:poet"]);
    assert_eq!(owners(""), ["name:poet", "user:u1"]);
    assert!(store.delete_soft_prompt(&local(), "name:poet", &weights).unwrap());
    assert!(!store.delete_soft_prompt(&local(), "name:poet", &weights).unwrap());
    assert_eq!(of("name:poet"), []);
    assert_eq!(owners(""), ["user:u1"]);
}

/// Paths of all blobs.
fn blob_files(folder: &Path) -> usize {
    Blobs::open(folder).unwrap().files().unwrap().len()
}

#[test]
fn vectors_hold_their_blobs() {
    let folder = Folder::new("vectors");
    let store = Store::open(&folder.0).unwrap();
    let put = |name: &str, content: &[u8]| store.put_vector(&local(), "w", name, &json!({"n": 1}), content);
    put("a", b"one").unwrap();
    put("b", b"one").unwrap();
    put("a", b"two").unwrap();
    assert_eq!(blob_files(&folder.0), 2, "`b` still has the first");
    let blob = store.vector(&local(), "w", "a").unwrap().unwrap();
    assert_eq!(store.vector_content(&blob).unwrap(), b"two");
    assert!(store.delete_vector(&local(), "w", "b").unwrap());
    assert!(!store.delete_vector(&local(), "w", "b").unwrap());
    assert_eq!(blob_files(&folder.0), 1);
    assert_eq!(store.vector_names(&local(), "w").unwrap(), ["a"]);
    assert_eq!(store.vector_names(&local(), "v").unwrap(), [""; 0]);

    let pinned = store.put_blob(b"three").unwrap();
    let again = store.put_blob(b"three").unwrap();
    drop(again);
    assert_eq!(store.collect().unwrap(), 0, "somebody is about to name it");
    assert_eq!(store.blob(&pinned.digest).unwrap().as_deref(), Some(&b"three"[..]));
    let digest = pinned.digest;
    drop(pinned);
    assert_eq!(store.collect().unwrap(), 1);
    assert_eq!(store.blob(&digest).unwrap(), None);

    let two = Digest::of(b"two").to_string();
    fs::write(folder.0.join("blobs").join(&two[..2]).join(&two), b"tow").unwrap();
    assert!(matches!(store.vector_content(&blob), Err(StoreError::Corrupt { .. })), "the hash is checked");
    put("a", b"two").unwrap();
    assert_eq!(store.vector_content(&blob).unwrap(), b"two", "written again it is mended");
}

#[test]
fn facts_reports_and_jobs() {
    let folder = Folder::new("reports");
    let store = Store::open(&folder.0).unwrap();
    store.put_model_fact("w", "norms", &json!([1.5])).unwrap();
    store.put_model_fact("w", "norms", &json!([2.5])).unwrap();
    assert_eq!(store.model_fact("w", "norms").unwrap(), Some(json!([2.5])));
    assert_eq!(store.model_fact("v", "norms").unwrap(), None);
    for n in 0..crate::limits::STORE_REPORTS_KEPT + 2 {
        store.put_report(&local(), "probe", "d", &json!(n)).unwrap();
    }
    store.put_report(&local(), "probe", "other", &json!("x")).unwrap();
    let kept = store.reports(&local(), "probe", "d", 100).unwrap();
    assert_eq!(kept.len() as i64, crate::limits::STORE_REPORTS_KEPT);
    assert_eq!(kept[0].spec, json!(crate::limits::STORE_REPORTS_KEPT + 1), "newest first");

    let mut job = store.create_job(&local(), "extract", None, Some(6)).unwrap();
    assert_eq!((job.state.as_str(), job.total), ("queued", Some(6)));
    (job.state, job.done, job.result) = ("done".into(), 6, Some(json!({"x": 1})));
    store.update_job(&local(), &job).unwrap();
    let second = store.create_job(&local(), "extract", None, None).unwrap();
    assert_eq!(store.interrupt_jobs().unwrap(), 1);
    let states: Vec<_> = store.jobs(&local()).unwrap().into_iter().map(|job| (job.id, job.state)).collect();
    assert_eq!(states, [(second.id, "interrupted".to_owned()), (job.id, "done".to_owned())]);
    assert_eq!(store.job(&local(), job.id).unwrap().unwrap().result, Some(json!({"x": 1})));
}

#[test]
fn one_process_at_a_time() {
    let folder = Folder::new("lock");
    let store = Store::open(&folder.0).unwrap();
    store.announce("http://127.0.0.1:8080");
    let error = Store::open(&folder.0).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, StoreError::InUse { .. }), "{text}");
    assert!(text.contains(&std::process::id().to_string()) && text.contains("127.0.0.1:8080"), "{text}");
    let clone = store.clone();
    store.close();
    assert_eq!(clone.create_user(&local(), "late"), Err(StoreError::Closed));
    assert!(!folder.0.join(OPEN_MARK).exists());
    assert_eq!(clone.user(&local(), "late").unwrap(), None, "reading goes on");
    drop((store, clone));
    Store::open(&folder.0).unwrap();
}

#[test]
fn only_the_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("modes");
    let data = folder.0.join("data");
    let store = Store::open(&data).unwrap();
    store.put_vector(&local(), "w", "a", &json!({}), b"one").unwrap();
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(data.clone()), mode(data.join("blobs"))), (0o700, 0o700));
    let hash = Digest::of(b"one").to_string();
    for file in ["state.db", "state.db-wal", "state.db-shm", "lock", &format!("blobs/{}/{hash}", &hash[..2])]
    {
        assert_eq!(mode(data.join(file)), 0o600, "{file}");
    }
}

#[test]
fn files_of_others_and_of_the_future_are_refused() {
    let folder = Folder::new("refused");
    let path = folder.0.join(DATABASE);
    fs::write(&path, b"this is no database, it is a letter of some length to somebody").unwrap();
    assert!(matches!(Store::open(&folder.0), Err(StoreError::NotOurs { .. })));
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE notes (x)").unwrap();
    assert!(matches!(Store::open(&folder.0), Err(StoreError::NotOurs { .. })));
    fs::remove_file(&path).unwrap();
    drop(Store::open(&folder.0).unwrap());
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version=99").unwrap();
    let error = Store::open(&folder.0).err().unwrap();
    assert_eq!(error, StoreError::Newer { file: path.display().to_string(), found: 99, known: 1 });
}

#[test]
fn what_a_killed_process_left_is_checked_and_swept() {
    let folder = Folder::new("killed");
    let store = Store::open(&folder.0).unwrap();
    store.put_vector(&local(), "w", "a", &json!({}), b"one").unwrap();
    drop(store);
    assert!(!folder.0.join(OPEN_MARK).exists(), "an orderly end leaves no mark");
    // As if killed: in the middle of a blob, and between a blob and its row.
    fs::write(folder.0.join(OPEN_MARK), b"").unwrap();
    let orphan = Digest::of(b"orphan").to_string();
    let place = folder.0.join("blobs").join(&orphan[..2]);
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join(&orphan), b"orphan").unwrap();
    fs::write(place.join("123-0.part"), b"orp").unwrap();
    let store = Store::open(&folder.0).unwrap();
    assert_eq!(blob_files(&folder.0), 1);
    drop(store);

    let path = folder.0.join(DATABASE);
    let mut bytes = fs::read(&path).unwrap();
    // The root pages of the first tables.
    bytes[4096..3 * 4096].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    fs::write(folder.0.join(OPEN_MARK), b"").unwrap();
    let error = Store::open(&folder.0).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[test]
fn migrations_keep_a_copy_and_are_whole_or_nothing() {
    let folder = Folder::new("migrate");
    drop(Store::open(&folder.0).unwrap());
    let path = folder.0.join(DATABASE);
    let copy = folder.0.join("state.db.pre-3");
    let connection = connection::writing(&path).unwrap();
    let version = || -> i64 { connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap() };
    let (one, two) = (MIGRATIONS[0], "CREATE TABLE second (x INTEGER) STRICT;");
    let broken = [one, two, "CREATE TABLE third (x INTEGER) STRICT; INSERT INTO nowhere VALUES (1);"];
    assert!(migrate::migrate(&connection, &path, &broken).is_err());
    assert_eq!(version(), 2, "the second step is whole, the third is not there");
    assert!(connection.prepare("SELECT * FROM third").is_err());
    let before = connection::reading(&copy).unwrap();
    assert_eq!(migrate::schema(&before, &copy, 3).unwrap(), 1, "the copy is of before");
    let mended = [one, two, "CREATE TABLE third (x INTEGER) STRICT;"];
    assert!(migrate::migrate(&connection, &path, &mended).unwrap());
    assert_eq!(version(), 3);
    assert!(!migrate::migrate(&connection, &path, &mended).unwrap(), "nothing is left to do");
}

#[test]
fn copies_go_after_a_clean_start() {
    let folder = Folder::new("copies");
    drop(Store::open(&folder.0).unwrap());
    let copy = folder.0.join("state.db.pre-1");
    fs::write(&copy, b"old").unwrap();
    drop(Store::open(&folder.0).unwrap());
    assert!(!copy.exists());
}

#[test]
fn backups_come_back() {
    let folder = Folder::new("backup");
    let data = folder.0.join("data");
    let store = Store::open(&data).unwrap();
    store.put_persona(&local(), persona("ada", json!({"system": "x"}))).unwrap();
    store.put_vector(&local(), "w", "a", &json!({"n": 1}), b"numbers").unwrap();
    store.create_user(&local(), "u1").unwrap();
    store.add_history(&local(), "u1", vec![item("a")], None).unwrap();
    let file = folder.0.join("copy.db");
    // While the store is open.
    let written = backup(&data, &file).unwrap();
    assert_eq!(written, check(&data).unwrap());
    assert_eq!((written.personas, written.vectors, written.blobs, written.items), (1, 1, 1, 1));
    assert!(matches!(backup(&data, &file), Err(StoreError::Exists { .. })));
    let names: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "one file beside the data folder: {names:?}");

    let restored = folder.0.join("restored");
    fs::create_dir(&restored).unwrap();
    fs::copy(&file, restored.join(DATABASE)).unwrap();
    let store = Store::open(&restored).unwrap();
    let blob = store.vector(&local(), "w", "a").unwrap().unwrap();
    assert_eq!(store.vector_content(&blob).unwrap(), b"numbers");
    assert_eq!(store.persona(&local(), "ada").unwrap().unwrap().spec, json!({"system": "x"}));
    assert_eq!(check(&restored).unwrap(), written);

    let hash = Digest::of(b"numbers").to_string();
    fs::remove_file(restored.join("blobs").join(&hash[..2]).join(&hash)).unwrap();
    let error = check(&restored).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { .. }) && error.to_string().contains(&hash), "{error}");
    assert!(backup(&restored, &folder.0.join("bad.db")).is_err());
    assert!(!folder.0.join("bad.db").exists() && !folder.0.join("bad.db.part").exists());
    assert!(check(&folder.0).unwrap_err().to_string().contains("--data-dir"));
}

#[test]
fn a_full_disk_refuses_and_the_store_goes_on() {
    let folder = Folder::new("full");
    let store = Store::open(&folder.0).unwrap();
    store.create_user(&local(), "u1").unwrap();
    let pages = |n: i64| {
        store
            .write(move |connection| {
                Ok(connection.query_row(&format!("PRAGMA max_page_count={n}"), [], |_| Ok(()))?)
            })
            .unwrap();
    };
    pages(1);
    let long = "x".repeat(200_000);
    let error = store.add_history(&local(), "u1", vec![item(&long)], None).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(store.user(&local(), "u1").unwrap().unwrap().items, 0, "reads go on");
    pages(1_000_000);
    store.add_history(&local(), "u1", vec![item(&long)], None).unwrap();
    assert_eq!(store.history(&local(), "u1", 0, 9).unwrap().len(), 1);
}

#[test]
fn a_failing_write_does_not_spoil_its_neighbours() {
    let folder = Folder::new("group");
    let store = Store::open(&folder.0).unwrap();
    store.create_user(&local(), "u").unwrap();
    let long = "x".repeat(100_000);
    std::thread::scope(|scope| {
        // A write that holds the thread until the others wait, so that they become one group.
        let (waiting, go) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        let gates = std::sync::Arc::new((waiting, go));
        let (first, held) = (&store, gates.clone());
        scope.spawn(move || {
            first.write(move |_| {
                held.0.wait();
                held.1.wait();
                Ok(())
            })
        });
        gates.0.wait();
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let (store, long) = (&store, &long);
                scope.spawn(move || match n {
                    3 => store.write(|_| -> Result<(), StoreError> { panic!("on purpose") }).is_ok(),
                    5 => store.put_persona(&Tenant(9), persona("x", json!({}))).is_ok(),
                    6 => store
                        .write(|connection| {
                            connection.query_row("PRAGMA max_page_count=1", [], |_| Ok(()))?;
                            let full = "INSERT INTO meta VALUES ('x', zeroblob(10000000))";
                            let result = connection.execute(full, []);
                            connection.query_row("PRAGMA max_page_count=1000000", [], |_| Ok(()))?;
                            Ok(result.map(drop)?)
                        })
                        .is_ok(),
                    _ => store.add_history(&local(), "u", vec![item(&format!("{n}{long}"))], None).is_ok(),
                })
            })
            .collect();
        gates.1.wait();
        let outcomes: Vec<bool> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        assert_eq!(outcomes, [true, true, true, false, true, false, false, true]);
    });
    assert_eq!(store.history(&local(), "u", 0, 99).unwrap().len(), 5);
}

#[test]
fn bounds_refuse_and_leave_nothing() {
    let folder = Folder::new("bounds");
    let store = Store::open(&folder.0).unwrap();
    store.create_user(&local(), "u").unwrap();
    let fill = format!("UPDATE users SET items = {}", crate::limits::STORE_HISTORY_ITEMS_MAX);
    store.write(move |connection| Ok(connection.execute_batch(&fill)?)).unwrap();
    let error = store.add_history(&local(), "u", vec![item("one too many")], None).unwrap_err();
    assert!(matches!(error, StoreError::TooMany { .. }) && error.to_string().contains("50000"), "{error}");
    assert_eq!(store.history(&local(), "u", 0, 9).unwrap(), []);
    let huge = vec![0; crate::limits::BLOB_BYTES_MAX as usize + 1];
    assert!(matches!(store.put_blob(&huge), Err(StoreError::TooMany { .. })));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(40))]

    /// Rows that somebody else wrote into the file: an error or a value, never a panic.
    #[test]
    fn rows_of_any_text_are_read_or_refused(text in "\\PC*", bytes: Vec<u8>, json in "[\\[{\"a:1}\\],]*") {
        let folder = Folder::new("hostile");
        let store = Store::open(&folder.0).unwrap();
        store.create_user(&local(), &text).unwrap();
        let (spec, sealed) = (json.clone(), bytes.clone());
        let owner = users::owner(&text);
        store.write(move |connection| {
            let insert = "INSERT INTO personas VALUES (1, 'p', 1, ?1, ?1, 0)";
            connection.execute(insert, [&spec])?;
            connection.execute("INSERT INTO vectors SELECT 1, 'w', ?1, ?1, sha256, 0 FROM blobs", [&spec])?;
            let insert = "INSERT INTO history (tenant, owner, id, kind, weight, sealed, text_hmac, created)
                VALUES (1, ?1, 1, ?2, 1, ?3, x'', 0)";
            connection.execute(insert, (&owner, &spec, &sealed))?;
            Ok(())
        }).unwrap();
        let valid = serde_json::from_str::<Value>(&json).is_ok();
        proptest::prop_assert_eq!(store.persona(&local(), "p").is_ok(), valid);
        let valid = serde_json::from_slice::<Value>(&bytes).is_ok();
        let read = store.history(&local(), &text, 0, 9);
        proptest::prop_assert_eq!(read.is_ok(), valid);
        if let Err(error) = read {
            proptest::prop_assert!(matches!(error, StoreError::Corrupt { .. }), "{}", error);
        }
        proptest::prop_assert_eq!(store.user(&local(), &text).unwrap().map(|user| user.id), Some(text));
    }
}
