//! llama.cpp's GBNF in the words of Lark: `root ::= "a" b+` becomes `start: "a" r_b+`.

use super::ConstraintError;

/// Whether a grammar is written in GBNF: no Lark grammar has `::=` outside a text.
pub(super) fn is_gbnf(text: &str) -> bool {
    for part in (Reader { text, at: 0 }) {
        match part {
            Ok(Part::Define) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

/// Rules keep their order, each on a line.
pub(super) fn to_lark(text: &str) -> Result<String, ConstraintError> {
    let parts: Vec<Part> = Reader { text, at: 0 }.collect::<Result<_, _>>()?;
    let mut lark = String::new();
    let (mut has_root, mut open) = (false, 0usize);
    for (at, part) in parts.iter().enumerate() {
        match part {
            // A name before `::=` begins a rule.
            Part::Name(name) if parts.get(at + 1) == Some(&Part::Define) => {
                has_root |= *name == "root";
                lark += &format!("\n{}:", rule(name));
            }
            Part::Name(name) => lark += &format!(" {}", rule(name)),
            Part::Define => {}
            Part::Text(text) => lark += &format!(" {text}"),
            Part::Class(class) => lark += &format!(" /{}/", class.replace('/', "\\/")),
            Part::Any => lark += " /(?s:.)/",
            Part::Sign(sign) => {
                match sign {
                    '(' => open += 1,
                    ')' => open = open.checked_sub(1).ok_or_else(|| refused("a `)` closes nothing"))?,
                    _ => {}
                }
                let before = if matches!(sign, '(' | '|') { " " } else { "" };
                lark += &format!("{before}{sign}");
            }
            Part::Repeat(repeat) => lark += repeat,
        }
    }
    match (has_root, open) {
        (true, 0) => Ok(lark.trim_start().to_owned() + "\n"),
        (true, _) => Err(refused("a `(` is not closed")),
        (false, _) => Err(refused("a GBNF grammar needs a rule `root`")),
    }
}

fn refused(why: &str) -> ConstraintError {
    ConstraintError::Shape(why.to_owned())
}

/// Names of GBNF may have dashes and capitals; Lark's rules may not. `_` doubled keeps different names different.
fn rule(name: &str) -> String {
    if name == "root" {
        return "start".to_owned();
    }
    let mut out = "r_".to_owned();
    for character in name.chars() {
        match character {
            '-' => out += "_d",
            '_' => out += "__",
            upper if upper.is_ascii_uppercase() => {
                out += "_u";
                out.push(upper.to_ascii_lowercase());
            }
            other => out.push(other),
        }
    }
    out
}

#[derive(Debug, PartialEq)]
enum Part<'a> {
    Name(&'a str),
    Define,
    /// In its quotes.
    Text(String),
    /// In its brackets.
    Class(&'a str),
    Any,
    /// `|`, `(`, `)`, `*`, `+` or `?`.
    Sign(char),
    /// `{3}`, `{3,}` or `{3,5}` in Lark's words.
    Repeat(String),
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Part<'a>, ConstraintError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = &self.text[self.at..];
            let first = rest.chars().next()?;
            match first {
                '#' => self.at += rest.find('\n').unwrap_or(rest.len()),
                space if space.is_whitespace() => self.at += space.len_utf8(),
                _ => {
                    let part = self.part(rest, first);
                    if part.is_err() {
                        self.at = self.text.len();
                    }
                    return Some(part);
                }
            }
        }
    }
}

impl<'a> Reader<'a> {
    fn part(&mut self, rest: &'a str, first: char) -> Result<Part<'a>, ConstraintError> {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let (part, length) = match first {
            letter if is_letter(letter) => {
                let length = rest.find(|c| !is_letter(c)).unwrap_or(rest.len());
                (Part::Name(&rest[..length]), length)
            }
            ':' if rest.starts_with("::=") => (Part::Define, 3),
            '"' => {
                let length = closing(rest, '"')?;
                (Part::Text(rest[..length].replace('\n', "\\n")), length)
            }
            '[' => {
                let length = closing(rest, ']')?;
                (Part::Class(&rest[..length]), length)
            }
            '{' => {
                let length = closing(rest, '}')?;
                (Part::Repeat(repeat(&rest[1..length - 1])?), length)
            }
            '.' => (Part::Any, 1),
            '|' | '(' | ')' | '*' | '+' | '?' => (Part::Sign(first), 1),
            other => return Err(refused(&format!("`{}` is no part of GBNF", other.escape_debug()))),
        };
        self.at += length;
        Ok(part)
    }
}

/// Bytes up to the closing sign and with it; a backslash keeps the next character from closing.
fn closing(rest: &str, sign: char) -> Result<usize, ConstraintError> {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            found if found == sign => return Ok(at + found.len_utf8()),
            _ => {}
        }
    }
    Err(refused(&format!("a `{sign}` is missing")))
}

fn repeat(inner: &str) -> Result<String, ConstraintError> {
    let number = |text: &str| {
        text.trim().parse::<u16>().map_err(|_| refused(&format!("`{{{inner}}}` is no number of repetitions")))
    };
    Ok(match inner.split_once(',') {
        None => format!("{{{}}}", number(inner)?),
        Some((low, high)) if high.trim().is_empty() => format!("{{{},}}", number(low)?),
        Some((low, high)) if low.trim().is_empty() => format!("{{0,{}}}", number(high)?),
        Some((low, high)) => format!("{{{},{}}}", number(low)?, number(high)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules() {
        for (given, lark) in [
            (
                "root ::= \"a\" b-c+\nb-c ::= [0-9] | (\"x\" B)? # why\nB ::= .{2,}",
                concat!(
                    "start: \"a\" r_b_dc+\n",
                    "r_b_dc: /[0-9]/ | ( \"x\" r__ub)?\n",
                    "r__ub: /(?s:.)/{2,}\n",
                ),
            ),
            ("root ::= [/\\]\"]{3} \"\\\"\"", "start: /[\\/\\]\"]/{3} \"\\\"\"\n"),
        ] {
            assert!(is_gbnf(given));
            assert_eq!(to_lark(given).expect("a grammar"), lark);
        }
        assert!(!is_gbnf("start: \"::=\""));
    }

    #[test]
    fn refusals() {
        for given in
            ["x ::= \"a\"", "root ::= \"a", "root ::= (a", "root ::= a)", "root ::= a{b}", "root ::= %"]
        {
            to_lark(given).expect_err(given);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(root|::=|[\\[\\](){}\"|*+?.,#\\\\ \na-c1é-])*") {
            let _ = to_lark(&text);
            let _ = is_gbnf(&text);
        }
    }
}
