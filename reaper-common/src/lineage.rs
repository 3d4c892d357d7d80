//! What the kernel's programs keep of every process for an agent that does not run: who forked it, and in which image it runs.
//!
//! An entry is made at birth and goes when the process is dead and nobody descends from it any more: a dead one counts how
//! many entries name it as their parent. So the map holds the living and those of the dead who are in a lineage of theirs,
//! whatever happens to the ring buffer. The keys are [`Proc`]s.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Proc;

/// Name of the map in the object; the values are [`Birth`]s.
pub const LINEAGE: &str = "LINEAGE";

/// Name of the map with one cell a CPU: births that found no room in the first one.
pub const UNKEPT: &str = "UNKEPT";

/// Name of the global that says whether anything is kept: 1 or 0.
pub const KEPT: &str = "REAPER_KEEPS_LINEAGE";

/// Most processes in the map. It takes 10 MiB.
pub const LINEAGE_MAX: u32 = 64 * 1024;

/// A lineage longer than this is cut: a process that forks its successor for ever must not be remembered for ever.
pub const GENERATIONS_MAX: u32 = 64;

/// What is kept of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Birth {
    /// Its `real_parent`'s process at birth; `tgid` 0 if there was none, or the lineage was cut here.
    pub parent: Proc,
    /// `CLOCK_BOOTTIME` nanoseconds of the exec whose image it runs, by itself or by whom it descends from; 0 if nobody saw it.
    pub exec_at: u64,
    /// `CLOCK_BOOTTIME` nanoseconds of its death; 0 while it lives.
    pub died_at: u64,
    /// 1 while it lives, and 1 for each entry that has counted itself in (`counted`).
    pub references: u64,
    /// The wait status it died with.
    pub status: u32,
    /// The session it was forked into, in the initial pid namespace.
    pub birth_session: u32,
    /// The session in which its image was exec'd.
    pub exec_session: u32,
    /// How many births lie between it and the beginning of what is known.
    pub generation: u32,
    /// 1 if it executed an image of its own.
    pub execed: u32,
    /// 1 if it was there before the programs were: `parent` is who it was first found below.
    pub dumped: u32,
    /// 1 if it is one of its parent's `references`.
    pub counted: u32,
    /// Always 0.
    pub _pad: u32,
}

const _: () = assert!(size_of::<Birth>() == 72);
