//! The reading end of the ring buffer.
//!
//! The programs do not wake the agent for every record ([`WAKE_INTERVAL_NS`] says when they do). The agent's half of that
//! contract is here: after a drain that found something, [`Events::readable`] returns once more by itself, [`FOLLOW_UP`]
//! later. So no record lies in the ring for longer than that, and nothing is polled while nothing happens.
//!
//! A loss shows in the next record of its CPU, and in a map of the kernel's, which [`Events::losses`] reads: ask it now and
//! then, as a loss may be the last thing that a CPU has to say.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use aya::maps::{MapData, MapError, PerCpuArray, RingBuf};
use reaper_common::WAKE_INTERVAL_NS;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::decode::{Decoded, decode};
use crate::core::ids::Ns;
use crate::core::input::Input;

/// When to look again after a drain that found something. Longer than the programs' interval, so that a record which was
/// still being written at the end of that interval is found too.
pub const FOLLOW_UP: Duration = Duration::from_nanos(WAKE_INTERVAL_NS + 5_000_000);

/// How a drain went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records taken out of the ring.
    pub records: usize,
    /// There may be more, which came while this was drained. [`Events::readable`] returns at once then.
    pub more: bool,
}

/// The ring buffer and what is known about its losses.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    lost: PerCpuArray<MapData, u64>,
    seen: Losses,
    /// When [`Self::readable`] returns by itself.
    look_again: Option<Instant>,
    /// The last drain has left something behind.
    more: bool,
    /// A program has woken the agent since the last drain.
    woken: bool,
}

impl Events {
    /// Watches `ring`.
    pub(super) fn new(ring: RingBuf<MapData>, lost: PerCpuArray<MapData, u64>) -> io::Result<Self> {
        Ok(Self {
            ring: watch(ring)?,
            lost,
            seen: Losses::default(),
            look_again: None,
            more: false,
            woken: false,
        })
    }

    /// Waits until there may be something to drain. May be dropped at any time.
    ///
    /// # Errors
    /// What the runtime says about the ring buffer's file descriptor.
    pub async fn readable(&mut self) -> io::Result<()> {
        let woken = async {
            // Cleared before the drain and not after it, so that a wake-up in between is not forgotten.
            self.ring.readable_mut().await.map(|mut guard| guard.clear_ready())?;
            self.woken = true;
            Ok(())
        };
        let due = if self.more { Some(Instant::now()) } else { self.look_again };
        match due {
            Some(at) => timeout_at(at, woken).await.unwrap_or(Ok(())),
            None => woken.await,
        }
    }

    /// Hands over what is in the ring, oldest first, and ends although more comes meanwhile: a storm can write faster than
    /// anybody can read. A rise of a CPU's loss counter comes as [`Input::Lost`] before the
    /// record that showed it, and so does a record that cannot be understood.
    pub fn drain(&mut self, mut f: impl FnMut(Input)) -> Drained {
        let mut drained = Drained::default();
        let ring = self.ring.get_mut();
        // A program looks at the clock before it takes room in the ring, so who looked later than this came later.
        let began = now();
        while !drained.more
            && let Some(record) = ring.next()
        {
            drained.records += 1;
            match decode(&record) {
                Ok(Decoded { cpu, lost, at, input }) => {
                    if let Some(count) = self.seen.rise(cpu as usize, lost) {
                        f(Input::Lost { at, count });
                    }
                    f(input);
                    drained.more = at > began;
                }
                Err(error) => {
                    // Both ends are built together, so this does not happen; if it does, something is unknown.
                    tracing::error!("cannot understand a record of the kernel programs: {error}");
                    f(Input::Lost { at: now(), count: 1 });
                }
            }
        }
        let (woken, ended) = (std::mem::take(&mut self.woken), Instant::now());
        self.more = drained.more;
        self.look_again = if drained.records > 0 || woken {
            // Where nothing was found, there may be one before the record that woke it that is still being written, on another CPU,
            // without a sound.
            Some(ended + FOLLOW_UP)
        } else {
            // Nothing new; a look that is due is not forgotten for that.
            self.look_again.filter(|&at| at > ended)
        };
        drained
    }

    /// Records that were lost and that no drained record told about yet, from the kernel's own counters. Each is told
    /// once, here or by [`Self::drain`].
    ///
    /// # Errors
    /// What bpf(2) says about the map.
    pub fn losses(&mut self) -> Result<Option<Input>, MapError> {
        let counters = self.lost.get(&0, 0)?;
        let rises = counters.iter().enumerate().filter_map(|(cpu, &lost)| self.seen.rise(cpu, lost));
        let count: u64 = rises.sum();
        Ok((count > 0).then(|| Input::Lost { at: now(), count }))
    }
}

/// Watches a ring buffer: its file descriptor is readable after a wake-up. Only a call without a tokio runtime fails, or one
/// whose runtime cannot watch anything more.
pub(super) fn watch<T: AsRawFd>(ring: T) -> io::Result<AsyncFd<T>> {
    Handle::try_current().map_err(io::Error::other)?;
    // SAFETY: both things that are watched, aya's ring buffer and its logger, own the map's file descriptor for as long as
    // they live, and cannot exchange it.
    Ok(unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?)
}

/// Per CPU, how many losses were told about.
#[derive(Debug, Default)]
struct Losses {
    seen: Vec<u64>,
}

impl Losses {
    /// How many are new in a counter of `cpu`. A counter that stands lower than before is an older record's.
    fn rise(&mut self, cpu: usize, lost: u64) -> Option<u64> {
        if lost == 0 {
            return None;
        }
        if self.seen.len() <= cpu {
            self.seen.resize(cpu + 1, 0);
        }
        let seen = self.seen.get_mut(cpu)?;
        let new = lost.checked_sub(*seen).filter(|&new| new > 0)?;
        *seen = lost;
        Some(new)
    }
}

/// `CLOCK_BOOTTIME`, in nanoseconds.
fn now() -> Ns {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_is_told_once() {
        let mut losses = Losses::default();
        assert_eq!(losses.rise(1, 0), None);
        assert_eq!(losses.rise(1, 3), Some(3));
        assert_eq!(losses.rise(1, 3), None);
        assert_eq!(losses.rise(0, 2), Some(2));
        assert_eq!(losses.rise(1, 2), None, "an older record, after the map was read");
        assert_eq!(losses.rise(1, 7), Some(4));
    }
}
