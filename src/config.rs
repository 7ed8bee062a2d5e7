//! Settings as resolved from flags, environment and file; what the rooms are built from.

use crate::format::ElementFormat;
use std::path::PathBuf;

/// How activations enter the products of the CPU backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// int8 with one scale per 32 values beside quantised weights, bfloat16 beside weights in BF16. The default.
    Int8,
    /// f32 everywhere: the exact mode.
    F32,
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Our own kernels on packed weights. The default: fast, and an answer's bytes do not depend on its neighbours.
    Cpu,
    /// candle on dense f32 weights: four bytes a weight, any device that it was built for.
    Candle,
}

/// Where the candle backend computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Cpu,
    /// The NVIDIA GPU of this index; needs a build with the feature `cuda`.
    Cuda(usize),
}

/// What becomes of weights in F32, F16 and BF16 at load; those that a file holds packed stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantize {
    /// Eight bits a weight and a scale for 32 of them.
    Q8,
    /// Four bits in projections; the embedding table and the head keep eight.
    Q4,
}

impl Quantize {
    /// `q8` or `q4`.
    pub fn parse(text: &str) -> Option<Quantize> {
        match text {
            "q8" => Some(Quantize::Q8),
            "q4" => Some(Quantize::Q4),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Quantize::Q8 => "q8",
            Quantize::Q4 => "q4",
        }
    }

    /// How a matrix is stored then: `table` says whether it is the embedding table or the head.
    pub fn format(self, table: bool) -> ElementFormat {
        match self {
            Quantize::Q4 if !table => ElementFormat::Q4_0,
            Quantize::Q8 | Quantize::Q4 => ElementFormat::Q8_0,
        }
    }
}

impl Device {
    /// `cpu` or `cuda:N`.
    pub fn parse(text: &str) -> Option<Device> {
        match text {
            "cpu" => Some(Device::Cpu),
            _ => text.strip_prefix("cuda:")?.parse().ok().map(Device::Cuda),
        }
    }
}

/// What the server does with what the safety probe says of a persona.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateMode {
    /// Serves all.
    Off,
    /// Serves all and says what the probe says.
    Warn,
    /// Serves what passed.
    Enforce,
}

impl GateMode {
    /// `off`, `warn` or `enforce`.
    pub fn parse(text: &str) -> Option<GateMode> {
        match text {
            "off" => Some(GateMode::Off),
            "warn" => Some(GateMode::Warn),
            "enforce" => Some(GateMode::Enforce),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            GateMode::Off => "off",
            GateMode::Warn => "warn",
            GateMode::Enforce => "enforce",
        }
    }
}

/// Under whose names `/metrics` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsDialect {
    Demeanor,
    /// vLLM's names, which routers and autoscalers read by default.
    Vllm,
    Both,
}

impl MetricsDialect {
    /// `demeanor`, `vllm` or `both`.
    pub fn parse(text: &str) -> Option<MetricsDialect> {
        match text {
            "demeanor" => Some(MetricsDialect::Demeanor),
            "vllm" => Some(MetricsDialect::Vllm),
            "both" => Some(MetricsDialect::Both),
            _ => None,
        }
    }
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum KvCacheFormat {
    /// As half floats with int8 activations, else as floats.
    Auto,
    /// As bfloat16, to which attention then rounds queries and weights too.
    Bf16,
    /// In eight bits.
    Q8,
}

impl KvCacheFormat {
    pub fn parse(text: &str) -> Option<KvCacheFormat> {
        match text {
            "auto" => Some(KvCacheFormat::Auto),
            "bf16" => Some(KvCacheFormat::Bf16),
            "q8" => Some(KvCacheFormat::Q8),
            _ => None,
        }
    }
}

/// Everything `serve` needs, with defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Catalogue name, path of a GGUF file or of a folder of safetensors, or `hf:REPO/FILE`.
    pub model: String,
    /// Further names under which the plain model answers.
    pub aliases: Vec<String>,
    pub host: String,
    /// 0 lets the system choose (tests).
    pub port: u16,
    /// Compute threads.
    pub threads: usize,
    /// Instruction set by name; `None` takes the best one the machine has.
    pub isa: Option<String>,
    pub activations: Activations,
    /// Rounds weights in F32, F16 and BF16 at load; `None`: they stay.
    pub quantize: Option<Quantize>,
    pub kv_format: KvCacheFormat,
    pub backend: Backend,
    /// Where the candle backend computes.
    pub device: Device,
    /// Sequences that run at once.
    pub max_batch: usize,
    /// Positions of one sequence; `None`: the model's own, at most 8192.
    pub context: Option<u32>,
    /// Time a step with prefill rows should take.
    pub step_budget_ms: f32,
    /// Guessed tokens that a step may check for a sequence that decodes alone; 0: none.
    pub draft_max: usize,
    /// Keys that clients must present (sha256 of each is kept by `server`); empty: no authentication.
    pub api_keys: Vec<String>,
    pub max_dose: f32,
    pub gate: GateMode,
    /// Thresholds of the gate; `None`: those that ship for the model.
    pub gate_file: Option<PathBuf>,
    /// How long a request waits for a vector that is being extracted.
    pub extract_wait_seconds: f32,
    /// Where vectors are kept; XDG data folder by default.
    pub data_dir: PathBuf,
    /// File that makes soft prompts of users; `None`: the one that ships for the model, if there is one.
    pub projector: Option<PathBuf>,
    /// A history item of this many days counts half; `None`: age does not count.
    pub history_half_life_days: Option<f64>,
    /// Folder of the sentence encoder; `None`: the catalogue's, fetched when it is first needed.
    pub encoder: Option<PathBuf>,
    /// Whether requests may carry directions inline.
    pub allow_inline_vectors: bool,
    /// Memory of the KV cache in bytes.
    pub kv_bytes: usize,
    /// Most tokens of one answer; `None`: until the context ends.
    pub max_output_tokens: Option<u32>,
    /// Header in which a trusted proxy says who asks; then `user` of a body says nothing.
    pub user_header: Option<String>,
    /// Origins that browsers may call from.
    pub cors_origins: Vec<String>,
    /// Host names that requests may carry besides loopback names and `host`.
    pub allowed_hosts: Vec<String>,
    pub metrics_dialect: MetricsDialect,
    /// Requests that may wait.
    pub queue: usize,
}
