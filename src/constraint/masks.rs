//! Masks on their way: each is computed by a worker thread while the model computes the row that it is for.

use super::ConstraintError;
use super::error::{FAILED, cleaned};
use crate::sync::lock;
use llguidance::Matcher;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};

/// Threads that compute masks: two, so that one grammar with slow masks does not hold all others up.
const WORKERS: usize = 2;
const WORD_BITS: usize = u32::BITS as usize;

/// What an answer must be, ready to begin; cheap to clone.
#[derive(Clone)]
pub struct Constraint {
    /// Before the first token; only ever copied.
    start: Arc<Mutex<Matcher>>,
    workers: Workers,
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Constraint")
    }
}

impl Constraint {
    pub(super) fn new(start: Matcher, workers: Workers) -> Constraint {
        Constraint { start: Arc::new(Mutex::new(start)), workers }
    }

    /// Begins one answer: its first mask is on its way when this returns. `ready` is called, on another thread, whenever
    /// a mask has come.
    pub fn begin(&self, ready: impl Fn() + Send + Sync + 'static) -> Masks {
        let desk = Arc::new(Desk { done: Mutex::new(None), ready: Box::new(ready) });
        let masks = Masks { desk, workers: self.workers.clone(), matcher: None };
        masks.ask(Work::Begin(self.start.clone()));
        masks
    }
}

/// The tokens that may come next.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    /// Bit `id % 32` of word `id / 32` is set for each allowed token.
    words: Vec<u32>,
}

impl Mask {
    /// No token at all: the answer is complete, and the model has no token that says so.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub fn allows(&self, id: u32) -> bool {
        let word = self.words.get(id as usize / WORD_BITS).copied().unwrap_or(0);
        word >> (id as usize % WORD_BITS) & 1 == 1
    }

    /// The allowed tokens, ascending.
    pub fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        (0..(self.words.len() * WORD_BITS) as u32).filter(|id| self.allows(*id))
    }
}

/// The masks of one answer, one for each token and one for the end. Between two, the state is with a worker.
pub struct Masks {
    desk: Arc<Desk>,
    workers: Workers,
    /// Where the answer stands; `None` while a worker has it.
    matcher: Option<Matcher>,
}

/// What a worker made. Without a matcher the answer cannot go on, and the mask is an error.
type Done = (Option<Matcher>, Result<Mask, ConstraintError>);

/// Where a worker leaves it.
struct Desk {
    done: Mutex<Option<Done>>,
    ready: Box<dyn Fn() + Send + Sync>,
}

impl Masks {
    /// Whether [`Masks::take`] has something to give.
    pub fn is_ready(&self) -> bool {
        lock(&self.desk.done).is_some()
    }

    /// The mask of the next token; `None` while it is still being computed, and until the next [`Masks::advance`].
    pub fn take(&mut self) -> Option<Result<Mask, ConstraintError>> {
        let (matcher, mask) = lock(&self.desk.done).take()?;
        self.matcher = matcher;
        Some(mask)
    }

    /// The token was drawn: the next mask is computed from now on.
    pub fn advance(&mut self, token: u32) {
        if let Some(matcher) = self.matcher.take() {
            self.ask(Work::Advance(Box::new(matcher), token));
        }
    }

    fn ask(&self, work: Work) {
        // Workers live as long as somebody can ask them.
        let _ = self.workers.jobs.send(Job { work, desk: self.desk.clone() });
    }
}

enum Work {
    Begin(Arc<Mutex<Matcher>>),
    Advance(Box<Matcher>, u32),
}

struct Job {
    work: Work,
    desk: Arc<Desk>,
}

/// Handle to the threads that compute masks; they end with the last one.
#[derive(Clone)]
pub(super) struct Workers {
    jobs: mpsc::Sender<Job>,
}

impl Workers {
    pub fn start() -> std::io::Result<Workers> {
        let (jobs, incoming) = mpsc::channel::<Job>();
        let incoming = Arc::new(Mutex::new(incoming));
        for number in 0..WORKERS {
            let incoming = incoming.clone();
            std::thread::Builder::new().name(format!("mask-{number}")).spawn(move || {
                loop {
                    let job = lock(&incoming).recv();
                    let Ok(Job { work, desk }) = job else { return };
                    // The other holder is whoever waits; it may be gone.
                    if Arc::strong_count(&desk) > 1 {
                        let done = work.run();
                        *lock(&desk.done) = Some(done);
                        (desk.ready)();
                    }
                }
            })?;
        }
        Ok(Workers { jobs })
    }
}

impl Work {
    fn run(self) -> Done {
        let next = catch_unwind(AssertUnwindSafe(|| {
            let (mut matcher, token) = match self {
                // Copies share nothing, so no answer's limits depend on another's.
                Work::Begin(start) => (lock(&start).deep_clone(), None),
                Work::Advance(matcher, token) => (*matcher, Some(token)),
            };
            let mask = next_mask(&mut matcher, token);
            (Some(matcher), mask)
        }));
        next.unwrap_or_else(|_| (None, Err(ConstraintError::TooComplex(FAILED.to_owned()))))
    }
}

fn next_mask(matcher: &mut Matcher, token: Option<u32>) -> Result<Mask, ConstraintError> {
    let complex = |error: String| ConstraintError::TooComplex(cleaned(&error));
    if let Some(token) = token {
        matcher.consume_token(token).map_err(|error| complex(error.to_string()))?;
    }
    let mask = matcher.compute_mask_or_eos().map_err(|error| complex(error.to_string()))?;
    Ok(Mask { words: mask.as_slice().to_vec() })
}
