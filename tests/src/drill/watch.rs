//! Who is whose, seen from outside: every process below the drill's masters, from /proc and by pidfd.
//!
//! This is the ground truth that the agent's decisions are held against. A process enters the book when its parent is in
//! it, so lineage is known from the first look and survives reparenting; its death is told by its pidfd within
//! milliseconds. It does not use the agent, nor the kernel interfaces that the agent uses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use regex::Regex;

use super::Instance;
use super::ledger::boot_now;
use crate::process::{self, Proc, wait_any_gone};

/// How often new processes are looked for.
const ROUND: Duration = Duration::from_millis(15);

/// One process of the book.
#[derive(Debug)]
pub(super) struct Seen {
    /// Held, so that it stays this one.
    pub(super) proc: Proc,
    /// Index of its parent when it was first seen; `None` for a master.
    pub(super) parent: Option<usize>,
    /// Whose.
    pub(super) which: Instance,
    /// When it was first seen.
    pub(super) born: u64,
    /// When it died.
    pub(super) gone: Option<u64>,
    /// When it was killed, if the drill did that.
    pub(super) killed: Option<u64>,
    /// Its last command line.
    pub(super) cmdline: String,
    /// Whether it has ever looked like a worker.
    pub(super) is_worker: bool,
}

/// Every process of the drill so far; an index stays valid.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) seen: Vec<Seen>,
    worker: Regex,
    /// Whether a worker's children are its jobs.
    job_in_child: bool,
    /// Pids that were looked at and do not belong here, while they are in use.
    others: BTreeSet<i32>,
}

impl Book {
    /// Everybody above somebody, nearest first.
    pub(super) fn above(&self, mut at: usize) -> impl Iterator<Item = &Seen> {
        std::iter::from_fn(move || {
            at = self.seen[at].parent?;
            Some(&self.seen[at])
        })
    }

    /// When somebody lost whoever it depended on: the first death above it. `None` while all of them live, and for masters.
    pub(super) fn orphaned(&self, at: usize) -> Option<u64> {
        self.above(at).filter_map(|above| above.killed.or(above.gone)).min()
    }

    /// Whether a worker's own master, and everybody between, is alive now.
    pub(super) fn has_master(&self, at: usize) -> bool {
        self.seen[at].parent.is_some() && self.orphaned(at).is_none()
    }

    /// When the last of its children died that it has outlived.
    pub(super) fn last_child_gone(&self, at: usize) -> Option<u64> {
        let own = self.seen[at].gone.unwrap_or(u64::MAX);
        let children = self.seen.iter().filter(|seen| seen.parent == Some(at));
        children.filter_map(|child| child.gone).filter(|gone| *gone < own).max()
    }

    /// By pid and start.
    pub(super) fn find(&self, pid: i32, start_ticks: u64) -> Option<usize> {
        self.seen.iter().rposition(|s| s.proc.pid() == pid && s.proc.start_ticks() == start_ticks)
    }

    /// Whether somebody descends from a master.
    pub(super) fn is_below(&self, mut at: usize, master: usize) -> bool {
        while let Some(parent) = self.seen[at].parent {
            at = parent;
            if at == master {
                return true;
            }
        }
        false
    }

    /// Workers that are alive and descend from this master, as are all between.
    pub(super) fn workers_of(&self, master: usize) -> usize {
        let fits =
            |(at, seen): &(usize, &Seen)| seen.is_worker && seen.gone.is_none() && self.is_below(*at, master);
        self.seen.iter().enumerate().filter(fits).count()
    }

    fn look(&mut self) {
        let mut known: BTreeMap<i32, usize> = BTreeMap::new();
        known.extend(
            self.seen.iter().enumerate().filter(|(_, s)| s.gone.is_none()).map(|(at, s)| (s.proc.pid(), at)),
        );
        let pids = process::pids();
        self.others.retain(|pid| pids.contains(pid));
        // A child's pid is nearly always above its parent's; whoever comes later is found in the next round.
        for pid in pids {
            if known.contains_key(&pid) || self.others.contains(&pid) {
                continue;
            }
            match self.child(pid, &known) {
                Some((parent, proc)) => {
                    known.insert(pid, self.seen.len());
                    self.add(proc, Some(parent), self.seen[parent].which);
                }
                None => {
                    self.others.insert(pid);
                }
            }
        }
        for at in 0..self.seen.len() {
            let seen = &self.seen[at];
            // A job looks like its worker until it has taken a title of its own.
            let is_job = self.job_in_child && seen.parent.is_some_and(|parent| self.seen[parent].is_worker);
            if seen.gone.is_some() || seen.is_worker || is_job {
                continue;
            }
            let cmdline = seen.proc.cmdline();
            let is_worker = seen.parent.is_some() && self.worker.is_match(&cmdline);
            let seen = &mut self.seen[at];
            (seen.cmdline, seen.is_worker) = (cmdline, is_worker);
        }
    }

    /// Whoever has this pid, if it is a new child of one of the book, and which one's. It is held before its parent is read, and
    /// the parent is alive afterwards: while both live, what was read is about these two and not about others with their pids. One
    /// that has died meanwhile is in the book, as a dead one that nothing is ever sent to.
    fn child(&self, pid: i32, known: &BTreeMap<i32, usize>) -> Option<(usize, Proc)> {
        // Most are none's here: for those nothing is held.
        process::parent(pid).filter(|parent| known.contains_key(parent))?;
        let proc = Proc::hold(pid)?;
        let parent = *known.get(&process::parent(pid)?)?;
        // One that nobody waits for, as uWSGI's first worker does not, is in the book and not alive.
        let is_new = self.find(proc.pid(), proc.start_ticks()).is_none();
        (is_new && self.seen[parent].proc.is_alive()).then_some((parent, proc))
    }

    fn add(&mut self, proc: Proc, parent: Option<usize>, which: Instance) -> usize {
        let born = boot_now();
        let cmdline = proc.cmdline();
        self.seen.push(Seen {
            proc,
            parent,
            which,
            born,
            gone: None,
            killed: None,
            cmdline,
            is_worker: false,
        });
        self.seen.len() - 1
    }
}

/// Keeps the book until it is dropped.
pub(super) struct Watch {
    book: Arc<Mutex<Book>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins; `worker` is what workers' command lines look like.
    pub(super) fn start(worker: Regex, job_in_child: bool) -> Self {
        let book = Book { seen: Vec::new(), worker, job_in_child, others: BTreeSet::new() };
        let book = Arc::new(Mutex::new(book));
        let end = Arc::new(AtomicBool::new(false));
        let (its_book, its_end) = (book.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            while !its_end.load(Ordering::Relaxed) {
                round(&its_book);
            }
        });
        Self { book, end, thread: Some(thread) }
    }

    /// Looks at the book.
    pub(super) fn book<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.book.lock().unwrap())
    }

    /// Enters a master that was just started.
    pub(super) fn master(&self, proc: Proc, which: Instance) -> usize {
        let mut book = self.book.lock().unwrap();
        // Its first children may have been looked at before it was known here.
        book.others.clear();
        book.add(proc, None, which)
    }

    /// Looks at every process now and then does something to one of the book, knowing who is below it.
    pub(super) fn strike(&self, at: usize, signal: process::Signal) {
        let mut book = self.book.lock().unwrap();
        book.look();
        if signal == process::Signal::KILL {
            book.seen[at].killed = Some(boot_now());
        }
        book.seen[at].proc.signal(signal);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One look for new processes, and a wait for deaths.
fn round(book: &Mutex<Book>) {
    let alive: Vec<(usize, std::os::fd::OwnedFd)> = {
        let mut book = book.lock().unwrap();
        book.look();
        let alive = book.seen.iter().enumerate().filter(|(_, s)| s.gone.is_none());
        alive.filter_map(|(at, s)| Some((at, s.proc.pidfd().ok()?))).collect()
    };
    let gone = wait_any_gone(&alive, ROUND);
    let now = boot_now();
    if gone.is_empty() {
        return;
    }
    let mut book = book.lock().unwrap();
    for at in gone {
        book.seen[at].gone = Some(now);
    }
    drop(book);
    // Whoever is left of the round: many deaths do not make for many looks.
    std::thread::sleep(Duration::from_millis(1));
}
