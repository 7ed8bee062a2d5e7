//! The sentence encoder: texts to vectors (BERT family, on candle).
//!
//! `config` reads what the encoder's files say of themselves, `tokens` turns a text into ids, `bert` ids into a row per
//! token; the mean of the rows, scaled to length 1, is the embedding. Each text runs alone: products of other shapes
//! round differently, and an embedding must not depend on what was asked beside it. `handle` is what servers hold: an
//! encoder that may still be on its way. Nothing here knows people, requests or the language model.

mod bert;
mod config;
mod error;
mod handle;
mod tokens;

pub use error::EncoderError;
pub use handle::{EncoderHandle, Source, State as EncoderState};

use crate::digest::{Digest, Digester};
use crate::limits;
use crate::weights::Safetensors;
use crate::weights::safetensors::Bounds;
use bert::Bert;
use config::Config;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::path::{Path, PathBuf};
use tokens::Tokens;

/// Name of the encoder that is meant when none is named.
pub const DEFAULT_ENCODER: &str = "all-minilm-l6-v2";

/// The files of an encoder's folder, in the order in which they enter the digest.
const FILES: [(&str, u64); 5] = [
    ("config.json", limits::ENCODER_CONFIG_BYTES_MAX),
    ("sentence_bert_config.json", limits::ENCODER_CONFIG_BYTES_MAX),
    ("1_Pooling/config.json", limits::ENCODER_CONFIG_BYTES_MAX),
    ("tokenizer.json", limits::ENCODER_TOKENIZER_BYTES_MAX),
    ("model.safetensors", limits::ENCODER_FILE_BYTES_MAX),
];

/// A loaded encoder. Calls from several threads take turns, text by text.
pub struct Encoder {
    digest: Digest,
    width: usize,
    tokens: Tokens,
    bert: Bert,
    /// One thread of its own, so one text at a time: a second thread costs twice the time of the processor and gains
    /// nothing on texts this short, and the language model needs it.
    thread: ThreadPool,
}

/// Embeddings and what they took.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// `[n][width]`, each of length 1.
    pub embeddings: Vec<Vec<f32>>,
    /// Tokens that were read of all texts together, markers included.
    pub tokens: usize,
}

impl Encoder {
    /// Loads the encoder in `folder`, in the layout of sentence-transformers.
    pub fn load(folder: &Path) -> Result<Encoder, EncoderError> {
        Encoder::load_checked(folder, &[])
    }

    /// As [`Encoder::load`], where each file in `expected` must have its sha256.
    pub fn load_checked(folder: &Path, expected: &[(String, Digest)]) -> Result<Encoder, EncoderError> {
        let mut digester = Digester::new("demeanor.encoder/1");
        let mut contents = Vec::new();
        for (file, bytes_max) in FILES {
            let path = folder.join(file);
            let bytes = read_bounded(&path, bytes_max)?;
            let found = Digest::of(&bytes);
            if let Some((_, expected)) = expected.iter().find(|(name, _)| name == file)
                && *expected != found
            {
                return Err(EncoderError::Mismatch { path, expected: *expected, found });
            }
            digester.part(file.as_bytes()).part(&found.0);
            contents.push((path, bytes));
        }
        let [settings @ .., weights] = &contents[..] else { return Err(wrong_list()) };
        let (config, tokens) = read_settings(settings)?;
        let bert = load_bert(weights, &config)?;
        let thread = ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "encoder".into()).build();
        let thread = thread.map_err(|error| EncoderError::Compute(error.to_string()))?;
        Ok(Encoder { digest: digester.finish(), width: config.width, tokens, bert, thread })
    }

    /// One embedding per text, `[n][width]`, each of length 1. A text counts up to its first 256 tokens. The result for
    /// a text depends on nothing but the text, bit for bit.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EncoderError> {
        Ok(self.embed_counted(texts)?.embeddings)
    }

    /// As [`Encoder::embed`], with the number of tokens.
    pub fn embed_counted(&self, texts: &[&str]) -> Result<Embedded, EncoderError> {
        let mut embedded = Embedded { embeddings: Vec::with_capacity(texts.len()), tokens: 0 };
        for text in texts {
            let ids = self.tokens.of(text)?;
            embedded.tokens += ids.len();
            embedded.embeddings.push(pool(self.thread.install(|| self.bert.forward(&ids))?)?);
        }
        Ok(embedded)
    }

    /// Numbers of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Over the contents of all files: embeddings of different digests are not comparable.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn name(&self) -> &'static str {
        DEFAULT_ENCODER
    }
}

/// What [`Encoder::load`] would make of a folder's settings and tokenizer, tried on a text; the weights are not read.
pub fn check(folder: &Path, text: &str) -> Result<(), EncoderError> {
    let mut contents = Vec::new();
    for (file, bytes_max) in FILES.iter().filter(|(file, _)| *file != "model.safetensors") {
        let path = folder.join(file);
        let bytes = read_bounded(&path, *bytes_max)?;
        contents.push((path, bytes));
    }
    let (_, tokens) = read_settings(&contents)?;
    tokens.of(text).map(|_| ())
}

/// What all files but the weights say, in the order of [`FILES`].
fn read_settings(contents: &[(PathBuf, Vec<u8>)]) -> Result<(Config, Tokens), EncoderError> {
    let [config, limits, pooling, tokenizer] = contents else { return Err(wrong_list()) };
    let config = Config::read(config, limits, pooling)?;
    let tokens = Tokens::read(tokenizer, config.tokens_max, config.vocabulary)?;
    Ok((config, tokens))
}

fn wrong_list() -> EncoderError {
    EncoderError::Compute("the list of files has another length".into())
}

fn load_bert((path, bytes): &(PathBuf, Vec<u8>), config: &Config) -> Result<Bert, EncoderError> {
    let bounds =
        Bounds { header_bytes: limits::ENCODER_HEADER_BYTES_MAX, tensors: limits::ENCODER_TENSORS_MAX };
    let bad = |problem: String| EncoderError::File { path: path.clone(), problem };
    let file = Safetensors::read(bytes, bounds).map_err(|fault| bad(fault.to_string()))?;
    Bert::load(config, |name, shape| {
        let tensor = file.tensors.get(name).ok_or_else(|| bad(format!("tensor `{name}` is missing")))?;
        let given: Vec<usize> = tensor.shape.iter().map(|size| *size as usize).collect();
        if given != shape {
            return Err(bad(format!(
                "tensor `{name}` has shape {given:?}; the configuration says {shape:?}"
            )));
        }
        let values = tensor.floats().map_err(|problem| bad(format!("tensor `{name}` {problem}")))?;
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(bad(format!("tensor `{name}` holds a number that is not finite"))),
        }
    })
}

/// Mean over the rows, then length 1, as sentence-transformers does; the sums run in the order of the tokens.
fn pool(rows: Vec<Vec<f32>>) -> Result<Vec<f32>, EncoderError> {
    let mut mean = vec![0.0f32; rows.first().map_or(0, Vec::len)];
    for row in &rows {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    mean.iter_mut().for_each(|sum| *sum /= rows.len() as f32);
    let norm = mean.iter().map(|value| value * value).sum::<f32>().sqrt();
    if !norm.is_finite() || norm == 0.0 {
        return Err(EncoderError::Compute("an embedding is zero or not finite".into()));
    }
    mean.iter_mut().for_each(|value| *value /= norm);
    Ok(mean)
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, EncoderError> {
    use std::io::Read;
    let io = |source| EncoderError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    let too_large = |bytes: u64| {
        let problem = format!("{bytes} bytes; at most {bytes_max} are allowed");
        EncoderError::File { path: path.to_owned(), problem }
    };
    if bytes > bytes_max {
        return Err(too_large(bytes));
    }
    let mut content = Vec::with_capacity(bytes as usize);
    file.take(bytes_max + 1).read_to_end(&mut content).map_err(io)?;
    match content.len() as u64 > bytes_max {
        true => Err(too_large(content.len() as u64)),
        false => Ok(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_has_length_one() {
        assert_eq!(pool(vec![vec![3.0, 0.0], vec![3.0, 8.0]]).unwrap(), [0.6, 0.8]);
        assert!(pool(vec![vec![1.0], vec![-1.0]]).is_err());
        assert!(pool(Vec::new()).is_err());
    }
}
