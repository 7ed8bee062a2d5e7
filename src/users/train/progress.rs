//! The log of a run: a line of JSON per step and per look at held-out people, the curve, and lines for who waits.

use super::error::TrainError;
use super::stage::HeldOut;
use crate::report::{LineChart, Series};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

/// Where figures go.
pub struct Progress<'a> {
    folder: Option<PathBuf>,
    file: Option<File>,
    say: &'a mut dyn FnMut(&str),
    started: Instant,
    /// `(stage, figure)` to points `(step, value)`, for the curve.
    points: BTreeMap<(String, String), Vec<(f64, f64)>>,
}

impl<'a> Progress<'a> {
    /// Logs into `folder`; `resume` goes on with what is there.
    pub fn open(
        folder: Option<PathBuf>,
        resume: bool,
        say: &'a mut dyn FnMut(&str),
    ) -> Result<Progress<'a>, TrainError> {
        let mut progress = Progress {
            folder: folder.clone(),
            file: None,
            say,
            started: Instant::now(),
            points: BTreeMap::new(),
        };
        let Some(folder) = folder else { return Ok(progress) };
        let path = folder.join("log.jsonl");
        let write = |source| TrainError::Write { path: path.clone(), source };
        std::fs::create_dir_all(&folder).map_err(write)?;
        if resume && let Ok(text) = std::fs::read_to_string(&path) {
            text.lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .for_each(|line| progress.keep(&line));
        }
        let file = OpenOptions::new().create(true).write(true).append(resume).truncate(!resume).open(&path);
        progress.file = Some(file.map_err(write)?);
        Ok(progress)
    }

    /// A line for who waits.
    pub fn note(&mut self, line: &str) {
        (self.say)(line);
    }

    pub fn step(&mut self, stage: &str, step: usize, loss: f64) -> Result<(), TrainError> {
        let seconds = self.seconds();
        if step.is_multiple_of(10) {
            self.note(&format!("{stage} step {step}: loss {loss:.4} ({seconds:.0} s)"));
        }
        self.line(&json!({"stage": stage, "step": step, "loss": loss, "seconds": seconds}))
    }

    pub fn held_out(&mut self, stage: &str, step: usize, figures: &HeldOut) -> Result<(), TrainError> {
        let shown: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        let seconds = self.seconds();
        self.note(&format!("{stage} step {step}: held out {} ({seconds:.0} s)", shown.join(", ")));
        let figures: BTreeMap<&str, f64> = figures.iter().copied().collect();
        self.line(&json!({"stage": stage, "step": step, "held_out": figures, "seconds": seconds}))?;
        self.draw()
    }

    /// The last line: seconds and memory of the whole run.
    pub fn finish(&mut self) -> Result<(), TrainError> {
        let (seconds, memory) = (self.seconds(), peak_memory());
        let shown = memory.map_or("unknown".into(), |bytes| format!("{} MiB", bytes >> 20));
        self.note(&format!("trained in {seconds:.0} s, peak memory {shown}"));
        self.line(&json!({"done": true, "seconds": seconds, "peak_memory_bytes": memory}))?;
        self.draw()
    }

    fn seconds(&self) -> f64 {
        (self.started.elapsed().as_secs_f64() * 10.0).round() / 10.0
    }

    fn line(&mut self, line: &Value) -> Result<(), TrainError> {
        self.keep(line);
        let Some(file) = &mut self.file else { return Ok(()) };
        let path = self.folder.clone().unwrap_or_default().join("log.jsonl");
        writeln!(file, "{line}").map_err(|source| TrainError::Write { path, source })
    }

    fn keep(&mut self, line: &Value) {
        let (Some(stage), Some(step)) = (line["stage"].as_str(), line["step"].as_f64()) else { return };
        let mut add = |name: &str, value: Option<f64>| {
            let points = self.points.entry((stage.to_owned(), name.to_owned())).or_default();
            // A resumed run repeats no step, but one that was killed between two checkpoints does.
            points.retain(|point| point.0 < step);
            points.extend(value.map(|value| (step, value)));
        };
        if line["loss"].is_number() {
            add("loss", line["loss"].as_f64());
        }
        for (name, value) in line["held_out"].as_object().into_iter().flatten() {
            add(name, value.as_f64());
        }
    }

    /// `curve.svg` of the stage that went through the model.
    fn draw(&self) -> Result<(), TrainError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let series = self.points.iter().filter(|((stage, _), _)| stage == super::THROUGH_MODEL);
        let series = series.map(|((_, name), points)| Series {
            label: name.clone(),
            points: if name == "loss" { smoothed(points) } else { points.clone() },
            right: name != "loss",
        });
        let chart = LineChart {
            title: "Training through the model".into(),
            x_label: "step".into(),
            left_label: "loss (mean of 10 steps)".into(),
            right_label: "held-out people".into(),
            series: series.collect(),
        };
        let path = folder.join("curve.svg");
        std::fs::write(&path, chart.svg()).map_err(|source| TrainError::Write { path, source })
    }
}

/// Mean of the last ten points at each point.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |i: usize| {
        let window = &points[i.saturating_sub(9)..=i];
        window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64
    };
    (0..points.len()).map(|i| (points[i].0, mean(i))).collect()
}

/// The most memory that this process had, in bytes, where the system says it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}
