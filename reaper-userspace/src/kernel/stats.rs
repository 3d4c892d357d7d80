//! What the kernel tells of the programs: what they cost, and how often it left one out.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use aya::Ebpf;
use aya::programs::ProgramError;

use super::load::{ITERATOR, LoadError, TRACEPOINTS};
use super::probes::Probes;

/// What a program cost so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Its name in the object.
    pub name: &'static str,
    /// How often it ran while the kernel counted (`kernel.bpf_stats_enabled`, or `BPF_ENABLE_STATS`); else 0.
    pub runs: u64,
    /// How long these runs took together.
    pub time: Duration,
    /// How often the kernel left it out because it was running on that CPU already (`recursion_misses`, since 5.12): a loss
    /// that no counter of ours sees, see [`Probes::missed`].
    pub missed: u64,
}

impl Probes {
    /// What each program cost so far.
    ///
    /// # Errors
    /// [`LoadError::Program`] if the kernel does not tell.
    pub fn stats(&self) -> Result<Vec<ProgramStats>, LoadError> {
        let names = TRACEPOINTS.iter().map(|&(name, _)| name).chain([ITERATOR]);
        names.map(|name| stats_of(&self.ebpf, name)).collect()
    }

    /// How often the kernel left out a program that tells of events, all told (`recursion_misses`, since 5.12): an event each. It
    /// does so where the program runs already on that CPU, and where a kernel lets programs be preempted (seen on 7.2 under
    /// storms) that is any other process's event meanwhile.
    pub fn missed(&self) -> u64 {
        self.told_of.iter().map(recursion_misses).sum()
    }
}

fn stats_of(ebpf: &Ebpf, name: &'static str) -> Result<ProgramStats, LoadError> {
    let error = |source| LoadError::Program { program: name, source: Box::new(source) };
    let program = ebpf.program(name).ok_or_else(|| error(ProgramError::NotLoaded))?;
    let info = program.info().map_err(error)?;
    let missed = missed_by(ebpf, name)?;
    Ok(ProgramStats { name, runs: info.run_count(), time: info.run_time(), missed })
}

/// How often the kernel left a program of the object out (see [`ProgramStats::missed`]).
pub(super) fn missed_by(ebpf: &Ebpf, name: &'static str) -> Result<u64, LoadError> {
    told_of(ebpf, name).map(|file| recursion_misses(&file))
}

/// See [`told_of`].
pub(super) fn told_of_all(ebpf: &Ebpf) -> Result<Vec<File>, LoadError> {
    TRACEPOINTS.iter().map(|&(name, _)| told_of(ebpf, name)).collect()
}

/// What the kernel tells of a program, proc_pid_fdinfo(5): aya passes on only a part of it. The file stays open because it is read
/// often.
fn told_of(ebpf: &Ebpf, name: &'static str) -> Result<File, LoadError> {
    let error = |source| LoadError::Program { program: name, source: Box::new(source) };
    let program = ebpf.program(name).ok_or_else(|| error(ProgramError::NotLoaded))?;
    let fd = program.fd().map_err(error)?.as_fd().as_raw_fd();
    File::open(format!("/proc/self/fdinfo/{fd}")).map_err(|e| error(ProgramError::IOError(e)))
}

/// `recursion_misses` of a program; 0 on kernels that do not count it.
fn recursion_misses(told: &File) -> u64 {
    /// kernel/bpf/syscall.c `bpf_prog_show_fdinfo` writes less.
    const LONGEST: usize = 1024;
    let mut text = [0; LONGEST];
    let len = told.read_at(&mut text, 0).unwrap_or_else(|e| {
        tracing::error!("cannot read what the kernel has left out: {e}");
        0
    });
    let lines = str::from_utf8(&text[..len]).unwrap_or_default().lines();
    let count = lines.filter_map(|line| line.strip_prefix("recursion_misses:")).next();
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
