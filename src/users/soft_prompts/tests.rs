//! Named soft prompts on a store of their own and a model of four embedding dimensions.

use super::*;
use crate::model::ControlRow;
use crate::store::tests::Folder;

/// A model whose embeddings have length 2; token 5 is a control token.
fn facts() -> Arc<EmbeddingFacts> {
    let controls = vec![ControlRow { id: 5, direction: vec![0.0, 0.0, 1.0, 0.0] }];
    Arc::new(EmbeddingFacts { norm_median: 2.0, controls })
}

fn on(store: &Store, weights: &[u8]) -> SoftPrompts {
    let model = ModelFacts { weights: Digest::of(weights), d_model: 4, embedding: facts() };
    let model = Arc::new(model);
    SoftPrompts { store: store.clone(), tenant: Tenant::local(), model, writing: Arc::default() }
}

fn import(values: &[f32]) -> Imported {
    let d_model = 4.min(values.len());
    let table = RowTable::new(values.to_vec(), values.len() / d_model, d_model).expect("good rows");
    Imported { table, format: "json", base_model: None }
}

#[test]
fn a_name_is_written_read_replaced_and_deleted() {
    let folder = Folder::new("soft-prompts");
    let store = Store::open(&folder.0).expect("opens");
    let (ours, other) = (on(&store, b"w"), on(&store, b"v"));
    let rows = [1.0, 1.0, 0.0, -1.0, 0.5, 0.25, 0.0, 2.0];
    let info = ours.put("poet", import(&rows), false).expect("stored");
    assert_eq!((info.name.as_str(), info.version, info.rows, info.d_model), ("poet", 1, 2, 4));
    let found = ours.get("poet").expect("read").expect("there");
    assert_eq!((found.label.as_str(), found.rows.row(1)), ("poet@1", &rows[4..]));
    assert_eq!(found.rows.digest(), info.digest);
    assert!(other.get("poet").expect("read").is_none(), "made for other weights");
    assert_eq!(other.list().expect("read"), []);

    let taken = ours.put("poet", import(&rows[..4]), false).expect_err("taken");
    assert_eq!(taken, UsersError::SoftPromptExists { name: "poet".into() });
    assert_eq!(ours.put("poet", import(&rows[..4]), true).expect("replaced").version, 2);
    ours.put("a.b", import(&rows), false).expect("stored");
    let names: Vec<String> = ours.list().expect("read").into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["a.b", "poet"]);

    ours.delete("poet").expect("deleted");
    assert!(ours.get("poet").expect("read").is_none());
    assert_eq!(ours.delete("poet").expect_err("gone"), unknown("poet"));
    assert_eq!(ours.show("../x").expect_err("no such name"), unknown("../x"));
}

#[test]
fn a_file_that_is_exported_is_imported_again() {
    let folder = Folder::new("soft-prompts-files");
    let prompts = on(&Store::open(&folder.0).expect("opens"), b"w");
    let imported = import(&[1.0, -1.5, 0.125, 0.7]);
    prompts.put("x", imported.clone(), false).expect("stored");
    let files = prompts.files("x", "model").expect("written");
    let again = formats::read(&files.adapter, Some(&files.config)).expect("read");
    assert_eq!((again.table, again.base_model.as_deref()), (imported.table, Some("model")));
    let zip = prompts.export("x", Format::Peft, "model").expect("written");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(zip)).expect("a zip");
    let mut names: Vec<String> = archive.file_names().map(|name| name.expect("UTF-8").into_owned()).collect();
    names.sort();
    assert_eq!(names, [formats::CONFIG, formats::ADAPTER]);
    let mut adapter = Vec::new();
    let mut member = archive.by_name(formats::ADAPTER).expect("there");
    std::io::Read::read_to_end(&mut member, &mut adapter).expect("read");
    assert_eq!(adapter, prompts.export("x", Format::Safetensors, "model").expect("written"));
}

#[test]
fn rows_that_no_token_could_be_are_refused() {
    let folder = Folder::new("soft-prompts-checks");
    let prompts = on(&Store::open(&folder.0).expect("opens"), b"w");
    let good = [1.0, 1.0, 0.0, 0.0];
    let with = |row: [f32; 4]| [good, row].concat();
    for (values, part) in [
        (vec![1.0, 1.0], "rows of 2 values; the loaded model has d_model 4"),
        (with([0.0; 4]), "row 1 has length 0.0000; the loaded model's embeddings allow 0.2000 to 8.0000"),
        (with([0.19, 0.0, 0.0, 0.0]), "row 1 has length 0.19"),
        (with([8.1, 0.0, 0.0, 0.0]), "row 1 has length 8.1"),
        (with([1e30, 1e30, 0.0, 0.0]), "row 1 has length inf"),
        (with([0.0, 0.0, 3.0, 0.0]), "row 1 points where control token 5 does"),
        (with([0.01, 0.0, 0.5, 0.01]), "row 1 points where control token 5 does"),
    ] {
        let error = prompts.put("x", import(&values), false).expect_err(part).to_string();
        assert!(error.contains(part), "expected {part}: {error}");
    }
    for values in [with([0.0, 0.0, -3.0, 0.0]), with([0.2, 0.0, 2.0, 0.0]), with([7.9, 0.0, 0.0, 0.0])] {
        prompts.put("x", import(&values), true).expect("near enough to a token");
    }
    for name in ["", "X", "a b", "../x", "-a", &"a".repeat(65)] {
        let error = prompts.put(name, import(&good), false).expect_err(name);
        assert_eq!(error.param(), Some("name"), "{error}");
    }
}
