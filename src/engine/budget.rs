//! How many rows of prefill a step may hold, from how long steps have taken.

use std::time::Duration;

/// Rows of prefill in one step at most, whatever the time budget says: bounds the buffers of a step.
const PREFILL_ROWS_MAX: usize = 512;
/// Rows of prefill in one step at least, so that prefill always gets on.
pub(super) const PREFILL_ROWS_MIN: usize = 4;
/// The same while no sequence decodes: large models would waste most of a step on reading their weights for few rows.
const PREFILL_ROWS_MIN_ALONE: usize = 128;
/// Times the budget that a step may take while no sequence decodes.
const IDLE_BUDGET_FACTOR: f64 = 4.0;
/// Times what decoding alone takes that a step with prefill may take, where that alone is more than the budget.
const DECODE_BUDGET_FACTOR: f64 = 2.0;
/// Rows that products take together where weights come from memory: a few more cost nothing.
const PRODUCT_ROWS: usize = 16;
/// What a new time counts in a mean of times.
const NEW_PART: f64 = 0.3;
/// The same for a step that only decodes and took longer than others: mostly other programs ran meanwhile.
const SLOW_PART: f64 = 0.05;

/// Estimates of what steps take.
pub(super) struct StepBudget {
    /// Wanted seconds of a step that decodes.
    seconds: f64,
    /// Seconds per row of a step that only prefills.
    prefill_row: f64,
    /// The same of a step that decodes too, its decode rows included.
    mixed_row: f64,
    /// Seconds of a step that only decodes; 0 before the first.
    decode_step: f64,
}

impl StepBudget {
    pub fn new(milliseconds: f32) -> StepBudget {
        StepBudget {
            seconds: f64::from(milliseconds) / 1e3,
            prefill_row: 0.5e-3,
            mixed_row: 1e-3,
            decode_step: 0.0,
        }
    }

    /// Rows of prefill beside `decode_rows`.
    pub fn prefill_rows(&self, decode_rows: usize) -> usize {
        // Rows of all kinds, so that a step over its budget is followed by a smaller one and the other way round.
        let mixed = |seconds: f64| (seconds / self.mixed_row) as usize;
        let (least, rows) = match decode_rows {
            // With nobody waiting for a next token, a step may take longer: larger chunks waste less.
            0 => (PREFILL_ROWS_MIN_ALONE, (IDLE_BUDGET_FACTOR * self.seconds / self.prefill_row) as usize),
            _ if self.decode_step > self.seconds => {
                let rows = mixed(DECODE_BUDGET_FACTOR * self.decode_step);
                (PREFILL_ROWS_MIN, rows.next_multiple_of(PRODUCT_ROWS))
            }
            _ => (PREFILL_ROWS_MIN, mixed(self.seconds)),
        };
        rows.saturating_sub(decode_rows).clamp(least, PREFILL_ROWS_MAX)
    }

    /// A step of so many rows, `decode_rows` of them to decode, took so long.
    pub fn learn(&mut self, rows: usize, decode_rows: usize, took: Duration) {
        let seconds = took.as_secs_f64();
        let mean = |old: f64, new: f64, part: f64| old + part * (new - old);
        if decode_rows == rows {
            let is_slow = self.decode_step > 0.0 && seconds > self.decode_step;
            self.decode_step = if is_slow { mean(self.decode_step, seconds, SLOW_PART) } else { seconds };
        } else if rows >= PREFILL_ROWS_MIN {
            let estimate = if decode_rows == 0 { &mut self.prefill_row } else { &mut self.mixed_row };
            *estimate = mean(*estimate, seconds / rows as f64, NEW_PART);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of prefill after many steps whose time is `step` plus `row` for each row, in milliseconds.
    fn settled(decode_rows: usize, step: f64, row: f64) -> usize {
        let mut budget = StepBudget::new(20.0);
        let took = |rows: usize| Duration::from_secs_f64((step + row * rows as f64) / 1e3);
        budget.learn(decode_rows, decode_rows, took(decode_rows));
        for _ in 0..100 {
            let rows = decode_rows + budget.prefill_rows(decode_rows);
            budget.learn(rows, decode_rows, took(rows));
        }
        budget.prefill_rows(decode_rows)
    }

    #[test]
    fn steps_take_what_they_may() {
        // 3 + 28 * 0.6 = 20
        assert_eq!(settled(4, 3.0, 0.6), 24);
        // Decoding alone takes 19 of 20.
        assert_eq!(settled(16, 3.0, 1.0), PREFILL_ROWS_MIN);
        // Decoding alone takes 65 and 74; twice that has room for 10 and 19 rows.
        assert_eq!(settled(4, 25.0, 10.0), PRODUCT_ROWS - 4);
        assert_eq!(settled(1, 70.0, 4.0), 2 * PRODUCT_ROWS - 1);
    }

    #[test]
    fn without_neighbours_steps_are_longer() {
        assert_eq!(settled(0, 0.0, 0.45), 177);
        assert_eq!(settled(0, 0.0, 0.01), PREFILL_ROWS_MAX);
        assert_eq!(settled(0, 30.0, 10.0), PREFILL_ROWS_MIN_ALONE);
    }

    #[test]
    fn one_slow_step_changes_little() {
        let mut budget = StepBudget::new(20.0);
        for _ in 0..10 {
            budget.learn(4, 4, Duration::from_millis(6));
        }
        budget.learn(4, 4, Duration::from_millis(100));
        assert!(budget.decode_step < 0.012);
        budget.learn(4, 4, Duration::from_millis(5));
        assert_eq!(budget.decode_step, 0.005);
    }
}
