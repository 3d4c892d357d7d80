//! The one clock: `CLOCK_BOOTTIME`, which the kernel's start times and events are in.

use rustix::time::{ClockId, clock_gettime};

use crate::core::ids::{Ns, SECOND};

/// Nanoseconds since boot, suspended time included (clock_gettime(2)).
pub fn now() -> Ns {
    let time = clock_gettime(ClockId::Boottime);
    let part = |n: i64| u64::try_from(n).unwrap_or_default();
    part(time.tv_sec) * SECOND + part(time.tv_nsec)
}
