//! The kernel's side of the agent: what happens to processes, as inputs of the core.
//!
//! [`Probes`] are the programs of the crate `reaper-ebpf`, loaded (`load`) and attached; [`Events`] hands out what they write;
//! [`Probes::tasks`] dumps all processes. [`Observer`] looks closer at single processes, with programs that are loaded only while
//! somebody is watched. [`Pins`] keep the programs attached while no agent runs, and [`Kept`] is what they have kept then. Underneath, [`btf`] reads the kernel's type information, [`offsets`] looks up in it
//! where the programs find what they read, and [`decode`] turns bytes into inputs.
//!
//! What this module keeps true:
//! - A process is (tgid, start of its leader), never a bare pid, and threads do not come out of here.
//! - Inputs come in the order in which the kernel's programs reserved their records. A fork comes before anything else about the
//!   child.
//! - What was lost comes out as [`Input::Lost`](crate::core::input::Input::Lost), before anything that the same CPU
//!   wrote after the loss.
//!
//! Deliberately not here: any state about processes, /proc, signals. On kernels before about 6.16 the exit of one process can
//! come twice; that is for the core to see, which knows who is dead.

pub mod btf;
pub mod decode;
mod events;
mod lineage;
mod load;
mod observer;
pub mod offsets;
mod pins;
mod plain;
mod probes;
mod stats;
mod tasks;

pub use events::{Drained, Events, FOLLOW_UP};
pub use lineage::Kept;
pub use load::{DEFAULT_RING_BYTES, LoadError};
pub use observer::{ObserveError, Observer};
pub use offsets::Teller;
pub use pins::{PinError, Pins};
pub use probes::Probes;
pub use stats::ProgramStats;
pub use tasks::SnapshotError;
