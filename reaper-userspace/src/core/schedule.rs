//! The core's timers. There are none while there is nothing to wait for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::ids::{Ns, ProcKey, SECOND};

/// How long after its birth or exec a process is looked at once more: by then it has its title.
pub const SETTLE: Ns = SECOND;

/// Room for so many is kept in the queue of those that settle.
const SETTLING_KEPT: usize = 1024;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// An orphan's next step.
    Orphan(ProcKey),
    /// Somebody who has lost a parent and whose fate is not decided.
    Bereaved(ProcKey),
    /// A process whose parent /proc must be asked for again.
    Unsettled(ProcKey),
}

/// Timers by time, at most one of each kind a process, and the queue of processes that settle.
#[derive(Debug, Default)]
pub struct Schedule {
    by_time: BTreeSet<(Ns, Timer)>,
    due: BTreeMap<Timer, Ns>,
    settling: VecDeque<(Ns, ProcKey)>,
}

impl Schedule {
    /// Sets a timer, or moves it.
    pub fn set(&mut self, timer: Timer, at: Ns) {
        self.cancel(timer);
        self.due.insert(timer, at);
        self.by_time.insert((at, timer));
    }

    /// Takes a timer away.
    pub fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.due.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// The next timer that is due, taken away.
    pub fn pop(&mut self, now: Ns) -> Option<Timer> {
        let &(at, timer) = self.by_time.first().filter(|(at, _)| *at <= now)?;
        self.by_time.remove(&(at, timer));
        self.due.remove(&timer);
        Some(timer)
    }

    /// A process was born or exec'd at `at`.
    pub fn settle_later(&mut self, key: ProcKey, at: Ns) {
        self.settling.push_back((at.saturating_add(SETTLE), key));
    }

    /// The next process that had time to settle, taken away.
    pub fn pop_settled(&mut self, now: Ns) -> Option<ProcKey> {
        let (_, key) = self.settling.front().filter(|(at, _)| *at <= now).copied()?;
        self.settling.pop_front();
        self.give_back();
        Some(key)
    }

    /// Drops those at the head of the settling queue that are not alive any more, so that no timer waits for them.
    pub fn prune(&mut self, alive: impl Fn(ProcKey) -> bool) {
        while self.settling.front().is_some_and(|&(_, key)| !alive(key)) {
            self.settling.pop_front();
            self.give_back();
        }
    }

    /// A burst of births leaves a long queue behind, mostly empty a second later.
    fn give_back(&mut self) {
        let room = self.settling.capacity();
        if room > SETTLING_KEPT && self.settling.len() < room / 8 {
            self.settling.shrink_to(room / 4);
        }
    }

    /// When the next thing is due.
    pub fn next(&self) -> Option<Ns> {
        let timer = self.by_time.first().map(|(at, _)| *at);
        let settling = self.settling.front().map(|(at, _)| *at);
        timer.into_iter().chain(settling).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_births_leaves_no_memory_behind() {
        let mut schedule = Schedule::default();
        let key = |tgid| ProcKey { tgid, start_ns: u64::from(tgid) };
        for tgid in 0..100_000 {
            schedule.settle_later(key(tgid), u64::from(tgid));
        }
        for tgid in 0..99_900 {
            assert_eq!(schedule.pop_settled(2 * SECOND), Some(key(tgid)));
        }
        assert!(schedule.settling.capacity() <= 4 * SETTLING_KEPT, "{}", schedule.settling.capacity());
        schedule.prune(|key| key.tgid == 99_950);
        assert_eq!((schedule.settling.len(), schedule.next()), (50, Some(SECOND + 99_950)));
    }
}
