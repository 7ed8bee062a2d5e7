//! Speed of candle's own quantised models, as a peer of `demeanor bench`: prefill and decode of one stream on the CPU.
//!
//!     candle-peer MODEL.gguf [--prompt 512] [--tokens 64] [--repeats 3]
//!
//! Prints one line of JSON. Both speeds are defined as in `demeanor bench`: a prompt's tokens over the time until the next
//! token is known, and the tokens after the first over the time since the first. `RAYON_NUM_THREADS` says how many threads.

use candle_core::quantized::gguf_file::Content;
use candle_core::{D, Device, Tensor};
use candle_transformers::models::{quantized_gemma3, quantized_llama, quantized_qwen3};
use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "candle-peer MODEL.gguf [--prompt N] [--tokens M] [--repeats R]";
/// Tokens of the prompt before a stream; `demeanor bench` has as many.
const SHORT: usize = 16;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Debug)]
struct Arguments {
    model: String,
    /// Tokens of the long prompt.
    prompt: usize,
    /// Tokens of a stream; at least 2.
    tokens: usize,
    /// Timed runs of each measurement.
    repeats: usize,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut model = None;
        let (mut prompt, mut tokens, mut repeats) = (512, 64, 3);
        while let Some(word) = words.next() {
            let (number, least) = match word.as_str() {
                "--prompt" => (&mut prompt, 1),
                "--tokens" => (&mut tokens, 2),
                "--repeats" => (&mut repeats, 1),
                _ if word.starts_with('-') || model.is_some() => {
                    return Err(format!("`{word}` is not expected; usage: {USAGE}").into());
                }
                _ => {
                    model = Some(word);
                    continue;
                }
            };
            let value = words.next().unwrap_or_default();
            *number = value
                .parse()
                .ok()
                .filter(|parsed| *parsed >= least)
                .ok_or_else(|| format!("`{word}`: `{value}` is not a number from {least} on"))?;
        }
        let model = model.ok_or_else(|| format!("no model is named; usage: {USAGE}"))?;
        Ok(Self { model, prompt, tokens, repeats })
    }
}

/// The architectures with a quantised model that is measured here.
enum Weights {
    Llama(quantized_llama::ModelWeights),
    Qwen3(quantized_qwen3::ModelWeights),
    Gemma3(quantized_gemma3::ModelWeights),
}

struct Model {
    weights: Weights,
    vocabulary: usize,
}

impl Model {
    fn open(path: &str) -> Result<Self> {
        let mut file = BufReader::new(File::open(path)?);
        let content = Content::read(&mut file)?;
        let architecture = content
            .metadata
            .get("general.architecture")
            .ok_or("no `general.architecture`")?
            .to_string()?
            .clone();
        let embedding = content.tensor_infos.get("token_embd.weight").ok_or("no `token_embd.weight`")?;
        let vocabulary = embedding.shape.dims2()?.0;
        let (file, device) = (&mut file, &Device::Cpu);
        let weights = match architecture.as_str() {
            "llama" => Weights::Llama(quantized_llama::ModelWeights::from_gguf(content, file, device)?),
            "qwen3" => Weights::Qwen3(quantized_qwen3::ModelWeights::from_gguf(content, file, device)?),
            "gemma3" => Weights::Gemma3(quantized_gemma3::ModelWeights::from_gguf(content, file, device)?),
            other => {
                return Err(format!("architecture `{other}`; llama, qwen3 and gemma3 are measured").into());
            }
        };
        Ok(Self { weights, vocabulary })
    }

    /// The likeliest token after `ids`, the first of which stands at `position`. Position 0 begins with an empty cache.
    fn next(&mut self, ids: &[u32], position: usize) -> Result<u32> {
        let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match &mut self.weights {
            Weights::Llama(model) => model.forward(&ids, position)?,
            Weights::Qwen3(model) => {
                // The other two start anew at position 0 by themselves.
                if position == 0 {
                    model.clear_kv_cache();
                }
                model.forward(&ids, position)?
            }
            Weights::Gemma3(model) => model.forward(&ids, position)?,
        };
        Ok(logits.squeeze(0)?.argmax(D::Minus1)?.to_scalar()?)
    }

    /// Any ids will do: a dense model's speed does not depend on them.
    fn ids(&self, length: usize) -> Vec<u32> {
        (0..length).map(|index| (7919 * (index + 1) % self.vocabulary) as u32).collect()
    }

    /// Tokens per second of one forward call.
    fn prefill(&mut self, prompt: usize) -> Result<f64> {
        let ids = self.ids(prompt);
        let start = Instant::now();
        self.next(&ids, 0)?;
        Ok(prompt as f64 / start.elapsed().as_secs_f64())
    }

    /// Tokens per second of one stream after its first token.
    fn decode(&mut self, tokens: usize) -> Result<f64> {
        let ids = self.ids(SHORT);
        let mut id = self.next(&ids, 0)?;
        let start = Instant::now();
        for index in 0..tokens - 1 {
            id = self.next(&[id], SHORT + index)?;
        }
        Ok((tokens - 1) as f64 / start.elapsed().as_secs_f64())
    }
}

/// The median of so many runs after one that warms up: weights are packed when they are first used.
fn median(repeats: usize, mut run: impl FnMut() -> Result<f64>) -> Result<f64> {
    run()?;
    let mut values = (0..repeats).map(|_| run()).collect::<Result<Vec<_>>>()?;
    values.sort_by(f64::total_cmp);
    Ok((values[(repeats - 1) / 2] + values[repeats / 2]) / 2.0)
}

/// The version of candle that was built in.
fn candle_version() -> Option<&'static str> {
    let (_, rest) = include_str!("../Cargo.lock").split_once("name = \"candle-core\"\nversion = \"")?;
    Some(rest.split_once('"')?.0)
}

/// What the compiler was allowed to use: a format without a vector kernel in candle is as fast as the compiler makes it.
fn target_features() -> Vec<&'static str> {
    let features = [
        ("avx2", cfg!(target_feature = "avx2")),
        ("avx512f", cfg!(target_feature = "avx512f")),
        ("avx512vnni", cfg!(target_feature = "avx512vnni")),
        ("neon", cfg!(target_feature = "neon")),
    ];
    features.into_iter().filter_map(|(name, on)| on.then_some(name)).collect()
}

fn measure(arguments: &Arguments) -> Result<serde_json::Value> {
    let mut model = Model::open(&arguments.model)?;
    let prefill = median(arguments.repeats, || model.prefill(arguments.prompt))?;
    let decode = median(arguments.repeats, || model.decode(arguments.tokens))?;
    Ok(serde_json::json!({
        "prefill_tokens_per_second": prefill,
        "decode_tokens_per_second": decode,
        "prompt": arguments.prompt,
        "tokens": arguments.tokens,
        "repeats": arguments.repeats,
        "threads": rayon::current_num_threads(),
        "candle": candle_version(),
        "target_features": target_features(),
    }))
}

fn main() -> ExitCode {
    let result = Arguments::parse(std::env::args().skip(1)).and_then(|arguments| {
        measure(&arguments).map_err(|error| format!("`{}`: {error}", arguments.model).into())
    });
    match result {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
