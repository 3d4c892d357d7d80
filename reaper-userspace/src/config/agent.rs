//! `[agent]`: where the agent writes and what nobody may signal.

use std::net::SocketAddr;
use std::path::PathBuf;

use globset::GlobMatcher;

use super::patterns::comm_glob;
use super::protect;
use super::reader::{Cx, Node, Table};
use super::schema::AGENT;
use super::values::{
    absolute_path, choice, group, list, log_target, number, ring_size, size, socket_addr, socket_path,
};
use crate::core::rules::LogLevel;
use crate::event_log::LogTarget;
use crate::kernel::DEFAULT_RING_BYTES;

/// A file smaller than this would be rotated every few records.
const SMALLEST_LOG: u64 = 4096;

/// Settings of the agent itself, which decide nothing about processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSettings {
    /// Where the event log goes.
    pub log: LogTarget,
    /// The log is rotated before it grows above this, bytes.
    pub log_max_size: u64,
    /// How many rotated files are kept.
    pub log_keep: u32,
    /// Where the other commands ask for the status.
    pub socket: PathBuf,
    /// A group whose members may ask, besides root.
    pub socket_group: Option<u32>,
    /// A directory for what survives a restart of the agent.
    pub state: PathBuf,
    /// The ring buffer between the kernel's programs and the agent, bytes: a power of two.
    pub ring: u32,
    /// Where Prometheus reads; `None` is off.
    pub metrics: Option<SocketAddr>,
}

impl Default for AgentSettings {
    /// As in the contract.
    fn default() -> Self {
        Self {
            log: LogTarget::File(PathBuf::from("/var/log/reaper/events.jsonl")),
            log_max_size: 64 << 20,
            log_keep: 8,
            socket: PathBuf::from("/run/reaper/reaper.sock"),
            socket_group: None,
            state: PathBuf::from("/run/reaper"),
            ring: DEFAULT_RING_BYTES,
            metrics: None,
        }
    }
}

/// What `[agent]` says.
pub(super) struct Agent {
    pub(super) settings: AgentSettings,
    pub(super) log_level: LogLevel,
    /// The built-in ones and the configured ones.
    pub(super) protect: Vec<GlobMatcher>,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            settings: AgentSettings::default(),
            log_level: LogLevel::default(),
            protect: protect::builtin(),
        }
    }
}

pub(super) fn read(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Agent> {
    let table = Table::open(cx, node, &AGENT)?;
    let default = AgentSettings::default();
    let levels = [("decisions", LogLevel::Decisions), ("lineage", LogLevel::Lineage), ("all", LogLevel::All)];
    let settings = AgentSettings {
        log: table.get(cx, "log", log_target).unwrap_or(default.log),
        log_max_size: table
            .get(cx, "log_max_size", |cx, n| size(cx, n, SMALLEST_LOG))
            .unwrap_or(default.log_max_size),
        log_keep: table.get(cx, "log_keep", |cx, n| number(cx, n, 0..=10_000)).unwrap_or(default.log_keep),
        socket: table.get(cx, "socket", socket_path).unwrap_or(default.socket),
        socket_group: table.get(cx, "socket_group", group),
        state: table
            .get(cx, "state", |cx, n| absolute_path(cx, n, "an absolute path"))
            .unwrap_or(default.state),
        ring: table.get(cx, "ring", ring_size).unwrap_or(default.ring),
        metrics: table.get(cx, "metrics", socket_addr),
    };
    let mut protect = protect::builtin();
    protect.extend(table.get(cx, "protect", |cx, n| list(cx, n, "globs", comm_glob)).unwrap_or_default());
    Some(Agent {
        settings,
        log_level: table.get(cx, "log_level", |cx, n| choice(cx, n, &levels)).unwrap_or_default(),
        protect,
    })
}
