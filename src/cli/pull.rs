//! `demeanor pull NAME`: fetches a model or a sentence encoder and says where it is.

use super::Outcome;
use crate::weights::{Fetcher, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// Fetch a model or the sentence encoder, check its sha256 and print where it is
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  demeanor pull smollm2-135m-instruct\n  demeanor pull hf:bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M\n\n\
    Of a hub repository the GGUF file of the quantisation is fetched; without one the first of Q4_K_M, Q4_0, Q4_1, Q8_0 and \
    others that is there; where there is no GGUF file, the safetensors with their JSON files."
)]
pub struct Pull {
    /// Catalogue name (`demeanor ls` lists them), hf:ORG/REPO[:QUANTISATION] or hf:ORG/REPO/FILE
    pub model: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Fetches the model unless it is on disk, checks it, and prints its path.
pub fn pull(arguments: &Pull) -> Outcome {
    let fetcher = Fetcher::from_environment()?;
    let mut progress = TerminalProgress::new();
    let path = match fetcher.catalog.encoder(&arguments.model) {
        Some(_) => fetcher.pull_encoder(&arguments.model, &mut progress)?,
        None => fetcher.pull(&arguments.model, &mut progress)?,
    };
    match arguments.json {
        true => println!("{}", serde_json::json!({"model": arguments.model, "path": path})),
        false => println!("{}", path.display()),
    }
    Ok(())
}

/// Progress on stderr: a bar on a terminal, otherwise a line for every quarter of a transfer.
pub struct TerminalProgress {
    bar: Option<ProgressBar>,
    total: u64,
    bytes: u64,
}

impl TerminalProgress {
    pub fn new() -> TerminalProgress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let template = "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
            bar.set_style(
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        TerminalProgress { bar, total: 0, bytes: 0 }
    }

    /// Quarters of the transfer that are there.
    fn quarters(&self) -> u64 {
        (self.bytes * 4).checked_div(self.total).unwrap_or(0).min(4)
    }
}

impl Default for TerminalProgress {
    fn default() -> TerminalProgress {
        TerminalProgress::new()
    }
}

impl Progress for TerminalProgress {
    fn note(&mut self, message: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{message}")),
            None => eprintln!("{message}"),
        }
    }

    fn total(&mut self, bytes: u64) {
        (self.total, self.bytes) = (bytes, 0);
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_length(bytes);
        }
    }

    fn advance(&mut self, bytes: u64) {
        let before = self.quarters();
        self.bytes += bytes;
        match &self.bar {
            Some(bar) => bar.inc(bytes),
            None if self.quarters() > before => {
                eprintln!("{} of {} MB", self.bytes / 1_000_000, self.total / 1_000_000)
            }
            None => {}
        }
    }

    fn done(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
