//! Makes what requests wait for: one thread that measures norms, extracts and calibrates, one task after the other.

use super::calibration;
use super::dose::Norms;
use super::error::SteeringError;
use super::extraction::{self, Progress};
use super::measure::Meter;
use super::norms;
use super::traits::Contrast;
use super::vector::{Calibration, Vector};
use crate::jobs::{JobInfo, Jobs, TrackedJob};
use crate::sync::lock;
use serde_json::json;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What is made of a loaded model. The engine's measurements in a server, a stand-in in tests.
pub trait Measures: Send + 'static {
    fn norms(&self) -> Result<Norms, SteeringError>;
    fn extract(
        &self,
        name: &str,
        contrasts: &[Contrast],
        norms: &Norms,
        progress: Progress<'_>,
    ) -> Result<Vector, SteeringError>;
    fn calibrate(&self, vector: &Vector, norms: &Norms) -> Result<Calibration, SteeringError>;
}

impl Measures for Meter {
    fn norms(&self) -> Result<Norms, SteeringError> {
        norms::measure(self)
    }

    fn extract(
        &self,
        name: &str,
        contrasts: &[Contrast],
        norms: &Norms,
        progress: Progress<'_>,
    ) -> Result<Vector, SteeringError> {
        extraction::extract(self, name, contrasts, norms, progress)
    }

    fn calibrate(&self, vector: &Vector, norms: &Norms) -> Result<Calibration, SteeringError> {
        calibration::calibrate(self, vector, norms)
    }
}

/// One thing to make.
#[derive(Clone, Debug)]
pub enum Task {
    Norms,
    Extract { name: String, contrasts: Arc<[Contrast]> },
    Calibrate { vector: Arc<Vector> },
}

/// Names a task: nothing is made twice at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Norms,
    Extract(String),
    Calibrate(String),
}

impl Task {
    pub fn key(&self) -> Key {
        match self {
            Task::Norms => Key::Norms,
            Task::Extract { name, .. } => Key::Extract(name.clone()),
            Task::Calibrate { vector } => Key::Calibrate(vector.name().to_owned()),
        }
    }
}

/// What a task made.
pub enum Made {
    Norms(Norms),
    Vector(Vector),
    Calibration { vector: Arc<Vector>, calibration: Calibration },
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// With a word on what is happening.
    Working(String),
    Done,
    Failed(SteeringError),
}

impl State {
    pub fn is_finished(&self) -> bool {
        !matches!(self, State::Working(_))
    }
}

/// A task on its way, as those who wait for it see it.
#[derive(Clone)]
pub struct Pending {
    pub state: watch::Receiver<State>,
    /// Extractions are jobs: this one as it was when it was asked for.
    pub job: Option<JobInfo>,
}

/// A task as the thread gets it.
struct Order {
    task: Task,
    state: watch::Sender<State>,
    job: Option<TrackedJob>,
}

/// Handle to the thread. It ends when the last handle is dropped.
pub struct Maker {
    sender: SyncSender<Order>,
    shared: Arc<Shared>,
    jobs: Jobs,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<BTreeMap<Key, Pending>>,
    /// Duration of the last task that was extracted.
    last: Mutex<Option<Duration>>,
}

impl Maker {
    /// Starts the thread. `keep` stores what was made and gives the norms that tasks need, if they are known.
    pub fn start(
        measures: impl Measures,
        waiting_max: usize,
        keep: impl Keep,
        jobs: Jobs,
    ) -> Result<Maker, SteeringError> {
        let (sender, receiver) = sync_channel::<Order>(waiting_max);
        let shared = Arc::new(Shared::default());
        let pending = shared.clone();
        let work = move || {
            for Order { task, state, job } in receiver {
                let started = Instant::now();
                let result = run(&measures, &keep, &task, &state, job.as_ref());
                if matches!(task, Task::Extract { .. }) && result.is_ok() {
                    *lock(&pending.last) = Some(started.elapsed());
                }
                // First the result is kept, then the task is forgotten, then waiters are told: nobody starts it again.
                lock(&pending.pending).remove(&task.key());
                if let (Some(job), Key::Extract(name)) = (job, task.key()) {
                    let made = result.as_ref().map(|()| json!({"vector": name}));
                    job.finish(made.map_err(|error| error.to_string()));
                }
                state.send_replace(result.map_or_else(State::Failed, |()| State::Done));
            }
        };
        std::thread::Builder::new()
            .name("steering".to_owned())
            .spawn(work)
            .map_err(|error| SteeringError::Internal(format!("cannot start a thread: {error}")))?;
        Ok(Maker { sender, shared, jobs })
    }

    /// Starts a task, or joins the one that is on its way. `None` when too many wait.
    pub fn request(&self, task: Task) -> Option<Pending> {
        let mut pending = lock(&self.shared.pending);
        let key = task.key();
        if let Some(found) = pending.get(&key) {
            return Some(found.clone());
        }
        let job = self.track(&task);
        let (state, receiver) = watch::channel(State::Working("waiting".to_owned()));
        let found = Pending { state: receiver, job: job.as_ref().map(TrackedJob::info) };
        match self.sender.try_send(Order { task, state, job }) {
            Ok(()) => {
                pending.insert(key, found.clone());
                Some(found)
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }

    /// The job of an extraction. A store that fails costs its visibility, not the vector.
    fn track(&self, task: &Task) -> Option<TrackedJob> {
        let Task::Extract { contrasts, .. } = task else { return None };
        let tracked = self.jobs.track("extract", None, Some(2 * contrasts.len() as u64));
        tracked.inspect_err(|error| tracing::warn!(%error, "an extraction is not among the jobs")).ok()
    }

    /// What a task on its way is doing.
    pub fn state(&self, key: &Key) -> Option<State> {
        lock(&self.shared.pending).get(key).map(|pending| pending.state.borrow().clone())
    }

    /// When a task asked for now may be ready.
    pub fn estimate(&self) -> Duration {
        let waiting = lock(&self.shared.pending).len().max(1) as u32;
        let one = lock(&self.shared.last).unwrap_or(Duration::from_secs(10));
        (one * waiting).clamp(Duration::from_secs(1), Duration::from_secs(120))
    }
}

/// Where results go.
pub trait Keep: Send + 'static {
    fn norms(&self) -> Option<Arc<Norms>>;
    fn keep(&self, made: Made);
}

fn run(
    measures: &impl Measures,
    keep: &impl Keep,
    task: &Task,
    state: &watch::Sender<State>,
    job: Option<&TrackedJob>,
) -> Result<(), SteeringError> {
    let progress = |done: u64, message: &str| {
        state.send_replace(State::Working(message.to_owned()));
        let Some(job) = job.map(TrackedJob::context) else { return Ok(()) };
        if job.cancelled() {
            return Err(SteeringError::Internal("its job was cancelled".to_owned()));
        }
        job.progress(done, None, message);
        Ok(())
    };
    if let Some(job) = job {
        job.begin();
    }
    let work = || -> Result<(), SteeringError> {
        let norms = match keep.norms() {
            Some(norms) => norms,
            None => {
                progress(0, "measuring the model's norms")?;
                let norms = measures.norms()?;
                keep.keep(Made::Norms(norms.clone()));
                Arc::new(norms)
            }
        };
        match task {
            Task::Norms => {}
            Task::Extract { name, contrasts } => {
                keep.keep(Made::Vector(measures.extract(name, contrasts, &norms, &progress)?));
            }
            Task::Calibrate { vector } => {
                progress(0, "calibrating")?;
                let calibration = measures.calibrate(vector, &norms)?;
                keep.keep(Made::Calibration { vector: vector.clone(), calibration });
            }
        }
        Ok(())
    };
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(SteeringError::Internal("a defect in the extraction; see the log".to_owned()))
    })
}
