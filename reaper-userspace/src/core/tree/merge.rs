//! How a dump of all tasks becomes the tree, at the start and after events were lost.
//!
//! The programs are attached before the dump, so whatever happens during it is in the ring buffer and is replayed
//! after it. A row shows a process at the moment the iterator passed it, which is later than some of those events:
//! replaying them must not undo what the row says. Therefore births of processes that are known only add lineage, and
//! exits of processes that are not known do nothing.

use std::sync::Arc;

use super::look::Look;
use super::{Flags, Image, Node, NodeId, Tree};
use crate::core::ids::ProcKey;
use crate::core::input::{Exit, Identity, Parent, Task};

/// What a dump changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeReport {
    /// Processes that were not known before.
    pub added: usize,
    /// Processes that were known and are gone.
    pub removed: usize,
}

impl Tree {
    /// Takes the rows of a dump. Processes that are not in it are in doubt until [`Tree::doubtful`] is asked.
    pub fn begin_merge(&mut self, tasks: &[Task]) -> MergeReport {
        let mut report = MergeReport::default();
        for id in self.live().collect::<Vec<_>>() {
            self[id].flags.insert(Flags::DOUBTFUL);
        }
        for task in tasks {
            if let Some(known) = self.find(task.key) {
                let flags = &mut self[known].flags;
                flags.remove(Flags::DOUBTFUL);
                flags.set(Flags::REAPER, task.reaper);
            } else if self.is_free(task.key) {
                let image = Arc::new(Image { exec_at: 0, session: task.session });
                let mut flags = Flags::LINEAGE_UNKNOWN;
                flags.set(Flags::KERNEL_THREAD, task.kernel_thread);
                flags.set(Flags::REAPER, task.reaper);
                self.insert(Node {
                    uid: task.uid,
                    birth_session: task.session,
                    session: task.session,
                    flags,
                    ..Node::new(task.key, Look::named(&task.comm), image)
                });
                report.added += 1;
            }
        }
        for task in tasks {
            self.place(task);
        }
        report
    }

    /// Live processes that the dump did not show and whose exit has not come since: they died unseen.
    pub fn doubtful(&self) -> Vec<ProcKey> {
        let mut keys: Vec<_> = self
            .live()
            .filter(|&id| self[id].flags.contains(Flags::DOUBTFUL))
            .map(|id| self[id].key)
            .collect();
        keys.sort_unstable();
        keys
    }

    /// Live processes that `id` forked, whoever their parent is by now.
    pub fn born_to(&self, id: NodeId) -> Vec<NodeId> {
        if self[id].heirs_of_line == 0 {
            return Vec::new();
        }
        // Not those whom somebody forked who has been forgotten.
        let forked = |&l: &NodeId| self[l].born_of == Some(id) && self[l].line_since == self[l].key.start_ns;
        self.live().filter(forked).collect()
    }

    /// An exit that nobody saw: the status is not known and /proc must say who adopted the children.
    pub fn unseen_exit(at: u64, key: ProcKey) -> Exit {
        Exit { at, key, status: Exit::UNSEEN, adopter: Parent::Unknown }
    }

    /// Processes known from dumps only that look the same as their parent run the parent's image, for all anybody
    /// can tell. Parents must have been looked at before their children.
    pub fn share_image(&mut self, id: NodeId, who: &Identity) {
        let Some(parent) = self.parent(id) else { return };
        let unseen = |n: &Node| n.image.exec_at == 0 && !n.has_execed();
        let alike =
            *self[parent].argv() == who.argv && *self[parent].exe() == who.exe && !who.argv.is_empty();
        if alike && unseen(&self[id]) && unseen(&self[parent]) {
            let image = self[parent].image.clone();
            self.change_image(id, image);
        }
    }

    fn place(&mut self, task: &Task) {
        let Some(id) = self.find(task.key) else { return };
        let parent = match task.parent {
            Parent::Known(key) => self.find(key).or_else(|| self.provisional(key)),
            Parent::None => None,
            Parent::Unknown | Parent::NamespaceDies => None,
        };
        if parent.is_none() && task.parent != Parent::None {
            self.detach(id);
            return self.unsettle(id);
        }
        if self.parent(id) != parent {
            self.detach(id);
            if let Some(parent) = parent {
                self.put_below(id, parent);
            }
        }
        if self[id].is_lineage_unknown() && self[id].born_of.is_none() {
            self.set_born_of(id, parent.filter(|&p| !self.is_or_comes_of(p, id)));
            // Below a master that is known, the newcomer is one of its own.
            if parent.is_some_and(|p| self[p].tracked()) {
                self[id].flags.insert(Flags::TRACKED);
            }
        }
    }

    /// A parent that was alive when its child's row was written and has none itself: it died before the iterator came to
    /// it, then its exit is in the ring buffer, or it was born after the iterator had passed, then its fork is. `None` if
    /// its pid is another's already.
    fn provisional(&mut self, key: ProcKey) -> Option<NodeId> {
        self.is_free(key).then(|| {
            self.insert(Node {
                flags: Flags::LINEAGE_UNKNOWN | Flags::DOUBTFUL | Flags::PROVISIONAL,
                ..Node::new(key, Arc::default(), Arc::new(Image { exec_at: 0, session: 0 }))
            })
        })
    }
}
