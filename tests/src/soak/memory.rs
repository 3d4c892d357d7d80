//! The agent's resident memory over one of its runs.

use std::fs;
use std::time::{Duration, Instant};

use crate::process::Proc;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Fewer looks than this say nothing.
const FEWEST: usize = 20;

/// After fewer than this the allocator has not settled: it may grow by so many KiB at least.
const SETTLED: usize = 600;
const SLACK: u64 = 1024;

#[derive(Default)]
pub(super) struct Memory {
    looked: Option<Instant>,
    /// KiB, one a second.
    resident: Vec<u64>,
}

impl Memory {
    pub(super) fn look(&mut self, agent: &Proc) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        self.resident.extend(line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()));
    }

    /// The medians of the first and the last tenth.
    pub(super) fn tenths(&self) -> Option<(u64, u64)> {
        let tenth = (self.resident.len() >= FEWEST).then_some(self.resident.len() / 10)?;
        let median = |part: &[u64]| {
            let mut part = part.to_vec();
            part.sort_unstable();
            part[part.len() / 2]
        };
        Some((median(&self.resident[..tenth]), median(&self.resident[self.resident.len() - tenth..])))
    }

    /// That it has grown by more than a twentieth, if it has.
    pub(super) fn grown(&self) -> Option<String> {
        let (first, last) = self.tenths()?;
        let slack = if self.resident.len() < SETTLED { SLACK } else { 0 };
        (last > first + (first / 20).max(slack))
            .then(|| format!("the agent grew from {first} KiB to {last} KiB"))
    }
}
