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
        let mut row = vec![0.0; self.config().d_model];
        let stride = self.config().vocab_size.div_ceil(EMBEDDING_NORMS_MAX).max(1);
        let mut norms = Vec::new();
        for id in (0..self.config().vocab_size).step_by(stride) {
            self.token_row(id as TokenId, &mut row)?;
            norms.push(norm(&row));
        }
        norms.sort_by(f32::total_cmp);
        let mut found = Vec::new();
        for id in controls.take(CONTROL_ROWS_MAX) {
            self.token_row(id, &mut row)?;
            let length = norm(&row);
            if length > 0.0 {
                found.push(ControlRow { id, direction: row.iter().map(|value| value / length).collect() });
            }
        }
        let norm_median = norms.get(norms.len() / 2).copied().unwrap_or(0.0);
        Ok(EmbeddingFacts { norm_median, controls: found })
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn norm(row: &[f32]) -> f32 {
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
            let mut row = vec![0.0; model.config().d_model];
            model.token_row(7, &mut row).unwrap();
            assert!(facts.norm_median > 0.0 && facts.norm_median.is_finite());
            assert_eq!(facts.controls.iter().map(|control| control.id).collect::<Vec<_>>(), [3, 7]);
            row.iter_mut().for_each(|value| *value *= 2.5);
            assert_eq!(facts.alias(&row, 0.999), Some(7), "{family}");
            row[0] += norm(&row);
            assert_eq!(facts.alias(&row, 0.999), None, "{family}");
        }
    }
}
