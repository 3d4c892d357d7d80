//! What the agent gives up when it has all that it needs: every capability but five, for good, and every system call that it does
//! not make.
//!
//! Whoever should get the agent to run code of theirs can then read processes and signal them, which is what the agent is for, and
//! little else: it can start no program, load no module, mount nothing, write to no file that is not root's, and be
//! no other user. A system call that was forgotten fails with `EPERM`, which is an error in the log and not the end of the agent.

mod syscalls;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// The capabilities that the agent works with (capabilities(7)), and what for. Each was found to be needed by taking it away.
pub const KEPT: [(Capability, &str); 5] = [
    (Capability::CAP_KILL, "signalling workers of other users"),
    (Capability::CAP_SYS_PTRACE, "reading what they wait for, and holding them still"),
    (Capability::CAP_DAC_READ_SEARCH, "opening those files of theirs in /proc that only they may read"),
    (Capability::CAP_BPF, "loading kernel programs, also later: the observer, when there is an orphan"),
    (Capability::CAP_PERFMON, "attaching kernel programs"),
];

/// A thread that was joined has left by then on any host.
const LEAVING: Duration = Duration::from_secs(1);

/// Gives up every other capability and system call, for good.
///
/// Threads that exist already keep their capabilities (they are a thread's own), so this is for a process that has one; threads that
/// are started later inherit what is left.
///
/// # Errors
/// There is a second thread, or the kernel refuses.
pub fn confine() -> anyhow::Result<()> {
    alone()?;
    prctl::set_no_new_privs().context("cannot set no_new_privs")?;
    drop_capabilities().context("cannot give up capabilities")?;
    syscalls::restrict().context("cannot restrict system calls")
}

/// Waits until the calling thread is the only one: the kernel still counts one that was joined while it leaves (pthread_join(3) returns in
/// the middle of do_exit).
fn alone() -> anyhow::Result<()> {
    let until = Instant::now() + LEAVING;
    loop {
        let threads = fs::read_dir("/proc/self/task").context("cannot read /proc/self/task")?.count();
        if threads == 1 {
            return Ok(());
        }
        let late = Instant::now() > until;
        anyhow::ensure!(!late, "privileges are given up too late: there are {threads} threads already");
        sleep(Duration::from_millis(1));
    }
}

/// Gives up every capability but [`KEPT`], of the calling thread and those that it starts.
///
/// # Errors
/// The kernel refuses.
pub fn drop_capabilities() -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let keep: CapsHashSet = KEPT.iter().map(|(cap, _)| *cap).filter(|cap| permitted.contains(cap)).collect();
    // Without CAP_SETPCAP the bounding set stays what whoever started the agent left of it. With no_new_privs and nothing to
    // exec it gives nothing to anybody.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for cap in caps::all() {
            // Those that this kernel does not know are in no set.
            if !keep.contains(&cap) && caps::has_cap(None, CapSet::Bounding, cap).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, cap)?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)
}
