//! The only place that signals.
//!
//! A process is held by a pidfd, and its start time is compared *after* the pidfd was opened: from then on the pidfd
//! can only ever mean this process, whatever becomes of its pid (pidfd_open(2)). Nothing here decides; the core does.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::core::ids::ProcKey;
use crate::core::rules::Signal;
use crate::procfs::{Opened, ReadError};

/// A process that can be signalled without fear of meaning another one.
#[derive(Debug)]
pub struct Held {
    pidfd: OwnedFd,
    key: ProcKey,
    opened: Opened,
}

/// Why a process cannot be held or signalled.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// It is gone: dead, or its pid is another's now.
    #[error("it is gone")]
    Gone,
    /// The start time behind the pidfd could not be read, so it is not known who it is.
    #[error("who it is could not be verified: {0}")]
    Unverified(#[source] ReadError),
    /// pidfd_open(2) or pidfd_send_signal(2) failed.
    #[error("{call}: {errno}")]
    System {
        /// Which call.
        call: &'static str,
        /// How.
        errno: Errno,
    },
    /// The number is not a signal's.
    #[error("{0} is not a signal")]
    NoSuchSignal(i32),
}

impl Held {
    /// Opens a pidfd for `key` and then checks that it is `key`.
    pub fn open(key: ProcKey) -> Result<Self, SignalError> {
        let pid = i32::try_from(key.tgid).ok().and_then(Pid::from_raw).ok_or(SignalError::Gone)?;
        let pidfd =
            rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|e| system("pidfd_open", e))?;
        match Opened::open(key) {
            Ok(opened) => Ok(Self { pidfd, key, opened }),
            Err(ReadError::Gone) => Err(SignalError::Gone),
            Err(e) => Err(SignalError::Unverified(e)),
        }
    }

    /// Who is held.
    pub fn key(&self) -> ProcKey {
        self.key
    }

    /// Its `/proc/PID`.
    pub(crate) fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Sends a signal.
    pub fn send(&self, signal: Signal) -> Result<(), SignalError> {
        let number =
            rustix::process::Signal::from_named_raw(signal.0).ok_or(SignalError::NoSuchSignal(signal.0))?;
        #[expect(clippy::disallowed_methods, reason = "this is the one place that signals")]
        rustix::process::pidfd_send_signal(&self.pidfd, number).map_err(|e| system("pidfd_send_signal", e))
    }
}

fn system(call: &'static str, errno: Errno) -> SignalError {
    if errno == Errno::SRCH { SignalError::Gone } else { SignalError::System { call, errno } }
}
