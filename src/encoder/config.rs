//! What an encoder's files say of its shape, and which shapes are supported.

use super::error::EncoderError;
use crate::limits;
use crate::text::shown;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// A file's path and content.
type File = (PathBuf, Vec<u8>);

/// The shape of a BERT encoder, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub layers: usize,
    /// Width of a token's row and of an embedding.
    pub width: usize,
    pub heads: usize,
    /// Width inside the MLP.
    pub inner: usize,
    pub vocabulary: usize,
    /// Rows of the position table.
    pub positions: usize,
    /// Rows of the segment table; texts are segment 0.
    pub segments: usize,
    pub norm_epsilon: f64,
    /// Tokens of a text that are read, markers included.
    pub tokens_max: usize,
}

#[derive(Deserialize)]
struct ModelJson {
    model_type: String,
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    num_hidden_layers: usize,
    hidden_size: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f64,
}

fn absolute() -> String {
    "absolute".to_owned()
}

#[derive(Deserialize)]
struct LimitsJson {
    max_seq_length: usize,
}

#[derive(Deserialize)]
struct PoolingJson {
    word_embedding_dimension: usize,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
}

impl Config {
    /// From `config.json`, `sentence_bert_config.json` and `1_Pooling/config.json`.
    pub fn read(model: &File, limits: &File, pooling: &File) -> Result<Config, EncoderError> {
        let (json, sizes, modes) =
            (parse::<ModelJson>(model)?, parse::<LimitsJson>(limits)?, parse::<PoolingJson>(pooling)?);
        let bad = |file: &File, problem: String| EncoderError::File { path: file.0.clone(), problem };
        for (key, given, wanted) in [
            ("model_type", &json.model_type, "bert"),
            ("hidden_act", &json.hidden_act, "gelu"),
            ("position_embedding_type", &json.position_embedding_type, "absolute"),
        ] {
            if given != wanted {
                let given = shown(given);
                return Err(bad(model, format!("`{key}` is {given:?}; only {wanted:?} is supported")));
            }
        }
        for (key, given, max) in [
            ("num_hidden_layers", json.num_hidden_layers, limits::ENCODER_LAYERS_MAX),
            ("hidden_size", json.hidden_size, limits::ENCODER_WIDTH_MAX),
            ("num_attention_heads", json.num_attention_heads, json.hidden_size),
            ("intermediate_size", json.intermediate_size, 8 * limits::ENCODER_WIDTH_MAX),
            ("vocab_size", json.vocab_size, limits::VOCABULARY_MAX as usize),
            ("max_position_embeddings", json.max_position_embeddings, limits::ENCODER_POSITIONS_MAX),
            ("type_vocab_size", json.type_vocab_size, limits::ENCODER_WIDTH_MAX),
        ] {
            if !(1..=max).contains(&given) {
                return Err(bad(model, format!("`{key}` is {given}; allowed are 1 to {max}")));
            }
        }
        if !json.hidden_size.is_multiple_of(json.num_attention_heads) {
            let (width, heads) = (json.hidden_size, json.num_attention_heads);
            return Err(bad(model, format!("`hidden_size` {width} is no multiple of {heads} heads")));
        }
        if !(0.0..=0.1).contains(&json.layer_norm_eps) {
            return Err(bad(
                model,
                format!("`layer_norm_eps` is {}; allowed are 0 to 0.1", json.layer_norm_eps),
            ));
        }
        if !(2..=json.max_position_embeddings).contains(&sizes.max_seq_length) {
            let (given, max) = (sizes.max_seq_length, json.max_position_embeddings);
            return Err(bad(limits, format!("`max_seq_length` is {given}; allowed are 2 to {max}")));
        }
        let mean_only = modes.pooling_mode_mean_tokens
            && !modes.pooling_mode_cls_token
            && !modes.pooling_mode_max_tokens
            && !modes.pooling_mode_mean_sqrt_len_tokens;
        if !mean_only || modes.word_embedding_dimension != json.hidden_size {
            let width = json.hidden_size;
            return Err(bad(pooling, format!("only the mean over tokens of width {width} is supported")));
        }
        Ok(Config {
            layers: json.num_hidden_layers,
            width: json.hidden_size,
            heads: json.num_attention_heads,
            inner: json.intermediate_size,
            vocabulary: json.vocab_size,
            positions: json.max_position_embeddings,
            segments: json.type_vocab_size,
            norm_epsilon: json.layer_norm_eps,
            tokens_max: sizes.max_seq_length,
        })
    }
}

fn parse<T: DeserializeOwned>(file: &File) -> Result<T, EncoderError> {
    serde_json::from_slice(&file.1)
        .map_err(|error| EncoderError::File { path: file.0.clone(), problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &str = r#"{"model_type":"bert","hidden_act":"gelu","num_hidden_layers":2,"hidden_size":8,
        "num_attention_heads":2,"intermediate_size":16,"vocab_size":30,"max_position_embeddings":64,
        "type_vocab_size":2,"layer_norm_eps":1e-12}"#;
    const LIMITS: &str = r#"{"max_seq_length":32,"do_lower_case":false}"#;
    const POOLING: &str = r#"{"word_embedding_dimension":8,"pooling_mode_cls_token":false,
        "pooling_mode_mean_tokens":true,"pooling_mode_max_tokens":false,
        "pooling_mode_mean_sqrt_len_tokens":false}"#;

    fn read(model: &str, limits: &str, pooling: &str) -> Result<Config, EncoderError> {
        let file = |name: &str, text: &str| (PathBuf::from(name), text.as_bytes().to_vec());
        Config::read(&file("model", model), &file("limits", limits), &file("pooling", pooling))
    }

    #[test]
    fn shapes_are_read_and_checked() {
        let config = read(MODEL, LIMITS, POOLING).unwrap();
        assert_eq!((config.layers, config.width, config.heads, config.tokens_max), (2, 8, 2, 32));
        let nested = "[".repeat(10_000);
        for (old, new, part) in [
            ("\"bert\"", "\"roberta\"", "`model_type`"),
            ("\"gelu\"", "\"relu\"", "`hidden_act`"),
            ("layers\":2", "layers\":0", "1 to 64"),
            ("hidden_size\":8", "hidden_size\":9", "no multiple"),
            ("hidden_size\":8", "hidden_size\":16", "mean over tokens of width 16"),
            ("heads\":2", "heads\":0", "`num_attention_heads`"),
            ("vocab_size\":30", "vocab_size\":-1", "invalid value"),
            ("eps\":1e-12", "eps\":1", "0 to 0.1"),
            ("max_seq_length\":32", "max_seq_length\":65", "2 to 64"),
            ("cls_token\":false", "cls_token\":true", "only the mean"),
            ("{\"max_seq", nested.as_str(), "limits"),
        ] {
            let edit = |text: &str| text.replacen(old, new, 1);
            let error = read(&edit(MODEL), &edit(LIMITS), &edit(POOLING)).unwrap_err().to_string();
            assert!(error.contains(part), "{new:.40}: {error}");
        }
    }
}
