//! What an actor does as a target of freezing: threads that come and go, signals that are counted, children that are waited
//! for, and a freezer that dies.

use std::ffi::{c_int, c_void};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use reaper::core::ids::ProcKey;
use reaper::freeze::Frozen;
use reaper::signal::Held;
use reaper_tests::process::TICK_NS;

/// Where the handlers write to.
static VALUES: AtomicI32 = AtomicI32::new(-1);
static SIGCHLDS: AtomicI32 = AtomicI32::new(-1);

/// So many threads that start and await others, for ever.
pub(crate) fn churn(threads: usize) {
    for _ in 0..threads {
        std::thread::spawn(|| {
            loop {
                // The machine may refuse another thread: then that is so.
                if let Ok(next) = std::thread::Builder::new().spawn(std::thread::yield_now) {
                    next.join().unwrap();
                }
            }
        });
    }
}

/// Reads for ever what is always there.
pub(crate) fn read_on() {
    let mut zeros = File::open("/dev/zero").unwrap();
    let mut buffer = vec![0; 1 << 20];
    while zeros.read(&mut buffer).unwrap() > 0 {}
}

/// Appends the value of each `SIGRTMIN + 1` to a file.
pub(crate) fn note_values(path: &Path) {
    VALUES.store(appender(path).into_raw_fd(), Ordering::SeqCst);
    // SAFETY: all zero is a valid sigaction; the handler is async-signal-safe.
    let outcome = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note_value as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(libc::SIGRTMIN() + 1, &raw const action, std::ptr::null_mut())
    };
    assert_eq!(outcome, 0);
}

extern "C" fn note_value(_: c_int, info: *const libc::siginfo_t, _: *const c_void) {
    // SAFETY: the kernel gives a valid siginfo; it was queued with a value, of which this is the first half.
    let value = unsafe { (*info).si_value().sival_ptr.addr() as u32 };
    // SAFETY: the pointer is to a live value of that size; write(2) is async-signal-safe.
    unsafe { libc::write(VALUES.load(Ordering::SeqCst), (&raw const value).cast(), size_of::<u32>()) };
}

/// Appends the id of the thread that gets a TERM to a file.
pub(crate) fn note_term_threads(path: &Path) {
    VALUES.store(appender(path).into_raw_fd(), Ordering::SeqCst);
    let action = SigAction::new(SigHandler::Handler(note_thread), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler asks for its thread's id and writes it, both of which are async-signal-safe.
    unsafe { sigaction(Signal::SIGTERM, &action) }.unwrap();
}

extern "C" fn note_thread(_: c_int) {
    // SAFETY: takes nothing and cannot fail.
    let tid = unsafe { libc::gettid() };
    // SAFETY: the pointer is to a live value of that size; write(2) is async-signal-safe.
    unsafe { libc::write(VALUES.load(Ordering::SeqCst), (&raw const tid).cast(), size_of::<i32>()) };
}

/// Appends a byte to a file for each `SIGCHLD`.
pub(crate) fn note_sigchld(path: &Path) {
    SIGCHLDS.store(appender(path).into_raw_fd(), Ordering::SeqCst);
    let action = SigAction::new(SigHandler::Handler(count_sigchld), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler only writes, which is async-signal-safe.
    unsafe { sigaction(Signal::SIGCHLD, &action) }.unwrap();
}

extern "C" fn count_sigchld(_: c_int) {
    // SAFETY: one byte of a literal; write(2) is async-signal-safe.
    unsafe { libc::write(SIGCHLDS.load(Ordering::SeqCst), c".".as_ptr().cast(), 1) };
}

/// Freezes a process of the ledger.
pub(crate) fn freeze(pid: u64, start_ticks: u64) -> Frozen {
    let key = ProcKey { tgid: pid.try_into().unwrap(), start_ns: start_ticks * TICK_NS };
    reaper::freeze::freeze(Arc::new(Held::open(key).unwrap())).unwrap()
}

fn appender(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).mode(0o666).open(path).unwrap()
}
