//! Holds a process still for the last look before a signal.
//!
//! Between a look and a signal a job can arrive; not if every thread of the process is stopped. It is stopped with
//! ptrace(2), `PTRACE_SEIZE` and `PTRACE_INTERRUPT`, which job control does not see: no `SIGCHLD` and no result of wait(2) for
//! its parent, no `SIGCONT` for itself. Ptrace requests must come from the thread that seized, so each freeze has one thread,
//! `reaper-freezer`, which talks to the agent through channels.
//!
//! What is kept true:
//! - **It is let go.** The kernel lets go of whoever a thread traces when that thread ends, stopped or not, dead or alive
//!   (`exit_ptrace`), and so when the agent dies. The freezer's thread ends when the signal was sent, when [`Frozen`] is
//!   dropped, and [`LONGEST`] after it began, whatever the agent does meanwhile. There is no other way out of this module, and
//!   so none in which a thread that did not stop in time stays traced.
//! - **No signal of the application is lost.** What arrives meanwhile stays pending. A thread that was stopped just as one
//!   was delivered gets it when it is let go. Such stops are looked at without being consumed (`WNOWAIT`), because a consumed
//!   one is a signal lost if the agent dies.
//! - **Who was stopped by somebody else stays stopped.**
//! - **Only these threads are waited for**, never "any child": the agent may have others.
//!
//! Nothing is judged here, and nobody is signalled but through [`Held::send`].

mod alarm;
mod registers;
mod tracees;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::core::ids::ProcKey;
use crate::core::rules::Signal;
use crate::core::sample::{Sample, Wait};
use crate::signal::{Held, SignalError};
use alarm::Alarm;
use tracees::Tracees;

/// From the first `PTRACE_SEIZE` to the last detach, no process is held longer.
pub const LONGEST: Duration = Duration::from_millis(50);

/// The agent waits so long for the freezer, which may have to wait for a CPU.
const PATIENCE: Duration = Duration::from_millis(100);

/// The freezer's sleeps are some tens of microseconds; the default slack would more than double them.
const TIMER_SLACK_NS: u64 = 1_000;

/// What a thread was doing when it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// It was blocked in a system call, and that was interrupted: it will be made again, or return `EINTR`.
    Blocked,
    /// Anything else: it was running, or its call had just come to its end, with whatever it had waited for.
    Running,
    /// A signal was about to reach it: this one, and it gets it when it is let go.
    Signalled(i32),
    /// Somebody else had stopped the process, as job control does.
    Stopped,
    /// What it was doing cannot be told on this architecture.
    Unknown,
}

/// Why a process could not be held still. It runs as if nobody had tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreezeError {
    /// It is gone.
    #[error("it is gone")]
    Gone,
    /// Another tracer (a debugger, strace) has it; the tracer's thread id.
    #[error("it is traced by {0}")]
    Traced(i32),
    /// An earlier freezer of this agent has not let go of it yet.
    #[error("an earlier freezer still has it")]
    Held,
    /// The kernel does not permit it: no `CAP_SYS_PTRACE`, or a security module (Yama's ptrace_scope 3).
    #[error("{call} is not permitted: {errno}")]
    NotPermitted {
        /// Which request.
        call: &'static str,
        /// How it failed.
        errno: Errno,
    },
    /// This thread did not stop in time, as one in uninterruptible sleep does not.
    #[error("thread {0} did not stop within {ms} ms", ms = LONGEST.as_millis())]
    NotStopped(i32),
    /// Threads came and went without an end.
    #[error("its threads came and went for {} ms", LONGEST.as_millis())]
    Unsettled,
    /// The kernel did not answer in time. A thread of the process is in execve(2).
    #[error("the kernel did not answer within {ms} ms", ms = LONGEST.as_millis())]
    NoAnswer,
    /// Something else went wrong.
    #[error("{0}")]
    Failed(String),
}

/// Why a frozen process was not signalled.
#[derive(Debug, thiserror::Error)]
pub enum FireError {
    /// Its time was up.
    #[error("it was let go after {} ms", LONGEST.as_millis())]
    LetGo,
    /// It could not be signalled.
    #[error(transparent)]
    Signal(#[from] SignalError),
}

/// A process of which every thread is stopped, for [`LONGEST`] at most. Dropping it lets go.
#[derive(Debug)]
pub struct Frozen {
    key: ProcKey,
    stopped: Stopped,
    /// `None` once the freezer was told how it ends.
    orders: Option<Sender<Order>>,
}

/// How stopping it went.
#[derive(Debug)]
struct Stopped {
    halts: BTreeMap<u32, Halt>,
    took: Duration,
}

/// What the agent wants; each is the last.
enum Order {
    Fire(Signal, SyncSender<Result<(), FireError>>),
    Release(SyncSender<()>),
}

/// Stops every thread of a process. It takes some 100 microseconds, [`LONGEST`] at most.
///
/// # Errors
/// It was not stopped, or let go at once: see [`FreezeError`].
pub fn freeze(held: Arc<Held>) -> Result<Frozen, FreezeError> {
    let key = held.key();
    let (orders, inbox) = channel();
    let (outcome, frozen) = sync_channel(1);
    let run = move || freezer(&held, &outcome, &inbox);
    here(|| Builder::new().name("reaper-freezer".to_owned()).spawn(run))
        .map_err(|e: io::Error| FreezeError::Failed(format!("no thread to freeze it: {e}")))?;
    match frozen.recv_timeout(PATIENCE) {
        Ok(Ok(stopped)) => Ok(Frozen { key, stopped, orders: Some(orders) }),
        Ok(Err(why)) => Err(why),
        // If it finds out later after all, nobody wants it any more, and it lets go.
        Err(RecvTimeoutError::Timeout) => Err(FreezeError::NoAnswer),
        Err(RecvTimeoutError::Disconnected) => {
            Err(FreezeError::Failed("the freezer's thread ended unexpectedly".to_owned()))
        }
    }
}

/// Starts a thread on the CPU that this one runs on. This one only waits for it then, and waking somebody on another CPU that
/// sleeps takes longer than all that the freezer does.
fn here<T>(start: impl FnOnce() -> T) -> T {
    let this = Pid::from_raw(0);
    let (allowed, mut one) = (sched_getaffinity(this), CpuSet::new());
    let pinned = sched_getcpu().and_then(|cpu| one.set(cpu)).and_then(|()| sched_setaffinity(this, &one));
    let started = start();
    if let (Ok(allowed), Ok(())) = (allowed, pinned)
        && let Err(e) = sched_setaffinity(this, &allowed)
    {
        tracing::error!("the agent stays on one CPU: {e}");
    }
    started
}

impl Frozen {
    /// Who is frozen.
    pub fn key(&self) -> ProcKey {
        self.key
    }

    /// What each thread was doing when it was stopped, by thread id.
    pub fn halts(&self) -> &BTreeMap<u32, Halt> {
        &self.stopped.halts
    }

    /// From the first `PTRACE_SEIZE` until the last thread had stopped.
    pub fn took(&self) -> Duration {
        self.stopped.took
    }

    /// Whether somebody else had stopped it before.
    pub fn was_stopped(&self) -> bool {
        self.stopped.halts.values().any(|h| *h == Halt::Stopped)
    }

    /// Says in a sample that was taken meanwhile what the state letter `t` hides: who was running is told by
    /// [`Wait::Nothing`], who was stopped by somebody else by the letter `T`. A thread that is not held here makes it a sample
    /// of a process that was not frozen.
    pub fn mark(&self, sample: &mut Sample) {
        sample.frozen = true;
        for thread in sample.threads.iter_mut().filter(|t| !matches!(t.state, 'Z' | 'X')) {
            match self.stopped.halts.get(&thread.tid) {
                _ if thread.state != 't' => sample.frozen = false,
                None => sample.frozen = false,
                Some(Halt::Blocked) => {}
                Some(Halt::Running | Halt::Signalled(_)) => thread.wait = Wait::Nothing,
                Some(Halt::Stopped) => thread.state = 'T',
                Some(Halt::Unknown) => {
                    thread.wait =
                        Wait::Unknown("its registers cannot be read on this architecture".to_owned());
                }
            }
        }
    }

    /// Sends the signal while it is stopped, then lets go.
    ///
    /// # Errors
    /// Nothing was sent: see [`FireError`].
    pub fn fire(mut self, signal: Signal) -> Result<(), FireError> {
        let (answer, sent) = sync_channel(1);
        let told = self.orders.take().is_some_and(|orders| orders.send(Order::Fire(signal, answer)).is_ok());
        // Nobody takes the order or answers it: the thread has ended, and that has let go.
        if told { sent.recv().unwrap_or(Err(FireError::LetGo)) } else { Err(FireError::LetGo) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let Some(orders) = self.orders.take() else { return };
        let (answer, released) = sync_channel(1);
        // Likewise.
        if orders.send(Order::Release(answer)).is_ok() {
            let _ = released.recv();
        }
    }
}

/// The freezer's thread: from its first request to its end nobody is held longer than [`LONGEST`].
fn freezer(held: &Held, outcome: &SyncSender<Result<Stopped, FreezeError>>, orders: &Receiver<Order>) {
    if let Err(e) = nix::sys::prctl::set_timerslack(TIMER_SLACK_NS) {
        tracing::debug!("the freezer's timer slack stays as it is: {e}");
    }
    let begun = Instant::now();
    let end = begun + LONGEST;
    let _alarm = match Alarm::set(LONGEST) {
        Ok(alarm) => alarm,
        Err(e) => {
            // If the agent has given up waiting, there is nobody to tell.
            let _ = outcome.send(Err(FreezeError::Failed(format!("no alarm for the freezer: {e}"))));
            return;
        }
    };
    let mut tracees = Tracees::default();
    let stopped = tracees.seize_all(held.opened(), end).map(|halts| Stopped { halts, took: begun.elapsed() });
    let failed = stopped.is_err();
    // Letting go comes before saying so: who hears of a failure may look at the process as it is.
    if failed {
        tracees.let_go(end);
    }
    if outcome.send(stopped).is_err() || failed {
        return;
    }
    match orders.recv_timeout(end.saturating_duration_since(Instant::now())) {
        Ok(Order::Fire(signal, answer)) => {
            let sent = if Instant::now() < end {
                held.send(signal).map_err(Into::into)
            } else {
                Err(FireError::LetGo)
            };
            tracees.let_go(end);
            // The agent waits for the answer; if it does not, there is nobody to tell.
            let _ = answer.send(sent);
        }
        Ok(Order::Release(answer)) => {
            tracees.let_go(end);
            let _ = answer.send(());
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => tracees.let_go(end),
    }
}
