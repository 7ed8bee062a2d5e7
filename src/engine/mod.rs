//! Runs many sequences on one model: queue, scheduler, KV pages, prefix cache, sampler, worker thread. Knows token ids
//! and [`Edits`](crate::model::Edits); knows no text, names, users or HTTP.

mod budget;
mod drafts;
mod in_order;
mod keys;
mod pages;
mod request;
mod sampler;
mod score;
mod sequence;
#[cfg(test)]
mod tests;
mod worker;

pub use request::*;

use crate::constraint::Masks;
use crate::digest::Digest;
use crate::limits;
use crate::model::{EmbeddingFacts, HeadOutputs, Model};
use sequence::Sequence;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Handle to the engine thread; cheap to clone. The thread ends when the last handle is gone and all work is done.
#[derive(Clone)]
pub struct Engine {
    info: Arc<EngineInfo>,
    stats: Arc<EngineStats>,
    heads: HeadOutputs,
    incoming: mpsc::Sender<Incoming>,
    queue: u64,
}

/// What handles send to the engine thread, answered in this order.
enum Incoming {
    Run(Box<Sequence>),
    /// A mask has come that a sequence may be waiting for.
    MaskReady,
    /// Runs between two steps.
    Ask(Box<dyn FnOnce(&mut worker::Worker) + Send>),
}

/// How the engine schedules.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Serving sequences that run at once.
    pub max_batch: usize,
    /// Serving requests that may wait.
    pub queue: usize,
    /// Time that a step with prefill rows should take.
    pub step_budget_ms: f32,
    /// Guessed tokens that a step may check for a sequence that decodes alone; 0: none. Only for models whose rows do not depend on their
    /// neighbours: there, guesses change the time of an answer and no byte of it.
    pub draft_max: usize,
}

/// What upper rooms may know of the loaded model.
#[derive(Clone, Debug, Default)]
pub struct EngineInfo {
    pub architecture: String,
    pub n_blocks: u32,
    pub d_model: u32,
    pub n_heads: u32,
    pub d_head: u32,
    pub vocab_size: u32,
    /// What is natural for rows of input embeddings.
    pub embedding: Arc<EmbeddingFacts>,
    /// Positions of one sequence.
    pub context: u32,
    /// Context the model was trained for.
    pub trained_context: u32,
    pub parameters: u64,
    /// Bytes of the weight file.
    pub file_bytes: u64,
    /// sha256 over the file's tensors and metadata: identifies the weights.
    pub weights_digest: Digest,
    /// Names the arithmetic (`cpu-int8`, `cpu-f32`); equal names and weights give equal bytes.
    pub arithmetic: String,
    /// Human-readable quantisation (`Q4_1`).
    pub quantisation: String,
    /// Instruction set in use (`amx-int8`).
    pub isa: String,
    pub threads: usize,
    pub max_batch: usize,
}

/// Counters and gauges, read by `/metrics` and tests.
#[derive(Default, Debug)]
pub struct EngineStats {
    /// Serving sequences submitted and not yet ended, waiting ones included.
    pub inside: AtomicU64,
    /// The same for sequences of jobs.
    pub jobs_inside: AtomicU64,
    pub steps_total: AtomicU64,
    /// Rows of all steps; divided by `steps_total` it is the mean number of rows per step.
    pub step_rows_total: AtomicU64,
    /// Sequences that had a row in a step, summed over steps.
    pub step_sequences_total: AtomicU64,
    pub steered_rows_total: AtomicU64,
    /// Different plans among the running sequences.
    pub plans_active: AtomicU64,
    pub requests_running: AtomicU64,
    pub requests_waiting: AtomicU64,
    pub prompt_tokens_total: AtomicU64,
    pub generation_tokens_total: AtomicU64,
    /// Guessed tokens that had a row in a step, and those of them that were drawn.
    pub draft_tokens_total: AtomicU64,
    pub draft_accepted_tokens_total: AtomicU64,
    /// Draws that had to wait for the mask of their constraint.
    pub mask_waits_total: AtomicU64,
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

    /// What directions of single heads are at `attn[l]`.
    pub fn heads(&self) -> &HeadOutputs {
        &self.heads
    }

    pub fn stats(&self) -> &EngineStats {
        &self.stats
    }

    /// Starts the engine thread on a loaded model.
    pub fn start(model: Model, info: EngineInfo, options: EngineOptions) -> std::io::Result<Engine> {
        let stats = Arc::new(EngineStats::default());
        let (sender, receiver) = mpsc::channel();
        let queue = (options.queue + options.max_batch) as u64;
        let worker_stats = stats.clone();
        let heads = model.head_outputs();
        std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || worker::Worker::new(model, options, worker_stats, receiver).run())?;
        Ok(Engine { info: Arc::new(info), stats, heads, incoming: sender, queue })
    }

    /// Checks a request and puts it into the queue. Refusals come at once.
    pub fn submit(&self, request: Request) -> Result<Events, SubmitError> {
        self.check(&request)?;
        let guard = InsideGuard::new(&self.stats, request.priority);
        let room = match request.priority {
            Priority::Serving => self.queue,
            Priority::Job => limits::QUEUED_JOBS_MAX,
        };
        if guard.before >= room {
            let waiting = self.stats.requests_waiting.load(Relaxed) as u32;
            // A queue of 64 short answers takes a few seconds; clients that obey come back spread out.
            let retry_after = Duration::from_secs(u64::from(waiting / 16).clamp(1, 60));
            return Err(SubmitError::Full { waiting, retry_after });
        }
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let masks = self.masks(&request);
        let sequence = Sequence::new(request, sender, Instant::now(), guard, masks);
        self.incoming.send(Incoming::Run(Box::new(sequence))).map_err(|_| SubmitError::Stopped)?;
        Ok(Events { receiver })
    }

    /// The masks of a constrained request; the first one is on its way at once. Each that comes wakes the engine thread.
    fn masks(&self, request: &Request) -> Option<Masks> {
        let Want::Generate(Generate { constraint: Some(constraint), .. }) = &request.want else {
            return None;
        };
        let incoming = self.incoming.clone();
        Some(constraint.begin(move || {
            let _ = incoming.send(Incoming::MaskReady);
        }))
    }

    /// Ends the running and waiting sequences of `owner` with [`SequenceError::OwnerDeleted`] and clears every page of the
    /// KV cache that holds rows of theirs. Sequences of this owner that are submitted later end in the same way. Takes at
    /// most a step; other sequences go on unchanged. Blocks: for threads outside the async runtime.
    pub fn forget(&self, owner: Digest) -> Forgotten {
        // Without an engine thread there are no pages either.
        self.ask(move |worker| worker.forget(owner)).blocking_recv().unwrap_or_default()
    }

    /// Pages of the KV cache in which rows of `owner` stand, free ones that were not cleared included. Blocks; for tests
    /// and audits.
    pub fn owner_pages(&self, owner: Digest) -> usize {
        self.ask(move |worker| worker.pages_of(owner)).blocking_recv().unwrap_or_default()
    }

    /// Pages of the KV cache that have a byte other than zero: what a scan of the memory finds. Blocks, and holds the
    /// engine up meanwhile.
    #[cfg(test)]
    pub fn nonzero_pages(&self) -> usize {
        self.ask(|worker| worker.nonzero_pages()).blocking_recv().unwrap_or_default()
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut worker::Worker) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let ask = move |worker: &mut worker::Worker| {
            let _ = sender.send(question(worker));
        };
        // A thread that is gone drops the sender: the receiver says so.
        let _ = self.incoming.send(Incoming::Ask(Box::new(ask)));
        receiver
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        let info = &self.info;
        if request.prompt.is_empty() {
            return Err(SubmitError::Empty);
        }
        if request.soft_at as usize > request.prompt.len() {
            return Err(SubmitError::Shape(format!(
                "soft rows at token {} of {}",
                request.soft_at,
                request.prompt.len()
            )));
        }
        let empty = Vec::new();
        let (continuations, room) = match &request.want {
            Want::Generate(generate) => (&empty, u32::from(generate.tokens_max > 0)),
            Want::Score(continuations) => (continuations, 0),
            Want::Capture(capture) => {
                if let Some(block) = capture.spec.resid.iter().find(|block| **block >= info.n_blocks) {
                    let blocks = info.n_blocks;
                    return Err(SubmitError::Shape(format!(
                        "capture at block {block}; the model has {blocks}"
                    )));
                }
                let exists = |(l, h): &(u32, u32)| *l < info.n_blocks && *h < info.n_heads;
                if let Some((l, h)) = capture.spec.heads.iter().find(|head| !exists(head)) {
                    let (blocks, heads) = (info.n_blocks, info.n_heads);
                    return Err(SubmitError::Shape(format!(
                        "capture at head {h} of block {l}; the model has {blocks} blocks of {heads} heads"
                    )));
                }
                (&empty, 0)
            }
        };
        let ids = request.prompt.iter().chain(continuations.iter().flatten());
        if let Some(id) = ids.copied().find(|id| *id >= info.vocab_size) {
            return Err(SubmitError::UnknownToken { id, vocab_size: info.vocab_size });
        }
        let longest = continuations.iter().map(Vec::len).max().unwrap_or(0);
        let tokens = (request.prompt.len() + request.soft.len() + longest) as u64 + u64::from(room);
        if tokens > u64::from(info.context) {
            return Err(SubmitError::TooLong {
                tokens: tokens.min(u64::from(u32::MAX)) as u32,
                context: info.context,
            });
        }
        if !request.soft.is_empty() && request.soft.width() != info.d_model as usize {
            let (given, wanted) = (request.soft.width(), info.d_model);
            return Err(SubmitError::Shape(format!("soft rows of width {given}; the model has {wanted}")));
        }
        let blocks = request.edits.blocks.len();
        if blocks != 0 && blocks != info.n_blocks as usize {
            return Err(SubmitError::Shape(format!(
                "edits for {blocks} blocks; the model has {}",
                info.n_blocks
            )));
        }
        Ok(())
    }

    /// Whether a new serving request would be taken (`/ready`).
    pub fn accepts(&self) -> bool {
        self.stats.inside.load(Relaxed) < self.queue
    }
}

/// Counts a sequence as inside the engine for as long as it exists.
struct InsideGuard {
    stats: Arc<EngineStats>,
    priority: Priority,
    /// Sequences of this priority that were inside before.
    before: u64,
}

impl InsideGuard {
    fn new(stats: &Arc<EngineStats>, priority: Priority) -> InsideGuard {
        let before = stats.inside(priority).fetch_add(1, Relaxed);
        InsideGuard { stats: stats.clone(), priority, before }
    }
}

impl Drop for InsideGuard {
    fn drop(&mut self) {
        self.stats.inside(self.priority).fetch_sub(1, Relaxed);
    }
}

impl EngineStats {
    fn inside(&self, priority: Priority) -> &AtomicU64 {
        match priority {
            Priority::Serving => &self.inside,
            Priority::Job => &self.jobs_inside,
        }
    }
}
