//! What chat templates call beside the engine's own: errors, the date.

use minijinja::{Error, ErrorKind, Value};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// The time now, in UTC: the same chat renders the same everywhere.
pub(super) fn strftime_now(format: &str) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    strftime(format, seconds)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// The specifiers that templates use; any other is kept as it is.
fn strftime(format: &str, seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days as i64);
    let name = MONTHS[month as usize - 1];
    let weekday = DAYS[(days % 7) as usize];
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let part = match characters.next() {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('B') => name.to_owned(),
            Some('b') => name[..3].to_owned(),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('H') => format!("{:02}", second / 3600),
            Some('M') => format!("{:02}", second / 60 % 60),
            Some('S') => format!("{:02}", second % 60),
            Some('%') => "%".to_owned(),
            Some(other) => format!("%{other}"),
            None => "%".to_owned(),
        };
        out += &part;
    }
    out
}

/// Year, month and day of a day counted from 1970-01-01, from the year 1 on. Years are counted from March, so that the
/// leap day is last; 400 of them are 146,097 days.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// Without `{% generation %}` and `{% endgeneration %}`, which only mark text for training: an `if` in their place
/// keeps what white space control they ask for.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let inner = tag.trim_start_matches("{%").trim_end_matches("%}");
        let word = inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        match word {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "1970-01-01 Thu Thursday 00:00:00"),
            (951_782_400, "2000-02-29 Tue Tuesday 00:00:00"),
            (1_735_689_599, "2024-12-31 Tue Tuesday 23:59:59"),
            (4_107_542_400, "2100-03-01 Mon Monday 00:00:00"),
        ] {
            assert_eq!(strftime("%Y-%m-%d %a %A %H:%M:%S", seconds), expected);
        }
        assert_eq!(strftime("%d %b %B %y %% %q %", 951_782_400), "29 Feb February 00 % %q %");
    }

    #[test]
    fn generation_tags() {
        for (source, expected) in [
            ("a{% generation %}b{%- endgeneration -%}c", "a{% if true %}b{%- endif -%}c"),
            ("{% if generation %}x{% endif %}", "{% if generation %}x{% endif %}"),
            ("open {% generation", "open {% generation"),
        ] {
            assert_eq!(without_generation_tags(source), expected);
        }
    }
}
