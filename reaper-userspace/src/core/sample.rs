//! What one look at a process shows. The core judges it (`core/idle.rs`); the shell only gathers it.

use serde::{Deserialize, Serialize};

use super::ids::{Ns, ProcKey};

/// One look at every thread of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken.
    pub at: Ns,
    /// Every thread, by tid.
    pub threads: Vec<Thread>,
    /// CPU time of these threads so far, nanoseconds (`/proc/PID/task/TID/schedstat`).
    pub cpu_ns: Ns,
}

/// One thread. Source: `/proc/PID/task/TID/{stat,comm,syscall}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    /// Thread id in the agent's pid namespace.
    pub tid: u32,
    /// Thread name.
    pub comm: String,
    /// State letter, proc(5): R, S, D, T, t, Z, X, I.
    pub state: char,
    /// The blocked system call, if known.
    pub syscall: Option<String>,
    /// What it waits for, if known.
    pub waits_on: Vec<WaitsOn>,
}

/// One descriptor of a wait set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitsOn {
    /// Descriptor number.
    pub fd: i32,
    /// What it is.
    pub what: String,
    /// The other end, if it has one.
    pub peer: Option<String>,
}

/// A live child. The tree knows them; nobody samples them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Who.
    pub key: ProcKey,
    /// Thread name of its leader.
    pub comm: std::sync::Arc<str>,
}
