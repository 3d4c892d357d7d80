//! The event log's records, as in the contract: fields are only added, never changed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::argv::Argv;
use super::ids::Ns;
use super::input::Comm;

/// One record before the log numbers and dates it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `CLOCK_BOOTTIME` of what happened.
    pub boot_ns: Ns,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// A process as records show it. It shares its texts with the tree: showing every process of a host copies none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcView {
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// `CLOCK_BOOTTIME` of its start.
    pub start_ns: Ns,
    /// Parent's pid at the time of the record.
    pub ppid: u32,
    /// Real uid.
    pub uid: u32,
    /// Thread name.
    pub comm: Comm,
    /// Executable, as far as known.
    pub exe: Arc<str>,
    /// Arguments, as far as known.
    pub argv: Argv,
    /// Id of its container, if it is known to be in one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<Arc<str>>,
    /// Uid of its Kubernetes pod, if it is known to be in one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod: Option<Arc<str>>,
}

/// What happened. The tag is the record's `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the contract names every field; docs/event-log.md describes them")]
pub enum Event {
    AgentStarted {
        version: String,
        kernel: String,
        config: String,
        mode: String,
    },
    AgentStopped {
        version: String,
        kernel: String,
        config: String,
        mode: String,
    },
    ConfigLoaded {
        file: String,
        groups: Vec<String>,
    },
    ConfigRejected {
        file: String,
        errors: Vec<String>,
    },
    Snapshot {
        processes: usize,
        took_us: u64,
    },
    Fork {
        proc: ProcView,
        parent: ProcView,
    },
    Exec {
        proc: ProcView,
        parent: ProcView,
    },
    Exit {
        proc: ProcView,
        parent: ProcView,
        code: Option<i32>,
        signal: Option<String>,
    },
    Reparent {
        proc: ProcView,
        old_parent: ProcView,
        new_parent: ProcView,
    },
    MasterFound {
        group: String,
        proc: ProcView,
    },
    MasterLost {
        group: String,
        proc: ProcView,
        workers: usize,
        code: Option<i32>,
        signal: Option<String>,
        /// Pid 1 of its namespace died: the kernel kills everybody in it, so nobody is an orphan.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        namespace_died: bool,
    },
    Heir {
        group: String,
        proc: ProcView,
        of: ProcView,
        because: HeirBecause,
    },
    Orphaned {
        group: String,
        proc: ProcView,
        lost: Option<ProcView>,
        lineage: Vec<u32>,
        stray: bool,
    },
    Busy {
        group: String,
        proc: ProcView,
        evidence: Evidence,
    },
    Idle {
        group: String,
        proc: ProcView,
        evidence: Evidence,
    },
    Draining {
        group: String,
        proc: ProcView,
        signal: String,
        sender: Option<ProcView>,
    },
    Signal {
        group: String,
        proc: ProcView,
        signal: String,
        step: usize,
        evidence: Evidence,
        since_orphan_us: u64,
        since_idle_us: u64,
        verified: bool,
        dry_run: bool,
    },
    Reaped {
        group: String,
        proc: ProcView,
        signal: String,
        took_us: u64,
    },
    Left {
        group: String,
        proc: ProcView,
    },
    Spared {
        group: String,
        proc: ProcView,
        because: SparedBecause,
    },
    BreakerOpen {
        group: String,
        kills: u32,
        window: String,
    },
    BreakerClosed {
        group: String,
        kills: u32,
        window: String,
    },
    EventsLost {
        count: u64,
    },
    Resynced {
        added: usize,
        removed: usize,
        took_us: u64,
    },
    Error {
        what: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        proc: Option<ProcView>,
    },
}

impl Event {
    /// The tag, as records write it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AgentStarted { .. } => "agent_started",
            Self::AgentStopped { .. } => "agent_stopped",
            Self::ConfigLoaded { .. } => "config_loaded",
            Self::ConfigRejected { .. } => "config_rejected",
            Self::Snapshot { .. } => "snapshot",
            Self::Fork { .. } => "fork",
            Self::Exec { .. } => "exec",
            Self::Exit { .. } => "exit",
            Self::Reparent { .. } => "reparent",
            Self::MasterFound { .. } => "master_found",
            Self::MasterLost { .. } => "master_lost",
            Self::Heir { .. } => "heir",
            Self::Orphaned { .. } => "orphaned",
            Self::Busy { .. } => "busy",
            Self::Idle { .. } => "idle",
            Self::Draining { .. } => "draining",
            Self::Signal { .. } => "signal",
            Self::Reaped { .. } => "reaped",
            Self::Left { .. } => "left",
            Self::Spared { .. } => "spared",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::BreakerClosed { .. } => "breaker_closed",
            Self::EventsLost { .. } => "events_lost",
            Self::Resynced { .. } => "resynced",
            Self::Error { .. } => "error",
        }
    }
}

/// Why a process became a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeirBecause {
    /// The dead master forked it and it exec'd: an upgrade in place.
    Exec,
    /// It was detached: the way programs daemonise.
    Session,
}

/// Why an orphan, or what looked like one, is not signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the contract's words")]
pub enum SparedBecause {
    Observe,
    Unarmed,
    Protected,
    Breaker,
    JobChild,
    Adopted,
    Detached,
    NotReplaced,
}

/// What was seen of a process, and what follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What follows.
    pub verdict: Verdict,
    /// Why, in one sentence.
    pub because: String,
    /// Its threads, 128 at most, the judged ones and the others.
    pub threads: Vec<ThreadView>,
    /// CPU time used within about the last second, microseconds.
    pub cpu_us: u64,
    /// Live children that mean busy.
    pub children: usize,
    /// For how long it has been idle, microseconds.
    pub quiet_us: u64,
}

/// A thread as records show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadView {
    /// Thread id.
    pub tid: u32,
    /// Thread name.
    pub comm: String,
    /// State letter, proc(5).
    pub state: char,
    /// The blocked system call, if known.
    pub syscall: Option<String>,
    /// What it waits for, if known.
    pub waits_on: Vec<WaitsOn>,
}

/// One descriptor of a wait set as records show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitsOn {
    /// Descriptor number.
    pub fd: i32,
    /// What it is.
    pub what: String,
    /// The other end, if it has one.
    pub peer: Option<String>,
}

/// Idle, busy, or not known. Not known counts as busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the contract's words")]
pub enum Verdict {
    Idle,
    Busy,
    Unknown,
}
