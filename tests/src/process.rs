//! Processes seen from outside, and the only place in this crate that signals.
//!
//! What it keeps true: a signal goes through a pidfd, to a process that this test started itself or whose command
//! line or environment was seen to carry the test's token *after* the pidfd was opened. Nothing is ever signalled by a bare pid.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use procfs::process::{Process, Stat, all_processes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

pub use rustix::process::Signal;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Length of a clock tick in /proc, nanoseconds (USER_HZ is 100 on every architecture that matters here).
pub const TICK_NS: u64 = 10_000_000;

/// A process held by a pidfd: it stays this one, even when the pid is used again.
#[derive(Debug)]
pub struct Proc {
    pid: i32,
    start_ticks: u64,
    fd: OwnedFd,
}

/// Stops the calling process, as job control would.
pub fn stop_oneself() {
    // SAFETY: plain system calls. Not raise(3), which would use the thread id that a vfork'd sibling shares.
    unsafe {
        libc::syscall(libc::SYS_kill, libc::syscall(libc::SYS_getpid), libc::SIGSTOP);
    }
}

/// Whether the calls are there that know whom they signal by a number, kill(2) and tgkill(2): asked with signal 0, which is none.
pub fn signals_by_number() -> [nix::Result<()>; 2] {
    // SAFETY: the calls take numbers, and nobody is signalled.
    unsafe {
        [
            nix::Error::result(libc::syscall(libc::SYS_kill, std::process::id(), 0)).map(drop),
            nix::Error::result(libc::syscall(libc::SYS_tgkill, 1, 1, 0)).map(drop),
        ]
    }
}

/// Ends the calling process at once, as the kernel does when memory runs out.
pub fn kill_oneself() -> ! {
    // SAFETY: plain system calls.
    unsafe {
        libc::syscall(libc::SYS_kill, libc::syscall(libc::SYS_getpid), libc::SIGKILL);
    }
    unreachable!("SIGKILL cannot be survived")
}

/// What a queued signal carries, as the kernel reads it (`siginfo_t` with `SI_QUEUE`, 64-bit).
#[repr(C)]
struct QueuedInfo {
    signo: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}

impl Proc {
    /// Holds the process with this pid if it is alive and carries the token: as an argument, in its title, or in the
    /// path of a file of the scene.
    pub fn with_token(pid: i32, token: &str) -> Option<Self> {
        let held = Self::hold(pid)?;
        // Still alive after it was read: what was read was about the process that the pidfd holds.
        (carries(pid, token) && held.is_alive()).then_some(held)
    }

    /// Holds a child of this test. `child` has not been waited for, so the pid is still its own.
    pub fn of_child(child: &Child) -> Option<Self> {
        Self::hold(i32::try_from(child.id()).ok()?)
    }

    /// Holds whoever has this pid now. For processes that were found below one that the test started: nobody else is
    /// signalled.
    pub(crate) fn hold(pid: i32) -> Option<Self> {
        let fd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let start_ticks = stat(pid)?.starttime;
        Some(Self { pid, start_ticks, fd })
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// When it started, in clock ticks since boot: all that /proc tells.
    pub fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// Whether any of its threads is still alive.
    pub fn is_alive(&self) -> bool {
        !self.wait_gone(Duration::ZERO)
    }

    /// Waits until it has died; false if it has not by then.
    pub fn wait_gone(&self, patience: Duration) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let timeout = Timespec::try_from(patience).unwrap();
        poll(&mut fds, Some(&timeout)).unwrap() > 0
    }

    /// Its pidfd once more.
    pub(crate) fn pidfd(&self) -> std::io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Sends it a signal. That it is gone already is no error.
    #[allow(clippy::disallowed_methods, reason = "the one place that signals; see the module's first lines")]
    pub fn signal(&self, signal: Signal) {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(e) => panic!("signal {signal:?} to {}: {e}", self.pid),
        }
    }

    /// Sends it a real-time signal with a value, as sigqueue(3) does.
    pub fn queue(&self, signal: i32, value: u32) {
        let pid = i32::try_from(std::process::id()).unwrap();
        let info = QueuedInfo {
            signo: signal,
            errno: 0,
            code: libc::SI_QUEUE,
            padding: 0,
            pid,
            uid: 0,
            value: value.into(),
            rest: [0; 12],
        };
        assert_eq!(size_of::<QueuedInfo>(), size_of::<libc::siginfo_t>());
        // SAFETY: the pointer is to a live value of the size of a siginfo_t.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), signal, &raw const info, 0)
        };
        assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
    }

    /// Kills it and waits until it has died.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        assert!(self.wait_gone(PATIENCE), "{} does not die", self.pid);
    }

    /// Its `/proc/PID/stat`, while it is alive.
    pub fn stat(&self) -> Option<Stat> {
        stat(self.pid).filter(|_| self.is_alive())
    }

    /// Its arguments joined with spaces, without what is empty at the end.
    pub fn cmdline(&self) -> String {
        cmdline(self.pid).unwrap_or_default()
    }

    /// Waits until its leader is in this state (a letter of proc(5)).
    pub fn wait_state(&self, state: char) {
        let what = format!("{} in state {state}", self.pid);
        wait_until(&what, || self.stat().is_some_and(|s| s.state == state));
    }
}

/// Waits until one of these has died, at most for so long; says who has.
pub(crate) fn wait_any_gone(among: &[(usize, OwnedFd)], patience: Duration) -> Vec<usize> {
    let mut fds: Vec<_> = among.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = Timespec::try_from(patience).unwrap();
    // A signal that was handled meanwhile is as good as the end of the wait.
    poll(&mut fds, Some(&timeout)).unwrap_or(0);
    let gone = fds.iter().map(|fd| !fd.revents().is_empty());
    among.iter().zip(gone).filter(|(_, gone)| *gone).map(|((at, _), _)| *at).collect()
}

/// Every pid in use, ascending.
pub(crate) fn pids() -> std::collections::BTreeSet<i32> {
    let names = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Somebody's parent now.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    stat(pid).map(|stat| stat.ppid)
}

fn stat(pid: i32) -> Option<Stat> {
    Process::new(pid).and_then(|p| p.stat()).ok()
}

fn cmdline(pid: i32) -> Option<String> {
    command_line(Path::new(&format!("/proc/{pid}")))
}

fn command_line(of: &Path) -> Option<String> {
    let raw = std::fs::read(of.join("cmdline")).ok()?;
    let text = String::from_utf8_lossy(&raw).replace('\0', " ");
    Some(text.trim_end().to_owned())
}

fn carries(pid: i32, token: &str) -> bool {
    let says = |line: String| line.contains(token);
    // Programs that overwrite their arguments with a title of their own keep what they were started with.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    if says(String::from_utf8_lossy(&environment).into_owned()) {
        return true;
    }
    match cmdline(pid) {
        // The leader may be a zombie while other threads live: they still know.
        Some(line) if line.is_empty() => {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            tasks.filter_map(|task| command_line(&task.path())).any(says)
        }
        line => line.is_some_and(says),
    }
}

/// Every live process that carries the token, except this one.
pub fn with_token(token: &str) -> Vec<Proc> {
    let own = i32::try_from(std::process::id()).unwrap();
    all_processes()
        .unwrap()
        .flatten()
        .filter(|p| p.pid != own && carries(p.pid, token))
        .filter_map(|p| Proc::with_token(p.pid, token))
        .collect()
}

/// Kills every process that carries the token, until none is left. Says whether that was reached.
pub fn kill_all(token: &str) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let found = with_token(token);
        if found.is_empty() {
            return true;
        }
        found.iter().for_each(|p| p.signal(Signal::KILL));
        found.iter().for_each(|p| {
            p.wait_gone(Duration::from_millis(500));
        });
    }
    false
}

/// Nobody who carries the token is alive.
pub fn assert_no_process_left(token: &str) {
    let left: Vec<_> = with_token(token).iter().map(|p| format!("{} {}", p.pid, p.cmdline())).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Waits until a condition holds that nothing announces; panics with `what` if it does not within [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes_true(PATIENCE, condition), "waited {PATIENCE:?} in vain for: {what}");
}

/// Whether a condition comes true within that time.
pub fn comes_true(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}
