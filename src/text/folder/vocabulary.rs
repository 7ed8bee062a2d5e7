//! Tokens by id, with their kinds and roles, out of `tokenizer.json` and `tokenizer_config.json`.

use super::bounded::Small;
use super::config::{TokenizerConfig, token};
use super::description::{AddedToken, Description, Model};
use super::pipeline::{Pipeline, Way};
use super::{TOKENIZER, unsupported, wrong};
use crate::limits::{TOKENIZER_GAPS_MAX, VOCABULARY_MAX};
use crate::text::bytes::byte_of;
use crate::text::source::kind;
use crate::text::{SpacePrefix, Strip, TextError, TokenizerSource};

pub(super) fn build(
    description: Description,
    pipeline: Pipeline,
    config: &TokenizerConfig,
) -> Result<TokenizerSource, TextError> {
    let Description { added_tokens, model, .. } = description;
    check_model(&model, &pipeline)?;
    let strips = strips(&added_tokens)?;
    let pieces = matches!(pipeline.words, Way::Pieces { .. });
    let (tokens, token_types) = tokens(model.vocab.0, added_tokens, pieces && model.byte_fallback)?;
    let find = |what: &str, text: &str| {
        let id = tokens.iter().position(|token| token == text);
        id.map(|id| id as u32).ok_or_else(|| {
            TextError::Vocabulary(format!(
                "{what}: `{}` is no token",
                text.chars().take(80).collect::<String>()
            ))
        })
    };
    let named = |name: &str, value: &Small| token(name, value)?.map(|text| find(name, text)).transpose();
    let begins = match &pipeline.begins {
        Some((text, id)) if find("the post-processor's token", text)? == *id => Some(*id),
        Some((text, id)) => {
            let reason =
                format!("the post-processor says that `{text}` is token {id}, the vocabulary does not");
            return Err(TextError::Vocabulary(reason));
        }
        None => None,
    };
    let bos = named("bos_token", &config.bos_token)?.or(begins);
    let add_bos = config.add_bos_token.unwrap_or(begins.is_some()) && bos.is_some();
    if add_bos && begins.is_some() && begins != bos {
        let reason = "the post-processor puts another token first than `bos_token`".to_owned();
        return Err(TextError::Vocabulary(reason));
    }
    let unknown = model.unk_token.as_deref().map(|text| find("unk_token", text)).transpose()?;
    let (name, pre, prefix, nfc) = match pipeline.words {
        Way::ByteLevel { pre, nfc } => ("gpt2", Some(pre.to_owned()), SpacePrefix::Never, nfc),
        Way::Pieces { prefix } => ("llama", None, prefix, false),
    };
    Ok(TokenizerSource {
        model: name.to_owned(),
        pre,
        bos,
        eos: named("eos_token", &config.eos_token)?,
        unk: named("unk_token", &config.unk_token)?,
        pad: named("pad_token", &config.pad_token)?,
        tokens,
        token_types,
        merges: model.merges.0,
        add_bos,
        prefix,
        unknown,
        fuse_unknown: model.fuse_unk,
        nfc,
        whole_words: model.ignore_merges,
        strips,
        ..TokenizerSource::default()
    })
}

fn check_model(model: &Model, pipeline: &Pipeline) -> Result<(), TextError> {
    let kind = model.kind.as_deref().unwrap_or("none");
    if kind != "BPE" {
        return Err(unsupported("model.type", kind, "`BPE`"));
    }
    let filled = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    for (path, given) in [
        ("model.continuing_subword_prefix", filled(&model.continuing_subword_prefix)),
        ("model.end_of_word_suffix", filled(&model.end_of_word_suffix)),
        ("model.dropout", model.dropout.is_some_and(|dropout| dropout != 0.0)),
    ] {
        if given {
            return Err(unsupported(path, "a value", "none"));
        }
    }
    match pipeline.words {
        Way::Pieces { .. } if model.ignore_merges => {
            Err(unsupported("model.ignore_merges", "true", "`false` with visible spaces"))
        }
        Way::ByteLevel { .. } if model.byte_fallback => {
            Err(unsupported("model.byte_fallback", "true", "`false` with `ByteLevel`"))
        }
        _ => Ok(()),
    }
}

fn strips(added: &[AddedToken]) -> Result<Vec<Strip>, TextError> {
    if let Some(at) = added.iter().position(|token| token.single_word) {
        return Err(unsupported(&format!("added_tokens[{at}].single_word"), "true", "`false`"));
    }
    let strips = added.iter().filter(|token| token.lstrip || token.rstrip);
    Ok(strips.map(|token| Strip { id: token.id, left: token.lstrip, right: token.rstrip }).collect())
}

/// Text and kind by id. Ids that no token has become unused tokens, as converters to GGUF do it.
fn tokens(
    vocab: Vec<(String, u32)>,
    added: Vec<AddedToken>,
    has_bytes: bool,
) -> Result<(Vec<String>, Vec<i32>), TextError> {
    let ids = vocab.iter().map(|(_, id)| *id).chain(added.iter().map(|token| token.id));
    let highest = ids.max().ok_or_else(|| wrong(TOKENIZER, "it has no tokens".to_owned()))?;
    if highest >= VOCABULARY_MAX {
        return Err(TextError::Vocabulary(format!("token {highest}; ids end before {VOCABULARY_MAX}")));
    }
    let count = highest as usize + 1;
    if count > vocab.len() + added.len() + TOKENIZER_GAPS_MAX {
        let known = vocab.len() + added.len();
        let reason = format!("the highest id is {highest}, but there are only {known} tokens");
        return Err(TextError::Vocabulary(reason));
    }
    let mut tokens: Vec<Option<(String, i32)>> = vec![None; count];
    for (text, id) in vocab {
        let kind = if has_bytes && byte_of(&text).is_some() { kind::BYTE } else { kind::NORMAL };
        if let Some((other, _)) = tokens[id as usize].replace((text, kind)) {
            return Err(TextError::Vocabulary(format!(
                "token {id} has several texts, one of them is `{other}`"
            )));
        }
    }
    for AddedToken { id, content, special, .. } in added {
        let kind = if special { kind::CONTROL } else { kind::USER_DEFINED };
        match tokens[id as usize].replace((content, kind)) {
            Some((before, _)) if Some(&before) != tokens[id as usize].as_ref().map(|(text, _)| text) => {
                let reason =
                    format!("token {id} is `{before}` in the vocabulary, but another text is added as it");
                return Err(TextError::Vocabulary(reason));
            }
            _ => {}
        }
    }
    let filled = tokens.into_iter().enumerate().map(|(id, token)| match token {
        Some(token) => token,
        None => (format!("[PAD{id}]"), kind::UNUSED),
    });
    let (mut texts, mut kinds) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (text, kind) in filled {
        texts.push(text);
        kinds.push(kind);
    }
    if count - kinds.iter().filter(|kind| **kind == kind::UNUSED).count() + TOKENIZER_GAPS_MAX < count {
        return Err(TextError::Vocabulary(format!(
            "more than {TOKENIZER_GAPS_MAX} ids below {highest} have no token"
        )));
    }
    Ok((texts, kinds))
}
