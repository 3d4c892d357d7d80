//! What the service manager is told (sd_notify(3)): that the agent is ready, takes over another configuration, ends, and
//! that its loop still turns.
//!
//! Whoever was not started by one tells nobody, and has no timer for it.

use sd_notify::NotifyState;

use crate::clock;
use crate::core::ids::Ns;

/// The manager that started this process, if it was one.
#[derive(Debug)]
pub(super) struct Service {
    /// How often its watchdog is fed; `None` if it has none.
    every: Option<Ns>,
    /// When it is fed next.
    due: Option<Ns>,
}

impl Service {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub(super) fn of_environment() -> Self {
        // A third of what it allows: a turn that comes late is not the end.
        let every = sd_notify::watchdog_enabled().map(|longest| Ns::try_from(longest.as_nanos() / 3));
        Self { every: every.and_then(Result::ok), due: None }
    }

    /// All that happens is seen and decided from now on, by this configuration.
    pub(super) fn ready(&mut self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
        self.due = self.every.map(|_| clock::now());
    }

    /// The configuration is read anew; [`Service::ready`] says that this is over.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(e) => tracing::warn!("the service manager is not told of the reload: {e}"),
        }
    }

    /// It ends because it was asked to.
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// The loop has come round: feeds the watchdog if it is time.
    pub(super) fn turned(&mut self, now: Ns) {
        if self.due.is_some_and(|due| due <= now) {
            tell(&[NotifyState::Watchdog]);
            self.due = self.every.map(|every| now + every);
        }
    }

    /// When the loop must have come round again.
    pub(super) fn due(&self) -> Option<Ns> {
        self.due
    }
}

fn tell(what: &[NotifyState]) {
    // Fails only if there is a manager that cannot be told: then it will say so itself, too.
    if let Err(e) = sd_notify::notify(what) {
        tracing::warn!("cannot tell the service manager {what:?}: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_in_time_and_not_more_often() {
        let mut service = Service { every: Some(10), due: Some(100) };
        service.turned(99);
        assert_eq!(service.due(), Some(100));
        service.turned(103);
        assert_eq!(service.due(), Some(113));
    }

    #[test]
    fn without_a_watchdog_there_is_no_timer() {
        let mut service = Service { every: None, due: None };
        service.ready("1 group");
        service.turned(5);
        assert_eq!(service.due(), None);
    }
}
