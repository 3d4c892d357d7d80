//! What the agent says of itself when it starts: in the log's first record, and to whoever started it.

use crate::config::{AgentSettings, Config};
use crate::core::GroupStatus;
use crate::core::rules::Mode;
use crate::event_log::LogTarget;

use super::preflight;

/// What `agent_started` tells.
pub(super) struct About {
    pub(super) kernel: String,
    pub(super) config: String,
    pub(super) mode: String,
}

impl About {
    /// An agent with this configuration, on this host.
    pub(super) fn of(config: &Config) -> Self {
        let enforces = config.rules.groups.iter().any(|g| g.mode == Mode::Enforce);
        Self {
            kernel: preflight::kernel_release(),
            config: config.file.clone(),
            mode: if enforces { "enforce" } else { "observe" }.to_owned(),
        }
    }

    /// What it does, and where to look.
    pub(super) fn words(&self, groups: &[GroupStatus], running: &AgentSettings) -> String {
        let enforcing = groups.iter().filter(|group| group.mode == Mode::Enforce).count();
        let does = match enforcing {
            0 => "observes, and signals nobody".to_owned(),
            some => format!("enforces in {some} of its groups"),
        };
        let log = match &running.log {
            LogTarget::Stdout => "stdout".into(),
            LogTarget::File(path) => path.to_string_lossy(),
        };
        let (config, groups, socket) = (&self.config, groups.len(), running.socket.display());
        format!("{does}; configuration: {config}, groups: {groups}, event log: {log}, socket: {socket}")
    }
}
