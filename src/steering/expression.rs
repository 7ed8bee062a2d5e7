//! The steering expression: `0.8 warm[8..16]@response - 0.3 formal`.
//!
//! ```text
//! expression = [ sign term { sign term } ]          the first sign may be left out; empty = no steering
//! term       = [ sign ] [ number ] [ "!" ] name { "[" range { "," range } "]" | "@" place }
//! range      = block [ ".." block ]                 inclusive
//! place      = "all" | "prompt" | "response" | "thinking" | "last" | "first:" count | "after:" count
//!            | "when:" name ">" number
//! ```
//! Spaces may stand between any two of these. A name may contain `-`, so a minus after a name needs a space before it; a
//! term that begins with a digit begins with a coefficient (`1 8bit` for the name `8bit`).

use super::blocks::BlockSet;
use super::error::SteeringError;
use super::names;
use crate::limits;
use crate::model::RowRule;
use std::fmt;

/// A parsed expression; no terms = no steering.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expression {
    pub terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The sign before the term is part of it. Never negative zero, always finite.
    pub coefficient: f32,
    pub operation: Operation,
    pub name: String,
    /// `None`: all blocks of the vector.
    pub blocks: Option<BlockSet>,
    pub positions: Positions,
    pub when: Option<When>,
}

/// What is done with the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Add,
    /// `!name`: parsed, not built yet.
    Ablate,
}

/// The rows that are steered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Positions {
    #[default]
    All,
    Prompt,
    Response,
    /// The reasoning part of a reply: parsed, not built yet.
    Thinking,
    /// The last prompt token, which predicts the first reply token; the same rows as `First(1)`.
    Last,
    First(u32),
    After(u32),
}

/// `@when:name>above`: parsed, not built yet.
#[derive(Clone, Debug, PartialEq)]
pub struct When {
    pub name: String,
    pub above: f32,
}

impl Positions {
    /// Reads what stands after `@`, or the list form's `positions`.
    pub fn parse(text: &str) -> Result<Positions, String> {
        let count = |digits: &str| {
            digits.parse::<u32>().map_err(|_| format!("`{digits}` is no count of tokens (0 to {})", u32::MAX))
        };
        match text.split_once(':') {
            None => match text {
                "all" => Ok(Positions::All),
                "prompt" => Ok(Positions::Prompt),
                "response" => Ok(Positions::Response),
                "thinking" => Ok(Positions::Thinking),
                "last" => Ok(Positions::Last),
                _ => Err(format!("`{text}` is no position; {POSITIONS_ALLOWED}")),
            },
            Some(("first", digits)) => match count(digits)? {
                0 => Err("`first:0` names no token; at least `first:1`".to_owned()),
                n => Ok(Positions::First(n)),
            },
            Some(("after", digits)) => Ok(Positions::After(count(digits)?)),
            Some(_) => Err(format!("`{text}` is no position; {POSITIONS_ALLOWED}")),
        }
    }

    /// The model's rule; `None` for what is not built yet.
    pub fn rows(self) -> Option<RowRule> {
        match self {
            Positions::All => Some(RowRule::All),
            Positions::Prompt => Some(RowRule::Prompt),
            Positions::Response => Some(RowRule::Response),
            Positions::Thinking => None,
            Positions::Last => Some(RowRule::First(1)),
            Positions::First(n) => Some(RowRule::First(n)),
            Positions::After(n) => Some(RowRule::After(n)),
        }
    }
}

const POSITIONS_ALLOWED: &str = "allowed: all, prompt, response, last, first:N, after:N";

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Positions::All => f.write_str("all"),
            Positions::Prompt => f.write_str("prompt"),
            Positions::Response => f.write_str("response"),
            Positions::Thinking => f.write_str("thinking"),
            Positions::Last => f.write_str("last"),
            Positions::First(n) => write!(f, "first:{n}"),
            Positions::After(n) => write!(f, "after:{n}"),
        }
    }
}

impl fmt::Display for Expression {
    /// The canonical form: it parses to the same expression.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            match (index, term.coefficient < 0.0) {
                (0, false) => {}
                (0, true) => f.write_str("-")?,
                (_, false) => f.write_str(" + ")?,
                (_, true) => f.write_str(" - ")?,
            }
            write!(f, "{term}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Term {
    /// Without its sign.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.coefficient.abs();
        let marked = self.operation == Operation::Ablate;
        if size != 1.0 || (!marked && self.name.starts_with(|first: char| first.is_ascii_digit())) {
            write!(f, "{size} ")?;
        }
        if marked {
            f.write_str("!")?;
        }
        f.write_str(&self.name)?;
        if let Some(blocks) = &self.blocks {
            write!(f, "{blocks}")?;
        }
        if self.positions != Positions::All {
            write!(f, "@{}", self.positions)?;
        }
        if let Some(when) = &self.when {
            write!(f, "@when:{}>{}", when.name, when.above)?;
        }
        Ok(())
    }
}

impl Expression {
    /// Parses `text`. Errors name `param` and the byte offset.
    pub fn parse(text: &str, param: &str) -> Result<Expression, SteeringError> {
        if text.len() > limits::EXPRESSION_BYTES_MAX {
            let message = format!(
                "an expression of {} bytes is too long; at most {}",
                text.len(),
                limits::EXPRESSION_BYTES_MAX
            );
            return Err(SteeringError::range(param, message));
        }
        let mut parser = Parser { text, at: 0, param };
        let expression = parser.expression()?;
        if expression.terms.len() > limits::INTERVENTIONS_MAX {
            return Err(SteeringError::TooMany {
                param: param.to_owned(),
                given: expression.terms.len(),
                max: limits::INTERVENTIONS_MAX,
            });
        }
        Ok(expression)
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Byte offset of the next character, always at a character boundary.
    at: usize,
    param: &'a str,
}

impl Parser<'_> {
    fn expression(&mut self) -> Result<Expression, SteeringError> {
        let mut terms = Vec::new();
        self.skip_spaces();
        if self.peek().is_none() {
            return Ok(Expression::default());
        }
        let mut sign = self.sign().unwrap_or(1.0);
        loop {
            terms.push(self.term(sign)?);
            self.skip_spaces();
            if self.peek().is_none() {
                return Ok(Expression { terms });
            }
            sign = self.sign().ok_or_else(|| {
                self.expected(
                    "`+`, `-`, `[`, `@` or the end (a name may contain `-`: put a space before a minus)",
                )
            })?;
        }
    }

    fn term(&mut self, sign: f32) -> Result<Term, SteeringError> {
        self.skip_spaces();
        let sign = sign * self.sign().unwrap_or(1.0);
        self.skip_spaces();
        let size = if self.at_number() { self.number()? } else { 1.0 };
        self.skip_spaces();
        let operation = if self.take(b'!') { Operation::Ablate } else { Operation::Add };
        self.skip_spaces();
        let name = self.name()?;
        // `+ 0.0` turns a negative zero into zero.
        let coefficient = sign * size + 0.0;
        let mut term =
            Term { coefficient, operation, name, blocks: None, positions: Positions::All, when: None };
        let mut placed = false;
        loop {
            self.skip_spaces();
            let start = self.at;
            if self.take(b'[') {
                if term.blocks.is_some() {
                    return Err(self.syntax(start, "a second block range in one term"));
                }
                term.blocks = Some(self.blocks()?);
            } else if self.take(b'@') {
                self.place(&mut term, &mut placed, start)?;
            } else {
                return Ok(term);
            }
        }
    }

    /// `8..16]` or `3]` or `1,4..6]`, after the opening bracket.
    fn blocks(&mut self) -> Result<BlockSet, SteeringError> {
        let start = self.at;
        let mut ranges = Vec::new();
        loop {
            self.skip_spaces();
            let first = self.count("a block number")?;
            self.skip_spaces();
            let last = if self.take_all("..") {
                self.skip_spaces();
                self.count("the last block of the range")?
            } else {
                first
            };
            if first > last {
                return Err(self.syntax(start, &format!("the range {first}..{last} runs backwards")));
            }
            ranges.push((first, last));
            self.skip_spaces();
            if self.take(b']') {
                break;
            }
            if !self.take(b',') {
                return Err(self.expected("`..`, `,` or `]`"));
            }
        }
        BlockSet::from_ranges(ranges).ok_or_else(|| self.syntax(start, "no block"))
    }

    /// What stands after `@`.
    fn place(&mut self, term: &mut Term, placed: &mut bool, start: usize) -> Result<(), SteeringError> {
        self.skip_spaces();
        if self.take_all("when:") {
            if term.when.is_some() {
                return Err(self.syntax(start, "a second condition in one term"));
            }
            self.skip_spaces();
            let name = self.name()?;
            self.skip_spaces();
            if !self.take(b'>') {
                return Err(self.expected("`>`"));
            }
            self.skip_spaces();
            let sign = self.sign().unwrap_or(1.0);
            let above = sign * self.number()? + 0.0;
            term.when = Some(When { name, above });
            return Ok(());
        }
        if *placed {
            return Err(self.syntax(start, "a second position in one term"));
        }
        let word_start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b':') {
            self.at += 1;
        }
        let word = &self.text[word_start..self.at];
        if word.is_empty() {
            return Err(self.expected(&format!("a position after `@`; {POSITIONS_ALLOWED}")));
        }
        term.positions = Positions::parse(word).map_err(|message| self.syntax(word_start, &message))?;
        *placed = true;
        Ok(())
    }

    fn name(&mut self) -> Result<String, SteeringError> {
        let start = self.at;
        if !self.peek().is_some_and(names::is_name_start) {
            return Err(self.expected("a name (small letters, digits, `.`, `_`, `-`)"));
        }
        while self.peek().is_some_and(names::is_name_byte) {
            self.at += 1;
        }
        let name = &self.text[start..self.at];
        if name.len() > names::NAME_BYTES_MAX {
            let message = format!("a name of {} characters; at most {}", name.len(), names::NAME_BYTES_MAX);
            return Err(self.syntax(start, &message));
        }
        Ok(name.to_owned())
    }

    fn at_number(&self) -> bool {
        match self.peek() {
            Some(b'.') => self.byte(1).is_some_and(|byte| byte.is_ascii_digit()),
            Some(byte) => byte.is_ascii_digit(),
            None => false,
        }
    }

    /// Digits with at most one point, and an exponent if no name could begin right after it.
    fn number(&mut self) -> Result<f32, SteeringError> {
        if !self.at_number() {
            return Err(self.expected("a number"));
        }
        let start = self.at;
        self.skip_digits();
        if self.peek() == Some(b'.') && self.byte(1).is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
            self.skip_digits();
        }
        self.skip_exponent();
        let digits = &self.text[start..self.at];
        let value = digits.parse::<f64>().map_err(|_| self.syntax(start, "no number"))? as f32;
        if !value.is_finite() {
            return Err(SteeringError::range(
                self.param,
                format!("the number `{digits}` at byte {start} is too large"),
            ));
        }
        Ok(value)
    }

    fn skip_exponent(&mut self) {
        let before = self.at;
        if !matches!(self.peek(), Some(b'e' | b'E')) {
            return;
        }
        self.at += 1;
        if matches!(self.peek(), Some(b'+' | b'-')) {
            self.at += 1;
        }
        let digits = self.at;
        self.skip_digits();
        if self.at == digits || self.peek().is_some_and(names::is_name_byte) {
            self.at = before;
        }
    }

    fn count(&mut self, what: &str) -> Result<u32, SteeringError> {
        let start = self.at;
        self.skip_digits();
        if self.at == start {
            return Err(self.expected(what));
        }
        let digits = &self.text[start..self.at];
        digits.parse().map_err(|_| self.syntax(start, &format!("`{digits}` is too large")))
    }

    fn sign(&mut self) -> Option<f32> {
        let sign = match self.peek()? {
            b'+' => 1.0,
            b'-' => -1.0,
            _ => return None,
        };
        self.at += 1;
        Some(sign)
    }

    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn take_all(&mut self, wanted: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(wanted.as_bytes());
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    fn peek(&self) -> Option<u8> {
        self.byte(0)
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn expected(&self, what: &str) -> SteeringError {
        let found = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(found) if found.is_ascii_uppercase() => {
                format!("found `{found}` (names are written in small letters)")
            }
            Some(found) => format!("found `{}`", found.escape_debug()),
            None => "found the end".to_owned(),
        };
        self.syntax(self.at, &format!("expected {what}; {found}"))
    }

    fn syntax(&self, offset: usize, message: &str) -> SteeringError {
        SteeringError::Syntax {
            param: self.param.to_owned(),
            offset: Some(offset),
            message: message.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What parses, and its canonical form.
    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("", ""),
            (" \n", ""),
            ("warm", "warm"),
            ("0.8 warm", "0.8 warm"),
            ("0.8warm", "0.8 warm"),
            ("+.5 warm", "0.5 warm"),
            ("-warm", "-warm"),
            ("- - warm", "warm"),
            ("0.8 warm - 0.3 formal", "0.8 warm - 0.3 formal"),
            ("0.8 warm + -0.3 formal", "0.8 warm - 0.3 formal"),
            ("-0 warm", "0 warm"),
            ("1e-320 warm", "0 warm"),
            ("2e1 warm", "20 warm"),
            ("2e1warm", "2 e1warm"),
            ("1 8bit", "1 8bit"),
            ("8bit", "8 bit"),
            ("1.0 warm@all", "warm"),
            ("warm[8..16]@response", "warm[8..16]@response"),
            ("warm @ response [ 8 .. 16 ]", "warm[8..16]@response"),
            ("warm[3]", "warm[3]"),
            ("warm[9,3..4,10]", "warm[3..4,9..10]"),
            ("warm@first:3 + cold@after:0", "warm@first:3 + cold@after:0"),
            ("warm@last", "warm@last"),
            ("warm.cold", "warm.cold"),
            ("!refusal", "!refusal"),
            ("0.5 ! refusal", "0.5 !refusal"),
            ("warm@when:topic>0.4@response", "warm@response@when:topic>0.4"),
            ("warm@when:topic > -0.4", "warm@when:topic>-0.4"),
            (
                "0.8 warm[8..16]@response - 0.3 formal + !refusal",
                "0.8 warm[8..16]@response - 0.3 formal + !refusal",
            ),
        ] {
            let parsed =
                Expression::parse(text, "steering").unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parsed.to_string(), canonical, "{text}");
            assert_eq!(Expression::parse(canonical, "steering").as_ref(), Ok(&parsed), "{text}");
        }
    }

    /// What does not parse: where, and a part of the message.
    #[test]
    fn errors_say_where() {
        for (text, offset, part) in [
            ("0.8", 3, "expected a name"),
            ("0.8 Warm", 4, "small letters"),
            ("warm cold", 5, "expected `+`, `-`"),
            ("warm- 0.3 formal", 6, "put a space before a minus"),
            ("warm +", 6, "found the end"),
            ("warm * 2", 5, "found `*`"),
            ("wärm", 1, "found `ä`"),
            ("warm[", 5, "a block number"),
            ("warm[8..]", 8, "the last block"),
            ("warm[9..8]", 5, "runs backwards"),
            ("warm[8", 6, "`..`, `,` or `]`"),
            ("warm[1][2]", 7, "second block range"),
            ("warm[99999999999]", 5, "too large"),
            ("warm@", 5, "a position after `@`"),
            ("warm@always", 5, "no position"),
            ("warm@first", 5, "no position"),
            ("warm@first:0", 5, "at least"),
            ("warm@first:x", 5, "no count"),
            ("warm@all@prompt", 8, "second position"),
            ("warm@when:x", 11, "expected `>`"),
            ("warm@when:x>y", 12, "a number"),
            ("warm@when:x>1@when:y>1", 13, "second condition"),
            ("1.warm", 1, "expected a name"),
            ("--- warm", 2, "expected a name"),
        ] {
            match Expression::parse(text, "steering") {
                Err(SteeringError::Syntax { offset: found, message, .. }) => {
                    assert_eq!(found, Some(offset), "{text}: {message}");
                    assert!(message.contains(part), "{text}: {message}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        let long = format!("1 {}", "a".repeat(65));
        assert!(matches!(Expression::parse(&long, "s"), Err(SteeringError::Syntax { offset: Some(2), .. })));
    }

    #[test]
    fn bounds() {
        let nine = ["a"; 9].join(" + ");
        assert!(matches!(
            Expression::parse(&nine, "s"),
            Err(SteeringError::TooMany { given: 9, max: 8, .. })
        ));
        assert!(matches!(Expression::parse(&" ".repeat(1025), "s"), Err(SteeringError::Range { .. })));
        assert!(matches!(Expression::parse("1e39 warm", "s"), Err(SteeringError::Range { .. })));
    }

    fn term() -> impl Strategy<Value = Term> {
        let name = "[a-z0-9][a-z0-9._-]{0,12}";
        let coefficient = prop_oneof![Just(1.0f32), Just(0.0), -100.0f32..100.0, Just(1e-7), Just(-1e9)];
        let blocks = proptest::option::of(proptest::collection::vec((0u32..40, 0u32..9), 1..4));
        let positions = prop_oneof![
            Just(Positions::All),
            Just(Positions::Prompt),
            Just(Positions::Response),
            Just(Positions::Thinking),
            Just(Positions::Last),
            (1..9u32).prop_map(Positions::First),
            (0..9u32).prop_map(Positions::After),
        ];
        let when = proptest::option::of((name, -9.0f32..9.0));
        (coefficient, any::<bool>(), name, blocks, positions, when).prop_map(
            |(coefficient, ablate, name, blocks, positions, when)| Term {
                coefficient: coefficient + 0.0,
                operation: if ablate { Operation::Ablate } else { Operation::Add },
                name,
                blocks: blocks.and_then(|ranges| {
                    BlockSet::from_ranges(ranges.into_iter().map(|(first, n)| (first, first + n)).collect())
                }),
                positions,
                when: when.map(|(name, above)| When { name, above: above + 0.0 }),
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(terms in proptest::collection::vec(term(), 0..8)) {
            let expression = Expression { terms };
            prop_assert_eq!(Expression::parse(&expression.to_string(), "s"), Ok(expression));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = Expression::parse(&text, "s");
        }

        #[test]
        fn no_near_expression_panics(text in "[a-z0-9.@!\\[\\]:,>+ -]{0,40}") {
            if let Ok(expression) = Expression::parse(&text, "s") {
                prop_assert_eq!(Expression::parse(&expression.to_string(), "s"), Ok(expression));
            }
        }
    }
}
