//! A stretch of idleness: since when, and how much CPU time it has cost.

use super::super::ids::{MS, Ns, SECOND};
use super::super::sample::{Sample, Thread, Wait};
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
    threads: Vec<Resting>,
    /// The sample that CPU time is counted from: when, and how much had been used by then.
    from: (Ns, Ns),
    /// The last sample, likewise.
    last: (Ns, Ns),
}

/// A thread at the last sample.
#[derive(Clone, Debug, PartialEq)]
struct Resting {
    tid: u32,
    switches: Option<u64>,
    wait: Wait,
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
        self.threads.iter().map(|t| t.tid).eq(threads(sample).iter().map(|t| t.tid))
    }

    /// Whether none of its threads has run since the last sample of this stretch, and each still waits for the same. Being held
    /// still by the agent switches each away from its CPU once.
    pub fn has_slept_until(&self, sample: &Sample) -> bool {
        let most = u64::from(sample.frozen);
        let slept = |(then, now): (&Resting, &Resting)| {
            let more = then.switches.zip(now.switches).and_then(|(then, now)| now.checked_sub(then));
            then.wait == now.wait && more.is_some_and(|more| more <= most)
        };
        self.has_threads_of(sample) && self.threads.iter().zip(&threads(sample)).all(slept)
    }
}

fn threads(sample: &Sample) -> Vec<Resting> {
    let resting = |t: &Thread| Resting { tid: t.tid, switches: t.switches, wait: t.wait.clone() };
    sample.threads.iter().filter(|t| is_alive(t)).map(resting).collect()
}
