//! How a command finds the agent that runs.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::agent::DEFAULT_CONFIG;
use crate::agent::client::{self, AskError};
use crate::agent::protocol::Request;
use crate::config::{AgentPart, AgentSettings, Config};

/// Where the agent listens.
#[derive(Args, Clone, Debug, Default)]
pub struct Reach {
    /// The agent's socket [default: the one of its configuration]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The agent's configuration [default: /etc/reaper/reaper.toml if it is there, else the built-in one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Reach {
    /// Asks the agent; the rows of its answer. What is wrong with the configuration and does not matter here is told to `err`.
    ///
    /// # Errors
    /// [`AskError`], or the configuration does not say where it listens.
    pub fn ask(&self, request: &Request, err: &mut dyn Write) -> anyhow::Result<Vec<String>> {
        Ok(client::ask(&self.socket(err)?, request)?)
    }

    /// The agent's configuration, as far as files tell.
    ///
    /// # Errors
    /// It is not valid.
    pub fn config(&self) -> anyhow::Result<Config> {
        let default = Path::new(DEFAULT_CONFIG);
        match &self.config {
            Some(file) => Ok(Config::load(file)?),
            None if default.exists() => Ok(Config::load(default)?),
            None => Ok(Config::embedded()),
        }
    }

    /// Where it listens. What is wrong with the configuration and does not matter here is told to `err`.
    ///
    /// # Errors
    /// The configuration that was named does not say it.
    pub fn socket(&self, err: &mut dyn Write) -> anyhow::Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let settings = agent_settings(self.config.as_deref(), err)
            .context("the configuration does not say where the agent listens")?;
        Ok(settings.socket)
    }
}

/// What the configuration says of the agent itself: the one that was named, else the installed one, else the embedded one. An agent
/// may be running by what the file said before it was broken, so one that is wrong elsewhere will do; a line on `err` says so.
///
/// # Errors
/// The one that was named cannot be read, is not TOML, or its `[agent]` is wrong; or `err` cannot be written.
pub fn agent_settings(named: Option<&Path>, err: &mut dyn Write) -> anyhow::Result<AgentSettings> {
    let file = named.unwrap_or(Path::new(DEFAULT_CONFIG));
    if named.is_none() && !file.exists() {
        return Ok(AgentSettings::default());
    }
    let (settings, errors, taken) = match Config::load_agent(file) {
        Ok(AgentPart { settings, errors: None }) => return Ok(settings),
        Ok(AgentPart { settings, errors: Some(errors) }) => (settings, errors, "only its [agent] is read"),
        Err(errors) if named.is_none() => {
            (AgentSettings::default(), errors, "the agent is looked for where it is by default")
        }
        Err(errors) => return Err(errors.into()),
    };
    let (first, of) = match errors.diagnostics() {
        [] => return Ok(settings),
        [first] => (first, String::new()),
        [first, ..] => (first, format!(" (the first of {} errors)", errors.diagnostics().len())),
    };
    writeln!(err, "reaper: warning: {first}{of}. No agent would start with this file; {taken}")?;
    Ok(settings)
}

/// Whether an error says that no agent is running.
pub fn is_nobody(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(AskError::Nobody(_)))
}
