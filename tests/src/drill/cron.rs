//! The old cron script's rule, for comparison: once a second (the script came once a minute), every worker that is not
//! below a master and is in state S gets SIGTERM.
//!
//! It finds its processes in the drill's book, so it cannot hit anybody that the drill did not start, as the script could.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::facts::Shot;
use super::ledger::boot_now;
use super::watch::{Book, Watch};
use crate::process::Signal;

/// Runs until it is stopped.
pub(super) struct Cron {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Shot>>>,
}

impl Cron {
    pub(super) fn start(watch: &Arc<Watch>) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (watch, its_end) = (watch.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            let mut shots = Vec::new();
            while !its_end.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_secs(1));
                shots.extend(watch.book(sweep));
            }
            shots
        });
        Self { end, thread: Some(thread) }
    }

    pub(super) fn stop(mut self) -> Vec<Shot> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().map_or_else(Vec::new, |thread| thread.join().unwrap())
    }
}

impl Drop for Cron {
    /// A drill that fails leaves no script behind.
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sweep(book: &Book) -> Vec<Shot> {
    let mut shots = Vec::new();
    for (at, seen) in book.seen.iter().enumerate() {
        let candidate = seen.is_worker && seen.gone.is_none() && !book.has_master(at);
        if candidate && seen.proc.stat().is_some_and(|stat| stat.state == 'S') {
            let (pid, start_ticks) = (seen.proc.pid(), seen.proc.start_ticks());
            shots.push(Shot { pid, start_ticks, at: boot_now(), what: "cron: TERM in state S".into() });
            seen.proc.signal(Signal::TERM);
        }
    }
    shots
}
