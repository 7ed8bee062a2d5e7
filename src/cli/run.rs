//! `demeanor run`: chat in the terminal, with slash words to steer and compare.

use super::client::Client;
use super::serve::ModelArgs;
use super::{CliError, Outcome};
use crate::app;
use serde_json::{Value, json};
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
    /// Model of a running server's list, or what to load: catalogue name, path or hf:REPO/FILE
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
/clear             begin anew
/bye               leave (or Ctrl-D); Ctrl-C stops an answer";

pub fn run(args: &RunArgs) -> Outcome {
    let server = Client::new(&args.server, args.api_key.clone());
    let (client, model) = match server.models() {
        Some(names) if args.may_use(&names) => (server, args.target.clone()),
        _ => {
            let mut settings = args.model.settings()?;
            if let Some(target) = &args.target {
                settings.model = target.clone();
            }
            let running = super::load(&settings)?;
            (Client::new(&format!("http://{}", running.address), None), None)
        }
    };
    let stop = stop_flag()?;
    let mut chat =
        Chat { client, model, seed: args.seed, system: None, steering: None, messages: Vec::new(), stop };
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
        let mut body = json!({"messages": messages, "stream": true, "temperature": 0.8, "top_p": 0.95});
        for (name, value) in [
            ("model", self.model.as_deref().map(Value::from)),
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
                if let Some(piece) = event["choices"][0]["delta"]["content"].as_str() {
                    reply.text.push_str(piece);
                    let _ = write!(out, "{piece}").and_then(|()| out.flush());
                }
                if event.get("timings").is_some() {
                    reply.take_summary(&event);
                }
            }
            if self.stop.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let _ = writeln!(out);
        reply.print_summary();
        Ok(reply)
    }
}

#[derive(Default)]
struct Reply {
    text: String,
    seed: Option<u64>,
    summary: Option<String>,
    warnings: Vec<String>,
}

impl Reply {
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
