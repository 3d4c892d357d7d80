//! What processes look like: name, arguments, executable and place, as far as records and /proc have told.
//!
//! Most processes of a host look like the one that forked them. So a look is shared, and never changed: a process that looks
//! different from now on gets another one.

use std::sync::Arc;

use super::{Exited, Flags, NodeId, Tree};
use crate::core::argv::Argv;
use crate::core::container::{self, Place};
use crate::core::input::{Comm, Identity};
use crate::core::records::ProcView;

/// What a process looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) comm: Comm,
    pub(super) argv: Argv,
    pub(super) exe: Arc<str>,
    /// Its container and pod, if its cgroups were read and name any.
    pub(super) place: Option<Arc<Place>>,
}

impl Look {
    /// Of whom nothing but the name is known.
    pub(super) fn named(comm: &Comm) -> Arc<Self> {
        Arc::new(Self { comm: comm.clone(), ..Self::default() })
    }

    /// The look of a child that is called so: nearly always as its mother is.
    pub(super) fn inherited(self: &Arc<Self>, comm: &Comm) -> Arc<Self> {
        match self.comm == *comm {
            true => self.clone(),
            false => Arc::new(Self { comm: comm.clone(), ..Self::clone(self) }),
        }
    }

    /// What /proc says, with what was known before where it says nothing.
    fn updated(&self, who: &Identity) -> Self {
        let exe = if who.exe.is_empty() { &self.exe } else { &who.exe };
        let place = match who.cgroups.is_empty() {
            true => self.place.clone(),
            false => Some(container::place_of(&who.cgroups)).filter(|p| *p != Place::default()).map(Arc::new),
        };
        Self { comm: who.comm.clone(), argv: who.argv.clone(), exe: exe.clone(), place }
    }
}

impl Tree {
    /// What /proc said about a live process.
    pub fn identify(&mut self, id: NodeId, who: &Identity) {
        let node = &mut self[id];
        node.checked_at = who.at.max(1);
        node.uid = who.uid;
        node.session = who.session;
        node.part(who.at);
        let look = node.look.updated(who);
        self.show(id, look);
    }

    /// Whether /proc showed any arguments of a live process: what is known of them may be what it was born with.
    pub fn note_argv(&mut self, id: NodeId, gone: bool) {
        self[id].flags.set(Flags::ARGV_GONE, gone);
    }

    /// What was known of the looks of a dead process that came back.
    pub fn describe(&mut self, id: NodeId, who: &ProcView) {
        let (comm, argv, exe) = (who.comm.clone(), who.argv.clone(), who.exe.clone());
        self[id].uid = who.uid;
        self.show(id, Look { comm, argv, exe, place: None });
    }

    /// A process as records show it.
    pub fn view(&self, id: NodeId) -> ProcView {
        let node = &self[id];
        let Look { comm, argv, exe, place } = &*node.look;
        ProcView {
            pid: node.key.tgid,
            start_ns: node.key.start_ns,
            ppid: node.parent.map_or(0, |p| self[p].key.tgid),
            uid: node.uid,
            comm: comm.clone(),
            exe: exe.clone(),
            argv: argv.told(),
            container: place.as_ref().and_then(|place| place.container.clone()),
            pod: place.as_ref().and_then(|place| place.pod.clone()),
        }
    }

    /// One that has just died, as records show it: still with the parent that it had.
    pub fn view_of(&self, exited: &Exited) -> ProcView {
        let ppid = exited.parent.map_or(0, |p| self[p].key.tgid);
        ProcView { ppid, ..self.view(exited.node) }
    }

    /// A process looks like this now. Whoever looks like its parent shares that one's look.
    pub(super) fn show(&mut self, id: NodeId, look: Look) {
        let node = &self[id];
        if *node.look == look {
            return;
        }
        let kin = [node.parent, node.born_of].into_iter().flatten().map(|k| &self[k].look);
        let shared = kin.into_iter().find(|theirs| ***theirs == look).cloned();
        self[id].look = shared.unwrap_or_else(|| Arc::new(look));
    }
}
