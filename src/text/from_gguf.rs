//! Tokenizer and template out of a GGUF file's metadata.

use super::{Template, TemplateKind, Text, TextError, Tokenizer, TokenizerSource};
use crate::weights::{Container, Metadata};
use std::sync::Arc;

impl TokenizerSource {
    /// Reads `tokenizer.ggml.*`; what is built from it checks it.
    pub fn from_gguf(metadata: &Metadata) -> Result<TokenizerSource, TextError> {
        let strings = |key: &'static str| -> Result<Option<Vec<String>>, TextError> {
            let array = metadata.string_array(key)?;
            Ok(array.map(|items| items.into_iter().map(String::from).collect()))
        };
        let id = |key: &str| metadata.u32(key);
        let model_key = "tokenizer.ggml.model";
        let model = metadata.string(model_key)?.ok_or(TextError::Missing { key: model_key })?.to_owned();
        let tokens_key = "tokenizer.ggml.tokens";
        let tokens = strings(tokens_key)?.ok_or(TextError::Missing { key: tokens_key })?;
        // Files that do not say: SentencePiece vocabularies begin with BOS and put a space first, others do neither.
        let sentencepiece = model == "llama";
        Ok(TokenizerSource {
            tokens,
            pre: metadata.string("tokenizer.ggml.pre")?.map(String::from),
            scores: metadata.f32_array("tokenizer.ggml.scores")?.unwrap_or_default(),
            token_types: metadata.i32_array("tokenizer.ggml.token_type")?.unwrap_or_default(),
            merges: strings("tokenizer.ggml.merges")?.unwrap_or_default(),
            bos: id("tokenizer.ggml.bos_token_id")?,
            eos: id("tokenizer.ggml.eos_token_id")?,
            eot: id("tokenizer.ggml.eot_token_id")?,
            eom: id("tokenizer.ggml.eom_token_id")?,
            unk: id("tokenizer.ggml.unknown_token_id")?,
            pad: id("tokenizer.ggml.padding_token_id")?,
            add_bos: metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(sentencepiece),
            add_space_prefix: metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(sentencepiece),
            model,
        })
    }
}

impl Text {
    /// Of a model in either container.
    pub fn from_container(container: &Container) -> Result<Text, TextError> {
        match container {
            Container::Gguf(file) => Text::from_gguf(file.metadata()),
            Container::Folder(folder) => Text::from_folder(folder),
        }
    }

    /// The tokenizer and the file's own chat template; without one a plain dialogue.
    pub fn from_gguf(metadata: &Metadata) -> Result<Text, TextError> {
        let tokenizer = Arc::new(Tokenizer::new(&TokenizerSource::from_gguf(metadata)?)?);
        let text = |id: Option<u32>| id.map(|id| tokenizer.token_text(id)).unwrap_or_default();
        let (bos, eos) = (text(tokenizer.bos()), text(tokenizer.eos()));
        let template = match metadata.string("tokenizer.chat_template")? {
            Some(source) => Template::new(source, &bos, &eos, TemplateKind::FromFile)?,
            None => Template::plain_dialogue(&bos, &eos)?,
        };
        Ok(Text::new(tokenizer, template))
    }
}
