//! Under which conditions something was measured: a figure without them says nothing.

use std::fmt;
use std::fs;

use nix::sys::utsname::uname;
use serde::Serialize;

/// The machine, and how busy it was.
#[derive(Debug, Serialize)]
pub(super) struct Conditions {
    kernel: String,
    cpus: usize,
    cpu: String,
    /// What decides the CPU's frequency; `None` where the kernel does not.
    governor: Option<String>,
    /// How the benchmark itself is scheduled: idle priority makes wall-clock times lie.
    scheduling: &'static str,
    /// The average of the last minute, /proc/loadavg.
    load_before: f64,
    load_after: Option<f64>,
    /// How many processes there were.
    processes: usize,
    /// How many agents had something on bpffs already: every life pays for the programs of each.
    agents: usize,
}

impl Conditions {
    pub(super) fn look() -> Self {
        let of = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let cpuinfo = of("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            kernel: uname().map(|name| name.release().display().to_string()).unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: model.map_or_else(|| std::env::consts::ARCH.into(), |(_, model)| model.to_owned()),
            governor: of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            scheduling: scheduling(),
            load_before: load(),
            load_after: None,
            processes: crate::process::pids().len(),
            agents: attached(),
        }
    }

    pub(super) fn end(&mut self) {
        self.load_after = Some(load());
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, cpus, cpu, scheduling, load_before, processes, agents, .. } = self;
        write!(f, "Linux {kernel}, {cpus} CPUs ({cpu}), ")?;
        match &self.governor {
            Some(governor) => write!(f, "governor {governor}, ")?,
            None => f.write_str("no frequency governor, ")?,
        }
        write!(f, "{scheduling} priority, {processes} processes, load {load_before}")?;
        self.load_after.map_or(Ok(()), |after| write!(f, " to {after}"))?;
        match agents {
            0 => Ok(()),
            some => write!(f, ", agents with pinned programs: {some}"),
        }
    }
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// The folders of agents on bpffs.
fn attached() -> usize {
    let entries = fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("reaper@")).count()
}

fn scheduling() -> &'static str {
    // SAFETY: 0 is the calling process; nothing else is passed.
    match unsafe { libc::sched_getscheduler(0) } {
        libc::SCHED_IDLE => "idle",
        libc::SCHED_BATCH => "batch",
        libc::SCHED_FIFO | libc::SCHED_RR => "real-time",
        _ => "normal",
    }
}
