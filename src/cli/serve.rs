//! `demeanor serve`: loads a model and answers HTTP until a signal comes.

use super::{CliError, Outcome};
use crate::app::{self, Front, Loaded};
use crate::config::{
    Activations, Backend, Device, GateMode, KvCacheFormat, MetricsDialect, Quantize, Settings,
};
use crate::limits;
use crate::weights;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;
use tokio::sync::oneshot;

/// Load a model and serve it over an OpenAI-compatible HTTP endpoint
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  demeanor serve --model smollm2-135m-instruct --port 8080\n  \
    curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"steering\":\"0.8 warm\"}'")]
pub struct ServeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Another name under which the plain model answers (repeatable)
    #[arg(long, visible_alias = "served-model-name", env = "DEMEANOR_ALIAS", value_delimiter = ',')]
    pub alias: Vec<String>,
    /// Address to listen on; anything but a loopback address needs --api-key
    #[arg(long, default_value = "127.0.0.1", env = "DEMEANOR_HOST")]
    pub host: String,
    /// Port to listen on
    #[arg(long, default_value_t = 8080, env = "DEMEANOR_PORT")]
    pub port: u16,
    /// Key that clients must send as `Authorization: Bearer KEY` (repeatable)
    #[arg(long, env = "DEMEANOR_API_KEY", value_delimiter = ',', hide_env_values = true)]
    pub api_key: Vec<String>,
    /// Requests that may wait for a slot; more are answered 429
    #[arg(long, default_value_t = limits::QUEUE_MAX, env = "DEMEANOR_QUEUE")]
    pub queue: usize,
    /// Seconds a request waits for a vector that is being extracted before it is answered 503
    #[arg(long, default_value_t = 10.0, env = "DEMEANOR_EXTRACT_WAIT")]
    pub extract_wait: f32,
    /// Largest dose (change over median centred residual norm) that a request may ask for
    #[arg(long, default_value_t = limits::DOSE_MAX, env = "DEMEANOR_MAX_DOSE")]
    pub max_dose: f32,
    /// What happens to personas that did not pass the safety probe: off serves them, warn says so, enforce refuses them
    #[arg(long, default_value = "warn", value_parser = ["off", "warn", "enforce"], env = "DEMEANOR_GATE")]
    pub gate: String,
    /// Most tokens of one answer; without it an answer may fill the context
    #[arg(long, env = "DEMEANOR_MAX_OUTPUT_TOKENS")]
    pub max_output_tokens: Option<u32>,
    /// Refuse directions that a request carries inline
    #[arg(long, env = "DEMEANOR_NO_INLINE_VECTORS")]
    pub no_inline_vectors: bool,
    /// Header in which a trusted proxy says who asks; `user` in a body then says nothing
    #[arg(long, env = "DEMEANOR_USER_HEADER", value_name = "NAME")]
    pub user_header: Option<String>,
    /// Origin whose pages may call this server from a browser (repeatable)
    #[arg(long, env = "DEMEANOR_CORS_ORIGIN", value_delimiter = ',')]
    pub cors_origin: Vec<String>,
    /// Whose names /metrics uses: demeanor, vllm (for routers that read vLLM's) or both
    #[arg(long, default_value = "demeanor", value_parser = ["demeanor", "vllm", "both"], env = "DEMEANOR_METRICS_DIALECT")]
    pub metrics_dialect: String,
    /// Host name that requests may carry besides loopback names and --host (repeatable)
    #[arg(long, env = "DEMEANOR_ALLOWED_HOST", value_delimiter = ',')]
    pub allowed_host: Vec<String>,
}

/// Flags that every verb with a model has.
#[derive(clap::Args, Clone, Debug)]
pub struct ModelArgs {
    /// Catalogue name, path of a GGUF file or of a folder with config.json and safetensors, hf:ORG/REPO[:QUANTISATION],
    /// hf:ORG/REPO/FILE, or ollama:NAME:TAG; `demeanor ls` lists what is there
    #[arg(long, short = 'm', default_value = weights::default_model(), env = "DEMEANOR_MODEL")]
    pub model: String,
    /// Compute threads; default: the cores of this machine
    #[arg(long, short = 't', env = "DEMEANOR_THREADS")]
    pub threads: Option<usize>,
    /// Instruction set: amx-int8, avx512-vnni, avx2 or portable; default: the best this machine has
    #[arg(long, env = "DEMEANOR_ISA")]
    pub isa: Option<String>,
    /// int8: fast; f32: exact
    #[arg(long, default_value = "int8", value_parser = ["int8", "f32"], env = "DEMEANOR_ACTIVATIONS")]
    pub activations: String,
    /// Rounds weights in F32, F16 and BF16 at load: q8 to eight bits, q4 to four (embeddings and head to eight)
    #[arg(long, value_parser = ["q8", "q4"], env = "DEMEANOR_QUANTIZE")]
    pub quantize: Option<String>,
    /// How keys and values are kept. auto: half floats, with --activations f32 floats; bf16: bfloat16, so that matrix units
    /// (AMX) do the products of attention and long prompts take less time; q8: eight bits, so that a context takes half
    /// the memory. Both at a small loss
    #[arg(long, default_value = "auto", value_parser = ["auto", "bf16", "q8"], env = "DEMEANOR_KV_FORMAT")]
    pub kv_format: String,
    /// cpu: our own kernels; candle: dense f32 weights on --device
    #[arg(long, default_value = "cpu", value_parser = ["cpu", "candle"], env = "DEMEANOR_BACKEND")]
    pub backend: String,
    /// Where the candle backend computes: cpu, or cuda:N in a build with the feature `cuda`
    #[arg(long, default_value = "cpu", env = "DEMEANOR_DEVICE")]
    pub device: String,
    /// Sequences that run at once
    #[arg(long, alias = "parallel", default_value_t = 16, env = "DEMEANOR_MAX_BATCH")]
    pub max_batch: usize,
    /// Positions of one sequence; default: what the model was trained for, at most 8192
    #[arg(long, short = 'c', alias = "ctx-size", env = "DEMEANOR_CONTEXT")]
    pub context: Option<u32>,
    /// Memory of the KV cache in MiB
    #[arg(long, default_value_t = 1024, env = "DEMEANOR_KV_MIB")]
    pub kv_mib: usize,
    /// Milliseconds that a step with prefill in it should take
    #[arg(long, default_value_t = 20.0, env = "DEMEANOR_STEP_BUDGET_MS")]
    pub step_budget_ms: f32,
    /// Tokens guessed from repetitions (n-gram drafts) that a step checks beside the next one while a single answer is
    /// being written, at most; 0 turns them off. Answers are the same byte for byte
    #[arg(long, default_value_t = limits::DRAFT_TOKENS, alias = "draft", env = "DEMEANOR_DRAFT_MAX",
        value_parser = clap::value_parser!(u8).range(..=i64::from(limits::DRAFT_TOKENS_MAX)))]
    pub draft_max: u8,
    /// Folder for vectors, personas and users; default: demeanor in the XDG data folder
    #[arg(long, env = "DEMEANOR_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// File that makes soft prompts of users' histories (`demeanor embed train` writes one); default: the one that
    /// ships for the model
    #[arg(long, env = "DEMEANOR_PROJECTOR")]
    pub projector: Option<PathBuf>,
    /// Days after which a history item counts half in a soft prompt; without it age does not count
    #[arg(long, env = "DEMEANOR_HISTORY_HALF_LIFE")]
    pub history_half_life: Option<f64>,
    /// Folder of the sentence encoder (config.json, tokenizer.json, model.safetensors and the rest, as
    /// sentence-transformers keeps them); default: all-minilm-l6-v2, fetched when it is first needed
    #[arg(long, env = "DEMEANOR_ENCODER")]
    pub encoder: Option<PathBuf>,
    /// Open model and encoder without checking their files first in a process of its own (see `demeanor verify`)
    #[arg(long, env = "DEMEANOR_NO_VERIFY")]
    pub no_verify: bool,
    /// Thresholds of the gate, a JSON file; default: those that ship for the model
    #[arg(long, env = "DEMEANOR_GATE_FILE", value_name = "FILE")]
    pub gate_file: Option<PathBuf>,
}

impl ModelArgs {
    /// Whether no flag asks for a model of its own.
    pub fn is_default(&self) -> bool {
        self.model == weights::default_model()
            && self.threads.is_none()
            && self.isa.is_none()
            && self.activations == "int8"
            && self.quantize.is_none()
            && self.kv_format == "auto"
            && self.backend == "cpu"
            && self.device == "cpu"
    }

    /// Settings with the defaults of a server that nobody else talks to.
    pub fn settings(&self) -> Result<Settings, CliError> {
        let threads = match self.threads {
            Some(0) => return Err(CliError::config("--threads must be at least 1")),
            Some(threads) => threads.min(256),
            None => std::thread::available_parallelism().map_or(1, |n| n.get()),
        };
        if self.max_batch == 0 || self.max_batch > 256 {
            return Err(CliError::config("--max-batch must be 1 to 256"));
        }
        if !(self.step_budget_ms > 0.0 && self.step_budget_ms <= 10_000.0) {
            return Err(CliError::config("--step-budget-ms must be above 0 and at most 10000"));
        }
        let kv_format = KvCacheFormat::parse(&self.kv_format)
            .ok_or_else(|| CliError::config(format!("--kv-format {} is unknown", self.kv_format)))?;
        if kv_format != KvCacheFormat::Auto && self.backend == "candle" {
            return Err(CliError::config(format!("--kv-format {} is for the cpu backend", self.kv_format)));
        }
        if self.context.is_some_and(|context| context < 16) {
            return Err(CliError::config("--context must be at least 16"));
        }
        if self.history_half_life.is_some_and(|days| !(days > 0.0 && days <= 1e6)) {
            return Err(CliError::config("--history-half-life must be above 0 and at most 1000000 days"));
        }
        let device = Device::parse(&self.device).ok_or_else(|| {
            CliError::config(format!("--device {}: allowed are cpu and cuda:N", self.device))
        })?;
        Ok(Settings {
            model: self.model.clone(),
            aliases: Vec::new(),
            host: "127.0.0.1".into(),
            port: 0,
            threads,
            isa: self.isa.clone(),
            activations: if self.activations == "f32" { Activations::F32 } else { Activations::Int8 },
            quantize: self.quantize.as_deref().and_then(Quantize::parse),
            kv_format,
            backend: if self.backend == "candle" { Backend::Candle } else { Backend::Cpu },
            device,
            max_batch: self.max_batch,
            context: self.context,
            step_budget_ms: self.step_budget_ms,
            draft_max: usize::from(self.draft_max),
            api_keys: Vec::new(),
            max_dose: limits::DOSE_MAX,
            gate: GateMode::Warn,
            gate_file: self.gate_file.clone(),
            extract_wait_seconds: 600.0,
            data_dir: self.data_dir.clone().unwrap_or_else(default_data_dir),
            projector: self.projector.clone(),
            history_half_life_days: self.history_half_life,
            encoder: self.encoder.clone(),
            allow_inline_vectors: true,
            kv_bytes: self.kv_mib.clamp(1, 1 << 20) << 20,
            max_output_tokens: None,
            user_header: None,
            cors_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            metrics_dialect: MetricsDialect::Demeanor,
            queue: limits::QUEUE_MAX,
        })
    }
}

/// `$XDG_DATA_HOME/demeanor`, else `~/.local/share/demeanor`.
pub(super) fn default_data_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base =
        std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home);
    base.unwrap_or_else(|| PathBuf::from(".")).join("demeanor")
}

impl ServeArgs {
    pub fn settings(&self) -> Result<Settings, CliError> {
        let keys: Vec<String> = self.api_key.iter().filter(|key| !key.is_empty()).cloned().collect();
        let loopback = ["localhost", "127.0.0.1", "::1"].contains(&self.host.as_str());
        if !loopback && keys.is_empty() {
            return Err(CliError::config(format!(
                "--host {} is reachable from other machines, so --api-key is needed; hint: keep the default host, \
                 or pass a long random key",
                self.host
            )));
        }
        if !(self.max_dose > 0.0 && self.max_dose.is_finite()) {
            return Err(CliError::config("--max-dose must be a positive number"));
        }
        if !(0.0..=3600.0).contains(&self.extract_wait) {
            return Err(CliError::config("--extract-wait must be 0 to 3600 seconds"));
        }
        let is_header = |name: &String| axum::http::HeaderName::from_bytes(name.as_bytes()).is_ok();
        if let Some(name) = self.user_header.as_ref().filter(|name| !is_header(name)) {
            return Err(CliError::config(format!("--user-header `{name}` is no name of a header")));
        }
        Ok(Settings {
            aliases: self.alias.clone(),
            host: self.host.clone(),
            port: self.port,
            api_keys: keys,
            gate: GateMode::parse(&self.gate).unwrap_or(GateMode::Enforce),
            max_dose: self.max_dose,
            extract_wait_seconds: self.extract_wait,
            allow_inline_vectors: !self.no_inline_vectors,
            max_output_tokens: self.max_output_tokens,
            user_header: self.user_header.clone(),
            cors_origins: self.cors_origin.clone(),
            allowed_hosts: self.allowed_host.clone(),
            metrics_dialect: MetricsDialect::parse(&self.metrics_dialect).unwrap_or(MetricsDialect::Demeanor),
            queue: self.queue,
            ..self.model.settings()?
        })
    }
}

pub fn serve(args: &ServeArgs) -> Outcome {
    let settings = args.settings()?;
    eprintln!("demeanor {}", env!("CARGO_PKG_VERSION"));
    let runtime = app::runtime(2).map_err(|error| CliError::failed(error.to_string()))?;
    runtime.block_on(async {
        // The port is taken before anything slow: a busy one is said at once, and probes see a server that loads.
        let listener = app::bind(&settings).await.map_err(|error| {
            let (host, port) = (&settings.host, settings.port);
            CliError::config(format!("cannot listen on {host}:{port}: {error}; hint: choose another --port"))
        })?;
        let address = listener.local_addr().map_err(|error| CliError::failed(error.to_string()))?;
        let front = Front::loading();
        let (sender, loaded) = oneshot::channel();
        let (loading, opened, model) = (settings.clone(), front.clone(), args.model.clone());
        std::thread::spawn(move || {
            let result = load(&loading, &model).inspect(|loaded| {
                app::open(&opened, loaded.context.clone());
                loaded.announce(address);
                say_ready(&loading, address);
            });
            let _ = sender.send(result);
        });
        let failure = async {
            match loaded.await {
                // Held until the server ends, then the data folder is closed in order.
                Ok(Ok(_loaded)) => std::future::pending().await,
                Ok(Err(error)) => error,
                Err(_) => CliError::failed("loading ended without a result; the message above says why"),
            }
        };
        tokio::select! {
            () = app::serve(front, listener, signal()) => Ok(()),
            () = second_signal() => {
                eprintln!("stopped at once");
                Ok(())
            }
            error = failure => Err(error),
        }
    })
}

/// Fetches the model if need be, loads it and says what it is.
fn load(settings: &Settings, model: &ModelArgs) -> Result<Loaded, CliError> {
    let path = super::verify::model_file(model)?;
    let begin = Instant::now();
    let loaded = app::load(settings, &path)?;
    let context = &loaded.context;
    let info = context.engine.info();
    eprintln!(
        "load    {}: {}, {} blocks, {}, context {}, {:.0} M parameters, {}, {} threads, {:.1} s",
        context.model,
        info.architecture,
        info.n_blocks,
        info.quantisation,
        info.context,
        info.parameters as f64 / 1e6,
        info.isa,
        info.threads,
        begin.elapsed().as_secs_f64()
    );
    context.text.template().warnings().iter().for_each(|warning| eprintln!("warning {warning}"));
    let traits = context.library.traits().iter().filter(|one| one.harmful.is_none());
    let names: Vec<&str> = traits.map(|one| one.name.as_str()).collect();
    eprintln!("traits  {}; a trait is extracted when it is first used", names.join(", "));
    let thresholds = context.gate.thresholds.model.as_deref().unwrap_or("any model");
    eprintln!("gate    {}, thresholds for {thresholds}", context.gate.mode.name());
    Ok(loaded)
}

fn say_ready(settings: &Settings, address: SocketAddr) {
    let key = if settings.api_keys.is_empty() { "no API key (loopback only)" } else { "API key needed" };
    eprintln!("ready   http://{address}   OpenAI API at /v1   {key}");
    eprintln!(
        "try     curl http://{address}/v1/chat/completions -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"How do \
         I cook rice?\"}}],\"steering\":\"2 warm\",\"max_tokens\":60}}'"
    );
}

/// The first SIGINT or SIGTERM: running streams may finish.
async fn signal() {
    interrupted().await;
    eprintln!(
        "stopping: running answers may finish, at most {} s; once more to stop at once",
        limits::DRAIN_SECONDS_MAX
    );
}

/// The second one.
async fn second_signal() {
    interrupted().await;
    interrupted().await;
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
