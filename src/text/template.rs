//! A model's chat template: loaded with a self-test, run within bounds.
//!
//! Templates come with model files, so they are not trusted: no loader (nothing to include or import), fuel that pays for
//! instructions, items and bytes alike, bounded recursion, size and output. They follow the dialect of transformers:
//! blocks trimmed, `raise_exception`, `strftime_now`, Python's methods and JSON.

use super::roles::{Form, Turn, adaptations};
use super::{TextError, capped, functions, json, methods};
use crate::limits::{
    ENCODE_BYTES_MAX, TEMPLATE_BYTES_MAX, TEMPLATE_FUEL, TEMPLATE_RECURSION_MAX, TEMPLATE_STACK_BYTES,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde_json::Map;
use std::collections::{BTreeMap, BTreeSet};

const NAME: &str = "chat";

/// For models without a template.
const PLAIN_DIALOGUE: &str = "{%- for message in messages -%}\
{%- if message.role == 'system' -%}{{ message.content + '\\n\\n' }}\
{%- elif message.role == 'assistant' -%}{{ 'Assistant: ' + message.content + '\\n' }}\
{%- elif message.role == 'tool' -%}{{ 'Tool: ' + message.content + '\\n' }}\
{%- else -%}{{ 'User: ' + message.content + '\\n' }}{%- endif -%}\
{%- endfor -%}{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}";

/// What a request must not set: names that the server fills in and names of the dialect.
const RESERVED: [&str; 20] = [
    "messages",
    "bos_token",
    "eos_token",
    "pad_token",
    "unk_token",
    "add_generation_prompt",
    "continue_final_message",
    "tools",
    "documents",
    "chat_template",
    "raise_exception",
    "strftime_now",
    "range",
    "dict",
    "namespace",
    "loop",
    "self",
    "caller",
    "varargs",
    "kwargs",
];

/// Where a template comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateKind {
    /// `models/`, in place of the model file's own.
    Shipped,
    /// The model file.
    FromFile,
    /// The model has none: `User: ..`, `Assistant:`.
    PlainDialogue,
}

/// A chat template that passed its self-test.
pub struct Template {
    environment: Environment<'static>,
    source: String,
    kind: TemplateKind,
    /// Names that it reads and does not set: what a request may fill in, less the reserved ones.
    reads: BTreeSet<String>,
    takes_system: bool,
    warnings: Vec<String>,
}

/// A template with a chat put in.
pub(super) struct Run {
    pub text: String,
    pub warnings: Vec<String>,
}

/// What to render.
#[derive(Clone, Copy)]
pub(super) struct Chat<'a> {
    pub turns: &'a [Turn],
    pub add_generation_prompt: bool,
    pub kwargs: &'a Map<String, serde_json::Value>,
    pub tools: &'a [serde_json::Value],
    pub documents: &'a [serde_json::Value],
}

enum Refusal {
    Raised(String),
    Limit(String),
}

impl Template {
    /// Parses and tries `source`. `bos` and `eos` are the tokens' texts.
    pub fn new(source: &str, bos: &str, eos: &str, kind: TemplateKind) -> Result<Template, TextError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            let reason = format!("{} bytes; at most {TEMPLATE_BYTES_MAX} are allowed", source.len());
            return Err(TextError::TemplateLoad(reason));
        }
        let load = |error: Error| TextError::TemplateLoad(reason(&error));
        let mut environment = environment(bos, eos).map_err(load)?;
        let plain = functions::without_generation_tags(source);
        environment.add_template_owned(NAME, plain).map_err(load)?;
        let reads = environment
            .get_template(NAME)
            .map(|template| template.undeclared_variables(false).into_iter().collect())
            .map_err(load)?;
        let mut template = Template {
            environment,
            source: source.to_owned(),
            kind,
            reads,
            takes_system: true,
            warnings: Vec::new(),
        };
        template.self_test()?;
        Ok(template)
    }

    /// The dialogue for models without a template; carries a warning for each answer.
    pub fn plain_dialogue(bos: &str, eos: &str) -> Result<Template, TextError> {
        let mut template = Template::new(PLAIN_DIALOGUE, bos, eos, TemplateKind::PlainDialogue)?;
        template
            .warnings
            .push("the model has no chat template: a plain `User:` / `Assistant:` dialogue is used".into());
        Ok(template)
    }

    pub fn kind(&self) -> TemplateKind {
        self.kind
    }

    /// Whether it shows tools.
    pub fn reads_tools(&self) -> bool {
        self.reads.contains("tools")
    }

    /// Whether it shows documents.
    pub fn reads_documents(&self) -> bool {
        self.reads.contains("documents")
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// What is odd about the template itself; also part of each rendering's warnings.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Renders a chat in whatever roles and order it comes. A template that refuses gets the chat in a form that it
    /// takes, with a warning, or the error names the first message that it does not take.
    pub(super) fn render(&self, chat: &Chat) -> Result<Run, TextError> {
        // Values nested as deep as the fuel pays for are shown and dropped recursively: that needs a stack of its own.
        let stack = std::thread::Builder::new().name("template".to_owned()).stack_size(TEMPLATE_STACK_BYTES);
        std::thread::scope(|scope| {
            let running = stack.spawn_scoped(scope, || self.render_here(chat));
            let limit = |error: std::io::Error| TextError::TemplateLimit { reason: error.to_string() };
            running.map_err(limit)?.join().unwrap_or(Err(TextError::Failed))
        })
    }

    fn render_here(&self, chat: &Chat) -> Result<Run, TextError> {
        let mut refusal = None;
        for Form { turns, notes } in adaptations(chat.turns, self.takes_system) {
            match self.run(&Chat { turns: &turns, ..*chat }) {
                Ok(text) => {
                    let warnings = self.warnings.iter().cloned().chain(notes).collect();
                    return Ok(Run { text, warnings });
                }
                Err(Refusal::Limit(reason)) => return Err(TextError::TemplateLimit { reason }),
                Err(Refusal::Raised(reason)) => refusal.get_or_insert(reason),
            };
        }
        let reason = refusal.unwrap_or_else(|| "there are no messages".to_owned());
        Err(TextError::Template { message: self.first_refused(chat), reason })
    }

    /// Index of the first message with which the chat, cut there, is refused. By halving: it supposes that a refused
    /// chat stays refused as it grows.
    fn first_refused(&self, chat: &Chat) -> Option<usize> {
        let (mut taken, mut refused) = (0, chat.turns.len());
        while taken + 1 < refused {
            let middle = (taken + refused) / 2;
            let head = chat.turns.get(..middle)?;
            match self.run(&Chat { turns: head, add_generation_prompt: false, ..*chat }) {
                Ok(_) => taken = middle,
                Err(_) => refused = middle,
            }
        }
        chat.turns.get(refused.checked_sub(1)?)?.index
    }

    fn run(&self, chat: &Chat) -> Result<String, Refusal> {
        let mut context: BTreeMap<&str, Value> =
            chat.kwargs.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value)))).collect();
        let list = |items: &[serde_json::Value]| match items {
            [] => Value::from(()),
            items => Value::from(Serde(items)),
        };
        context.insert("messages", Value::from(Serde(chat.turns)));
        context.insert("add_generation_prompt", Value::from(chat.add_generation_prompt));
        context.insert("tools", list(chat.tools));
        context.insert("documents", list(chat.documents));
        let template =
            self.environment.get_template(NAME).map_err(|error| Refusal::Raised(reason(&error)))?;
        let text = template.render(Value::from_pairs(context)).map_err(|error| match error.kind() {
            ErrorKind::OutOfFuel => Refusal::Limit(format!("more than {TEMPLATE_FUEL} steps")),
            _ => Refusal::Raised(reason(&error)),
        })?;
        match text.len() {
            0..=ENCODE_BYTES_MAX => Ok(text),
            len => {
                Err(Refusal::Limit(format!("it wrote {len} bytes; at most {ENCODE_BYTES_MAX} are allowed")))
            }
        }
    }

    /// A template must render a plain chat; whether it keeps the system message and the order of turns is noted.
    fn self_test(&mut self) -> Result<(), TextError> {
        let chat = [("user", "probe-one"), ("assistant", "probe-two"), ("user", "probe-three")];
        let texts = chat.map(|(_, text)| text);
        let turns: Vec<Turn> = chat.iter().map(|(role, text)| Turn::new(role, text)).collect();
        let kwargs = Map::new();
        let plain =
            |turns| Chat { turns, add_generation_prompt: true, kwargs: &kwargs, tools: &[], documents: &[] };
        let text = match self.render(&plain(&turns)) {
            Ok(run) => run.text,
            Err(TextError::Template { reason, .. } | TextError::TemplateLimit { reason }) => {
                return Err(TextError::TemplateLoad(format!("it fails on a plain chat: {reason}")));
            }
            Err(error) => return Err(error),
        };
        if !in_order(&text, &texts) {
            self.warnings.push("the chat template drops or reorders turns of a plain chat".to_owned());
        }
        let turns = [Turn::new("system", "probe-zero"), Turn::new("user", "probe-one")];
        // Supposed until now: a template that refuses it shows the system message as a user's, with a note.
        let run = self.render(&plain(&turns));
        self.takes_system = run.is_ok_and(|run| {
            run.warnings.len() == self.warnings.len() && in_order(&run.text, &["probe-zero", "probe-one"])
        });
        Ok(())
    }

    /// Keeps the arguments that the template reads. A reserved or malformed name is an error, one that the template
    /// does not read is a warning: clients send `enable_thinking` to every model.
    pub(super) fn admit(
        &self,
        kwargs: &Map<String, serde_json::Value>,
    ) -> Result<(Map<String, serde_json::Value>, Vec<String>), TextError> {
        let (mut admitted, mut warnings) = (Map::new(), Vec::new());
        for (name, value) in kwargs {
            let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if RESERVED.contains(&name.as_str()) || name.starts_with('_') {
                return Err(refused_argument(name, "a request must not set this name"));
            }
            if name.is_empty() || name.len() > 64 || !letters {
                return Err(refused_argument(name, "names are 1 to 64 letters, digits and `_`"));
            }
            if self.reads.contains(name) {
                admitted.insert(name.clone(), value.clone());
            } else {
                warnings.push(format!(
                    "`chat_template_kwargs.{name}` is ignored: the chat template does not read it"
                ));
            }
        }
        Ok((admitted, warnings))
    }
}

fn refused_argument(name: &str, reason: &str) -> TextError {
    let shown: String = name.chars().take(64).collect();
    TextError::Argument { name: format!("chat_template_kwargs.{shown}"), reason: reason.to_owned() }
}

fn environment(bos: &str, eos: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(TEMPLATE_FUEL));
    environment.set_recursion_limit(TEMPLATE_RECURSION_MAX);
    environment.set_unknown_method_callback(methods::unknown_method);
    environment.add_global("bos_token", bos.to_owned());
    environment.add_global("eos_token", eos.to_owned());
    environment.add_function("raise_exception", functions::raise_exception);
    environment.add_function("strftime_now", functions::strftime_now);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("join", capped::join);
    environment.add_filter("string", capped::string);
    for unbounded in ["pprint", "sum"] {
        environment.remove_filter(unbounded);
    }
    environment.set_formatter(capped::format);
    Ok(environment)
}

/// What a template's error says: the innermost message, which is what `raise_exception` was given.
fn reason(error: &Error) -> String {
    let mut innermost = error;
    while let Some(source) =
        std::error::Error::source(innermost).and_then(|source| source.downcast_ref::<Error>())
    {
        innermost = source;
    }
    let what = innermost.detail().map_or_else(|| innermost.kind().to_string(), str::to_owned);
    let line = innermost.line().map(|line| format!(" (line {line} of the template)")).unwrap_or_default();
    what.chars().take(500).chain(line.chars()).collect()
}

fn in_order(text: &str, parts: &[&str]) -> bool {
    let mut rest = text;
    parts.iter().all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}
