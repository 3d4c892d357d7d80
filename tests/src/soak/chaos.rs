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

pub(super) struct Chaos {
    /// Until then it is killed and starved; afterwards it is only told to reload.
    rough_until: Duration,
    at: Duration,
    /// What ends the act that is on.
    pending: Option<Turn>,
}

impl Chaos {
    pub(super) fn new(length: Duration) -> Self {
        Self { rough_until: length / 3, at: Duration::from_secs(3), pending: None }
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
        let (act, end) = match rng.between(0, 5) {
            0 | 1 if rough => (Turn::Kill, Some(Turn::Start)),
            2..=4 if rough => (Turn::Starve, Some(Turn::Feed)),
            _ => (Turn::Reload, None),
        };
        // Whoever loses a master now loses it unseen.
        let lasts = if end.is_some() { rng.between(0, 2_500) } else { PAUSE_MS.1 };
        self.at = now + Duration::from_millis(lasts);
        self.pending = end;
        act
    }
}
