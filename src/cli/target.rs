//! The server that a verb asks: a running one, or one of this process's own on the data folder.

use super::CliError;
use super::client::Client;
use super::serve::ModelArgs;
use crate::app::{self, Running};

/// Who is asked, as arguments of a verb.
#[derive(clap::Args, Clone, Debug)]
pub struct Place {
    /// A running server to ask, e.g. http://127.0.0.1:8080; default: the data folder itself
    #[arg(long, env = "DEMEANOR_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// Key for that server
    #[arg(long, env = "DEMEANOR_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    #[command(flatten)]
    pub model: ModelArgs,
}

impl Place {
    /// As [`Target::open`].
    pub fn open(&self, curl: &str) -> Result<Target, CliError> {
        Target::open(self.server.as_deref(), self.api_key.clone(), &self.model, curl)
    }
}

/// Both ways obey the same rules, since both go over HTTP.
pub struct Target {
    pub client: Client,
    /// Ends with the verb.
    _own: Option<Running>,
}

impl Target {
    /// The server at a URL, else a new one with these settings. Where the data folder is in use, the error names `curl`
    /// with these arguments, `URL` standing for the server that holds it.
    pub fn open(
        server: Option<&str>,
        key: Option<String>,
        model: &ModelArgs,
        curl: &str,
    ) -> Result<Target, CliError> {
        if let Some(server) = server {
            return Ok(Target { client: Client::new(server, key), _own: None });
        }
        super::verify::if_on_disk(model)?;
        let running = app::start_in_background(&model.settings()?);
        let running = running.map_err(|error| super::or_ask(error, curl))?;
        let client = Client::new(&format!("http://{}", running.address), None);
        Ok(Target { client, _own: Some(running) })
    }
}
