//! What a blocked call waits for, and for how long: its arguments, resolved to descriptors.
//!
//! A call that waits for room to write, or only for hang-ups, waits for nothing that comes in: it is [`Wait::Other`], so
//! that nobody takes it for one that waits for work. What cannot be read is [`Wait::Unknown`].

use nix::libc;

use super::call::{Arch, Blocked, Kind};
use super::parse::{self, Interest, MOST, Target, Waited};
use crate::core::ids::{MS, Ns};
use crate::core::sample::Wait;

/// Epoll descriptors within epoll descriptors are followed so far (the kernel allows one more, `EP_MAX_NESTS`).
const DEPTH: usize = 4;

/// The process, as far as a call's arguments lead into it.
pub(super) trait Place {
    /// Its memory; the error says why it cannot be read.
    fn memory(&self, at: u64, into: &mut [u8]) -> Result<(), String>;

    /// The targets of a descriptor, each that something is waited for on checked to be the file that its number stands for
    /// now. `None` if it is not an epoll descriptor.
    fn epoll(&self, fd: i32) -> Result<Option<Vec<Target>>, String>;

    /// How long a read of this descriptor blocks at most (`SO_RCVTIMEO`, socket(7)); `None` is for ever.
    fn patience(&self, fd: i32) -> Result<Option<Ns>, String>;
}

/// A wait, and whether its time was read from where the kernel leaves what is left of it when the call is interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) wait: Wait,
    pub(super) time_is_overwritten: bool,
}

/// What `call` waits for. `None` if its number is restart_syscall(2).
pub(super) fn resolve(arch: Arch, call: &Blocked, place: &impl Place) -> Option<Resolved> {
    let kind = arch.call(call.nr).map_or(Kind::Other, |(_, kind)| kind);
    if kind == Kind::Restart {
        return None;
    }
    let resolved = Call { args: call.args, place }.resolve(kind);
    Some(resolved.unwrap_or_else(|why| Resolved { wait: Wait::Unknown(why), time_is_overwritten: false }))
}

struct Call<'a, P> {
    args: [u64; 6],
    place: &'a P,
}

impl<P: Place> Call<'_, P> {
    fn resolve(&self, kind: Kind) -> Result<Resolved, String> {
        let args = self.args;
        let time_is_overwritten = match kind {
            Kind::Ppoll => args[2] != 0,
            Kind::Select | Kind::Pselect => args[4] != 0,
            Kind::Nanosleep => args[0].abs_diff(args[1]) < 16,
            Kind::ClockNanosleep => args[2].abs_diff(args[3]) < 16,
            _ => false,
        };
        let wait = match kind {
            Kind::Input => {
                let fd = int(args[0]);
                self.any_of(vec![Waited { fd, interest: Interest::Input }], self.place.patience(fd)?)?
            }
            Kind::Poll => self.any_of(self.pollfds()?, milliseconds(args[2]))?,
            Kind::Ppoll => self.any_of(self.pollfds()?, self.time(args[2], 1)?)?,
            Kind::Select => self.any_of(self.fd_sets()?, self.time(args[4], 1_000)?)?,
            Kind::Pselect => self.any_of(self.fd_sets()?, self.time(args[4], 1)?)?,
            Kind::Epoll => self.epoll(int(args[0]), milliseconds(args[3]))?,
            Kind::Epoll2 => self.epoll(int(args[0]), self.time(args[3], 1)?)?,
            Kind::Futex => self.futex(),
            Kind::FutexWait(timeout) => Wait::Futex { timed: args[timeout] != 0 },
            Kind::Nanosleep => Wait::Sleep { length: self.time(args[0], 1)? },
            Kind::ClockNanosleep if int(args[1]) & libc::TIMER_ABSTIME != 0 => Wait::Sleep { length: None },
            Kind::ClockNanosleep => Wait::Sleep { length: self.time(args[2], 1)? },
            Kind::Child => Wait::Child,
            Kind::Pause => Wait::Files { fds: Vec::new(), timeout: None },
            Kind::Restart | Kind::Other => Wait::Other,
        };
        Ok(Resolved { wait, time_is_overwritten })
    }

    fn pollfds(&self) -> Result<Vec<Waited>, String> {
        let count = bounded(self.args[1])?;
        Ok(parse::pollfds(&self.bytes(self.args[0], count * parse::POLLFD)?))
    }

    fn fd_sets(&self) -> Result<Vec<Waited>, String> {
        let nfds = bounded(u64::from(int(self.args[0]).unsigned_abs()))?;
        let mut waited = Vec::new();
        let sets = [(1, Interest::Input), (2, Interest::Output), (3, Interest::Hangup)];
        for (arg, interest) in sets {
            if self.args[arg] != 0 {
                let bytes = self.bytes(self.args[arg], parse::fd_set_len(nfds))?;
                waited.extend(parse::fd_set(&bytes, nfds, interest));
            }
        }
        Ok(waited)
    }

    fn epoll(&self, fd: i32, timeout: Option<Ns>) -> Result<Wait, String> {
        match self.place.epoll(fd)? {
            Some(targets) => self.any_of(targets.into_iter().map(|t| t.waited).collect(), timeout),
            None => Err(format!("descriptor {fd} is not an epoll descriptor any more")),
        }
    }

    /// futex(2): those operations that wait, by the number below the flags.
    fn futex(&self) -> Wait {
        match int(self.args[1]) & libc::FUTEX_CMD_MASK {
            libc::FUTEX_WAIT
            | libc::FUTEX_WAIT_BITSET
            | libc::FUTEX_WAIT_REQUEUE_PI
            | libc::FUTEX_LOCK_PI
            | libc::FUTEX_LOCK_PI2 => Wait::Futex { timed: self.args[3] != 0 },
            _ => Wait::Other,
        }
    }

    /// Waiting for any of these.
    fn any_of(&self, waited: Vec<Waited>, timeout: Option<Ns>) -> Result<Wait, String> {
        if waited.is_empty() {
            return Ok(match timeout {
                Some(length) => Wait::Sleep { length: Some(length) },
                None => Wait::Files { fds: Vec::new(), timeout: None },
            });
        }
        let mut leaves = Vec::new();
        self.follow(waited, DEPTH, &mut leaves)?;
        if leaves.iter().any(|w| w.interest == Interest::Output) {
            return Ok(Wait::Other);
        }
        leaves.retain(|w| w.interest == Interest::Input);
        let mut fds: Vec<i32> = leaves.into_iter().map(|w| w.fd).collect();
        fds.sort_unstable();
        fds.dedup();
        Ok(if fds.is_empty() { Wait::Other } else { Wait::Files { fds, timeout } })
    }

    /// Replaces every epoll descriptor by its targets.
    fn follow(&self, waited: Vec<Waited>, depth: usize, leaves: &mut Vec<Waited>) -> Result<(), String> {
        for entry in waited {
            let targets = match entry.interest {
                Interest::Input => self.place.epoll(entry.fd)?,
                Interest::Output | Interest::Hangup => None,
            };
            match targets {
                None => leaves.push(entry),
                Some(_) if depth == 0 => return Err("epoll descriptors are nested too deeply".to_owned()),
                // It can become ready only by having a target; without one it brings nothing.
                Some(targets) => {
                    self.follow(targets.into_iter().map(|t| t.waited).collect(), depth - 1, leaves)?;
                }
            }
            if leaves.len() > MOST {
                return Err(format!("it waits for more than {MOST} descriptors"));
            }
        }
        Ok(())
    }

    /// A timespec or timeval in its memory. No address is no limit.
    fn time(&self, at: u64, unit: Ns) -> Result<Option<Ns>, String> {
        if at == 0 {
            return Ok(None);
        }
        let mut bytes = [0; 16];
        self.place.memory(at, &mut bytes)?;
        parse::duration(bytes, unit).map(Some).ok_or_else(|| "its timeout is not a length of time".to_owned())
    }

    fn bytes(&self, at: u64, len: usize) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; len];
        if len > 0 {
            self.place.memory(at, &mut bytes)?;
        }
        Ok(bytes)
    }
}

/// An argument of type int, as the kernel takes it: the upper half of its register means nothing.
fn int(arg: u64) -> i32 {
    arg as i32
}

/// A timeout in milliseconds; negative is for ever.
fn milliseconds(arg: u64) -> Option<Ns> {
    u64::try_from(int(arg)).ok().map(|ms| ms * MS)
}

fn bounded(count: u64) -> Result<usize, String> {
    let bounded = usize::try_from(count).ok().filter(|n| *n <= MOST);
    bounded.ok_or_else(|| format!("it waits for {count} descriptors, more than {MOST}"))
}

#[cfg(test)]
mod tests;
