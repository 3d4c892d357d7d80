//! Names of places in the tree, small enough that "nobody" costs nothing.

use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

use super::{Node, Tree};

/// Where a process is in the tree. Valid until the process is buried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(NonZeroU32);

impl NodeId {
    /// Counted from one, so that "nobody" needs no room of its own.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "pid_max is 2^22: a slab of processes stays far below 2^32"
    )]
    pub(super) fn of(index: usize) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index as u32))
    }

    pub(super) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Index<NodeId> for Tree {
    type Output = Node;
    fn index(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }
}

impl IndexMut<NodeId> for Tree {
    fn index_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }
}
