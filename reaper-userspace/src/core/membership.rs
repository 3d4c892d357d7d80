//! Which processes are masters of which groups, and whose worker a process is.
//!
//! Invariant: a master is remembered, dead or alive, as long as the tree remembers the process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{Ns, ProcKey};
use super::tree::{NodeId, Tree};

/// Index of a group in the rules.
pub type GroupId = usize;

/// A process that is or was a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reign {
    /// When the image was exec'd in which it became a master: what it forked before that, it forked as something else.
    image_since: Ns,
    /// When the image was exec'd in which it was none any more: what it forks after that is not its worker.
    image_until: Ns,
    /// Still alive, and still a master.
    pub reigning: bool,
    /// It has succeeded another one.
    #[serde(default)]
    heir: bool,
    /// Since when it has not looked like one.
    doubted_since: Option<Ns>,
}

/// All masters.
#[derive(Debug, Default)]
pub struct Membership {
    masters: BTreeMap<(ProcKey, GroupId), Reign>,
}

impl Membership {
    /// Makes a process a master.
    pub fn enthrone(&mut self, tree: &mut Tree, id: NodeId, group: GroupId) {
        let node = &tree[id];
        let master = Reign {
            image_since: node.image().exec_at,
            image_until: Ns::MAX,
            reigning: true,
            heir: false,
            doubted_since: None,
        };
        self.masters.insert((node.key(), group), master);
        tree.track(id);
    }

    /// What an earlier agent knew of a process, which may be dead by now.
    pub fn restore(&mut self, tree: &mut Tree, id: NodeId, group: GroupId, reign: Reign, alive: bool) {
        let reign = Reign { reigning: reign.reigning && alive, ..reign };
        self.masters.insert((tree[id].key(), group), reign);
        tree.track(id);
    }

    /// Every group that a process is or was a master of.
    pub fn reigns_of(&self, key: ProcKey) -> impl Iterator<Item = (GroupId, Reign)> {
        self.of(key).map(|(group, reign)| (group, *reign))
    }

    /// It has succeeded another master.
    pub fn mark_heir(&mut self, key: ProcKey, group: GroupId) {
        if let Some(master) = self.masters.get_mut(&(key, group)) {
            master.heir = true;
        }
    }

    /// Whether a process is or was a master by succession.
    pub fn is_heir(&self, key: ProcKey, group: GroupId) -> bool {
        self.masters.get(&(key, group)).is_some_and(|m| m.heir)
    }

    /// The groups that a process is or was a master of.
    pub fn ever(&self, key: ProcKey) -> impl Iterator<Item = GroupId> {
        self.of(key).map(|(g, _)| g)
    }

    /// Ends a mastership. Returns whether there was one.
    pub fn dethrone(&mut self, key: ProcKey, group: GroupId) -> bool {
        self.masters.get_mut(&(key, group)).is_some_and(|m| std::mem::replace(&mut m.reigning, false))
    }

    /// It has looked like no master for so long that it is none. Since the first such look it has forked no workers, in whichever
    /// image.
    pub fn abdicate(&mut self, key: ProcKey, group: GroupId) {
        if let Some(master) = self.masters.get_mut(&(key, group)) {
            master.reigning = false;
            master.image_until = master.image_until.min(master.doubted_since.unwrap_or(Ns::MAX));
        }
    }

    /// A master was looked at, and looks like one or not. Returns since when it has not. What it forks in another image
    /// is not its worker from the first such look on, whether it abdicates or dies.
    pub fn doubt(&mut self, now: Ns, tree: &Tree, id: NodeId, group: GroupId, fits: bool) -> Option<Ns> {
        let master = self.masters.get_mut(&(tree[id].key(), group))?;
        let exec_at = tree[id].image().exec_at;
        master.doubted_since = if fits { None } else { master.doubted_since.or(Some(now)) };
        let elsewhere = !fits && exec_at > master.image_since;
        master.image_until = if elsewhere { master.image_until.min(exec_at) } else { Ns::MAX };
        master.doubted_since
    }

    /// It runs another image from now on. Of what it was a master once, as far as it was none any more before anybody was told,
    /// what it forks in the new one is not its worker.
    pub fn exec(&mut self, key: ProcKey, at: Ns) {
        for (_, master) in self.masters.range_mut((key, 0)..=(key, GroupId::MAX)) {
            if !master.reigning {
                master.image_until = master.image_until.min(at);
            }
        }
    }

    /// The groups that a process is a master of now.
    pub fn reigns(&self, key: ProcKey) -> Vec<GroupId> {
        self.of(key).filter(|(_, m)| m.reigning).map(|(g, _)| g).collect()
    }

    /// Whether a process is a master of a group now.
    pub fn is_master(&self, key: ProcKey, group: GroupId) -> bool {
        self.masters.get(&(key, group)).is_some_and(|m| m.reigning)
    }

    /// Whether a process that is no master any more still looked like one at `at`.
    pub fn was_master_at(&self, at: Ns, key: ProcKey, group: GroupId) -> bool {
        let of = self.masters.get(&(key, group));
        of.is_some_and(|m| !m.reigning && m.doubted_since.is_some_and(|since| at < since))
    }

    /// How many masters a group has now.
    pub fn count(&self, group: GroupId) -> usize {
        self.masters.iter().filter(|((_, g), m)| *g == group && m.reigning).count()
    }

    /// Every master now, with the group, by pid.
    pub fn reigning(&self) -> impl Iterator<Item = (ProcKey, GroupId)> {
        self.masters.iter().filter(|(_, m)| m.reigning).map(|(&of, _)| of)
    }

    /// The nearest master of the group in a process's lineage, dead or alive: the one whose worker it is. None for a
    /// process that left, or whose ancestor did.
    pub fn lineage_master(&self, tree: &Tree, id: NodeId, group: GroupId) -> Option<NodeId> {
        if !tree[id].tracked() {
            return None;
        }
        let mut below = id;
        for up in tree.lineage(id) {
            if tree[below].has_left() {
                return None;
            }
            let born = tree[below].line_since();
            let of = self.masters.get(&(tree[up].key(), group));
            if of.is_some_and(|m| m.image_since <= born && born < m.image_until) {
                return Some(up);
            }
            below = up;
        }
        None
    }

    /// The nearest live master of the group above a process in the kernel's sense.
    pub fn live_master_above(&self, tree: &Tree, id: NodeId, group: GroupId) -> Option<NodeId> {
        tree.ancestors(id).find(|&up| self.is_master(tree[up].key(), group))
    }

    /// Drops what is known of processes that the tree has forgotten.
    pub fn forget(&mut self, keys: &[ProcKey]) {
        for &key in keys {
            let groups: Vec<_> = self.of(key).map(|(g, _)| g).collect();
            for group in groups {
                self.masters.remove(&(key, group));
            }
        }
    }

    /// Renumbers the groups after a reload; `to` says what an old number is now.
    pub fn renumber(&mut self, to: impl Fn(GroupId) -> Option<GroupId>) {
        let old = std::mem::take(&mut self.masters);
        self.masters = old.into_iter().filter_map(|((k, g), m)| Some(((k, to(g)?), m))).collect();
    }

    fn of(&self, key: ProcKey) -> impl Iterator<Item = (GroupId, &Reign)> {
        self.masters.range((key, 0)..=(key, GroupId::MAX)).map(|((_, g), m)| (*g, m))
    }
}
