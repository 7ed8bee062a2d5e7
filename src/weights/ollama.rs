//! Models that Ollama keeps, read where they lie: a manifest names the blob that is a GGUF file. Nothing there is written.
//!
//! `<models>/manifests/HOST/USER/NAME/TAG` is JSON whose layers name `<models>/blobs/sha256-HEX`. Models of Ollama's own
//! library are `NAME:TAG`, those of its users `USER/NAME:TAG`, those from elsewhere `HOST/USER/NAME:TAG`.

use super::cache::entries_inside;
use super::error::WeightsError;
use super::names::is_component;
use crate::digest::Digest;
use crate::limits::{LISTED_MODELS_MAX, OLLAMA_MANIFEST_BYTES_MAX};
use serde::Deserialize;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

const HOST: &str = "registry.ollama.ai";
const USER: &str = "library";
const MODEL: &str = "application/vnd.ollama.image.model";
const ADAPTER: &str = "application/vnd.ollama.image.adapter";

/// The folder that Ollama keeps models in, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Ollama {
    folder: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    kind: String,
    /// `sha256:HEX`.
    digest: String,
}

impl Ollama {
    /// `$OLLAMA_MODELS` or `~/.ollama/models`.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Ollama {
        let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || folder("HOME").map(|home| home.join(".ollama/models"));
        Ollama { folder: folder("OLLAMA_MODELS").or_else(home) }
    }

    /// Models in a folder of one's own choice.
    pub fn at(folder: PathBuf) -> Ollama {
        Ollama { folder: Some(folder) }
    }

    /// The GGUF file of a model and the sha256 that it is kept under.
    pub(super) fn find(&self, name: &str) -> Result<(PathBuf, Digest), WeightsError> {
        self.read(name).map_err(|problem| WeightsError::Ollama { name: name.to_owned(), problem })
    }

    /// All models with a GGUF file, by what to type for them, in order of names; at most [`LISTED_MODELS_MAX`].
    pub fn list(&self) -> Vec<(String, PathBuf)> {
        let Some(root) = self.folder.as_ref().and_then(|folder| fs::canonicalize(folder).ok()) else {
            return Vec::new();
        };
        let below = |folders: Vec<PathBuf>| -> Vec<PathBuf> {
            let inside = folders.iter().flat_map(|folder| entries_inside(&root, folder));
            inside.take(LISTED_MODELS_MAX).collect()
        };
        // HOST, USER, NAME, TAG.
        let manifests = root.join("manifests");
        let tags = (0..4).fold(vec![manifests.clone()], |folders, _| below(folders));
        let named = |path: &PathBuf| {
            let parts: Option<Vec<&str>> =
                path.strip_prefix(&manifests).ok()?.iter().map(|part| part.to_str()).collect();
            let name = match parts?[..] {
                [HOST, USER, name, tag] => format!("{name}:{tag}"),
                [HOST, user, name, tag] => format!("{user}/{name}:{tag}"),
                [host, user, name, tag] => format!("{host}/{user}/{name}:{tag}"),
                _ => return None,
            };
            let (path, _) = self.find(&name).ok()?;
            Some((format!("ollama:{name}"), path))
        };
        let mut found: Vec<(String, PathBuf)> = tags.iter().filter_map(named).collect();
        found.sort();
        found
    }

    fn read(&self, name: &str) -> Result<(PathBuf, Digest), String> {
        let folder = self.folder.as_ref().ok_or("no home folder; set `OLLAMA_MODELS`")?;
        let [host, user, model, tag] = parts(name)
            .ok_or("wanted `ollama:NAME:TAG`, `ollama:USER/NAME:TAG` or `ollama:HOST/USER/NAME:TAG`")?;
        let place = folder.join("manifests").join(host).join(user).join(model).join(tag);
        let root = fs::canonicalize(folder).map_err(|error| {
            format!("`{}`: {error}; hint: `OLLAMA_MODELS` names the folder", folder.display())
        })?;
        let manifest = fs::canonicalize(&place).map_err(|error| {
            format!(
                "`{}`: {error}; hint: `ollama pull {name}`, or `demeanor ls` for what is there",
                place.display()
            )
        })?;
        if !manifest.starts_with(&root) || !manifest.is_file() {
            return Err(format!("`{}` is no file inside `{}`", place.display(), folder.display()));
        }
        let wrong = |problem: String| format!("`{}`: {problem}", place.display());
        let manifest = read_manifest(&manifest).map_err(wrong)?;
        let digest = manifest.model().map_err(wrong)?;
        let blob = root.join("blobs").join(format!("sha256-{digest}"));
        match fs::canonicalize(&blob) {
            Ok(real) if real.starts_with(&root) && real.is_file() => Ok((blob, digest)),
            _ => Err(format!("its model, `{}`, is no file in that folder", blob.display())),
        }
    }
}

impl Manifest {
    /// The sha256 of the one layer that is a GGUF file.
    fn model(&self) -> Result<Digest, String> {
        if self.layers.iter().any(|layer| layer.kind == ADAPTER) {
            return Err("it has an adapter, which is not applied".into());
        }
        let models: Vec<&Layer> = self.layers.iter().filter(|layer| layer.kind == MODEL).collect();
        match models[..] {
            [layer] => layer
                .digest
                .strip_prefix("sha256:")
                .and_then(Digest::parse)
                .ok_or_else(|| "the digest of its model is no `sha256:` with 64 hex digits".into()),
            _ => Err(format!("it has {} GGUF files; models of one are read", models.len())),
        }
    }
}

fn read_manifest(path: &Path) -> Result<Manifest, String> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(OLLAMA_MANIFEST_BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > OLLAMA_MANIFEST_BYTES_MAX {
        return Err(format!("more than {OLLAMA_MANIFEST_BYTES_MAX} bytes"));
    }
    serde_json::from_slice(&text).map_err(|error| format!("no manifest: {error}"))
}

/// Host, user, name and tag of `[[HOST/]USER/]NAME[:TAG]`, each safe in a path.
fn parts(name: &str) -> Option<[&str; 4]> {
    let (name, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let parts: Vec<&str> = name.split('/').collect();
    let parts = match parts[..] {
        [name] => [HOST, USER, name, tag],
        [user, name] => [HOST, user, name, tag],
        [host, user, name] => [host, user, name, tag],
        _ => return None,
    };
    parts.iter().all(|part| is_component(part)).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::scratch::Scratch;

    struct Models(Scratch);

    impl Models {
        fn new() -> Models {
            let folder = Scratch::new();
            fs::create_dir_all(folder.0.join("blobs")).unwrap();
            Models(folder)
        }

        fn ollama(&self) -> Ollama {
            Ollama::at(self.0.0.clone())
        }

        fn manifest(&self, place: &str, text: &str) {
            self.0.write(Path::new("manifests").join(place), text);
        }

        /// A blob of this content and the layer that names it.
        fn layer(&self, kind: &str, content: &str) -> String {
            let digest = Digest::of(content.as_bytes());
            self.0.write(format!("blobs/sha256-{digest}"), content);
            format!(r#"{{"mediaType":"{kind}","digest":"sha256:{digest}","size":{}}}"#, content.len())
        }
    }

    fn manifest(layers: &[&str]) -> String {
        let config =
            r#"{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"sha256:0","size":1}"#;
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(","))
    }

    #[test]
    fn the_folder_follows_the_environment() {
        for (set, expected) in [
            (&[("OLLAMA_MODELS", "/a"), ("HOME", "/d")][..], Some("/a")),
            (&[("OLLAMA_MODELS", ""), ("HOME", "/d")], Some("/d/.ollama/models")),
            (&[], None),
        ] {
            let variable =
                |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
            assert_eq!(Ollama::from_variables(variable).folder, expected.map(PathBuf::from));
        }
        assert_eq!(Ollama::default().list(), []);
        assert_eq!(Ollama::at("/no/such/folder".into()).list(), []);
    }

    #[test]
    fn models_are_found_under_the_names_that_ollama_has_for_them() {
        let models = Models::new();
        let template = models.layer("application/vnd.ollama.image.template", "{{ .Prompt }}");
        let layers = ["one", "two", "three"].map(|content| models.layer(MODEL, content));
        let [one, two, three] = &layers;
        models.manifest("registry.ollama.ai/library/gemma3/1b", &manifest(&[one, &template]));
        models.manifest("registry.ollama.ai/library/gemma3/latest", &manifest(&[&template, one]));
        models.manifest("registry.ollama.ai/somebody/mine/q8", &manifest(&[two]));
        models.manifest("hf.co/org/repo-GGUF/Q4_K_M", &manifest(&[three]));
        models.manifest("hf.co/org/repo-GGUF/deeper/still", &manifest(&[three]));
        let ollama = models.ollama();
        let names: Vec<String> = ollama.list().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "ollama:gemma3:1b",
                "ollama:gemma3:latest",
                "ollama:hf.co/org/repo-GGUF:Q4_K_M",
                "ollama:somebody/mine:q8"
            ]
        );
        for (name, content) in [
            ("gemma3:1b", "one"),
            ("gemma3", "one"),
            ("somebody/mine:q8", "two"),
            ("hf.co/org/repo-GGUF:Q4_K_M", "three"),
        ] {
            let (path, digest) = ollama.find(name).unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), content, "{name}");
            assert_eq!(digest, Digest::of(content.as_bytes()), "{name}");
        }
    }

    #[test]
    fn names_and_manifests_that_mean_no_good_are_refused() {
        let models = Models::new();
        let good = models.layer(MODEL, "one");
        let adapter = models.layer(ADAPTER, "two");
        let up =
            r#"{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:../../../etc/passwd"}"#;
        let gone = format!(r#"{{"mediaType":"{MODEL}","digest":"sha256:{}"}}"#, Digest::of(b"gone"));
        let outside = format!(r#"{{"mediaType":"{MODEL}","digest":"sha256:{}"}}"#, Digest::of(b"outside"));
        let other = models.layer("application/vnd.ollama.image.tensor", "t");
        let long = format!(r#"{{"layers":[],"x":"{}"}}"#, "x".repeat(300 << 10));
        let rows = [
            ("up", manifest(&[up]), "no `sha256:` with 64 hex digits"),
            ("gone", manifest(&[&gone]), "is no file in that folder"),
            ("outside", manifest(&[&outside]), "is no file in that folder"),
            ("two", manifest(&[&good, &good]), "it has 2 GGUF files"),
            ("tensors", manifest(&[&other]), "it has 0 GGUF files"),
            ("adapter", manifest(&[&good, &adapter]), "an adapter, which is not applied"),
            ("text", "hello".into(), "no manifest"),
            ("long", long, "more than 262144 bytes"),
        ];
        for (name, text, _) in &rows {
            models.manifest(&format!("registry.ollama.ai/library/{name}/latest"), text);
        }
        #[cfg(unix)]
        {
            let elsewhere = Scratch::new();
            let secret = elsewhere.write("secret", manifest(&[&good]));
            let blob = models.0.0.join(format!("blobs/sha256-{}", Digest::of(b"outside")));
            std::os::unix::fs::symlink(&secret, blob).unwrap();
            let linked = models.0.0.join("manifests/registry.ollama.ai/library/linked");
            fs::create_dir(&linked).unwrap();
            std::os::unix::fs::symlink(&secret, linked.join("latest")).unwrap();
            let error = models.ollama().find("linked").unwrap_err().to_string();
            assert!(error.contains("is no file inside"), "{error}");
        }
        let ollama = models.ollama();
        for (name, _, message) in rows {
            let error = ollama.find(name).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`ollama:{name}`: ")) && error.contains(message), "{error}");
        }
        for name in ["", ":", "a:", "../x", "a/../b", "a/b/c/d", "/etc/passwd", "a\\b", "a b", ".."] {
            let error = ollama.find(name).unwrap_err().to_string();
            assert!(error.contains("wanted `ollama:NAME:TAG`"), "{name}: {error}");
        }
        let error = ollama.find("never-pulled").unwrap_err().to_string();
        assert!(error.contains("hint: `ollama pull never-pulled`"), "{error}");
        assert_eq!(ollama.list(), []);
    }
}
