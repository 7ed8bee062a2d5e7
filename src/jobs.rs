//! Long work under one roof: queue, progress, cancel, and "interrupted" after a restart. Runs closures; knows no domain.
//!
//! [`Jobs::start`] queues a closure for the jobs' own thread, one at a time. [`Jobs::track`] follows work that another
//! thread does. Both are told of and cancelled alike. A job is in the store before its number is given out; its progress
//! is written down at most once a second.

use crate::limits;
use crate::store::{JobRow, Store, StoreError, Tenant};
use crate::sync::{lock, wait};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often progress is written down.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Where a job is in its life. `Queued` -> `Running` -> one of the others, which are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
    /// Its process ended before it did.
    Interrupted,
}

impl JobState {
    const NAMES: [(JobState, &str); 6] = [
        (JobState::Queued, "queued"),
        (JobState::Running, "running"),
        (JobState::Done, "done"),
        (JobState::Failed, "failed"),
        (JobState::Cancelled, "cancelled"),
        (JobState::Interrupted, "interrupted"),
    ];

    pub fn name(self) -> &'static str {
        JobState::NAMES.iter().find(|(state, _)| *state == self).map_or("failed", |(_, name)| name)
    }

    /// A state that this build does not know is over.
    fn parse(text: &str) -> JobState {
        JobState::NAMES
            .iter()
            .find(|(_, name)| *name == text)
            .map_or(JobState::Interrupted, |(state, _)| *state)
    }

    pub fn is_final(self) -> bool {
        !matches!(self, JobState::Queued | JobState::Running)
    }
}

/// A job as it is told of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobInfo {
    /// `job-12`.
    pub id: String,
    pub kind: String,
    pub state: JobState,
    /// Steps done, of `total` where that is known.
    pub done: u64,
    pub total: Option<u64>,
    /// What is happening, or why it ended.
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Unix seconds.
    pub created: i64,
}

impl JobInfo {
    fn of(row: JobRow) -> JobInfo {
        JobInfo {
            id: format!("job-{}", row.id),
            kind: row.kind,
            state: JobState::parse(&row.state),
            done: row.done.max(0) as u64,
            total: row.total.map(|total| total.max(0) as u64),
            message: row.message,
            result: row.result,
            error: row.error,
            created: row.created,
        }
    }

    fn row(&self, id: i64) -> JobRow {
        JobRow {
            id,
            kind: self.kind.clone(),
            state: self.state.name().to_owned(),
            done: self.done as i64,
            total: self.total.map(|total| total as i64),
            message: self.message.clone(),
            result: self.result.clone(),
            error: self.error.clone(),
            created: self.created,
        }
    }
}

/// `job-12` -> 12.
fn number(id: &str) -> Option<i64> {
    let digits = id.strip_prefix("job-")?;
    // One spelling each: no signs, no leading zeros.
    digits.parse().ok().filter(|number: &i64| *number > 0 && number.to_string() == digits)
}

/// Why a job was not started or found.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JobsError {
    #[error("{waiting} jobs wait; at most {max} may; try again when one has ended")]
    Full { waiting: usize, max: usize },
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Work = Box<dyn FnOnce(&JobContext) -> Result<Value, String> + Send>;

/// All jobs of a data folder. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub struct Jobs {
    handle: Arc<Handle>,
}

/// Dropped with the last clone.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.queued.notify_all();
    }
}

struct Shared {
    store: Store,
    queue: Mutex<Queue>,
    queued: Condvar,
    /// Jobs that are not over yet, by number.
    live: Mutex<BTreeMap<i64, Arc<Live>>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(TrackedJob, Work)>,
    /// Starts that have a place and are being written down.
    starting: usize,
    closed: bool,
}

/// A job that is not over.
struct Live {
    number: i64,
    info: watch::Sender<JobInfo>,
    cancelled: AtomicBool,
    /// When its progress was last written down.
    written: Mutex<Instant>,
}

impl Jobs {
    /// Opens the jobs of a store. What was unfinished when the last process ended is interrupted now.
    pub fn open(store: Store) -> Result<Jobs, JobsError> {
        store.interrupt_jobs()?;
        let shared = Arc::new(Shared {
            store,
            queue: Mutex::default(),
            queued: Condvar::new(),
            live: Mutex::default(),
        });
        let worker = shared.clone();
        std::thread::Builder::new().name("jobs".to_owned()).spawn(move || worker.work()).map_err(
            |error| StoreError::Failed { action: "start a thread".to_owned(), detail: error.to_string() },
        )?;
        Ok(Jobs { handle: Arc::new(Handle { shared }) })
    }

    /// Queues `work` and returns its job, which is in the store by then.
    pub fn start(
        &self,
        kind: &str,
        total: Option<u64>,
        work: impl FnOnce(&JobContext) -> Result<Value, String> + Send + 'static,
    ) -> Result<JobInfo, JobsError> {
        self.start_for(kind, None, total, work)
    }

    /// As [`Jobs::start`], for an owner (`user:ID`): the job goes when the user is deleted.
    pub fn start_for(
        &self,
        kind: &str,
        subject: Option<&str>,
        total: Option<u64>,
        work: impl FnOnce(&JobContext) -> Result<Value, String> + Send + 'static,
    ) -> Result<JobInfo, JobsError> {
        let shared = &self.handle.shared;
        {
            let mut queue = lock(&shared.queue);
            let waiting = queue.waiting.len() + queue.starting;
            if waiting >= limits::JOBS_WAITING_MAX {
                return Err(JobsError::Full { waiting, max: limits::JOBS_WAITING_MAX });
            }
            queue.starting += 1;
        }
        let tracked = self.track(kind, subject, total);
        let mut queue = lock(&shared.queue);
        queue.starting -= 1;
        let tracked = tracked?;
        let info = tracked.info();
        queue.waiting.push_back((tracked, Box::new(work)));
        shared.queued.notify_one();
        Ok(info)
    }

    /// A job whose work another thread does and reports.
    pub fn track(
        &self,
        kind: &str,
        subject: Option<&str>,
        total: Option<u64>,
    ) -> Result<TrackedJob, JobsError> {
        let shared = &self.handle.shared;
        let row =
            shared.store.create_job(&Tenant::local(), kind, subject, total.map(|total| total as i64))?;
        let number = row.id;
        let (info, _) = watch::channel(JobInfo::of(row));
        let live = Arc::new(Live {
            number,
            info,
            cancelled: AtomicBool::new(false),
            written: Mutex::new(Instant::now()),
        });
        lock(&shared.live).insert(number, live.clone());
        Ok(TrackedJob { context: JobContext { live, shared: shared.clone() } })
    }

    /// How a job stands now.
    pub fn get(&self, id: &str) -> Result<Option<JobInfo>, JobsError> {
        let Some(number) = number(id) else { return Ok(None) };
        if let Some(live) = lock(&self.handle.shared.live).get(&number) {
            return Ok(Some(live.info.borrow().clone()));
        }
        Ok(self.handle.shared.store.job(&Tenant::local(), number)?.map(JobInfo::of))
    }

    /// All jobs that are known, newest first.
    pub fn list(&self) -> Result<Vec<JobInfo>, JobsError> {
        let shared = &self.handle.shared;
        let rows = shared.store.jobs(&Tenant::local())?;
        let live = lock(&shared.live);
        let now = |row: JobRow| match live.get(&row.id) {
            Some(live) => live.info.borrow().clone(),
            None => JobInfo::of(row),
        };
        Ok(rows.into_iter().map(now).collect())
    }

    /// Asks a job to end. One that waits is cancelled at once, one that runs as soon as it looks; one that is over
    /// stays as it is. Returns how it stands.
    pub fn cancel(&self, id: &str) -> Result<Option<JobInfo>, JobsError> {
        let Some(number) = number(id) else { return Ok(None) };
        let shared = &self.handle.shared;
        let live = lock(&shared.live).get(&number).cloned();
        if let Some(live) = live {
            live.cancelled.store(true, Ordering::Release);
            let waiting = {
                let mut queue = lock(&shared.queue);
                let index = queue.waiting.iter().position(|(job, _)| job.context.live.number == number);
                index.and_then(|index| queue.waiting.remove(index))
            };
            match waiting {
                Some((job, _)) => job.finish(Err("cancelled before it began".to_owned())),
                None => shared.show(&live, false, |info| info.message = "being cancelled".to_owned()),
            }
        }
        self.get(id)
    }

    /// Every change of a job from now on; the last value is final.
    pub fn watch(&self, id: &str) -> Result<Option<watch::Receiver<JobInfo>>, JobsError> {
        let Some(number) = number(id) else { return Ok(None) };
        if let Some(live) = lock(&self.handle.shared.live).get(&number) {
            return Ok(Some(live.info.subscribe()));
        }
        Ok(self.get(id)?.map(|info| watch::channel(info).1))
    }
}

impl Shared {
    /// The jobs' own thread.
    fn work(&self) {
        loop {
            let (job, work) = {
                let mut queue = lock(&self.queue);
                loop {
                    if queue.closed {
                        let waiting = std::mem::take(&mut queue.waiting);
                        drop(queue);
                        return drop(waiting);
                    }
                    match queue.waiting.pop_front() {
                        Some(next) => break next,
                        None => queue = wait(&self.queued, queue),
                    }
                }
            };
            job.begin();
            let run = || work(job.context());
            let result = catch_unwind(AssertUnwindSafe(run))
                .unwrap_or_else(|_| Err("a defect in the job; see the log".to_owned()));
            job.finish(result);
        }
    }

    /// Changes what is told of a job; written down when `now`, or when the last time is long enough ago.
    fn show(&self, live: &Live, now: bool, change: impl FnOnce(&mut JobInfo)) {
        live.info.send_if_modified(|info| {
            // What is over does not change any more.
            let open = !info.state.is_final();
            if open {
                change(info);
            }
            open
        });
        let due = {
            let mut written = lock(&live.written);
            let due = now || written.elapsed() >= WRITE_EVERY;
            if due {
                *written = Instant::now();
            }
            due
        };
        if due {
            let row = live.info.borrow().row(live.number);
            if let Err(error) = self.store.update_job(&Tenant::local(), &row) {
                tracing::warn!(%error, job = live.number, "a job's state could not be stored");
            }
        }
    }
}

/// What a job's work sees of it.
pub struct JobContext {
    live: Arc<Live>,
    shared: Arc<Shared>,
}

impl JobContext {
    /// Tells how far the work is. `total` replaces the one given at the start.
    pub fn progress(&self, done: u64, total: Option<u64>, message: &str) {
        self.shared.show(&self.live, false, |info| {
            info.done = done;
            info.total = total.or(info.total);
            info.message = message.to_owned();
        });
    }

    /// Whether somebody asked it to end; the work then returns an error soon.
    pub fn cancelled(&self) -> bool {
        self.live.cancelled.load(Ordering::Acquire)
    }

    pub fn info(&self) -> JobInfo {
        self.live.info.borrow().clone()
    }
}

/// A job whose work is done elsewhere. Dropped without an end it has failed.
pub struct TrackedJob {
    context: JobContext,
}

impl TrackedJob {
    pub fn context(&self) -> &JobContext {
        &self.context
    }

    pub fn info(&self) -> JobInfo {
        self.context.info()
    }

    /// The work begins.
    pub fn begin(&self) {
        let JobContext { live, shared } = &self.context;
        shared.show(live, true, |info| info.state = JobState::Running);
    }

    /// The work is over. An error after somebody asked for the end counts as cancelled.
    pub fn finish(self, result: Result<Value, String>) {
        let cancelled = self.context.cancelled();
        self.context.shared.end(&self.context.live, |info| match result {
            Ok(value) => {
                info.state = JobState::Done;
                info.done = info.total.unwrap_or(info.done);
                info.message = String::new();
                info.result = Some(value);
            }
            Err(why) => {
                info.state = if cancelled { JobState::Cancelled } else { JobState::Failed };
                info.message = if cancelled { "cancelled".to_owned() } else { String::new() };
                info.error = (!cancelled).then_some(why);
            }
        });
    }
}

impl Shared {
    /// First the end is written down, then watchers see it, so that a job that is told to be done stays done.
    fn end(&self, live: &Live, change: impl FnOnce(&mut JobInfo)) {
        let mut last = live.info.borrow().clone();
        if last.state.is_final() {
            return;
        }
        change(&mut last);
        if let Err(error) = self.store.update_job(&Tenant::local(), &last.row(live.number)) {
            tracing::warn!(%error, job = live.number, "a job's end could not be stored");
        }
        live.info.send_replace(last);
        lock(&self.live).remove(&live.number);
    }
}

impl Drop for TrackedJob {
    fn drop(&mut self) {
        self.context.shared.end(&self.context.live, |info| {
            info.state = JobState::Interrupted;
            info.message = "ended without a result".to_owned();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Folder;
    use serde_json::json;
    use std::sync::mpsc::channel;

    fn open(folder: &Folder) -> (Store, Jobs) {
        let store = Store::open(&folder.0).unwrap();
        let jobs = Jobs::open(store.clone()).unwrap();
        (store, jobs)
    }

    /// Waits until a job is over.
    fn wait(jobs: &Jobs, id: &str) -> JobInfo {
        let mut receiver = jobs.watch(id).unwrap().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let last = runtime.block_on(receiver.wait_for(|info| info.state.is_final())).unwrap().clone();
        assert_eq!(jobs.get(id).unwrap(), Some(last.clone()));
        last
    }

    #[test]
    fn jobs_run_in_order_and_tell_how_far_they_are() {
        let folder = Folder::new("jobs");
        let (_store, jobs) = open(&folder);
        let (go, gate) = channel::<()>();
        let first = jobs
            .start("train", Some(3), move |job| {
                job.progress(1, None, "one");
                gate.recv().map_err(|error| error.to_string())?;
                Ok(json!({"loss": 0.5}))
            })
            .unwrap();
        assert_eq!((first.id.as_str(), first.state, first.total), ("job-1", JobState::Queued, Some(3)));
        let second = jobs.start("train", None, |_| Err("no luck".to_owned())).unwrap();
        let third = jobs.start("train", None, |_| panic!("on purpose")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut watch = jobs.watch(&first.id).unwrap().unwrap();
        let running = runtime.block_on(watch.wait_for(|info| info.done == 1)).unwrap().clone();
        assert_eq!((running.state, running.message.as_str()), (JobState::Running, "one"));
        assert_eq!(jobs.get(&second.id).unwrap().unwrap().state, JobState::Queued, "one at a time");
        go.send(()).unwrap();
        let done = wait(&jobs, &first.id);
        assert_eq!((done.state, done.done, done.result), (JobState::Done, 3, Some(json!({"loss": 0.5}))));
        let failed = wait(&jobs, &second.id);
        assert_eq!((failed.state, failed.error.as_deref()), (JobState::Failed, Some("no luck")));
        let failed = wait(&jobs, &third.id);
        assert!(failed.state == JobState::Failed && failed.error.unwrap().contains("defect"));
        let ids: Vec<_> = jobs.list().unwrap().into_iter().map(|job| job.id).collect();
        assert_eq!(ids, ["job-3", "job-2", "job-1"]);
        for id in ["job-4", "job-01", "job-+1", "job--1", "1", "", "job-99999999999999999999"] {
            assert_eq!(jobs.get(id).unwrap(), None, "{id}");
            assert!(jobs.cancel(id).unwrap().is_none() && jobs.watch(id).unwrap().is_none());
        }
    }

    #[test]
    fn jobs_are_cancelled_waiting_or_running() {
        let folder = Folder::new("cancel");
        let (_store, jobs) = open(&folder);
        let (begun, gate) = channel::<()>();
        let running = jobs
            .start("train", None, move |job| {
                begun.send(()).map_err(|error| error.to_string())?;
                while !job.cancelled() {
                    std::thread::yield_now();
                }
                Err("stopped".to_owned())
            })
            .unwrap();
        gate.recv().unwrap();
        let waiting = jobs.start("train", None, |_| Ok(json!(1))).unwrap();
        let cancelled = jobs.cancel(&waiting.id).unwrap().unwrap();
        assert_eq!((cancelled.state, cancelled.error), (JobState::Cancelled, None));
        jobs.cancel(&running.id).unwrap();
        assert_eq!(wait(&jobs, &running.id).state, JobState::Cancelled);
        let done = jobs.start("train", None, |_| Ok(json!(1))).unwrap();
        wait(&jobs, &done.id);
        assert_eq!(jobs.cancel(&done.id).unwrap().unwrap().state, JobState::Done, "over is over");
    }

    #[test]
    fn too_many_are_refused() {
        let folder = Folder::new("queue");
        let (_store, jobs) = open(&folder);
        let (go, gate) = channel::<()>();
        let (begun, started) = channel::<()>();
        jobs.start("train", None, move |_| {
            drop(begun);
            gate.recv().map(|()| json!(1)).map_err(|error| error.to_string())
        })
        .unwrap();
        assert!(started.recv().is_err(), "the first one runs");
        for _ in 0..limits::JOBS_WAITING_MAX {
            jobs.start("train", None, |_| Ok(json!(1))).unwrap();
        }
        assert!(matches!(jobs.start("train", None, |_| Ok(json!(1))), Err(JobsError::Full { .. })));
        go.send(()).unwrap();
    }

    #[test]
    fn unfinished_jobs_are_interrupted_by_a_restart() {
        let folder = Folder::new("restart");
        let store = Store::open(&folder.0).unwrap();
        // As a killed process leaves it: a row that says "running" and nobody who works on it.
        let mut row = store.create_job(&Tenant::local(), "train", None, Some(9)).unwrap();
        (row.state, row.done) = ("running".to_owned(), 4);
        store.update_job(&Tenant::local(), &row).unwrap();
        drop(store);
        let (_store, jobs) = open(&folder);
        let found = jobs.get("job-1").unwrap().unwrap();
        assert_eq!((found.state, found.done, found.total), (JobState::Interrupted, 4, Some(9)));
        let next = jobs.start("train", None, |_| Ok(json!(1))).unwrap();
        assert_eq!(next.id, "job-2");
        assert_eq!(wait(&jobs, "job-2").state, JobState::Done);
    }

    #[test]
    fn tracked_work_that_vanishes_is_no_success() {
        let folder = Folder::new("tracked");
        let (_store, jobs) = open(&folder);
        let tracked = jobs.track("extract", Some("user:u1"), None).unwrap();
        let id = tracked.info().id;
        tracked.begin();
        tracked.context().progress(1, Some(2), "half");
        assert_eq!(jobs.get(&id).unwrap().unwrap().total, Some(2));
        drop(tracked);
        assert_eq!(jobs.get(&id).unwrap().unwrap().state, JobState::Interrupted);
        let json = serde_json::to_value(jobs.get(&id).unwrap()).unwrap();
        assert_eq!(json["state"], "interrupted");
    }
}
