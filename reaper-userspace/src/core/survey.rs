//! Looking at every process at once: after a dump, and when the configuration has changed.
//!
//! Nobody is judged before everybody has been looked at: whether a process is a stray depends on whether somebody
//! above it is a master.

use std::collections::{BTreeMap, BTreeSet};

use super::Core;
use super::bereaved::{Bereaved, DETACH_WITHIN, Lost};
use super::effect::Effect;
use super::fates::Loss;
use super::ids::{Ns, ProcKey};
use super::input::{Identified, Identity};
use super::membership::GroupId;
use super::records::{Event, SparedBecause};
use super::schedule::Timer;
use super::tree::NodeId;

/// Who has been asked about and what came back.
#[derive(Debug, Default)]
pub(super) struct Survey {
    asked: BTreeSet<ProcKey>,
    seen: BTreeMap<(Ns, ProcKey), Identity>,
}

impl Core {
    pub(super) fn begin_survey(&mut self) {
        self.survey = Survey::default();
        if self.rules.groups.is_empty() {
            return;
        }
        let mut keys: Vec<ProcKey> = self
            .tree
            .live()
            .map(|id| &self.tree[id])
            .filter(|n| !n.is_kernel_thread())
            .map(super::tree::Node::key)
            .collect();
        keys.sort_unstable();
        for &key in &keys {
            self.effects.push_back(Effect::Identify(key));
        }
        self.survey.asked = keys.into_iter().collect();
    }

    /// Takes an answer while a survey goes on. True if the survey took it.
    pub(super) fn survey_takes(&mut self, now: Ns, key: ProcKey, outcome: &Identified) -> bool {
        let due = self.survey.asked.remove(&key);
        // Asked for twice, or born meanwhile: it waits for the others too. Whose fate is open anyway is decided as ever.
        let early = !self.survey.asked.is_empty()
            && !self.bereaved.contains_key(&key)
            && !self.orphans.contains_key(&key);
        if !due && !early {
            return false;
        }
        match outcome {
            Identified::Alive(who) if self.tree.find(key).is_some() => {
                self.survey.seen.insert((key.start_ns, key), who.clone());
            }
            Identified::Unreadable(why) => {
                self.tell_unreadable(now, key, why);
                self.schedule.settle_later(key, now);
            }
            Identified::Alive(_) | Identified::Gone => {}
        }
        if self.survey.asked.is_empty() {
            let seen = std::mem::take(&mut self.survey.seen);
            self.finish_survey(now, seen);
        }
        true
    }

    fn finish_survey(&mut self, now: Ns, seen: BTreeMap<(Ns, ProcKey), Identity>) {
        let mut met: Vec<(NodeId, Identity)> = Vec::new();
        for ((_, key), who) in seen {
            let Some(id) = self.tree.find(key) else { continue };
            self.tree.identify(id, &who);
            self.tree.share_image(id, &who);
            self.consider_as_master(now, id, &who, true);
            self.note_likeness(now, id, &who);
            met.push((id, who));
        }
        self.part_the_dead();
        self.tell_absent(now);
        let mut lost = Vec::new();
        for (id, who) in met {
            let key = self.tree[id].key();
            if self.bereaved.contains_key(&key) || self.tree[id].is_doomed() {
                continue;
            }
            // A worker whose master died unseen: while the agent did not look, or in a gap of the stream.
            let mut groups = self.masterless_in(id);
            groups.retain(|&g| !self.is_job_of_an_orphan(id, g));
            if groups.is_empty() {
                if self.orphans.contains_key(&key) {
                    continue;
                }
                self.consider_as_stray(now, id, &who);
                continue;
            }
            let bereaved = self.bereaved_unseen(now, id, &groups);
            if bereaved.exec_session.is_none() {
                lost.push(bereaved);
                continue;
            }
            // Elders come first: below a daemon in the making nobody has lost a master yet.
            self.leave_open(now, bereaved);
        }
        for bereaved in lost {
            self.leave_open(now, bereaved);
        }
    }

    /// Whose death made a process masterless when nobody saw that death. If it was kept how its parent died, it is asked as ever
    /// whether the process left as daemons do.
    fn bereaved_unseen(&self, now: Ns, id: NodeId, groups: &[GroupId]) -> Bereaved {
        let node = &self.tree[id];
        let mut losses: BTreeMap<_, _> = groups.iter().map(|&g| (g, self.lost_unseen(now, id, g))).collect();
        let mut exec_session = None;
        let mother = self.tree.lineage(id).next();
        if let Some((session, until)) = node.parting() {
            // That was told, but not that there was a master.
            exec_session = Some(session);
            losses.values_mut().for_each(|lost| lost.since = until.saturating_sub(DETACH_WITHIN));
        } else if let Some(daemon) = mother.filter(|&m| self.may_have_daemonised(m)) {
            // Its second begins when its parent exits, whenever its master died.
            exec_session = Some(self.tree[daemon].image().session);
            let died = self.tree[daemon].death().map(|death| death.at);
            losses
                .values_mut()
                .for_each(|lost| lost.since = died.map_or(lost.since, |at| at.max(lost.since)));
        }
        Bereaved { exec_session, ..Bereaved::new(node.key(), losses, node.has_execed()) }
    }

    /// How a process lost its master of a group unseen: by that one's death, else by that of the next above it.
    fn lost_unseen(&self, now: Ns, id: NodeId, g: GroupId) -> Lost {
        let dead = |up: &NodeId| !self.tree[*up].is_live();
        let master = self.members.lineage_master(&self.tree, id, g);
        let between = || self.tree.lineage(id).take_while(|&up| Some(up) != master);
        let lost = master.filter(dead).or_else(|| between().find(dead));
        let died = |up: NodeId| self.tree[up].death().map(|death| death.at);
        // One of those between may have been its master, and may have died while the dump was taken.
        let missed = between().filter(|&up| self.tree[up].was_missed()).map(|up| died(up).unwrap_or(now));
        let since = lost.and_then(died).map(|at| missed.fold(at, Ns::max));
        let since = since.map_or(now, |at| at.max(self.tree[id].key().start_ns));
        Lost::above(lost.map(|up| self.tree.view(up)), since)
    }

    /// Who left as daemons do and died when nobody looked: in a session of its own it was detached, and took its children along.
    fn part_the_dead(&mut self) {
        let parted = |&id: &NodeId| {
            let node = &self.tree[id];
            if node.is_live() || !node.is_recalled() || self.members.ever(node.key()).next().is_some() {
                return false;
            }
            let mother = self.tree.lineage(id).next();
            mother.is_some_and(|m| {
                node.session() != self.tree[m].image().session && self.may_have_daemonised(m)
            })
        };
        for id in self.tree.all().filter(parted).collect::<Vec<_>>() {
            self.mark_left(id);
        }
    }

    /// Whether a dead process exited as the parents of daemons do, as far as that was kept: who has been forgotten since may have
    /// been another child.
    fn may_have_daemonised(&self, dead: NodeId) -> bool {
        // Where its exit was told it was asked then.
        if !self.tree[dead].is_recalled() {
            return false;
        }
        let Some(death) = self.tree[dead].death().filter(|death| death.status == 0) else { return false };
        let outlived = |&id: &NodeId| {
            // Not those that CLONE_PARENT gave it when it had exited already.
            self.tree.lineage(id).next() == Some(dead)
                && self.tree[id].key().start_ns <= death.at
                && self.tree[id].death().is_none_or(|later| later.at > death.at)
        };
        !self.tree[dead].had_two_of_its_image() && self.tree.all().filter(outlived).count() == 1
    }

    /// A stray: it looks like a worker, nobody above it is a master, and it was there before the agent.
    pub(super) fn consider_as_stray(&mut self, now: Ns, id: NodeId, who: &Identity) {
        if !self.tree[id].may_be_stray()
            || self.tree[id].has_left()
            || self.is_open_above(now, id)
            || self.is_unread_above(now, id)
            || self.lives_in_its_session(id, who)
        {
            return;
        }
        let (key, line) = (self.tree[id].key(), who.cmdline());
        let groups: Vec<GroupId> = self
            .group_ids()
            .filter(|&g| {
                let group = &self.rules.groups[g];
                group.worker.as_ref().is_some_and(|w| w.matches_line(who, &line))
                    && !group.master.matches_line(who, &line)
                    && !self.members.is_master(key, g)
                    && self.members.live_master_above(&self.tree, id, g).is_none()
            })
            .collect();
        if groups.is_empty() {
            return;
        }
        if who.session == key.tgid {
            // Whoever leads a session was started on purpose, as init starts services, or made it when it was a daemon in the
            // making. Without its history nobody can tell: it is reported and left alone.
            for g in groups {
                self.spare(now, id, g, SparedBecause::Detached);
            }
            return self.mark_left(id);
        }
        let how = Loss { lost: None, since: now, stray: true };
        self.become_orphan(now, id, groups.into_iter().map(|g| (g, how.clone())).collect(), who);
    }

    /// Whether somebody above it has never been looked at, and may be its master. Then it is looked at again.
    fn is_unread_above(&mut self, now: Ns, id: NodeId) -> bool {
        let unread = |up| self.tree[up].checked_at == 0 && !self.tree[up].is_kernel_thread();
        if !self.tree.ancestors(id).any(unread) {
            return false;
        }
        let key = self.tree[id].key();
        self.schedule.settle_later(key, now);
        true
    }

    /// A stray is known by what it looks like only: if it looks like something else now, it is none. An orphan whose
    /// lineage was seen stays one.
    pub(super) fn reconsider_stray(&mut self, now: Ns, id: NodeId, who: &Identity) {
        let key = self.tree[id].key();
        let Some(orphan) = self.orphans.get(&key).filter(|o| o.stray) else { return };
        let acting = orphan.group;
        let rules = self.rules.clone();
        let still = |g: &GroupId| {
            rules.groups[*g].worker.as_ref().is_some_and(|w| w.matches(who))
                || self.members.lineage_master(&self.tree, id, *g).is_some()
        };
        let rest: Vec<GroupId> = orphan.groups.iter().copied().filter(still).collect();
        if rest.contains(&acting) {
            return;
        }
        if !rest.is_empty() {
            let group = self.acting_group(&rest);
            if let Some(orphan) = self.orphans.remove(&key) {
                let mut orphan = orphan.passed_to(group, &rules.groups[group].stop);
                orphan.groups = rest;
                self.orphans.insert(key, orphan);
                self.schedule.set(Timer::Orphan(key), now);
                self.remember();
            }
            return;
        }
        self.schedule.cancel(Timer::Orphan(key));
        self.lose_orphan(key);
        let (group, proc) = (self.group_name(acting), self.tree.view(id));
        self.record(now, Event::Left { group, proc });
    }

    /// Below the live leader of its own session it was never orphaned: somebody started it there, by hand or from a
    /// script. The search ends at whoever adopts orphans.
    fn lives_in_its_session(&self, id: NodeId, who: &Identity) -> bool {
        self.tree
            .ancestors(id)
            .take_while(|&up| !self.tree[up].is_reaper())
            .any(|up| self.tree[up].key().tgid == who.session)
    }
}
