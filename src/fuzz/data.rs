//! Files of data that verbs and routes take: questionnaires, reports, thresholds, training people.

use super::text;
use crate::alignment::Inventory;
use crate::limits;
use crate::persona::gate::Thresholds;
use crate::probe::read_report;
use crate::users::people::{People, Split};

/// A questionnaire: each item has its weight in agreement.
pub fn inventory(bytes: &[u8]) -> bool {
    let Ok(inventory) = Inventory::parse(bytes) else { return false };
    assert!(!inventory.items.is_empty() && inventory.items.len() <= limits::INVENTORY_ITEMS_MAX);
    let (known, unseen) = (inventory.known(), inventory.unseen());
    assert!(known.iter().chain(&unseen).all(|index| *index < inventory.items.len()));
    let all: Vec<usize> = (0..inventory.items.len()).collect();
    let weights = inventory.agreement_weights(&all);
    assert!(weights.len() == all.len() && weights.iter().all(|weight| weight.is_finite()));
    let _ = inventory.digest();
    true
}

/// A report of the probe, or thresholds that reports are judged by.
pub fn probe_report(bytes: &[u8]) -> bool {
    if let Ok(thresholds) = Thresholds::read(bytes) {
        assert!(thresholds.rules.len() <= limits::GATE_RULES_MAX);
        return true;
    }
    read_report("fuzzed", bytes).is_ok()
}

/// People to train on, JSON Lines: somebody is there to be trained on.
pub fn people(bytes: &[u8]) -> bool {
    let Some(people) = text(bytes).and_then(|text| People::parse(text).ok()) else { return false };
    assert!(people.of(Split::Train).count() > 0);
    true
}
