//! The ledger: what jobs say of themselves. The format is in the module above.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::time::{ClockId, clock_gettime};

/// One job as the ledger tells it. Times are CLOCK_BOOTTIME, nanoseconds, as in the event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which job.
    pub job: u64,
    /// Who ran it.
    pub pid: i32,
    /// That process's parent when the job started; 0 if it did not say.
    pub ppid: i32,
    /// When it said "started".
    pub started: u64,
    /// When it said "ended".
    pub ended: Option<u64>,
    /// When it said "cut": what it waited for ended too early.
    pub cut: Option<u64>,
}

impl Run {
    /// Whether this job was running at that moment, as far as anybody said.
    pub fn covers(&self, at: u64) -> bool {
        self.started <= at && self.over().is_none_or(|over| at < over)
    }

    /// When it was over, one way or the other.
    pub fn over(&self) -> Option<u64> {
        self.ended.or(self.cut)
    }
}

/// Everything that jobs have said so far, by the time of their start. A job that is run twice is there twice.
#[track_caller]
pub fn read(path: &Path) -> Vec<Run> {
    parse(&fs::read_to_string(path).unwrap_or_default(), boot_minus_monotonic())
}

fn parse(text: &str, offset: u64) -> Vec<Run> {
    let mut open: BTreeMap<(u64, i32), Run> = BTreeMap::new();
    let mut runs = Vec::new();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let (event, key, ppid, at) = entry(line).unwrap_or_else(|| panic!("ledger: {line:?}"));
        let at = at + offset;
        if event == "started" {
            let run = Run { job: key.0, pid: key.1, ppid, started: at, ended: None, cut: None };
            runs.extend(open.insert(key, run));
            continue;
        }
        let mut run = open.remove(&key).unwrap_or_else(|| panic!("ledger: not started: {line:?}"));
        match event {
            "ended" => run.ended = Some(at),
            "cut" => run.cut = Some(at),
            _ => panic!("ledger: {line:?}"),
        }
        runs.push(run);
    }
    runs.extend(open.into_values());
    runs.sort_by_key(|run| run.started);
    runs
}

fn entry(line: &str) -> Option<(&str, (u64, i32), i32, u64)> {
    let mut words = line.split(' ');
    let event = words.next()?;
    let key = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((event, key, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Nanoseconds on a clock of this machine.
fn clock(id: ClockId) -> u64 {
    let now = clock_gettime(id).unwrap();
    u64::try_from(now.tv_sec()).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap()
}

/// CLOCK_BOOTTIME now, nanoseconds.
pub fn boot_now() -> u64 {
    clock(ClockId::CLOCK_BOOTTIME)
}

/// What the time asleep has put between the two clocks; on most machines nothing.
fn boot_minus_monotonic() -> u64 {
    let monotonic = clock(ClockId::CLOCK_MONOTONIC);
    boot_now().saturating_sub(monotonic)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn starts_and_ends_are_matched() {
        let text = "started 1 10 5 100\nstarted 2 11 5 110\nended 1 10 5 120\nstarted 1 11 0 130\ncut 1 11 0 140\nstar";
        let runs = parse(text, 1000);
        let told: Vec<_> = runs.iter().map(|r| (r.job, r.pid, r.started, r.ended, r.cut)).collect();
        assert_eq!(
            told,
            [(1, 10, 1100, Some(1120), None), (2, 11, 1110, None, None), (1, 11, 1130, None, Some(1140))]
        );
        assert!(
            runs[0].covers(1100) && runs[0].covers(1119) && !runs[0].covers(1120) && !runs[0].covers(1099)
        );
        assert!(runs[1].covers(u64::MAX));
    }
}
