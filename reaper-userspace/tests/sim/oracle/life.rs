//! What is known of one process, and how it lost its masters.

use std::collections::BTreeMap;
use std::rc::Rc;

use reaper::core::argv::Argv;
use reaper::core::ids::{Ns, ProcKey};

use super::{G, Id};

#[derive(Debug)]
pub(super) struct Image {
    pub(super) exec_at: Ns,
    pub(super) session: u32,
}

/// How a process lost its last master of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    pub(super) since: Ns,
    /// It was a child of a master of the group that died.
    pub(super) child_of_master: bool,
    /// It may be a daemon in the making: the session of its dead parent's image.
    pub(super) daemon_unless: Option<u32>,
    /// The record did not name the adopter: it is decided when /proc does, and much can happen until then.
    pub(super) unsure: bool,
    /// It may be no loss at all: only where the history has a gap does a master of the group come into its lineage.
    pub(super) doubtful: bool,
    pub(super) verdict: Verdict,
}

impl Loss {
    /// By nobody in particular; nothing is decided.
    pub(super) fn open(since: Ns) -> Self {
        Self {
            since,
            child_of_master: false,
            daemon_unless: None,
            unsure: false,
            doubtful: false,
            verdict: Verdict::Open,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Open,
    Orphan,
    /// It does not match the worker matcher.
    NoWorker,
    Heir,
    Detached,
}

#[derive(Debug)]
pub(super) struct Life {
    pub(super) key: ProcKey,
    pub(super) mother: Option<Id>,
    pub(super) parent: Option<Id>,
    /// The one that forked it, or adopted it, has exited.
    pub(super) lost_its_parent: bool,
    /// No record named who adopted it, and /proc still names the dead.
    pub(super) unsettled: bool,
    pub(super) alive: bool,
    pub(super) died: Ns,
    pub(super) image: Rc<Image>,
    pub(super) execed: bool,
    /// When the core was told who it is.
    pub(super) looked_at: Ns,
    /// No agent has ever seen a command line of it.
    pub(super) faceless: bool,
    /// Since when it has not looked like the master it is.
    pub(super) doubts: BTreeMap<G, Ns>,
    /// Since when it has not looked like the master it was.
    pub(super) deposed: BTreeMap<G, Ns>,
    /// The session in which it exec'd last, as far as that was seen.
    pub(super) exec_session: Option<u32>,
    /// The session it was forked into.
    pub(super) birth_session: u32,
    /// The one that it was last seen in: by a look, its own records, or its children's births.
    pub(super) session: u32,
    /// Its parent exited as those of daemons do: the session that a daemon is out of, also if its own master adopted it.
    pub(super) left_in: Option<(u32, Ns)>,
    /// Its parent exited as those of daemons do, below nobody known: in another session, seen in time, it has left.
    pub(super) parting: Option<(u32, Ns)>,
    pub(super) had_two: bool,
    pub(super) kernel_thread: bool,
    /// First seen in a dump.
    pub(super) dumped: bool,
    pub(super) blurred: bool,
    /// Nobody can know whether it, or who forked it, left as daemons do: the history of the one that exited above has a gap.
    pub(super) maybe_left: bool,
    /// Its birth came while the core's view was whole, or looked whole: it was not orphaned before the agent looked.
    pub(super) born_in_sight: bool,
    /// Nobody saw it exec: it looks like a child that runs its parent's image.
    pub(super) exec_missed: bool,
    /// Nobody saw it exit.
    pub(super) exit_missed: bool,
    pub(super) detached: bool,
    /// It is when all of its groups have been looked at.
    pub(super) leaving: bool,
    /// Groups that name no workers, of which somebody above it was an orphan when its birth was told: it is that one's work
    /// until that one is gone.
    pub(super) work_of_orphan: Vec<G>,
    /// It has been seen as the job itself: from then on it may be left alone for good.
    pub(super) was_job: bool,
    /// Group → exec times of the image in which it became a master, and of the one in which it was none any more.
    pub(super) crowned: BTreeMap<G, (Ns, Ns)>,
    /// As far as anybody has seen.
    pub(super) argv: Argv,
    pub(super) reigns: BTreeMap<G, ()>,
    pub(super) losses: BTreeMap<G, Loss>,
    /// Who inherited it, as it seemed: a title may be read before the exec is told that it came with.
    pub(super) inherited_by: BTreeMap<G, (Id, Loss)>,
    pub(super) asked: Vec<i32>,
}

impl Life {
    pub(super) fn new(key: ProcKey) -> Self {
        Self {
            key,
            mother: None,
            parent: None,
            lost_its_parent: false,
            unsettled: false,
            alive: true,
            died: 0,
            image: Rc::new(Image { exec_at: 0, session: 0 }),
            execed: false,
            looked_at: 0,
            faceless: false,
            doubts: BTreeMap::new(),
            deposed: BTreeMap::new(),
            exec_session: None,
            birth_session: 0,
            session: 0,
            left_in: None,
            parting: None,
            had_two: false,
            kernel_thread: false,
            dumped: false,
            blurred: false,
            maybe_left: false,
            born_in_sight: false,
            exec_missed: false,
            exit_missed: false,
            detached: false,
            leaving: false,
            work_of_orphan: Vec::new(),
            was_job: false,
            crowned: BTreeMap::new(),
            argv: Argv::default(),
            reigns: BTreeMap::new(),
            losses: BTreeMap::new(),
            inherited_by: BTreeMap::new(),
            asked: Vec::new(),
        }
    }

    /// The core may have seen it otherwise, or not at all.
    pub(super) fn is_unclear(&self) -> bool {
        self.blurred || self.maybe_left
    }
}
