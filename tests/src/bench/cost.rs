//! What an agent costs: its CPU time, its memory, and its kernel programs' time.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use reaper::profiles;

use crate::agent::Agent;
use crate::config::Config;
use crate::scene::Scene;

/// The programs on tracepoints.
pub(super) const PROGRAMS: [&str; 4] = ["process_fork", "process_exec", "process_exit", "process_signal"];

/// A configuration as a host has it: every built-in profile, observing, beside the scene's own group.
pub(super) fn all_profiles(scene: &Scene) -> Config {
    let group = |name: &str| format!("[[group]]\nname = \"{name}\"\nprofile = \"{name}\"\n");
    let groups: String = profiles::all().iter().map(|profile| group(profile.name)).collect();
    Config::new(scene).observe().more(&format!("\n{groups}"))
}

/// CPU time of every thread that a process has or had.
pub(super) fn cpu_of(pid: i32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).with_context(|| format!("no CPU clock of {pid}"))?;
    Ok(clock_gettime(clock)?.into())
}

/// Waits until a process has stopped using the CPU, and says how much it has used.
pub(super) fn settled_cpu_of(pid: i32) -> Result<Duration> {
    /// Longer than a process is young to the agent, which looks at it once more then.
    const STILL: Duration = Duration::from_millis(1_300);
    /// What an agent may use in that time because other programs of the machine start processes.
    const NEXT_TO_NOTHING: Duration = Duration::from_millis(2);
    let mut before = cpu_of(pid)?;
    for _ in 0..5 {
        std::thread::sleep(STILL);
        let now = cpu_of(pid)?;
        if now - before < NEXT_TO_NOTHING {
            return Ok(now);
        }
        before = now;
    }
    // The machine is never still. What the agent does for others is in the figures then.
    Ok(before)
}

/// Resident memory, and what of it is the process's own (not files), in bytes: /proc/PID/status.
pub(super) fn memory_of(pid: i32) -> Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kibibytes.map(|n| n * 1024).with_context(|| format!("no {key} in the status of {pid}"))
    };
    Ok((of("VmRSS:")?, of("RssAnon:")?))
}

/// An agent whose programs are counted.
pub(super) struct Counted {
    pub(super) agent: Agent,
    ids: BTreeSet<u32>,
    _counting: OwnedFd,
}

/// Runs and nanoseconds of each of [`PROGRAMS`].
pub(super) type Runs = [(u64, f64); PROGRAMS.len()];

impl Counted {
    /// Starts an agent, and finds out which of the kernel's programs are its.
    pub(super) fn start(scene: &Scene, config: &Config) -> Result<Self> {
        let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime)?;
        let agent = Agent::start(scene, config);
        let ids = programs_of(agent.process().pid())?;
        ensure!(ids.len() >= PROGRAMS.len(), "the agent holds {} programs", ids.len());
        Ok(Self { agent, ids, _counting })
    }

    /// What they have cost so far.
    pub(super) fn runs(&self) -> Result<Runs> {
        let mut runs = Runs::default();
        for program in aya::programs::loaded_programs() {
            let program = program?;
            let at = PROGRAMS.iter().position(|name| program.name_as_str() == Some(*name));
            if let Some(at) = at.filter(|_| self.ids.contains(&program.id())) {
                runs[at] = (program.run_count(), nanos(program.run_time()));
            }
        }
        Ok(runs)
    }
}

/// The ids of the programs that a process holds: proc_pid_fdinfo(5), kernel/bpf/syscall.c `bpf_prog_show_fdinfo`.
fn programs_of(pid: i32) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor that was closed meanwhile was no program's.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}

/// Lets this process, and what it starts, have more open files than a login's usual 1,024.
pub(super) fn many_descriptors() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most.min(16_384), most)?)
}

/// As a number to calculate with.
pub(super) fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}
