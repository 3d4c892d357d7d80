//! One process of the tree: what is known of it and what was seen of its life.

use std::sync::Arc;

use super::NodeId;
use crate::core::argv::Argv;
use crate::core::container::Place;
use crate::core::ids::{Ns, ProcKey};
use crate::core::input::{Comm, Death};

/// What exec gave a process and fork passed on. Two processes run the same image if it is the same allocation.
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    /// When it was exec'd; 0 where that was not seen.
    pub exec_at: Ns,
    /// The session in which it was exec'd; where that was not seen, the one it was first found in.
    pub session: u32,
}

/// One process.
#[derive(Debug)]
pub struct Node {
    pub(super) key: ProcKey,
    pub(super) parent: Option<NodeId>,
    pub(super) first_child: Option<NodeId>,
    pub(super) next_sibling: Option<NodeId>,
    pub(super) prev_sibling: Option<NodeId>,
    pub(super) born_of: Option<NodeId>,
    /// When `born_of` forked it, or the first of those between them that have been forgotten.
    pub(super) line_since: Ns,
    /// How many nodes have this one as `born_of`.
    pub(super) heirs_of_line: u32,
    /// How many live children run this very image.
    pub(super) same_image_children: u32,
    pub(super) image: Arc<Image>,
    pub(super) argv: Argv,
    pub(super) exe: Arc<str>,
    pub(super) comm: Comm,
    /// Its container and pod, once its cgroups were read.
    pub(super) place: Option<Arc<Place>>,
    pub(super) uid: u32,
    /// The session it was forked into.
    pub(super) birth_session: u32,
    /// The session it was last seen in.
    pub(super) session: u32,
    /// How often /proc was asked for its parent in vain.
    pub(super) parent_asked: u8,
    /// When its identity was last read from /proc; 0 is never.
    pub checked_at: Ns,
    pub(super) moment: Moment,
    pub(super) flags: Flags,
}

/// What only some processes have, and none of them both.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    /// Nothing of the kind.
    None,
    /// It may be a daemon in the making: the session that it has to be out of, and until when.
    Parting { session: u32, until: Ns },
    /// When and how it died.
    Died(Death),
}

#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a process, not a state machine")]
pub(super) struct Flags {
    pub(super) dead: bool,
    pub(super) kernel_thread: bool,
    /// Adopts orphans: a subreaper or its pid namespace's pid 1, as far as the snapshot said.
    pub(super) reaper: bool,
    /// Known from a dump only: who forked it was not seen.
    pub(super) lineage_unknown: bool,
    /// Its birth was seen while everybody was known: if who forked it is not, that one was nobody's.
    pub(super) born_in_sight: bool,
    /// Executed an image of its own since it was forked, as far as was seen.
    pub(super) execed: bool,
    /// Once had two live children of its own image at the same time.
    pub(super) had_two: bool,
    /// A master of a group, or with one in its lineage.
    pub(super) tracked: bool,
    /// Dead, and its exit was not told: the kernel has kept it while no agent ran.
    pub(super) recalled: bool,
    /// Died when not everybody was known, or when no agent ran: it may have been a master.
    pub(super) missed: bool,
    /// Left its group on purpose (detached): its lineage ends here.
    pub(super) left: bool,
    /// Was live before the dump and is not in it: dead, unless its exit is still to come.
    pub(super) doubtful: bool,
    /// Only known as the parent in another one's row of a dump.
    pub(super) provisional: bool,
    /// Its parent is not known; /proc must be asked.
    pub(super) parent_unknown: bool,
    /// Pid 1 of its pid namespace has died: the kernel is about to kill it.
    pub(super) doomed: bool,
    /// It has forked, and /proc is being asked who it is now.
    pub(super) asked_about: bool,
    /// /proc showed no arguments when it was last looked at: its leader has exited, or it is dying.
    pub(super) argv_gone: bool,
    /// One that was between it and the next in its lineage, and has been forgotten, had walked off.
    pub(super) line_walked_off: bool,
}

impl Node {
    /// Who it is.
    pub fn key(&self) -> ProcKey {
        self.key
    }
    /// What it runs.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }
    /// Whether it is alive.
    pub fn is_live(&self) -> bool {
        !self.flags.dead
    }
    /// When and how it died, if it did.
    pub fn death(&self) -> Option<Death> {
        match self.moment {
            Moment::Died(death) => Some(death),
            Moment::None | Moment::Parting { .. } => None,
        }
    }
    /// Whether it is a kernel thread.
    pub fn is_kernel_thread(&self) -> bool {
        self.flags.kernel_thread
    }
    /// Whether it was known to adopt orphans when it was dumped.
    pub fn is_reaper(&self) -> bool {
        self.flags.reaper
    }
    /// When the next in its lineage forked it, or whoever was between them and has been forgotten.
    pub fn line_since(&self) -> Ns {
        self.line_since
    }
    /// Whether its birth was not seen.
    pub fn is_lineage_unknown(&self) -> bool {
        self.flags.lineage_unknown
    }
    /// Whether it may have been orphaned before anybody saw: neither is its lineage known, nor was its birth seen.
    pub fn may_be_stray(&self) -> bool {
        self.flags.lineage_unknown && !self.flags.born_in_sight
    }
    /// Whether it exec'd after it was forked.
    pub fn has_execed(&self) -> bool {
        self.flags.execed
    }
    /// Whether it ever had two live children of its own image at once.
    pub fn had_two_of_its_image(&self) -> bool {
        self.flags.had_two
    }
    /// Whether it is a master or descends from one.
    pub fn tracked(&self) -> bool {
        self.flags.tracked
    }
    /// Whether it dies with its pid namespace.
    pub fn is_doomed(&self) -> bool {
        self.flags.doomed
    }
    /// Whether it left its group on purpose.
    pub fn has_left(&self) -> bool {
        self.flags.left
    }
    /// If it may be a daemon in the making: the session that it has to be out of, and until when.
    pub fn parting(&self) -> Option<(u32, Ns)> {
        match self.moment {
            Moment::Parting { session, until } => Some((session, until)),
            Moment::None | Moment::Died(_) => None,
        }
    }
    /// Whether it was dead when the agent started, and is known from what the kernel has kept.
    pub fn is_recalled(&self) -> bool {
        self.flags.recalled
    }
    /// Whether it died when not everybody was known, or when no agent ran, and may have been a master.
    pub fn was_missed(&self) -> bool {
        self.flags.missed
    }
    /// The session it was last seen in: by /proc, or because a record told of it or of a child that it forked.
    pub fn session(&self) -> u32 {
        self.session
    }
    /// Real uid, as last seen.
    pub fn uid(&self) -> u32 {
        self.uid
    }
    /// Whether it had made a session of its own after it was forked and then exec'd, which is how one starts a daemon; or one between it
    /// and the next in its lineage did that has been forgotten.
    pub fn walked_off(&self, before: Ns) -> bool {
        let execed = self.flags.execed && self.image.exec_at < before;
        self.flags.line_walked_off || execed && self.image.session != self.birth_session
    }
    /// Thread name, as last seen.
    pub fn comm(&self) -> &Comm {
        &self.comm
    }
    /// Executable, as last seen.
    pub fn exe(&self) -> &Arc<str> {
        &self.exe
    }
    /// Whether /proc is being asked about it because it has forked.
    pub fn is_asked_about(&self) -> bool {
        self.flags.asked_about
    }
    /// Whether /proc showed none of them when it was last looked at.
    pub fn is_argv_gone(&self) -> bool {
        self.flags.argv_gone
    }
    /// Arguments, as last seen.
    pub fn argv(&self) -> &Argv {
        &self.argv
    }
}

impl Node {
    /// Leaves, if it was about to and is in another session by now.
    pub(super) fn part(&mut self, at: Ns) {
        let Moment::Parting { session, until } = self.moment else { return };
        self.flags.left |= self.session != session;
        if self.flags.left || at > until {
            self.moment = Moment::None;
        }
    }

    pub(super) fn new(key: ProcKey, comm: Comm, image: Arc<Image>) -> Self {
        Self {
            key,
            parent: None,
            first_child: None,
            next_sibling: None,
            prev_sibling: None,
            born_of: None,
            line_since: key.start_ns,
            heirs_of_line: 0,
            same_image_children: 0,
            image,
            argv: Argv::default(),
            exe: Arc::default(),
            comm,
            place: None,
            uid: 0,
            birth_session: 0,
            session: 0,
            parent_asked: 0,
            checked_at: 0,
            moment: Moment::None,
            flags: Flags::default(),
        }
    }
}
