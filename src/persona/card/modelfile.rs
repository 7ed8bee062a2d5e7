//! Ollama Modelfiles: the system text, parameters and example messages of one make a persona.
//!
//! `FROM` and `TEMPLATE` say how a model is run, which is not a persona's to say: they are named and left out. `ADAPTER`
//! would change the weights: a file that needs one is refused.

use super::file::Imported;
use super::reading::{clean, clipped};
use super::{CardError, joined};
use crate::limits;
use serde_json::{Map, Number, Value, json};

const KEYWORDS: [&str; 9] =
    ["FROM", "SYSTEM", "PARAMETER", "TEMPLATE", "MESSAGE", "ADAPTER", "LICENSE", "REQUIRES", "RENDERER"];

/// One instruction of the file.
struct Instruction<'a> {
    /// From 1.
    line: usize,
    keyword: &'static str,
    /// Without quotes; may have several lines.
    value: &'a str,
}

/// What has been read.
#[derive(Default)]
struct Made {
    from: Option<String>,
    system: String,
    sampling: Map<String, Value>,
    stop: Vec<Value>,
    examples: Vec<String>,
    notes: Vec<String>,
}

pub fn import(bytes: &[u8]) -> Result<Imported, CardError> {
    let unknown = |what: &str| CardError::Unknown(what.to_owned());
    if bytes.len() > limits::CARD_BYTES_MAX {
        return Err(unknown("its first bytes are those of no known kind"));
    }
    let text =
        std::str::from_utf8(bytes).map_err(|_| unknown("its first bytes are those of no known kind"))?;
    let text = clean(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut made = Made::default();
    let mut rest = (1, text.as_str());
    let mut count = 0;
    while let Some(instruction) = next(&mut rest)? {
        made.take(&instruction)?;
        count += 1;
    }
    if count == 0 {
        return Err(unknown("the file is empty"));
    }
    Ok(made.imported())
}

/// The next instruction. `rest` is a line number and the text from there on.
fn next<'a>(rest: &mut (usize, &'a str)) -> Result<Option<Instruction<'a>>, CardError> {
    loop {
        let (line, text) = *rest;
        if text.is_empty() {
            return Ok(None);
        }
        let (first, after) = text.split_once('\n').unwrap_or((text, ""));
        let trimmed = first.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            *rest = (line + 1, after);
            continue;
        }
        let (word, value) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
        let known = KEYWORDS.iter().find(|known| word.eq_ignore_ascii_case(known));
        let keyword = *known.ok_or_else(|| match line {
            1 => CardError::Unknown("its first line is that of no known kind".to_owned()),
            _ => wrong(line, format!("`{}` is no instruction", clipped(word))),
        })?;
        // `MESSAGE role """` and `PARAMETER stop "x"` have their quotes behind a first word.
        let offset = value.find("\"\"\"").filter(|_| keyword != "PARAMETER");
        let Some(offset) = offset else {
            *rest = (line + 1, after);
            return Ok(Some(Instruction { line, keyword, value: value.trim() }));
        };
        // `value` is the end of `trimmed`, which is the end of `first` but for white space.
        let at = first.len() - first.trim_start().len() + trimmed.len() - value.len();
        let begin = at + offset + 3;
        let length = text[begin..].find("\"\"\"").ok_or_else(|| wrong(line, "the quotes are not closed"))?;
        let end = begin + length;
        let (inside, behind) = (&text[begin..end], &text[end + 3..]);
        let (remainder, after) = behind.split_once('\n').unwrap_or((behind, ""));
        if !remainder.trim().is_empty() {
            return Err(wrong(line, "there is text behind the closing quotes"));
        }
        let lines = inside.matches('\n').count();
        *rest = (line + lines + 1, after);
        // What stands before the quotes is a role.
        let begin = if value[..offset].trim().is_empty() { begin } else { at };
        return Ok(Some(Instruction { line, keyword, value: text[begin..end].trim() }));
    }
}

fn wrong(line: usize, message: impl Into<String>) -> CardError {
    CardError::Modelfile { line, message: message.into() }
}

/// A value without the quotes around it.
fn unquoted(value: &str) -> &str {
    let value = value.trim();
    let inside = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inside.unwrap_or(value)
}

impl Made {
    fn take(&mut self, instruction: &Instruction<'_>) -> Result<(), CardError> {
        let Instruction { line, keyword, value } = *instruction;
        match keyword {
            "SYSTEM" => self.system = unquoted(value).to_owned(),
            "PARAMETER" => self.parameter(line, value)?,
            "MESSAGE" => self.message(line, value)?,
            "FROM" => {
                let from = clipped(unquoted(value));
                self.notes.push(format!("`FROM {from}` was left out: a persona runs on the loaded model"));
                self.from = Some(from);
            }
            "ADAPTER" => {
                let message = format!(
                    "`ADAPTER {}` would change the model's weights, which a persona cannot; take the line out to import the rest",
                    clipped(value)
                );
                return Err(wrong(line, message));
            }
            other => {
                self.notes.push(format!("`{other}` (line {line}) was left out: the loaded model has its own"))
            }
        }
        Ok(())
    }

    fn parameter(&mut self, line: usize, value: &str) -> Result<(), CardError> {
        let (name, value) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
        let (name, value) = (name.to_lowercase(), unquoted(value));
        let ours = match name.as_str() {
            "temperature" | "top_p" | "top_k" | "min_p" | "typical_p" | "presence_penalty"
            | "frequency_penalty" | "seed" => name.as_str(),
            "repeat_penalty" => "repetition_penalty",
            "num_predict" => "max_tokens",
            "stop" => {
                self.stop.push(json!(value));
                return Ok(());
            }
            _ => {
                let shown = clipped(&name);
                self.notes
                    .push(format!("`PARAMETER {shown}` (line {line}) was left out: it is no persona's"));
                return Ok(());
            }
        };
        let wrong_number = || wrong(line, format!("`{}` is no number for `{ours}`", clipped(value)));
        let number = match value.parse::<i64>() {
            Ok(whole) => Number::from(whole),
            Err(_) => value.parse().ok().and_then(Number::from_f64).ok_or_else(wrong_number)?,
        };
        // Negative numbers of tokens are Ollama's words for "until it ends".
        if ours != "max_tokens" || number.as_i64().is_some_and(|tokens| tokens >= 0) {
            self.sampling.insert(ours.to_owned(), Value::Number(number));
        }
        Ok(())
    }

    fn message(&mut self, line: usize, value: &str) -> Result<(), CardError> {
        let (role, text) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
        let text = text.trim();
        let text = text.strip_prefix("\"\"\"").unwrap_or(unquoted(text)).trim();
        match role.to_lowercase().as_str() {
            "system" if self.system.is_empty() => self.system = text.to_owned(),
            "system" => self.system = format!("{}\n\n{text}", self.system),
            "user" => self.examples.push(format!("User: {text}")),
            "assistant" => self.examples.push(format!("Assistant: {text}")),
            _ => {
                let message = format!("`{}` is no role; allowed are system, user, assistant", clipped(role));
                return Err(wrong(line, message));
            }
        }
        Ok(())
    }

    fn imported(mut self) -> Imported {
        let examples = match self.examples.is_empty() {
            true => String::new(),
            false => format!("Example dialogue:\n{}", self.examples.join("\n")),
        };
        let system = joined(&[self.system.trim().to_owned(), examples]);
        if !self.stop.is_empty() {
            self.sampling.insert("stop".to_owned(), Value::Array(self.stop));
        }
        let mut fields = Map::new();
        fields.insert("system".to_owned(), json!(system));
        fields.insert("sampling".to_owned(), Value::Object(self.sampling));
        if let Some(from) = self.from {
            fields.insert("description".to_owned(), json!(format!("From a Modelfile for {from}")));
        }
        self.notes.truncate(limits::CARD_NOTES_MAX);
        Imported { kind: "Modelfile", name: None, fields, vectors: Map::new(), notes: self.notes }
    }
}
