//! What /proc says decides: who is an orphan, who left, who is nobody's. Who is a master: `masters`.

use super::bereaved::{Bereaved, Fate, Lost};
use super::effect::Effect;
use super::ids::{MS, Ns, ProcKey, SECOND};
use super::input::{Identified, Identity};
use super::membership::GroupId;
use super::orphan::{Orphan, Phase};
use super::records::{Event, HeirBecause, ProcView, SparedBecause};
use super::rules::Mode;
use super::schedule::Timer;
use super::tree::NodeId;
use super::{Core, View};

/// How soon /proc is asked again for a parent that the kernel has not assigned yet.
const PARENT_POLL: Ns = 10 * MS;

/// How a process came to be an orphan.
#[derive(Clone)]
pub(super) struct Loss {
    /// Who died, if that was seen.
    pub(super) lost: Option<ProcView>,
    /// When.
    pub(super) since: Ns,
    /// Its lineage was never seen.
    pub(super) stray: bool,
}

impl Core {
    pub(super) fn on_identified(&mut self, now: Ns, key: ProcKey, outcome: &Identified) {
        let found = self.tree.find(key);
        if let Some(id) = found {
            self.tree.note_asked(id, false);
        }
        let outcome = &match (outcome, found) {
            (Identified::Alive(who), Some(id)) => {
                self.tree.note_argv(id, who.argv.is_empty());
                Identified::Alive(self.completed(id, who))
            }
            _ => outcome.clone(),
        };
        if let (Identified::Alive(who), Some(id)) = (outcome, found) {
            self.tree.identify(id, who);
            if self.tree.is_unsettled(id) {
                self.settle_parent(now, id, who.ppid);
            }
        }
        if self.survey_takes(now, key, outcome) {
            return;
        }
        let Some(id) = found else { return };
        match outcome {
            Identified::Alive(who) => {
                if self.bereaved.contains_key(&key) {
                    self.decide(now, id, who);
                } else {
                    self.settle_standing(now, id, who);
                }
                self.note_likeness(now, id, who);
            }
            // Its exit is in the ring buffer. If it is not after all, it is looked at again.
            Identified::Gone => {
                if let Some(bereaved) = self.bereaved.remove(&key) {
                    self.look_again(now, bereaved);
                }
            }
            Identified::Unreadable(why) => {
                if self.tree.is_unsettled(id) {
                    self.ask_again(now, id);
                }
                self.cannot_identify(now, key, why);
            }
        }
    }

    fn settle_parent(&mut self, now: Ns, id: NodeId, ppid: u32) {
        if !self.tree.settle(id, ppid) {
            return self.ask_again(now, id);
        }
        self.take_back_parted(now, id);
        // Whether those below it are masters could not be said as long as nobody knew who is above them.
        for below in self.tree.descendants(id) {
            let key = self.tree[below].key();
            self.effects.push_back(Effect::Identify(key));
        }
    }

    /// What /proc says, with what was known before where it cannot say anything: a process whose leader has exited before
    /// its other threads, or that is dying, has no command line any more. That it had one still tells what it is.
    fn completed(&self, id: NodeId, who: &Identity) -> Identity {
        let (node, mut who) = (&self.tree[id], who.clone());
        if who.argv.is_empty() {
            who.argv = node.argv().clone();
            if who.exe.is_empty() {
                who.exe = node.exe().clone();
            }
        }
        who
    }

    /// A process that has had time to take its title.
    fn settle_standing(&mut self, now: Ns, id: NodeId, who: &Identity) {
        self.consider_as_master(now, id, who, true);
        self.reconsider_stray(now, id, who);
        self.consider_as_orphan(now, id, who);
        if self.view == View::Clear && !self.orphans.contains_key(&self.tree[id].key()) {
            self.consider_as_stray(now, id, who);
        }
    }

    /// What is born below an orphan of a group that does not name its workers counts as that one's job until it is gone;
    /// likewise below one that is only no orphan because it is a master of another group.
    pub(super) fn is_job_of_an_orphan(&self, id: NodeId, g: GroupId) -> bool {
        let spared = |up| {
            let master = !self.members.reigns(self.tree[up].key()).is_empty();
            master && self.members.lineage_master(&self.tree, up, g).is_some()
        };
        self.is_below_an_orphan(id, g)
            || self.rules.groups[g].worker.is_none() && self.tree.ancestors(id).any(spared)
    }

    /// Below an orphan of a group that does not name its workers, or one that is about to be.
    pub(super) fn is_below_an_orphan(&self, id: NodeId, g: GroupId) -> bool {
        let orphan = |up| {
            let key = self.tree[up].key();
            self.is_orphan_of(key, g) || self.bereaved.get(&key).is_some_and(|b| b.is_of(g))
        };
        self.rules.groups[g].worker.is_none() && self.tree.ancestors(id).any(orphan)
    }

    /// Whoever is born below an orphan of a group that names its workers, or becomes a worker there by its title.
    fn consider_as_orphan(&mut self, now: Ns, id: NodeId, who: &Identity) {
        let key = self.tree[id].key();
        if !self.tree[id].tracked() || self.bereaved.contains_key(&key) || self.view != View::Clear {
            return;
        }
        if self.is_open_above(now, id) {
            return;
        }
        let groups: Vec<GroupId> = self
            .masterless_in(id)
            .into_iter()
            .filter(|&g| {
                let group = &self.rules.groups[g];
                group.worker.as_ref().is_some_and(|w| w.matches(who)) && !group.master.matches(who)
            })
            .collect();
        if !groups.is_empty() {
            let how = Loss { lost: None, since: now, stray: false };
            self.become_orphan(now, id, groups.into_iter().map(|g| (g, how.clone())).collect(), who);
        }
    }

    fn decide(&mut self, now: Ns, id: NodeId, who: &Identity) {
        let key = self.tree[id].key();
        let Some(mut bereaved) = self.bereaved.remove(&key) else { return };
        if !self.is_ancestry_known(id) {
            bereaved.adopter_was_unknown = true;
            return self.look_again(now, bereaved);
        }
        // Whoever is above it goes first: if that one left on purpose, it took its children along.
        if self.tree.ancestors(id).any(|up| self.bereaved.contains_key(&self.tree[up].key())) {
            return self.look_again(now, bereaved);
        }
        if let Some(up) = self.may_succeed_above(id, &bereaved.losses) {
            self.effects.push_back(Effect::Identify(up));
            return self.look_again(now, bereaved);
        }
        for (g, lost) in std::mem::take(&mut bereaved.losses) {
            match self.still_bereaved(id, g, lost.since, bereaved.adopter_was_unknown) {
                Ok(true) => {
                    bereaved.losses.insert(g, lost);
                }
                Ok(false) => {}
                Err(because) => {
                    if let (SparedBecause::Adopted, Some(session)) = (because, bereaved.exec_session) {
                        self.adopted.insert(key, session);
                        self.remember();
                    }
                    self.spare(now, id, g, because);
                }
            }
        }
        if bereaved.losses.is_empty() {
            // It has lost nobody after all.
            return self.consider_as_master(now, id, who, false);
        }
        let walked_off = |g, since| self.walked_off(id, g, since);
        let daemon = self.adopted.get(&key).is_some_and(|&session| session != who.session);
        let fate = bereaved.decide(now, who, &self.rules.groups, daemon, walked_off);
        match &fate {
            Fate::Open => self.look_again(now, bereaved),
            Fate::Detached(heir_of) => {
                self.detach(now, id, &bereaved, heir_of);
                // It may be a master of others.
                self.consider_as_master(now, id, who, false);
            }
            Fate::Decided { heir, orphan, left } => {
                let because = if daemon { HeirBecause::Session } else { HeirBecause::Exec };
                for &g in heir {
                    self.say_overlap(now, id, g, who);
                    let of = bereaved.losses.get(&g).and_then(|lost| lost.who.clone()).unwrap_or_default();
                    self.succeed(now, id, g, of, because);
                }
                if !left.is_empty() {
                    for &g in left {
                        self.spare(now, id, g, SparedBecause::Detached);
                    }
                    // Of another group it may still be a worker.
                    let belongs = |g| self.members.lineage_master(&self.tree, id, g).is_some();
                    if self.group_ids().all(|g| left.contains(&g) || !belongs(g)) {
                        self.mark_left(id);
                    }
                }
                if !orphan.is_empty() && heir.is_empty() {
                    let how = |lost: &Lost| Loss { lost: lost.who.clone(), since: lost.since, stray: false };
                    let losses = orphan.iter().filter_map(|g| Some((*g, how(bereaved.losses.get(g)?))));
                    self.become_orphan(now, id, losses.collect(), who);
                }
                if bereaved.exec_session.is_some() {
                    // Of the groups that it inherits they have a master.
                    self.bereave_below(now, id, &bereaved);
                }
                // Of the groups whose worker it is not, it may be a master by what it looks like; and of one whose master was
                // recognised meanwhile it may be an orphan.
                if heir.is_empty() {
                    self.consider_as_master(now, id, who, false);
                    self.consider_as_orphan(now, id, who);
                }
            }
        }
    }

    /// Whether a process, or one in its lineage below its master, had made a session of its own and exec'd there when it lost that
    /// master: a daemon that was started on purpose.
    fn walked_off(&self, id: NodeId, g: GroupId, before: Ns) -> bool {
        let Some(master) = self.members.lineage_master(&self.tree, id, g) else { return false };
        let mut line = std::iter::once(id).chain(self.tree.lineage(id)).take_while(|&up| up != master);
        line.any(|up| self.tree[up].walked_off(before))
    }

    /// Whether it is still to be decided if it is an orphan of a group. What was live above it at the death counts: a
    /// master that appears there later did not start it, except an heir that did. Only where the adopter was not known is it looked for
    /// now.
    pub(super) fn still_bereaved(
        &self,
        id: NodeId,
        g: GroupId,
        since: Ns,
        adopter_was_unknown: bool,
    ) -> Result<bool, SparedBecause> {
        let key = self.tree[id].key();
        if !self.members.reigns(key).is_empty() || self.is_orphan_of(key, g) {
            return Ok(false);
        }
        let Some(started_by) = self.members.lineage_master(&self.tree, id, g) else {
            return Err(SparedBecause::Detached);
        };
        match self.members.live_master_above(&self.tree, id, g) {
            Some(_) if adopter_was_unknown => Err(SparedBecause::Adopted),
            // Its own parent, or whoever started it below the one that died, has inherited.
            Some(above) if above == started_by => Ok(false),
            // It ran a master then already, and could be none below another.
            Some(above)
                if self.tree[above].image().exec_at < since
                    && self.tree[above].has_execed()
                    && self.tree.lineage(id).any(|up| up == above) =>
            {
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// Whether somebody above it may still turn out to be a master. Then it is looked at again when that is decided, which
    /// takes no longer than a new process is given to take its title.
    pub(super) fn is_open_above(&mut self, now: Ns, id: NodeId) -> bool {
        let open = |up| self.bereaved.contains_key(&self.tree[up].key());
        if self.is_ancestry_known(id) && !self.tree.ancestors(id).any(open) {
            return false;
        }
        let key = self.tree[id].key();
        self.schedule.settle_later(key, now);
        true
    }

    pub(super) fn is_ancestry_known(&self, id: NodeId) -> bool {
        !self.tree.is_unsettled(id) && !self.tree.ancestors(id).any(|up| self.tree.is_unsettled(up))
    }

    /// Heir of the groups it matches, and no longer a worker of any other.
    pub(super) fn detach(&mut self, now: Ns, id: NodeId, bereaved: &Bereaved, heir_of: &[GroupId]) {
        let masters: Vec<_> =
            heir_of.iter().map(|&g| (g, self.members.lineage_master(&self.tree, id, g))).collect();
        if heir_of.is_empty() {
            for g in bereaved.groups() {
                self.spare(now, id, g, SparedBecause::Detached);
            }
        }
        self.mark_left(id);
        for (g, of) in masters {
            let lost = || bereaved.losses.get(&g).and_then(|lost| lost.who.clone());
            let of = of.map(|m| self.tree.view(m)).or_else(lost).unwrap_or_default();
            self.succeed(now, id, g, of, HeirBecause::Session);
        }
    }

    pub(super) fn mark_left(&mut self, id: NodeId) {
        self.tree.mark_left(id);
        self.remember();
    }

    /// Makes a process an orphan of these groups, besides those whose orphan it is. The first one that enforces acts on
    /// it, else the first.
    pub(super) fn become_orphan(
        &mut self,
        now: Ns,
        id: NodeId,
        losses: Vec<(GroupId, Loss)>,
        who: &Identity,
    ) {
        let key = self.tree[id].key();
        let mut groups: Vec<GroupId> = losses.iter().map(|(g, _)| *g).collect();
        for (g, Loss { lost, since, stray }) in losses.clone() {
            let (group, proc) = (self.group_name(g), self.tree.view(id));
            let lineage = self.pids_up_to_master(id, g);
            self.record(since, Event::Orphaned { group, proc, lost, lineage, stray });
        }
        if let Some(known) = self.orphans.get_mut(&key) {
            known.groups.append(&mut groups);
            if self.rules.groups[known.group].mode == Mode::Enforce {
                return;
            }
            groups.clone_from(&known.groups);
        }
        let acting = self.acting_group(&groups);
        // It acts already, or it is among the new ones.
        let Some((_, how)) = losses.into_iter().find(|(g, _)| *g == acting) else { return };
        let mut orphan = Orphan::new(key, acting, how.since, how.stray);
        orphan.groups = groups;
        let job = self.rules.groups[acting].stop.is_job(&who.cmdline());
        if job {
            orphan.phase = Phase::Spared;
            orphan.spared.insert(SparedBecause::JobChild);
        }
        if self.orphans.contains_key(&key) {
            self.lose_orphan(key);
        }
        self.orphans.insert(key, orphan);
        self.remember();
        if job {
            self.spare(now, id, acting, SparedBecause::JobChild);
        } else {
            self.resume_draining(now, key);
            self.schedule.set(Timer::Orphan(key), now);
        }
    }

    /// Which of an orphan's groups acts on it.
    pub(super) fn acting_group(&self, groups: &[GroupId]) -> GroupId {
        let enforcing = groups.iter().copied().find(|&g| self.rules.groups[g].mode == Mode::Enforce);
        enforcing.or(groups.first().copied()).unwrap_or_default()
    }

    /// /proc does not name a live parent yet. It is asked again, less and less often.
    fn ask_again(&mut self, now: Ns, id: NodeId) {
        let pause = self.tree.next_pause(id).clamp(PARENT_POLL, SECOND);
        let key = self.tree[id].key();
        self.schedule.set(Timer::Unsettled(key), now.saturating_add(pause));
    }

    fn look_again(&mut self, now: Ns, mut bereaved: Bereaved) {
        let at = bereaved.poll_again(now);
        self.leave_open(at, bereaved);
    }

    fn cannot_identify(&mut self, now: Ns, key: ProcKey, why: &str) {
        // Unknown counts as busy: without knowing who it is nothing is decided, and it is looked at again.
        if let Some(bereaved) = self.bereaved.remove(&key) {
            let first = bereaved.pause == 0;
            self.look_again(now, bereaved);
            if first {
                self.tell_unreadable(now, key, why);
            }
        }
    }

    pub(super) fn tell_unreadable(&mut self, now: Ns, key: ProcKey, why: &str) {
        let proc = self.tree.find(key).map(|id| self.tree.view(id));
        let what = format!("cannot read who process {} is, so nothing is done about it: {why}", key.tgid);
        self.record(now, Event::Error { what, proc });
    }

    /// What a master of a group is, or a worker whose master was seen, its strays may be.
    pub(super) fn note_likeness(&mut self, now: Ns, id: NodeId, who: &Identity) {
        let (rules, key) = (self.rules.clone(), self.tree[id].key());
        if !self.tree[id].tracked() {
            return;
        }
        for (g, group) in rules.groups.iter().enumerate() {
            let Some(worker) = &group.worker else { continue };
            let of_the_group = self.members.is_master(key, g)
                || self.members.lineage_master(&self.tree, id, g).is_some() && worker.matches(who);
            if of_the_group && self.groups[g].likenesses.add(who.uid, &who.exe) {
                self.remember();
                self.wake_orphans(now, g);
            }
        }
    }

    pub(super) fn spare(&mut self, now: Ns, id: NodeId, g: GroupId, because: SparedBecause) {
        let (group, proc) = (self.group_name(g), self.tree.view(id));
        self.record(now, Event::Spared { group, proc, because });
    }
}
