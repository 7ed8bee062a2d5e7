//! What a user may call a model, and which names from elsewhere may become parts of a path.

use super::catalog::{Catalog, Entry};
use super::error::WeightsError;
use std::path::PathBuf;

/// What the text given as `--model` means.
pub(super) enum ModelName<'a> {
    Catalog(&'a Entry),
    /// A GGUF file or a folder of safetensors.
    File(PathBuf),
    Hub {
        repository: String,
        part: Part,
    },
    /// What follows `ollama:`.
    Ollama(String),
}

/// What of a repository is meant.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// Path of a GGUF file.
    File(String),
    /// What its files say: the one of this quantisation, or of the usual ones, or all of a model folder.
    Chosen { quantisation: Option<String> },
}

impl<'a> ModelName<'a> {
    /// Catalogue names first, then `hf:` and `ollama:`, then paths of files and model folders that exist.
    pub(super) fn parse(name: &str, catalog: &'a Catalog) -> Result<ModelName<'a>, WeightsError> {
        if let Some(entry) = catalog.entry(name) {
            return Ok(ModelName::Catalog(entry));
        }
        if let Some(rest) = name.strip_prefix("hf:") {
            return parse_hub(rest).ok_or_else(|| WeightsError::HubName { name: name.to_owned() });
        }
        if let Some(rest) = name.strip_prefix("ollama:") {
            return Ok(ModelName::Ollama(rest.to_owned()));
        }
        let path = PathBuf::from(name);
        if path.is_file() || path.join("config.json").is_file() {
            return Ok(ModelName::File(path));
        }
        let near = catalog.near(name);
        let all = || catalog.models.iter().map(|entry| entry.name.clone()).collect();
        let (known, others): (Vec<String>, _) = match near.is_empty() {
            true => (all(), ""),
            false => (near, " and others, see `demeanor ls`"),
        };
        let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
        Err(WeightsError::UnknownModel { name: name.to_owned(), known: known.join(", ") + others })
    }
}

/// `ORG/REPO`, `ORG/REPO:QUANTISATION` or `ORG/REPO/FILE`.
fn parse_hub<'a>(rest: &str) -> Option<ModelName<'a>> {
    let mut parts = rest.splitn(3, '/');
    let (organisation, repository, file) = (parts.next()?, parts.next()?, parts.next());
    let (repository, quantisation) = match (file, repository.split_once(':')) {
        (None, Some((repository, quantisation))) => (repository, Some(quantisation)),
        _ => (repository, None),
    };
    let repository = format!("{organisation}/{repository}");
    let safe = is_repository(&repository)
        && file.is_none_or(is_relative_file)
        && quantisation.is_none_or(is_component);
    safe.then(|| {
        let part = match file {
            Some(file) => Part::File(file.to_owned()),
            None => Part::Chosen { quantisation: quantisation.map(str::to_owned) },
        };
        ModelName::Hub { repository, part }
    })
}

/// `ORG/REPO`; `--` is the cache's separator and not in use on the hub.
pub(super) fn is_repository(name: &str) -> bool {
    name.split('/').count() == 2 && is_relative_file(name) && !name.contains("--")
}

/// A path of safe components, separated by `/`.
pub(super) fn is_relative_file(path: &str) -> bool {
    path.split('/').all(is_component)
}

/// Whether a name is safe as one component of a path and of a URL: no separators, nothing that a path resolves, nothing
/// that needs escaping.
pub(super) fn is_component(name: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+=@".contains(&byte);
    (1..=200).contains(&name.len()) && name.bytes().all(safe) && !name.bytes().all(|byte| byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(name: &str) -> String {
        match ModelName::parse(name, &Catalog::shipped().unwrap()) {
            Ok(ModelName::Catalog(entry)) => format!("catalogue {}", entry.name),
            Ok(ModelName::File(path)) => format!("file {}", path.display()),
            Ok(ModelName::Hub { repository, part: Part::File(file) }) => format!("hub {repository} {file}"),
            Ok(ModelName::Hub { repository, part: Part::Chosen { quantisation } }) => {
                format!("hub {repository} {quantisation:?}")
            }
            Ok(ModelName::Ollama(name)) => format!("ollama {name}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_names_mean() {
        for (name, meaning) in [
            ("smollm2-135m-instruct", "catalogue smollm2-135m-instruct"),
            ("hf:a/b", "hub a/b None"),
            ("hf:a/b:Q4_K_M", "hub a/b Some(\"Q4_K_M\")"),
            ("hf:a/b/c.gguf", "hub a/b c.gguf"),
            ("hf:a/b/sub/c-00001.gguf", "hub a/b sub/c-00001.gguf"),
            ("ollama:llama3.2:1b", "ollama llama3.2:1b"),
            ("gemma3:1b", "catalogue gemma-3-1b-it"),
            ("Cargo.toml", "file Cargo.toml"),
        ] {
            assert_eq!(describe(name), meaning);
        }
        for name in [
            "hf:",
            "hf:a",
            "hf:a/",
            "hf:/b",
            "hf:a/b/",
            "hf:a/b/../c",
            "hf:../b",
            "hf:a/..",
            "hf:a/b/c\\d",
            "hf:a/b/c d",
            "hf:a/b//c",
            "hf:a/b?x",
            "hf:a/b#x",
            "hf:a/b%2e",
            "hf:a--b/c",
            "hf:a/b/.",
            "hf:a/b:",
            "hf:a/b:..",
            "hf:a/b:Q4:1",
            "hf:a/b:Q4/c",
            "hf:a:b/c",
        ] {
            assert!(describe(name).contains("is no hub name"), "{name}: {}", describe(name));
        }
        for name in ["", "smollm", "/no/such/file.gguf", "src"] {
            assert!(
                describe(name).contains("the catalogue has `smollm2-135m-instruct`"),
                "{}",
                describe(name)
            );
        }
        let near = describe("qwen3-4");
        assert!(near.contains("the catalogue has `qwen3-4b` and others, see `demeanor ls`;"), "{near}");
    }

    #[test]
    fn path_components() {
        for good in ["a", "b179c9523d0e6a0f", "SmolLM2-135M-Instruct.Q4_1.gguf", ".gitattributes", "..x"] {
            assert!(is_component(good), "{good}");
        }
        let long = "x".repeat(201);
        for bad in
            ["", ".", "..", "...", "a/b", "../../x", "a\\b", "/etc", "a\0", "a b", "é", "a\n", long.as_str()]
        {
            assert!(!is_component(bad), "{bad:?}");
        }
    }
}
