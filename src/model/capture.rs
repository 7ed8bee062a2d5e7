//! Reading of hook points while a step runs.

use super::config::ModelConfig;
use super::rows::{CaptureSpec, Rows};

/// Reads hook points of the rows that want a capture.
pub(super) struct Captures<'a> {
    rows: Vec<CapturedRow<'a>>,
    d_model: usize,
    d_head: usize,
    d_queries: usize,
}

struct CapturedRow<'a> {
    /// Index in the step.
    index: usize,
    spec: &'a CaptureSpec,
    /// `[spec.resid.len(), d_model]`, then `[spec.heads.len(), d_head]`.
    values: Vec<f32>,
}

impl<'a> Captures<'a> {
    pub fn new(rows: &'a Rows<'a>, config: &ModelConfig) -> Captures<'a> {
        let (d_model, d_head) = (config.d_model, config.d_head);
        let wanted = rows.rows.iter().enumerate().filter(|(_, row)| row.wants.capture);
        let captured = wanted.filter_map(|(index, row)| {
            let spec = rows.slots[row.slot as usize].capture?;
            let len = spec.resid.len() * d_model + spec.heads.len() * d_head;
            Some(CapturedRow { index, spec, values: vec![0.0; len] })
        });
        Captures { rows: captured.collect(), d_model, d_head, d_queries: config.d_queries() }
    }

    /// `stream` is `[r, d_model]`, after block `l`.
    pub fn read_resid(&mut self, l: usize, stream: &[f32]) {
        let d = self.d_model;
        for row in &mut self.rows {
            if let Ok(place) = row.spec.resid.binary_search(&(l as u32)) {
                row.values[place * d..][..d].copy_from_slice(&stream[row.index * d..][..d]);
            }
        }
    }

    /// `mixed` is `[r, n_heads * d_head]`, what the heads of block `l` give.
    pub fn read_heads(&mut self, l: usize, mixed: &[f32]) {
        let d = self.d_head;
        for row in &mut self.rows {
            let first = row.spec.resid.len() * self.d_model;
            for (place, (_, h)) in row.spec.heads.iter().enumerate().filter(|(_, head)| head.0 == l as u32) {
                let from = row.index * self.d_queries + *h as usize * d;
                row.values[first + place * d..][..d].copy_from_slice(&mixed[from..][..d]);
            }
        }
    }

    pub fn finish(self) -> Vec<Vec<f32>> {
        self.rows.into_iter().map(|row| row.values).collect()
    }
}
