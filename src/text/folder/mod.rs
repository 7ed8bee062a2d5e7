//! Tokenizer and template out of a model folder as the Hugging Face hub has it.
//!
//! `tokenizer.json` describes a pipeline of components. It is read as one of the few pipelines that the supported families
//! use, and refused by the name of the component that is none of them: the library that runs any pipeline panics, aborts
//! or grows on files from strangers. `truncation` and `padding` are ignored, they are not about text.

mod bounded;
mod config;
mod description;
mod pipeline;
#[cfg(test)]
mod tests;
mod vocabulary;

use super::{Text, TextError, Tokenizer, TokenizerSource, shown};
use crate::limits::{TEMPLATE_BYTES_MAX, TOKENIZER_CONFIG_BYTES_MAX, TOKENIZER_FILE_BYTES_MAX};
use config::TokenizerConfig;
use description::Description;
use std::fs::File;
use std::io::Read;
use std::path::Path;

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const TEMPLATE_JSON: &str = "chat_template.json";

/// The files of a model folder that are about text, as read.
#[derive(Clone, Debug, Default)]
struct TextFiles {
    /// `tokenizer.json`.
    tokenizer: String,
    /// `tokenizer_config.json`: names of tokens, and in most folders the chat template.
    config: Option<String>,
    /// `chat_template.jinja`, which comes before the one in `config`.
    template: Option<String>,
    /// `chat_template.json`, which comes after it.
    template_json: Option<String>,
}

impl TextFiles {
    /// Reads what is there; only `tokenizer.json` must be.
    fn read(folder: &Path) -> Result<TextFiles, TextError> {
        let read = |name, max| read(folder, name, max);
        let missing = || wrong(TOKENIZER, "it is not in the model folder".to_owned());
        Ok(TextFiles {
            tokenizer: read(TOKENIZER, TOKENIZER_FILE_BYTES_MAX)?.ok_or_else(missing)?,
            config: read(CONFIG, TOKENIZER_CONFIG_BYTES_MAX)?,
            template: read(TEMPLATE, TEMPLATE_BYTES_MAX as u64)?,
            template_json: read(TEMPLATE_JSON, TOKENIZER_CONFIG_BYTES_MAX)?,
        })
    }
}

impl Text {
    /// The tokenizer and the chat template of a model folder; without a template a plain dialogue. `ends` are the end
    /// tokens of `generation_config.json`.
    pub fn from_folder(folder: &Path, ends: &[u32]) -> Result<Text, TextError> {
        Text::from_files(&TextFiles::read(folder)?, ends)
    }

    /// The same from the contents of `tokenizer.json` and `tokenizer_config.json`.
    pub fn from_json(tokenizer: &str, config: Option<&str>) -> Result<Text, TextError> {
        let config = config.map(str::to_owned);
        let files = TextFiles { tokenizer: tokenizer.to_owned(), config, ..TextFiles::default() };
        Text::from_files(&files, &[])
    }

    /// The same from files that were read.
    fn from_files(files: &TextFiles, ends: &[u32]) -> Result<Text, TextError> {
        let config = config(files)?;
        let source = TokenizerSource { ends: ends.to_vec(), ..source(&files.tokenizer, &config)? };
        let tokenizer = Tokenizer::new(&source)?;
        let given = match (&files.template, config.template(CONFIG)?, &files.template_json) {
            (Some(template), _, _) => Some(template.clone()),
            (None, Some(template), _) => Some(template.to_owned()),
            (None, None, Some(json)) => {
                TokenizerConfig::read(TEMPLATE_JSON, json)?.template(TEMPLATE_JSON)?.map(String::from)
            }
            (None, None, None) => None,
        };
        Text::with_template(tokenizer, given.as_deref())
    }
}

fn config(files: &TextFiles) -> Result<TokenizerConfig, TextError> {
    files
        .config
        .as_deref()
        .map_or_else(|| Ok(TokenizerConfig::default()), |json| TokenizerConfig::read(CONFIG, json))
}

fn source(tokenizer: &str, config: &TokenizerConfig) -> Result<TokenizerSource, TextError> {
    let description: Description =
        serde_json::from_str(tokenizer).map_err(|error| wrong(TOKENIZER, error.to_string()))?;
    let pipeline = pipeline::read(&description)?;
    vocabulary::build(description, pipeline, config)
}

fn read(folder: &Path, name: &'static str, max: u64) -> Result<Option<String>, TextError> {
    let unreadable = |error: std::io::Error| wrong(name, format!("it cannot be read: {error}"));
    let file = match File::open(folder.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    file.take(max + 1).read_to_string(&mut text).map_err(unreadable)?;
    match text.len() as u64 <= max {
        true => Ok(Some(text)),
        false => Err(wrong(name, format!("it has more than {max} bytes"))),
    }
}

fn wrong(file: &'static str, reason: String) -> TextError {
    TextError::File { file, reason }
}

/// A part of `tokenizer.json` that is not understood.
fn unsupported(path: &str, given: &str, supported: &str) -> TextError {
    let given = shown(given);
    wrong(TOKENIZER, format!("`{path}`: `{given}` is not supported; supported: {supported}"))
}
