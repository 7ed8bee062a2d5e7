//! Which files of a repository are meant where no file is named: the GGUF file of a quantisation, or a model folder.

use super::error::WeightsError;
use super::folder::{CONFIG, GENERATION_CONFIG, INDEX, ONE_FILE, shards_of};
use super::names::is_relative_file;
use crate::digest::Digest;
use crate::limits::{
    MODEL_CONFIG_BYTES_MAX, TEMPLATE_BYTES_MAX, TOKENIZER_CONFIG_BYTES_MAX, TOKENIZER_FILE_BYTES_MAX,
};
use std::path::Path;

/// A file of a repository, on the hub or on disk.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listed {
    /// Path in the repository.
    pub path: String,
    /// As the hub's listing has it, which it does for large files.
    pub sha256: Option<Digest>,
}

/// What is to be fetched or opened.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Choice {
    File(Listed),
    /// Safetensors with their JSON files, at the top of the repository.
    Folder,
}

/// Taken in this order where none is asked for: the four bits that most people run, then what loses less, then what is
/// smaller, then what is not rounded.
const QUANTISATIONS: [&str; 17] = [
    "Q4_K_M", "Q4_0", "Q4_1", "Q8_0", "Q5_K_M", "Q4_K_S", "Q5_K_S", "Q6_K", "Q5_1", "Q5_0", "Q3_K_L",
    "Q3_K_M", "Q3_K_S", "Q2_K", "BF16", "F16", "F32",
];

const TOKENIZER: &str = "tokenizer.json";

/// The files of a model folder beside its weights, where the repository has them, each with as many bytes as its reader
/// takes.
pub(super) const SETTINGS: [(&str, u64); 6] = [
    (CONFIG, MODEL_CONFIG_BYTES_MAX),
    (GENERATION_CONFIG, MODEL_CONFIG_BYTES_MAX),
    (TOKENIZER, TOKENIZER_FILE_BYTES_MAX),
    ("tokenizer_config.json", TOKENIZER_CONFIG_BYTES_MAX),
    ("chat_template.jinja", TEMPLATE_BYTES_MAX as u64),
    ("chat_template.json", TOKENIZER_CONFIG_BYTES_MAX),
];

/// Chooses among the files of `repository`; names that are no safe paths are as if they were not there.
pub(super) fn choose(
    repository: &str,
    quantisation: Option<&str>,
    files: &[Listed],
) -> Result<Choice, WeightsError> {
    let models: Vec<&Listed> = files.iter().filter(|file| is_model(&file.path)).collect();
    if models.is_empty() {
        return folder(repository, quantisation, files);
    }
    let of = |wanted: &str| -> Vec<&Listed> {
        models.iter().copied().filter(|file| is_quantised(&file.path, wanted)).collect()
    };
    let whole = |files: &[&Listed]| files.iter().any(|file| !is_part(stem(&file.path)));
    let found = match quantisation {
        Some(wanted) => of(wanted),
        None => match QUANTISATIONS.iter().map(|name| of(name)).find(|files| whole(files)) {
            Some(found) => found,
            None => models.clone(),
        },
    };
    let repository = repository.to_owned();
    let names = |files: &[&Listed]| files.iter().map(|file| file.path.clone()).collect();
    let in_one: Vec<&Listed> = found.iter().copied().filter(|file| !is_part(stem(&file.path))).collect();
    match (&in_one[..], quantisation) {
        ([one], _) => Ok(Choice::File((*one).clone())),
        ([], Some(given)) if found.is_empty() => {
            let given = given.to_owned();
            Err(WeightsError::NoQuantisation { repository, given, files: names(&models) })
        }
        ([], _) => Err(WeightsError::InParts { repository, files: names(&found) }),
        _ => Err(WeightsError::WhichFile { repository, files: names(&found) }),
    }
}

fn folder(repository: &str, quantisation: Option<&str>, files: &[Listed]) -> Result<Choice, WeightsError> {
    let has = |name: &str| files.iter().any(|file| file.path == name);
    let refused = |problem: String| Err(WeightsError::NoModel { repository: repository.to_owned(), problem });
    if !has(ONE_FILE) && !has(INDEX) {
        return refused(format!("neither a GGUF file nor `{ONE_FILE}` nor `{INDEX}`"));
    }
    if let Some(missing) = [CONFIG, TOKENIZER].into_iter().find(|name| !has(name)) {
        return refused(format!("safetensors, but no `{missing}`"));
    }
    match quantisation {
        None => Ok(Choice::Folder),
        Some(given) => refused(format!(
            "no GGUF file of `{given}`, but safetensors: `hf:{repository}` takes them, `--quantize` rounds them at load"
        )),
    }
}

/// Whether a folder has the weights that it speaks of; settings and tokenizer were looked for before.
pub(super) fn is_complete(folder: &Path) -> bool {
    files_of(folder).is_ok_and(|files| {
        files
            .iter()
            .all(|name| SETTINGS.iter().any(|(known, _)| known == name) || folder.join(name).is_file())
    })
}

/// Names of all files of a model folder that the model may be made of.
pub(super) fn files_of(folder: &Path) -> Result<Vec<String>, WeightsError> {
    let settings = SETTINGS.iter().map(|(name, _)| (*name).to_owned());
    if folder.join(ONE_FILE).is_file() {
        return Ok(settings.chain([ONE_FILE.to_owned()]).collect());
    }
    let shards = shards_of(&folder.join(INDEX))?;
    Ok(settings.chain([INDEX.to_owned()]).chain(shards).collect())
}

/// Whether a path is that of a GGUF file with a language model in it: projectors of images and the matrices that
/// quantisers weigh by are none.
pub(super) fn is_model(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
    let other = name.contains("mmproj") || name.contains("imatrix");
    name.ends_with(".gguf") && !other && is_relative_file(path)
}

/// Whether a file's name ends in a quantisation, in any case. `UD-Q4_K_XL` is another one than `Q4_K_XL`.
fn is_quantised(path: &str, wanted: &str) -> bool {
    let stem = without_part(stem(path)).to_uppercase();
    let Some(before) = stem.strip_suffix(&wanted.to_uppercase()) else { return false };
    (before.is_empty() || before.ends_with(['-', '.', '_'])) && !before.ends_with("UD-")
}

fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let end = name.len().saturating_sub(".gguf".len());
    name.get(..end).unwrap_or(name)
}

/// Whether a name is that of one of several parts: `-00001-of-00003`.
fn is_part(stem: &str) -> bool {
    without_part(stem).len() < stem.len()
}

fn without_part(stem: &str) -> &str {
    let number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let part = || {
        let (rest, of) = stem.rsplit_once("-of-")?;
        let (rest, part) = rest.rsplit_once('-')?;
        (number(of) && number(part)).then_some(rest)
    };
    part().unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(quantisation: Option<&str>, files: &str) -> String {
        let files: Vec<Listed> =
            (files.split(' ')).map(|path| Listed { path: path.to_owned(), sha256: None }).collect();
        match choose("a/b", quantisation, &files) {
            Ok(Choice::File(file)) => file.path,
            Ok(Choice::Folder) => "folder".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn without_a_quantisation_the_usual_ones_come_first() {
        for (files, expected) in [
            ("README.md x.gguf", "x.gguf"),
            ("x-Q8_0.gguf x-Q4_K_M.gguf x-F16.gguf", "x-Q4_K_M.gguf"),
            ("x-q8_0.gguf x-bf16.gguf", "x-q8_0.gguf"),
            ("x.Q2_K.gguf x.IQ4_XS.gguf", "x.Q2_K.gguf"),
            ("BF16/x-BF16.gguf", "BF16/x-BF16.gguf"),
            ("MODEL_Q4_0.GGUF x.Q8_0.gguf", "MODEL_Q4_0.GGUF"),
            // Others in the folder that are no models.
            ("mmproj-model-f16.gguf x-IQ3_M.gguf", "x-IQ3_M.gguf"),
            ("x-mmproj-Q4_0.gguf x-Q8_0.gguf x.imatrix.gguf", "x-Q8_0.gguf"),
            // Parts are taken for nothing else than they are.
            ("x-Q4_K_M-00001-of-00002.gguf x-Q4_K_M-00002-of-00002.gguf x-Q2_K.gguf", "x-Q2_K.gguf"),
            ("config.json tokenizer.json model.safetensors", "folder"),
            ("config.json tokenizer.json model.safetensors.index.json x-Q8_0.gguf", "x-Q8_0.gguf"),
        ] {
            assert_eq!(chosen(None, files), expected, "{files}");
        }
    }

    #[test]
    fn a_quantisation_is_found_in_any_case_and_not_inside_another() {
        let files =
            "x-Q4_K_M.gguf x-Q4_K_S.gguf x-F16.gguf x-BF16.gguf x-UD-Q4_K_XL.gguf x-Q6_K.gguf x-Q6_K_L.gguf";
        for (asked, expected) in [
            ("q4_k_s", "x-Q4_K_S.gguf"),
            ("F16", "x-F16.gguf"),
            ("bf16", "x-BF16.gguf"),
            ("UD-Q4_K_XL", "x-UD-Q4_K_XL.gguf"),
            ("Q6_K", "x-Q6_K.gguf"),
            ("Q6_K_L", "x-Q6_K_L.gguf"),
        ] {
            assert_eq!(chosen(Some(asked), files), expected, "{asked}");
        }
        for asked in ["Q4_K_XL", "K_M_", "Q4", "16", "Q8_0"] {
            let error = chosen(Some(asked), files);
            assert!(error.contains(&format!("no GGUF file of `{asked}`; it has x-Q4_K_M.gguf")), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_chosen_is_said_with_what_is_there() {
        let parts = "x-Q4_0-00001-of-00002.gguf x-Q4_0-00002-of-00002.gguf";
        let folder = "config.json tokenizer.json model.safetensors";
        for (asked, files, message) in [
            (None, "a.gguf b.gguf", "2 GGUF files that this may mean; name one of them: a.gguf, b.gguf"),
            (None, "a-Q4_0.gguf c/b-Q4_0.gguf", "name one of them: a-Q4_0.gguf, c/b-Q4_0.gguf"),
            (Some("q4_0"), parts, "in parts, which are not joined: x-Q4_0-00001-of-00002.gguf"),
            (None, parts, "in parts, which are not joined"),
            (None, "../../a.gguf", "neither a GGUF file nor `model.safetensors`"),
            (None, "pytorch_model.bin config.json", "neither a GGUF file"),
            (None, "model.safetensors config.json", "safetensors, but no `tokenizer.json`"),
            (None, "model.safetensors.index.json tokenizer.json", "safetensors, but no `config.json`"),
            (Some("Q8_0"), folder, "`hf:a/b` takes them, `--quantize` rounds them at load"),
        ] {
            let error = chosen(asked, files);
            assert!(error.starts_with("`a/b`") && error.contains(message), "{files}: {error}");
        }
    }
}
