//! What the observer's programs and the agent share: the maps' keys and values, and the rows of its iterator.
//!
//! The agent writes a [`Watched`] for each process that it wants to know about. The programs count what such a process
//! sends and receives on each socket in a [`SocketTraffic`] of each CPU. A watch has a number of its own, which is never used
//! again: what an earlier watch of the same process has counted does not show in a later one.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Proc;

/// Most processes that can be watched at once.
pub const WATCHED_MAX: u32 = 4096;

/// Most sockets of all watched processes together on which something was sent or received.
pub const SOCKETS_MAX: u32 = 16 * 1024;

/// Most of them that one process may take: whoever opens a connection for each job leaves room for the others.
pub const SOCKETS_OF_ONE_MAX: u64 = 1024;

/// A watched process: the value of the map `WATCHED`, whose key is the thread group id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Watched {
    /// Start of its leader, as in [`Proc::start_ns`]: who else gets the pid is not watched.
    pub start_ns: u64,
    /// The number of the watch.
    pub watch: u64,
    /// Sockets with a [`SocketTraffic`] so far.
    pub sockets: u64,
    /// Not 0 once something could not be counted, because a map was full.
    pub dropped: u64,
}

/// A socket of a watched process: the key of the map `TRAFFIC`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketKey {
    /// Inode number, as `/proc/PID/fd` shows it.
    pub inode: u64,
    /// The number of the watch.
    pub watch: u64,
}

/// The sends, or the receives, on a socket that one CPU has seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Transfers {
    /// How many.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// When the last one ended, `CLOCK_BOOTTIME` nanoseconds.
    pub last_ns: u64,
    /// Bytes of that one.
    pub last_bytes: u64,
}

/// What one CPU has seen on a socket: a value of the map `TRAFFIC`. Each half is written by one program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketTraffic {
    /// Sends.
    pub sent: Transfers,
    /// Receives.
    pub received: Transfers,
}

/// Values of [`Alarm::armed`].
pub mod armed {
    /// No real-time interval timer runs.
    pub const NO: u32 = 0;
    /// One runs.
    pub const YES: u32 = 1;
    /// This kernel keeps it where the program does not find it.
    pub const UNKNOWN: u32 = 2;
}

/// A row of the iterator over watched processes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Alarm {
    /// The process.
    pub proc: Proc,
    /// One of [`armed`].
    pub armed: u32,
    /// Always 0.
    pub _pad: u32,
}

const _: () = {
    assert!(size_of::<Watched>() == 32);
    assert!(size_of::<SocketKey>() == 16);
    assert!(size_of::<SocketTraffic>() == 64);
    assert!(size_of::<Alarm>() == 24);
};
