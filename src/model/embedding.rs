//! What is natural in a model's embedding table: how long its rows are, and which rows nothing from outside may imitate.

use super::{Model, ModelError, TokenId};
use crate::limits::{CONTROL_ROWS_MAX, EMBEDDING_NORMS_MAX};

/// Facts about the rows that tokens enter the model with, any scaling included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbeddingFacts {
    /// Median length of a row, over rows evenly spaced in the table.
    pub norm_median: f32,
    /// Rows of control tokens, by ascending id.
    pub controls: Vec<ControlRow>,
}

/// The direction of a control token's row.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlRow {
    pub id: TokenId,
    /// `[d_model]`, of length 1.
    pub direction: Vec<f32>,
}

impl EmbeddingFacts {
    /// The control token whose row points where `row` does, if the cosine is above `cosine_max`.
    pub fn alias(&self, row: &[f32], cosine_max: f32) -> Option<TokenId> {
        let length = norm(row);
        let cosine = |control: &ControlRow| dot(&control.direction, row) / length;
        self.controls.iter().find(|control| cosine(control) > cosine_max).map(|control| control.id)
    }
}

impl Model {
    /// Measures the table. Rows of length 0 have no direction and imitate nothing; they are left out.
    pub fn embedding_facts(
        &self,
        controls: impl Iterator<Item = TokenId>,
    ) -> Result<EmbeddingFacts, ModelError> {
        let (d, vocab_size) = (self.config().d_model, self.config().vocab_size);
        let stride = vocab_size.div_ceil(EMBEDDING_NORMS_MAX).max(1);
        let spaced: Vec<TokenId> = (0..vocab_size as TokenId).step_by(stride).collect();
        let controls: Vec<TokenId> = controls.take(CONTROL_ROWS_MAX).collect();
        let rows = self.token_rows(&[&spaced[..], &controls].concat())?;
        let (of_spaced, of_controls) = rows.split_at(spaced.len() * d);
        let mut norms: Vec<f32> = of_spaced.chunks_exact(d).map(norm).collect();
        norms.sort_by(f32::total_cmp);
        let norm_median = norms.get(norms.len() / 2).copied().unwrap_or(0.0);
        let control = |(id, row): (TokenId, &[f32])| {
            let length = norm(row);
            let direction = || row.iter().map(|value| value / length).collect();
            (length > 0.0).then(|| ControlRow { id, direction: direction() })
        };
        let controls = controls.into_iter().zip(of_controls.chunks_exact(d)).filter_map(control).collect();
        Ok(EmbeddingFacts { norm_median, controls })
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub(super) fn norm(row: &[f32]) -> f32 {
    dot(row, row).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Precision;
    use crate::model::tiny;

    #[test]
    fn the_table_is_measured() {
        for family in ["llama", "gemma3"] {
            let model = tiny::load(family, Precision::Int8, 1);
            let facts = model.embedding_facts([3, 7].into_iter()).unwrap();
            let mut row = model.token_rows(&[7]).unwrap();
            assert!(facts.norm_median > 0.0 && facts.norm_median.is_finite());
            assert_eq!(facts.controls.iter().map(|control| control.id).collect::<Vec<_>>(), [3, 7]);
            row.iter_mut().for_each(|value| *value *= 2.5);
            assert_eq!(facts.alias(&row, 0.999), Some(7), "{family}");
            row[0] += norm(&row);
            assert_eq!(facts.alias(&row, 0.999), None, "{family}");
        }
    }
}
