//! The wire format between reaper's kernel programs and its agent.
//!
//! Every record in the ring buffer starts with a [`Header`]; its `kind` says which struct follows. Wire structs cannot
//! lie: integers instead of `bool` and `enum`, explicit padding, sizes asserted below, and both sides compile this
//! crate. All numbers are in the machine's own byte order: a record never leaves the host.
//!
//! Deliberately not here: what a record means. The agent turns it into a `core::input::Input`.
#![no_std]

pub mod layout;
pub mod lineage;
pub mod observed;

use core::mem::size_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Rises with every change to a struct of this crate or to what it means: an agent takes up nothing that an older one has
/// pinned in another version.
pub const WIRE_VERSION: u32 = 2;

/// Bytes of a thread name, with its terminating NUL (the kernel's `TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

/// Most bytes of the executed file's name that an [`Exec`] record carries, without a NUL.
pub const FILENAME_MAX: usize = 256;

/// Most bytes of argv (NUL-separated, as in `/proc/PID/cmdline`) that an [`Exec`] record carries.
pub const ARGV_MAX: usize = 1024;

/// How many ancestors the exit program and the iterator look at before they answer [`adopter::UNKNOWN`].
pub const ANCESTORS_MAX: u32 = 64;

/// How the programs and the agent agree on wake-ups, in nanoseconds.
///
/// A wake-up costs twenty times what a record costs, so a record does not wake the agent by itself. A program wakes it
/// when the exit may orphan somebody, when another [`WAKE_BYTES`] are pending, or when the last wake-up by any CPU is
/// longer ago than this. A record that comes sooner after a wake-up lies in the ring without a sound: so the agent, after
/// every drain that found something, drains once more, a little later than this.
pub const WAKE_INTERVAL_NS: u64 = 20_000_000;

/// A reader that has read nothing for so long although it was woken is woken only once in this time until it reads again, in
/// nanoseconds: the programs stay attached while no agent runs, and waking nobody costs as much as waking somebody.
pub const UNHEARD_NS: u64 = 1_000_000_000;

/// Bytes in the ring buffer at whose multiples a program wakes the agent in any case.
pub const WAKE_BYTES: u64 = 16 * 1024;

/// The signals that frameworks take as a request to stop, a bit each: HUP, INT, QUIT, USR1, USR2, TERM, TSTP, WINCH
/// (signal(7)). CHLD and the like are not told.
pub const STOP_SIGNALS: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 10 | 1 << 12 | 1 << 15 | 1 << 20 | 1 << 28;

/// Values of [`Header::kind`].
pub mod kind {
    /// A [`super::Fork`] follows.
    pub const FORK: u32 = 1;
    /// A [`super::Exec`] follows.
    pub const EXEC: u32 = 2;
    /// A [`super::Exit`] follows.
    pub const EXIT: u32 = 3;
    /// A [`super::StopSignal`] follows.
    pub const SIGNAL: u32 = 5;
    /// A [`super::Task`] follows (only from the iterator, never in the ring buffer).
    pub const TASK: u32 = 4;
}

/// Values of [`Exit::adopter_kind`] and [`Task::parent_kind`].
pub mod adopter {
    /// The process in the field beside it is the one.
    pub const KNOWN: u32 = 0;
    /// It leaves nobody behind, so it was not asked; or there are more than [`super::ANCESTORS_MAX`] ancestors, or one could not be
    /// read: then /proc knows, once the kernel has reparented.
    pub const UNKNOWN: u32 = 1;
    /// The dying process is its pid namespace's child reaper: the kernel kills the children.
    pub const NAMESPACE_DIES: u32 = 2;
    /// There is none (pid 0 is the parent of pid 1 and of kthreadd).
    pub const NONE: u32 = 3;
}

/// Bits of [`Fork::flags`] and [`Task::flags`].
pub mod flag {
    /// A kernel thread (`PF_KTHREAD`).
    pub const KERNEL_THREAD: u32 = 1;
    /// The process is a child subreaper (`PR_SET_CHILD_SUBREAPER`, `signal_struct::is_child_subreaper`).
    pub const SUBREAPER: u32 = 2;
    /// The process is the child reaper of its pid namespace (its pid 1).
    pub const CHILD_REAPER: u32 = 4;
    /// The filename or argv of an exec was longer than the record: read the rest from /proc.
    pub const TRUNCATED: u32 = 8;
}

/// A process: thread group id in the initial pid namespace, and the group leader's start in nanoseconds of
/// `CLOCK_BOOTTIME` (`task_struct::start_boottime`). Together they are never reused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Proc {
    /// `CLOCK_BOOTTIME` nanoseconds; 0 with `tgid` 0 is "no process".
    pub start_ns: u64,
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    /// Always 0.
    pub _pad: u32,
}

/// The first bytes of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// One of [`kind`].
    pub kind: u32,
    /// The CPU on which the program ran: the one whose loss counter `lost` is.
    pub cpu: u32,
    /// `CLOCK_BOOTTIME` nanoseconds at which it happened (`bpf_ktime_get_boot_ns`).
    pub boot_ns: u64,
    /// Records that this CPU could not write since the programs were loaded. It only rises.
    pub lost: u64,
}

/// A process was born (`sched_process_fork`; threads are left out).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fork {
    /// Kind [`kind::FORK`].
    pub header: Header,
    /// The new process.
    pub child: Proc,
    /// Its `real_parent`'s process, which with `CLONE_PARENT` is not the process that forked.
    pub parent: Proc,
    /// The child's thread name, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// The child's real uid in the initial user namespace.
    pub uid: u32,
    /// The child's session id in the initial pid namespace.
    pub sid: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Always 0.
    pub _pad: u32,
}

/// A process executed a new image (`sched_process_exec`). `filename_len` bytes of the file name and then `argv_len`
/// bytes of argv follow the struct without a gap.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exec {
    /// Kind [`kind::EXEC`].
    pub header: Header,
    /// The process; exec keeps its identity, whichever thread called it.
    pub proc: Proc,
    /// The new thread name, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// Real uid in the initial user namespace.
    pub uid: u32,
    /// Session id in the initial pid namespace.
    pub sid: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Bytes of the file name that follow, at most [`FILENAME_MAX`].
    pub filename_len: u16,
    /// Bytes of argv that follow the file name, at most [`ARGV_MAX`].
    pub argv_len: u16,
}

/// The last thread of a process died (`sched_process_exit` with `group_dead`). On kernels without that argument more
/// than one thread can take itself for the last: the record may come twice.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exit {
    /// Kind [`kind::EXIT`].
    pub header: Header,
    /// The process.
    pub proc: Proc,
    /// Who will adopt its children (kernel/exit.c `find_new_reaper`), if `adopter_kind` is [`adopter::KNOWN`]. It is not asked
    /// who adopts those of a process that has none.
    pub adopter: Proc,
    /// One of [`adopter`].
    pub adopter_kind: u32,
    /// The wait status as in wait(2): exit code << 8, or the signal in the low 7 bits.
    pub status: u32,
    /// Thread name of the dying process's leader, NUL-padded.
    pub comm: [u8; COMM_LEN],
}

/// Somebody sent one of [`STOP_SIGNALS`] to a process (`signal_generate`), and the process has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct StopSignal {
    /// Kind [`kind::SIGNAL`].
    pub header: Header,
    /// Who got it.
    pub target: Proc,
    /// Its number.
    pub signal: u32,
    /// Thread group id of the process that ran when it was sent: the sender, unless the kernel sent it by itself.
    pub sender: u32,
}

/// A process in the dump of `iter/task`. Dead ones (zombies) are left out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Task {
    /// Kind [`kind::TASK`].
    pub header: Header,
    /// The process.
    pub proc: Proc,
    /// Its parent, if `parent_kind` is [`adopter::KNOWN`]. If the `real_parent` is dying already, its adopter.
    pub parent: Proc,
    /// One of [`adopter`].
    pub parent_kind: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Real uid in the initial user namespace.
    pub uid: u32,
    /// Session id in the initial pid namespace.
    pub sid: u32,
    /// Thread name of the leader, NUL-padded.
    pub comm: [u8; COMM_LEN],
}

const _: () = {
    assert!(size_of::<Proc>() == 16);
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<Fork>() == 88);
    assert!(size_of::<Exec>() == 72);
    assert!(size_of::<Exit>() == 80);
    assert!(size_of::<StopSignal>() == 48);
    assert!(size_of::<Task>() == 88);
};
