//! A worker that has just lost its master or an intermediate, and whose fate is not decided: orphan, heir, or gone on
//! purpose (docs/how-it-decides.md).
//!
//! Nothing is decided before /proc has been read afresh: titles change without any event, and setsid(2) may come after
//! the parent's exit.

use std::collections::BTreeMap;

use super::ids::{MS, Ns, ProcKey, SECOND};
use super::input::Identity;
use super::membership::GroupId;
use super::records::ProcView;
use super::rules::Group;

/// How long a process may take to leave its session after its parent's exit.
pub const DETACH_WITHIN: Ns = SECOND;

/// See [`Bereaved::poll_again`].
const FIRST_POLL: Ns = 5 * MS;

/// One worker without a live master whose fate is open.
#[derive(Clone, Debug)]
pub struct Bereaved {
    /// Who.
    pub key: ProcKey,
    /// The groups whose worker it is and of which no live master is above it, and how it lost the last one of each.
    pub losses: BTreeMap<GroupId, Lost>,
    /// When it lost the first of them, or its parent left as those of daemons do: its second to make a session begins then.
    pub since: Ns,
    /// If it may be the child of a daemonising parent: the session in which the parent's image was exec'd.
    pub exec_session: Option<u32>,
    /// It exec'd after it was forked.
    pub execed: bool,
    /// Whether a live master adopted it was not known at first.
    pub adopter_was_unknown: bool,
    /// The next pause between two looks.
    pub pause: Ns,
}

/// How a process lost the last master of one group.
#[derive(Clone, Debug)]
pub struct Lost {
    /// Who died, if that was seen.
    pub who: Option<ProcView>,
    /// When.
    pub since: Ns,
    /// The one that died was a master of the group itself.
    pub of_master: bool,
    /// It was a child of the one that died.
    pub direct: bool,
}

impl Lost {
    /// One that was no child of the one it lost, so that only its title and its session decide.
    pub fn above(who: Option<ProcView>, since: Ns) -> Self {
        Self { who, since, of_master: false, direct: false }
    }

    /// The same loss in each of these groups.
    pub fn in_each(&self, groups: &[GroupId]) -> BTreeMap<GroupId, Self> {
        groups.iter().map(|&g| (g, self.clone())).collect()
    }
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It may still detach itself: look again.
    Open,
    /// It is detached: a master of these groups, an heir; if there are none, it left on purpose.
    Detached(Vec<GroupId>),
    /// Of some groups it is an heir because it exec'd, of others an orphan; of the rest it is not a worker.
    Decided {
        /// Heir, by exec.
        heir: Vec<GroupId>,
        /// Orphan.
        orphan: Vec<GroupId>,
        /// Not theirs any more: a daemon that somebody started on purpose.
        left: Vec<GroupId>,
    },
}

impl Bereaved {
    /// One that has lost its masters of these groups, and the last of them just now.
    pub fn new(key: ProcKey, losses: BTreeMap<GroupId, Lost>, execed: bool) -> Self {
        let since = losses.values().map(|lost| lost.since).max().unwrap_or_default();
        Self { key, losses, since, exec_session: None, execed, adopter_was_unknown: false, pause: 0 }
    }

    /// Decides, as far as that is possible at `now`. A `daemon` left its parent as daemons do, and a master adopted it then.
    /// `walked_off` says whether it, or whom it descends from, made a session of its own and exec'd below the master of a group.
    pub fn decide(
        &self,
        now: Ns,
        who: &Identity,
        groups: &[Group],
        daemon: bool,
        walked_off: impl Fn(GroupId, Ns) -> bool,
    ) -> Fate {
        let matching = |g: &GroupId| groups[*g].master.matches(who);
        if let Some(exec_session) = self.exec_session {
            if who.session != exec_session {
                return Fate::Detached(self.groups().filter(matching).collect());
            }
            if now < self.since.saturating_add(DETACH_WITHIN) {
                return Fate::Open;
            }
        }
        let (mut heir, mut orphan, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for (&g, lost) in &self.losses {
            let group = &groups[g];
            let inherits = lost.direct && lost.of_master && self.execed;
            if (inherits || daemon) && group.master.matches(who) {
                heir.push(g);
                continue;
            }
            match &group.worker {
                Some(worker) if worker.matches(who) => orphan.push(g),
                Some(_) => {}
                // A new session and an exec: a daemon that somebody of the group started and that left the job. Only
                // groups that name their workers count those.
                None if walked_off(g, lost.since) => left.push(g),
                None => orphan.push(g),
            }
        }
        Fate::Decided { heir, orphan, left }
    }

    /// The groups, in the order of the configuration.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.losses.keys().copied()
    }

    /// Whether one of them is this.
    pub fn is_of(&self, group: GroupId) -> bool {
        self.losses.contains_key(&group)
    }

    /// It has lost its master of a group too, before it was decided what became of it.
    pub fn lose_also(&mut self, group: GroupId, lost: &Lost) {
        self.losses.entry(group).or_insert_with(|| lost.clone());
    }

    /// Its parent has exited as the parents of daemons do, before it was decided what became of it: it has its second from now
    /// on.
    pub fn may_leave(&mut self, at: Ns, session: u32) {
        self.since = at;
        for lost in self.losses.values_mut() {
            lost.since = at;
        }
        self.exec_session = Some(session);
        self.pause = 0;
    }

    /// When an open fate is looked at again: soon at first, then less often.
    pub fn poll_again(&mut self, now: Ns) -> Ns {
        let pause = self.pause.max(FIRST_POLL);
        self.pause = pause.saturating_mul(2).min(DETACH_WITHIN);
        let end = self.since.saturating_add(DETACH_WITHIN);
        let at = now.saturating_add(pause);
        if now < end { at.min(end) } else { at.min(now.saturating_add(SECOND)) }
    }
}
