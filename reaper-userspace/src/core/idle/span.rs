//! A stretch of idleness: since when, and how much CPU time it has cost.

use super::super::ids::{MS, Ns, SECOND};
use super::super::sample::Sample;
use super::is_alive;

/// CPU time that a process may use within [`WINDOW`] while it counts as idle: waking up for house-keeping is not work.
/// The larger of this and [`CPU_SHARE`] of the time.
const CPU_FLOOR: Ns = MS;

/// One part in this many.
const CPU_SHARE: u64 = 100;

/// The time that CPU use is judged over. What was used long before does not count, and what a long time allows in total
/// cannot be used at once.
const WINDOW: Ns = SECOND;

/// A stretch of idleness, from the first sample that showed it.
#[derive(Clone, Debug, PartialEq)]
pub struct IdleSpan {
    /// When that sample was taken.
    pub since: Ns,
    threads: Vec<(u32, Option<u64>)>,
    /// The sample that CPU time is counted from: when, and how much had been used by then.
    from: (Ns, Ns),
    /// The last sample, likewise.
    last: (Ns, Ns),
}

/// CPU time that was used, and over how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUse {
    /// How long.
    pub over: Ns,
    /// How much.
    pub used: Ns,
}

impl CpuUse {
    /// More than waking up for house-keeping takes.
    pub fn is_work(self) -> bool {
        self.used > CPU_FLOOR.max(self.over.min(WINDOW) / CPU_SHARE)
    }
}

impl IdleSpan {
    /// The stretch that begins with `first`.
    pub fn begin(first: &Sample) -> Self {
        let point = (first.at, first.cpu_ns);
        Self { since: first.at, threads: threads(first), from: point, last: point }
    }

    /// Goes on with a sample that was judged idle.
    pub fn extend(&mut self, sample: &Sample) {
        if sample.at.saturating_sub(self.from.0) >= WINDOW {
            self.from = self.last;
        }
        self.last = (sample.at, sample.cpu_ns);
        self.threads = threads(sample);
    }

    /// The CPU time that was used in the last while.
    pub fn used(&self, sample: &Sample) -> CpuUse {
        CpuUse {
            over: sample.at.saturating_sub(self.from.0),
            used: sample.cpu_ns.saturating_sub(self.from.1),
        }
    }

    /// Whether the process has the same threads as before.
    pub fn has_threads_of(&self, sample: &Sample) -> bool {
        let now = threads(sample);
        self.threads.iter().map(|(tid, _)| tid).eq(now.iter().map(|(tid, _)| tid))
    }

    /// Whether none of its threads has run since the last sample of this stretch.
    pub fn has_slept_until(&self, sample: &Sample) -> bool {
        let now = threads(sample);
        now.iter().all(|(_, switches)| switches.is_some()) && self.threads == now
    }
}

fn threads(sample: &Sample) -> Vec<(u32, Option<u64>)> {
    sample.threads.iter().filter(|t| is_alive(t)).map(|t| (t.tid, t.switches)).collect()
}
