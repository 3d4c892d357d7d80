//! What is done to the agent, and when: killed, started anew, starved until events are lost, told to read its configuration.

use std::time::Duration;

use crate::drill::random::Random;

/// Between two acts.
const PAUSE_MS: (u64, u64) = (2_000, 6_000);

pub(super) enum Turn {
    Nothing,
    /// `kill -9`.
    Kill,
    Start,
    /// SIGSTOP.
    Starve,
    /// SIGCONT.
    Feed,
    Reload,
}

/// What the first acts are, so that even a short soak has seen a loss and a restart; then they are drawn. A ring buffer of 64 KiB
/// overflows within that time: storms are shorter apart.
const FIRST: [Act; 2] = [Act::Starve(4_000), Act::Kill(1_000)];

/// An act, and for how many milliseconds.
#[derive(Clone, Copy)]
enum Act {
    Kill(u64),
    Starve(u64),
    Reload,
}

pub(super) struct Chaos {
    /// Until then it is killed and starved; afterwards it is only told to reload.
    rough_until: Duration,
    at: Duration,
    /// What ends the act that is on.
    pending: Option<Turn>,
    acts: usize,
}

impl Chaos {
    pub(super) fn new(length: Duration) -> Self {
        Self { rough_until: length / 3, at: Duration::from_secs(3), pending: None, acts: 0 }
    }

    pub(super) fn is_starved(&self) -> bool {
        matches!(self.pending, Some(Turn::Feed))
    }

    pub(super) fn next(&mut self, now: Duration, rng: &mut Random) -> Turn {
        if now < self.at {
            return Turn::Nothing;
        }
        let rough = now < self.rough_until;
        if let Some(end) = self.pending.take() {
            self.at = now + Duration::from_millis(rng.between(PAUSE_MS.0, PAUSE_MS.1));
            return end;
        }
        // Whoever loses a master meanwhile loses it unseen.
        let drawn = match rng.between(0, 5) {
            0 | 1 if rough => Act::Kill(rng.between(0, 2_500)),
            2..=4 if rough => Act::Starve(rng.between(0, 2_500)),
            _ => Act::Reload,
        };
        let act = FIRST.get(self.acts).copied().unwrap_or(drawn);
        self.acts += 1;
        let (turn, end, lasts) = match act {
            Act::Kill(lasts) => (Turn::Kill, Some(Turn::Start), lasts),
            Act::Starve(lasts) => (Turn::Starve, Some(Turn::Feed), lasts),
            Act::Reload => (Turn::Reload, None, PAUSE_MS.1),
        };
        self.at = now + Duration::from_millis(lasts);
        self.pending = end;
        turn
    }
}
