//! Lineage that the kernel has kept while no agent ran, laid over the first dump.
//!
//! A dump shows who is alive and below whom. What was kept says who forked whom, dead or alive, and in which image everybody
//! runs. Of the dead come back those that lead to somebody who was a master: of the others nobody knows what they were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Flags, Image, Moment, Node, NodeId, Tree};
use crate::core::ids::{Ns, ProcKey};
use crate::core::input::{Birth, Death, Exit};
use crate::core::schedule::SETTLE;

/// What was known of processes besides their births.
#[derive(Debug, Default)]
pub struct Known {
    /// Who was a master of a group that is still there.
    pub masters: BTreeSet<ProcKey>,
    /// Who had left its group on purpose.
    pub left: BTreeSet<ProcKey>,
    /// Until then everybody was looked at.
    pub until: Ns,
}

impl Known {
    /// Whether a dead process ran something of which nobody knows if it was a master. Who has taken its title is known for what
    /// it is.
    fn missed(&self, dead: &Birth) -> bool {
        let image_since = dead.key.start_ns.max(dead.exec_at);
        image_since.saturating_add(SETTLE) > self.until && !self.masters.contains(&dead.key)
    }
}

/// Who is above a process, as far as it was kept.
struct Line<'b> {
    /// The dead ones between it and the next live one that are to be remembered, nearest first.
    dead: Vec<&'b Birth>,
    /// The next live one, if all below it are remembered.
    top: Option<NodeId>,
    /// Among the dead ones is one of whom nobody knows what it was.
    hidden: bool,
}

impl Tree {
    /// Takes up what was kept. Returns the dead processes that came back.
    pub fn recall(&mut self, births: &[Birth], known: &Known) -> BTreeMap<ProcKey, NodeId> {
        let book: BTreeMap<ProcKey, &Birth> = births.iter().map(|b| (b.key, b)).collect();
        let mut living: Vec<(ProcKey, NodeId)> = self.live().map(|id| (self[id].key, id)).collect();
        // By start: parents have their image before their children ask for it.
        living.sort_unstable_by_key(|(key, _)| (key.start_ns, key.tgid));
        let mut tombstones = BTreeMap::new();
        let mut hidden = BTreeSet::new();
        for (key, id) in living {
            if known.left.contains(&key) {
                self[id].flags.insert(Flags::LEFT);
            }
            let Some(&birth) = book.get(&key) else { continue };
            let line = self.line(birth, &book, known);
            // Whoever is above those that are remembered says nothing of it any more.
            let below = line.top.filter(|_| line.dead.is_empty());
            let is_hidden = line.hidden || below.is_some_and(|top| hidden.contains(&top));
            if is_hidden {
                hidden.insert(id);
            }
            let above = line
                .dead
                .iter()
                .rev()
                .fold(line.top, |above, dead| Some(self.tombstone(dead, above, known, &mut tombstones)));
            // Among dead ones of whom nothing is remembered there may have been anybody: then the dump is all there is to go by.
            if above.is_some() {
                self.set_born_of(id, above);
            }
            let flags = &mut self[id].flags;
            flags.set(Flags::LINEAGE_UNKNOWN, birth.dumped || above.is_none() || is_hidden);
            // Whose birth the kernel has seen was not orphaned before anybody looked; unless those that it came of were born and
            // died when nobody did.
            flags.set(Flags::BORN_IN_SIGHT, !birth.dumped && !is_hidden);
            flags.set(Flags::EXECED, birth.execed);
            self[id].birth_session = birth.birth_session;
            if let Some(image) = self.image_of(id, birth) {
                self.change_image(id, image);
            }
        }
        // A dead one that made a session of its own has shown it by its exec or by those that it forked afterwards.
        for birth in births {
            let mother = birth.parent.and_then(|key| tombstones.get(&key).copied());
            if let Some(mother) = mother.filter(|&m| self[m].birth_session != birth.birth_session) {
                self[mother].session = birth.birth_session;
            }
        }
        tombstones
    }

    /// How one died that was alive when this was kept, and that the dump did not show any more.
    pub fn note_death(&mut self, exit: &Exit) {
        let Some(id) = self.find_dead(exit.key) else { return };
        let node = &mut self[id];
        if node.is_recalled() && node.death().is_none() {
            node.moment = Moment::Died { at: exit.at, status: exit.status };
        }
    }

    /// Every process, those included that are dead and remembered.
    pub fn all(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().map(|(index, _)| NodeId::of(index))
    }

    fn line<'b>(&self, birth: &Birth, book: &BTreeMap<ProcKey, &'b Birth>, known: &Known) -> Line<'b> {
        let (mut dead, mut top, mut up) = (Vec::<&Birth>::new(), None, birth.parent);
        while let Some(key) = up
            && dead.len() < book.len()
        {
            top = self.find(key);
            match book.get(&key).filter(|_| top.is_none()) {
                Some(&entry) => {
                    dead.push(entry);
                    up = entry.parent;
                }
                None => break,
            }
        }
        let reigned_above = top.is_some_and(|top| self.descends_from_a_master(self[top].key, book, known));
        let remembered = match dead.iter().rposition(|b| known.masters.contains(&b.key)) {
            _ if reigned_above => dead.len(),
            Some(last) => last + 1,
            None => 0,
        };
        let top = top.filter(|_| remembered == dead.len());
        let hidden = birth.key.start_ns > known.until && dead[remembered..].iter().any(|b| known.missed(b));
        dead.truncate(remembered);
        Line { dead, top, hidden }
    }

    /// Whether a process, or one above it in its lineage, was a master.
    fn descends_from_a_master(&self, key: ProcKey, book: &BTreeMap<ProcKey, &Birth>, known: &Known) -> bool {
        let line = std::iter::successors(Some(key), |key| book.get(key).and_then(|b| b.parent));
        line.take(book.len() + 1).any(|key| known.masters.contains(&key))
    }

    /// The node of a dead process, with the one above it as its mother.
    fn tombstone(
        &mut self,
        birth: &Birth,
        above: Option<NodeId>,
        known: &Known,
        tombstones: &mut BTreeMap<ProcKey, NodeId>,
    ) -> NodeId {
        if let Some(&there) = tombstones.get(&birth.key) {
            return there;
        }
        let mut flags = Flags::DEAD | Flags::TRACKED | Flags::RECALLED;
        flags.set(Flags::MISSED, known.missed(birth));
        flags.set(Flags::LINEAGE_UNKNOWN, birth.dumped);
        flags.set(Flags::EXECED, birth.execed);
        flags.set(Flags::LEFT, known.left.contains(&birth.key));
        let node = Node {
            birth_session: birth.birth_session,
            session: if birth.execed { birth.exec_session } else { birth.birth_session },
            moment: birth.death.map_or(Moment::None, |Death { at, status }| Moment::Died { at, status }),
            flags,
            ..Node::new(birth.key, Arc::default(), Arc::new(Image { exec_at: 0, session: 0 }))
        };
        let id = self.keep(node);
        tombstones.insert(birth.key, id);
        self.set_born_of(id, above);
        if let Some(image) = self.image_of(id, birth) {
            self[id].image = image;
        }
        id
    }

    /// The image that a process runs: its mother's if it has not exec'd since. `None` if nobody saw it.
    fn image_of(&self, id: NodeId, birth: &Birth) -> Option<Arc<Image>> {
        if birth.exec_at == 0 {
            return None;
        }
        let mother = self[id].born_of.map(|m| &self[m].image);
        let inherited = mother.filter(|image| !birth.execed && image.exec_at == birth.exec_at);
        Some(
            inherited
                .cloned()
                .unwrap_or_else(|| Arc::new(Image { exec_at: birth.exec_at, session: birth.exec_session })),
        )
    }
}
