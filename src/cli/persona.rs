//! `demeanor persona`: list, show, set, import, export and delete personas, on a running server or on the data folder.

use super::client::{Client, segment};
use super::persona_file::{Form, export, import, import_all, import_shipped, list_shipped};
use super::serve::ModelArgs;
use super::target::Target;
use super::{CliError, Outcome};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// List, show, set, import, export or delete personas
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor persona set ada --system 'You are Ada.' --steering '0.6 warm' --temperature 0.7\n  \
    demeanor persona export ada --with-vectors --out ada.json\n\n\
    Works on the data folder, with the model loaded for it; --server asks a running server instead."
)]
pub struct PersonaArgs {
    #[command(subcommand)]
    pub action: Action,
    /// A running server to ask, e.g. http://127.0.0.1:8080; default: the data folder itself
    #[arg(long, global = true, env = "DEMEANOR_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// Key for that server
    #[arg(long, global = true, env = "DEMEANOR_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// JSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(clap::Subcommand, Clone, Debug)]
pub enum Action {
    /// All personas, the newest version of each
    List {
        #[command(flatten)]
        model: ModelArgs,
    },
    /// One persona
    Show {
        name: String,
        /// An older version
        #[arg(long)]
        version: Option<u32>,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// Make a persona or a new version of one; what is not given stays as it is
    Set {
        name: String,
        #[command(flatten)]
        changes: Box<Changes>,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// The personas that come with the program
    Shipped,
    /// Take a persona from a file: a character card (JSON, PNG, CHARX), an Ollama Modelfile, an export, or the JSON of
    /// `POST /v1/personas`; or one that comes with the program
    Import {
        #[arg(required_unless_present_any = ["shipped", "shipped_all"])]
        file: Option<PathBuf>,
        /// One that comes with the program (`demeanor persona shipped` lists them)
        #[arg(long, value_name = "NAME", conflicts_with = "file")]
        shipped: Option<String>,
        /// All that come with the program
        #[arg(long, conflicts_with_all = ["file", "shipped", "name"])]
        shipped_all: bool,
        /// Another name than the file's
        #[arg(long)]
        name: Option<String>,
        /// Make a new version where there is one of this name, and replace vectors of the same names
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// Write a persona as JSON, or as a character card
    Export {
        name: String,
        /// `json` holds all of it; cards are for other programs
        #[arg(long, default_value = "json", value_parser = ["json", "card-v2", "card-v3"])]
        format: String,
        /// A PNG picture to put the card into
        #[arg(long, value_name = "FILE.png", requires = "out")]
        image: Option<PathBuf>,
        /// File to write; default: stdout
        #[arg(long)]
        out: Option<PathBuf>,
        /// Put the stored vectors of its plan in (traits are made anew on any model)
        #[arg(long)]
        with_vectors: bool,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// Remove a persona with all its versions
    Delete {
        name: String,
        #[command(flatten)]
        model: ModelArgs,
    },
}

/// Fields of a persona. An empty text takes the field out.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Changes {
    /// System text
    #[arg(long)]
    pub system: Option<String>,
    /// File with the system text
    #[arg(long, conflicts_with = "system")]
    pub system_file: Option<PathBuf>,
    /// Steering expression, e.g. '0.6 warm - 0.3 formal'
    #[arg(long, allow_hyphen_values = true)]
    pub steering: Option<String>,
    /// Name of a stored soft prompt
    #[arg(long)]
    pub soft_prompt: Option<String>,
    /// User whose soft prompt it uses
    #[arg(long)]
    pub user: Option<String>,
    /// For people
    #[arg(long)]
    pub description: Option<String>,
    #[arg(long)]
    pub temperature: Option<f64>,
    #[arg(long)]
    pub top_p: Option<f64>,
    #[arg(long)]
    pub top_k: Option<i64>,
    #[arg(long)]
    pub min_p: Option<f64>,
    #[arg(long)]
    pub max_tokens: Option<i64>,
    #[arg(long)]
    pub seed: Option<i64>,
    /// Stop string (repeatable)
    #[arg(long)]
    pub stop: Vec<String>,
}

/// Fields of a persona that a client may set.
const FIELDS: [&str; 7] = ["system", "steering", "soft_prompt", "user", "sampling", "description", "card"];

impl Action {
    /// `None`: no model is needed.
    fn model(&self) -> Option<&ModelArgs> {
        match self {
            Action::Shipped => None,
            Action::List { model }
            | Action::Show { model, .. }
            | Action::Set { model, .. }
            | Action::Import { model, .. }
            | Action::Export { model, .. }
            | Action::Delete { model, .. } => Some(model),
        }
    }
}

pub fn persona(args: &PersonaArgs) -> Outcome {
    let (server, key) = (args.server.as_deref(), args.api_key.clone());
    let Some(model) = args.action.model() else { return list_shipped(args.json) };
    let target = Target::open(server, key, model, &equivalent(&args.action))?;
    let client = &target.client;
    match &args.action {
        Action::Shipped => list_shipped(args.json),
        Action::List { .. } => list(client, args.json),
        Action::Show { name, version, .. } => {
            let query = version.map(|version| format!("?version={version}")).unwrap_or_default();
            print(&client.json("GET", &format!("{}{query}", path(name)), None, &[])?, args.json);
            Ok(())
        }
        Action::Set { name, changes, .. } => set(client, name, changes, args.json),
        Action::Import { file, shipped, name, replace, .. } => {
            let (name, replace) = (name.as_deref(), *replace);
            match (file, shipped) {
                (Some(file), _) => import(client, file, name, replace, args.json),
                (None, Some(shipped)) => import_shipped(client, shipped, name, replace, args.json),
                (None, None) => import_all(client, replace, args.json),
            }
        }
        Action::Export { name, format, image, out, with_vectors, .. } => {
            let form = Form { format, image: image.as_deref(), with_vectors: *with_vectors };
            export(client, name, &form, out.as_deref())
        }
        Action::Delete { name, .. } => {
            let removed = client.json("DELETE", &path(name), None, &[])?;
            if args.json {
                println!("{removed}");
            } else {
                println!("{name}: {} versions removed", removed["versions"]);
            }
            Ok(())
        }
    }
}

/// What asks the server at `URL` the same, for whoever finds the data folder in use.
fn equivalent(action: &Action) -> String {
    match action {
        Action::List { .. } | Action::Shipped => "URL/v1/personas".to_owned(),
        Action::Show { name, .. } | Action::Export { name, .. } => format!("URL{}", path(name)),
        Action::Delete { name, .. } => format!("-X DELETE URL{}", path(name)),
        Action::Set { name, changes, .. } => match changes.apply(Map::new()) {
            Ok(spec) => format!("-X PUT URL{} -d '{}'", path(name), Value::Object(spec)),
            Err(_) => format!("-X PUT URL{} -d @FILE", path(name)),
        },
        Action::Import { file: Some(file), .. } => format!("URL/v1/personas -d @{}", file.display()),
        Action::Import { .. } => "URL/v1/personas -d @FILE".to_owned(),
    }
}

pub(super) fn path(name: &str) -> String {
    format!("/v1/personas/{}", segment(name))
}

fn list(client: &Client, as_json: bool) -> Outcome {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let after = all.last().and_then(|last| last["name"].as_str());
        let query = after.map(|after| format!("?after={after}")).unwrap_or_default();
        let page = client.json("GET", &format!("/v1/personas{query}"), None, &[])?;
        all.extend(page["data"].as_array().into_iter().flatten().cloned());
        if page["has_more"] != true {
            break;
        }
    }
    if as_json {
        println!("{}", Value::from(all));
    } else {
        all.iter().for_each(|persona| println!("{}", line(persona)));
    }
    Ok(())
}

/// `ada@1` with what it is made of, in one line.
fn line(persona: &Value) -> String {
    let label = format!("{}@{}", persona["name"].as_str().unwrap_or("?"), persona["version"]);
    let mut parts = Vec::new();
    if let Some(text) = persona["system"].as_str().filter(|text| !text.is_empty()) {
        parts.push(format!("system of {} bytes", text.len()));
    }
    for field in ["steering", "soft_prompt", "user"] {
        match &persona[field] {
            Value::Null => {}
            Value::String(text) => parts.push(format!("{field} {text}")),
            other => parts.push(format!("{field} {other}")),
        }
    }
    if let Some(character) = persona["character"].as_object() {
        let entries = &character["lorebook_entries"];
        parts.push(format!("card of {}, lorebook of {entries}", character["name"].as_str().unwrap_or("?")));
    }
    let sampling = persona["sampling"].as_object().into_iter().flatten();
    parts.extend(sampling.map(|(name, value)| format!("{name} {value}")));
    let probe = persona["probe"]["status"].as_str().unwrap_or("?");
    let digest = persona["digest"].as_str().and_then(|digest| digest.get(..12)).unwrap_or("-");
    format!("{label:<24} {digest:<12}  {probe}  {}", parts.join(", "))
}

pub(super) fn print(persona: &Value, as_json: bool) {
    if as_json {
        println!("{persona}");
        return;
    }
    println!("{}", line(persona));
    for note in persona["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("note: {note}");
    }
    for (field, title) in [("description", ""), ("system", "system: "), ("digest_note", "no digest: ")] {
        if let Some(text) = persona[field].as_str().filter(|text| !text.is_empty()) {
            println!("{title}{text}");
        }
    }
}

/// Reads what there is, changes what is asked for, and stores it unless somebody was faster.
fn set(client: &Client, name: &str, changes: &Changes, as_json: bool) -> Outcome {
    // A persona that is not there is made; whatever else is wrong shows when it is stored.
    let known = client.json("GET", &path(name), None, &[]).ok();
    let before = known.as_ref().map(spec_of).unwrap_or_default();
    let spec = Value::Object(changes.apply(before)?);
    let tag = known.map(|persona| format!("\"{}\"", persona["version"]));
    let headers: Vec<(&str, &str)> = tag.iter().map(|tag| ("if-match", tag.as_str())).collect();
    print(&client.json("PUT", &path(name), Some(&spec), &headers)?, as_json);
    Ok(())
}

/// The settable fields of an answered persona.
pub(super) fn spec_of(persona: &Value) -> Map<String, Value> {
    let fields = FIELDS.iter().filter_map(|field| Some((field.to_string(), persona.get(field)?.clone())));
    fields.collect()
}

impl Changes {
    fn apply(&self, mut spec: Map<String, Value>) -> Result<Map<String, Value>, CliError> {
        let system =
            match &self.system_file {
                Some(file) => Some(std::fs::read_to_string(file).map_err(|error| {
                    CliError::bad_file(format!("cannot read `{}`: {error}", file.display()))
                })?),
                None => self.system.clone(),
            };
        let texts = [
            ("system", &system),
            ("steering", &self.steering),
            ("soft_prompt", &self.soft_prompt),
            ("user", &self.user),
            ("description", &self.description),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                let value = if text.is_empty() { Value::Null } else { json!(text) };
                spec.insert(field.to_owned(), value);
            }
        }
        let mut sampling = spec.get("sampling").and_then(Value::as_object).cloned().unwrap_or_default();
        let numbers = [
            ("temperature", self.temperature.map(Value::from)),
            ("top_p", self.top_p.map(Value::from)),
            ("top_k", self.top_k.map(Value::from)),
            ("min_p", self.min_p.map(Value::from)),
            ("max_tokens", self.max_tokens.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
            ("stop", (!self.stop.is_empty()).then(|| json!(self.stop))),
        ];
        for (name, value) in numbers {
            sampling.extend(value.map(|value| (name.to_owned(), value)));
        }
        spec.insert("sampling".to_owned(), Value::Object(sampling));
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_touch_what_they_name() {
        let before = json!({"system": "s", "steering": "warm", "sampling": {"temperature": 1.0, "seed": 1}});
        let Value::Object(before) = before else { unreachable!("an object") };
        let changes = Changes {
            system: Some(String::new()),
            temperature: Some(0.5),
            stop: vec!["X".into()],
            ..Changes::default()
        };
        let after = Value::Object(changes.apply(before).unwrap());
        let sampling = json!({"temperature": 0.5, "seed": 1, "stop": ["X"]});
        assert_eq!(after, json!({"system": null, "steering": "warm", "sampling": sampling}));
    }

    #[test]
    fn names_are_safe_in_paths() {
        assert_eq!(path("ada.1"), "/v1/personas/ada.1");
        assert_eq!(path("a/b?c"), "/v1/personas/a%2Fb%3Fc");
    }
}
