//! Births, new images and deaths: how they change the tree.

use super::argv::Argv;
use super::effect::Effect;
use super::ids::{Ns, ProcKey, SECOND};
use super::input::{Exec, Exit, Fork, Identity, Parent, Task};
use super::membership::GroupId;
use super::orphan::Orphan;
use super::records::{Event, ProcView, SparedBecause};
use super::rules::Signal;
use super::tree::{Exited, NodeId, Tree};
use super::{Core, View};

/// A parent's command line is read again when it forks, but not more often than this: masters get their title before
/// they fork workers, and shells fork all the time.
const RECHECK_PARENT: Ns = SECOND;

/// An exit status as records show it: code, or signal.
pub(super) fn code_and_signal(status: u32) -> (Option<i32>, Option<String>) {
    let byte = |n: u32| i32::try_from(n & 0xff).unwrap_or_default();
    if status == Exit::UNSEEN {
        return (None, None);
    }
    match status & 0x7f {
        0 => (Some(byte(status >> 8)), None),
        signal => (None, Some(Signal(byte(signal)).to_string())),
    }
}

impl Core {
    pub(super) fn on_fork(&mut self, now: Ns, fork: &Fork) {
        self.take_out_predecessor(now, fork.child);
        let Some(child) = self.tree.fork(fork) else { return };
        if self.view == View::Clear {
            // Its mother may be forgotten: dead, and of no group. Then it is no stray, but somebody's whom nobody watches.
            self.tree.mark_born_in_sight(child);
        }
        if self.tells_lineage_of(child) {
            let (proc, parent) = (self.tree.view(child), self.view_of_parent(child));
            self.record(fork.at, Event::Fork { proc, parent });
        }
        if fork.kernel_thread || self.rules.groups.is_empty() {
            return;
        }
        self.schedule.settle_later(fork.child, now);
        self.bereave_at_birth(now, fork.at, child);
        if self.view == View::Clear {
            self.recheck_parent(now, child);
        }
    }

    pub(super) fn on_exec(&mut self, now: Ns, exec: &Exec) {
        self.take_out_predecessor(now, exec.key);
        let Some(id) = self.tree.exec(exec) else { return };
        self.members.exec(exec.key, exec.at);
        if self.tells_lineage_of(id) {
            let (proc, parent) = (self.tree.view(id), self.view_of_parent(id));
            self.record(exec.at, Event::Exec { proc, parent });
        }
        if self.rules.groups.is_empty() {
            return;
        }
        self.schedule.settle_later(exec.key, now);
        if let Some(bereaved) = self.bereaved.get_mut(&exec.key) {
            bereaved.execed = true;
        }
        if let Some(orphan) = self.orphans.get_mut(&exec.key) {
            orphan.began_anew();
        }
        if self.view != View::Clear {
            return;
        }
        // What the record carries is enough to rule nearly every process out, and for most masters it is everything.
        if !exec.truncated && self.rules_out(&exec.argv) {
            return;
        }
        let who = Identity {
            at: exec.at,
            comm: exec.comm.clone(),
            argv: exec.argv.clone(),
            exe: exec.filename.clone(),
            uid: exec.uid,
            ppid: 0,
            session: exec.session,
            cgroups: Vec::new(),
        };
        let line = who.cmdline();
        let mut likely = self
            .rules
            .groups
            .iter()
            .filter(|g| exec.truncated || g.master.might_match_line(&who, &line))
            .peekable();
        if likely.peek().is_none() {
            return;
        }
        if exec.truncated || likely.any(|g| g.master.needs_proc()) {
            self.effects.push_back(Effect::Identify(exec.key));
        } else {
            self.consider(exec.at, id, &who);
            if !self.members.reigns(exec.key).is_empty() {
                // The path that it was exec'd by may be another name of its executable.
                self.effects.push_back(Effect::Identify(exec.key));
            }
        }
    }

    /// Whether no group has a master with such arguments.
    fn rules_out(&mut self, argv: &Argv) -> bool {
        self.line.clear();
        argv.line_into(&mut self.line);
        self.rules.rules_out(&self.line)
    }

    pub(super) fn on_exit(&mut self, now: Ns, exit: &Exit) {
        // Some kernels report an exit twice.
        let Some(node) = self.tree.find(exit.key) else {
            if self.view != View::Clear {
                self.tree.note_death(exit);
            }
            return;
        };
        if let Some(open) = self.bereaved.remove(&exit.key) {
            self.decide_the_dead(exit, node, open);
        }
        let parent = self.tells_lineage_of(node).then(|| self.view_of_parent(node));
        let exited = self.tree.exit(node, exit);
        if let Some(parent) = parent {
            let (proc, (code, signal)) = (self.tree.view_of(&exited), code_and_signal(exit.status));
            self.record(exit.at, Event::Exit { proc, parent, code, signal });
        }
        self.tell_reparents(exit.at, &exited);
        self.forget_process(exit.key);
        self.interrupt_idleness(exit.at, &exited);
        let masterships = self.members.reigns(exit.key);
        for &g in &masterships {
            self.members.dethrone(exit.key, g);
            self.remember_eventually();
        }
        self.note_parting(exit, &exited);
        let before = self.bereaved.len();
        if self.view != View::Clear || exit.status == Exit::UNSEEN {
            self.tree.miss(&exited);
        }
        let namespace_died = exited.namespace_dies || self.tree[node].is_doomed();
        if namespace_died {
            self.doom(&exited);
        } else if self.tree[node].tracked() && self.view != View::Blind {
            self.bereave(now, exit, &exited, &masterships);
        }
        if self.view == View::Clear {
            self.recheck_strays(&exited);
        }
        for &g in &masterships {
            let workers = match exit.status {
                Exit::UNSEEN => self.left_behind(g, node),
                _ => self.expected_orphans(g, before),
            };
            let (group, proc) = (self.group_name(g), self.tree.view_of(&exited));
            let (code, signal) = code_and_signal(exit.status);
            let lost = Event::MasterLost { group, proc, workers, code, signal, namespace_died };
            self.record(exit.at, lost);
        }
        self.close_orphan(exit.at, &exited);
        self.tree.bury(&exited);
    }

    pub(super) fn on_snapshot(&mut self, now: Ns, took_ns: Ns, tasks: &[Task]) {
        let first = self.view == View::Blind;
        for task in tasks {
            self.take_out_predecessor(now, task.key);
            if let Parent::Known(parent) = task.parent {
                self.take_out_predecessor(now, parent);
            }
        }
        let report = self.tree.begin_merge(tasks);
        if first {
            self.recall(now);
        }
        self.view = View::Merging { took_ns, first, added: report.added, removed: 0 };
    }

    /// A pid has a new owner: the old one's death was lost, or is still to be told.
    fn take_out_predecessor(&mut self, now: Ns, key: ProcKey) {
        if let Some(older) = self.tree.predecessor(key) {
            self.on_exit(now, &Tree::unseen_exit(key.start_ns, older));
        }
    }

    pub(super) fn on_merged(&mut self, now: Ns, at: Ns) {
        let unseen = self.tree.doubtful();
        let View::Merging { took_ns, first, added, .. } = self.view else { return };
        self.view = View::Clear;
        // From here on its pid may be anybody's.
        self.former_agent = None;
        self.tell_gone(now);
        for key in &unseen {
            self.on_exit(now, &Tree::unseen_exit(at, *key));
        }
        // What an orphan did meanwhile nobody knows.
        for orphan in self.orphans.values_mut() {
            orphan.was_busy(at);
        }
        let took_us = took_ns / 1_000;
        if first {
            let processes = self.tree.live_count();
            self.record(at, Event::Snapshot { processes, took_us });
        } else {
            self.record(at, Event::Resynced { added, removed: unseen.len(), took_us });
        }
        self.begin_survey();
    }

    pub(super) fn on_lost(&mut self, at: Ns, count: u64) {
        self.record(at, Event::EventsLost { count });
        // One dump for all that was lost until it is taken.
        if self.view != View::Lossy {
            self.view = View::Lossy;
            self.effects.push_back(Effect::Resync);
        }
    }

    /// An orphan whose child has just gone was busy until now, whether or not a sample ever showed that child.
    fn interrupt_idleness(&mut self, at: Ns, exited: &Exited) {
        let Some(parent) = exited.parent.map(|p| self.tree[p].key()) else { return };
        let Some(orphan) = self.orphans.get_mut(&parent) else { return };
        let comm = self.tree[exited.node].comm();
        if !self.rules.groups[orphan.group].idle.children.iter().any(|g| g.is_match(comm.as_str())) {
            orphan.was_busy(at);
        }
    }

    /// A worker whose intermediate died and whom a live master still has above it.
    pub(super) fn tell_adopted(&mut self, at: Ns, id: NodeId, exited: &Exited, masterships: &[GroupId]) {
        if exited.adopter.is_none() || self.orphans.contains_key(&self.tree[id].key()) {
            return;
        }
        let key = self.tree[id].key();
        let held: Vec<GroupId> = self
            .group_ids()
            .filter(|g| !masterships.contains(g) && !self.members.is_master(key, *g))
            .filter(|&g| self.members.lineage_master(&self.tree, id, g).is_some())
            .filter(|&g| self.members.live_master_above(&self.tree, id, g).is_some())
            .filter(|&g| self.rules.groups[g].worker.as_ref().is_none_or(|w| w.might_match(&self.known(id))))
            .collect();
        for g in held {
            let (group, proc) = (self.group_name(g), self.tree.view(id));
            self.record(at, Event::Spared { group, proc, because: SparedBecause::Adopted });
        }
    }

    fn tell_reparents(&mut self, at: Ns, exited: &Exited) {
        let Some(adopter) = exited.adopter else { return };
        for &child in &exited.moved {
            if self.tells_lineage_of(child) {
                let (proc, old_parent) = (self.tree.view(child), self.tree.view_of(exited));
                let new_parent = self.tree.view(adopter);
                self.record(at, Event::Reparent { proc, old_parent, new_parent });
            }
        }
    }

    fn recheck_parent(&mut self, now: Ns, child: NodeId) {
        let Some(parent) = self.tree.parent(child) else { return };
        let node = &self.tree[parent];
        let due = node.checked_at == 0 || now.saturating_sub(node.checked_at) >= RECHECK_PARENT;
        if due && !node.is_kernel_thread() && !node.is_asked_about() {
            let key = node.key();
            self.tree.note_asked(parent, true);
            self.effects.push_back(Effect::Identify(key));
        }
    }

    fn view_of_parent(&self, id: NodeId) -> ProcView {
        self.tree.parent(id).map(|p| self.tree.view(p)).unwrap_or_default()
    }

    /// What is known of a process without asking /proc.
    pub(super) fn known(&self, id: NodeId) -> Identity {
        let node = &self.tree[id];
        Identity {
            at: 0,
            comm: node.comm().clone(),
            argv: node.argv().clone(),
            exe: std::sync::Arc::from(""),
            uid: node.uid(),
            ppid: 0,
            session: node.image().session,
            cgroups: Vec::new(),
        }
    }

    /// The orphan that has just died, if it was one.
    fn close_orphan(&mut self, at: Ns, exited: &Exited) {
        let Some(orphan) = self.lose_orphan(self.tree[exited.node].key()) else { return };
        let (group, proc) = (self.group_name(orphan.group), self.tree.view_of(exited));
        self.record(at, Orphan::end(group, proc, orphan.signalled, orphan.since, at));
    }
}
