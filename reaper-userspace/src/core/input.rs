//! Everything that can happen to the core. The enum is closed: what is not here cannot influence a decision, and a
//! recorded list of inputs replays to the same effects.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::argv::Argv;
use super::ids::{Ns, ProcKey};
use super::likeness::Likenesses;
use super::memory::Memory;
use super::rules::Rules;
use super::sample::Sample;

/// A thread name. The kernel keeps 15 bytes of it: there is room for them without asking for memory.
pub type Comm = SmolStr;

/// One input. `at` is always the `CLOCK_BOOTTIME` of the thing itself, not of its arrival.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum Input {
    /// A process was born.
    Fork(Fork),
    /// A process executed a new image.
    Exec(Exec),
    /// The last thread of a process died.
    Exit(Exit),
    /// All processes of the host, dumped after the programs were attached. What was in the ring buffer meanwhile
    /// follows as ordinary inputs, and then [`Input::Merged`].
    Snapshot {
        /// When the dump began.
        at: Ns,
        /// How long it took.
        took_ns: Ns,
        /// A row a process, in no particular order.
        tasks: Vec<Task>,
    },
    /// The snapshot and what was buffered while it was taken are in: the tree is complete.
    Merged {
        /// When.
        at: Ns,
    },
    /// The kernel could not write `count` records. Until the next [`Input::Merged`] nobody is signalled.
    Lost {
        /// When it was noticed.
        at: Ns,
        /// Records.
        count: u64,
    },
    /// The answer to `Effect::Identify`.
    Identified {
        /// Who was asked about.
        key: ProcKey,
        /// What /proc said.
        outcome: Identified,
    },
    /// The answer to `Effect::Sample`.
    Sampled {
        /// Who was sampled.
        key: ProcKey,
        /// What was seen.
        outcome: Sampled,
    },
    /// The answer to `Effect::Aim`: the process is held by a verified pidfd and was sampled once more.
    Aimed {
        /// Who.
        key: ProcKey,
        /// What was seen.
        outcome: Sampled,
    },
    /// The answer to `Effect::Fire`.
    Fired {
        /// Who.
        key: ProcKey,
        /// When the signal was sent, or not.
        at: Ns,
        /// How it went.
        outcome: Fired,
    },
    /// Somebody else sent a signal to a process (`signal_generate`).
    SignalSeen {
        /// When.
        at: Ns,
        /// Who got it.
        target: ProcKey,
        /// Its number.
        signal: i32,
        /// The sender's tgid; 0 is the kernel.
        sender: u32,
    },
    /// What the agent before this one knew and what the kernel has kept since, before the first snapshot and after the rules.
    Remembered {
        /// Everybody alive and their dead ancestors.
        births: Vec<Birth>,
        /// What only an agent knows.
        memory: Memory,
        /// What could not be kept.
        lost: u64,
        /// From then on the agent before this one has taken nothing in any more.
        #[serde(default = "never")]
        unwatched_since: Ns,
    },
    /// New rules. Orphans stay orphans; breakers are closed again.
    Configured {
        /// When.
        at: Ns,
        /// The rules.
        #[serde(skip)]
        rules: Arc<Rules>,
        /// Groups known to be armed from an earlier run of the agent since boot.
        armed: Vec<Armed>,
        /// Names of groups whose breaker was open when an earlier run of the agent ended.
        broken: Vec<String>,
    },
    /// Nothing but the passing of time: a deadline has come.
    Tick,
}

/// A group whose master matcher has matched a process since boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Armed {
    /// Its name.
    pub group: String,
    /// What its masters and workers were.
    pub likenesses: Likenesses,
}

/// A birth. Source: tracepoint `sched_process_fork`, threads left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// When.
    pub at: Ns,
    /// The new process.
    pub child: ProcKey,
    /// `child->real_parent`'s process.
    pub parent: ProcKey,
    /// Thread name of the child.
    pub comm: Comm,
    /// Real uid of the child.
    pub uid: u32,
    /// Session id of the child, in the initial pid namespace.
    pub session: u32,
    /// A kernel thread.
    pub kernel_thread: bool,
}

/// A new image. Source: tracepoint `sched_process_exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// When.
    pub at: Ns,
    /// Who.
    pub key: ProcKey,
    /// The new thread name.
    pub comm: Comm,
    /// Real uid.
    pub uid: u32,
    /// Session id, in the initial pid namespace.
    pub session: u32,
    /// The path given to execve(2).
    pub filename: Arc<str>,
    /// The arguments, as far as the record carried them.
    pub argv: Argv,
    /// Whether `filename` or `argv` were cut short.
    pub truncated: bool,
}

/// The death of a whole process. Source: tracepoint `sched_process_exit` of the last thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// When.
    pub at: Ns,
    /// Who.
    pub key: ProcKey,
    /// Wait status, as in wait(2).
    pub status: u32,
    /// Who will adopt its children.
    pub adopter: Parent,
}

impl Exit {
    /// The status of an exit that nobody saw. It is no wait status: nobody may take it for a clean exit, as a daemonising
    /// parent's, nor for any other.
    pub const UNSEEN: u32 = u32::MAX;
}

/// For recordings that do not have it.
fn never() -> Ns {
    Ns::MAX
}

/// What the kernel keeps of a process as long as it lives or somebody descends from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// The process.
    pub key: ProcKey,
    /// `real_parent`'s process at birth; `None` where that was not kept.
    pub parent: Option<ProcKey>,
    /// The session it was forked into.
    pub birth_session: u32,
    /// When its image was exec'd, by itself or by whom it descends from; 0 if that was not seen.
    pub exec_at: Ns,
    /// The session in which it was.
    pub exec_session: u32,
    /// It exec'd itself.
    pub execed: bool,
    /// It was there before the programs were: `parent` is who it was first found below.
    pub dumped: bool,
    /// If it is dead: since when, and how it died.
    pub death: Option<Death>,
}

/// A death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// When.
    pub at: Ns,
    /// Wait status, as in wait(2), or [`Exit::UNSEEN`].
    pub status: u32,
}

/// A live parent, as far as it can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parent {
    /// This process.
    Known(ProcKey),
    /// None: the parent is pid 0.
    None,
    /// Nobody to be adopted, so it was not asked; or it was not found in the kernel: then /proc knows, once the kernel has
    /// reparented.
    Unknown,
    /// The dead process was its pid namespace's child reaper: the kernel kills everybody in it.
    NamespaceDies,
}

/// A row of the snapshot. Source: `iter/task`, leaders of live processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The process.
    pub key: ProcKey,
    /// Its parent, or its adopter if the parent is dying.
    pub parent: Parent,
    /// Thread name.
    pub comm: Comm,
    /// Real uid.
    pub uid: u32,
    /// Session id, in the initial pid namespace.
    pub session: u32,
    /// A kernel thread.
    pub kernel_thread: bool,
    /// A child subreaper, or the child reaper of a pid namespace: it adopts.
    pub reaper: bool,
}

/// What /proc says about who a process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identified {
    /// It is alive, and this is it.
    Alive(Identity),
    /// There is no such process any more (or its pid belongs to another one, or it is a zombie).
    Gone,
    /// It may be alive, but /proc could not be read: why.
    Unreadable(String),
}

/// Who a process is, read afresh from /proc. proc(5) names each file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// When it was read.
    pub at: Ns,
    /// `/proc/PID/comm`.
    pub comm: Comm,
    /// `/proc/PID/cmdline`, split; empty for kernel threads.
    pub argv: Argv,
    /// `/proc/PID/exe` resolved, or empty where it cannot be read.
    pub exe: Arc<str>,
    /// Real uid, `/proc/PID/status`.
    pub uid: u32,
    /// PPid, `/proc/PID/stat`.
    pub ppid: u32,
    /// Session, `/proc/PID/stat`.
    pub session: u32,
    /// The paths in `/proc/PID/cgroup`, each once.
    pub cgroups: Vec<Arc<str>>,
}

impl Identity {
    /// The arguments joined with spaces: what `cmdline` patterns are matched against.
    pub fn cmdline(&self) -> String {
        self.argv.line()
    }
}

/// How a sample came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampled {
    /// This was seen.
    Seen(Sample),
    /// There is no such process any more.
    Gone,
    /// It may be alive, but could not be sampled: why. Unknown counts as busy.
    Unreadable(String),
}

/// How sending a signal went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fired {
    /// The kernel took it.
    Sent,
    /// The process was gone by then.
    Gone,
    /// It was not sent: why.
    Failed(String),
}
