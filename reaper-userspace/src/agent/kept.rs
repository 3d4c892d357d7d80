//! Beginning where the agent before this one ended, with what the kernel has kept, if it could be pinned; and leaving the next one
//! what the kernel does not keep.

use anyhow::Context as _;
use rustc_hash::FxHashSet;

use super::snapshot::Dumped;
use super::state::StateDir;
use super::{Agent, Settings};
use crate::clock;
use crate::config::AgentSettings;
use crate::core::ids::ProcKey;
use crate::core::input::{Birth, Identified, Input};
use crate::core::memory::SignalMemory;
use crate::core::records::Event;
use crate::kernel::{Kept, LoadError, Pins, Probes};
use crate::procfs;

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
        let remembered = Input::Remembered { births: births.clone(), memory, lost, unwatched_since };
        self.core.handle(at, remembered);
        let dumped = self.dump(asked)?;
        if self.probes.is_pinned() {
            self.tidy_kept(&births, dumped)?;
        }
        Ok(())
    }

    /// Puts in order what is kept for the next agent: `births` is what was kept for this one.
    fn tidy_kept(&mut self, births: &[Birth], dumped: Dumped) -> anyhow::Result<()> {
        // Whom the dump has entered before its parent, nobody has counted as its child.
        let known: FxHashSet<ProcKey> = births.iter().map(|birth| birth.key).collect();
        if dumped.before_parents.iter().any(|key| !known.contains(key)) {
            self.probes.tasks().context("cannot dump all processes")?;
        }
        let mut live: FxHashSet<ProcKey> = dumped.live.into_iter().collect();
        // Who has no row: an exec that changes the leader takes a thread out of the dump's sight for a moment.
        let now = clock::now();
        let unseen = births.iter().filter(|birth| birth.death.is_none() && !live.contains(&birth.key));
        let is_alive = |birth: &&Birth| procfs::identify(now, birth.key, false) != Identified::Gone;
        let unseen: Vec<_> = unseen.filter(is_alive).map(|birth| birth.key).collect();
        live.extend(unseen);
        if let Err(e) = self.probes.clear_kept(births, live) {
            tracing::warn!("what is kept of the dead cannot be cleared away: {e}");
        }
        Ok(())
    }
}
