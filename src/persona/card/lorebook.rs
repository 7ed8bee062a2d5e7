//! A card's lorebook as it is applied: entries that could ever be in force, their keys compiled.

use super::CardError;
use super::decorators::Decorators;
use super::macros::{Names, USER, expand};
use super::reading::{Data, clean, clipped};
use crate::limits;
use regex::{Regex, RegexBuilder};
use serde_json::{Value, json};

/// Entries in the order of the card, and how they are looked for.
#[derive(Clone, Debug, Default)]
pub struct Lorebook {
    /// Messages at the end of the chat that keys are looked for in.
    pub scan_depth: u32,
    /// Tokens of all entries in force together.
    pub token_budget: u32,
    /// Whether entries in force may bring in others by their contents.
    pub recursive: bool,
    pub entries: Vec<Entry>,
}

/// One entry. Its content is not empty, placeholders stand in it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub content: String,
    /// One of them must occur, unless `constant`.
    pub keys: Vec<Key>,
    /// Of each list one must occur beside: `secondary_keys` and the decorator's.
    pub also: Vec<Vec<Key>>,
    /// None of them may occur.
    pub excluded: Vec<Key>,
    /// In force without keys; the decorators' conditions hold all the same.
    pub constant: bool,
    /// In force whatever else is said.
    pub forced: bool,
    pub scan_depth: Option<u32>,
    /// From so many answers on.
    pub after_answers: Option<u32>,
    /// At multiples of so many answers.
    pub every_answers: Option<u32>,
    /// Lower comes first.
    pub order: f64,
    /// The lowest is left out first where the budget is full.
    pub priority: f64,
    /// Stands before those that are not.
    pub before: bool,
}

/// What is looked for.
#[derive(Clone, Debug)]
pub enum Key {
    Text {
        text: String,
    },
    /// In lower case, looked for in lower case.
    Folded {
        text: String,
    },
    Pattern(Box<Regex>),
}

impl Key {
    /// Whether it occurs in `text`; `folded` is the same in lower case.
    pub fn occurs_in(&self, text: &str, folded: &str) -> bool {
        match self {
            Key::Text { text: key } => text.contains(key.as_str()),
            Key::Folded { text: key } => folded.contains(key.as_str()),
            Key::Pattern(pattern) => pattern.is_match(text),
        }
    }

    fn canonical(&self) -> Value {
        match self {
            Key::Text { text } => json!({"text": text}),
            Key::Folded { text } => json!({"folded": text}),
            Key::Pattern(pattern) => json!({"pattern": pattern.as_str()}),
        }
    }
}

/// Counts of what has been read, and what a person should know.
struct Reader<'a> {
    character: &'a str,
    keys: usize,
    patterns: usize,
    notes: Vec<String>,
}

/// How the keys of one entry are meant.
#[derive(Clone, Copy)]
struct Kind {
    is_pattern: bool,
    is_exact: bool,
}

impl Lorebook {
    /// Reads `character_book`; `character` is what `{{char}}` in keys stands for.
    pub fn read(data: &Data<'_>, character: &str) -> Result<(Lorebook, Vec<String>), CardError> {
        let mut reader = Reader { character, keys: 0, patterns: 0, notes: Vec::new() };
        let list = data.list("entries")?;
        CardError::check_count(list.len(), limits::LORE_ENTRIES_MAX, || {
            format!("`{}`", data.path("entries"))
        })?;
        let mut entries = Vec::new();
        for (at, entry) in list.iter().enumerate() {
            let entry = Data::of(entry, &format!("{}[{at}]", data.path("entries")))?;
            entries.extend(reader.entry(&entry)?);
        }
        let number = |name: &str, default: u32, max: u32| -> Result<u32, CardError> {
            Ok(data.number(name)?.map_or(default, |number| number.clamp(0.0, f64::from(max)) as u32))
        };
        let book = Lorebook {
            scan_depth: number("scan_depth", limits::LORE_SCAN_DEPTH, limits::LORE_SCAN_DEPTH_MAX)?,
            // Zero is how editors write "nothing said".
            token_budget: match number("token_budget", limits::LORE_TOKENS, limits::LORE_TOKENS_MAX)? {
                0 => limits::LORE_TOKENS,
                tokens => tokens,
            },
            recursive: data.flag("recursive_scanning")?.unwrap_or(false),
            entries,
        };
        Ok((book, reader.notes))
    }

    /// All that an answer may depend on, as text.
    pub fn canonical(&self) -> String {
        let keys = |keys: &[Key]| keys.iter().map(Key::canonical).collect::<Vec<Value>>();
        let entries = self.entries.iter().map(|entry| {
            json!([
                entry.content,
                keys(&entry.keys),
                entry.also.iter().map(|list| keys(list)).collect::<Vec<_>>(),
                keys(&entry.excluded),
                [entry.constant, entry.forced, entry.before],
                [entry.scan_depth, entry.after_answers, entry.every_answers],
                [entry.order, entry.priority],
            ])
        });
        json!([self.scan_depth, self.token_budget, self.recursive, entries.collect::<Vec<_>>()]).to_string()
    }
}

impl Reader<'_> {
    /// `None`: the entry can never be in force.
    fn entry(&mut self, data: &Data<'_>) -> Result<Option<Entry>, CardError> {
        let kind = Kind {
            is_pattern: data.flag("use_regex")?.unwrap_or(false),
            is_exact: data.flag("case_sensitive")?.unwrap_or(false),
        };
        let keys = self.keys(&data.texts("keys")?, kind, data)?;
        let secondary = match data.flag("selective")? {
            Some(true) if !kind.is_pattern => data.texts("secondary_keys")?,
            _ => Vec::new(),
        };
        let constant = data.flag("constant")?.unwrap_or(false) && !kind.is_pattern;
        let (order, priority) = (data.number("insertion_order")?, data.number("priority")?);
        let enabled = data.flag("enabled")?.unwrap_or(true);
        let content = clean(data.text("content")?);
        let (decorators, content) = Decorators::read(&content);
        let owned = |keys: &[String]| keys.iter().map(|key| key.to_owned()).collect::<Vec<String>>();
        let mut also = Vec::new();
        for list in decorators.additional_keys.iter().map(|list| owned(list)) {
            let list: Vec<&str> = list.iter().map(String::as_str).collect();
            also.push(self.keys(&list, kind, data)?);
        }
        // Without one that could be looked for there is no condition.
        if secondary.iter().any(|key| !key.trim().is_empty()) {
            also.push(self.keys(&secondary, kind, data)?);
        }
        let excluded: Vec<&str> = decorators.exclude_keys.iter().map(String::as_str).collect();
        let excluded = if kind.is_pattern { Vec::new() } else { self.keys(&excluded, kind, data)? };
        let is_off = decorators.dont_activate && !decorators.activate;
        let is_idle = keys.is_empty() && !constant && !decorators.activate;
        if !enabled || is_off || is_idle || content.trim().is_empty() {
            return Ok(None);
        }
        // Some editors write numbers or nothing there.
        let before = decorators.before.unwrap_or(data.text("position").unwrap_or_default() == "before_char");
        let order = order.unwrap_or(0.0);
        Ok(Some(Entry {
            content: content.trim().to_owned(),
            keys,
            also,
            excluded,
            constant,
            forced: decorators.activate,
            scan_depth: decorators.scan_depth,
            after_answers: decorators.activate_only_after,
            every_answers: decorators.activate_only_every,
            order,
            priority: priority.unwrap_or(order),
            before,
        }))
    }

    /// Keys that can occur: empty ones and patterns that cannot be compiled match nothing.
    fn keys(&mut self, keys: &[&str], kind: Kind, data: &Data<'_>) -> Result<Vec<Key>, CardError> {
        let mut found = Vec::new();
        for key in keys.iter().map(|key| key.trim()).filter(|key| !key.is_empty()) {
            self.keys += 1;
            let keys = || format!("keys up to `{}`", data.path("keys"));
            CardError::check_count(self.keys, limits::LORE_KEYS_MAX, keys)?;
            let this = || format!("a key of `{}`", data.path("keys"));
            CardError::check_bytes(key.len(), limits::LORE_KEY_BYTES_MAX, this)?;
            let text = || expand(key, Names { character: self.character, user: USER });
            match kind {
                Kind { is_pattern: true, .. } => match self.pattern(key, kind.is_exact) {
                    Ok(pattern) => found.push(Key::Pattern(Box::new(pattern))),
                    Err(why) => self.notes.push(format!(
                        "`{}`: the pattern `{}` cannot be used and matches nothing: {why}",
                        data.path("keys"),
                        clipped(key)
                    )),
                },
                Kind { is_exact: true, .. } => found.push(Key::Text { text: text() }),
                _ => found.push(Key::Folded { text: text().to_lowercase() }),
            }
        }
        Ok(found)
    }

    /// A pattern as cards write it: bare, or `/pattern/flags`.
    fn pattern(&mut self, key: &str, is_exact: bool) -> Result<Regex, String> {
        self.patterns += 1;
        if self.patterns > limits::LORE_PATTERNS_MAX {
            return Err(format!("at most {} patterns are used", limits::LORE_PATTERNS_MAX));
        }
        let slashed = key.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'));
        let (pattern, flags) = match slashed {
            Some((pattern, flags)) if flags.chars().all(|c| "dgimsuvy".contains(c)) => (pattern, Some(flags)),
            _ => (key, None),
        };
        let has = |flag: char| flags.is_some_and(|flags| flags.contains(flag));
        // A bare pattern follows the entry, one in slashes its flags.
        let folds = if flags.is_some() { has('i') } else { !is_exact };
        RegexBuilder::new(pattern)
            .case_insensitive(folds)
            .multi_line(has('m'))
            .dot_matches_new_line(has('s'))
            .size_limit(limits::LORE_PATTERN_BYTES_MAX)
            .dfa_size_limit(limits::LORE_PATTERN_BYTES_MAX)
            .nest_limit(limits::LORE_PATTERN_DEPTH_MAX)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(bytes) => format!("it takes more than {bytes} bytes"),
                other => clipped(other.to_string().lines().last().unwrap_or_default()),
            })
    }
}
