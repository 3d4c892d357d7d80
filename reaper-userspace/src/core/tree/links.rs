//! The links between nodes: who is whose child, and who was born of whom.
//!
//! Neither relation has a circle, whatever the records say: the walks upward would have no end.

use std::sync::Arc;

use super::{Flags, Image, NodeId, TOMBSTONES_IN_A_ROW, Tree};

impl Tree {
    /// Whether somebody is `id`, or descends from it in the kernel's sense.
    pub(super) fn is_at_or_below(&self, other: NodeId, id: NodeId) -> bool {
        other == id || self.ancestors(other).any(|up| up == id)
    }

    /// Whether somebody is `id`, or has it in its lineage.
    pub(super) fn is_or_comes_of(&self, other: NodeId, id: NodeId) -> bool {
        other == id || self.lineage(other).any(|up| up == id)
    }

    /// Makes somebody a child. Nobody comes below his own descendants, whatever a record says: /proc is asked then.
    pub(super) fn put_below(&mut self, child: NodeId, parent: NodeId) {
        self.detach(child);
        if self.is_at_or_below(parent, child) {
            self.unsettle(child);
        } else {
            self.attach(child, parent);
        }
    }

    pub(super) fn unsettle(&mut self, id: NodeId) {
        self[id].flags.insert(Flags::PARENT_UNKNOWN);
        self[id].parent_asked = 0;
        let key = self[id].key;
        self.unsettled.push(key);
        self.homeless.insert(key);
    }

    pub(super) fn attach(&mut self, child: NodeId, parent: NodeId) {
        let first = self[parent].first_child.replace(child);
        self[child].parent = Some(parent);
        self[child].next_sibling = first;
        self[child].prev_sibling = None;
        self[child].flags.remove(Flags::PARENT_UNKNOWN);
        if let Some(first) = first {
            self[first].prev_sibling = Some(child);
        }
        self.count_image(parent, child, true);
    }

    pub(super) fn detach(&mut self, child: NodeId) {
        let Some(parent) = self[child].parent.take() else { return };
        let (prev, next) = (self[child].prev_sibling.take(), self[child].next_sibling.take());
        match prev {
            Some(prev) => self[prev].next_sibling = next,
            None => self[parent].first_child = next,
        }
        if let Some(next) = next {
            self[next].prev_sibling = prev;
        }
        self.count_image(parent, child, false);
    }

    /// Keeps `same_image_children` right when `child` comes to `parent` or goes.
    fn count_image(&mut self, parent: NodeId, child: NodeId, comes: bool) {
        if !Arc::ptr_eq(&self[parent].image, &self[child].image) {
            return;
        }
        let parent = &mut self[parent];
        if comes {
            parent.same_image_children += 1;
            if parent.same_image_children >= 2 {
                parent.flags.insert(Flags::HAD_TWO);
            }
        } else {
            parent.same_image_children = parent.same_image_children.saturating_sub(1);
        }
    }

    pub(super) fn change_image(&mut self, id: NodeId, image: Arc<Image>) {
        let parent = self[id].parent;
        if let Some(parent) = parent {
            self.count_image(parent, id, false);
        }
        self[id].image = image;
        let same = self.children(id).filter(|&c| Arc::ptr_eq(&self[c].image, &self[id].image)).count();
        self[id].same_image_children = u32::try_from(same).unwrap_or(u32::MAX);
        if let Some(parent) = parent {
            self.count_image(parent, id, true);
        }
    }

    pub(super) fn set_born_of(&mut self, id: NodeId, mother: Option<NodeId>) {
        if let Some(mother) = mother {
            self[mother].heirs_of_line += 1;
        }
        let before = std::mem::replace(&mut self[id].born_of, mother);
        if let Some(before) = before {
            self[before].heirs_of_line -= 1;
            self.forget_from(before);
        }
    }

    pub(super) fn tombstones_above(&self, id: NodeId) -> usize {
        self.lineage(id).take(TOMBSTONES_IN_A_ROW).take_while(|&up| !self[up].is_live()).count()
    }

    /// Frees `id` if it is dead and nobody descends from it, then its mother if that was the last, and so on.
    pub(super) fn forget_from(&mut self, id: NodeId) {
        let mut next = Some(id);
        while let Some(id) = next.filter(|&id| !self[id].is_live() && self[id].heirs_of_line == 0) {
            let node = self.nodes.remove(id.index());
            if node.tracked() {
                self.forgotten.push(node.key);
            }
            next = node.born_of;
            if let Some(mother) = next {
                self[mother].heirs_of_line -= 1;
            }
        }
    }
}
