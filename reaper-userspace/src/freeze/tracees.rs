//! The threads that the freezer's thread traces: seized, stopped, let go.
//!
//! Everything here runs on that one thread. A thread is known by its id while it is traced: its id cannot become another's
//! until this thread has waited for its end.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;
use rustix::fs::{Access, AtFlags, Dir, Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions};

use super::{FreezeError, Halt, alarm, registers};
use crate::procfs::{Opened, ReadError};

/// The pause between two looks at several threads; each stops within some 40 microseconds. Not sched_yield(2): whoever else is
/// runnable on this CPU, the master that dies on it most of all, would get a whole time slice.
const PAUSE: Duration = Duration::from_micros(30);

/// After so many looks it is asked whether those that have not stopped are dead.
const LOOKS_AT_THE_LIVE: u32 = 8;

/// A thread that could not be seized for no reason that can be seen is tried so often again.
const ATTEMPTS: u32 = 3;

/// So long the main thread is given to take what is pending; it takes some 100 microseconds.
const HANDLER_PATIENCE: Duration = Duration::from_millis(10);

/// `PTRACE_EVENT_STOP` (linux/ptrace.h; not in the libc crate for every target): the stop that `PTRACE_INTERRUPT` makes.
const EVENT_STOP: i32 = 128;

/// waitid(2): the end of a thread of whatever kind.
const DEATH: WaitIdOptions =
    WaitIdOptions::EXITED.union(WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned()));

/// The same or its stop; neither is consumed.
const EVERY_NEWS: WaitIdOptions = DEATH.union(WaitIdOptions::STOPPED).union(WaitIdOptions::NOWAIT);

/// A thread that is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tracee {
    /// It was told to stop.
    Awaited,
    Stopped(Halt),
    /// It has died and cannot be waited for: the leader, whose end counts when all others have ended.
    Zombie,
}

/// What a look at a tracee shows.
enum Look {
    NoNews,
    Stopped { signal: i32, event: i32 },
    Dead,
}

/// Everybody traced by this thread.
#[derive(Debug, Default)]
pub(super) struct Tracees {
    threads: BTreeMap<i32, Tracee>,
    /// The main thread's id.
    leader: i32,
}

impl Tracees {
    /// Stops every thread of a process; says what each was doing.
    pub(super) fn seize_all(
        &mut self,
        opened: &Opened,
        end: Instant,
    ) -> Result<BTreeMap<u32, Halt>, FreezeError> {
        let tasks = Tasks::of(opened)?;
        self.leader = opened.pid.cast_signed();
        loop {
            let listed = tasks.list()?;
            let mut seized_any = false;
            for &tid in &listed.tids {
                if !self.threads.contains_key(&tid) {
                    seized_any |= self.seize(&tasks, tid)?;
                }
            }
            // Everybody who was listed had been stopped before, and nobody else is there.
            if !seized_any && listed.are_all {
                break;
            }
            self.await_stops(&tasks, end)?;
            if Instant::now() >= end {
                return Err(FreezeError::Unsettled);
            }
        }
        let halts: BTreeMap<u32, Halt> = self.halts().collect();
        if halts.is_empty() { Err(FreezeError::Gone) } else { Ok(halts) }
    }

    /// Lets everybody run on who is stopped, the last one at `by`. Who is not, or died meanwhile, is let go by the end of this thread.
    ///
    /// The main thread goes first, and what is pending for the process is left to it, as the kernel itself prefers
    /// (`complete_signal`; it passes over threads that are traced). Python runs handlers in the main thread only: taken by
    /// another one, a TERM would wait until the main thread wakes by itself.
    pub(super) fn let_go(&mut self, by: Instant) {
        let mut threads = std::mem::take(&mut self.threads);
        let leader = self.leader;
        if let Some(tracee) = threads.remove(&leader) {
            detach(leader, tracee);
            if !threads.is_empty() {
                let end = by.min(Instant::now() + HANDLER_PATIENCE);
                while has_signal_to_take(leader) && Instant::now() < end {
                    sleep(PAUSE);
                }
            }
        }
        for (tid, tracee) in threads {
            detach(tid, tracee);
        }
    }

    fn halts(&self) -> impl Iterator<Item = (u32, Halt)> {
        self.threads.iter().filter_map(|(tid, tracee)| match tracee {
            Tracee::Stopped(halt) => Some((tid.unsigned_abs(), *halt)),
            Tracee::Awaited | Tracee::Zombie => None,
        })
    }

    /// Seizes a thread and tells it to stop. False if it is dead.
    fn seize(&mut self, tasks: &Tasks, tid: i32) -> Result<bool, FreezeError> {
        let pid = Pid::from_raw(tid);
        let seize = || alarm::ask(|| ptrace::seize(pid, Options::empty()));
        let mut attempt = seize();
        for _ in 0..ATTEMPTS {
            match attempt {
                Ok(()) => break,
                Err(Errno::ESRCH) => return Ok(false),
                Err(errno) if !tasks.may_be_seized(tid, errno)? => return Ok(false),
                // It was a zombie, and an execve(2) in another thread gave its id to that one since.
                Err(_) => attempt = seize(),
            }
        }
        attempt.map_err(|errno| FreezeError::NotPermitted { call: "PTRACE_SEIZE", errno })?;
        // Only now its id means this thread for good. If it is nobody of this process, the end of this thread lets go.
        if !tasks.has(tid) && !matches!(look(tid), Ok(Look::Dead)) {
            return Err(FreezeError::Failed(format!("thread id {tid} has become another process's")));
        }
        self.threads.insert(tid, Tracee::Awaited);
        match ptrace::interrupt(pid) {
            Ok(()) | Err(Errno::ESRCH) => Ok(true),
            Err(errno) => Err(FreezeError::NotPermitted { call: "PTRACE_INTERRUPT", errno }),
        }
    }

    /// Waits until nobody is awaited any more.
    fn await_stops(&mut self, tasks: &Tasks, end: Instant) -> Result<(), FreezeError> {
        for round in 0_u32.. {
            let mut awaited: Vec<i32> =
                self.threads.iter().filter(|(_, t)| **t == Tracee::Awaited).map(|(tid, _)| *tid).collect();
            let mut failed = None;
            awaited.retain(|&tid| match self.has_stopped(tid) {
                Ok(stopped) => !stopped,
                Err(e) => {
                    failed = Some(e);
                    true
                }
            });
            if let Some(e) = failed {
                return Err(e);
            }
            let Some(&slow) = awaited.first() else { break };
            if Instant::now() >= end {
                return Err(FreezeError::NotStopped(slow));
            }
            if self.threads.len() == 1 {
                // Who is alone can be waited for, also if it dies.
                sleep_until_news(slow);
                continue;
            }
            if round >= LOOKS_AT_THE_LIVE {
                for tid in awaited.into_iter().filter(|tid| tasks.is_zombie(*tid)) {
                    self.threads.insert(tid, Tracee::Zombie);
                }
            }
            sleep(PAUSE);
        }
        Ok(())
    }

    /// Whether an awaited thread need not be awaited any more.
    fn has_stopped(&mut self, tid: i32) -> Result<bool, FreezeError> {
        let failed =
            |what: &str, errno: Errno| FreezeError::Failed(format!("{what} of thread {tid}: {errno}"));
        let halt = match look(tid).map_err(|e| failed("waitid", e))? {
            Look::NoNews => return Ok(false),
            Look::Dead => {
                self.threads.remove(&tid);
                return Ok(true);
            }
            Look::Stopped { signal, event: 0 } => Halt::Signalled(signal),
            Look::Stopped { signal, event: EVENT_STOP } if signal != libc::SIGTRAP => Halt::Stopped,
            Look::Stopped { .. } => match registers::halt(Pid::from_raw(tid)) {
                Ok(halt) => halt,
                // It was killed since.
                Err(Errno::ESRCH) => return Ok(false),
                Err(errno) => return Err(failed("the registers", errno)),
            },
        };
        self.threads.insert(tid, Tracee::Stopped(halt));
        Ok(true)
    }
}

fn detach(tid: i32, tracee: Tracee) {
    let signal = match tracee {
        Tracee::Stopped(Halt::Signalled(signal)) => signal,
        Tracee::Stopped(_) => 0,
        Tracee::Awaited | Tracee::Zombie => return,
    };
    // SAFETY: PTRACE_DETACH takes no address, and a number where others take a pointer. (nix knows no real-time
    // signals.)
    let outcome = unsafe {
        libc::ptrace(
            libc::PTRACE_DETACH,
            tid,
            std::ptr::null_mut::<c_void>(),
            std::ptr::without_provenance_mut::<c_void>(signal.unsigned_abs() as usize),
        )
    };
    if outcome != 0 {
        // It was killed.
        tracing::debug!("thread {tid} is let go by the end of the freezer: {}", Errno::last());
    }
}

/// Whether a signal is pending for the whole process that its main thread does not block: `ShdPnd` and `SigBlk` of
/// proc_pid_status(5). Its other threads are still held here, so its pid is its own.
fn has_signal_to_take(leader: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{leader}/status")) else { return false };
    let mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    mask("ShdPnd:").unwrap_or(0) & !mask("SigBlk:").unwrap_or(0) != 0
}

/// Looks whether a tracee has stopped, without consuming that: a signal on its way to the thread survives the end of the
/// tracer only so (kernel: `wait_task_stopped` clears `exit_code`). A death is consumed: until then an execve(2) in
/// another thread would wait (`de_thread`).
fn look(tid: i32) -> Result<Look, Errno> {
    let wait = |options| {
        let options = options | WaitIdOptions::NOHANG;
        let pid = rustix::process::Pid::from_raw(tid).ok_or(Errno::ESRCH)?;
        rustix::process::waitid(WaitId::Pid(pid), options).map_err(|e| Errno::from_raw(e.raw_os_error()))
    };
    match wait(EVERY_NEWS) {
        Ok(None) => Ok(Look::NoNews),
        Ok(Some(status)) => match status.trapping_signal() {
            Some(code) => Ok(Look::Stopped { signal: code & 0xff, event: code >> 8 }),
            None => wait(DEATH).map(|_| Look::Dead),
        },
        // An execve(2) in another thread took its id away from it.
        Err(Errno::ECHILD) => Ok(Look::Dead),
        Err(errno) => Err(errno),
    }
}

/// Sleeps until this thread has stopped or died, or the freezer's alarm rings. Whichever it was is looked at afterwards.
fn sleep_until_news(tid: i32) {
    let Some(pid) = rustix::process::Pid::from_raw(tid) else { return };
    if let Err(e) = rustix::process::waitid(WaitId::Pid(pid), EVERY_NEWS) {
        tracing::trace!("thread {tid} is not waited for any longer: {e}");
    }
}

/// `/proc/PID/task` of one process, whatever becomes of its pid.
struct Tasks<'a> {
    opened: &'a Opened,
    dir: OwnedFd,
}

/// Thread ids.
struct Listed {
    tids: Vec<i32>,
    /// There was no other thread when they had been listed. A listing alone may end early where a thread dies under it (kernel:
    /// `next_tid`).
    are_all: bool,
}

impl<'a> Tasks<'a> {
    fn of(opened: &'a Opened) -> Result<Self, FreezeError> {
        Ok(Self { opened, dir: opened.file("task").map_err(unreadable)?.into() })
    }

    fn list(&self) -> Result<Listed, FreezeError> {
        let count = || self.opened.thread_count().map_err(unreadable);
        // Who has one thread needs no listing.
        if count()? == 1 {
            return Ok(Listed { tids: vec![self.opened.pid.cast_signed()], are_all: true });
        }
        let tids = self.listing()?;
        Ok(Listed { are_all: count()? == tids.len(), tids })
    }

    fn listing(&self) -> Result<Vec<i32>, FreezeError> {
        let dir = Dir::read_from(&self.dir).map_err(|e| gone_or(e, "open"))?;
        let mut tids = Vec::new();
        for entry in dir {
            let entry = entry.map_err(|e| gone_or(e, "list"))?;
            tids.extend(entry.file_name().to_str().ok().and_then(|n| n.parse::<i32>().ok()));
        }
        Ok(tids)
    }

    fn has(&self, tid: i32) -> bool {
        rustix::fs::accessat(&self.dir, tid.to_string(), Access::EXISTS, AtFlags::empty()).is_ok()
    }

    fn is_zombie(&self, tid: i32) -> bool {
        self.status(tid, "State:").is_some_and(|state| state.starts_with(['Z', 'X']))
    }

    /// Whether a thread that could not be seized is alive and nobody's. The kernel says `EPERM` in every case.
    fn may_be_seized(&self, tid: i32, errno: Errno) -> Result<bool, FreezeError> {
        if errno != Errno::EPERM {
            return Err(FreezeError::NotPermitted { call: "PTRACE_SEIZE", errno });
        }
        if !self.has(tid) || self.is_zombie(tid) {
            return Ok(false);
        }
        match self.tracer(tid) {
            0 => Ok(true),
            own if Path::new(&format!("/proc/self/task/{own}")).exists() => Err(FreezeError::Held),
            // If it was a freezer that has ended since, it is a tracer no more.
            other if self.tracer(tid) == other => Err(FreezeError::Traced(other)),
            _ => Ok(true),
        }
    }

    /// The thread that traces this one; 0 if none does.
    fn tracer(&self, tid: i32) -> i32 {
        self.status(tid, "TracerPid:").and_then(|tracer| tracer.parse().ok()).unwrap_or_default()
    }

    /// One value of `/proc/PID/task/TID/status`.
    fn status(&self, tid: i32, name: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, format!("{tid}/status"), flags, Mode::empty()).ok()?;
        let text = std::io::read_to_string(std::fs::File::from(file)).ok()?;
        text.lines().find_map(|l| l.strip_prefix(name)).map(|value| value.trim().to_owned())
    }
}

fn gone_or(errno: rustix::io::Errno, what: &str) -> FreezeError {
    match errno {
        rustix::io::Errno::NOENT | rustix::io::Errno::SRCH => FreezeError::Gone,
        errno => FreezeError::Failed(format!("cannot {what} its threads: {errno}")),
    }
}

fn unreadable(error: ReadError) -> FreezeError {
    match error {
        ReadError::Gone => FreezeError::Gone,
        e @ ReadError::Unreadable { .. } => FreezeError::Failed(e.to_string()),
    }
}
