//! What the service manager is told (sd_notify(3)): that the agent is ready, takes over another configuration, ends, and
//! that its loop still turns.
//!
//! Whoever was not started by one tells nobody, and has no timer for it. A manager that does not read is not waited for: workers
//! must not wait for it either.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

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
    let Some(manager) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(e) = send(&manager, what) {
        tracing::warn!("cannot tell the service manager {what:?}: {e}");
    }
}

/// One datagram, as sd_notify(3) describes it.
///
/// # Errors
/// Those of sendto(2); `EAGAIN` if the manager has not read what it was told before.
fn send(manager: &OsStr, what: &[NotifyState]) -> io::Result<()> {
    let address = match manager.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(manager)?,
    };
    let text: String = what.iter().map(|state| format!("{state}\n")).collect();
    let own = UnixDatagram::unbound()?;
    own.set_nonblocking(true)?;
    own.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
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
    fn a_manager_that_does_not_read_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        let tell = || send(path.as_os_str(), &[NotifyState::Ready, NotifyState::Status("s")]);
        let full =
            std::iter::repeat_with(tell).take(10_000).find_map(Result::err).expect("full at some time");
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let mut text = [0; 64];
        let length = manager.recv(&mut text).expect("the first one");
        assert_eq!(&text[..length], b"READY=1\nSTATUS=s\n");
    }

    #[test]
    fn without_a_watchdog_there_is_no_timer() {
        let mut service = Service { every: None, due: None };
        service.ready("1 group");
        service.turned(5);
        assert_eq!(service.due(), None);
    }
}
