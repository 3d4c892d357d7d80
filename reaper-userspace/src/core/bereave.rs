//! Whom a death leaves without a master.

use std::collections::BTreeMap;

use super::Core;
use super::bereaved::{Bereaved, Lost};
use super::effect::Effect;
use super::ids::{Ns, ProcKey};
use super::input::Exit;
use super::membership::GroupId;
use super::orphan::Phase;
use super::schedule::Timer;
use super::tree::{Exited, NodeId};

impl Core {
    /// CLONE_PARENT gave it a parent that had passed the exit tracepoint and not let go of its children yet: it is bereaved
    /// with them. Or its birth is told so late that its parent has been seen to be no master any more: it was its worker.
    pub(super) fn bereave_at_birth(&mut self, now: Ns, at: Ns, child: NodeId) {
        let Some(mother) = self.tree.lineage(child).next() else { return };
        let (dead, parent) = (!self.tree[mother].is_live(), self.tree[mother].key());
        let key = self.tree[child].key();
        let mut groups = self.masterless_in(child);
        groups.retain(|&g| dead || self.members.was_master_at(at, parent, g));
        if !groups.is_empty() {
            let lost = Lost::above(Some(self.tree.view(mother)), at);
            self.leave_open(now, Bereaved::new(key, lost.in_each(&groups), false));
        }
    }

    /// Everybody below `exited` who has now no master left.
    pub(super) fn bereave(&mut self, now: Ns, exit: &Exit, exited: &Exited, masterships: &[GroupId]) {
        // How programs daemonise: a clean exit that leaves one child, of a parent that never had two alike.
        let dead = &self.tree[exited.node];
        let alone = exit.status == 0 && exited.moved.len() <= 1 && !dead.had_two_of_its_image();
        let exec_session = alone.then_some(dead.image().session);
        if let (Some(session), []) = (exec_session, &exited.moved[..]) {
            self.left_one_unseen(exit.at, exited.node, session);
        }
        let lost = self.tree.view_of(exited);
        let loss = |g, direct| Lost {
            who: Some(lost.clone()),
            since: exit.at,
            of_master: masterships.contains(&g),
            direct,
        };
        let mut below: Vec<(NodeId, bool)> = exited.moved.iter().map(|&c| (c, true)).collect();
        while let Some((id, direct)) = below.pop() {
            let key = self.tree[id].key();
            let groups = self.masterless_in(id);
            if let Some(open) = self.bereaved.get_mut(&key) {
                // It lost another master before it was decided what became of the first.
                groups.into_iter().for_each(|g| open.lose_also(g, &loss(g, direct)));
                if let Some(session) = exec_session.filter(|_| direct) {
                    open.may_leave(exit.at, session);
                }
                below.extend(self.tree.children(id).map(|c| (c, false)));
                continue;
            }
            if groups.is_empty() {
                if let Some(session) = exec_session.filter(|_| direct && exited.adopter.is_some()) {
                    self.adopted.insert(key, session);
                    self.remember();
                }
                if direct {
                    self.tell_adopted(exit.at, id, exited, masterships);
                }
                below.extend(self.tree.children(id).map(|c| (c, false)));
                continue;
            }
            let losses = groups.into_iter().map(|g| (g, loss(g, direct))).collect();
            let bereaved = Bereaved {
                exec_session: exec_session.filter(|_| direct),
                adopter_was_unknown: exited.adopter.is_none(),
                ..Bereaved::new(key, losses, self.tree[id].has_execed())
            };
            // While it may still turn out to be a master of a group, those below it have not lost theirs of that one
            // (`masterless_in`); but they may have lost those of others.
            below.extend(self.tree.children(id).map(|c| (c, false)));
            self.leave_open(now, bereaved);
        }
    }

    /// The one child of a parent that left as those of daemons do may be one that it has adopted, and nobody knows of that yet.
    fn left_one_unseen(&mut self, at: Ns, dead: NodeId, session: u32) {
        let unseen: Vec<ProcKey> = self.tree.homeless_of(dead).map(|id| self.tree[id].key()).collect();
        for key in unseen {
            if let Some(open) = self.bereaved.get_mut(&key) {
                open.may_leave(at, session);
            }
        }
    }

    /// Pid 1 of a pid namespace has died, and the kernel is killing everybody in it: nobody there is orphaned, and nobody
    /// signalled, in the moments that are left.
    pub(super) fn doom(&mut self, exited: &Exited) {
        for &child in &exited.moved {
            for id in std::iter::once(child).chain(self.tree.descendants(child)) {
                self.tree.mark_doomed(id);
                let key = self.tree[id].key();
                self.bereaved.remove(&key);
                self.schedule.cancel(Timer::Bereaved(key));
                self.schedule.cancel(Timer::Orphan(key));
                if let Some(orphan) = self.orphans.get_mut(&key) {
                    orphan.phase = Phase::Spared;
                }
            }
        }
    }

    /// Below somebody whose standing was never known, there may be workers that look orphaned from now on.
    pub(super) fn recheck_strays(&mut self, exited: &Exited) {
        if self.rules.groups.iter().all(|g| g.worker.is_none()) {
            return;
        }
        for &child in &exited.moved {
            for id in std::iter::once(child).chain(self.tree.descendants(child)) {
                let node = &self.tree[id];
                if node.is_lineage_unknown() && !node.is_kernel_thread() {
                    self.effects.push_back(Effect::Identify(node.key()));
                }
            }
        }
    }

    /// Everybody below `id`, which is an orphan after all: what [`Self::bereave`] left open.
    pub(super) fn bereave_below(&mut self, now: Ns, id: NodeId, cause: &Bereaved) {
        for below in self.tree.descendants(id) {
            let key = self.tree[below].key();
            let mut losses = BTreeMap::new();
            // Of another group it may be the job of one that is an orphan already.
            for g in self.masterless_in(below) {
                let Some(lost) = cause.losses.get(&g) else { continue };
                // Who was born since is the work of whoever is an orphan above it.
                if key.start_ns <= lost.since || !self.is_job_of_an_orphan(below, g) {
                    let since = lost.since.max(key.start_ns);
                    losses.insert(g, Lost { since, direct: false, ..lost.clone() });
                }
            }
            let Some(since) = losses.values().map(|lost| lost.since).max() else { continue };
            if let Some(open) = self.bereaved.get_mut(&key) {
                losses.iter().for_each(|(&g, lost)| open.lose_also(g, lost));
                continue;
            }
            let execed = self.tree[below].has_execed();
            let bereaved = Bereaved { key, losses, since, exec_session: None, execed, ..cause.clone() };
            self.leave_open(now, bereaved);
        }
    }

    /// How many of the newly bereaved are workers of a group, as far as is known before /proc has been read.
    pub(super) fn expected_orphans(&self, group: GroupId, before: usize) -> usize {
        if self.bereaved.len() == before {
            return 0;
        }
        let of_group = |b: &&Bereaved| b.losses.get(&group).is_some_and(|lost| lost.of_master);
        let is_worker = |b: &&Bereaved| {
            let worker = self.rules.groups[group].worker.as_ref();
            let id = self.tree.find(b.key);
            b.exec_session.is_none()
                && id.is_some_and(|id| worker.is_none_or(|w| w.might_match(&self.known(id))))
        };
        self.bereaved.values().filter(of_group).filter(is_worker).count()
    }

    /// How many workers a master left that died unseen: a dump has given them to their adopters before.
    pub(super) fn left_behind(&self, group: GroupId, master: NodeId) -> usize {
        let worker = self.rules.groups[group].worker.as_ref();
        let is_left = |&id: &NodeId| {
            self.members.lineage_master(&self.tree, id, group) == Some(master)
                && worker.is_none_or(|w| w.might_match(&self.known(id)))
                && self.masterless_in(id).contains(&group)
        };
        self.tree.live().filter(is_left).count()
    }

    /// What became of it is to be found out from `at` on.
    pub(super) fn leave_open(&mut self, at: Ns, bereaved: Bereaved) {
        let key = bereaved.key;
        self.bereaved.insert(key, bereaved);
        self.schedule.set(Timer::Bereaved(key), at);
    }
}
