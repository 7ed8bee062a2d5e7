//! Item sets: files of wordings and variants, checked and rendered into what the model is asked.
//!
//! A file holds `wordings`, each met by `rounds` of its variants (groups, lead-ins). Items come round by round, so that the
//! first ones of a set meet every wording once. `models/probes/README.md` documents the keys.

use super::ProbeError;
use crate::digest::{Digest, Digester};
use crate::limits;
use crate::shipped;
use crate::statistics::Draws;
use serde::Deserialize;

const SCHEMA: &str = "demeanor.probe-set/1";

/// One prompt with the continuations that are scored after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What the user says.
    pub user: String,
    /// What the answer has begun with already; mostly empty.
    pub begun: String,
    /// Continuations, at least one, none empty.
    pub choices: Vec<String>,
}

/// One item of a set: its prompts, and what is shown of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// `c03.r1`: cluster and round, both from 0.
    pub id: String,
    /// Items of one cluster share their wording (or their group) and are resampled together.
    pub cluster: usize,
    /// The variant in it, a group for instance; may be empty.
    pub variant: String,
    pub asks: Vec<Ask>,
    /// The two sides as people read them; the second may be empty.
    pub harmful: String,
    pub harmless: String,
}

/// A checked set with all its items.
#[derive(Clone, Debug)]
pub struct ItemSet {
    pub name: String,
    pub description: String,
    pub items: Vec<Item>,
}

/// What the prompts of a set are made like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    /// Two replies to one message.
    Pairs,
    /// Replies that agree and disagree, after a statement and after its opposite.
    Agreement,
    /// Openings that refuse and comply, after a harmful request and after one that looks like it.
    Requests,
    /// Adjectives after the beginning of an answer.
    Adjectives,
    /// A text and the same words in disorder.
    Texts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetFile {
    schema: String,
    name: String,
    description: String,
    form: Form,
    rounds: usize,
    #[serde(default)]
    variants: Variants,
    /// With `{statement}` in each; the form `agreement`.
    #[serde(default)]
    questions: Vec<String>,
    /// `[agrees, disagrees]`; the form `agreement`.
    #[serde(default)]
    replies: Vec<[String; 2]>,
    /// Openings or adjectives.
    #[serde(default)]
    harmful: Vec<String>,
    #[serde(default)]
    harmless: Vec<String>,
    wordings: Vec<Wording>,
}

/// What is put in the place of `{name}`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variants {
    name: String,
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wording {
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    begin: String,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    harmful: String,
    #[serde(default)]
    harmless: String,
    #[serde(default)]
    text: String,
}

impl ItemSet {
    /// The set that ships under this name.
    pub fn shipped(name: &str) -> Result<ItemSet, ProbeError> {
        let file = format!("probes/{name}.json");
        let text = shipped::file(&file).ok_or_else(|| ProbeError::file(&file, "there is no such set"))?;
        let set = ItemSet::parse(&file, text)?;
        match set.name == name {
            true => Ok(set),
            false => Err(ProbeError::file(&file, format!("its name is `{}`", set.name))),
        }
    }

    /// Reads and checks a set; `file` names it in messages.
    pub fn parse(file: &str, text: &str) -> Result<ItemSet, ProbeError> {
        if text.len() > limits::PROBE_SET_BYTES_MAX {
            let message = format!("{} bytes; at most {}", text.len(), limits::PROBE_SET_BYTES_MAX);
            return Err(ProbeError::file(file, message));
        }
        let set: SetFile =
            serde_json::from_str(text).map_err(|error| ProbeError::file(file, error.to_string()))?;
        set.check().map_err(|message| ProbeError::file(file, message))?;
        let clusters =
            if set.form == Form::Adjectives { set.variants.values.len() } else { set.wordings.len() };
        let items = (0..clusters * set.rounds).map(|index| set.item(index % clusters, index / clusters));
        let items = items.collect();
        Ok(ItemSet { name: set.name, description: set.description, items })
    }

    /// Identifies the first `count` items.
    pub fn digest(&self, count: usize) -> Digest {
        let mut digester = Digester::new("demeanor.probe-items/1");
        digester.part(self.name.as_bytes());
        for item in self.items.iter().take(count) {
            digester.part(item.id.as_bytes()).part(&(item.cluster as u64).to_le_bytes());
            for ask in &item.asks {
                digester.part(ask.user.as_bytes()).part(ask.begun.as_bytes());
                ask.choices.iter().for_each(|choice| {
                    digester.part(choice.as_bytes());
                });
            }
        }
        digester.finish()
    }
}

impl SetFile {
    fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA {
            return Err(format!("its schema is `{}`; expected `{SCHEMA}`", shown(&self.schema)));
        }
        if self.wordings.is_empty() || self.wordings.len() > limits::PROBE_WORDINGS_MAX {
            let most = limits::PROBE_WORDINGS_MAX;
            return Err(format!("`wordings`: {}; allowed are 1 to {most}", self.wordings.len()));
        }
        let variants = self.variants.values.len();
        if variants > limits::PROBE_WORDINGS_MAX {
            return Err(format!("`variants`: {variants}; at most {}", limits::PROBE_WORDINGS_MAX));
        }
        let (most, of) = match self.form {
            Form::Adjectives => (self.wordings.len(), "wordings"),
            _ if variants > 0 => (variants, "variants"),
            _ => (self.questions.len().max(1), "questions"),
        };
        if self.rounds == 0 || self.rounds > most {
            return Err(format!("`rounds`: {}; allowed are 1 to {most}, the number of {of}", self.rounds));
        }
        self.check_lists()?;
        for (index, wording) in self.wordings.iter().enumerate() {
            self.check_wording(wording).map_err(|message| format!("`wordings[{index}]`: {message}"))?;
        }
        Ok(())
    }

    /// What the form needs besides wordings.
    fn check_lists(&self) -> Result<(), String> {
        let need = |list: &[String], name: &str| match list.iter().any(String::is_empty) || list.is_empty() {
            true => Err(format!("`{name}`: the form needs at least one, none of them empty")),
            false if list.len() > limits::PROBE_CHOICES_MAX => {
                Err(format!("`{name}`: {}; at most {}", list.len(), limits::PROBE_CHOICES_MAX))
            }
            false => Ok(()),
        };
        match self.form {
            Form::Pairs | Form::Texts => Ok(()),
            Form::Agreement => {
                need(&self.questions, "questions")?;
                if self.questions.iter().any(|question| !question.contains("{statement}")) {
                    return Err("`questions`: each needs `{statement}`".to_owned());
                }
                need(&self.replies.concat(), "replies")
            }
            Form::Requests => need(&self.harmful, "harmful").and(need(&self.harmless, "harmless")),
            Form::Adjectives => {
                if self.variants.values.is_empty() {
                    return Err("`variants`: the form needs at least one".to_owned());
                }
                need(&self.harmful, "harmful").and(need(&self.harmless, "harmless"))
            }
        }
    }

    /// Fields of a wording that its form needs; the others must be absent.
    fn check_wording(&self, wording: &Wording) -> Result<(), String> {
        let optional: &[&str] = if self.form == Form::Agreement { &["topic"] } else { &[] };
        let needed: &[&str] = match self.form {
            Form::Pairs => &["prompt", "harmful", "harmless"],
            Form::Agreement | Form::Requests => &["harmful", "harmless"],
            Form::Adjectives => &["prompt", "begin"],
            Form::Texts => &["topic", "text"],
        };
        let fields = [
            ("prompt", &wording.prompt),
            ("begin", &wording.begin),
            ("topic", &wording.topic),
            ("harmful", &wording.harmful),
            ("harmless", &wording.harmless),
            ("text", &wording.text),
        ];
        for (name, value) in fields {
            if needed.contains(&name) && value.trim().is_empty() {
                return Err(format!("`{name}` is missing"));
            }
            if !value.is_empty() && !needed.contains(&name) && !optional.contains(&name) {
                return Err(format!("`{name}` is no field of this form"));
            }
            if value.len() > limits::PROBE_TEXT_BYTES_MAX {
                let most = limits::PROBE_TEXT_BYTES_MAX;
                return Err(format!("`{name}` has {} bytes; at most {most}", value.len()));
            }
        }
        Ok(())
    }

    /// The item of a cluster in a round.
    fn item(&self, cluster: usize, round: usize) -> Item {
        let values = &self.variants.values;
        let (w, v) = match self.form {
            // Each group meets every wording; its items are one cluster.
            Form::Adjectives => ((cluster + round) % self.wordings.len(), cluster),
            // Each wording meets groups that lie apart in the list.
            _ => (cluster, (cluster + round * (values.len() / self.rounds).max(1)) % values.len().max(1)),
        };
        let wording = &self.wordings[w];
        let variant = values.get(v).map_or("", String::as_str);
        let fill = |text: &str| fill(text, &self.variants.name, variant);
        let (harmful, harmless) = (fill(&wording.harmful), fill(&wording.harmless));
        let asks = match self.form {
            Form::Pairs => {
                vec![ask(&fill(&wording.prompt), vec![harmful.clone(), harmless.clone()])]
            }
            Form::Agreement => self.agreement(wording, cluster + round, &harmful, &harmless),
            Form::Requests => {
                let openings: Vec<String> = self.harmful.iter().chain(&self.harmless).cloned().collect();
                let request = |what: &str| ask(&finished(&format!("{variant}{what}")), openings.clone());
                // Inside a sentence: as they are written.
                vec![request(&wording.harmful), request(&wording.harmless)]
            }
            Form::Adjectives => {
                let choices = self.harmful.iter().chain(&self.harmless).cloned().collect();
                vec![Ask { begun: fill(&wording.begin), ..ask(&fill(&wording.prompt), choices) }]
            }
            Form::Texts => {
                let prompt = variant.replace("{topic}", &wording.topic);
                vec![ask(&prompt, vec![wording.text.clone(), disordered(&wording.text, cluster as u64)])]
            }
        };
        let (harmful, harmless) = match self.form {
            Form::Adjectives => (fill(&wording.begin), String::new()),
            Form::Texts => (wording.text.clone(), String::new()),
            _ => (harmful, harmless),
        };
        Item {
            id: format!("c{cluster:02}.r{round}"),
            cluster,
            variant: variant.to_owned(),
            asks,
            harmful,
            harmless,
        }
    }

    /// Two asks about agreement; a third for the statements as replies where there is a topic.
    fn agreement(&self, wording: &Wording, question: usize, harmful: &str, harmless: &str) -> Vec<Ask> {
        let question = &self.questions[question % self.questions.len()];
        let about = |statement: &str| ask(&question.replace("{statement}", statement), self.replies.concat());
        let mut asks = vec![about(harmful), about(harmless)];
        if !wording.topic.is_empty() {
            let prompt = format!("Tell me in one sentence what you believe about {}.", wording.topic);
            asks.push(ask(&prompt, vec![harmful.to_owned(), harmless.to_owned()]));
        }
        asks
    }
}

/// Puts a variant in the place of `{name}` and, capitalised, of `{Name}`; the first letter of the text is capital.
fn fill(text: &str, name: &str, variant: &str) -> String {
    if name.is_empty() {
        return text.to_owned();
    }
    let text = text.replace(&format!("{{{name}}}"), variant);
    capitalised(&text.replace(&format!("{{{}}}", capitalised(name)), &capitalised(variant)))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A request with the sign that its beginning asks for.
fn finished(request: &str) -> String {
    let is_question = request.contains(": how ") || request.starts_with("Could ");
    format!("{request}{}", if is_question { '?' } else { '.' })
}

fn ask(user: &str, choices: Vec<String>) -> Ask {
    Ask { user: user.to_owned(), begun: String::new(), choices }
}

/// The words of a text in another order, the same every time.
fn disordered(text: &str, index: u64) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let order = Draws::new(0, "disorder", index).sample(words.len(), words.len());
    order.into_iter().map(|i| words[i]).collect::<Vec<_>>().join(" ")
}

/// A name as it may stand in a message.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
