//! Whoever watches processes: reaper, and tools that people use to see the same events.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::super::cost::all_profiles;
use super::super::lives::{Kind, Lives};
use crate::agent::Agent;
use crate::process::{Proc, Signal};
use crate::scene::Scene;

/// How long a tool may take until its first line.
const PATIENCE: Duration = Duration::from_secs(60);

/// bpftrace's tracepoints are described in tracefs, which not every host has mounted.
const WITH_TRACEFS: &str =
    "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; exec \"$@\"";

/// A line for each birth, image and death.
const PRINTING: &str = "\
tracepoint:sched:sched_process_fork { printf(\"fork %d %d %s\\n\", args->parent_pid, args->child_pid, comm); }
tracepoint:sched:sched_process_exec { printf(\"exec %d %s\\n\", args->pid, str(args->filename)); }
tracepoint:sched:sched_process_exit { printf(\"exit %d %s\\n\", args->pid, comm); }";

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Watcher {
    Nobody,
    Reaper,
    Forkstat,
    Bpftrace,
    Execsnoop,
}

impl Watcher {
    pub(super) const ALL: [Self; 5] =
        [Self::Nobody, Self::Reaper, Self::Forkstat, Self::Bpftrace, Self::Execsnoop];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Reaper => "reaper",
            Self::Forkstat => "forkstat",
            Self::Bpftrace => "bpftrace: fork, exec, exit",
            Self::Execsnoop => "execsnoop.bt",
        }
    }

    /// Whether it is installed.
    pub(super) fn is_here(self) -> bool {
        match self {
            Self::Nobody | Self::Reaper => true,
            Self::Forkstat => program("forkstat").is_some(),
            Self::Bpftrace => program("bpftrace").is_some(),
            Self::Execsnoop => program("bpftrace").is_some() && program("execsnoop.bt").is_some(),
        }
    }

    /// The tool as one starts it; what it prints goes to a file.
    fn command(self) -> Option<Command> {
        let bpftrace = |args: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh", "bpftrace"]).args(args);
            command
        };
        match self {
            Self::Nobody | Self::Reaper => None,
            Self::Forkstat => {
                let mut command = Command::new("forkstat");
                command.args(["-e", "fork,exec,exit"]);
                Some(command)
            }
            Self::Bpftrace => Some(bpftrace(&["-e", PRINTING])),
            Self::Execsnoop => {
                let script = program("execsnoop.bt")?;
                Some(bpftrace(&[&script.display().to_string()]))
            }
        }
    }
}

/// The full path of a program, where root has its own too.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Somebody watches.
pub(super) enum Watching {
    Nobody,
    Reaper(Box<Agent>),
    Tool(Tool),
}

impl Watching {
    /// Starts it and waits until it has something to say about processes.
    pub(super) fn start(watcher: Watcher, scene: &Scene, maker: &mut Lives) -> Result<Self> {
        match watcher.command() {
            None if watcher == Watcher::Reaper => {
                Ok(Self::Reaper(Box::new(Agent::start(scene, &all_profiles(scene)))))
            }
            None => Ok(Self::Nobody),
            Some(command) => Ok(Self::Tool(Tool::start(command, &scene.path("tool"), maker)?)),
        }
    }

    pub(super) fn pid(&self) -> Option<i32> {
        match self {
            Self::Nobody => None,
            Self::Reaper(agent) => Some(agent.process().pid()),
            Self::Tool(tool) => Some(tool.held.pid()),
        }
    }

    pub(super) fn stop(self) -> Result<()> {
        match self {
            Self::Nobody => {}
            Self::Reaper(agent) => {
                let lost = agent.find(|record| record.kind() == "events_lost");
                agent.stop();
                ensure!(lost.is_none(), "the agent lost events: {lost:?}");
            }
            Self::Tool(tool) => ensure!(tool.held.is_alive(), "the tool ended by itself"),
        }
        Ok(())
    }
}

/// A tool; dropping it ends it.
pub(super) struct Tool {
    child: Child,
    held: Proc,
}

impl Tool {
    fn start(mut command: Command, output: &Path, maker: &mut Lives) -> Result<Self> {
        let (out, err) = (output.with_extension("out"), output.with_extension("err"));
        command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let Some(held) = Proc::of_child(&child) else {
            let _ = child.wait();
            anyhow::bail!("{command:?} ended at once");
        };
        let tool = Self { child, held };
        // A banner is not enough: what it prints about processes may come much later.
        let (began, spawn) = (Instant::now(), Kind::Spawn("ready", "/bin/true".into()));
        let lines = || fs::read_to_string(&out).unwrap_or_default().lines().count();
        while lines() < 20 {
            let said = || fs::read_to_string(&err).unwrap_or_default();
            ensure!(tool.held.is_alive(), "{command:?} ended: {}", said());
            ensure!(began.elapsed() < PATIENCE, "{command:?} says nothing: {}", said());
            maker.make(&spawn, 20)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(tool)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.held.signal(Signal::INT);
        if !self.held.wait_gone(Duration::from_secs(5)) {
            self.held.signal(Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
