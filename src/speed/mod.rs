//! How fast a loaded model runs here: prefill, decode, batches, and what steering and soft prompts cost.
//!
//! All of it goes through the engine's front door as requests do, without HTTP. Prompts are random token ids, none of them
//! from the prefix cache; answers have a fixed length because nothing stops them. Speeds are medians over repeats with the
//! slowest and fastest beside them: a figure means something only next to another of the same machine and hour.

mod process;

pub use process::{cpu_seconds, resident_mib};

use crate::digest::Digest;
use crate::engine::{Engine, Event, Generate, Priority, Request, Sampling, SequenceError, SubmitError, Want};
use crate::model::{BlockEdits, Change, Edit, Edits, RowRule, SoftRows, TokenId};
use crate::statistics::{Draws, rounded};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// What is measured.
#[derive(Clone, Debug)]
pub struct SpeedOptions {
    /// Tokens of the long prompt.
    pub prompt: u32,
    /// Tokens of each answer; at least 2.
    pub tokens: u32,
    /// Numbers of sequences at once.
    pub batches: Vec<usize>,
    /// Runs of each measurement.
    pub repeats: usize,
    /// Pairs of (plain, steered) runs in turned order; 0 leaves the comparison out.
    pub pairs: usize,
    pub seed: u64,
}

/// Runs of one measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// Sequences at once.
#[derive(Clone, Debug, Serialize)]
pub struct Batch {
    pub sequences: usize,
    /// All sequences together, tokens per second.
    pub tokens_per_second: Spread,
}

/// Sixteen plain sequences (or as many as run at once) beside as many that each have edits in every block and a soft
/// prompt of their own.
#[derive(Clone, Debug, Serialize)]
pub struct Steering {
    pub sequences: usize,
    pub soft_rows: usize,
    /// Milliseconds of processor time per token, all threads; `None` where the system does not tell.
    pub plain_cpu_ms: Option<Spread>,
    pub steered_cpu_ms: Option<Spread>,
    /// Steered over plain within each pair, less one: of processor time where the system tells it, else of wall time.
    pub overhead: Spread,
}

/// All figures of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub prompt_tokens: u32,
    pub answer_tokens: u32,
    pub repeats: usize,
    pub seed: u64,
    /// Prompt tokens per second.
    pub prefill: Spread,
    /// Tokens per second of one sequence after its first.
    pub decode: Spread,
    pub batches: Vec<Batch>,
    pub steering: Option<Steering>,
}

#[derive(Debug, thiserror::Error)]
pub enum SpeedError {
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    #[error("the engine ended early")]
    Ended,
}

/// Rows of the soft prompts that are measured.
const SOFT_ROWS: usize = 4;
/// Tokens of short prompts.
const SHORT: u32 = 16;

/// Measures one after the other; `progress` hears what comes next.
pub fn measure(
    engine: &Engine,
    options: &SpeedOptions,
    progress: &dyn Fn(&str),
) -> Result<Report, SpeedError> {
    let bench = Bench { engine, options };
    progress("warming up");
    bench.together(1, 0, Dress::Plain)?;
    progress("prefill");
    let prefill = bench.repeated(|run| bench.prefill(run))?;
    progress("decode");
    let decode = bench.repeated(|run| Ok(bench.together(1, 1 + run, Dress::Plain)?.tokens_per_second()))?;
    let mut batches = Vec::new();
    for &sequences in &options.batches {
        progress(&format!("{sequences} sequences at once"));
        let run = |run| Ok(bench.together(sequences, 1000 + run, Dress::Plain)?.tokens_per_second());
        batches.push(Batch { sequences, tokens_per_second: bench.repeated(run)? });
    }
    let steering = match options.pairs {
        0 => None,
        pairs => Some(bench.steering(pairs, progress)?),
    };
    Ok(Report {
        prompt_tokens: options.prompt,
        answer_tokens: options.tokens,
        repeats: options.repeats,
        seed: options.seed,
        prefill,
        decode,
        batches,
        steering,
    })
}

struct Bench<'a> {
    engine: &'a Engine,
    options: &'a SpeedOptions,
}

/// What sequences wear.
#[derive(Clone, Copy, PartialEq)]
enum Dress {
    Plain,
    Steered,
}

/// Sequences that ran at once.
struct Together {
    tokens: usize,
    /// From the first token of any to the last token of all.
    seconds: f64,
    /// Of all threads, prompts included.
    cpu_seconds: Option<f64>,
    sequences: usize,
}

impl Together {
    /// The first token of the first sequence starts the clock and does not count.
    fn tokens_per_second(&self) -> f64 {
        let counted = if self.sequences == 1 { self.tokens - 1 } else { self.tokens };
        counted as f64 / self.seconds
    }
}

impl Bench<'_> {
    fn repeated(&self, run: impl Fn(u64) -> Result<f64, SpeedError>) -> Result<Spread, SpeedError> {
        let values: Vec<f64> = (0..self.options.repeats.max(1) as u64).map(run).collect::<Result<_, _>>()?;
        Ok(Spread::of(values))
    }

    /// Tokens per second of one long prompt.
    fn prefill(&self, run: u64) -> Result<f64, SpeedError> {
        let request = self.request(self.options.prompt, 1, run, 0, Dress::Plain);
        let start = Instant::now();
        self.finish(request, |_| {})?;
        Ok(f64::from(self.options.prompt) / start.elapsed().as_secs_f64())
    }

    /// Sequences with short prompts at once.
    fn together(&self, sequences: usize, run: u64, dress: Dress) -> Result<Together, SpeedError> {
        let requests: Vec<Request> = (0..sequences)
            .map(|index| self.request(SHORT, self.options.tokens, run, index as u64, dress))
            .collect();
        let cpu = cpu_seconds();
        let times: Vec<Vec<Instant>> = std::thread::scope(|scope| {
            let start = |request| {
                scope.spawn(move || {
                    let mut times = Vec::with_capacity(self.options.tokens as usize);
                    self.finish(request, |time| times.push(time)).map(|()| times)
                })
            };
            let running: Vec<_> = requests.into_iter().map(start).collect();
            running
                .into_iter()
                .map(|one| one.join().unwrap_or(Err(SpeedError::Ended)))
                .collect::<Result<_, _>>()
        })?;
        let all = || times.iter().flatten();
        let (Some(first), Some(last)) = (all().min(), all().max()) else { return Err(SpeedError::Ended) };
        Ok(Together {
            tokens: all().count(),
            seconds: last.duration_since(*first).as_secs_f64(),
            cpu_seconds: cpu.zip(cpu_seconds()).map(|(before, after)| after - before),
            sequences,
        })
    }

    /// Pairs of a plain and a steered run; every second pair is turned round.
    fn steering(&self, pairs: usize, progress: &dyn Fn(&str)) -> Result<Steering, SpeedError> {
        let sequences = self.engine.info().max_batch.min(16);
        let (mut plain, mut steered, mut overhead) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..pairs as u64 {
            progress(&format!("pair {} of {pairs}: {sequences} plain, {sequences} steered", pair + 1));
            let order =
                if pair % 2 == 0 { [Dress::Plain, Dress::Steered] } else { [Dress::Steered, Dress::Plain] };
            let mut costs = [0.0; 2];
            for dress in order {
                let run = self.together(sequences, 2000 + pair, dress)?;
                let per_token = |seconds: f64| 1e3 * seconds / run.tokens as f64;
                costs[usize::from(dress == Dress::Steered)] =
                    per_token(run.cpu_seconds.unwrap_or(run.seconds));
                if let Some(cpu) = run.cpu_seconds {
                    let list = if dress == Dress::Steered { &mut steered } else { &mut plain };
                    list.push(per_token(cpu));
                }
            }
            overhead.push(costs[1] / costs[0] - 1.0);
        }
        let told = |values: Vec<f64>| (!values.is_empty()).then(|| Spread::of(values));
        Ok(Steering {
            sequences,
            soft_rows: SOFT_ROWS,
            plain_cpu_ms: told(plain),
            steered_cpu_ms: told(steered),
            overhead: Spread::of(overhead),
        })
    }

    /// Hands the time of each token to `at`.
    fn finish(&self, request: Request, mut at: impl FnMut(Instant)) -> Result<(), SpeedError> {
        let mut events = self.engine.submit(request)?;
        loop {
            match events.next_blocking().ok_or(SpeedError::Ended)? {
                Event::Token { .. } => at(Instant::now()),
                Event::Done { .. } => return Ok(()),
                Event::Failed(error) => return Err(error.into()),
                _ => {}
            }
        }
    }

    /// One sequence of random tokens. Equal run and index give equal prompts, whatever the dress.
    fn request(&self, prompt: u32, tokens: u32, run: u64, index: u64, dress: Dress) -> Request {
        let info = self.engine.info();
        let mut draws = Draws::new(self.options.seed, "speed", (run << 16) + index);
        let prompt: Vec<TokenId> =
            (0..prompt).map(|_| draws.below(info.vocab_size as usize) as TokenId).collect();
        let (edits, soft) = match dress {
            Dress::Plain => (Edits::none(), SoftRows::none()),
            Dress::Steered => (self.edits(&mut draws), self.soft(&mut draws)),
        };
        Request {
            prompt,
            soft_at: 0,
            soft,
            edits: Arc::new(edits),
            want: Want::Generate(Generate {
                tokens_max: tokens,
                stop_tokens: Arc::from([]),
                // As a chat draws by default, so that the sampler's work is in it.
                sampling: Sampling { temperature: 0.8, top_p: 0.95, seed: index, ..Sampling::default() },
                constraint: None,
                logprobs: None,
                prompt_logprobs: None,
            }),
            priority: Priority::Serving,
            owner: Digest::default(),
            cache_salt: Digest::default(),
            use_cache: false,
        }
    }

    /// A change after every block, too small to matter: its cost does not depend on its size.
    fn edits(&self, draws: &mut Draws) -> Edits {
        let info = self.engine.info();
        let size = 1e-3 * f64::from(info.embedding.norm_median) / f64::from(info.d_model).sqrt();
        let block = |_| {
            let delta: Arc<[f32]> = (0..info.d_model).map(|_| (size * draws.normal()) as f32).collect();
            BlockEdits { attn: Vec::new(), resid: vec![Edit::new(Change::Add { delta }, RowRule::All)] }
        };
        Edits::new((0..info.n_blocks).map(block).collect())
    }

    /// Rows of the size that input rows have.
    fn soft(&self, draws: &mut Draws) -> SoftRows {
        let info = self.engine.info();
        let d = info.d_model as usize;
        let size = f64::from(info.embedding.norm_median) / (d as f64).sqrt();
        let values = (0..SOFT_ROWS * d).map(|_| (size * draws.normal()) as f32).collect();
        SoftRows::new(values, SOFT_ROWS, d).unwrap_or_else(SoftRows::none)
    }
}

impl Spread {
    /// Of at least one value.
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        };
        let round = |value| rounded(value, 4);
        Spread { median: round(median), least: round(values[0]), most: round(values[values.len() - 1]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!(odd, Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0]), Spread { median: 2.5, least: 1.0, most: 4.0 });
    }

    #[test]
    fn tokens_before_the_clock_starts_do_not_count() {
        let together = |sequences, tokens| Together { tokens, seconds: 2.0, cpu_seconds: None, sequences };
        assert_eq!(together(1, 21).tokens_per_second(), 10.0);
        assert_eq!(together(4, 80).tokens_per_second(), 40.0);
    }
}
