//! What a drill has found out: jobs from the ledger, processes from the book, signals from the event log, held against
//! each other.

use std::time::Duration;

use super::ledger::Run;
use super::watch::Book;
use crate::agent::is_shot;
use crate::log::Record;
use crate::process::TICK_NS;

/// A master's death is noticed so much later than it happens: a signal that comes earlier than that by less is not held
/// to have found the master alive.
const NOTICE_NS: u64 = 100_000_000;

/// A signal that was sent to somebody.
#[derive(Clone, Debug)]
pub(super) struct Shot {
    /// To whom.
    pub pid: i32,
    /// Its start.
    pub start_ticks: u64,
    /// When, CLOCK_BOOTTIME in nanoseconds: not later than it was sent.
    pub at: u64,
    /// In words, for whoever has to find out why.
    pub what: String,
}

impl Shot {
    /// The signals that an event log tells of.
    pub(super) fn all(records: &[Record]) -> Vec<Self> {
        let shot = |r: &Record| Self {
            pid: i32::try_from(r.number("/proc/pid")).unwrap(),
            start_ticks: r.number("/proc/start_ns") / TICK_NS,
            at: r.boot_ns(),
            what: format!("{r:?}"),
        };
        records.iter().filter(|r| is_shot(r)).map(shot).collect()
    }
}

/// One run of a drill, counted.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Masters (and intermediates) that the drill ended.
    pub kills: usize,
    /// Jobs handed in that were refused, or whose answer did not come.
    pub refused: u64,
    /// Jobs that said "started".
    pub started: usize,
    /// Jobs that said "ended".
    pub ended: usize,
    /// Started and not ended, or cut short, by a worker that was signalled.
    pub lost_by_signal: usize,
    /// Started and not ended by a worker that nobody signalled: it died with its master.
    pub lost_by_itself: usize,
    /// Workers that were alive when they lost their master.
    pub orphans: usize,
    /// Orphans that went after a signal.
    pub stopped: usize,
    /// Orphans that went by themselves.
    pub left: usize,
    /// Orphans that were still there at the end.
    pub stayed: usize,
    /// Workers of the drilled application at the end: those of its last master and no others.
    pub crew: usize,
    /// How many its last master has.
    pub wanted: usize,
    /// Signals to a worker that had a job, by the ledger.
    pub busy_signalled: usize,
    /// Signals to a worker whose master was alive.
    pub mastered_signalled: usize,
    /// Signals to anybody else, and innocents that died.
    pub innocents_hurt: usize,
    /// From going idle to the signal, for every orphan that was stopped; nanoseconds, sorted.
    pub aimed: Vec<u64>,
    /// From going idle to gone, for the same; nanoseconds, sorted.
    pub took: Vec<u64>,
    /// Within which they must be signalled.
    pub limit: Duration,
    /// How long the framework needs to go after that.
    pub farewell: Duration,
    /// What was wrong, one each, with what is known of it.
    pub wrongs: Vec<String>,
}

impl Facts {
    /// Holds ledger, book and signals against each other.
    /// `together`: the workers of one master are judged as a set.
    pub(super) fn gather(book: &Book, runs: &[Run], shots: &[Shot], together: bool) -> Self {
        let mut facts = Self::default();
        let owners: Vec<_> = runs.iter().map(|run| owner(book, run)).collect();
        facts.jobs(book, runs, &owners, shots);
        for shot in shots {
            facts.shot(book, runs, &owners, shot);
        }
        facts.orphans(book, runs, &owners, shots, together);
        facts
    }

    fn jobs(&mut self, book: &Book, runs: &[Run], owners: &[Option<usize>], shots: &[Shot]) {
        self.started = runs.len();
        self.ended = runs.iter().filter(|run| run.ended.is_some()).count();
        for (run, owner) in runs.iter().zip(owners).filter(|(run, _)| run.ended.is_none()) {
            let shot = shots
                .iter()
                .find(|shot| shot.pid == run.pid || owner.is_some_and(|at| is_about(shot, book, at)));
            let Some(shot) = shot else {
                self.lost_by_itself += 1;
                continue;
            };
            self.lost_by_signal += 1;
            self.wrongs.push(format!("lost: {run:?} by {}", shot.what));
        }
    }

    fn shot(&mut self, book: &Book, runs: &[Run], owners: &[Option<usize>], shot: &Shot) {
        let Some(at) = book.find(shot.pid, shot.start_ticks) else {
            self.innocents_hurt += 1;
            self.wrongs.push(format!("not of this drill: {}", shot.what));
            return;
        };
        if book.orphaned(at).is_none_or(|orphaned| orphaned > shot.at + NOTICE_NS) {
            self.mastered_signalled += 1;
            self.wrongs.push(format!("it has a master: {}", shot.what));
        }
        let busy = runs.iter().zip(owners).find(|(run, owner)| **owner == Some(at) && run.covers(shot.at));
        if let Some((run, _)) = busy {
            self.busy_signalled += 1;
            self.wrongs.push(format!("busy: {run:?} and {}", shot.what));
        }
    }

    fn orphans(
        &mut self,
        book: &Book,
        runs: &[Run],
        owners: &[Option<usize>],
        shots: &[Shot],
        together: bool,
    ) {
        for (at, seen) in book.seen.iter().enumerate().filter(|(_, seen)| seen.is_worker) {
            let Some(orphaned) = book.orphaned(at) else { continue };
            if seen.born > orphaned || seen.gone.is_some_and(|gone| gone <= orphaned) {
                continue;
            }
            self.orphans += 1;
            let shot = shots.iter().find(|shot| is_about(shot, book, at));
            let Some(gone) = seen.gone else {
                self.stayed += 1;
                self.wrongs.push(format!("it stayed: {} {}", seen.proc.pid(), seen.cmdline));
                continue;
            };
            let Some(shot) = shot else {
                self.left += 1;
                continue;
            };
            self.stopped += 1;
            let counts = |whose: usize| whose == at || (together && book.seen[whose].parent == seen.parent);
            let own = runs.iter().zip(owners).filter(|(_, owner)| owner.is_some_and(counts));
            let last = |until: u64| {
                let over = own.clone().filter_map(|(run, _)| run.over()).filter(|over| *over <= until).max();
                // A worker with a live child is not idle, whatever its own jobs say.
                let child = book.last_child_gone(at).filter(|gone| *gone <= until);
                over.max(child).unwrap_or(0).max(orphaned)
            };
            self.aimed.push(shot.at.saturating_sub(last(shot.at)));
            self.took.push(gone.saturating_sub(last(gone)));
        }
        self.aimed.sort_unstable();
        self.took.sort_unstable();
    }

    /// Which of reaper's promises these facts break.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = self.harm();
        if let Some(p99) = within(&self.aimed, 99).filter(|p99| *p99 > self.limit) {
            broken.push(format!("signalled within {p99:?} (p99) of going idle, more than {:?}", self.limit));
        }
        let limit = self.limit + self.farewell;
        if let Some(p99) = within(&self.took, 99).filter(|p99| *p99 > limit) {
            broken.push(format!("gone within {p99:?} (p99) of going idle, more than {limit:?}"));
        }
        broken
    }

    /// The same without how long it took: a machine that does much else is late, and must do no harm.
    pub fn harm(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut none = |count: usize, what: &str| {
            if count > 0 {
                broken.push(format!("{count} {what}"));
            }
        };
        none(self.lost_by_signal, "jobs lost because of reaper");
        none(self.busy_signalled, "signals to a busy worker");
        none(self.mastered_signalled, "signals to a worker that has a master");
        none(self.innocents_hurt, "innocents hurt");
        none(self.stayed, "orphans that stayed");
        none(self.crew.abs_diff(self.wanted), "workers more or less at the end than a master has");
        none(usize::from(self.ended == 0), "jobs ended at all, wanted: more than");
        none(usize::from(self.orphans == 0), "orphans at all, wanted: more than");
        broken
    }
}

/// That many per cent took no longer than this; `None` if there were none.
pub(super) fn within(sorted: &[u64], per_cent: usize) -> Option<Duration> {
    let rank = (sorted.len() * per_cent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).map(|ns| Duration::from_nanos(*ns))
}

fn is_about(shot: &Shot, book: &Book, at: usize) -> bool {
    let proc = &book.seen[at].proc;
    proc.pid() == shot.pid && proc.start_ticks() == shot.start_ticks
}

/// The worker that a job belongs to: who ran it, or that one's parent.
fn owner(book: &Book, run: &Run) -> Option<usize> {
    let was = |pid: i32| {
        book.seen.iter().rposition(|seen| {
            let lived = seen.gone.is_none_or(|gone| gone >= run.started);
            seen.proc.pid() == pid && seen.is_worker && lived
        })
    };
    // Who runs a job that is a child is no worker in the book.
    was(run.pid).or_else(|| was(run.ppid))
}
