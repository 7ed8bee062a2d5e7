//! Runs many sequences on one model: queue, scheduler, KV pages, prefix cache, sampler, worker thread. Knows token ids
//! and [`Edits`](crate::model::Edits); knows no text, names, users or HTTP.

mod request;

pub use request::*;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Handle to the engine thread; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    info: Arc<EngineInfo>,
    stats: Arc<EngineStats>,
}

/// What upper rooms may know of the loaded model.
#[derive(Clone, Debug)]
pub struct EngineInfo {
    pub architecture: String,
    pub n_blocks: u32,
    pub d_model: u32,
    pub n_heads: u32,
    pub d_head: u32,
    pub vocab_size: u32,
    /// Positions of one sequence.
    pub context: u32,
    /// Context the model was trained for.
    pub trained_context: u32,
    pub parameters: u64,
    /// Bytes of the weight file.
    pub file_bytes: u64,
    /// sha256 over the file's tensors and metadata: identifies the weights.
    pub weights_digest: crate::digest::Digest,
    /// Names the arithmetic (`cpu-int8`, `cpu-f32`); equal names and weights give equal bytes.
    pub arithmetic: String,
    /// Human-readable quantisation (`Q4_1`).
    pub quantisation: String,
    /// Instruction set in use (`avx512-vnni`).
    pub isa: String,
    pub threads: usize,
    pub max_batch: usize,
}

/// Counters and gauges, read by `/metrics` and tests.
#[derive(Default, Debug)]
pub struct EngineStats {
    pub steps_total: AtomicU64,
    /// Rows of all steps; divided by `steps_total` it is the mean number of rows per step.
    pub step_rows_total: AtomicU64,
    /// Sequences that had a row in a step, summed over steps.
    pub step_sequences_total: AtomicU64,
    pub steered_rows_total: AtomicU64,
    pub requests_running: AtomicU64,
    pub requests_waiting: AtomicU64,
    pub prompt_tokens_total: AtomicU64,
    pub generation_tokens_total: AtomicU64,
    pub prefix_cache_queries_tokens_total: AtomicU64,
    pub prefix_cache_hits_tokens_total: AtomicU64,
    pub kv_pages_total: AtomicU64,
    /// Pages held by running sequences (cached, unreferenced pages do not count).
    pub kv_pages_in_use: AtomicU64,
    pub preemptions_total: AtomicU64,
    pub cancelled_total: AtomicU64,
}

/// The receiving end of one request. Dropping it cancels the sequence within one step.
pub struct Events {
    receiver: tokio::sync::mpsc::UnboundedReceiver<Event>,
}

impl Events {
    /// The next event; `None` after `Done` or `Failed`.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }

    /// The same for threads outside the async runtime.
    pub fn next_blocking(&mut self) -> Option<Event> {
        self.receiver.blocking_recv()
    }
}

impl Engine {
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    pub fn stats(&self) -> &EngineStats {
        &self.stats
    }

    /// Checks a request and puts it into the queue. Refusals come at once.
    pub fn submit(&self, _request: Request) -> Result<Events, SubmitError> {
        todo!()
    }

    /// Takes no more requests; running ones go on.
    pub fn drain(&self) {
        todo!()
    }

    /// Whether a full queue or draining keeps requests out (`/ready`).
    pub fn accepts(&self) -> bool {
        todo!()
    }
}
