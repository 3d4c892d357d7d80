//! The process tree: every live process with its kernel parent and its lineage, and the dead ones that a live one
//! still descends from.
//!
//! Two relations are kept apart. *Ancestry* (`parent`, `children`) is the kernel's `real_parent` at this moment.
//! *Lineage* (`born_of`) is the parent at birth; reparenting does not change it. Invariants: a live process is found by
//! its tgid and there is never a second one; a dead process has neither parent nor children; a dead process is kept
//! only while the lineage of a live process leads through it and it mattered to a group.
//!
//! Not here: groups, masters, orphans. Whoever knows those marks nodes as [`Node::tracked`].

mod id;
mod links;
mod look;
mod merge;
mod node;
mod pids;
mod recall;

use std::collections::BTreeSet;
use std::sync::Arc;

use slab::Slab;

use super::ids::{Ns, ProcKey};
use super::input::{Exec, Exit, Fork, Parent};
pub use id::NodeId;
use look::Look;
pub use merge::MergeReport;
use node::{Flags, Moment};
pub use node::{Image, Node};
use pids::Pids;
pub use recall::Known;

/// A generation of tracked dead ancestors longer than this is cut short: a worker that forks its successor for ever
/// must not be remembered for ever.
const TOMBSTONES_IN_A_ROW: usize = 32;

/// What an exit changed.
#[derive(Debug)]
pub struct Exited {
    /// The dead one. Still there until [`Tree::bury`].
    pub node: NodeId,
    /// Who it was a child of.
    pub parent: Option<NodeId>,
    /// Its children, now the adopter's.
    pub moved: Vec<NodeId>,
    /// The adopter, if it is known.
    pub adopter: Option<NodeId>,
    /// The kernel is about to kill the children.
    pub namespace_dies: bool,
}

/// All processes. See the module's head.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: Slab<Node>,
    live: Pids<NodeId>,
    /// Live nodes whose parent /proc must be asked for.
    unsettled: Vec<ProcKey>,
    /// Those of which it is not known yet, and some that were settled since.
    homeless: BTreeSet<ProcKey>,
    /// Tracked nodes that were freed and that nobody has been told of.
    forgotten: Vec<ProcKey>,
}

impl Tree {
    /// How many processes are alive.
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// How many dead processes are kept.
    pub fn tombstone_count(&self) -> usize {
        self.nodes.len() - self.live.len()
    }

    /// A live process.
    pub fn find(&self, key: ProcKey) -> Option<NodeId> {
        self.find_pid(key.tgid).filter(|&id| self[id].key == key)
    }

    /// The live process that has this pid now.
    pub fn find_pid(&self, tgid: u32) -> Option<NodeId> {
        self.live.get(&tgid).copied()
    }

    /// A dead process that is still kept. Rarely asked for: when a child is born to it, or when records were lost.
    pub fn find_dead(&self, key: ProcKey) -> Option<NodeId> {
        let dead = |(_, n): &(usize, &Node)| !n.is_live() && n.key == key;
        self.nodes.iter().find(dead).map(|(index, _)| NodeId::of(index))
    }

    /// The youngest of the dead that are still kept and had this pid.
    pub fn find_dead_pid(&self, tgid: u32) -> Option<NodeId> {
        let dead = self.nodes.iter().filter(|(_, n)| !n.is_live() && n.key.tgid == tgid);
        dead.max_by_key(|(_, n)| n.key.start_ns).map(|(index, _)| NodeId::of(index))
    }

    /// Every live process, in no particular order.
    pub fn live(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.live.values().copied()
    }

    /// Kernel parent.
    pub fn parent(&self, id: NodeId) -> Option<NodeId> {
        self[id].parent
    }

    /// Kernel parents, nearest first, `id` itself left out.
    pub fn ancestors(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::successors(self.parent(id), |&up| self.parent(up)).take(self.nodes.len())
    }

    /// Parents at birth, nearest first, `id` itself left out.
    pub fn lineage(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::successors(self[id].born_of, |&up| self[up].born_of).take(self.nodes.len())
    }

    /// Live kernel children, newest first.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::successors(self[id].first_child, |&c| self[c].next_sibling)
    }

    /// `id`'s live descendants in the kernel's sense, itself left out, parents before children.
    pub fn descendants(&self, id: NodeId) -> Vec<NodeId> {
        let mut found: Vec<NodeId> = self.children(id).collect();
        let mut next = 0;
        while let Some(&id) = found.get(next) {
            found.extend(self.children(id));
            next += 1;
        }
        found
    }

    /// A birth. `None` if the process is known already (a replay of what a dump showed).
    pub fn fork(&mut self, fork: &Fork) -> Option<NodeId> {
        let mother = self.find(fork.parent).or_else(|| self.find_dead(fork.parent));
        let holder = self.find_pid(fork.child.tgid);
        let known = holder.filter(|&h| self[h].key == fork.child);
        if let Some(known) = known.filter(|&k| !self[k].flags.contains(Flags::PROVISIONAL)) {
            self.learn_birth(known, mother, fork.session);
            return None;
        }
        if known.is_none() && holder.is_some() {
            return None;
        }
        // Who is born to somebody that the kernel is about to kill with its pid namespace is in there, too.
        let (image, look, mut flags) = match mother.map(|m| &self[m]) {
            Some(m) => {
                (m.image.clone(), m.look.inherited(&fork.comm), m.flags & (Flags::TRACKED | Flags::DOOMED))
            }
            None => (
                Arc::new(Image { exec_at: 0, session: fork.session }),
                Look::named(&fork.comm),
                Flags::LINEAGE_UNKNOWN,
            ),
        };
        flags.set(Flags::KERNEL_THREAD, fork.kernel_thread);
        let id = match known {
            Some(known) => {
                self.change_image(known, image);
                self[known].look = look;
                known
            }
            None => self.insert(Node::new(fork.child, look, image)),
        };
        let node = &mut self[id];
        node.flags = flags;
        node.uid = fork.uid;
        node.birth_session = fork.session;
        node.session = fork.session;
        // Nobody comes of a newborn, so that its mother's lineage need not be walked up.
        self.set_born_of(id, mother.filter(|&m| known.is_none() || !self.is_or_comes_of(m, id)));
        let alive = mother.filter(|&m| self[m].is_live());
        if let Some(mother) = alive {
            // It forks into the session that it is in. (With CLONE_PARENT somebody else forks, and nobody is told.)
            self[mother].session = fork.session;
        }
        match alive {
            Some(mother) if known.is_none() => self.attach(id, mother),
            Some(mother) => self.put_below(id, mother),
            None => self.unsettle(id),
        }
        Some(id)
    }

    /// A new image. A process that was not known is taken up, its lineage unknown. `None` if it is dead already (a replay of
    /// what came before a dump), or its pid is another's by now.
    pub fn exec(&mut self, exec: &Exec) -> Option<NodeId> {
        let image = Arc::new(Image { exec_at: exec.at, session: exec.session });
        let id = match self.find(exec.key).or_else(|| self.find_dead(exec.key)) {
            Some(known) => known,
            None if self.is_free(exec.key) => {
                let id = self.insert(Node {
                    birth_session: exec.session,
                    flags: Flags::LINEAGE_UNKNOWN,
                    ..Node::new(exec.key, Arc::default(), image.clone())
                });
                self.unsettle(id);
                id
            }
            None => return None,
        };
        self.change_image(id, image);
        let (comm, argv, exe) = (exec.comm.clone(), exec.argv.clone(), exec.filename.clone());
        let place = self[id].look.place.clone();
        self.show(id, Look { comm, argv, exe, place });
        let node = &mut self[id];
        node.uid = exec.uid;
        node.session = exec.session;
        node.flags.insert(Flags::EXECED);
        node.flags.remove(Flags::HAD_TWO);
        node.is_live().then_some(id)
    }

    /// The death of a live process.
    pub fn exit(&mut self, node: NodeId, exit: &Exit) -> Exited {
        let parent = self.parent(node);
        let adopter = match exit.adopter {
            Parent::Known(key) => self.find(key).filter(|&a| !self.is_at_or_below(a, node)),
            _ => None,
        };
        let mut moved: Vec<NodeId> = self.children(node).collect();
        moved.reverse();
        // It leaves first: the adopter never has it and its children at once.
        self.detach(node);
        for &child in &moved {
            self.detach(child);
            match adopter {
                Some(adopter) => self.attach(child, adopter),
                None if exit.adopter == Parent::NamespaceDies || exit.adopter == Parent::None => {}
                // Pid 1 would adopt them, and is dead already; but nobody says who adopts whom where a walk was too long.
                None if self[node].is_doomed() && exit.adopter != Parent::Unknown => {}
                None => self.unsettle(child),
            }
        }
        self.live.remove(&exit.key.tgid);
        self[node].flags.insert(Flags::DEAD);
        self[node].moment = Moment::Died { at: exit.at, status: exit.status };
        Exited { node, parent, moved, adopter, namespace_dies: exit.adopter == Parent::NamespaceDies }
    }

    /// Forgets a dead process as soon as nothing alive needs it.
    pub fn bury(&mut self, exited: &Exited) {
        let node = exited.node;
        if !self[node].tracked() || self.tombstones_above(node) >= TOMBSTONES_IN_A_ROW {
            // Nobody will ask about this generation: its children descend from the one before.
            let grandmother = self[node].born_of;
            // Held until the last child has moved on.
            self[node].heirs_of_line += 1;
            for &child in &exited.moved {
                if self[child].born_of == Some(node) {
                    self.set_born_of(child, grandmother);
                    self[child].line_since = self[node].line_since;
                    let left = self[node].flags & Flags::LEFT;
                    self[child].flags.insert(left);
                    if self[node].walked_off(Ns::MAX) {
                        self[child].flags.insert(Flags::LINE_WALKED_OFF);
                    }
                }
            }
            self[node].heirs_of_line -= 1;
        }
        self.forget_from(node);
    }

    /// Tracked processes that were forgotten since this was last asked.
    pub fn take_forgotten(&mut self) -> Vec<ProcKey> {
        std::mem::take(&mut self.forgotten)
    }

    /// Whether /proc is being asked about a process because it has forked.
    pub fn note_asked(&mut self, id: NodeId, asked: bool) {
        self[id].flags.set(Flags::ASKED_ABOUT, asked);
    }

    /// Live processes whose parent /proc must be asked for; each is named once.
    pub fn take_unsettled(&mut self) -> Vec<ProcKey> {
        if !self.unsettled.is_empty() {
            let mut homeless = std::mem::take(&mut self.homeless);
            homeless.retain(|&key| self.find(key).is_some_and(|id| self.is_unsettled(id)));
            self.homeless = homeless;
        }
        std::mem::take(&mut self.unsettled)
    }

    /// Live processes whose parent nobody knows yet and in whose lineage `id` is: it may have adopted them.
    pub fn homeless_of(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let all = self.homeless.iter().filter_map(|&key| self.find(key));
        all.filter(move |&h| self.is_unsettled(h) && self.lineage(h).any(|up| up == id))
    }

    /// Whether its parent is still unknown.
    pub fn is_unsettled(&self, id: NodeId) -> bool {
        self[id].flags.contains(Flags::PARENT_UNKNOWN)
    }

    /// /proc named the parent. False if that is nobody alive yet: the kernel has not reparented so far.
    pub fn settle(&mut self, id: NodeId, ppid: u32) -> bool {
        let parent = self.find_pid(ppid).filter(|&p| !self.is_at_or_below(p, id));
        if ppid != 0 && parent.is_none() {
            return false;
        }
        self[id].flags.remove(Flags::PARENT_UNKNOWN);
        if let Some(parent) = parent {
            self.detach(id);
            self.attach(id, parent);
        }
        true
    }

    /// How long to wait before /proc is asked for its parent again: twice as long each time, in nanoseconds.
    pub fn next_pause(&mut self, id: NodeId) -> Ns {
        let asked = &mut self[id].parent_asked;
        *asked = asked.saturating_add(1);
        5_000_000 << u32::from((*asked).min(10))
    }

    /// Marks a process, and with it all that descend from it and are alive, as belonging to a group.
    pub fn track(&mut self, id: NodeId) {
        self[id].flags.insert(Flags::TRACKED);
        if self[id].heirs_of_line == 0 {
            return;
        }
        // Not its children in the kernel's sense only: some may have lost an intermediate before it was known for a master.
        for descendant in self.live().filter(|&l| self.lineage(l).any(|up| up == id)).collect::<Vec<_>>() {
            self[descendant].flags.insert(Flags::TRACKED);
        }
    }

    /// Notes that its birth was seen while everybody was known.
    pub fn mark_born_in_sight(&mut self, id: NodeId) {
        self[id].flags.insert(Flags::BORN_IN_SIGHT);
    }

    /// Somebody died while not everybody was known: it may have been a master, unseen. Of those below it, who was not born in sight
    /// may be its worker.
    pub fn miss(&mut self, exited: &Exited) {
        let flags = &mut self[exited.node].flags;
        flags.insert(Flags::MISSED);
        if flags.contains(Flags::TRACKED) || self[exited.node].heirs_of_line == 0 {
            return;
        }
        for id in self.live().filter(|&l| self.lineage(l).any(|up| up == exited.node)).collect::<Vec<_>>() {
            let flags = &mut self[id].flags;
            if !flags.intersects(Flags::BORN_IN_SIGHT | Flags::TRACKED) {
                flags.insert(Flags::LINEAGE_UNKNOWN);
            }
        }
    }

    /// Marks a process as having left its group on purpose.
    pub fn mark_left(&mut self, id: NodeId) {
        self[id].flags.insert(Flags::LEFT);
    }

    /// Its parent has exited as the parents of daemons do: if it is in another session than `session` when it is looked at
    /// until then, or for the first time after, it has left.
    pub fn mark_parting(&mut self, id: NodeId, session: u32, at: Ns, until: Ns) {
        self[id].moment = Moment::Parting { session, until };
        self[id].part(at);
    }

    /// The kernel is about to kill it: pid 1 of its pid namespace has died.
    pub fn mark_doomed(&mut self, id: NodeId) {
        self[id].flags.insert(Flags::DOOMED);
    }

    /// It turned out not to have left.
    pub fn mark_returned(&mut self, id: NodeId) {
        self[id].flags.remove(Flags::LEFT);
    }

    fn insert(&mut self, node: Node) -> NodeId {
        let tgid = node.key.tgid;
        let id = self.keep(node);
        self.live.insert(tgid, id);
        id
    }

    /// Room grows by an eighth: nodes are large, and half of them would lie idle after a doubling.
    fn keep(&mut self, node: Node) -> NodeId {
        if self.nodes.len() == self.nodes.capacity() {
            self.nodes.reserve_exact((self.nodes.len() / 8).max(64));
        }
        NodeId::of(self.nodes.insert(node))
    }

    /// Whoever is thought to be alive with the pid of a process that is younger: it died unseen, and has to be taken out
    /// with [`Self::exit`] before the younger one is taken up.
    pub fn predecessor(&self, key: ProcKey) -> Option<ProcKey> {
        let holder = self[self.find_pid(key.tgid)?].key;
        (holder.start_ns < key.start_ns).then_some(holder)
    }

    /// Whether `key` can be taken up. If its pid is a younger one's, what is told of `key` is old news.
    fn is_free(&self, key: ProcKey) -> bool {
        self.find_pid(key.tgid).is_none()
    }

    /// A birth seen after the dump that showed the child: the lineage becomes known, the ancestry is the dump's.
    fn learn_birth(&mut self, child: NodeId, mother: Option<NodeId>, session: u32) {
        let Some(mother) = mother else { return };
        if self[child].is_lineage_unknown() && !self.is_or_comes_of(mother, child) {
            self[child].flags.remove(Flags::LINEAGE_UNKNOWN);
            self[child].birth_session = session;
            self.set_born_of(child, Some(mother));
        }
    }
}
