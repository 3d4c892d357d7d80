//! What lies between the kernel and the agent: the ring buffer, a dump that is not done yet, and all that has passed.

use reaper::core::effect::Effect;
use reaper::core::ids::{Ns, ProcKey};
use reaper::core::input::{Input, Task};

/// What is in the ring buffer, and what should have been.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Written { input: Input, adopter: Option<ProcKey>, replay: bool },
    Dropped { input: Input, adopter: Option<ProcKey> },
}

#[derive(Debug, Default)]
pub(super) struct Dump {
    pub(super) at: Ns,
    pub(super) rows: Vec<Task>,
    pub(super) next_pid: u32,
}

/// What went into the core and came out, in order.
#[derive(Debug)]
pub enum Traffic {
    In(Ns, Box<Input>),
    Out(Option<Box<Effect>>),
}

/// What the stream does to the records that are written from now on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    pub late: bool,
    pub lossy: bool,
    /// Exits come twice.
    pub double: bool,
    /// The adopter is too far up to be found.
    pub deep: bool,
}
