//! The resolved configuration: what the core decides by. Made by `config`, which validates; nothing here does again.

use core::net::IpAddr;
use std::sync::OnceLock;

use globset::{Glob, GlobMatcher};
use regex::{Regex, RegexSet};
use serde::{Deserialize, Serialize};

use super::ids::{MS, Ns};
use super::input::Identity;
use super::sample::{Depth, Wants};

/// Everything that is configured and matters to a decision.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// In the order of the configuration.
    pub groups: Vec<Group>,
    /// Thread names that are never signalled: the built-in ones and the configured ones.
    pub protect: Vec<GlobMatcher>,
    /// What is written to the event log.
    pub log_level: LogLevel,
    /// The command lines of all masters in one. `None` inside if a group's masters are known by something else, or there is no room
    /// for so large a set.
    master_lines: OnceLock<Option<RegexSet>>,
}

impl PartialEq for Rules {
    /// By name and mode only: patterns have no equality. Enough for tests that compare inputs.
    fn eq(&self, other: &Self) -> bool {
        self.groups.len() == other.groups.len()
            && self.groups.iter().zip(&other.groups).all(|(a, b)| a.name == b.name && a.mode == b.mode)
    }
}

impl Rules {
    /// What was configured.
    pub fn new(groups: Vec<Group>, protect: Vec<GlobMatcher>, log_level: LogLevel) -> Self {
        Self { groups, protect, log_level, master_lines: OnceLock::new() }
    }

    /// Whether no group's masters have such a command line. One search for all of them: nearly every process is ruled out by it.
    pub fn rules_out(&self, line: &str) -> bool {
        let all = || {
            let lines = self.groups.iter().map(|group| group.master.cmdline.as_ref().map(Regex::as_str));
            RegexSet::new(lines.collect::<Option<Vec<&str>>>()?).ok()
        };
        self.master_lines.get_or_init(all).as_ref().is_some_and(|lines| !lines.is_match(line))
    }
}

/// How much the event log tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What was decided and why.
    #[default]
    Decisions,
    /// Also fork, exec, exit and reparent of the processes of groups.
    Lineage,
    /// Also those of every process.
    All,
}

/// Whether a group signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Say what would be done.
    #[default]
    Observe,
    /// Do it.
    Enforce,
}

/// One `[[group]]`.
#[derive(Clone, Debug)]
pub struct Group {
    /// Unique.
    pub name: String,
    /// The built-in profile it was made from.
    pub profile: Option<String>,
    /// Whether it signals.
    pub mode: Mode,
    /// Which processes are masters.
    pub master: Matcher,
    /// Which of their descendants are workers; `None` is every one.
    pub worker: Option<Matcher>,
    /// What idle means.
    pub idle: IdleRules,
    /// How to stop.
    pub stop: StopRules,
}

/// Which processes: all that is given must match. At least one key is given.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// Regular expression over argv joined with spaces.
    pub cmdline: Option<Regex>,
    /// Glob over the resolved executable.
    pub exe: Option<GlobMatcher>,
    /// Glob over the thread name of the leader.
    pub comm: Option<GlobMatcher>,
    /// Real uid.
    pub uid: Option<u32>,
    /// Globs over the cgroup path; any of them.
    pub cgroup: Option<Vec<GlobMatcher>>,
    /// Globs over the cgroup path that `unit` stands for; any of them.
    pub unit: Option<Vec<GlobMatcher>>,
}

impl Matcher {
    /// Whether a process is meant.
    pub fn matches(&self, who: &Identity) -> bool {
        self.matches_line(who, &who.cmdline())
    }

    /// The same, for whoever asks many: the joined command line is the caller's.
    pub fn matches_line(&self, who: &Identity, line: &str) -> bool {
        let Self { cmdline, exe, comm, uid, cgroup, unit } = self;
        let on_cgroup = |globs: &Option<Vec<GlobMatcher>>| {
            globs.as_ref().is_none_or(|g| who.cgroups.iter().any(|c| g.iter().any(|g| g.is_match(&**c))))
        };
        uid.is_none_or(|uid| uid == who.uid)
            && comm.as_ref().is_none_or(|g| g.is_match(&*who.comm))
            && exe.as_ref().is_none_or(|g| g.is_match(&*who.exe))
            && on_cgroup(cgroup)
            && on_cgroup(unit)
            && cmdline.as_ref().is_none_or(|r| r.is_match(line))
    }

    /// Whether a process may be meant, as far as exec tells: executable and cgroup are not looked at.
    pub fn might_match(&self, who: &Identity) -> bool {
        self.might_match_line(who, &who.cmdline())
    }

    /// The same, for whoever asks many: the joined command line is the caller's.
    pub fn might_match_line(&self, who: &Identity, line: &str) -> bool {
        let Self { cmdline, exe: _, comm, uid, cgroup: _, unit: _ } = self;
        uid.is_none_or(|uid| uid == who.uid)
            && comm.as_ref().is_none_or(|g| g.is_match(&*who.comm))
            && cmdline.as_ref().is_none_or(|r| r.is_match(line))
    }

    /// The patterns as they were written: two matchers with the same source mean the same processes.
    pub fn source(&self) -> String {
        let Self { cmdline, exe, comm, uid, cgroup, unit } = self;
        let glob = |g: &GlobMatcher| g.glob().glob().to_owned();
        let globs = |g: &Vec<GlobMatcher>| g.iter().map(glob).collect::<Vec<_>>();
        format!(
            "{:?}",
            (
                cmdline.as_ref().map(Regex::as_str),
                exe.as_ref().map(glob),
                comm.as_ref().map(glob),
                uid,
                cgroup.as_ref().map(globs),
                unit.as_ref().map(globs),
            )
        )
    }

    /// Whether only /proc can tell if a process is meant.
    pub fn needs_proc(&self) -> bool {
        self.exe.is_some() || self.cgroup.is_some() || self.unit.is_some()
    }
}

/// What a poll that finds nothing receives at most, if nothing is written: three short answers such as `*2\r\n$-1\r\n$-1\r\n`.
const EMPTY_REPLY: u64 = 64;

/// `[group.idle]`.
#[derive(Clone, Debug)]
pub struct IdleRules {
    /// What proves idleness.
    pub proof: Proof,
    /// How long it must hold.
    pub quiet: Ns,
    /// Where the jobs come from.
    pub queue: Vec<Endpoint>,
    /// The framework polls by sleeping this long.
    pub sleep: Option<Ns>,
    /// A poll sends at least so many bytes to the queue between two sleeps. What sends less is a job that sleeps.
    pub poll_request: u64,
    /// A poll that finds nothing receives at most so many bytes between two sleeps. What receives more has got a job.
    pub poll_reply: u64,
    /// Whether the framework arms an alarm (alarm(2)) for the length of a job and has none while it waits on its queue.
    pub alarm: Option<AlarmRule>,
    /// The title of an idle worker, where titles tell the truth.
    pub title: Option<Regex>,
    /// The job is always a child process: what the worker itself waits for on its queue is never a job's.
    pub job_in_child: bool,
    /// The master hands the jobs out over a pipe: a worker that waits on the queue itself does so in a job.
    pub job_by_pipe: bool,
    /// Its workers share a lock, and one of them at a time reads the jobs' pipe: they are judged as a set.
    pub pool: bool,
    /// Names of threads that are judged.
    pub job_threads: Vec<GlobMatcher>,
    /// Thread names of children that do not mean busy.
    pub children: Vec<GlobMatcher>,
}

impl Default for IdleRules {
    /// The contract's defaults.
    fn default() -> Self {
        Self {
            proof: Proof::default(),
            quiet: 200 * MS,
            queue: Vec::new(),
            sleep: None,
            poll_request: 1,
            poll_reply: EMPTY_REPLY,
            alarm: None,
            title: None,
            job_in_child: false,
            job_by_pipe: false,
            pool: false,
            job_threads: Glob::new("*").map(|g| g.compile_matcher()).into_iter().collect(),
            children: Vec::new(),
        }
    }
}

impl IdleRules {
    /// How closely an orphan is looked at.
    pub fn depth(&self) -> Depth {
        match self.proof {
            Proof::Source => Depth::Source,
            Proof::Asleep => Depth::Threads,
        }
    }

    /// What the kernel's word can make a difference about. Servers are judged without it.
    pub fn wants(&self) -> Wants {
        let asks = self.proof == Proof::Source;
        Wants {
            traffic: asks && (!self.queue.is_empty() || self.sleep.is_some()),
            alarm: asks && self.alarm.is_some(),
        }
    }
}

impl core::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Tcp { ip: None, port } => write!(f, "tcp/{port}"),
            Self::Tcp { ip: Some(ip), port } => write!(f, "tcp/{}", core::net::SocketAddr::new(*ip, *port)),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// A queue's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `tcp/6379` or `tcp/10.0.0.5:6379`.
    Tcp {
        /// `None` is any.
        ip: Option<IpAddr>,
        /// Port.
        port: u16,
    },
    /// `unix:/run/redis.sock`.
    Unix(String),
}

/// How a framework's use of alarm(2) tells jobs from waiting.
#[derive(Clone, Debug)]
pub struct AlarmRule {
    /// Command lines of workers that never arm one: what these wait for on their queue proves nothing.
    pub except: Option<Regex>,
}

/// `proof`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// It waits for its source of work.
    #[default]
    Source,
    /// State S and no CPU.
    Asleep,
}

/// `when`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// As soon as it is idle.
    #[default]
    Always,
    /// Only once a live master of the group exists.
    Replaced,
}

/// `[group.stop]`.
#[derive(Clone, Debug)]
pub struct StopRules {
    /// Under which condition.
    pub when: When,
    /// In order, graceful first. Not empty.
    pub signals: Vec<Signal>,
    /// Between one and the next.
    pub grace: Ns,
    /// KILL after the last grace.
    pub kill: bool,
    /// After this long as an orphan even if busy; 0 is never.
    pub deadline: Ns,
    /// Most orphans stopped per `window`.
    pub max_kills: u32,
    /// See `max_kills`.
    pub window: Ns,
    /// Command lines of processes that are the job itself.
    pub job_children: Vec<Regex>,
}

impl StopRules {
    /// Whether a command line is that of a process that is the job itself.
    pub fn is_job(&self, line: &str) -> bool {
        self.job_children.iter().any(|pattern| pattern.is_match(line))
    }
}

/// A signal by number, written without `SIG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signal(pub i32);

impl Signal {
    /// Every signal that has a name on Linux on x86-64 and aarch64, signal(7).
    const NAMES: [&'static str; 32] = [
        "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU",
        "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];

    /// SIGKILL.
    pub const KILL: Self = Self(9);

    /// From a name with or without `SIG`, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = Self::NAMES.iter().position(|n| !n.is_empty() && *n == bare)?;
        i32::try_from(number).ok().map(Self)
    }
}

impl core::fmt::Display for Signal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match usize::try_from(self.0).ok().and_then(|n| Self::NAMES.get(n)).filter(|n| !n.is_empty()) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}
