//! The probe of one loaded model as a service: runs as jobs, keeps reports, gives the newest back.

use super::arms::Subject;
use super::report::{About, report};
use super::results::Table;
use super::runner::{Asked, run};
use super::scorer::EngineScorer;
use super::suites::Suite;
use super::{ProbeError, band};
use crate::digest::Digest;
use crate::engine::Engine;
use crate::jobs::{JobInfo, Jobs};
use crate::persona::gate::Gate;
use crate::text::Text;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// How a run is asked for.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// Name of a suite.
    pub suite: String,
    /// Of resamples and shuffled signs.
    pub seed: u64,
    /// Whether plan and soft prompt also run alone.
    pub attribution: bool,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Prober {
    scorer: EngineScorer,
    jobs: Jobs,
    gate: Gate,
    /// Name of the loaded model.
    model: String,
    asked: Asked,
}

impl Prober {
    pub fn new(engine: Engine, text: Arc<Text>, jobs: Jobs, gate: Gate, model: String) -> Prober {
        Prober { scorer: EngineScorer { engine, text }, jobs, gate, model, asked: Asked::default() }
    }

    /// Queues a run; the job's result says what it came to, [`Prober::newest`] gives the report.
    pub fn start(&self, subject: Subject, options: &ProbeOptions) -> Result<JobInfo, ProbeError> {
        let suite = Suite::shipped(&options.suite)?;
        let total = suite.prompts() * subject.arms(&suite, options.seed, options.attribution).len();
        let owner = subject.user().map(|id| format!("user:{id}"));
        let (prober, options) = (self.clone(), options.clone());
        let job = self.jobs.start_for("probe", owner.as_deref(), Some(total as u64), move |job| {
            let started = Instant::now();
            let mut progress = |done: u64, total: u64, arm: &str| {
                job.progress(done, Some(total), &format!("asking: {arm}"));
                !job.cancelled()
            };
            let report =
                prober.run(&subject, &suite, &options, &mut progress).map_err(|error| error.to_string())?;
            prober.gate.reports.put(&subject.digest, &report).map_err(|error| error.to_string())?;
            Ok(json!({
                "persona": subject.persona, "version": subject.version, "digest": subject.digest.to_string(),
                "suite": options.suite, "seed": options.seed, "status": report["status"],
                "reasons": report["reasons"], "tokens": report["tokens"],
                "seconds": (started.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            }))
        });
        Ok(job?)
    }

    /// One run on this thread; nothing is kept.
    pub fn run(
        &self,
        subject: &Subject,
        suite: &Suite,
        options: &ProbeOptions,
        progress: &mut dyn FnMut(u64, u64, &str) -> bool,
    ) -> Result<Value, ProbeError> {
        let weights = self.scorer.engine.info().weights_digest;
        let arms = subject.arms(suite, options.seed, options.attribution);
        let scores = run(&self.scorer, &arms, suite, &self.asked, progress)?;
        let named: Vec<_> = arms.iter().map(|arm| arm.name.clone()).zip(scores).collect();
        let table = Table { arms: &named, suite, seed: options.seed };
        let about = About {
            subject,
            model: &self.model,
            weights,
            thresholds: &self.gate.thresholds,
            arms: &arms,
            attribution: options.attribution,
        };
        Ok(report(&table, &about))
    }

    /// The newest report on a persona digest. Reads the disk.
    pub fn newest(&self, digest: &Digest) -> Option<Arc<Value>> {
        self.gate.reports.newest(digest)
    }

    /// The band of the loaded model, and a line per control persona.
    pub fn band(
        &self,
        suite: &str,
        progress: &mut dyn FnMut(u64, u64, &str) -> bool,
    ) -> Result<(Value, Vec<Value>), ProbeError> {
        let weights = self.scorer.engine.info().weights_digest;
        band::measure(&self.scorer, &Suite::shipped(suite)?, &self.model, &weights, progress)
    }

    /// What scores prompts of others, benchmarks for instance.
    pub fn scorer(&self) -> &EngineScorer {
        &self.scorer
    }
}
