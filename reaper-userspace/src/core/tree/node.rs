//! One process of the tree: what is known of it and what was seen of its life.

use std::sync::Arc;

use bitflags::bitflags;

use super::NodeId;
use super::look::Look;
use crate::core::argv::Argv;
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
    pub(super) look: Arc<Look>,
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

// There is one for every process of a host, and of some there are millions.
const _: () = assert!(size_of::<Node>() <= 112);

/// What only some processes have, and none of them both.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    /// Nothing of the kind.
    None,
    /// It may be a daemon in the making: the session that it has to be out of, and until when.
    Parting { session: u32, until: Ns },
    /// When and how it died: a [`Death`], but for the padding in it.
    Died { at: Ns, status: u32 },
}

bitflags! {
    /// Independent facts about a process.
    #[derive(Clone, Copy, Debug, Default)]
    pub(super) struct Flags: u32 {
        const DEAD = 1 << 0;
        const KERNEL_THREAD = 1 << 1;
        /// Adopts orphans: a subreaper or its pid namespace's pid 1, as far as the snapshot said.
        const REAPER = 1 << 2;
        /// Known from a dump only: who forked it was not seen.
        const LINEAGE_UNKNOWN = 1 << 3;
        /// Its birth was seen while everybody was known: if who forked it is not, that one was nobody's.
        const BORN_IN_SIGHT = 1 << 4;
        /// Executed an image of its own since it was forked, as far as was seen.
        const EXECED = 1 << 5;
        /// Once had two live children of its own image at the same time.
        const HAD_TWO = 1 << 6;
        /// A master of a group, or with one in its lineage.
        const TRACKED = 1 << 7;
        /// Dead, and its exit was not told: the kernel has kept it while no agent ran.
        const RECALLED = 1 << 8;
        /// Died when not everybody was known, or when no agent ran: it may have been a master.
        const MISSED = 1 << 9;
        /// Left its group on purpose (detached): its lineage ends here.
        const LEFT = 1 << 10;
        /// Was live before the dump and is not in it: dead, unless its exit is still to come.
        const DOUBTFUL = 1 << 11;
        /// Only known as the parent in another one's row of a dump.
        const PROVISIONAL = 1 << 12;
        /// Its parent is not known; /proc must be asked.
        const PARENT_UNKNOWN = 1 << 13;
        /// Pid 1 of its pid namespace has died: the kernel is about to kill it.
        const DOOMED = 1 << 14;
        /// It has forked, and /proc is being asked who it is now.
        const ASKED_ABOUT = 1 << 15;
        /// /proc showed no arguments when it was last looked at: its leader has exited, or it is dying.
        const ARGV_GONE = 1 << 16;
        /// One that was between it and the next in its lineage, and has been forgotten, had walked off.
        const LINE_WALKED_OFF = 1 << 17;
    }
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
        !self.flags.contains(Flags::DEAD)
    }
    /// When and how it died, if it did.
    pub fn death(&self) -> Option<Death> {
        match self.moment {
            Moment::Died { at, status } => Some(Death { at, status }),
            Moment::None | Moment::Parting { .. } => None,
        }
    }
    /// Whether it is a kernel thread.
    pub fn is_kernel_thread(&self) -> bool {
        self.flags.contains(Flags::KERNEL_THREAD)
    }
    /// Whether it was known to adopt orphans when it was dumped.
    pub fn is_reaper(&self) -> bool {
        self.flags.contains(Flags::REAPER)
    }
    /// When the next in its lineage forked it, or whoever was between them and has been forgotten.
    pub fn line_since(&self) -> Ns {
        self.line_since
    }
    /// Whether its birth was not seen.
    pub fn is_lineage_unknown(&self) -> bool {
        self.flags.contains(Flags::LINEAGE_UNKNOWN)
    }
    /// Whether it may have been orphaned before anybody saw: neither is its lineage known, nor was its birth seen.
    pub fn may_be_stray(&self) -> bool {
        self.is_lineage_unknown() && !self.flags.contains(Flags::BORN_IN_SIGHT)
    }
    /// Whether it exec'd after it was forked.
    pub fn has_execed(&self) -> bool {
        self.flags.contains(Flags::EXECED)
    }
    /// Whether it ever had two live children of its own image at once.
    pub fn had_two_of_its_image(&self) -> bool {
        self.flags.contains(Flags::HAD_TWO)
    }
    /// Whether it is a master or descends from one.
    pub fn tracked(&self) -> bool {
        self.flags.contains(Flags::TRACKED)
    }
    /// Whether it dies with its pid namespace.
    pub fn is_doomed(&self) -> bool {
        self.flags.contains(Flags::DOOMED)
    }
    /// Whether it left its group on purpose.
    pub fn has_left(&self) -> bool {
        self.flags.contains(Flags::LEFT)
    }
    /// If it may be a daemon in the making: the session that it has to be out of, and until when.
    pub fn parting(&self) -> Option<(u32, Ns)> {
        match self.moment {
            Moment::Parting { session, until } => Some((session, until)),
            Moment::None | Moment::Died { .. } => None,
        }
    }
    /// Whether it was dead when the agent started, and is known from what the kernel has kept.
    pub fn is_recalled(&self) -> bool {
        self.flags.contains(Flags::RECALLED)
    }
    /// Whether it died when not everybody was known, or when no agent ran, and may have been a master.
    pub fn was_missed(&self) -> bool {
        self.flags.contains(Flags::MISSED)
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
        let execed = self.has_execed() && self.image.exec_at < before;
        // Of whom nobody saw the birth, and who leads a session, it is not known that it did not.
        let unseen = self.flags.contains(Flags::LINEAGE_UNKNOWN) && self.session == self.key.tgid;
        self.flags.contains(Flags::LINE_WALKED_OFF)
            || unseen
            || execed && self.image.session != self.birth_session
    }
    /// Thread name, as last seen.
    pub fn comm(&self) -> &Comm {
        &self.look.comm
    }
    /// Executable, as last seen.
    pub fn exe(&self) -> &Arc<str> {
        &self.look.exe
    }
    /// Whether /proc is being asked about it because it has forked.
    pub fn is_asked_about(&self) -> bool {
        self.flags.contains(Flags::ASKED_ABOUT)
    }
    /// Whether /proc showed none of them when it was last looked at.
    pub fn is_argv_gone(&self) -> bool {
        self.flags.contains(Flags::ARGV_GONE)
    }
    /// Arguments, as last seen.
    pub fn argv(&self) -> &Argv {
        &self.look.argv
    }
}

impl Node {
    /// Leaves, if it was about to and is in another session by now.
    pub(super) fn part(&mut self, at: Ns) {
        let Moment::Parting { session, until } = self.moment else { return };
        let left = self.has_left() || self.session != session;
        self.flags.set(Flags::LEFT, left);
        if left || at > until {
            self.moment = Moment::None;
        }
    }

    pub(super) fn new(key: ProcKey, look: Arc<Look>, image: Arc<Image>) -> Self {
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
            look,
            uid: 0,
            birth_session: 0,
            session: 0,
            parent_asked: 0,
            checked_at: 0,
            moment: Moment::None,
            flags: Flags::empty(),
        }
    }
}
