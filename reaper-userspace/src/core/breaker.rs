//! The circuit breaker of a group: more orphans stopped per window than the operator thinks possible is a mistake in
//! the configuration, not a deploy.

use std::collections::VecDeque;

use super::ids::Ns;

/// Counts what was stopped, and opens when one more would be too many. It closes only when it is re-armed.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    kills: VecDeque<Ns>,
    open: bool,
}

/// Whether one more may be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Yes.
    Granted,
    /// No: it opens now, after this many.
    Opens(u32),
    /// No: it was open.
    Refused,
}

impl Breaker {
    /// One that an earlier run of the agent left open.
    pub fn opened() -> Self {
        Self { kills: VecDeque::new(), open: true }
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Asks for one more at `now`, and opens if that would exceed `max` within `window`.
    pub fn ask(&mut self, now: Ns, max: u32, window: Ns) -> Allowance {
        if self.open {
            return Allowance::Refused;
        }
        while self.kills.front().is_some_and(|&t| t.saturating_add(window) <= now) {
            self.kills.pop_front();
        }
        let kills = u32::try_from(self.kills.len()).unwrap_or(u32::MAX);
        if kills < max {
            return Allowance::Granted;
        }
        self.open = true;
        Allowance::Opens(kills)
    }

    /// Whether [`Self::ask`] would grant one more at `now`.
    pub fn grants(&self, now: Ns, max: u32, window: Ns) -> bool {
        let within = self.kills.iter().filter(|t| t.saturating_add(window) > now).count();
        !self.open && u32::try_from(within).is_ok_and(|kills| kills < max)
    }

    /// One was stopped.
    pub fn count(&mut self, now: Ns) {
        self.kills.push_back(now);
    }

    /// When those were stopped that it has counted.
    pub fn kills(&self) -> Vec<Ns> {
        self.kills.iter().copied().collect()
    }

    /// Re-arms it. Returns how many kills it had counted, if it was open. One that was not goes on counting.
    pub fn close(&mut self) -> Option<u32> {
        if !self.open {
            return None;
        }
        let was = std::mem::take(self);
        Some(u32::try_from(was.kills.len()).unwrap_or(u32::MAX))
    }
}
