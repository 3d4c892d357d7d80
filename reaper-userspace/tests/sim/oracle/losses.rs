//! Who has lost its master, and what becomes of it (section 2: Orphan, Detached, Heir).

use reaper::core::ids::{Ns, SECOND};
use reaper::core::input::{Exit, Identity, Parent};
use reaper::core::rules::Group;

use super::life::{Life, Loss, Verdict};
use super::{G, Id, Oracle};

impl Oracle {
    /// Section 2, Detached, of those whose master is recognised only later. Whom somebody of its own lineage adopts is still
    /// below that one.
    pub(super) fn note_parting(
        &mut self,
        exit: &Exit,
        dead: Id,
        children: &[Id],
        alone: bool,
        adopter: Option<Id>,
    ) {
        let line = |id: Id| std::iter::successors(Some(id), |&up| self.lives[up].mother);
        let groups = 0..self.rules.groups.len();
        let known = !self.lives[dead].crowned.is_empty() || { groups }
            .any(|g| self.strict_lineage_master(dead, g).is_some());
        let &[child] = children else { return };
        let own = adopter
            .filter(|_| exit.adopter != Parent::Unknown)
            .is_some_and(|a| self.lives[a].key.tgid != 1 && line(child).skip(1).any(|up| up == a));
        if alone && !known && !own && exit.adopter != Parent::NamespaceDies {
            self.lives[child].parting = Some((self.lives[dead].image.session, exit.at + SECOND));
            self.part(exit.at, child);
        }
    }

    pub(super) fn part(&mut self, now: Ns, id: Id) {
        let Some((session, until)) = self.lives[id].parting else { return };
        self.lives[id].detached |= self.lives[id].session != session;
        self.lives[id].parting = self.lives[id].parting.filter(|_| now <= until && !self.lives[id].detached);
    }

    /// Nobody can look at it any more. If it had made its session it was detached, whether or not anybody has looked.
    pub(super) fn decide_at_death(&mut self, now: Ns, id: Id) {
        let session = self.lives[id].session;
        let gone = |l: &Loss| l.verdict == Verdict::Open && l.daemon_unless.is_some_and(|s| s != session);
        let of: Vec<G> = self.lives[id].losses.iter().filter(|(_, l)| gone(l)).map(|(g, _)| *g).collect();
        let cmdline = self.lives[id].argv.line();
        for g in of {
            self.lives[id].detached = true;
            let master = self.rules.groups[g].master.cmdline.as_ref();
            let heir = master.is_some_and(|r| r.is_match(&cmdline));
            self.close(now, id, g, if heir { Verdict::Heir } else { Verdict::Detached });
        }
    }

    pub(super) fn lose(&mut self, id: Id, g: G, loss: &Loss) {
        let decided = |l: &Loss| !matches!(l.verdict, Verdict::NoWorker);
        // The core may still be waiting for the adopter of an earlier loss.
        let waits = self.lives[id].losses.get(&g).is_some_and(|l| l.unsure);
        let doubtful = loss.doubtful || self.strict_lineage_master(id, g).is_none();
        let unsure = loss.unsure || waits || doubtful;
        let daemon_unless = loss.daemon_unless.filter(|_| !waits);
        let loss = Loss { unsure, doubtful, daemon_unless, ..*loss };
        if self.lives[id].losses.get(&g).is_some_and(decided) || !self.is_masterless_worker(id, g) {
            return;
        }
        self.lives[id].losses.insert(g, loss);
    }

    pub(super) fn decide(&mut self, now: Ns, id: Id, g: G, group: &Group, who: &Identity) {
        let Some(loss) = self.lives[id].losses.get(&g).filter(|l| l.verdict == Verdict::Open).cloned() else {
            return;
        };
        // Whoever is above it goes first: if that one left on purpose, it took its children along.
        if self.is_unsettled(id) || self.above(id).into_iter().any(|up| self.is_undecided(up)) {
            return;
        }
        // Who looks like a master above it could not be one as long as there was another: it is looked at first.
        let master = self.rules.groups[g].master.cmdline.clone();
        let alike = |up: &Id| master.as_ref().is_some_and(|r| r.is_match(&self.lives[*up].argv.line()));
        let orphan = |life: &Life| life.losses.get(&g).is_some_and(|l| l.verdict == Verdict::Orphan);
        let may = |life: &Life| !life.reigns.contains_key(&g) && (life.execed || !orphan(life));
        let may_succeed = |up: &Id| may(&self.lives[*up]) && alike(up);
        let unseen = |up: &Id| may_succeed(up) && self.lives[*up].looked_at < loss.since;
        if !self.lives[id].blurred && self.above(id).iter().any(unseen) {
            return;
        }
        let Some(started_by) = self.lineage_master(id, g) else {
            // Whom it descends from left, or was no master any more when it was born.
            return self.close(now, id, g, Verdict::NoWorker);
        };
        let above = self.above(id).into_iter().find(|&up| self.lives[up].reigns.contains_key(&g));
        // It ran a master before the loss, and could be none below another.
        let ran_one = |up: Id| self.lives[up].execed && self.lives[up].image.exec_at < loss.since;
        let of_its_line =
            |up: Id| std::iter::successors(Some(id), |&l| self.lives[l].mother).any(|l| l == up);
        if let Some(up) = above.filter(|&up| up == started_by || ran_one(up) && of_its_line(up)) {
            // Whoever started it has inherited.
            self.lives[id].inherited_by.insert(g, (up, loss));
            self.lives[id].losses.remove(&g);
            return;
        }
        if let Some(session) = loss.daemon_unless {
            if who.session != session {
                self.lives[id].leaving = !loss.doubtful;
                let heir = group.master.matches(who);
                return self.close(now, id, g, if heir { Verdict::Heir } else { Verdict::Detached });
            }
            if now < loss.since + SECOND {
                return;
            }
        }
        let daemon = self.lives[id].left_in.is_some_and(|(session, _)| session != who.session);
        let inherits = loss.child_of_master && self.lives[id].execed;
        let verdict = if (inherits || daemon) && group.master.matches(who) {
            Verdict::Heir
        } else {
            match &group.worker {
                Some(worker) if worker.matches(who) => Verdict::Orphan,
                Some(_) => Verdict::NoWorker,
                None if self.left_the_session(id, g, loss.since) => Verdict::Detached,
                None => Verdict::Orphan,
            }
        };
        self.close(now, id, g, verdict);
        if loss.daemon_unless.is_some() && verdict != Verdict::Heir {
            for below in self.below(id) {
                // What it has forked since is its work.
                let life = &self.lives[below];
                let work = life.key.start_ns > loss.since && life.work_of_orphan.contains(&g);
                if work && !life.lost_its_parent {
                    continue;
                }
                self.lose(below, g, &Loss { child_of_master: false, daemon_unless: None, ..loss });
            }
        }
    }

    pub(super) fn close(&mut self, now: Ns, id: Id, g: G, verdict: Verdict) {
        if let Some(loss) = self.lives[id].losses.get_mut(&g) {
            loss.verdict = verdict;
        }
        if verdict == Verdict::Heir {
            self.enthrone(now, id, g);
        }
    }

    /// Who made a session of his own and then exec'd left on purpose, and took his children along.
    pub(super) fn left_the_session(&self, id: Id, g: G, before: Ns) -> bool {
        let Some(master) = self.lineage_master(id, g) else { return false };
        let mut at = id;
        while at != master {
            let life = &self.lives[at];
            let execed = life.exec_session.filter(|_| life.image.exec_at < before);
            if execed.is_some_and(|session| session != life.birth_session) {
                return true;
            }
            let Some(mother) = life.mother else { return false };
            at = mother;
        }
        false
    }

    /// Nobody who decides by what is recorded and shown can know who is above it.
    pub(super) fn is_unsettled(&self, id: Id) -> bool {
        self.lives[id].unsettled || self.above(id).into_iter().any(|up| self.lives[up].unsettled)
    }

    /// Nobody waits for the end of a loss that the core need not know of.
    pub(super) fn is_undecided(&self, id: Id) -> bool {
        self.lives[id].losses.values().any(|l| l.verdict == Verdict::Open && !l.doubtful)
    }

    pub(super) fn orphan_above(&self, id: Id, g: G) -> bool {
        let lost = |l: &Loss| matches!(l.verdict, Verdict::Orphan | Verdict::Open);
        self.above(id).into_iter().any(|up| self.lives[up].losses.get(&g).is_some_and(lost))
    }
}
