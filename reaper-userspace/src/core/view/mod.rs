//! What the core knows, for whoever asks: every process with its role in every group (here), the orphans and what comes next
//! (`orphans`, `next`), one process explained in sentences (`explain`).
//!
//! Read-only: looking changes nothing, and what is said about the next step comes from the very functions that decide it.
//! Texts from processes are in it as they are; whoever prints them escapes them.

mod explain;
mod next;
mod orphans;
pub mod words;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Core;
use super::ids::{Ns, ProcKey};
use super::input::Comm;
use super::membership::GroupId;
use super::records::{ProcView, SparedBecause};
use super::rules::Signal;
use super::tree::NodeId;

pub use explain::{Explanation, InGroup, Look};
pub use next::{Does, Next};
pub use orphans::OrphanView;

/// So much of a lineage is shown: who forks a chain of a hundred thousand must not make the answer grow with its square.
const LINEAGE_SHOWN: usize = 64;

/// What a process is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A master.
    Master,
    /// A master that has succeeded another.
    Heir,
    /// It has a live master above it.
    Worker,
    /// Below a master, and none of the workers that the group names.
    Member,
    /// A worker without a live master above it.
    Orphan,
    /// The same, orphaned before anybody saw whose it was.
    Stray,
    /// It has lost its master; whether it is an orphan or an heir is not decided yet.
    Undecided,
    /// A worker or an orphan that somebody has asked to stop.
    Draining,
    /// It is a job itself, or the work of an orphan.
    JobChild,
    /// It left on purpose, as daemons do.
    Detached,
}

impl core::fmt::Display for Role {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Master => "master",
            Self::Heir => "heir",
            Self::Worker => "worker",
            Self::Member => "member",
            Self::Orphan => "orphan",
            Self::Stray => "stray",
            Self::Undecided => "undecided",
            Self::Draining => "draining",
            Self::JobChild => "job child",
            Self::Detached => "detached",
        })
    }
}

/// A role in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The group's name.
    pub group: String,
    /// What it is there; of a dead process, what it was.
    pub role: Role,
}

/// One of those that a process descends from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Its pid.
    pub pid: u32,
    /// `CLOCK_BOOTTIME` of its start.
    pub start_ns: Ns,
    /// Its thread name.
    pub comm: Comm,
    /// Whether it still lives.
    pub alive: bool,
}

/// One process of the tree, alive or remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Who. The `ppid` of a dead one is 0.
    #[serde(flatten)]
    pub proc: ProcView,
    /// False for a tombstone: a dead process that a live one descends from.
    pub alive: bool,
    /// A kernel thread.
    pub kernel_thread: bool,
    /// Its roles, in the order of the configuration.
    pub roles: Vec<Place>,
    /// Parents at birth, nearest first, of those that belong to groups; at most 64.
    pub lineage: Vec<Ancestor>,
}

/// Which processes are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// Only who has a role in this group, with the ancestors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Every process of the host.
    #[serde(default)]
    pub all: bool,
}

impl Core {
    /// The processes that are asked for, ancestors included, by age. `None` if there is no such group.
    pub fn rows(&self, which: &Which) -> Option<Vec<Row>> {
        let group = match &which.group {
            Some(name) => Some(self.rules.groups.iter().position(|g| g.name == *name)?),
            None => None,
        };
        let mut shown: Vec<NodeId> = if which.all && group.is_none() {
            self.tree.live().collect()
        } else {
            self.with_ancestors(group)
        };
        let dead: BTreeSet<NodeId> = shown
            .iter()
            .flat_map(|&id| self.lineage_shown(id))
            .filter(|&up| !self.tree[up].is_live())
            .collect();
        shown.extend(dead);
        shown.sort_unstable_by_key(|&id| {
            let ProcKey { tgid, start_ns } = self.tree[id].key();
            (start_ns, tgid)
        });
        Some(shown.into_iter().map(|id| self.row(id)).collect())
    }

    /// Whoever is alive and has a role in this group, or in any, and everybody above.
    fn with_ancestors(&self, group: Option<GroupId>) -> Vec<NodeId> {
        let mut shown = BTreeSet::new();
        for id in self.tree.live() {
            let roles = self.roles(id);
            if roles.iter().any(|(g, _)| group.is_none_or(|wanted| wanted == *g)) {
                let mut next = Some(id);
                while let Some(id) = next.filter(|&id| shown.insert(id)) {
                    next = self.tree.parent(id);
                }
            }
        }
        shown.into_iter().collect()
    }

    fn row(&self, id: NodeId) -> Row {
        let node = &self.tree[id];
        Row {
            proc: self.tree.view(id),
            alive: node.is_live(),
            kernel_thread: node.is_kernel_thread(),
            roles: self.places(id),
            lineage: self.lineage_shown(id).map(|up| self.ancestor(up)).collect(),
        }
    }

    fn places(&self, id: NodeId) -> Vec<Place> {
        let place = |(g, role)| Place { group: self.group_name(g), role };
        self.roles(id).into_iter().map(place).collect()
    }

    fn ancestor(&self, id: NodeId) -> Ancestor {
        let node = &self.tree[id];
        let ProcKey { tgid, start_ns } = node.key();
        Ancestor { pid: tgid, start_ns, comm: node.comm().clone(), alive: node.is_live() }
    }

    /// Whoever belongs to no group has a lineage too, but nobody asks for it, and its dead are not kept.
    fn lineage_shown(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let length = if self.tree[id].tracked() { LINEAGE_SHOWN } else { 0 };
        self.tree.lineage(id).take(length)
    }

    /// What a process is, group by group.
    fn roles(&self, id: NodeId) -> Vec<(GroupId, Role)> {
        let key = self.tree[id].key();
        let orphan = self.orphans.get(&key);
        if !self.tree[id].tracked() && orphan.is_none() {
            return Vec::new();
        }
        let mut groups: BTreeSet<GroupId> = self.members.ever(key).collect();
        groups.extend(orphan.iter().flat_map(|o| &o.groups));
        groups.extend(self.bereaved.get(&key).iter().flat_map(|b| b.groups()));
        groups.extend(self.tree.lineage(id).flat_map(|up| self.members.ever(self.tree[up].key())));
        groups.into_iter().filter_map(|g| Some((g, self.role(id, g)?))).collect()
    }

    fn role(&self, id: NodeId, g: GroupId) -> Option<Role> {
        let (node, group) = (&self.tree[id], &self.rules.groups[g]);
        let key = node.key();
        if self.members.is_master(key, g) || (!node.is_live() && self.members.ever(key).any(|of| of == g)) {
            return Some(if self.members.is_heir(key, g) { Role::Heir } else { Role::Master });
        }
        if let Some(orphan) = self.orphans.get(&key).filter(|o| o.groups.contains(&g)) {
            return Some(match orphan {
                o if o.spared.contains(&SparedBecause::JobChild) => Role::JobChild,
                o if o.draining => Role::Draining,
                o if o.stray => Role::Stray,
                _ => Role::Orphan,
            });
        }
        if self.bereaved.get(&key).is_some_and(|b| b.is_of(g)) {
            return Some(Role::Undecided);
        }
        if self.members.lineage_master(&self.tree, id, g).is_none() {
            let left = node.has_left() && node.is_live() && self.members.reigns(key).is_empty();
            return left.then_some(Role::Detached);
        }
        let who = self.known(id);
        let is_worker = group.worker.as_ref().is_none_or(|w| w.might_match(&who));
        let is_job = || group.stop.is_job(&who.cmdline());
        Some(if !is_worker {
            Role::Member
        } else if self.is_job_of_an_orphan(id, g) || is_job() {
            Role::JobChild
        } else if self.asked_to_stop(key, g).is_some() {
            Role::Draining
        } else {
            Role::Worker
        })
    }

    /// The stop signal of the group that somebody has sent to a process, and who.
    fn asked_to_stop(&self, key: ProcKey, g: GroupId) -> Option<(Signal, u32)> {
        let stops = &self.rules.groups[g].stop.signals;
        let mut asked = self.asked.get(&key)?.iter().map(|(&signal, &sender)| (Signal(signal), sender));
        asked.find(|(signal, _)| stops.contains(signal))
    }
}
