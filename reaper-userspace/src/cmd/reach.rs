//! How a command finds the agent that runs.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::agent::DEFAULT_CONFIG;
use crate::agent::client::{self, AskError};
use crate::agent::protocol::Request;
use crate::config::{AgentSettings, Config};

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
    /// Asks the agent; the rows of its answer.
    ///
    /// # Errors
    /// [`AskError`], or the configuration that says where it listens is not valid.
    pub fn ask(&self, request: &Request) -> anyhow::Result<Vec<String>> {
        Ok(client::ask(&self.socket()?, request)?)
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

    /// Where it listens.
    ///
    /// # Errors
    /// The configuration that was named is not valid.
    pub fn socket(&self) -> anyhow::Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        match (self.config(), &self.config) {
            (Ok(config), _) => Ok(config.agent.socket),
            (Err(e), Some(_)) => Err(e).context("the configuration does not say where the agent listens"),
            // An agent may be running by what the file said before it was broken: it is asked where it listens by default.
            (Err(_), None) => Ok(AgentSettings::default().socket),
        }
    }
}

/// Whether an error says that no agent is running.
pub fn is_nobody(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(AskError::Nobody(_)))
}
