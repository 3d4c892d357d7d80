//! Drills: real worker frameworks under load, their masters killed again and again, and a ledger that counts jobs.
//!
//! What a drill keeps true: what it says about jobs, masters and idleness comes from the jobs' own ledger and from the
//! kernel ([`ledger`], [`watch`]), never from the agent under test; of the agent it takes only what it did, from its event
//! log. Everything that a drill starts carries its scene's token and is gone with it.
//!
//! A framework takes part by implementing [`Framework`] and standing in [`all`]. In short:
//!
//! 1. [`Framework::prepare`] starts what masters need: [`Stage::start_redis`], [`Stage::start_postgres`],
//!    [`Stage::listen`], files in the scene's folder.
//! 2. [`Framework::master`] is the command that becomes a master. It is run in the scene's folder with
//!    [`Stage::variables`] in its environment, in a process group of its own, and its output goes to `master.log`.
//! 3. [`Framework::group`] binds the built-in profile to this drill: patterns with the token, endpoints.
//! 4. [`Framework::submit`] hands a job in. Whoever runs it appends two lines to the file named by `DRILL_LEDGER`, each
//!    with one write(2) on a descriptor opened with `O_APPEND`:
//!
//!    ```text
//!    started JOB PID PPID MONOTONIC_NS
//!    ended JOB PID PPID MONOTONIC_NS
//!    ```
//!
//!    or `cut …` instead of `ended …` if what the job waited for ended too early. `PID` is who runs the job, `PPID` its
//!    parent (0 if that is not known), the time is CLOCK_MONOTONIC (Python `time.monotonic_ns()`, PHP `hrtime(true)`).

mod compare;
mod cron;
pub mod env;
mod facts;
mod group;
mod innocents;
pub mod ledger;
mod load;
mod php;
pub mod python;
mod race;
pub(crate) mod random;
mod run;
mod slow;
mod stage;
mod table;
mod verdicts;
mod watch;

use std::fmt;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

pub use compare::{Comparison, compare};
pub use facts::Facts;
pub use group::Group;
pub use race::{Race, race};
pub use run::{Plan, Rule, run};
pub use slow::get;
pub use stage::{Stage, free_port};
pub use table::{cron_table, table};
pub use verdicts::{Verdicts, verdicts};

/// Every drill, in the order of the table.
pub fn all() -> Vec<Box<dyn Framework>> {
    let mut all = python::all();
    all.extend(php::all());
    all
}

/// A framework as a drill runs it.
pub trait Framework: Send + Sync {
    /// As in `cargo xtask drill NAME`, and a file name.
    fn name(&self) -> &'static str;

    /// One line for people: how it is run, with which versions.
    fn about(&self) -> String;

    /// Sets up what masters need. Called once.
    ///
    /// # Errors
    /// When something cannot be had or does not start; the drill fails with it.
    fn prepare(&self, stage: &Stage) -> Result<()>;

    /// The command that becomes a master.
    fn master(&self, stage: &Stage, which: Instance) -> Command;

    /// How many workers a master has when it is up.
    fn workers(&self) -> usize;

    /// How the agent is told about it.
    fn group(&self, stage: &Stage) -> Group;

    /// Hands in one job; may block until it is done (a request) or return at once (a queue). An error means that the job was
    /// not taken, or that its answer did not come: which of them the ledger knows.
    ///
    /// # Errors
    /// See above; they are counted, nothing else.
    fn submit(&self, stage: &Stage, which: Instance, job: Job) -> Result<()>;

    /// Whether `submit` blocks until the job is done.
    fn answers(&self) -> bool {
        false
    }

    /// The kinds of job that it can do.
    fn kinds(&self) -> Vec<Kind> {
        Kind::ALL.to_vec()
    }

    /// How its masters end, in turn.
    fn kills(&self) -> Vec<Kill> {
        vec![Kill::Kill, Kill::Kill, Kill::Term]
    }

    /// Whether orphans go to a subreaper, the drill itself, and not to pid 1.
    fn below_subreaper(&self) -> bool {
        false
    }

    /// Whether a command line below a master is an intermediate supervisor's, for [`Kill::Intermediate`].
    fn is_intermediate(&self, _stage: &Stage, _cmdline: &str) -> bool {
        false
    }

    /// How long an orphan may live after it has become idle, if that is more than `quiet` and 100 ms: poll cycles.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// How long a worker may take to go after its signal: what the framework needs for itself.
    fn farewell(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether every job is a child process of its worker.
    fn job_in_child(&self) -> bool {
        false
    }

    /// Whether the workers of one master are judged as a set: none is idle as long as another has a job.
    fn judged_together(&self) -> bool {
        false
    }

    /// A command line that looks like a worker's, for a process of another user that is none.
    fn lookalike(&self, stage: &Stage) -> String;
}

/// Which of the masters of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instance {
    /// The one that is killed and started again.
    Drilled,
    /// A second application of the same framework, whose master lives all the time and whose workers must too. The same
    /// patterns match it.
    Beside,
}

/// How a master ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// SIGKILL to the master.
    Kill,
    /// SIGTERM to the master.
    Term,
    /// SIGKILL to an intermediate supervisor; the master lives on.
    Intermediate,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Computes.
    Cpu,
    /// sleep().
    Sleep,
    /// Waits for a slow HTTP answer, from the port `DRILL_HTTP`: `GET /MS` is answered after so many milliseconds.
    Http,
    /// Waits for a slow database answer: `pg_sleep` on the PostgreSQL at port `DRILL_DB`, user and database `postgres`.
    Db,
    /// Waits for a child process that sleeps: the program `DRILL_CHILD SECONDS`.
    Child,
    /// Waits for a lock on the queue's own Redis: `BLPOP` of a key that nobody pushes to, over a connection of its own.
    Lock,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Cpu, Self::Sleep, Self::Http, Self::Db, Self::Child, Self::Lock];

    /// As the jobs know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Sleep => "sleep",
            Self::Http => "http",
            Self::Db => "db",
            Self::Child => "child",
            Self::Lock => "lock",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One job.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Unique in a run.
    pub id: u64,
    /// What it does.
    pub kind: Kind,
    /// For how many milliseconds.
    pub ms: u64,
}
