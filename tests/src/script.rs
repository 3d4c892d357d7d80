//! What an actor does: a list of operations, passed as JSON in the environment so that its command line stays
//! `actor ROLE TOKEN` and says nothing else to a matcher. `src/bin/actor.rs` carries them out.

use serde::{Deserialize, Serialize};

/// The environment variable with the actor's program: a JSON list of [`Op`].
pub const PROGRAM: &str = "REAPER_ACTOR_PROGRAM";
/// The environment variable with the scene's directory: ledger, gates and copies live there.
pub const DIR: &str = "REAPER_ACTOR_DIR";
/// The ledger's name in the scene's directory.
pub const LEDGER: &str = "ledger";
/// No actor lives longer than this, whatever happens to the test.
pub const LIFETIME_S: u32 = 60;

/// One operation. A process that runs out of operations exits with status 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// A child runs these; the parent goes on at once.
    Fork(Vec<Op>),
    /// The same, but the child's parent is this process's own parent (`CLONE_PARENT`).
    ForkSibling(Vec<Op>),
    /// A new thread runs these; the process goes on at once.
    Thread(Vec<Op>),
    /// Re-execute this program in the same process with another role, to run these.
    Exec(String, Vec<Op>),
    /// The same, below another program that is executed first: its arguments, to which this one's are added.
    ExecUnder(Vec<String>, String, Vec<Op>),
    /// Execute any other program.
    Run(Vec<String>),
    /// setsid(2).
    Setsid,
    /// `PR_SET_CHILD_SUBREAPER`.
    Subreaper(bool),
    /// `PR_SET_PDEATHSIG`: a TERM when the parent dies.
    DeathSignal,
    /// Ask every so many milliseconds whether the parent is still the same, and exit when it is not.
    WatchParent(u64),
    /// Overwrite the command line in place as setproctitle does: this text, a space, the token.
    Title(String),
    /// `PR_SET_NAME`.
    Comm(String),
    /// Burn CPU for so many milliseconds; not interrupted by a TERM that is handled.
    Busy(u64),
    /// The same until the test opens the gate of this name, which nobody else waits at.
    BusyUntil(String),
    /// Sleep for so many milliseconds.
    Sleep(u64),
    /// Sleep until somebody ends it.
    Forever,
    /// Block until the test opens the gate of this name.
    Gate(String),
    /// From here on SIGTERM is ignored, also by what is forked and exec'd.
    IgnoreTerm,
    /// From here on a SIGTERM makes this process run these, but never before a `Busy` has ended.
    OnTerm(Vec<Op>),
    /// Back to the default action of SIGTERM.
    DefaultTerm,
    /// Become this user, with its primary group only.
    User(String),
    /// The next fork is pid 1 of a new pid namespace.
    NewPidNamespace,
    /// Be an init: a child runs these; this process waits for whoever dies below it, and exits as soon as that child has.
    Init(Vec<Op>),
    /// A user namespace of its own, in which it is root.
    OwnUsers,
    /// A mount namespace of its own, in which a folder of this name is in the scene, and in it a copy of this program. What is
    /// exec'd from here on is that copy.
    OwnMounts(String),
    /// Mount a /proc for this process's own pid namespace, in a mount namespace of its own.
    MountProc,
    /// Be in uninterruptible sleep (state D) without having a child: as in vfork(2) wait for a process that is this
    /// one's sibling (`CLONE_PARENT`) and has stopped itself. The sibling writes `NAME` into the ledger; this goes on
    /// when the sibling dies.
    Uninterruptible(String),
    /// Stop oneself with SIGSTOP.
    Stop,
    /// So many threads, each of which starts and awaits one other after the other.
    Churn(usize),
    /// One read(2) after the other that always gets something.
    ReadOn,
    /// Append the value of every `SIGRTMIN + 1` (4 bytes each) to this file of the scene.
    NoteValues(String),
    /// Appends the id of the thread that gets a TERM to this file, 4 bytes each.
    NoteTermThreads(String),
    /// Freeze the process that wrote this into the ledger, write `frozen` into it, and be killed.
    FreezeAndDie(String),
    /// Append a line to the ledger for whatever wait(2) says of any child, stops included, and a byte to the file
    /// `sigchld` for every `SIGCHLD`; for ever.
    TellChildren,
    /// Open this under a name. Of a TCP socket that listens `NAME@ADDRESS` is written into the ledger.
    Open(String, Open),
    /// Close what has this name.
    Close(String),
    /// Block once in this call, on what has these names; `stdin` is open from the start.
    Await(Call, Vec<String>),
    /// Write so many bytes to what has this name.
    Send(String, usize),
    /// clock_nanosleep(2) for so many milliseconds.
    Nanosleep(u64),
    /// alarm(2) in so many seconds; 0 is none. The process still does not outlive [`LIFETIME_S`] for long.
    Alarm(u32),
    /// These for ever.
    Repeat(Vec<Op>),
    /// The calling thread has descriptors of its own from here on.
    OwnDescriptors,
    /// A network namespace of its own, in which it can reach itself.
    OwnNetwork,
    /// Wait until no child is left.
    WaitChildren,
    /// Wait for any one child and exit as it did.
    ExitLikeChild,
    /// End the calling thread only; the process lives on as long as another thread does.
    ExitThread,
    /// Exit with this status.
    Exit(i32),
    /// Append `EVENT pid start_ticks boot_ns ppid` to the ledger.
    Ledger(String),
    /// Copy a file of the scene to another name in the scene, whole or not at all.
    Copy(String, String),
}

/// What [`Op::Open`] opens. An address is an IP address with a port, or the name of a file of the scene.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Open {
    /// A socket that listens at this address.
    Listener(String),
    /// A connection to this address.
    Connection(String),
    /// The next connection to the listener of this name.
    Client(String),
    /// The end of a pipe to read from; the other end gets this name.
    Pipe(String),
    /// An eventfd.
    Counter,
    /// An epoll descriptor that waits for input from these.
    Epoll {
        /// By name.
        targets: Vec<String>,
        /// Tells of each only once (`EPOLLET`).
        edge: bool,
    },
    /// A file of the scene.
    File(String),
}

/// The call of [`Op::Await`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// accept4(2). What comes is closed at once.
    Accept,
    /// poll(2).
    Poll,
    /// select(2).
    Select,
    /// epoll_wait(2).
    Epoll,
    /// read(2), of a few kilobytes at most.
    Read,
    /// flock(2), exclusively.
    Flock,
}

/// [`Op::Open`].
pub fn open(name: &str, what: Open) -> Op {
    Op::Open(name.into(), what)
}

/// [`Op::Await`].
pub fn wait_in(call: Call, names: &[&str]) -> Op {
    Op::Await(call, names.iter().map(|&name| name.into()).collect())
}

/// [`Op::Fork`].
pub fn fork(ops: impl Into<Vec<Op>>) -> Op {
    Op::Fork(ops.into())
}

/// [`Op::Exec`].
pub fn exec(role: &str, ops: impl Into<Vec<Op>>) -> Op {
    Op::Exec(role.into(), ops.into())
}

/// [`Op::Ledger`].
pub fn note(event: &str) -> Op {
    Op::Ledger(event.into())
}

/// [`Op::Gate`].
pub fn gate(name: &str) -> Op {
    Op::Gate(name.into())
}

/// [`Op::Title`].
pub fn title(text: &str) -> Op {
    Op::Title(text.into())
}

/// Forks a worker that execs itself under the role `worker`, writes `name` into the ledger and then does `ops`.
pub fn worker_doing(name: &str, ops: impl Into<Vec<Op>>) -> Op {
    let mut all = vec![note(name)];
    all.extend(ops.into());
    fork([exec("worker", all)])
}

/// Forks a worker that execs itself under the role `worker`, writes `name` into the ledger and sleeps.
pub fn worker(name: &str) -> Op {
    worker_doing(name, [Op::Forever])
}

/// Forks a worker without an exec: it looks like its master.
pub fn twin(name: &str) -> Op {
    fork([note(name), Op::Forever])
}
