//! Who dies before its fate was decided: /proc can say nothing of it any more, and what becomes of its children depends
//! on what it was.
//!
//! A daemon in the making may live for a few milliseconds only (the middle one of two forks). Had it made its session, it
//! was detached when it died: then its children are its own if it was an heir, and nobody's workers if it was none. What
//! was seen of it decides, and its children are never orphans only because nobody has looked in time.
//!
//! Not here: fates of the living (`fates`).

use super::bereaved::{Bereaved, DETACH_WITHIN};
use super::effect::Effect;
use super::ids::{Ns, ProcKey};
use super::input::Exit;
use super::membership::GroupId;
use super::records::SparedBecause;
use super::tree::{Exited, NodeId};
use super::{Core, View};

impl Core {
    /// `id` is about to be taken out of the tree, and what becomes of it was still open.
    pub(super) fn decide_the_dead(&mut self, exit: &Exit, id: NodeId, mut open: Bereaved) {
        let node = &self.tree[id];
        if open.exec_session.is_none_or(|s| s == node.session()) {
            return;
        }
        let unknown = open.adopter_was_unknown;
        open.losses.retain(|&g, lost| self.still_bereaved(id, g, lost.since, unknown) == Ok(true));
        if open.losses.is_empty() {
            return;
        }
        let who = self.known(id);
        let matching = |g: &GroupId| self.rules.groups[*g].master.matches(&who);
        let heir_of: Vec<GroupId> = open.groups().filter(matching).collect();
        self.detach(exit.at, id, &open, &heir_of);
        // Those that it leaves may be masters by now, of nobody's lineage.
        for child in self.tree.children(id).collect::<Vec<_>>() {
            let key = self.tree[child].key();
            self.effects.push_back(Effect::Identify(key));
        }
        if !self.is_ancestry_known(id) {
            self.parted.insert(open.key, open.groups().collect());
        }
    }

    /// The parent of a daemon exits before anybody knows that there is a master above it: when one is recognised there, by its
    /// title or because the configuration names it only then, the daemon is not its worker. Whom a subreaper of its own lineage
    /// adopts is still there.
    pub(super) fn note_parting(&mut self, exit: &Exit, exited: &Exited) {
        let dead = &self.tree[exited.node];
        // A dump shows its children below whoever adopted them, before its exit is told.
        let shown = (self.view != View::Clear).then(|| self.tree.born_to(exited.node));
        // Somebody above it may be a master of others only.
        let has_master = |g: GroupId| self.members.lineage_master(&self.tree, exited.node, g).is_some();
        let is_tracked = dead.tracked() && !exited.moved.is_empty();
        let known = is_tracked
            && (self.members.ever(dead.key()).next().is_some() || self.group_ids().any(has_master));
        let &[child] = shown.as_deref().unwrap_or(&exited.moved) else { return };
        if known || exit.status != 0 || dead.had_two_of_its_image() || exited.namespace_dies {
            return;
        }
        let is_own = |a: NodeId| self.tree[a].key().tgid != 1 && self.tree.lineage(child).any(|up| up == a);
        if exited.adopter.is_some_and(is_own) {
            return;
        }
        let session = dead.image().session;
        self.tree.mark_parting(child, session, exit.at, exit.at.saturating_add(DETACH_WITHIN));
    }

    /// It is known now who is above `id`. If those are the masters of somebody in its lineage that seemed to have left,
    /// then that one was adopted and had not left.
    pub(super) fn take_back_parted(&mut self, now: Ns, id: NodeId) {
        if self.parted.is_empty() {
            return;
        }
        let lineage: Vec<NodeId> = self.tree.lineage(id).collect();
        for up in lineage {
            let key: ProcKey = self.tree[up].key();
            let Some(groups) = self.parted.get(&key).cloned() else { continue };
            self.tree.mark_returned(up);
            let adopted = |g: &GroupId| {
                let master = self.members.lineage_master(&self.tree, up, *g);
                master.is_some() && self.members.live_master_above(&self.tree, id, *g) == master
            };
            // Who leaves one master leaves all of them, as the living do.
            if !groups.iter().all(adopted) {
                self.mark_left(up);
                continue;
            }
            self.parted.remove(&key);
            for g in groups {
                self.spare(now, id, g, SparedBecause::Adopted);
            }
        }
    }
}
