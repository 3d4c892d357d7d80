//! Beginning where the agent before this one ended, with what the kernel has kept, if it could be pinned; and leaving the next one
//! what the kernel does not keep.

use super::state::StateDir;
use super::{Agent, Settings};
use crate::clock;
use crate::config::AgentSettings;
use crate::core::ids::{Ns, ProcKey};
use crate::core::input::Input;
use crate::core::memory::SignalMemory;
use crate::core::records::Event;
use crate::kernel::{Kept, LoadError, Pins, Probes};

/// Loads the programs, pinned if that can be.
pub(super) fn load(settings: &Settings, config: &AgentSettings, state: &StateDir) -> anyhow::Result<Probes> {
    if settings.unpinned {
        return Ok(Probes::load(config.ring)?);
    }
    let pinned = || Probes::load_pinned(config.ring, &Pins::of(&config.state)?);
    let why = match state.is_own().then(pinned) {
        Some(Ok(probes)) => return Ok(probes),
        Some(Err(e @ (LoadError::Pins(_) | LoadError::Pin { .. }))) => e.to_string(),
        Some(Err(e)) => return Err(e.into()),
        None => format!("another agent has the state directory {}", config.state.display()),
    };
    tracing::warn!(
        "the programs are not pinned, so what happens while no agent runs will not be known: {why}"
    );
    Ok(Probes::load(config.ring)?)
}

/// What was kept while no agent ran, and what there is to say if that is not known.
pub(super) fn take_over(probes: &mut Probes) -> (Option<Kept>, Option<String>) {
    let fresh = "begins afresh: what happened while no agent ran is not known";
    let refused =
        probes.what_was_refused().map(|why| format!("{fresh}; what is pinned cannot be used: {why}"));
    match probes.take_over() {
        Ok(kept) => (kept, refused),
        Err(e) => (None, Some(format!("{fresh}: {e}"))),
    }
}

/// The first dump: when it began, and who was alive.
pub(super) struct FirstDump {
    began: Ns,
    live: Vec<ProcKey>,
}

impl Agent {
    /// Writes down what has to outlive this agent.
    pub(super) fn persist(&mut self) {
        let status = self.core.status();
        self.state
            .armed
            .extend(status.iter().filter(|g| g.armed).map(|g| (g.name.clone(), g.master_source.clone())));
        self.state.memory = self.core.memory();
        self.state.likenesses.extend(self.core.armed().into_iter().map(|a| (a.group, a.likenesses)));
        self.state.broken = status.iter().filter(|g| g.breaker_open).map(|g| g.name.clone()).collect();
        if let Err(e) = self.state_dir.save(&mut self.state) {
            tracing::error!("{e:#}; after a restart the agent will not know what it has done");
            self.record(Event::Error { what: format!("{e:#}"), proc: None });
        }
    }

    /// Adds a signal to that.
    pub(super) fn persist_signal(&mut self, signal: &SignalMemory) {
        if !self.state_dir.add(signal) {
            self.persist();
        }
    }

    /// The first dump, over what the kernel has kept since the agent before this one.
    pub(super) fn begin(&mut self, kept: Option<Kept>) -> anyhow::Result<()> {
        let at = clock::now();
        let kept = kept.unwrap_or_default();
        let memory = std::mem::take(&mut self.state.memory);
        let unwatched_since = kept.unread_since.unwrap_or(at);
        let Kept { births, lost, asked, .. } = kept;
        self.core.handle(at, Input::Remembered { births, memory, lost, unwatched_since });
        let live = self.dump(asked)?;
        self.first_dump = self.probes.is_pinned().then_some(FirstDump { began: at, live });
        Ok(())
    }

    /// Puts what is kept in order, after the first dump. Nothing that this agent decides rests on it, and on a large host it takes
    /// longer than all else that has to be done before anybody is watched.
    pub(super) fn tidy_kept(&mut self) {
        let Some(FirstDump { began, live }) = self.first_dump.take() else { return };
        // Whoever's row came before its parent's has been counted as its child by nobody.
        if let Err(e) = self.probes.tasks() {
            tracing::warn!("who is whose child cannot be kept for the next agent: {e}");
        }
        if let Err(e) = self.probes.clear_kept(&live, began) {
            tracing::warn!("what is kept of the dead cannot be cleared away: {e}");
        }
    }
}
