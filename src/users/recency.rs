//! Recency: how the age of a history item counts, where the operator wants it to.

use super::time::Timestamp;

/// How the age of an item counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recency {
    /// Not at all.
    Uniform,
    /// An item of this many days counts half.
    HalfLife { days: f64 },
}

impl Recency {
    /// Days are whole and counted from the beginning of a day in UTC: two requests of one day get the same bytes.
    pub fn factor(self, item_day: i64, as_of_day: i64) -> f32 {
        match self {
            Recency::Uniform => 1.0,
            Recency::HalfLife { days } => {
                let age = (as_of_day - item_day).max(0) as f64;
                (-age / days).exp2() as f32
            }
        }
    }

    /// The day that ages are counted from; `None` where no age counts.
    pub fn as_of_day(self, now: Timestamp) -> Option<i64> {
        match self {
            Recency::Uniform => None,
            Recency::HalfLife { .. } => Some(now.day()),
        }
    }

    /// How a stored soft prompt says what it was made with.
    pub fn label(self) -> String {
        match self {
            Recency::Uniform => "uniform".to_owned(),
            Recency::HalfLife { days } => format!("half-life {days} days"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_halves() {
        let recency = Recency::HalfLife { days: 30.0 };
        assert_eq!(recency.factor(100, 100), 1.0);
        assert_eq!(recency.factor(70, 100), 0.5);
        assert_eq!(recency.factor(40, 100), 0.25);
        assert_eq!(recency.factor(101, 100), 1.0, "an item from tomorrow (another time zone) is new");
        assert_eq!(recency.factor(i64::from(i32::MIN), 100), 0.0);
        assert_eq!(Recency::Uniform.factor(-5, 100), 1.0);
    }
}
