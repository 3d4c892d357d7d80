//! Another configuration: what of the old groups goes on in the new ones.

use std::sync::Arc;

use super::breaker::Breaker;
use super::effect::Effect;
use super::ids::Ns;
use super::input::Armed;
use super::likeness::Likenesses;
use super::membership::GroupId;
use super::records::Event;
use super::rules::{Group, Matcher, Rules};
use super::schedule::Timer;
use super::{Core, GroupState, View};

/// What a group is known by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patterns<'a> {
    pub(super) name: &'a str,
    /// See [`Matcher::source`].
    pub(super) master: &'a str,
    pub(super) worker: Option<&'a str>,
}

/// What became of the groups of another configuration, by their old numbers.
#[derive(Debug, Default)]
pub(super) struct Succession {
    /// The group of the same name.
    named: Vec<Option<GroupId>>,
    /// The same with the same masters. With another master pattern it is another group of that name: nobody was its master so far,
    /// nobody is its worker, and it is not armed. A typo must not orphan a fleet.
    masters: Vec<Option<GroupId>>,
    /// The same with the same masters and workers. With another worker pattern it is decided anew who is an orphan.
    workers: Vec<Option<GroupId>>,
}

impl Succession {
    pub(super) fn of<'a>(old: impl Iterator<Item = Patterns<'a>>, new: &[Group]) -> Self {
        let mut succession = Self::default();
        for old in old {
            let named = new.iter().position(|group| group.name == old.name);
            let masters = named.filter(|&g| new[g].master.source() == old.master);
            let worker = |g: GroupId| new[g].worker.as_ref().map(Matcher::source);
            succession.workers.push(masters.filter(|&g| worker(g).as_deref() == old.worker));
            succession.masters.push(masters);
            succession.named.push(named);
        }
        succession
    }

    fn of_rules(old: &Rules, new: &Rules) -> Self {
        let source = |group: &Group| (group.master.source(), group.worker.as_ref().map(Matcher::source));
        let sources: Vec<_> = old.groups.iter().map(source).collect();
        let patterns = old.groups.iter().zip(&sources).map(|(group, (master, worker))| Patterns {
            name: &group.name,
            master,
            worker: worker.as_deref(),
        });
        Self::of(patterns, &new.groups)
    }

    fn named(&self, old: GroupId) -> Option<GroupId> {
        self.named.get(old).copied().flatten()
    }

    /// Who was a master of the old one is one of this.
    pub(super) fn masters(&self, old: GroupId) -> Option<GroupId> {
        self.masters.get(old).copied().flatten()
    }

    /// Who was an orphan of the old one is one of this.
    pub(super) fn workers(&self, old: GroupId) -> Option<GroupId> {
        self.workers.get(old).copied().flatten()
    }
}

impl Core {
    pub(super) fn on_configured(&mut self, at: Ns, rules: Arc<Rules>, armed: &[Armed], broken: &[String]) {
        let old = std::mem::replace(&mut self.rules, rules);
        let next = Succession::of_rules(&old, &self.rules);
        let closed = self.take_over_states(&next, armed, broken);
        self.members.renumber(|old| next.masters(old));
        self.parted.clear();
        self.take_over_orphans(at, &next);
        for bereaved in self.bereaved.values_mut() {
            let losses = std::mem::take(&mut bereaved.losses);
            bereaved.losses =
                losses.into_iter().filter_map(|(g, lost)| Some((next.masters(g)?, lost))).collect();
        }
        // What counts as a stop signal may be another one now.
        for key in self.orphans.keys().copied().collect::<Vec<_>>() {
            self.resume_draining(at, key);
        }
        for (g, kills) in closed {
            let (group, window) = (self.group_name(g), self.window(g));
            self.record(at, Event::BreakerClosed { group, kills, window });
        }
        // Whoever is a master or an orphan of which group may have changed.
        self.remember();
        if self.view == View::Clear {
            self.begin_survey();
        }
    }

    /// Returns the groups whose breakers were closed by this, and how many each had counted.
    fn take_over_states(
        &mut self,
        next: &Succession,
        armed: &[Armed],
        broken: &[String],
    ) -> Vec<(GroupId, u32)> {
        let mut states: Vec<GroupState> = self.rules.groups.iter().map(|_| GroupState::default()).collect();
        let mut closed = Vec::new();
        for (old, mut state) in std::mem::take(&mut self.groups).into_iter().enumerate() {
            let Some(new) = next.named(old) else { continue };
            closed.extend(state.breaker.close().map(|kills| (new, kills)));
            let same = next.masters(old).is_some();
            let likenesses = if same { state.likenesses } else { Likenesses::default() };
            states[new] = GroupState { armed: state.armed && same, likenesses, overlap_said: false, ..state };
        }
        for (group, state) in self.rules.groups.iter().zip(&mut states) {
            for earlier in armed.iter().filter(|earlier| earlier.group == group.name) {
                state.armed = true;
                state.likenesses.merge(&earlier.likenesses);
            }
            if broken.contains(&group.name) {
                state.breaker = Breaker::opened();
            }
        }
        self.groups = states;
        closed
    }

    fn take_over_orphans(&mut self, at: Ns, next: &Succession) {
        for (key, mut orphan) in std::mem::take(&mut self.orphans) {
            // What is to be seen of it may be another thing now.
            if std::mem::take(&mut orphan.watched) {
                self.effects.push_back(Effect::Unwatch(key));
            }
            let acted = next.workers(orphan.group);
            orphan.groups = orphan.groups.iter().filter_map(|&g| next.workers(g)).collect();
            if orphan.groups.is_empty() {
                self.schedule.cancel(Timer::Orphan(key));
                // Whatever becomes of it, what the agent has sent is not sent again.
                if let Some(signal) = orphan.signalled {
                    self.asked.entry(key).or_default().insert(signal.0, self.agent);
                }
                continue;
            }
            let group = self.acting_group(&orphan.groups);
            if acted != Some(group) {
                orphan = orphan.passed_to(group, &self.rules.groups[group].stop);
            }
            orphan.group = group;
            orphan.reconsider();
            self.orphans.insert(key, orphan);
            self.schedule.set(Timer::Orphan(key), at);
        }
    }
}
