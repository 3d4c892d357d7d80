//! What ends a request that the kernel does not answer.
//!
//! `PTRACE_SEIZE` waits while another thread of the process is in execve(2) (`cred_guard_mutex`), and that execve may wait for
//! this very tracer, or for a slow disk. The wait cannot be bounded, and a signal only makes the kernel begin it anew
//! (`ERESTARTNOINTR`). So a timer of this thread's own sends a signal whose handler ends the thread if it is inside such a
//! request: the end of the thread lets go of everybody, as ever. What the thread owned is lost with it (a descriptor and its
//! stack), which is little for what next to never happens. Outside such a request the handler does nothing: it must not end a
//! thread that may hold a lock. It only ends the wait for a thread that does not stop.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;

use nix::libc::{self, c_int};
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;

/// Nothing else in the agent uses it, and a process's interval timer that would send it is never set.
const SIGNAL: Signal = Signal::SIGVTALRM;

/// The alarm rings again this long after, in case the request began as it rang.
const AGAIN: Duration = Duration::from_millis(5);

thread_local! {
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// An alarm of the calling thread. Dropping it switches it off.
pub(super) struct Alarm(#[expect(dead_code, reason = "it rings until it is dropped")] Timer);

impl Alarm {
    /// Rings after so long, for the calling thread only.
    pub(super) fn set(after: Duration) -> nix::Result<Self> {
        static HANDLER: OnceLock<nix::Result<()>> = OnceLock::new();
        let handler = HANDLER.get_or_init(|| {
            let action = SigAction::new(SigHandler::Handler(ring), SaFlags::empty(), SigSet::empty());
            // SAFETY: the handler reads a thread-local that needs no initialisation and no destructor, and makes one
            // system call.
            unsafe { sigaction(SIGNAL, &action) }.map(drop)
        });
        (*handler)?;
        // The thread may have inherited a mask.
        SigSet::from_iter([SIGNAL]).thread_unblock()?;
        let thread_id = gettid().as_raw();
        let notify = SigevNotify::SigevThreadId { signal: SIGNAL, thread_id, si_value: 0 };
        let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))?;
        let at = Expiration::IntervalDelayed(TimeSpec::from_duration(after), TimeSpec::from_duration(AGAIN));
        timer.set(at, TimerSetTimeFlags::empty())?;
        Ok(Self(timer))
    }
}

/// Makes a request that the alarm may end, and this thread with it. `request` must hold no lock and own nothing.
pub(super) fn ask<T>(request: impl FnOnce() -> T) -> T {
    ASKING.set(true);
    let answer = request();
    ASKING.set(false);
    answer
}

extern "C" fn ring(_: c_int) {
    if ASKING.get() {
        // SAFETY: ends the calling thread only, which is inside `ask`: it holds no lock, and nobody joins it.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}
