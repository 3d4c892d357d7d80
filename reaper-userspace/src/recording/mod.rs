//! A recording: everything that was given to the core of a running agent, in order, for `reaper replay`.
//!
//! JSON lines. The first says who recorded; then each input with the time at which it was taken in, each record that the core
//! made of it, and a mark whenever the agent came to rest with everything done, which says when it meant to wake up by
//! itself. The rules are not in it: a replay brings its own.
//!
//! What it keeps true: a recording is whole lines from the beginning of a run; what does not fit its limit is left out at
//! the end, never in between, because a core that missed an input is another one.

mod reader;
mod writer;

use serde::{Deserialize, Serialize};

use crate::core::ids::Ns;
use crate::core::input::Input;
use crate::core::records::Record;

pub use reader::{Broken, Recording, is_recording};
pub use writer::Recorder;

/// The format's version, the field `recording`.
const VERSION: u64 = 2;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format's version.
    pub recording: u64,
    /// The agent's.
    pub version: String,
    /// The agent's pid: neither it nor its ancestors are ever signalled.
    pub agent: u32,
    /// What the clock on the wall said at `boot_ns`, RFC 3339.
    pub ts: String,
    /// `CLOCK_BOOTTIME` of the beginning.
    pub boot_ns: Ns,
}

/// A line after the first.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// An input.
    Input(Taken),
    /// A record that the core made.
    Record(Box<Record>),
    /// Everything was done.
    Rest(Rest),
    /// The recording ends here although the agent went on.
    Full(Full),
}

/// An input and when it was taken in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// `CLOCK_BOOTTIME`.
    pub now: Ns,
    /// The input; its rules are not there.
    #[serde(flatten)]
    pub input: Input,
}

/// The agent had nothing left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// The core's next deadline.
    pub rest: Option<Ns>,
}

/// The last line of a recording that was not to grow any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Full {
    /// Its limit, bytes.
    pub full: u64,
}

/// A record of the core's.
#[derive(Serialize, Deserialize)]
struct Recorded<T> {
    record: T,
}

#[cfg(test)]
mod tests;
