//! The poll-cycle proof, for frameworks that poll by sleeping: wake, a few exchanges with the queue and nobody
//! else, sleep again.
//!
//! A sleep says nothing by itself: a job may sleep as long as the framework does. So a cycle counts only if what happened
//! between two sleeps was a poll that found nothing: the queue was asked, its answer was too small to be a job, and no other
//! socket was used, opened or closed. At least [`ENOUGH`] in a row.

use std::collections::BTreeMap;

use super::super::rules::IdleRules;
use super::super::sample::{Sample, Source, Traffic};
use super::proof::{Sleeper, is_queue, sleeper};

/// So many cycles are a proof.
pub const ENOUGH: u32 = 2;

/// What has been seen of a process's polls so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Polls {
    /// The sleep it was last seen in.
    rest: Option<Rest>,
    /// Cycles in a row.
    pub seen: u32,
}

/// One sleep between two polls.
#[derive(Clone, Debug, PartialEq)]
struct Rest {
    tid: u32,
    /// The thread's switches: the same means the same sleep.
    switches: u64,
    /// It was held still when it was last seen: letting it go makes it switch once more.
    frozen: bool,
    /// What every socket had carried by then, by inode, and whether it leads to the queue.
    sockets: BTreeMap<u64, (bool, Traffic)>,
}

impl Polls {
    /// What is known after another sample.
    pub fn after(&self, sample: &Sample, rules: &IdleRules) -> Self {
        let Some(source) = &sample.source else { return Self::default() };
        match sleeper(sample, rules) {
            Sleeper::Works => Self::default(),
            // In the middle of a poll, as it seems; the next sleep tells what it was.
            Sleeper::Awake => self.clone(),
            Sleeper::Rests { tid, switches } => {
                let frozen = sample.frozen;
                if self.rest.as_ref().is_some_and(|r| r.tid == tid && r.switches == switches) {
                    return self.clone();
                }
                let Some(sockets) = sockets(source, rules) else { return Self::default() };
                let rest = Rest { tid, switches, frozen, sockets };
                if self.rest.as_ref().is_some_and(|before| before.was_held_until(&rest)) {
                    return Self { rest: Some(rest), seen: self.seen };
                }
                let polled = self.rest.as_ref().is_some_and(|before| before.polled_until(&rest, rules));
                let seen = if polled { self.seen.saturating_add(1) } else { 0 };
                Self { rest: Some(rest), seen }
            }
        }
    }
}

impl Rest {
    /// Whether `next` is this same sleep, which ptrace(2) interrupted and which went on: one switch when it was stopped, one when
    /// it was let go. A thread that woke by itself and slept again has switched once more than that.
    fn was_held_until(&self, next: &Self) -> bool {
        let held = u64::from(self.frozen) + u64::from(next.frozen);
        self.tid == next.tid && next.switches == self.switches + held && self.sockets == next.sockets
    }

    /// Whether nothing but a poll that found nothing happened between this sleep and `next`.
    fn polled_until(&self, next: &Self, rules: &IdleRules) -> bool {
        if self.tid != next.tid || !self.sockets.keys().eq(next.sockets.keys()) {
            return false;
        }
        let (mut asked, mut answered, mut sent, mut received) = (0, 0, 0, 0);
        for ((queue, then), (_, now)) in self.sockets.values().zip(next.sockets.values()) {
            if then == now {
                continue;
            }
            if !queue {
                return false;
            }
            asked += now.sends.saturating_sub(then.sends);
            answered += now.receives.saturating_sub(then.receives);
            sent += now.sent.saturating_sub(then.sent);
            received += now.received.saturating_sub(then.received);
        }
        asked > 0 && answered > 0 && sent >= rules.poll_request && received <= rules.poll_reply
    }
}

/// `None` if it is not known what they carried.
fn sockets(source: &Source, rules: &IdleRules) -> Option<BTreeMap<u64, (bool, Traffic)>> {
    if source.incomplete.is_some() {
        return None;
    }
    let sockets = source.files.iter().filter(|f| f.what.is_socket());
    sockets.map(|f| Some((f.inode, (is_queue(f, rules), f.traffic?)))).collect()
}
