//! What the agent has observed in the kernel for the core, and what becomes of a look when that cannot be.

use std::collections::BTreeMap;

use crate::core::ids::{Ns, ProcKey, SECOND};
use crate::core::input::Sampled;
use crate::core::sample::Wants;
use crate::kernel::Observer;

/// So long after it could not be done it is tried again.
const RETRY: Ns = SECOND;

/// Who is observed, and for what.
#[derive(Debug)]
pub(super) struct Lookout {
    /// `None` if somebody else has it.
    observer: Option<Observer>,
    asked: BTreeMap<ProcKey, Wants>,
    /// When somebody who could not be observed is tried again.
    retry_at: Ns,
}

impl Lookout {
    /// Nobody yet.
    pub(super) fn new(observer: Option<Observer>) -> Self {
        Self { observer, asked: BTreeMap::new(), retry_at: 0 }
    }

    /// Observes a process from now on.
    ///
    /// # Errors
    /// It cannot be, in words. Looks at it say so, and it is tried again.
    pub(super) fn watch(&mut self, now: Ns, key: ProcKey, wants: Wants) -> Result<(), String> {
        if wants == Wants::default() {
            return Ok(());
        }
        self.asked.insert(key, wants);
        self.try_to_watch(now, key)
    }

    fn try_to_watch(&mut self, now: Ns, key: ProcKey) -> Result<(), String> {
        let Some(observer) = &mut self.observer else { return Ok(()) };
        observer.watch(key).map_err(|e| {
            self.retry_at = now.saturating_add(RETRY);
            format!(
                "what process {} sends and receives cannot be observed, and counts as unknown: {e}",
                key.tgid
            )
        })
    }

    /// Not any more.
    pub(super) fn unwatch(&mut self, key: ProcKey) {
        if self.asked.remove(&key).is_some()
            && let Some(observer) = &mut self.observer
        {
            observer.unwatch(key);
        }
    }

    /// Adds to a look what only the observer sees. What this kernel could tell and was not told makes it incomplete: silence is no
    /// evidence.
    pub(super) fn complete(&mut self, now: Ns, key: ProcKey, outcome: &mut Sampled) {
        let (Some(&wants), Sampled::Seen(sample)) = (self.asked.get(&key), outcome) else { return };
        let told = self.observer.as_mut().is_some_and(|observer| observer.complete(key, sample, wants));
        if let Some(source) = sample.source.as_mut().filter(|_| !told) {
            let why = || "what it did on its sockets was not counted".to_owned();
            source.incomplete.get_or_insert_with(why);
        }
        let unwatched = self.observer.as_ref().is_some_and(|observer| !observer.watches(key));
        if unwatched
            && now >= self.retry_at
            && let Err(e) = self.try_to_watch(now, key)
        {
            tracing::debug!("{e}");
        }
    }
}
