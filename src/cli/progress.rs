//! How far a job is, on stderr: a bar on a terminal, otherwise a line for every quarter.

use super::CliError;
use super::client::{Client, segment};
use crate::jobs::{JobInfo, JobState};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::sync::watch;

/// How often a server is asked how far a job is.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Shows one job.
pub struct JobProgress {
    bar: Option<ProgressBar>,
    /// Quarters that were told where there is no terminal.
    quarters: u64,
    message: String,
}

impl JobProgress {
    pub fn new() -> JobProgress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        JobProgress { bar, quarters: 0, message: String::new() }
    }

    /// `done` of `total` steps, and what happens now.
    pub fn show(&mut self, done: u64, total: Option<u64>, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total.unwrap_or(0));
            bar.set_position(done);
            bar.set_message(message.to_owned());
            return;
        }
        let quarters = (done * 4).checked_div(total.unwrap_or(0)).unwrap_or(0);
        let new_words = total.is_none() && self.message != message;
        if quarters > self.quarters || new_words {
            (self.quarters, self.message) = (quarters, message.to_owned());
            eprintln!("{message}");
        }
    }

    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Default for JobProgress {
    fn default() -> JobProgress {
        JobProgress::new()
    }
}

/// Shows a job until it is over.
pub async fn follow(mut changes: watch::Receiver<JobInfo>) -> JobInfo {
    let mut progress = JobProgress::new();
    loop {
        let job = changes.borrow_and_update().clone();
        if job.state != JobState::Queued {
            progress.show(job.done, job.total, &job.message);
        }
        // Whoever worked on it is gone: nothing will change any more.
        if job.state.is_final() || changes.changed().await.is_err() {
            progress.done();
            return job;
        }
    }
}

/// The same of a server's job, as the route that started it answered; its result.
pub fn follow_remote(client: &Client, mut job: Value) -> Result<Value, CliError> {
    let path = format!("/v1/jobs/{}", segment(job["id"].as_str().unwrap_or_default()));
    let mut progress = JobProgress::new();
    let running = [JobState::Queued.name(), JobState::Running.name()];
    while job["state"].as_str().is_some_and(|state| running.contains(&state)) {
        let message = job["message"].as_str().unwrap_or_default();
        progress.show(job["done"].as_u64().unwrap_or(0), job["total"].as_u64(), message);
        std::thread::sleep(ASK_EVERY);
        job = client.json("GET", &path, None, &[])?;
    }
    progress.done();
    if job["state"] == JobState::Done.name() {
        return Ok(job["result"].take());
    }
    let state = job["state"].as_str().unwrap_or("lost");
    let why = job["error"].as_str().map_or_else(|| format!("the job was {state}"), str::to_owned);
    Err(CliError::failed(why))
}
