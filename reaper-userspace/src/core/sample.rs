//! What one look at a process shows. The core judges it (`core/idle`); the shell only gathers it (`idle/`).
//!
//! Facts only, in the kernel's terms: which call a thread is blocked in, which descriptors that is about, what is at their
//! other ends. Whether a descriptor is a source of work is the core's business, because it depends on the rules.

use std::sync::Arc;

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ids::{Ns, ProcKey};
use super::input::Comm;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// State and CPU time of every thread: enough for `proof = "asleep"`.
    Threads,
    /// Also what every thread waits for, and what the descriptors are: `proof = "source"`.
    Source,
}

/// What a group's rules ask of the observer in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wants {
    /// What goes over each socket.
    pub traffic: bool,
    /// Whether an alarm runs.
    pub alarm: bool,
}

/// One look at every thread of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken.
    pub at: Ns,
    /// Every thread, by tid.
    pub threads: Vec<Thread>,
    /// CPU time of these threads so far, nanoseconds (`/proc/PID/task/TID/schedstat`).
    pub cpu_ns: Ns,
    /// Every thread was held still by ptrace(2) while this was read: the state letters say `t` of all of them.
    #[serde(default)]
    pub frozen: bool,
    /// What [`Depth::Source`] shows besides; `None` at [`Depth::Threads`].
    #[serde(default)]
    pub source: Option<Source>,
}

/// One thread. Source: `/proc/PID/task/TID/{stat,comm,status,syscall}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    /// Thread id in the agent's pid namespace.
    pub tid: u32,
    /// Thread name.
    pub comm: String,
    /// State letter, proc(5): R, S, D, T, t, Z, X, I.
    pub state: char,
    /// The blocked system call by name, if known.
    #[serde(default)]
    pub syscall: Option<String>,
    /// What that call waits for.
    #[serde(default)]
    pub wait: Wait,
    /// How often it has been switched away from a CPU so far (`voluntary_ctxt_switches` and `nonvoluntary_…`): while this
    /// stays the same it has not run. `None` at [`Depth::Threads`].
    #[serde(default)]
    pub switches: Option<u64>,
}

/// What a blocked system call waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Nobody looked.
    #[default]
    NotAsked,
    /// It is not in a system call, or on a CPU.
    Nothing,
    /// Any of these descriptors (read, recv, accept, poll, select, epoll_wait and their kin; an epoll descriptor is replaced by its
    /// targets). None at all makes it a mere sleep.
    Files {
        /// Sorted; each has a row in [`Source::files`].
        fds: Vec<i32>,
        /// For this long at most; `None` is for ever.
        timeout: Option<Ns>,
    },
    /// A futex.
    Futex {
        /// Whether it ends by itself.
        timed: bool,
    },
    /// A timed sleep.
    Sleep {
        /// As asked for: what nanosleep(2) was called with. `None` if only its end is known (`TIMER_ABSTIME`).
        length: Option<Ns>,
    },
    /// The end of a child (wait4, waitid).
    Child,
    /// Another system call: none of those that wait for work.
    Other,
    /// It could not be found out: why.
    Unknown(String),
}

/// What [`Depth::Source`] shows besides the threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Every socket of the process and every descriptor that a thread waits for, by number.
    pub files: Vec<File>,
    /// Why `files` is not complete, if it is not: then nothing can be said of what is missing.
    pub incomplete: Option<String>,
    /// `/proc/PID/cmdline` joined with spaces: titles change without any event.
    pub title: Arc<str>,
    /// The signals that it has handlers for, a bit each from the lowest. `None` if nobody could tell.
    #[serde(default)]
    pub caught: Option<u64>,
    /// Whether a real-time interval timer runs (alarm(2), `setitimer(ITIMER_REAL)`). `None` if nobody could tell.
    pub alarm: Option<bool>,
}

/// One open descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its number.
    pub fd: i32,
    /// What it is.
    pub what: FileKind,
    /// Inode number: the same for everybody who has the same pipe or socket open.
    pub inode: u64,
    /// Whether something unread, an end of file or a connection waits on it (poll(2) says `POLLIN`). `None` where that
    /// cannot be asked from outside.
    pub readable: Option<bool>,
    /// Other processes that have the same pipe or socket open, by pid. `None` if that is not known.
    pub holders: Option<Vec<u32>>,
    /// What this process did on this socket since the observer began to look; `None` where it does not look.
    pub traffic: Option<Traffic>,
}

/// What a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A socket that listens at this address.
    Listening(Address),
    /// A socket with a peer.
    Connected {
        /// This end.
        local: Address,
        /// The other end.
        peer: Address,
    },
    /// A unix socket without names at either end: socketpair(2), or an accepted or connected one that nobody bound.
    Pair {
        /// The process that made the pair, or connected (`SO_PEERCRED`); 0 if unknown.
        peer: u32,
    },
    /// A socket without a peer.
    Unconnected {
        /// Such as `udp`, `netlink`.
        family: String,
        /// Where it is bound: an accepted TCP connection keeps that when its peer has reset it.
        local: Option<Address>,
    },
    /// A pipe or FIFO.
    Pipe,
    /// It brings no work by itself: eventfd, timerfd, signalfd, inotify.
    Neutral(String),
    /// Anything else, by its `/proc/PID/fd` link.
    Other(String),
}

impl FileKind {
    /// A socket of any kind.
    pub fn is_socket(&self) -> bool {
        match self {
            Self::Listening(_) | Self::Connected { .. } | Self::Pair { .. } | Self::Unconnected { .. } => {
                true
            }
            Self::Pipe | Self::Neutral(_) | Self::Other(_) => false,
        }
    }
}

/// Where a socket is bound or connected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// TCP over IPv4 or IPv6; an IPv4 address mapped into IPv6 is told as IPv4.
    Tcp(IpAddr, u16),
    /// A path, or `@` and a name for the abstract ones.
    Unix(String),
}

impl core::fmt::Display for Address {
    /// As endpoints are written in the configuration.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Tcp(ip, port) => write!(f, "tcp/{}", core::net::SocketAddr::new(*ip, *port)),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// Sends and receives of one process on one socket, since the observer began to look at that process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// How often it sent something.
    pub sends: u64,
    /// Bytes sent.
    pub sent: u64,
    /// How often it received something.
    pub receives: u64,
    /// Bytes received.
    pub received: u64,
    /// The last of them.
    pub last: Option<Operation>,
}

/// A send or a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// When.
    pub at: Ns,
    /// A send, else a receive.
    pub sent: bool,
    /// Bytes.
    pub bytes: u64,
}

/// A live child. The tree knows them; nobody samples them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Who.
    pub key: ProcKey,
    /// Thread name of its leader.
    pub comm: Comm,
}
