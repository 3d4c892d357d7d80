//! Who becomes a master, succeeds one, or is one no more.
//!
//! Not here: who loses a master by that (`fates`), and whose worker somebody is (`membership`).

use std::collections::BTreeMap;

use super::bereaved::{Bereaved, Lost};
use super::ids::{Ns, ProcKey};
use super::input::Identity;
use super::membership::GroupId;
use super::records::{Event, HeirBecause, ProcView};
use super::schedule::{SETTLE, Timer};
use super::tree::NodeId;
use super::{Core, View};

impl Core {
    /// What exec said of a process that may be a master; nothing else has to be known.
    pub(super) fn consider(&mut self, now: Ns, id: NodeId, who: &Identity) {
        self.consider_as_master(now, id, who, false);
    }

    /// Makes a process a master of the groups whose matcher it fits, and ends masterships that do not fit any more.
    pub(super) fn consider_as_master(&mut self, now: Ns, id: NodeId, who: &Identity, settled: bool) {
        let key = self.tree[id].key();
        if self.tree[id].is_kernel_thread() || self.bereaved.contains_key(&key) {
            return;
        }
        let (rules, line) = (self.rules.clone(), who.cmdline());
        if rules.rules_out(&line) && self.members.reigns(key).is_empty() {
            return;
        }
        for (g, group) in rules.groups.iter().enumerate() {
            let fits = group.master.matches_line(who, &line);
            if !self.members.is_master(key, g) {
                if fits {
                    self.consider_for_throne(now, id, g);
                }
                continue;
            }
            // A title is rewritten in place and may be read half way: only who is no master at a second look either, a
            // while later, has become something else.
            if !fits && (!settled || who.argv.is_empty() || self.view != View::Clear) {
                continue;
            }
            match self.members.doubt(now, &self.tree, id, g, fits) {
                Some(since) if now.saturating_sub(since) >= SETTLE => self.abdicate(now, id, g),
                Some(_) => {
                    self.schedule.settle_later(key, now);
                    self.remember();
                }
                None => {}
            }
        }
    }

    fn consider_for_throne(&mut self, now: Ns, id: NodeId, g: GroupId) {
        let key = self.tree[id].key();
        let orphan = self.is_orphan_of(key, g);
        // An orphan that exec'd a master has succeeded the one it lost, whoever above it has done so too. In doubt a process is an
        // heir. The title alone says nothing: an orphan, and what it forks, may have been born with it.
        let execed = self.tree[id].has_execed();
        let below_one = !orphan && !execed && self.is_below_an_orphan(id, g);
        if below_one && self.is_open_above(now, id) {
            return;
        }
        let free = match orphan {
            true => execed,
            false => !below_one && self.members.live_master_above(&self.tree, id, g).is_none(),
        };
        if !free || !self.is_ancestry_known(id) {
            return;
        }
        let of = self.members.lineage_master(&self.tree, id, g);
        match of.filter(|_| orphan) {
            Some(of) => {
                let of = self.tree.view(of);
                self.succeed(now, id, g, of, HeirBecause::Exec);
            }
            None => {
                self.enthrone(id, g);
                let (group, proc) = (self.group_name(g), self.tree.view(id));
                self.record(now, Event::MasterFound { group, proc });
                self.arm(now, g);
            }
        }
    }

    /// It runs something else now, or took another title: its workers have lost their master.
    fn abdicate(&mut self, now: Ns, id: NodeId, g: GroupId) {
        let proc = self.tree.view(id);
        self.members.abdicate(self.tree[id].key(), g);
        self.remember();
        let below = self.tree.descendants(id);
        let lost: Vec<NodeId> = below.into_iter().filter(|&b| self.masterless_in(b).contains(&g)).collect();
        self.is_worker_again(now, id, g);
        let group = self.group_name(g);
        let workers = lost.len();
        let master_lost = Event::MasterLost {
            group,
            proc: proc.clone(),
            workers,
            code: None,
            signal: None,
            namespace_died: false,
        };
        self.record(now, master_lost);
        for id in lost {
            let key = self.tree[id].key();
            if let Some(open) = self.bereaved.get_mut(&key) {
                open.lose_also(g, &Lost::above(Some(proc.clone()), now));
                continue;
            }
            let execed = self.tree[id].has_execed();
            let lost = Lost::above(Some(proc.clone()), now);
            self.leave_open(now, Bereaved::new(key, lost.in_each(&[g]), execed));
        }
    }

    /// It was a master, and so nobody's worker. Whose it was before, and has lost its master meanwhile, it is again.
    fn is_worker_again(&mut self, now: Ns, id: NodeId, was_master_of: GroupId) {
        let mut groups = self.masterless_in(id);
        // Where workers are named, its title says whether it is one.
        groups.retain(|&g| g != was_master_of && self.rules.groups[g].worker.is_none());
        if groups.is_empty() {
            return;
        }
        let key = self.tree[id].key();
        let losses = Lost::above(None, now).in_each(&groups);
        self.leave_open(now, Bereaved::new(key, losses, self.tree[id].has_execed()));
    }

    /// Somebody above a process who looks like a master of one of these groups and is none: as long as there was one above it, it
    /// could not become one. So it is looked at before those below it.
    pub(super) fn may_succeed_above(&self, id: NodeId, losses: &BTreeMap<GroupId, Lost>) -> Option<ProcKey> {
        let may = |up: NodeId, g: GroupId, since: Ns| {
            let key = self.tree[up].key();
            let looked_at = self.tree[up].checked_at >= since;
            !looked_at
                && !self.members.is_master(key, g)
                && (!self.is_orphan_of(key, g) || self.tree[up].has_execed())
                && self.rules.groups[g].master.might_match(&self.known(up))
        };
        let up =
            self.tree.ancestors(id).find(|&up| losses.iter().any(|(&g, lost)| may(up, g, lost.since)))?;
        Some(self.tree[up].key())
    }

    pub(super) fn succeed(&mut self, now: Ns, id: NodeId, g: GroupId, of: ProcView, because: HeirBecause) {
        self.enthrone(id, g);
        self.members.mark_heir(self.tree[id].key(), g);
        let (group, proc) = (self.group_name(g), self.tree.view(id));
        self.record(now, Event::Heir { group, proc, of, because });
        self.arm(now, g);
    }

    /// Whoever is a master is not stopped as the orphan of any group.
    fn enthrone(&mut self, id: NodeId, g: GroupId) {
        let key = self.tree[id].key();
        self.lose_orphan(key);
        self.schedule.cancel(Timer::Orphan(key));
        self.members.enthrone(&mut self.tree, id, g);
        self.remember();
    }

    /// If a group's worker matcher also matches its master matcher, say so when it happens.
    pub(super) fn say_overlap(&mut self, now: Ns, id: NodeId, g: GroupId, who: &Identity) {
        let rules = &self.rules.groups[g];
        if rules.worker.as_ref().is_some_and(|w| w.matches(who)) && !self.groups[g].overlap_said {
            self.groups[g].overlap_said = true;
            let what = format!(
                "group {}: process {} matches the master matcher and the worker matcher; it is taken for an heir and is \
                 never signalled. Make the master's patterns narrower.",
                rules.name,
                self.tree[id].key().tgid
            );
            let proc = Some(self.tree.view(id));
            self.record(now, Event::Error { what, proc });
        }
    }

    fn arm(&mut self, now: Ns, g: GroupId) {
        if !std::mem::replace(&mut self.groups[g].armed, true) {
            self.remember();
        }
        // Strays of an unarmed group and orphans that wait for a new master are looked at again.
        self.wake_orphans(now, g);
    }
}
