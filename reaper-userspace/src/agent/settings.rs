//! What the command line said about how the agent runs, and the configuration that follows from it.

use std::path::PathBuf;

use crate::config::{Config, ConfigErrors};
use crate::core::rules::Mode;
use crate::event_log::LogTarget;
use crate::trust;

/// What the command line said.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--observe`.
    pub observe: bool,
    /// `--log`.
    pub log: Option<LogTarget>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--state`.
    pub state: Option<PathBuf>,
    /// `--record` and `--record-limit`, bytes.
    pub record: Option<(PathBuf, u64)>,
    /// Nothing of it is to outlive this process.
    pub unpinned: bool,
    /// Whether the process is the agent and nothing else, and gives up what the agent does not need.
    pub confine: bool,
}

/// The file that is read when none is named.
pub const DEFAULT_CONFIG: &str = "/etc/reaper/reaper.toml";

impl Settings {
    /// Settles which file is meant, once: a file that is gone at a reload is an error, not another configuration.
    pub fn with_default_file(self) -> Self {
        let default = PathBuf::from(DEFAULT_CONFIG);
        // If it cannot be told whether the file is there, reading it says why.
        let there = default.try_exists().unwrap_or(true);
        Self { config: self.config.or(there.then_some(default)), ..self }
    }

    /// Reads the configuration that these settings mean, and lays them over it. A file that others than root may change is refused.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        let mut config = match &self.config {
            Some(path) => {
                let config = Config::load(path)?;
                trust::check_file(path).map_err(|why| ConfigErrors::refused(path, &why))?;
                config
            }
            None => Config::embedded(),
        };
        if self.observe {
            for group in &mut config.rules.groups {
                group.mode = Mode::Observe;
            }
        }
        if let Some(log) = &self.log {
            config.agent.log = log.clone();
        }
        if let Some(socket) = &self.socket {
            config.agent.socket.clone_from(socket);
        }
        if let Some(state) = &self.state {
            config.agent.state.clone_from(state);
        }
        Ok(config)
    }
}
