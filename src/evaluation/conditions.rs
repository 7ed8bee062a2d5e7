//! Conditions of a benchmark: the plain model, steering expressions beside their shuffled controls, stored personas.

use crate::model::Edits;
use crate::persona::PersonaSpec;
use crate::probe::{Arm, Soft, shuffled};
use std::sync::Arc;

/// The arms that are asked, the plain model first.
pub struct Conditions {
    pub arms: Vec<Arm>,
}

impl Conditions {
    pub fn plain() -> Conditions {
        Conditions { arms: vec![Arm::of_system("plain", "")] }
    }

    /// A steering expression's edits, and the same dose with shuffled signs.
    pub fn steered(&mut self, expression: &str, edits: &Arc<Edits>, seed: u64) {
        let control = Arc::new(shuffled(edits, seed));
        for (name, edits) in
            [(expression.to_owned(), edits.clone()), (format!("{expression}, shuffled"), control)]
        {
            self.arms.push(Arm { name, edits, ..Arm::of_system("", "") });
        }
    }

    /// A persona: its texts, plan and soft prompt.
    pub fn persona(&mut self, label: &str, spec: &PersonaSpec, edits: &Arc<Edits>, soft: Soft) {
        let texts = Arm::of_system(label, &spec.system);
        self.arms.push(Arm { card: spec.card.clone(), edits: edits.clone(), soft, ..texts });
    }
}
