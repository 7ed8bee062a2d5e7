//! HTTP only: accept loop, routes, errors, streams, metrics. Names no tensor and keeps no state but counters: what a
//! request means is decided by the rooms below, here it is read, checked and answered.

mod accept;
mod blocking;
mod body;
mod connection;
mod error;
mod exposition;
mod fields;
mod json;
mod keys;
mod layers;
mod metrics;
mod multipart;
mod native;
mod openai;
mod openapi;
mod path;
mod query;
mod sse;

pub use accept::{Front, Lifecycle, Peer, bind, serve};
pub use error::{ApiError, ErrorCode};
#[doc(hidden)]
pub use openai::{ReadChat, chat_body, completion_body};

use crate::alignment::Alignments;
use crate::config::Settings;
use crate::constraint::Grammars;
use crate::digest::Digest;
use crate::encoder::EncoderHandle;
use crate::engine::Engine;
use crate::jobs::Jobs;
use crate::limits;
use crate::persona::gate::Gate;
use crate::persona::{Personas, Serving};
use crate::probe::Prober;
use crate::steering::Library;
use crate::text::Text;
use crate::users::Users;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post};
use error::shown;
use keys::Keys;
use metrics::Metrics;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// What this build calls itself in fingerprints and metrics.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// What the routes need; shared by all requests.
pub struct Context {
    pub engine: Engine,
    pub text: Arc<Text>,
    pub library: Library,
    pub users: Users,
    pub personas: Personas,
    pub gate: Gate,
    pub prober: Prober,
    pub jobs: Jobs,
    pub alignments: Alignments,
    /// Compiles what answers must be.
    grammars: Grammars,
    /// Loaded when it is first needed.
    pub encoder: EncoderHandle,
    /// Name of the loaded model.
    pub model: String,
    /// When it was loaded, Unix seconds.
    pub created: u64,
    pub settings: Settings,
    /// Digest of the chat template's source.
    template: Digest,
    /// Places for uploads that are being read and checked.
    uploads: Arc<Semaphore>,
    /// The place of the embeddings request in work.
    embeddings: Semaphore,
    keys: Keys,
    metrics: Metrics,
}

/// What a context is made from.
pub struct Parts {
    pub engine: Engine,
    pub text: Arc<Text>,
    pub library: Library,
    pub encoder: EncoderHandle,
    pub users: Users,
    pub personas: Personas,
    pub gate: Gate,
    pub jobs: Jobs,
    pub alignments: Alignments,
    /// The name under which the loaded model answers; its aliases are in the settings.
    pub model: String,
    pub settings: Settings,
}

impl Context {
    pub fn new(parts: Parts) -> Context {
        let Parts {
            engine,
            text,
            library,
            encoder,
            users,
            personas,
            gate,
            jobs,
            alignments,
            model,
            settings,
        } = parts;
        let keys = Keys::new(&settings.api_keys);
        let prober = Prober::new(engine.clone(), text.clone(), jobs.clone(), gate.clone(), model.clone());
        Context {
            grammars: Grammars::new(text.tokenizer.clone()),
            template: Digest::of(text.template().source().as_bytes()),
            engine,
            text,
            library,
            users,
            personas,
            gate,
            prober,
            jobs,
            alignments,
            encoder,
            model,
            created: unix_seconds(),
            // From here on only the digests of keys are kept.
            settings: Settings { api_keys: Vec::new(), ..settings },
            uploads: Arc::new(Semaphore::new(limits::UPLOADS_AT_ONCE_MAX)),
            embeddings: Semaphore::new(1),
            keys,
            metrics: Metrics::default(),
        }
    }

    /// The model's name and its aliases, without repeats.
    fn names(&self) -> Vec<&str> {
        let mut names = vec![self.model.as_str()];
        for alias in &self.settings.aliases {
            if !names.contains(&alias.as_str()) {
                names.push(alias);
            }
        }
        names
    }

    /// What answers, for fingerprints.
    fn serving(&self) -> Serving<'_> {
        let info = self.engine.info();
        Serving {
            build: BUILD,
            arithmetic: &info.arithmetic,
            weights: info.weights_digest,
            template: self.template,
        }
    }

    /// How long a request waits for a vector that is being made.
    fn extract_wait(&self) -> Duration {
        Duration::from_secs_f32(self.settings.extract_wait_seconds.clamp(0.0, 3600.0))
    }

    /// Sequences of one request that run at once.
    fn running_max(&self) -> usize {
        self.settings.max_batch.max(1)
    }
}

/// The route table. Every route also answers without `/v1`.
const ROUTES: &[(&str, Route)] = &[
    ("/", Route::Root),
    ("/docs", Route::Docs),
    ("/metrics", Route::Metrics),
    ("/openapi.json", Route::OpenApi),
    ("/v1/activations", Route::Activations),
    ("/v1/align", Route::Align),
    ("/v1/chat/completions", Route::Chat),
    ("/v1/completions", Route::Completions),
    ("/v1/completion", Route::LlamaCompletion),
    ("/v1/responses", Route::Responses),
    ("/v1/props", Route::Props),
    ("/v1/embeddings", Route::Embeddings),
    ("/v1/models", Route::Models),
    ("/v1/models/{*id}", Route::Model),
    ("/v1/personas", Route::Personas),
    ("/v1/personas/{name}", Route::Persona),
    ("/v1/personas/{name}/card", Route::PersonaCard),
    ("/v1/probe", Route::Probe),
    ("/v1/probe/{persona}", Route::ProbeReport),
    ("/v1/score", Route::Score),
    ("/v1/soft_prompts", Route::SoftPrompts),
    ("/v1/soft_prompts/{name}", Route::SoftPrompt),
    ("/v1/soft_prompts/{name}/file", Route::SoftPromptFile),
    ("/v1/users", Route::Users),
    ("/v1/users/{id}", Route::User),
    ("/v1/users/{id}/history", Route::History),
    ("/v1/users/{id}/history/{item}", Route::HistoryItem),
    ("/v1/users/{id}/export", Route::UserExport),
    ("/v1/vectors", Route::Vectors),
    ("/v1/vectors/{name}", Route::Vector),
    ("/v1/vectors/{name}/file", Route::VectorFile),
    ("/v1/jobs", Route::Jobs),
    ("/v1/jobs/{id}", Route::Job),
    ("/v1/jobs/{id}/events", Route::JobEvents),
    ("/v1/traits", Route::Traits),
    ("/v1/traits/{name}", Route::Trait),
    ("/v1/tokenize", Route::Tokenize),
    ("/v1/detokenize", Route::Detokenize),
    ("/v1/apply-template", Route::ApplyTemplate),
    ("/v1/tokenizer_info", Route::TokenizerInfo),
    ("/v1/health", Route::Health),
    ("/v1/ready", Route::Ready),
    ("/v1/live", Route::Live),
];

#[derive(Clone, Copy)]
enum Route {
    Root,
    Docs,
    Metrics,
    OpenApi,
    Activations,
    Align,
    Chat,
    Completions,
    LlamaCompletion,
    Responses,
    Props,
    Embeddings,
    Models,
    Model,
    Personas,
    Persona,
    PersonaCard,
    Probe,
    ProbeReport,
    Score,
    SoftPrompts,
    SoftPrompt,
    SoftPromptFile,
    Users,
    User,
    History,
    HistoryItem,
    UserExport,
    Vectors,
    Vector,
    VectorFile,
    Jobs,
    Job,
    JobEvents,
    Traits,
    Trait,
    Tokenize,
    Detokenize,
    ApplyTemplate,
    TokenizerInfo,
    Health,
    Ready,
    Live,
}

impl Route {
    fn handler(self) -> MethodRouter<Arc<Context>> {
        match self {
            Route::Root => get(native::root),
            Route::Docs => get(openapi::docs),
            Route::Metrics => get(native::metrics),
            Route::OpenApi => get(openapi::openapi),
            Route::Activations => post(native::activations),
            Route::Align => post(native::align),
            Route::Chat => post(openai::chat),
            Route::Completions => post(openai::complete),
            Route::LlamaCompletion => post(openai::llama_completion),
            Route::Responses => post(openai::responses),
            Route::Props => get(native::props),
            Route::Embeddings => post(openai::embeddings),
            Route::Models => get(openai::models),
            Route::Model => get(openai::model),
            Route::Personas => get(native::list_personas).post(native::create_persona),
            Route::PersonaCard => get(native::show_card),
            Route::Persona => {
                get(native::show_persona).put(native::put_persona).delete(native::delete_persona)
            }
            Route::Probe => post(native::start_probe),
            Route::ProbeReport => get(native::show_report),
            Route::Score => post(native::score),
            Route::SoftPrompts => get(native::list_soft_prompts).post(native::upload_soft_prompt),
            Route::SoftPrompt => get(native::show_soft_prompt).delete(native::delete_soft_prompt),
            Route::SoftPromptFile => get(native::export_soft_prompt),
            Route::Users => get(native::list_users).post(native::create_user),
            Route::User => get(native::show_user).delete(native::delete_user),
            Route::History => get(native::list_history).post(native::add_history),
            Route::HistoryItem => delete(native::delete_item),
            Route::UserExport => get(native::export_user),
            Route::Vectors => get(native::list_vectors).post(native::upload_vector),
            Route::Vector => get(native::show_vector).delete(native::delete_vector),
            Route::VectorFile => get(native::export_vector),
            Route::Jobs => get(native::list_jobs),
            Route::Job => get(native::show_job).delete(native::cancel_job),
            Route::JobEvents => get(native::job_events),
            Route::Traits => get(native::list_traits),
            Route::Trait => get(native::show_trait),
            Route::Tokenize => post(native::tokenize),
            Route::Detokenize => post(native::detokenize),
            Route::ApplyTemplate => post(native::apply_template),
            Route::TokenizerInfo => get(native::tokenizer_info),
            Route::Health => get(native::health),
            Route::Ready => get(native::ready),
            Route::Live => get(native::live),
        }
    }
}

/// All routes with everything that stands before them.
pub fn router(context: Arc<Context>) -> Router {
    let mut router = Router::new();
    for &(path, route) in ROUTES {
        router = router.route(path, route.handler());
        if let Some(short) = path.strip_prefix("/v1") {
            router = router.route(short, route.handler());
        }
    }
    router
        .method_not_allowed_fallback(|method: Method| async move {
            ApiError::new(
                ErrorCode::MethodNotAllowed,
                format!("{} is not allowed on this route", shown(&method)),
            )
        })
        .fallback(|| async {
            ApiError::new(ErrorCode::RouteNotFound, "there is no such route; hint: `GET /docs` names all")
        })
        .layer(DefaultBodyLimit::max(limits::UPLOAD_BYTES_MAX))
        .layer(from_fn_with_state(context.clone(), layers::outermost))
        .with_state(context)
}

/// Fresh randomness of the system; on a system without, the clock.
fn random_u64() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
    })
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
