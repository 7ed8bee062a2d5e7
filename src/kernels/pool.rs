//! A fixed set of threads that share the tasks of one kernel call.

use crate::sync::{lock, wait};
use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two kernels of one step a worker waits so long without sleeping: a step's next kernel comes within
/// microseconds, and an idle server must cost nothing.
const SPIN: Duration = Duration::from_micros(50);

/// Set in [`Shared::state`] while a job takes workers.
const OPEN: u64 = 1 << 31;
/// The workers inside the job, in the low bits of [`Shared::state`].
const INSIDE: u64 = OPEN - 1;
/// One job more, in the high bits of [`Shared::state`].
const JOB: u64 = 1 << 32;

type Work = dyn Fn(usize) + Sync;

struct Shared {
    /// Number of the job (high 32 bits), [`OPEN`], and how many workers are inside.
    state: AtomicU64,
    /// Written by the caller while the job is closed and nobody is inside, read by workers inside.
    work: UnsafeCell<Option<*const Work>>,
    tasks: AtomicUsize,
    next: AtomicUsize,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
}

// SAFETY: `work` is written only while nobody is inside (see `run`) and points to a `Sync` closure that outlives the job.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for Shared {}

/// Threads that live as long as this value. The caller of [`Pool::run`] is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a job runs; a second caller, or a task that calls `run` itself, does its work alone.
    busy: Mutex<()>,
}

impl Pool {
    /// `threads` counts the caller; 0 is taken as 1. Threads that cannot be started are done without.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            work: UnsafeCell::new(None),
            tasks: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let start = |index: usize| {
            let shared = Arc::clone(&shared);
            let name = format!("kernel-{index}");
            std::thread::Builder::new().name(name).spawn(move || shared.serve()).ok()
        };
        let workers = (1..threads).filter_map(start).collect();
        Pool { shared, workers, busy: Mutex::new(()) }
    }

    /// Threads that take part in a run, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(i)` once for each `i < tasks`, in any order, on all threads; returns when all are done. A panic in a
    /// task is raised again here; tasks not begun by then are left out.
    pub fn run(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        let alone = tasks <= 1 || self.workers.is_empty();
        let guard = if alone { None } else { try_lock(&self.busy) };
        let Some(_guard) = guard else {
            return (0..tasks).for_each(work);
        };
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Workers use the pointer only while inside, and `close` below returns when
        // nobody is inside any more and nobody can enter.
        let erased: &'static Work =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Work>(work) };
        // SAFETY: the last job is closed, nobody is inside it, and `busy` keeps other callers out.
        unsafe { *shared.work.get() = Some(erased) };
        shared.tasks.store(tasks, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        shared.open();
        shared.take_tasks(work);
        shared.close();
        if let Some(payload) = lock(&shared.panic).take() {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks; one that died all the same has nothing left to clean.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Lets workers in, and wakes those that sleep.
    fn open(&self) {
        let state = self.state.load(Ordering::Relaxed);
        self.state.store((state & !INSIDE).wrapping_add(JOB) | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.sleep));
            self.wake.notify_all();
        }
    }

    /// Lets nobody in any more, and waits until everybody is out.
    fn close(&self) {
        let mut state = self.state.fetch_and(!OPEN, Ordering::AcqRel) & !OPEN;
        let mut spins = 0u32;
        while state & INSIDE != 0 {
            spins += 1;
            if spins.is_multiple_of(4096) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
            state = self.state.load(Ordering::Acquire);
        }
    }

    /// A worker's life.
    fn serve(&self) {
        let mut last_job = 0;
        while let Some(state) = self.wait_for_job(last_job) {
            if self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            last_job = state / JOB;
            // SAFETY: inside an open job the caller has written the pointer and keeps the closure alive.
            if let Some(work) = unsafe { *self.work.get() } {
                // SAFETY: as above.
                self.take_tasks(unsafe { &*work });
            }
            self.state.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The state of an open job that this worker has not been in, or `None` when the pool ends.
    fn wait_for_job(&self, last_job: u64) -> Option<u64> {
        let found = |state: u64| state & OPEN != 0 && state / JOB != last_job;
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                let state = self.state.load(Ordering::Acquire);
                if found(state) {
                    return Some(state);
                }
                std::hint::spin_loop();
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if start.elapsed() > SPIN {
                break;
            }
        }
        let mut guard = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let state = loop {
            let state = self.state.load(Ordering::SeqCst);
            if found(state) {
                break Some(state);
            }
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            guard = wait(&self.wake, guard);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        state
    }

    /// Does tasks until none is left. The first panic is kept for the caller and ends the job early.
    fn take_tasks(&self, work: &(dyn Fn(usize) + Sync)) {
        let tasks = self.tasks.load(Ordering::Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                work(task);
            }
        }));
        if let Err(payload) = outcome {
            self.next.store(tasks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(payload);
        }
    }
}

fn try_lock(mutex: &Mutex<()>) -> Option<MutexGuard<'_, ()>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(std::sync::TryLockError::WouldBlock) => None,
    }
}

/// A slice that tasks write into at places that do not overlap.
pub(super) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: all that it gives away is `part`, whose caller vouches that parts of different tasks do not overlap.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Disjoint<'a, T> {
        Disjoint { start: slice.as_mut_ptr(), len: slice.len(), slice: std::marker::PhantomData }
    }

    /// # Safety
    /// No two parts that live at the same time overlap.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, from: usize, len: usize) -> &mut [T] {
        assert!(from <= self.len && len <= self.len - from, "part {from}+{len} of a slice of {}", self.len);
        // SAFETY: inside the slice by the assertion; alone by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}

impl Disjoint<'_, u8> {
    /// Where a part starts whose bytes several threads share.
    pub(super) fn start_of(&self, from: usize, len: usize) -> *mut u8 {
        assert!(from <= self.len && len <= self.len - from, "part {from}+{len} of a slice of {}", self.len);
        // SAFETY: inside the slice by the assertion.
        unsafe { self.start.add(from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_threads() {
        for threads in [0, 1, 2, 3, 5] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 100] {
                for _ in 0..50 {
                    let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(tasks, &|i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for round in 0..20 {
            let outcome =
                catch_unwind(AssertUnwindSafe(|| pool.run(8, &|i| assert!(i != round % 8, "task {i}"))));
            let payload = outcome.expect_err("the panic must arrive");
            assert!(payload.downcast_ref::<String>().is_some_and(|text| text.contains("task")));
            let sum = AtomicUsize::new(0);
            pool.run(10, &|i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }

    #[test]
    fn a_task_may_run_tasks_and_callers_may_meet() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        let add = |i: usize| {
            sum.fetch_add(i, Ordering::Relaxed);
        };
        pool.run(4, &|_| pool.run(3, &add));
        assert_eq!(sum.load(Ordering::Relaxed), 12);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..200).for_each(|_| pool.run(3, &add)));
            }
        });
        assert_eq!(sum.load(Ordering::Relaxed), 12 + 3 * 200 * 3);
    }

    #[test]
    fn sleeping_workers_wake_up_and_an_idle_pool_ends() {
        let pool = Pool::new(2);
        let shared = Arc::clone(&pool.shared);
        while shared.sleepers.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let ids = Mutex::new(std::collections::HashSet::new());
        // The second task can end only when another thread has begun the first one or the other way round.
        let barrier = std::sync::Barrier::new(2);
        pool.run(2, &|_| {
            barrier.wait();
            lock(&ids).insert(std::thread::current().id());
        });
        assert_eq!(lock(&ids).len(), 2);
        drop(pool);
        assert_eq!(Arc::strong_count(&shared), 1);
    }
}
