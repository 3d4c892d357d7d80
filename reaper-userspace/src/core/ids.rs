//! What identifies a process, and the one clock of the core.

use serde::{Deserialize, Serialize};

/// Nanoseconds of `CLOCK_BOOTTIME` (clock_gettime(2)): an instant, or the length between two.
pub type Ns = u64;

/// One millisecond in [`Ns`].
pub const MS: Ns = 1_000_000;

/// One second in [`Ns`].
pub const SECOND: Ns = 1_000 * MS;

/// A process: a thread group, identified for all time since boot. A pid alone is never an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcKey {
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    /// Start of the group leader, `CLOCK_BOOTTIME` (`task_struct::start_boottime`).
    pub start_ns: Ns,
}

impl core::fmt::Display for ProcKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}@{}", self.tgid, self.start_ns)
    }
}
