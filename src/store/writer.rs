//! The one thread that writes: all waiting writes go into one transaction and are answered after its commit.

use super::error::StoreError;
use super::rows;
use crate::limits;
use crate::sync::lock;
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Handle to the thread; dropping it ends the thread after the writes that wait.
pub struct Writer {
    /// `None` once closed.
    sender: Mutex<Option<SyncSender<Box<dyn Write>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// One write. It may run more than once, when a group falls and its members are tried alone; only the last run stays.
trait Write: Send {
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// What must be true on disk before the answer, beyond the commit.
    fn after(&self) -> After;
    fn settle(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// What follows a commit before its writes are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum After {
    Nothing,
    /// The log is written into the database and cut to nothing: what was deleted is in neither.
    Truncate,
}

struct Typed<T, F> {
    work: F,
    after: After,
    made: Option<T>,
    reply: SyncSender<Result<T, StoreError>>,
}

impl<T: Send, F: Fn(&Connection) -> Result<T, StoreError> + Send> Write for Typed<T, F> {
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let work = || (self.work)(connection);
        let made = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            let detail = "a defect in a write; see the log".to_owned();
            Err(StoreError::Failed { action: "write".to_owned(), detail })
        });
        self.made = Some(made?);
        Ok(())
    }

    fn after(&self) -> After {
        self.after
    }

    fn settle(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Typed { made, reply, .. } = *self;
        // Whoever asked may be gone.
        let _ = reply.send(outcome.and_then(|()| made.ok_or(StoreError::Closed)));
    }
}

impl Writer {
    pub fn start(connection: Connection) -> Result<Writer, StoreError> {
        let (sender, receiver) = sync_channel(limits::STORE_WRITES_WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || serve(&connection, &receiver))
            .map_err(|error| StoreError::Failed {
                action: "start a thread".to_owned(),
                detail: error.to_string(),
            })?;
        Ok(Writer { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Runs `work` in a transaction and returns once it is on disk. Waits while too many others wait.
    pub fn write<T: Send + 'static>(
        &self,
        after: After,
        work: impl Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = sync_channel(1);
        let write = Box::new(Typed { work, after, made: None, reply });
        let sender = lock(&self.sender).clone().ok_or(StoreError::Closed)?;
        sender.send(write).map_err(|_| StoreError::Closed)?;
        // The thread ends once nobody holds a sender.
        drop(sender);
        answer.recv().map_err(|_| StoreError::Closed)?
    }

    /// Ends the thread after the writes that wait; later ones are refused.
    pub fn close(&self) {
        drop(lock(&self.sender).take());
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

fn serve(connection: &Connection, receiver: &Receiver<Box<dyn Write>>) {
    let mut broken: Option<StoreError> = None;
    while let Ok(first) = receiver.recv() {
        let mut group = vec![first];
        while group.len() < limits::STORE_GROUP_MAX
            && let Ok(next) = receiver.try_recv()
        {
            group.push(next);
        }
        if let Some(error) = &broken {
            group.into_iter().for_each(|write| write.settle(Err(error.clone())));
            continue;
        }
        for (write, outcome) in commit(connection, group) {
            if let Err(error @ StoreError::ReadOnly { .. }) = &outcome {
                broken = Some(error.clone());
            }
            write.settle(outcome);
        }
    }
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::warn!(%error, "the store's log could not be emptied at the end");
    }
}

type Settled = Vec<(Box<dyn Write>, Result<(), StoreError>)>;

/// Commits a group; when it falls as a whole, each of its writes alone.
fn commit(connection: &Connection, mut group: Vec<Box<dyn Write>>) -> Settled {
    let mut outcomes = match attempt(connection, &mut group) {
        Ok(outcomes) => outcomes,
        Err(error @ StoreError::ReadOnly { .. }) => vec![Err(error); group.len()],
        Err(error) if group.len() == 1 => vec![Err(error)],
        Err(_) => {
            let alone = |write| attempt(connection, std::slice::from_mut(write)).map(|mut one| one.remove(0));
            group.iter_mut().map(|write| alone(write).and_then(|outcome| outcome)).collect()
        }
    };
    let after = group.iter().map(|write| write.after()).max().unwrap_or(After::Nothing);
    if after == After::Truncate
        && let Err(error) = truncate(connection)
    {
        for (write, outcome) in group.iter().zip(&mut outcomes) {
            if write.after() == After::Truncate && outcome.is_ok() {
                *outcome = Err(error.clone());
            }
        }
    }
    group.into_iter().zip(outcomes).collect()
}

/// One transaction with a savepoint for each write. `Err`: nothing of the group is on disk.
fn attempt(
    connection: &Connection,
    group: &mut [Box<dyn Write>],
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let mut outcomes = Vec::with_capacity(group.len());
    for write in group {
        connection.execute_batch("SAVEPOINT one").inspect_err(|_| undo(connection))?;
        let outcome = write.run(connection);
        // A full disk or a failing one ends the whole transaction by itself.
        if let (Err(error), true) = (&outcome, connection.is_autocommit()) {
            return Err(error.clone());
        }
        let end = if outcome.is_ok() { "RELEASE one" } else { "ROLLBACK TO one; RELEASE one" };
        connection.execute_batch(end).inspect_err(|_| undo(connection))?;
        outcomes.push(outcome);
    }
    connection.execute_batch("COMMIT").inspect_err(|_| undo(connection))?;
    Ok(outcomes)
}

fn undo(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a transaction of the store could not be undone");
    }
}

/// Readers that hold an old state are waited for, each reads for milliseconds.
fn truncate(connection: &Connection) -> Result<(), StoreError> {
    if rows::number(connection, "PRAGMA wal_checkpoint(TRUNCATE)", [])? == 0 {
        return Ok(());
    }
    Err(StoreError::Failed {
        action: "empty its log".to_owned(),
        detail: "a reader held it; the deletion is stored, ask again to have its traces removed".to_owned(),
    })
}
