//! How far a job is, on stderr: a bar on a terminal, otherwise a line for every quarter.

use crate::jobs::{JobInfo, JobState};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use tokio::sync::watch;

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
