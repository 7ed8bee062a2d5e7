//! `demeanor run`: chat in the terminal, with slash words to steer and compare.

use super::client::Client;
use super::serve::ModelArgs;
use super::{CliError, Outcome};
use crate::app;
use crate::steering::is_valid_name;
use serde_json::{Map, Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Chat with a model in the terminal
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  demeanor run\n  >>> /steer 2 warm\n  >>> I lost my keys again.\n  >>> /compare How do I cook rice?\n\n\
    Talks to the server at --server when one answers there, else loads the model itself."
)]
pub struct RunArgs {
    /// Model of a running server's list, or what to load as for --model; `MODEL@PERSONA` talks to a stored persona
    pub target: Option<String>,
    /// A running server
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "DEMEANOR_SERVER")]
    pub server: String,
    /// Key for that server
    #[arg(long, env = "DEMEANOR_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Random seed of the answers; the same seed gives the same answers
    #[arg(long)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub model: ModelArgs,
}

impl RunArgs {
    /// Whether a running server with these models is what was asked for.
    fn may_use(&self, names: &[String]) -> bool {
        let plain = |target: &str| target.split('@').next().unwrap_or(target).to_owned();
        let asked = self.target.as_deref().map(plain);
        self.model.is_default() && asked.is_none_or(|target| names.contains(&target))
    }
}

const HELP: &str = "\
/steer EXPR        steer the answers, e.g. /steer 2 warm - 1 formal; /steer alone turns it off
/compare TEXT      the answer to TEXT without and with the steering, from one seed
/set system TEXT   set the system prompt and begin anew; /set system alone removes it
/user ID           talk as this user: the server's soft prompt of them applies; /user alone as nobody
/save NAME         keep system prompt, steering and user as a persona of this name
/clear             begin anew
/bye               leave (or Ctrl-D); Ctrl-C stops an answer";

pub fn run(args: &RunArgs) -> Outcome {
    let server = Client::new(&args.server, args.api_key.clone());
    let mut own = None;
    let (client, model) = match server.models() {
        Some(names) if args.may_use(&names) => (server, args.target.clone()),
        _ => {
            let mut settings = args.model.settings()?;
            let (model, persona) = args.target.as_deref().map_or((None, None), split);
            settings.model = model.map_or(settings.model, str::to_owned);
            super::verify::model_file(&ModelArgs { model: settings.model.clone(), ..args.model.clone() })?;
            let running = app::start_in_background(&settings)?;
            let client = Client::new(&format!("http://{}", running.address), None);
            own = Some(running);
            (client, persona.map(|name| format!("@{name}")))
        }
    };
    let persona = model.as_deref().and_then(|model| split(model).1).map(str::to_owned);
    let _ends_with_the_chat = own;
    let stop = stop_flag()?;
    let mut chat = Chat {
        client,
        model,
        persona,
        user: None,
        seed: args.seed,
        system: None,
        steering: None,
        messages: Vec::new(),
        stop,
    };
    let prompt = if std::io::stdin().is_terminal() { ">>> " } else { "" };
    let mut lines = std::io::stdin().lock().lines();
    loop {
        eprint!("{prompt}");
        let Some(line) = lines.next() else { break };
        let line = line.map_err(|error| CliError::failed(format!("reading the terminal: {error}")))?;
        if let ControlFlow::Break(()) = chat.take(line.trim()) {
            break;
        }
    }
    Ok(())
}

/// What to load and the persona to talk to, of `MODEL@PERSONA`. A file that exists is meant as it is named.
fn split(target: &str) -> (Option<&str>, Option<&str>) {
    match target.rsplit_once('@').filter(|(_, name)| is_valid_name(name)) {
        Some((model, persona)) if !std::path::Path::new(target).exists() => {
            (Some(model).filter(|model| !model.is_empty()), Some(persona))
        }
        _ => (Some(target), None),
    }
}

/// A flag that Ctrl-C sets.
fn stop_flag() -> Result<Arc<AtomicBool>, CliError> {
    let flag = Arc::new(AtomicBool::new(false));
    let setter = flag.clone();
    let runtime = app::runtime(1).map_err(|error| CliError::failed(error.to_string()))?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                setter.store(true, Relaxed);
                eprintln!();
            }
        });
    });
    Ok(flag)
}

/// The conversation so far.
struct Chat {
    client: Client,
    model: Option<String>,
    /// The persona that is part of the model's name.
    persona: Option<String>,
    user: Option<String>,
    seed: Option<u64>,
    system: Option<String>,
    steering: Option<String>,
    /// User and assistant messages in turn.
    messages: Vec<Value>,
    stop: Arc<AtomicBool>,
}

impl Chat {
    /// One line of the user: a slash word or something to answer.
    fn take(&mut self, line: &str) -> ControlFlow<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "" => {}
            "/bye" | "/exit" | "/quit" => return ControlFlow::Break(()),
            "/help" | "/?" => eprintln!("{HELP}"),
            "/clear" => self.messages.clear(),
            "/steer" => self.steer(rest),
            "/compare" => self.compare(rest),
            "/user" => self.user = (!rest.is_empty()).then(|| rest.to_owned()),
            "/save" => self.save(rest),
            "/set" => match rest.split_once(' ').map_or((rest, ""), |(name, text)| (name, text.trim())) {
                ("system", text) => {
                    self.system = (!text.is_empty()).then(|| text.to_owned());
                    self.messages.clear();
                }
                (other, _) => eprintln!("`/set {other}` is unknown; hint: /set system TEXT"),
            },
            _ if word.starts_with('/') => eprintln!("`{word}` is unknown\n{HELP}"),
            _ => self.answer(line),
        }
        ControlFlow::Continue(())
    }

    fn steer(&mut self, expression: &str) {
        self.steering = (!expression.is_empty()).then(|| expression.to_owned());
        match &self.steering {
            Some(expression) => {
                eprintln!("steering: {expression} (the first use of a trait extracts it, some seconds)")
            }
            None => eprintln!("steering: off"),
        }
    }

    /// Keeps what was set in this chat. A persona's own parts are not in it, so it is not mixed with one.
    fn save(&self, name: &str) {
        if name.is_empty() || self.persona.is_some() {
            let hint = "hint: /save NAME, in a chat that was started without a persona";
            return eprintln!("{hint}; `demeanor persona set` changes a stored one");
        }
        let body = json!({
            "system": self.system, "steering": self.steering, "user": self.user, "sampling": sampling(),
        });
        match self.client.json("PUT", &super::persona::path(name), Some(&body), &[]) {
            Ok(saved) => eprintln!("saved: {}, version {}", saved["model"], saved["version"]),
            Err(error) => eprintln!("{error}"),
        }
    }

    fn answer(&mut self, text: &str) {
        self.messages.push(json!({"role": "user", "content": text}));
        match self.ask(&self.messages, self.steering.as_deref(), self.seed) {
            Ok(reply) => self.messages.push(json!({"role": "assistant", "content": reply.text})),
            Err(error) => {
                self.messages.pop();
                eprintln!("{error}");
            }
        }
    }

    /// The same question twice from one seed.
    fn compare(&mut self, text: &str) {
        if text.is_empty() {
            eprintln!("hint: /compare TEXT");
            return;
        }
        let mut messages = self.messages.clone();
        messages.push(json!({"role": "user", "content": text}));
        eprintln!("── plain");
        let plain = match self.ask(&messages, None, self.seed) {
            Ok(reply) => reply,
            Err(error) => return eprintln!("{error}"),
        };
        let Some(steering) = self.steering.clone() else {
            return eprintln!("hint: /steer EXPR first, then /compare shows both answers");
        };
        eprintln!("── {steering}");
        if let Err(error) = self.ask(&messages, Some(&steering), plain.seed) {
            eprintln!("{error}");
        }
    }

    /// Streams one answer to stdout.
    fn ask(&self, messages: &[Value], steering: Option<&str>, seed: Option<u64>) -> Result<Reply, CliError> {
        let system = self.system.iter().map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<Value> = system.chain(messages.iter().cloned()).collect();
        let mut body = json!({"messages": messages, "stream": true});
        if self.persona.is_none() {
            // A persona brings its own.
            body.as_object_mut().into_iter().for_each(|body| body.extend(sampling()));
        }
        for (name, value) in [
            ("model", self.model.as_deref().map(Value::from)),
            ("user", self.user.as_deref().map(Value::from)),
            ("steering", steering.map(Value::from)),
            ("seed", seed.map(Value::from)),
        ] {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        let mut reply = Reply::default();
        self.stop.store(false, Relaxed);
        let mut out = std::io::stdout();
        self.client.post_stream("/v1/chat/completions", &body, |event| {
            if let Some(event) = event {
                let delta = &event["choices"][0]["delta"];
                if let Some(piece) = delta["reasoning_content"].as_str() {
                    reply.print_thought(piece);
                }
                if let Some(piece) = delta["content"].as_str() {
                    reply.end_thought();
                    reply.text.push_str(piece);
                    let _ = write!(out, "{piece}").and_then(|()| out.flush());
                }
                if event.get("timings").is_some() {
                    reply.take_summary(&event);
                }
            }
            if self.stop.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        reply.end_thought();
        let _ = writeln!(out);
        reply.print_summary();
        Ok(reply)
    }
}

/// How chats in the terminal draw: some variety, no junk.
fn sampling() -> Map<String, Value> {
    let numbers = [("temperature", 0.8), ("top_p", 0.95)];
    numbers.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

#[derive(Default)]
struct Reply {
    text: String,
    /// Whether a thought is being printed.
    thinks: bool,
    seed: Option<u64>,
    summary: Option<String>,
    warnings: Vec<String>,
}

impl Reply {
    /// Thoughts go beside the answer, not into it.
    fn print_thought(&mut self, piece: &str) {
        let start = if self.thinks { "" } else { "   thinking: " };
        eprint!("{start}{piece}");
        self.thinks = true;
    }

    fn end_thought(&mut self) {
        if std::mem::take(&mut self.thinks) {
            eprintln!();
        }
    }

    fn take_summary(&mut self, event: &Value) {
        let timings = &event["timings"];
        self.seed = event["demeanor"]["seed"].as_u64();
        let doses = event["demeanor"]["vectors"].as_array().into_iter().flatten();
        let doses: Vec<String> = doses
            .filter_map(|v| Some(format!("{} dose {:.2}", v["name"].as_str()?, v["dose"].as_f64()?)))
            .collect();
        let tokens = timings["predicted_n"].as_u64().unwrap_or(0);
        let rate = timings["predicted_per_second"].as_f64().unwrap_or(0.0);
        let mut parts = vec![format!("{tokens} tokens"), format!("{rate:.0} tok/s")];
        parts.extend(doses);
        self.summary = Some(parts.join(" · "));
        let warnings = event["demeanor"]["warnings"].as_array().into_iter().flatten();
        self.warnings = warnings.filter_map(|warning| warning.as_str().map(str::to_owned)).collect();
    }

    fn print_summary(&self) {
        if std::io::stderr().is_terminal()
            && let Some(summary) = &self.summary
        {
            eprintln!("   {summary}");
        }
        self.warnings.iter().for_each(|warning| eprintln!("   warning: {warning}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let table = [
            ("smollm2", (Some("smollm2"), None)),
            ("smollm2@ada", (Some("smollm2"), Some("ada"))),
            ("@ada", (None, Some("ada"))),
            ("hf:org/repo/x.gguf@ada", (Some("hf:org/repo/x.gguf"), Some("ada"))),
            ("smollm2@(0.8 warm)", (Some("smollm2@(0.8 warm)"), None)),
        ];
        for (target, expected) in table {
            assert_eq!(split(target), expected, "{target}");
        }
    }
}
