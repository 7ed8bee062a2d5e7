//! Builds everything from settings: weights, model, engine, text, vectors, router. The only place that knows all rooms.
//! The listener, the shutdown signal and the port are arguments, so tests start it on port 0.

use crate::alignment::{AlignmentParts, Alignments, BaseWeights};
use crate::config::{Activations, Backend, Device, KvCacheFormat, Quantize, Settings};
use crate::digest::{Digest, Digester};
use crate::encoder::{EncoderHandle, Source};
use crate::engine::{Engine, EngineInfo, EngineOptions};
use crate::jobs::Jobs;
use crate::kernels::{Isa, KvFormat, Precision};
use crate::limits::{CONTEXT_DEFAULT_MAX, PAGE_POSITIONS};
use crate::model::{Model, ModelConfig, ModelOptions, Reading};
use crate::persona::Personas;
use crate::persona::gate::{Gate, GateError, Reports, Thresholds};
use crate::server;
use crate::server::Parts;
pub use crate::server::{Context, Front};
use crate::steering::{Library, LibraryOptions};
use crate::store::{Store, StoreError};
use crate::text::Text;
use crate::users::{Projector, Recency, Users, UsersError, UsersOptions, shipped_projector};
use crate::verify;
use crate::weights::{self, Container, WeightsError};
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Why a server does not come up.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A bad or missing file.
    #[error("{0}")]
    File(String),
    /// Settings that cannot be met.
    #[error("{0}")]
    Config(String),
    /// The data folder: in use, of another version, damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Failed(String),
}

/// An open data folder: what is kept, and the long work on it. Cheap to clone; servers of one process share it.
#[derive(Clone)]
pub struct DataFolder {
    pub store: Store,
    pub jobs: Jobs,
    pub personas: Personas,
    pub reports: Reports,
}

impl DataFolder {
    /// Opens a data folder for this process alone.
    pub fn open(path: &Path) -> Result<DataFolder, AppError> {
        let store = Store::open(path)?;
        let jobs = Jobs::open(store.clone()).map_err(|error| AppError::Failed(error.to_string()))?;
        let personas = Personas::open(store.clone()).map_err(|error| AppError::Failed(error.to_string()))?;
        let reports = Reports::open(store.clone()).map_err(|error| AppError::Failed(error.to_string()))?;
        Ok(DataFolder { store, jobs, personas, reports })
    }
}

/// A loaded model with a data folder of its own, which is closed in order when this is dropped.
pub struct Loaded {
    pub context: Arc<Context>,
    data: DataFolder,
}

impl Loaded {
    /// Tells others who find the data folder in use where this process can be asked.
    pub fn announce(&self, address: SocketAddr) {
        self.data.store.announce(&format!("http://{address}"));
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.data.store.close();
    }
}

/// Where the model's file is, without touching the network.
pub fn locate(settings: &Settings) -> Result<Option<PathBuf>, AppError> {
    Ok(weights::locate(&settings.model)?)
}

/// Opens the settings' data folder, loads the model at `path` and starts its engine.
pub fn load(settings: &Settings, path: &Path) -> Result<Loaded, AppError> {
    let data = DataFolder::open(&settings.data_dir)?;
    let context = load_with(settings, path, &data)?;
    Ok(Loaded { context, data })
}

/// As [`load`], over a data folder that is open already.
pub fn load_with(settings: &Settings, path: &Path, data: &DataFolder) -> Result<Arc<Context>, AppError> {
    let file_error = |error: &dyn std::fmt::Display| AppError::File(format!("{}: {error}", path.display()));
    check_device(settings)?;
    let thresholds = named_thresholds(settings)?;
    let container = Container::open(path)?;
    if let Some(expected) = weights::expected_digest(&settings.model)?
        && container.digest() != expected
    {
        let hint = format!("hint: `demeanor pull {}` fetches it again", settings.model);
        let found = container.digest();
        return Err(file_error(&format!("its sha256 is {found}, expected {expected}; {hint}")));
    }
    container.scan_finite()?;
    let text = Text::from_container(&container).map_err(|error| file_error(&error))?;
    let isa = isa(settings)?;
    let precision = match (settings.backend, settings.activations) {
        (Backend::Cpu, Activations::Int8) => Precision::Int8,
        (Backend::Cpu, Activations::F32) | (Backend::Candle, _) => Precision::F32,
    };
    let kv_format = match (settings.kv_format, precision) {
        (KvCacheFormat::Q8, _) => KvFormat::Q8,
        (KvCacheFormat::Bf16, _) => KvFormat::Bf16,
        (KvCacheFormat::Auto, Precision::Int8) => KvFormat::F16,
        (KvCacheFormat::Auto, Precision::F32) => KvFormat::F32,
    };
    let config = Model::read_config(&container).map_err(|error| file_error(&error))?;
    verify::check_fit(&text, config.vocab_size).map_err(|problem| file_error(&problem))?;
    let context = context(settings, &config);
    let reading = Reading { quantize: settings.quantize, context };
    let options = ModelOptions {
        backend: settings.backend,
        device: settings.device,
        precision,
        isa,
        threads: settings.threads,
        reading,
        kv_format,
        pages: pages(settings, &config, kv_format, context),
    };
    // The digest is needed afterwards, and takes a processor as long as a fifth of the rest.
    let model = std::thread::scope(|scope| {
        scope.spawn(|| container.digest());
        Model::load(&container, &options)
    });
    let model = model.map_err(|error| file_error(&error))?;
    let controls = (0..text.tokenizer.vocab_size() as u32).filter(|id| text.tokenizer.is_special(*id));
    let embedding = model.embedding_facts(controls).map_err(|error| file_error(&error))?;
    let info =
        EngineInfo { embedding: Arc::new(embedding), ..info(settings, &container, &model, context, isa) };
    drop(container);
    let options = EngineOptions {
        max_batch: settings.max_batch,
        queue: settings.queue,
        step_budget_ms: settings.step_budget_ms,
        // candle's products round by their number of rows, so there a guess would change bytes.
        draft_max: if settings.backend == Backend::Cpu { settings.draft_max } else { 0 },
    };
    let engine = Engine::start(model, info, options).map_err(|error| AppError::Failed(error.to_string()))?;
    let text = Arc::new(text);
    let options = LibraryOptions { store: &data.store, jobs: &data.jobs, max_dose: settings.max_dose };
    let library = Library::start(engine.clone(), text.clone(), options)
        .map_err(|error| AppError::Config(error.to_string()))?;
    let encoder = EncoderHandle::new(match &settings.encoder {
        Some(folder) => Source::Folder(folder.clone()),
        None => Source::Catalogue,
    });
    let users = users(settings, &engine, &data.store, &encoder)?;
    let alignments = Alignments::new(AlignmentParts {
        engine: engine.clone(),
        text: text.clone(),
        library: library.clone(),
        personas: data.personas.clone(),
        jobs: data.jobs.clone(),
        weights: BaseWeights { path: path.to_owned(), reading },
        folder: data.store.folder().join("alignment"),
    });
    let gate = gate(settings, thresholds, &engine, &data.reports)?;
    Ok(Arc::new(Context::new(Parts {
        engine,
        text,
        library,
        encoder,
        users,
        personas: data.personas.clone(),
        gate,
        jobs: data.jobs.clone(),
        alignments,
        model: model_name(&settings.model, path),
        settings: settings.clone(),
    })))
}

/// The people of a data folder, with the projector that was named or the one that ships for this model.
fn users(
    settings: &Settings,
    engine: &Engine,
    store: &Store,
    encoder: &EncoderHandle,
) -> Result<Users, AppError> {
    let projector = match &settings.projector {
        Some(path) => {
            let bytes = std::fs::read(path)
                .map_err(|error| AppError::File(format!("--projector {}: {error}", path.display())))?;
            let bad = |error| AppError::File(format!("--projector {}: {error}", path.display()));
            Some(Projector::read(&bytes).map_err(bad)?)
        }
        None => shipped_projector(engine.info().weights_digest),
    };
    let recency = match settings.history_half_life_days {
        Some(days) => Recency::HalfLife { days },
        None => Recency::Uniform,
    };
    let options = UsersOptions {
        store: store.clone(),
        engine: engine.clone(),
        encoder: encoder.clone(),
        projector,
        recency,
    };
    Users::start(options).map_err(|error| match error {
        UsersError::DoesNotFit(message) => AppError::Config(format!("--projector: {message}")),
        other => AppError::Failed(other.to_string()),
    })
}

/// The thresholds that were named. A file that is none of ours is a bad file; one whose numbers no gate may have is a
/// bad setting.
fn named_thresholds(settings: &Settings) -> Result<Option<Thresholds>, AppError> {
    let Some(path) = &settings.gate_file else { return Ok(None) };
    let at = |cause: &dyn std::fmt::Display| format!("--gate-file {}: {cause}", path.display());
    let bytes = std::fs::read(path).map_err(|error| AppError::File(at(&error)))?;
    let bad = |error: GateError| match error.is_range() {
        true => AppError::Config(at(&error)),
        false => AppError::File(at(&error)),
    };
    Thresholds::read(&bytes).map(Some).map_err(bad)
}

/// The gate, with the thresholds that were named or those that ship for these weights.
fn gate(
    settings: &Settings,
    named: Option<Thresholds>,
    engine: &Engine,
    reports: &Reports,
) -> Result<Gate, AppError> {
    let info = engine.info();
    let thresholds = match named {
        Some(named) => named,
        None => Thresholds::shipped_for(&info.weights_digest)
            .map_err(|error| AppError::Failed(error.to_string()))?,
    };
    if thresholds.weights.is_some_and(|weights| weights != info.weights_digest) {
        let file = settings.gate_file.as_deref().unwrap_or(Path::new("")).display();
        return Err(AppError::Config(format!(
            "--gate-file {file}: `weights` names other weights than the loaded ones; hint: scripts/calibrate_gate.py \
             finds the numbers of a model"
        )));
    }
    Ok(Gate {
        mode: settings.gate,
        thresholds: Arc::new(thresholds),
        reports: reports.clone(),
        row_norm: info.embedding.norm_median,
    })
}

/// The name that answers carry: the catalogue's, or the file's without its extension, or the folder's. A model of the hub
/// that is named by its repository is called as its file there, or as the repository where that is a folder.
fn model_name(model: &str, path: &Path) -> String {
    let lower = |name: &std::ffi::OsStr| name.to_string_lossy().to_lowercase();
    let of_file = |path: &Path| path.file_stem().map(lower);
    let is_gguf = |path: &Path| path.extension().is_some_and(|kind| kind.eq_ignore_ascii_case("gguf"));
    let given = Path::new(model);
    let name = match model.strip_prefix("hf:") {
        Some(_) if is_gguf(path) => of_file(path),
        Some(repository) => Path::new(repository).file_name().map(lower),
        None if is_gguf(given) => of_file(given),
        None if given.is_dir() => given.file_name().map(lower),
        None => model.strip_prefix("ollama:").map(str::to_owned),
    };
    name.unwrap_or_else(|| model.into())
}

fn isa(settings: &Settings) -> Result<Isa, AppError> {
    let Some(name) = &settings.isa else { return Ok(Isa::detect()) };
    let names = || Isa::available().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
    match Isa::parse(name) {
        Some(isa) if Isa::available().contains(&isa) => Ok(isa),
        _ => Err(AppError::Config(format!("--isa {name}: this machine has {}", names()))),
    }
}

fn context(settings: &Settings, config: &ModelConfig) -> u32 {
    settings.context.unwrap_or(CONTEXT_DEFAULT_MAX).min(config.trained_context)
}

/// As many pages as fit the memory for KV, but no more than all slots can fill and no fewer than one sequence needs.
fn pages(settings: &Settings, config: &ModelConfig, format: KvFormat, context: u32) -> usize {
    let one = (context as usize).div_ceil(PAGE_POSITIONS);
    let fit = settings.kv_bytes / Model::page_bytes(config, format);
    fit.clamp(one, one * settings.max_batch)
}

fn info(settings: &Settings, container: &Container, model: &Model, context: u32, isa: Isa) -> EngineInfo {
    let config = model.config();
    EngineInfo {
        architecture: config.architecture.clone(),
        n_blocks: config.n_blocks as u32,
        d_model: config.d_model as u32,
        n_heads: config.n_heads as u32,
        d_head: config.d_head as u32,
        vocab_size: config.vocab_size as u32,
        embedding: Arc::default(),
        context,
        trained_context: config.trained_context,
        parameters: model.parameters(),
        file_bytes: container.file_bytes(),
        weights_digest: weights_digest(container.digest(), settings.quantize),
        arithmetic: arithmetic(settings, isa),
        quantisation: model.quantisation().into(),
        isa: isa.name().into(),
        threads: settings.threads,
        max_batch: settings.max_batch,
    }
}

/// What names the weights that are served: rounding them makes other ones.
fn weights_digest(stored: Digest, quantize: Option<Quantize>) -> Digest {
    let Some(quantize) = quantize else { return stored };
    let mut digester = Digester::new("weights rounded at load");
    digester.part(quantize.name().as_bytes()).part(&stored.0);
    digester.finish()
}

/// Equal names and weights give equal bytes: AVX2, AVX-512 and AMX agree, the portable form rounds differently. Names of the
/// candle backend promise equal values up to rounding only.
fn arithmetic(settings: &Settings, isa: Isa) -> String {
    let products = match (settings.backend, settings.activations, isa) {
        (Backend::Candle, ..) => "candle-f32",
        (_, Activations::Int8, Isa::Portable) => "cpu-int8-portable",
        (_, Activations::F32, Isa::Portable) => "cpu-f32-portable",
        (_, Activations::Int8, _) => "cpu-int8",
        (_, Activations::F32, _) => "cpu-f32",
    };
    match settings.kv_format {
        KvCacheFormat::Auto => products.into(),
        KvCacheFormat::Bf16 => format!("{products}-kv-bf16"),
        KvCacheFormat::Q8 => format!("{products}-kv-q8"),
    }
}

/// A device that this build can use.
fn check_device(settings: &Settings) -> Result<(), AppError> {
    match (settings.backend, settings.device) {
        (_, Device::Cpu) => Ok(()),
        (Backend::Cpu, Device::Cuda(_)) => Err(AppError::Config(
            "--device cuda is for the candle backend; hint: add --backend candle".into(),
        )),
        (Backend::Candle, Device::Cuda(_)) if cfg!(feature = "cuda") => Ok(()),
        (Backend::Candle, Device::Cuda(index)) => Err(AppError::Config(format!(
            "--device cuda:{index}: this build has no CUDA; hint: cargo build --release --features cuda"
        ))),
    }
}

/// Serves until `shutdown` resolves; the routes answer 503 until [`open`] gives the front a loaded model.
pub async fn serve(front: Front, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    server::serve(listener, front, shutdown).await;
}

/// Opens the routes of a front.
pub fn open(front: &Front, context: Arc<Context>) {
    front.open(server::router(context));
}

/// A listener for [`serve`].
pub async fn bind(settings: &Settings) -> std::io::Result<TcpListener> {
    server::bind(&settings.host, settings.port).await
}

/// A runtime for HTTP; compute has its own threads.
pub fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("http")
        .enable_all()
        .build()
}

/// A server in this process on a thread of its own. Dropping it ends the server once its requests are done.
pub struct Running {
    pub address: SocketAddr,
    /// For those who watch the engine's state.
    pub engine: Engine,
    pub context: Arc<Context>,
    _shutdown: oneshot::Sender<()>,
    /// The data folder, where it is this server's own.
    _loaded: Option<Loaded>,
}

/// Loads the model of the settings, which must be on disk, and serves it on the settings' port (0: a free one).
pub fn start_in_background(settings: &Settings) -> Result<Running, AppError> {
    let loaded = load(settings, &on_disk(settings)?)?;
    let mut running = run(settings, loaded.context.clone())?;
    loaded.announce(running.address);
    running._loaded = Some(loaded);
    Ok(running)
}

/// As [`start_in_background`], over a data folder that other servers of this process use too.
pub fn start_with(settings: &Settings, data: &DataFolder) -> Result<Running, AppError> {
    run(settings, load_with(settings, &on_disk(settings)?, data)?)
}

fn on_disk(settings: &Settings) -> Result<PathBuf, AppError> {
    locate(settings)?.ok_or_else(|| {
        AppError::File(format!("model `{}` is not on disk; hint: demeanor pull {0}", settings.model))
    })
}

fn run(settings: &Settings, context: Arc<Context>) -> Result<Running, AppError> {
    let failed = |error: std::io::Error| AppError::Failed(error.to_string());
    let runtime = runtime(2).map_err(failed)?;
    let listener = runtime.block_on(bind(settings)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (sender, receiver) = oneshot::channel();
    let (engine, front) = (context.engine.clone(), Front::loading());
    open(&front, context.clone());
    std::thread::spawn(move || {
        runtime.block_on(serve(front, listener, async {
            let _ = receiver.await;
        }));
    });
    Ok(Running { address, engine, context, _shutdown: sender, _loaded: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_carry_a_name_that_people_know() {
        let snapshot = "/cache/models--org--My-Model/snapshots/0123456789abcdef";
        for (given, path, name) in [
            ("smollm2-135m-instruct", "/x/SmolLM2.gguf", "smollm2-135m-instruct"),
            ("/x/My-Model.Q8_0.gguf", "/x/My-Model.Q8_0.gguf", "my-model.q8_0"),
            ("hf:org/My-Model:q8_0", &format!("{snapshot}/My-Model-Q8_0.gguf"), "my-model-q8_0"),
            ("hf:org/My-Model/sub/a.gguf", &format!("{snapshot}/sub/a.gguf"), "a"),
            ("hf:org/My-Model", snapshot, "my-model"),
            ("ollama:gemma3:1b", "/o/blobs/sha256-00", "gemma3:1b"),
            ("/", "/", "/"),
        ] {
            assert_eq!(model_name(given, Path::new(path)), name, "{given}");
        }
    }
}
