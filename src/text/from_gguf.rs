//! Tokenizer and template out of a GGUF file's metadata.

use super::pre::Kind;
use super::source::{SpacePrefix, Strip, kind};
use super::{Text, TextError, Tokenizer, TokenizerSource};
use crate::weights::{Container, Metadata};

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
        // Files that do not say: SentencePiece vocabularies begin with BOS and put a space first, others do what their
        // kind of words says.
        let sentencepiece = model == "llama";
        let pre = metadata.string("tokenizer.ggml.pre")?.map(String::from);
        let words = match pre.as_deref() {
            Some(pre) if !sentencepiece => Some(Kind::named(pre)?),
            _ => None,
        };
        let key = "tokenizer.ggml.remove_extra_whitespaces";
        if metadata.bool(key)? == Some(true) {
            let (given, supported) = ("true".to_owned(), "`false`".to_owned());
            return Err(TextError::Unsupported { key, given, supported });
        }
        let says_space = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(sentencepiece);
        let unk = id("tokenizer.ggml.unknown_token_id")?;
        let mut source = TokenizerSource {
            tokens,
            scores: metadata.f32_array("tokenizer.ggml.scores")?.unwrap_or_default(),
            token_types: metadata.i32_array("tokenizer.ggml.token_type")?.unwrap_or_default(),
            merges: strings("tokenizer.ggml.merges")?.unwrap_or_default(),
            bos: id("tokenizer.ggml.bos_token_id")?,
            eos: id("tokenizer.ggml.eos_token_id")?,
            eot: id("tokenizer.ggml.eot_token_id")?,
            eom: id("tokenizer.ggml.eom_token_id")?,
            unk,
            pad: id("tokenizer.ggml.padding_token_id")?,
            ends: Vec::new(),
            add_bos: metadata
                .bool("tokenizer.ggml.add_bos_token")?
                .unwrap_or(words.map_or(sentencepiece, |words| words.add_bos)),
            prefix: if says_space { SpacePrefix::Always } else { SpacePrefix::Never },
            unknown: unk.filter(|_| sentencepiece),
            fuse_unknown: sentencepiece,
            nfc: words.is_some_and(|words| words.nfc),
            whole_words: words.is_some_and(|words| words.whole_words),
            plain_space_runs: sentencepiece,
            strips: Vec::new(),
            pre,
            model,
        };
        if sentencepiece && metadata.string("general.architecture")? == Some("phi3") {
            source.strips = phi3_strips(&source);
        }
        Ok(source)
    }
}

/// Control tokens of Phi 3 take the white space after them, which its GGUF files do not say.
fn phi3_strips(source: &TokenizerSource) -> Vec<Strip> {
    let takes = |(text, id): &(&String, u32)| {
        let control = source.kind_of(*id as usize) == kind::CONTROL || text.as_str() == "</s>";
        control && !["<unk>", "<s>", "<|endoftext|>"].contains(&text.as_str())
    };
    let tokens = source.tokens.iter().zip(0..);
    tokens.filter(takes).map(|(_, id)| Strip { id, left: false, right: true }).collect()
}

impl Text {
    /// Of a model in either container.
    pub fn from_container(container: &Container) -> Result<Text, TextError> {
        match container {
            Container::Gguf(file) => Text::from_gguf(file.metadata()),
            Container::Folder(folder) => Text::from_folder(folder.path(), &folder.end_tokens()?),
        }
    }

    /// The tokenizer and the file's own chat template; without one a plain dialogue.
    pub fn from_gguf(metadata: &Metadata) -> Result<Text, TextError> {
        let tokenizer = Tokenizer::new(&TokenizerSource::from_gguf(metadata)?)?;
        Text::with_template(tokenizer, metadata.string("tokenizer.chat_template")?)
    }
}
