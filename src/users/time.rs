//! Points in time as people write them: RFC 3339 to whole Unix seconds, and back.

use crate::text::civil;
use std::fmt;

/// Whole seconds since 1970-01-01T00:00:00Z; years 1 to 9999, without leap seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

pub const DAY_SECONDS: i64 = 86_400;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

impl Timestamp {
    pub const EPOCH: Timestamp = Timestamp(0);

    /// `None` outside the years 1 to 9999.
    pub fn from_unix(seconds: i64) -> Option<Timestamp> {
        RANGE.contains(&seconds).then_some(Timestamp(seconds))
    }

    pub fn unix(self) -> i64 {
        self.0
    }

    /// Days since 1970-01-01, UTC.
    pub fn day(self) -> i64 {
        self.0.div_euclid(DAY_SECONDS)
    }

    /// `2026-01-02T03:04:05Z`, with any fraction (dropped) and `Z` or an offset. A leap second is the second after it.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let bytes = text.as_bytes();
        let year = digits(bytes, 0, 4)?;
        let month = digits(bytes, 5, 2)?;
        let day = digits(bytes, 8, 2)?;
        let hour = digits(bytes, 11, 2)?;
        let minute = digits(bytes, 14, 2)?;
        let second = digits(bytes, 17, 2)?;
        let punctuated = bytes[4] == b'-'
            && bytes[7] == b'-'
            && matches!(bytes[10], b'T' | b't' | b' ')
            && bytes[13] == b':'
            && bytes[16] == b':';
        let in_range = (1..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_of_month(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60;
        if !punctuated || !in_range {
            return None;
        }
        let offset = offset_seconds(without_fraction(&bytes[19..])?)?;
        let local = days_since_epoch(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second;
        Timestamp::from_unix(local - offset)
    }
}

/// `text[at..at + n]` as a number; only digits count.
fn digits(text: &[u8], at: usize, n: usize) -> Option<i64> {
    let part = text.get(at..at + n)?;
    part.iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// What follows the seconds, after `.` and at least one digit where there is a fraction.
fn without_fraction(rest: &[u8]) -> Option<&[u8]> {
    let Some(fraction) = rest.strip_prefix(b".") else { return Some(rest) };
    let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (length > 0).then(|| &fraction[length..])
}

fn offset_seconds(zone: &[u8]) -> Option<i64> {
    let sign = match zone {
        b"Z" | b"z" => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let (hours, minutes) = (digits(zone, 1, 2)?, digits(zone, 4, 2)?);
    let formed = zone.len() == 6 && zone[3] == b':' && hours < 24 && minutes < 60;
    formed.then_some(sign * (hours * 3600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first day of a year.
fn days_before_year(year: i64) -> i64 {
    let past = year - 1;
    // 719,162 days lie between 0001-01-01 and 1970-01-01.
    365 * past + past / 4 - past / 100 + past / 400 - 719_162
}

fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let months: i64 = (1..month).map(|month| days_of_month(year, month)).sum();
    days_before_year(year) + months + day - 1
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.day(), self.0.rem_euclid(DAY_SECONDS));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        let table = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-01-02T03:04:05Z", Some(1_767_323_045)),
            ("2026-01-02t03:04:05.999z", Some(1_767_323_045)),
            ("2026-01-02 05:34:05+02:30", Some(1_767_323_045)),
            ("2026-01-01T22:04:05-05:00", Some(1_767_323_045)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800)),
            ("0001-01-01T00:00:00Z", Some(*RANGE.start())),
            ("9999-12-31T23:59:59Z", Some(*RANGE.end())),
            ("0001-01-01T00:00:00+00:01", None),
            ("1900-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-00-01T00:00:00Z", None),
            ("2026-01-32T00:00:00Z", None),
            ("2026-01-02T24:00:00Z", None),
            ("2026-01-02T03:04:05", None),
            ("2026-01-02T03:04:05.Z", None),
            ("2026-01-02T03:04:05+0100", None),
            ("2026-01-02", None),
            ("2026-01-02T03:04Z", None),
            ("+026-01-02T03:04:05Z", None),
            ("2026-01-02T03:04:05Z ", None),
            ("٢٠٢٦-01-02T03:04:05Z", None),
            ("yesterday", None),
            ("", None),
        ];
        for (text, seconds) in table {
            assert_eq!(Timestamp::parse(text).map(Timestamp::unix), seconds, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_second_comes_back(seconds in RANGE) {
            let time = Timestamp::from_unix(seconds).unwrap();
            let text = time.to_string();
            prop_assert_eq!(text.len(), 20);
            prop_assert_eq!(Timestamp::parse(&text), Some(time));
        }

        #[test]
        fn later_is_greater_as_text(a in RANGE, b in RANGE) {
            let (a, b) = (Timestamp(a), Timestamp(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn an_offset_shifts(seconds in 0i64..4_000_000_000, hours in 0i64..24, minutes in 0i64..60) {
            let local = Timestamp(seconds).to_string().replace('Z', &format!("+{hours:02}:{minutes:02}"));
            let expected = Timestamp::from_unix(seconds - hours * 3600 - minutes * 60);
            prop_assert_eq!(Timestamp::parse(&local), expected);
        }

        #[test]
        fn any_text_is_refused_or_in_range(text in "[0-9TtZz:.+ -]{0,32}|\\PC{0,24}") {
            if let Some(time) = Timestamp::parse(&text) {
                prop_assert!(RANGE.contains(&time.unix()));
            }
        }
    }
}
