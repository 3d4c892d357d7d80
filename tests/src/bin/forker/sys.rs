//! What the scenes are made of: system calls, and the report of whoever was orphaned.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::{self, File};
use std::io::Write as _;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;

/// How long somebody waits to be orphaned.
const PATIENCE_MS: u64 = 2_000;

/// What everybody in the storm knows.
pub(crate) struct Storm {
    token: CString,
    exe: CString,
    gate: c_int,
    reports: File,
    /// Shared by all processes: births so far.
    births: &'static AtomicU64,
}

impl Storm {
    pub(crate) fn new(token: &str, gate: c_int, reports: File) -> Self {
        let length = size_of::<AtomicU64>();
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: fresh memory, zeroed, aligned to a page, and never given back.
        let births = unsafe {
            let page = libc::mmap(null_mut(), length, access, kind, -1, 0);
            assert_ne!(page, libc::MAP_FAILED);
            &*page.cast::<AtomicU64>()
        };
        let exe = std::env::current_exe().unwrap();
        Self { token: cstring(token), exe: cstring(exe.to_str().unwrap()), gate, reports, births }
    }

    pub(crate) fn born(&self) -> u64 {
        self.births.load(Ordering::Relaxed)
    }

    fn count_birth(&self) {
        self.births.fetch_add(1, Ordering::Relaxed);
    }

    /// A child that runs `body` and exits with its answer; its pid.
    pub(crate) fn fork(&self, body: impl FnOnce() -> i32) -> i32 {
        self.count_birth();
        // SAFETY: the C library makes its own state good in the child, and the child does not return.
        let pid = unsafe { libc::fork() };
        self.child_or_pid(pid, body)
    }

    /// The same, but a child of this process's parent.
    pub(crate) fn fork_sibling(&self, body: impl FnOnce() -> i32) {
        self.count_birth();
        let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
        // SAFETY: without CLONE_VM and a stack this is fork; callers have one thread only.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        self.child_or_pid(i32::try_from(pid).unwrap(), body);
    }

    fn child_or_pid(&self, pid: i32, body: impl FnOnce() -> i32) -> i32 {
        if pid == 0 {
            exit_now(body());
        }
        if pid < 0 && Errno::last() == Errno::ENOMEM {
            // The pid namespace that it would be born in has lost its pid 1 (fork(2)).
            self.births.fetch_sub(1, Ordering::Relaxed);
            exit_now(0);
        }
        assert!(pid > 0, "fork: {}", Errno::last());
        pid
    }

    /// vfork(2): a child on this process's memory that execs `/bin/true` or fails to.
    pub(crate) fn vfork(&self, exec: bool) -> i32 {
        self.count_birth();
        let mut stack = vec![0_u128; 4096];
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let body = if exec { exec_true } else { nothing };
        // SAFETY: this thread sleeps until the child has left the stack. Stacks grow down.
        let pid = unsafe { libc::clone(body, stack.as_mut_ptr_range().end.cast(), flags, null_mut()) };
        assert!(pid > 0, "vfork: {}", std::io::Error::last_os_error());
        pid
    }

    /// posix_spawn(3) of `/bin/true`.
    pub(crate) fn spawn(&self) -> i32 {
        self.count_birth();
        let mut pid = 0;
        let argv = [TRUE.as_ptr().cast_mut(), null_mut()];
        let envp = [null_mut()];
        // SAFETY: all strings are static and both lists end with a null pointer.
        let error = unsafe {
            libc::posix_spawn(&raw mut pid, TRUE.as_ptr(), null(), null(), argv.as_ptr(), envp.as_ptr())
        };
        assert_eq!(error, 0, "posix_spawn");
        pid
    }

    /// Becomes `forker hold`, which lives until the gate is closed.
    pub(crate) fn exec_hold(&self) -> ! {
        let gate = cstring(&self.gate.to_string());
        let argv = [self.exe.as_ptr(), c"hold".as_ptr(), self.token.as_ptr(), gate.as_ptr(), null()];
        // SAFETY: all strings live on and the list ends with a null pointer.
        unsafe { libc::execv(argv[0], argv.as_ptr()) };
        panic!("exec {:?}: {}", self.exe, std::io::Error::last_os_error());
    }

    /// Sleeps until the gate is closed.
    pub(crate) fn hold(&self) -> i32 {
        wait_for_end_of(self.gate);
        0
    }

    /// Looks on while this process loses its parent `times` times, and says each time who is the new one. `parent` is the
    /// one that forked it (see [`real_pid`]). With `hold` it then goes on doing so until the gate is closed.
    pub(crate) fn watch(&self, parent: u32, times: u32, hold: bool) -> i32 {
        let orphaned = parent_death_descriptor();
        let (mut last, mut seen) = (parent, 0);
        let end = now() + PATIENCE_MS * 1_000_000;
        loop {
            let look = Look::now();
            if look.ppid != last {
                last = look.ppid;
                seen += 1;
                (&self.reports).write_all(look.line().as_bytes()).unwrap();
            }
            let enough = seen >= times || now() > end;
            if enough && !hold {
                return 0;
            }
            let timeout = if enough { -1 } else { c_int::try_from(PATIENCE_MS).unwrap() };
            if self.sleep(orphaned, timeout) {
                return 0;
            }
        }
    }

    /// Sleeps until the parent dies, the time is over (milliseconds) or the gate is closed; says whether that was it.
    fn sleep(&self, orphaned: c_int, timeout: c_int) -> bool {
        let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [watch(orphaned), watch(self.gate)];
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        // SAFETY: `fds` are two, and `info` is as long as said.
        unsafe {
            libc::poll(fds.as_mut_ptr(), 2, timeout);
            if fds[0].revents != 0 {
                libc::read(orphaned, info.as_mut_ptr().cast(), info.len());
            }
        }
        fds[1].revents & libc::POLLHUP != 0
    }
}

/// What /proc said about a process and its parent.
struct Look {
    pid: u32,
    start: u64,
    ppid: u32,
    parent_start: u64,
    /// `CLOCK_BOOTTIME` before and after.
    between: (u64, u64),
}

impl Look {
    /// At this process, in the initial pid namespace, whichever it lives in: /proc is that one's.
    fn now() -> Self {
        loop {
            let before = now();
            let (pid, ppid, start) = stat("self").unwrap();
            let parent = stat(&ppid.to_string());
            // The start is the parent's own only if it was its parent before and after.
            if let Some((_, _, parent_start)) = parent
                && stat("self").unwrap().1 == ppid
            {
                return Self { pid, start, ppid, parent_start, between: (before, now()) };
            }
        }
    }

    /// See `reaper_tests::storm::Report`.
    fn line(&self) -> String {
        let Self { pid, start, ppid, parent_start, between: (before, after) } = self;
        format!("{pid} {start} {ppid} {parent_start} {before} {after}\n")
    }
}

/// pid, ppid and start of `/proc/WHO/stat`.
fn stat(who: &str) -> Option<(u32, u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{who}/stat")).ok()?;
    let (pid, rest) = text.split_once(" (")?;
    let mut fields = rest.rsplit_once(") ")?.1.split(' ').skip(1);
    Some((pid.parse().ok()?, fields.next()?.parse().ok()?, fields.nth(17)?.parse().ok()?))
}

/// This process's pid in the initial pid namespace.
pub(crate) fn real_pid() -> u32 {
    fs::read_link("/proc/self").unwrap().to_str().unwrap().parse().unwrap()
}

/// `CLOCK_BOOTTIME`.
fn now() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap();
    u64::try_from(Duration::from(time).as_nanos()).unwrap()
}

/// A descriptor that can be read when this thread has been given a new parent: the kernel sends the signal
/// (`PR_SET_PDEATHSIG`) right after it has moved the child.
fn parent_death_descriptor() -> c_int {
    // SAFETY: the set is initialised by sigemptyset before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGUSR1);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, null_mut());
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR1);
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC);
        assert!(fd >= 0, "signalfd");
        fd
    }
}

const TRUE: &std::ffi::CStr = c"/bin/true";

extern "C" fn exec_true(_: *mut c_void) -> c_int {
    let argv: [*const c_char; 2] = [TRUE.as_ptr(), null()];
    // SAFETY: the strings are static and the list ends with a null pointer.
    unsafe { libc::execv(TRUE.as_ptr(), argv.as_ptr()) };
    9
}

extern "C" fn nothing(_: *mut c_void) -> c_int {
    3
}

/// Becomes `/bin/true`.
pub(crate) fn become_true() -> i32 {
    exec_true(null_mut())
}

/// Ends the calling thread only.
pub(crate) fn exit_thread() -> ! {
    // SAFETY: no precondition; nothing on this stack is used by another thread.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!()
}

/// exit_group(2), without any tidying up.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: no precondition.
    unsafe { libc::_exit(code) }
}

/// Ends this process by a signal.
pub(crate) fn die() -> i32 {
    // SAFETY: no precondition.
    unsafe { libc::raise(libc::SIGKILL) }
}

/// Waits until no child is left.
pub(crate) fn wait_all() -> i32 {
    while reap(true).is_some() {}
    0
}

/// A child that has died; with `wait`, the next one. None: there is none, or none yet.
pub(crate) fn reap(wait: bool) -> Option<i32> {
    // SAFETY: no status is asked for.
    let pid = unsafe { libc::waitpid(-1, null_mut(), if wait { 0 } else { libc::WNOHANG }) };
    (pid > 0).then_some(pid)
}

pub(crate) fn become_subreaper() {
    // SAFETY: no precondition.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
}

/// The next children are born in a new pid namespace.
pub(crate) fn new_pid_namespace() {
    // SAFETY: no precondition.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0, "{}", std::io::Error::last_os_error());
}

/// Sleeps for less than so many microseconds; some do not sleep at all.
pub(crate) fn doze(rng: &mut Rng, below_us: u64) {
    let us = rng.below(below_us);
    if us > below_us / 3 {
        std::thread::sleep(Duration::from_micros(us));
    }
}

/// A descriptor that is not closed on exec.
pub(crate) fn keep_over_exec(fd: c_int) -> c_int {
    // SAFETY: no precondition.
    let fd = unsafe { libc::dup(fd) };
    assert!(fd >= 0);
    fd
}

/// Waits until nobody holds the other end any more. What is written meanwhile is nobody's.
pub(crate) fn wait_for_end_of(fd: c_int) {
    let mut fds = [libc::pollfd { fd, events: 0, revents: 0 }];
    while fds[0].revents & libc::POLLHUP == 0 {
        // SAFETY: there is one.
        unsafe { libc::poll(fds.as_mut_ptr(), 1, -1) };
    }
}

fn cstring(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// xorshift64*: random enough, and the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 0 to `end` - 1.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end.max(1)
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Another one, for a child.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.next() | 1)
    }
}
