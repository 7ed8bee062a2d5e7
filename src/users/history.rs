//! One history item: what a client may send, the bounds of each field, and its form in the store and in exports.

use super::error::UsersError;
use super::identity::UserId;
use super::time::{DAY_SECONDS, Timestamp};
use crate::digest::{Digest, Digester};
use crate::limits;
use crate::text::json_kind;
use serde_json::{Map, Value, json};

/// The fields of an item.
pub const ITEM_FIELDS: [&str; 8] = ["text", "input", "time", "weight", "kind", "dwell", "session", "source"];

/// How the text came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To somebody, in a chat; also written `message`.
    Said,
    /// A text of the person's own: a post, a note.
    Wrote,
    /// Somebody else's text that the person looked at.
    Read,
    /// The answer to `input`.
    Answered,
    /// What somebody or something saw the person do.
    Observed,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Said, Kind::Wrote, Kind::Read, Kind::Answered, Kind::Observed];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Said => "said",
            Kind::Wrote => "wrote",
            Kind::Read => "read",
            Kind::Answered => "answered",
            Kind::Observed => "observed",
        }
    }

    pub fn parse(text: &str) -> Option<Kind> {
        match text {
            "message" => Some(Kind::Said),
            _ => Kind::ALL.into_iter().find(|kind| kind.name() == text),
        }
    }
}

/// A checked item as a client sent it. Immutable once stored.
#[derive(Clone, Debug, PartialEq)]
pub struct NewItem {
    /// What the person said, wrote, read or did; never blank.
    pub text: String,
    /// What `text` answers.
    pub input: Option<String>,
    pub time: Option<Timestamp>,
    /// How far the text speaks for the person, -1 (the opposite) to 1; an answer a of 1 to 5 counts (a - 3) / 2.
    pub weight: f32,
    pub kind: Kind,
    /// Seconds that the person spent on it.
    pub dwell_s: Option<f64>,
    /// Groups items of one sitting.
    pub session: Option<String>,
    /// Where the item comes from.
    pub source: Option<String>,
}

impl NewItem {
    /// Reads one item. `path` stands before field names in messages (`items[3]`); a time more than a day after `now` is
    /// a mistake (milliseconds, a wrong clock).
    pub fn from_json(map: Map<String, Value>, path: &str, now: Timestamp) -> Result<NewItem, UsersError> {
        let mut fields = ItemFields { map, path };
        let item = NewItem {
            text: fields.text()?,
            input: fields.string("input", limits::HISTORY_TEXT_BYTES_MAX)?,
            time: fields.time(now)?,
            weight: fields.number("weight", -1.0, 1.0)?.unwrap_or(1.0) as f32,
            kind: fields.kind()?,
            dwell_s: fields.number("dwell", 0.0, DAY_SECONDS as f64)?,
            session: fields.string("session", limits::HISTORY_LABEL_BYTES_MAX)?,
            source: fields.string("source", limits::HISTORY_LABEL_BYTES_MAX)?,
        };
        fields.finish()?;
        Ok(item)
    }

    /// Bytes of the person's texts.
    pub fn bytes(&self) -> u64 {
        (self.text.len() + self.input.as_ref().map_or(0, String::len)) as u64
    }

    /// Items of one user with equal marks are one item: same kind, time, input and text. Sending a history twice changes
    /// nothing. The owner is part of it, so that marks of two people say nothing about each other.
    pub fn mark(&self, owner: &UserId) -> Digest {
        let mut digester = Digester::new("demeanor.history-item/1");
        digester.part(owner.as_str().as_bytes()).part(self.kind.name().as_bytes());
        match self.time {
            Some(time) => digester.part(&time.unix().to_le_bytes()),
            None => digester.part(b""),
        };
        match &self.input {
            Some(input) => digester.part(b"1").part(input.as_bytes()),
            None => digester.part(b"0"),
        };
        digester.part(self.text.as_bytes());
        digester.finish()
    }
}

/// What the encoder sees of an item: the beginning of what it answers, then its own text. The encoder reads only some
/// thousand characters, so a long question must not push the answer out.
pub fn embedding_text(input: Option<&str>, text: &str) -> String {
    match input {
        None => text.to_owned(),
        Some(input) => {
            let end = input.char_indices().nth(limits::HISTORY_INPUT_CHARS_EMBEDDED).map(|(at, _)| at);
            format!("{}\n{text}", &input[..end.unwrap_or(input.len())])
        }
    }
}

/// An item as the store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub id: i64,
    pub created: Timestamp,
    pub item: NewItem,
}

impl Item {
    /// The form of `GET .../history` and of exports; [`NewItem::from_json`] reads it back but for `id` and `created`.
    pub fn to_json(&self) -> Value {
        let item = &self.item;
        let mut value = json!({
            "id": self.id.to_string(),
            "text": item.text,
            "kind": item.kind.name(),
            "weight": item.weight,
            "created": self.created.to_string(),
        });
        let optional = [
            ("input", item.input.clone().map(Value::from)),
            ("time", item.time.map(|time| Value::from(time.to_string()))),
            ("dwell", item.dwell_s.map(Value::from)),
            ("session", item.session.clone().map(Value::from)),
            ("source", item.source.clone().map(Value::from)),
        ];
        for (name, given) in optional {
            if let Some(given) = given {
                value[name] = given;
            }
        }
        value
    }
}

/// The fields of one item that have not been read yet; `null` is absent.
struct ItemFields<'a> {
    map: Map<String, Value>,
    path: &'a str,
}

impl ItemFields<'_> {
    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.map.shift_remove(name).filter(|value| !value.is_null())
    }

    fn refuse<T>(&self, name: &str, message: impl Into<String>) -> Result<T, UsersError> {
        Err(UsersError::item(self.at(name), message))
    }

    fn string(&mut self, name: &str, bytes_max: usize) -> Result<Option<String>, UsersError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() > bytes_max => {
                self.refuse(name, format!("{} bytes are too many; at most {bytes_max}", text.len()))
            }
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(other) => self.refuse(name, format!("must be a string, not {}", json_kind(&other))),
        }
    }

    fn text(&mut self) -> Result<String, UsersError> {
        match self.string("text", limits::HISTORY_TEXT_BYTES_MAX)? {
            Some(text) if !text.trim().is_empty() => Ok(text),
            _ => self.refuse("text", "an item needs a text that is not blank"),
        }
    }

    fn number(&mut self, name: &str, low: f64, high: f64) -> Result<Option<f64>, UsersError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64() {
            None => self.refuse(name, format!("must be a number, not {}", json_kind(&value))),
            // Written so that NaN is refused too.
            Some(number) if !(low..=high).contains(&number) => {
                self.refuse(name, format!("{number} is out of range; allowed {low} to {high}"))
            }
            Some(number) => Ok(Some(number)),
        }
    }

    fn time(&mut self, now: Timestamp) -> Result<Option<Timestamp>, UsersError> {
        let time = match self.take("time") {
            None => return Ok(None),
            Some(Value::String(text)) => Timestamp::parse(&text),
            Some(Value::Number(number)) => {
                // Fractions of a second are dropped.
                number.as_f64().and_then(|seconds| Timestamp::from_unix(seconds.floor() as i64))
            }
            Some(other) => {
                return self.refuse("time", format!("must be a time, not {}", json_kind(&other)));
            }
        };
        match time {
            None => self.refuse("time", "is no time; send RFC 3339 (`2026-01-02T03:04:05Z`) or Unix seconds"),
            Some(time) if time.unix() > now.unix() + DAY_SECONDS => self
                .refuse("time", format!("{time} lies in the future (it is {now}); Unix times are seconds")),
            Some(time) => Ok(Some(time)),
        }
    }

    fn kind(&mut self) -> Result<Kind, UsersError> {
        let Some(text) = self.string("kind", limits::HISTORY_LABEL_BYTES_MAX)? else { return Ok(Kind::Said) };
        match Kind::parse(&text) {
            Some(kind) => Ok(kind),
            None => {
                let short: String = text.chars().take(32).collect();
                let known = Kind::ALL.map(Kind::name).join(", ");
                self.refuse("kind", format!("there is no kind `{short}`; known are {known} and message"))
            }
        }
    }

    fn finish(self) -> Result<(), UsersError> {
        match self.map.keys().min() {
            None => Ok(()),
            Some(name) => {
                let short: String = name.chars().take(64).collect();
                Err(UsersError::UnknownField { param: self.at(&short), known: ITEM_FIELDS.join(", ") })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_800_000_000;

    fn read(value: Value) -> Result<NewItem, UsersError> {
        let Value::Object(map) = value else { panic!("an object") };
        NewItem::from_json(map, "items[2]", Timestamp::from_unix(NOW).unwrap())
    }

    #[test]
    fn defaults() {
        let item = read(json!({"text": "I sail"})).unwrap();
        assert_eq!((item.weight, item.kind, item.time, item.dwell_s), (1.0, Kind::Said, None, None));
        assert_eq!(
            item,
            read(json!({"text": "I sail", "kind": "message", "time": null, "input": ""})).unwrap()
        );
    }

    #[test]
    fn bad_items_name_their_field() {
        let long = "x".repeat(limits::HISTORY_TEXT_BYTES_MAX + 1);
        let label = "x".repeat(limits::HISTORY_LABEL_BYTES_MAX + 1);
        let table = [
            (json!({}), "items[2].text", "not blank"),
            (json!({"text": " \n\t"}), "items[2].text", "not blank"),
            (json!({"text": 5}), "items[2].text", "a string, not a number"),
            (json!({"text": long}), "items[2].text", "too many"),
            (json!({"text": "a", "input": ["b"]}), "items[2].input", "a string, not an array"),
            (json!({"text": "a", "weight": 1.5}), "items[2].weight", "1.5 is out of range; allowed -1 to 1"),
            (json!({"text": "a", "weight": "1"}), "items[2].weight", "a number, not a string"),
            (json!({"text": "a", "dwell": -1}), "items[2].dwell", "out of range"),
            (json!({"text": "a", "dwell": 1e9}), "items[2].dwell", "out of range"),
            (json!({"text": "a", "time": "tomorrow"}), "items[2].time", "is no time"),
            (json!({"text": "a", "time": true}), "items[2].time", "a time, not a boolean"),
            (json!({"text": "a", "time": 1_700_000_000_000i64}), "items[2].time", "is no time"),
            (json!({"text": "a", "time": NOW + 86_401}), "items[2].time", "in the future"),
            (json!({"text": "a", "time": 1e300}), "items[2].time", "is no time"),
            (json!({"text": "a", "kind": "sang"}), "items[2].kind", "no kind `sang`"),
            (json!({"text": "a", "session": label}), "items[2].session", "too many"),
            (json!({"text": "a", "source": 1}), "items[2].source", "a string"),
            (json!({"text": "a", "Text": "b"}), "items[2].Text", "unknown field"),
            (json!({"text": "a", "id": "7"}), "items[2].id", "unknown field"),
        ];
        for (value, param, message) in table {
            let error = read(value.clone()).expect_err("must be refused");
            assert_eq!(error.param(), Some(param), "{error}");
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn marks_tell_items_apart() {
        let ana = UserId::parse("ana", "id").unwrap();
        let mark = |value: Value| read(value).unwrap().mark(&ana);
        let first = mark(json!({"text": "a"}));
        assert_eq!(first, mark(json!({"text": "a", "weight": 0.5, "session": "s"})), "the same item again");
        for other in [
            json!({"text": "b"}),
            json!({"text": "a", "input": "q"}),
            json!({"text": "a", "time": 0}),
            json!({"text": "a", "kind": "read"}),
        ] {
            assert_ne!(first, mark(other));
        }
        let bob = UserId::parse("bob", "id").unwrap();
        assert_ne!(first, read(json!({"text": "a"})).unwrap().mark(&bob));
    }

    #[test]
    fn a_long_question_leaves_room_for_the_answer() {
        assert_eq!(embedding_text(None, "yes"), "yes");
        assert_eq!(embedding_text(Some("Tea?"), "yes"), "Tea?\nyes");
        let text = embedding_text(Some(&"é".repeat(5000)), "yes");
        assert_eq!(text.chars().count(), limits::HISTORY_INPUT_CHARS_EMBEDDED + 4);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(
            text in "[a-z é\\n\"]{1,20}", input in proptest::option::of("[a-z]{1,9}"),
            time in proptest::option::of(0..NOW), weight in -1.0f32..=1.0, dwell in proptest::option::of(0.0..9e4f64),
            kind in 0usize..5,
        ) {
            prop_assume!(!text.trim().is_empty() && dwell.is_none_or(|dwell| dwell <= DAY_SECONDS as f64));
            let given = NewItem {
                text, input, weight, dwell_s: dwell, kind: Kind::ALL[kind],
                time: time.and_then(Timestamp::from_unix), session: None, source: Some("test".into()),
            };
            let shown = Item { id: 7, created: Timestamp::from_unix(NOW).unwrap(), item: given.clone() }.to_json();
            let mut map = shown.as_object().unwrap().clone();
            map.remove("id");
            map.remove("created");
            prop_assert_eq!(NewItem::from_json(map, "", Timestamp::from_unix(NOW).unwrap()).unwrap(), given);
        }
    }
}
