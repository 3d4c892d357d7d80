//! What the agent has observed in the kernel for the core, and what becomes of a look when that cannot be.

use std::collections::BTreeMap;

use crate::core::ids::ProcKey;
use crate::core::input::Sampled;
use crate::core::sample::Wants;
use crate::kernel::{ObserveError, Observer};

/// Who is observed, and for what.
#[derive(Debug)]
pub(super) struct Lookout {
    /// `None` once its programs could not be loaded.
    observer: Option<Observer>,
    asked: BTreeMap<ProcKey, Wants>,
}

impl Lookout {
    /// Nobody yet.
    pub(super) fn new(observer: Option<Observer>) -> Self {
        Self { observer, asked: BTreeMap::new() }
    }

    /// Observes a process from now on. If that cannot be, looks at it say so.
    pub(super) fn watch(&mut self, key: ProcKey, wants: Wants) {
        if wants == Wants::default() {
            return;
        }
        self.asked.insert(key, wants);
        match self.observer.as_mut().map_or(Ok(()), |observer| observer.watch(key)) {
            Ok(()) => {}
            Err(ObserveError::Load(e)) => {
                tracing::warn!(
                    "what orphans send and receive cannot be observed, so it counts as unknown: {e}"
                );
                self.observer = None;
            }
            Err(e) => tracing::warn!("{key} cannot be observed: {e}"),
        }
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
    pub(super) fn complete(&mut self, key: ProcKey, outcome: &mut Sampled) {
        let (Some(wants), Sampled::Seen(sample)) = (self.asked.get(&key), outcome) else { return };
        let told = self.observer.as_mut().is_some_and(|observer| observer.complete(key, sample, *wants));
        if let Some(source) = sample.source.as_mut().filter(|_| !told) {
            let why = || "what it did on its sockets was not counted".to_owned();
            source.incomplete.get_or_insert_with(why);
        }
    }
}
