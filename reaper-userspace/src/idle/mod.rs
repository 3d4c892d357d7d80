//! One look at a process: every thread, what it waits for, and what the descriptors are. The core judges it
//! (`core/idle`); here facts are gathered and nothing is decided.
//!
//! Nothing is guessed. A file that cannot be read makes a thread's wait unknown, or the whole look unreadable; a number that
//! may stand for another file than it did is unknown. Everything is read relative to a directory whose start time was checked.
//! Holding the threads still, their traffic and interval timers are not in here.

mod call;
mod files;
#[doc(hidden)]
pub mod fuzzed;
mod history;
mod holders;
mod known;
mod parse;
mod socket;
mod wait;

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use call::{Arch, Line};
use files::Look;
use history::Last;
use holders::Holders;
use known::Known;

use crate::core::ids::{Ns, ProcKey};
use crate::core::input::Sampled;
use crate::core::sample::{Depth, Sample, Source, Thread, Wait};
use crate::procfs::{Opened, ReadError, Stat, stat_of, threads_in};

/// Looks at processes, and remembers what makes the next look right.
#[derive(Debug)]
pub struct Sampler {
    /// By process and tid.
    last: FxHashMap<ProcKey, FxHashMap<u32, Last>>,
    known: FxHashMap<ProcKey, Known>,
    holders: Holders,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

impl Sampler {
    /// One that has seen nobody.
    pub fn new() -> Self {
        Self { last: FxHashMap::default(), known: FxHashMap::default(), holders: Holders::new() }
    }

    /// Looks at every thread of `key`. `now` is the time of looking; `frozen`: the caller holds every thread in a ptrace stop.
    pub fn sample(&mut self, now: Ns, key: ProcKey, depth: Depth, frozen: bool) -> Sampled {
        match self.look(now, key, depth, frozen) {
            Ok(sample) => Sampled::Seen(sample),
            Err(ReadError::Gone) => {
                self.forget(key);
                Sampled::Gone
            }
            Err(e @ ReadError::Unreadable { .. }) => Sampled::Unreadable(e.to_string()),
        }
    }

    /// Nobody will ask for this process any more.
    pub fn forget(&mut self, key: ProcKey) {
        self.last.remove(&key);
        self.known.remove(&key);
    }

    fn look(&mut self, now: Ns, key: ProcKey, depth: Depth, frozen: bool) -> Result<Sample, ReadError> {
        let opened = Opened::open(key)?;
        let (mut threads, cpu_ns) = threads(&opened)?;
        let source = match depth {
            Depth::Threads => None,
            Depth::Source => Some(self.source(&opened, key, frozen, &mut threads)?),
        };
        Ok(Sample { at: now, threads, cpu_ns, frozen, source })
    }

    /// Fills in what every thread waits for, and then looks at the descriptors: a thread that has accepted a connection and
    /// waits for the next one by now has the first among them.
    fn source(
        &mut self,
        opened: &Opened,
        key: ProcKey,
        frozen: bool,
        threads: &mut [Thread],
    ) -> Result<Source, ReadError> {
        let look = Look::new(opened);
        let arch = architecture(opened);
        let mut before = self.last.remove(&key).unwrap_or_default();
        let mut after = FxHashMap::default();
        let mut waited = BTreeSet::new();
        let mut private = None;
        for thread in threads.iter_mut().filter(|t| !matches!(t.state, 'Z' | 'X')) {
            let last = before.remove(&thread.tid);
            let shares = look.shares_descriptors(thread.tid);
            private = private.or(shares.clone().err());
            let last = match shares.and(arch.clone()) {
                Ok(arch) => ThreadLook { opened, look: &look, arch, frozen }.fill(thread, last),
                Err(why) => {
                    thread.wait = Wait::Unknown(why);
                    None
                }
            };
            after.extend(last.map(|l| (thread.tid, l)));
            if let Wait::Files { fds, .. } = &thread.wait {
                waited.extend(fds.iter().copied());
            }
        }
        self.last.insert(key, after);
        let known = self.known.entry(key).or_default();
        if frozen {
            // The last look believes no earlier one.
            *known = Known::default();
        }
        let (files, incomplete) = look.files(&waited, known, &mut self.holders);
        let incomplete = private.or(incomplete);
        let title = opened.read("cmdline")?.replace('\0', " ").trim().into();
        let caught = signals_caught(&opened.read("status")?);
        Ok(Source { files, incomplete, title, caught, alarm: None })
    }
}

/// `SigCgt` of `/proc/PID/status`: one bit for every signal that has a handler, from the lowest.
fn signals_caught(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// State and CPU time of every thread.
fn threads(opened: &Opened) -> Result<(Vec<Thread>, Ns), ReadError> {
    // What is told of a process with one thread is told of that thread (kernel: `do_task_stat`).
    if threads_in(&opened.stat) == 1 {
        let (thread, used) = thread(opened, &opened.stat)?;
        return Ok((vec![thread], used));
    }
    let unreadable = |why: String| ReadError::Unreadable { pid: opened.pid, file: "task".to_owned(), why };
    let mut threads = Vec::new();
    let mut cpu_ns = 0;
    for task in opened.dir.tasks().map_err(|e| unreadable(e.to_string()))? {
        let tid = task.map_err(|e| unreadable(e.to_string()))?.tid;
        let stat = opened.read(&format!("task/{tid}/stat")).and_then(|text| stat_of(opened.pid, &text));
        match stat.and_then(|stat| thread(opened, &stat)) {
            Ok((thread, used)) => {
                threads.push(thread);
                cpu_ns += used;
            }
            // A thread that ended meanwhile. The next sample shows that threads went.
            Err(ReadError::Gone) => {}
            Err(e) => return Err(e),
        }
    }
    threads.sort_unstable_by_key(|t| t.tid);
    Ok((threads, cpu_ns))
}

fn thread(opened: &Opened, stat: &Stat) -> Result<(Thread, Ns), ReadError> {
    let tid = stat.pid;
    let schedstat = opened.read(&format!("task/{tid}/schedstat"))?;
    let used = schedstat.split_whitespace().next().and_then(|n| n.parse().ok());
    let used = used.ok_or_else(|| ReadError::Unreadable {
        pid: opened.pid,
        file: format!("task/{tid}/schedstat"),
        why: "it does not begin with the time spent on the CPU".to_owned(),
    })?;
    let is_frozen =
        stat.state == 'S' && opened.read(&format!("task/{tid}/wchan")).is_ok_and(|w| in_freezer(&w));
    let thread = Thread {
        tid: u32::try_from(tid).unwrap_or_default(),
        comm: stat.comm.clone(),
        state: if is_frozen { 'T' } else { stat.state },
        syscall: None,
        wait: Wait::NotAsked,
        switches: None,
    };
    Ok((thread, used))
}

/// Whether a thread sleeps where the freezer of cgroup v2 lets it sleep (kernel: `do_freezer_trap`, which compilers make a part
/// of `get_signal`). /proc shows it as asleep in the call that it was in, or in none if it was working; it is stopped. The freezer
/// of cgroup v1 shows as D. On x86 kernels before 5.16 wchan says 0 (there `get_wchan` knew no ORC unwinder), and this cannot be seen:
/// then only the last look tells, of whoever was frozen as it worked.
fn in_freezer(wchan: &str) -> bool {
    matches!(wchan.trim_end(), "get_signal" | "do_freezer_trap" | "cgroup_enter_frozen")
}

/// Whose system call numbers these are. A 64-bit kernel shows those of a 32-bit process without saying so.
fn architecture(opened: &Opened) -> Result<Arch, String> {
    /// `AT_PHENT`, getauxval(3): the size of a program header, 56 bytes in a 64-bit executable and 32 in a 32-bit one.
    const AT_PHENT: u64 = 4;
    let arch = Arch::native().ok_or("the system calls of this architecture are not known")?;
    let mut auxv = Vec::new();
    let read = opened
        .file("auxv")
        .map_err(|e| e.to_string())
        .and_then(|mut f| std::io::Read::read_to_end(&mut f, &mut auxv).map_err(|e| e.to_string()));
    read.map_err(|e| format!("its architecture is not known: {e}"))?;
    let (pairs, _) = auxv.as_chunks::<16>();
    let number = |b: &[u8]| b.try_into().map(u64::from_ne_bytes).unwrap_or_default();
    match pairs.iter().find(|p| number(&p[..8]) == AT_PHENT).map(|p| number(&p[8..])) {
        Some(56) => Ok(arch),
        _ => Err("its architecture is not the agent's: its system calls are not known".to_owned()),
    }
}

/// One thread of a process that is looked at.
struct ThreadLook<'a> {
    opened: &'a Opened,
    look: &'a Look<'a>,
    arch: Arch,
    frozen: bool,
}

impl ThreadLook<'_> {
    /// Fills in what the thread waits for. Returns what to remember of it.
    fn fill(&self, thread: &mut Thread, last: Option<Last>) -> Option<Last> {
        let outcome = self.try_fill(thread, last);
        outcome.unwrap_or_else(|why| {
            thread.wait = Wait::Unknown(why);
            None
        })
    }

    fn try_fill(&self, thread: &mut Thread, last: Option<Last>) -> Result<Option<Last>, String> {
        let tid = thread.tid;
        let read = |file: &str| self.opened.read(&format!("task/{tid}/{file}")).map_err(|e| e.to_string());
        // First: whoever runs from here on shows more at the next look.
        let switches = switches(&read("status")?).ok_or("its status does not count its switches")?;
        thread.switches = Some(switches);
        let line = read("syscall")?;
        let mut call = match call::parse(&line)? {
            Line::Running | Line::Outside => {
                thread.wait = Wait::Nothing;
                return Ok(last);
            }
            Line::Blocked(call) => call,
        };
        let name = self.arch.call(call.nr).map(|(name, _)| name.to_owned());
        thread.syscall = Some(name.unwrap_or_else(|| format!("nr {}", call.nr)));
        let last = last.filter(|l| call.is_at(&l.call));
        let (resolved, restarted) = match wait::resolve(self.arch, &call, self.look) {
            Some(resolved) => (resolved, false),
            None => {
                let why = "restarted after a stop; which call it was is not known";
                call.nr = last.as_ref().ok_or(why)?.call.nr;
                thread.syscall = self.arch.call(call.nr).map(|(name, _)| name.to_owned());
                (wait::resolve(self.arch, &call, self.look).ok_or(why)?, true)
            }
        };
        // A thread that woke meanwhile has used the memory of its call for something else.
        if !self.frozen && (read("syscall")? != line || self::switches(&read("status")?) != Some(switches)) {
            thread.wait = Wait::Nothing;
            return Ok(last);
        }
        let last = last.filter(|l| l.call.nr == call.nr);
        thread.wait = if resolved.time_is_overwritten && (restarted || self.frozen) {
            history::as_asked(resolved.wait, switches, last.as_ref())
        } else {
            resolved.wait
        };
        Ok(Some(Last { call, switches, wait: thread.wait.clone() }))
    }
}

/// `voluntary_ctxt_switches` and `nonvoluntary_ctxt_switches` of a `/proc/PID/task/TID/status`.
fn switches(status: &str) -> Option<u64> {
    let number = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    number("voluntary_ctxt_switches:")?.checked_add(number("nonvoluntary_ctxt_switches:")?)
}

#[cfg(test)]
mod tests;
