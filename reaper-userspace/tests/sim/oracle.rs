//! What the law says about every process, worked out from the whole history: sections 2 and 3 of the design, written
//! down a second time without a look at the core's code.
//!
//! It is told of everything in the order of the stream, lost records included, and of every look at a process that the
//! core was given: a title that nobody has read yet cannot count. Nothing is ever forgotten and nothing is kept
//! up to date that can be looked up in the history. Where the core cannot know the truth (a record was lost, or came while
//! the tree was being rebuilt) a process is `blurred`: then it *may* be stopped by less and *need* not be stopped at all.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use reaper::core::ids::{Ns, ProcKey, SECOND};
use reaper::core::input::{Exec, Exit, Fork, Identity, Parent, Task};
use reaper::core::rules::{Group, Mode, Rules, Signal};

type Id = usize;
type G = usize;

#[derive(Debug)]
struct Image {
    exec_at: Ns,
    session: u32,
}

/// How a process lost its last master of a group.
#[derive(Clone, Copy, Debug)]
struct Loss {
    since: Ns,
    /// It was a child of a master of the group that died.
    child_of_master: bool,
    /// It may be a daemon in the making: the session of its dead parent's image.
    daemon_unless: Option<u32>,
    /// The record did not name the adopter: it is decided when /proc does, and much can happen until then.
    unsure: bool,
    /// It may be no loss at all: only where the history has a gap does a master of the group come into its lineage.
    doubtful: bool,
    /// Whoever above it may have succeeded its master has been looked at.
    asked_above: bool,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Orphan,
    /// It does not match the worker matcher.
    NoWorker,
    Heir,
    Detached,
}

#[derive(Debug)]
struct Life {
    key: ProcKey,
    mother: Option<Id>,
    parent: Option<Id>,
    /// No record named who adopted it, and /proc still names the dead.
    unsettled: bool,
    alive: bool,
    died: Ns,
    image: Rc<Image>,
    execed: bool,
    /// Since when it has not looked like the master it is.
    doubts: BTreeMap<G, Ns>,
    /// Since when it has not looked like the master it was.
    deposed: BTreeMap<G, Ns>,
    /// The session in which it exec'd last, as far as that was seen.
    exec_session: Option<u32>,
    /// The session it was forked into.
    birth_session: u32,
    /// The one that it was last seen in: by a look, its own records, or its children's births.
    session: u32,
    /// Its parent exited as those of daemons do: the session that a daemon is out of, also if its own master adopted it.
    left_in: Option<u32>,
    /// Its parent exited as those of daemons do, below nobody known: in another session, seen in time, it has left.
    parting: Option<(u32, Ns)>,
    had_two: bool,
    kernel_thread: bool,
    /// First seen in a dump.
    dumped: bool,
    blurred: bool,
    /// Its birth came while the core's view was whole, or looked whole: it was not orphaned before the agent looked.
    born_in_sight: bool,
    /// Nobody saw it exec: it looks like a child that runs its parent's image.
    exec_missed: bool,
    /// Nobody saw it exit.
    exit_missed: bool,
    detached: bool,
    /// Groups that name no workers, of which somebody above it was an orphan when its birth was told: it is that one's work
    /// until that one is gone.
    work_of_orphan: Vec<G>,
    /// It has been seen as the job itself: from then on it may be left alone for good.
    was_job: bool,
    /// Group → exec times of the image in which it became a master, and of the one in which it was none any more.
    crowned: BTreeMap<G, (Ns, Ns)>,
    /// As far as anybody has seen.
    argv: Vec<Arc<str>>,
    reigns: BTreeMap<G, ()>,
    losses: BTreeMap<G, Loss>,
    asked: Vec<i32>,
}

#[derive(Debug, Default)]
pub struct Oracle {
    lives: Vec<Life>,
    by_key: BTreeMap<ProcKey, Id>,
    rules: Rc<Rules>,
    armed: Vec<bool>,
    /// User and executable of everybody who was a master, or a worker with a master in its lineage.
    likenesses: Vec<BTreeSet<(u32, Arc<str>)>>,
    /// (when, whom, group), first signals only.
    stopped: Vec<(Ns, ProcKey, G)>,
    /// Per process: how many signals, and when the last one was.
    sent: BTreeMap<ProcKey, (usize, Ns)>,
    rearmed: Ns,
    broken: Vec<bool>,
    /// The core knows of a loss and has not rebuilt the tree.
    pub blind: bool,
}

/// What was true of a process when it was signalled.
#[derive(Debug)]
pub struct Shot<'a> {
    pub at: Ns,
    pub key: ProcKey,
    pub signal: Signal,
    pub group: &'a str,
    /// Its command line in truth.
    pub who: Identity,
    pub idle_since: Option<Ns>,
    pub alive: bool,
    pub of_the_agent: bool,
    /// The core has ever called it a master.
    pub called_master: bool,
    /// Records are lost and nobody can have noticed: what they would have said cannot count.
    pub unnoticed_loss: bool,
}

impl Oracle {
    pub fn configure(&mut self, now: Ns, rules: Rules) {
        let old = self.rules.clone();
        let to = |g: G| rules.groups.iter().position(|new| new.name == old.groups[g].name);
        for life in &mut self.lives {
            life.crowned = std::mem::take(&mut life.crowned)
                .into_iter()
                .filter_map(|(g, r)| Some((to(g)?, r)))
                .collect();
            life.reigns =
                std::mem::take(&mut life.reigns).into_iter().filter_map(|(g, r)| Some((to(g)?, r))).collect();
            life.losses =
                std::mem::take(&mut life.losses).into_iter().filter_map(|(g, l)| Some((to(g)?, l))).collect();
        }
        self.stopped.retain_mut(|(_, _, g)| to(*g).is_some_and(|new| std::mem::replace(g, new) < G::MAX));
        let were_armed = std::mem::replace(&mut self.armed, vec![false; rules.groups.len()]);
        let were_alike =
            std::mem::replace(&mut self.likenesses, vec![BTreeSet::default(); rules.groups.len()]);
        for (g, (armed, alike)) in were_armed.into_iter().zip(were_alike).enumerate() {
            if let Some(new) = to(g) {
                self.armed[new] = armed;
                self.likenesses[new] = alike;
            }
        }
        self.broken = vec![false; rules.groups.len()];
        self.rules = Rc::new(rules);
        self.rearmed = now;
    }

    pub fn fork(&mut self, fork: &Fork, blurred: bool) {
        if self.by_key.contains_key(&fork.child) {
            return self.learn_birth(fork, blurred);
        }
        let mother = self.by_key.get(&fork.parent).copied();
        let (image, mut blur) = match mother {
            Some(m) => (self.lives[m].image.clone(), blurred),
            None => (Rc::new(Image { exec_at: 0, session: fork.session }), true),
        };
        // Born to somebody who is past the exit tracepoint: its adopter is already the parent.
        let mut parent = mother;
        while let Some(dead) = parent.filter(|&p| !self.lives[p].alive) {
            blur = true;
            parent = self.lives[dead].parent;
        }
        let id = self.add(Life {
            mother,
            parent,
            image,
            blurred: blur,
            birth_session: fork.session,
            ..Life::new(fork.child)
        });
        self.lives[id].kernel_thread = fork.kernel_thread;
        self.lives[id].born_in_sight = !blurred;
        self.lives[id].unsettled = parent != mother || mother.is_none();
        self.lives[id].session = fork.session;
        if let Some(seen) = mother.filter(|&m| self.lives[m].alive) {
            self.lives[seen].session = fork.session;
        }
        self.lives[id].argv = mother.map(|m| self.lives[m].argv.clone()).unwrap_or_default();
        self.count_two(parent);
        let groups = self.rules.groups.iter().enumerate();
        let unnamed: Vec<G> = groups.filter(|(_, group)| group.worker.is_none()).map(|(g, _)| g).collect();
        self.lives[id].work_of_orphan = unnamed.into_iter().filter(|&g| self.orphan_above(id, g)).collect();
        // Bereaved with its siblings, or born to a master and told when that one was seen to be none any more.
        let (late, deposed) = (parent != mother, mother.map(|m| self.lives[m].deposed.clone()));
        let deposed = deposed.unwrap_or_default();
        for g in 0..self.rules.groups.len() {
            if late || deposed.get(&g).is_some_and(|&since| fork.at < since) {
                self.lose(
                    id,
                    g,
                    &Loss {
                        since: fork.at,
                        child_of_master: false,
                        daemon_unless: None,
                        unsure: late,
                        doubtful: false,
                        asked_above: false,
                        verdict: Verdict::Open,
                    },
                );
            }
        }
    }

    fn learn_birth(&mut self, fork: &Fork, blurred: bool) {
        let id = self.by_key[&fork.child];
        self.lives[id].blurred |= blurred;
        if let Some(&mother) = self.by_key.get(&fork.parent) {
            self.lives[id].birth_session = fork.session;
            self.lives[id].mother = Some(mother);
            // Its row came without its parent's: that one was born when the dump had passed its pid.
            if self.lives[id].parent.is_none() && self.lives[mother].alive {
                self.lives[id].parent = Some(mother);
            }
        }
    }

    pub fn exec(&mut self, exec: &Exec, blurred: bool) {
        let known = self.by_key.get(&exec.key).copied();
        let id = known.unwrap_or_else(|| {
            self.add(Life { dumped: true, blurred: true, birth_session: exec.session, ..Life::new(exec.key) })
        });
        let life = &mut self.lives[id];
        life.image = Rc::new(Image { exec_at: exec.at, session: exec.session });
        life.execed |= !blurred;
        if !blurred {
            life.exec_session = Some(exec.session);
        }
        life.had_two = false;
        life.session = exec.session;
        life.blurred |= blurred;
        life.argv.clone_from(&exec.argv);
        // It was seen to be no master any more before this was told.
        for (g, reign) in &mut life.crowned {
            if !life.reigns.contains_key(g) {
                reign.1 = reign.1.min(exec.at);
            }
        }
        life.exec_missed |= blurred;
        let who = Identity {
            at: exec.at,
            comm: exec.comm.clone(),
            argv: exec.argv.clone(),
            exe: exec.filename.clone(),
            uid: exec.uid,
            ppid: 0,
            session: exec.session,
            cgroups: Vec::new(),
        };
        for (g, group) in self.rules.clone().groups.iter().enumerate() {
            if group.master.matches(&who) {
                self.armed[g] = true;
                self.likenesses[g].insert((who.uid, who.exe.clone()));
                // It may be looked at before it dies, and then it was one.
                if blurred {
                    self.lives[id].crowned.insert(g, (exec.at, Ns::MAX));
                }
            }
        }
        if !blurred {
            self.crown(exec.at, id, &who);
        }
    }

    /// `adopter` is the true one.
    pub fn exit(&mut self, exit: &Exit, adopter: Option<ProcKey>, namespace_dies: bool, blurred: bool) {
        let Some(&dead) = self.by_key.get(&exit.key).filter(|&&d| self.lives[d].alive) else { return };
        // A dump shows its children below whoever adopted them, before its exit is told.
        let forked = |c: &Id| self.lives[*c].alive && self.lives[*c].mother == Some(dead);
        let moved_on = |c: &Id| forked(c) && self.lives[*c].parent != Some(dead);
        let moved_on: Vec<Id> = (0..self.lives.len()).filter(moved_on).collect();
        let mut children: Vec<Id> = self.children(dead);
        let mut below = self.below(dead);
        let known_below = below.len();
        for &child in &moved_on {
            children.push(child);
            below.push(child);
            below.extend(self.below(child));
        }
        self.decide_at_death(exit.at, dead);
        let reigned: Vec<G> = self.lives[dead].reigns.keys().copied().collect();
        let seems_alone = exit.status == 0 && children.len() == 1 && !self.lives[dead].had_two;
        let gap = blurred || self.lives[dead].blurred;
        let alone = seems_alone && !gap;
        // With a gap in its parent's history the core may give the child a second for its setsid, or none.
        let maybe_alone = seems_alone && gap;
        let session = self.lives[dead].image.session;
        let adopter = adopter.and_then(|a| self.by_key.get(&a).copied());
        if let (&[child], true) = (&children[..], alone) {
            self.lives[child].left_in = Some(session);
        }
        // Nobody can know how it exited whose record is lost.
        self.note_parting(exit, dead, &children, seems_alone && !blurred, adopter);
        self.lives[dead].alive = false;
        self.lives[dead].died = exit.at;
        self.lives[dead].exit_missed = blurred;
        self.lives[dead].reigns.clear();
        self.lives[dead].parent = adopter;
        for &child in children.iter().filter(|c| !moved_on.contains(c)) {
            self.lives[child].parent = adopter;
            self.lives[child].unsettled |= exit.adopter == Parent::Unknown;
        }
        self.count_two(adopter);
        if blurred {
            for &id in &below {
                self.lives[id].blurred = true;
            }
        }
        if namespace_dies {
            return;
        }
        // Whoever had lost a master before and was not decided: it may be a daemon in the making now.
        for &child in children.iter().filter(|_| alone) {
            let open = self.lives[child].losses.values_mut();
            for loss in open.filter(|l| l.verdict == Verdict::Open && !l.unsure) {
                (loss.daemon_unless, loss.since) = (Some(session), exit.at);
            }
        }
        for (n, &id) in below.iter().enumerate() {
            for g in 0..self.rules.groups.len() {
                let direct = children.contains(&id);
                let daemon_unless = (alone && direct).then_some(session);
                self.lose(
                    id,
                    g,
                    &Loss {
                        since: exit.at,
                        child_of_master: direct && reigned.contains(&g),
                        daemon_unless,
                        unsure: exit.adopter == Parent::Unknown || (direct && maybe_alone),
                        // The core asks for a loss before the dump when it has looked at everybody.
                        doubtful: n >= known_below,
                        asked_above: false,
                        verdict: Verdict::Open,
                    },
                );
            }
        }
    }

    /// Section 2, Detached, of those whose master is recognised only later. Whom somebody of its own lineage adopts is still
    /// below that one.
    fn note_parting(&mut self, exit: &Exit, dead: Id, children: &[Id], alone: bool, adopter: Option<Id>) {
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

    fn part(&mut self, now: Ns, id: Id) {
        let Some((session, until)) = self.lives[id].parting else { return };
        self.lives[id].detached |= self.lives[id].session != session;
        self.lives[id].parting = self.lives[id].parting.filter(|_| now <= until && !self.lives[id].detached);
    }

    /// Nobody can look at it any more. If it had made its session it was detached, whether or not anybody has looked.
    fn decide_at_death(&mut self, now: Ns, id: Id) {
        let session = self.lives[id].session;
        let gone = |l: &Loss| l.verdict == Verdict::Open && l.daemon_unless.is_some_and(|s| s != session);
        let of: Vec<G> = self.lives[id].losses.iter().filter(|(_, l)| gone(l)).map(|(g, _)| *g).collect();
        let cmdline = self.lives[id].argv.join(" ");
        for g in of {
            self.lives[id].detached = true;
            let master = self.rules.groups[g].master.cmdline.as_ref();
            let heir = master.is_some_and(|r| r.is_match(&cmdline));
            self.close(now, id, g, if heir { Verdict::Heir } else { Verdict::Detached });
        }
    }

    fn lose(&mut self, id: Id, g: G, loss: &Loss) {
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

    /// A row of a dump, before what was buffered meanwhile.
    pub fn row(&mut self, row: &Task, parent: Option<ProcKey>) {
        let parent = parent.and_then(|p| self.by_key.get(&p).copied());
        match self.by_key.get(&row.key) {
            Some(&id) => {
                self.lives[id].blurred = true;
                self.lives[id].unsettled = false;
            }
            None => {
                let image = Rc::new(Image { exec_at: 0, session: row.session });
                let birth_session = row.session;
                let life = Life {
                    image,
                    birth_session,
                    session: row.session,
                    dumped: true,
                    blurred: true,
                    ..Life::new(row.key)
                };
                let id = self.add(Life { kernel_thread: row.kernel_thread, ..life });
                self.lives[id].mother = parent;
                self.lives[id].parent = parent;
            }
        }
    }

    /// After all rows are in: their parents, which may come later than they.
    pub fn row_parents(&mut self, rows: &[(ProcKey, Option<ProcKey>)]) {
        for (key, parent) in rows {
            let Some(&id) = self.by_key.get(key) else { continue };
            let parent = parent.and_then(|p| self.by_key.get(&p).copied());
            if self.lives[id].dumped && self.lives[id].mother.is_none() {
                self.lives[id].mother = parent;
                self.lives[id].parent = parent;
            }
        }
    }

    /// Everybody: the core's view has a gap.
    pub fn blur(&mut self) {
        for life in self.lives.iter_mut().filter(|l| l.alive) {
            life.blurred = true;
        }
    }

    pub fn signal_seen(&mut self, target: ProcKey, signal: i32) {
        if let Some(&id) = self.by_key.get(&target) {
            self.lives[id].asked.push(signal);
        }
    }

    /// The core was told who a process is.
    pub fn look(&mut self, now: Ns, key: ProcKey, who: &Identity, clear: bool) {
        let Some(&id) = self.by_key.get(&key) else { return };
        if !self.lives[id].alive {
            return self.look_at_the_dying(id, who);
        }
        let mut who = who.clone();
        if who.argv.is_empty() {
            who.argv.clone_from(&self.lives[id].argv);
        }
        self.lives[id].argv.clone_from(&who.argv);
        self.lives[id].session = who.session;
        let parent = self.lives[id].parent.map_or(0, |p| self.lives[p].key.tgid);
        self.lives[id].unsettled &= who.ppid != parent;
        self.part(now, id);
        let who = &who;
        let rules = self.rules.clone();
        let cmdline = who.cmdline();
        let is_job = |group: &Group| group.stop.job_children.iter().any(|r| r.is_match(&cmdline));
        self.lives[id].was_job |= rules.groups.iter().any(is_job);
        let undecided = self.lives[id].losses.values().any(|l| l.verdict == Verdict::Open);
        for (g, group) in rules.groups.iter().enumerate() {
            self.decide(now, id, g, group, who);
        }
        let verdict = |v: Verdict| self.lives[id].losses.values().any(|l| l.verdict == v);
        let left = |g: G| self.lives[id].losses.get(&g).is_some_and(|l| l.verdict == Verdict::Detached);
        let belongs = |g: G| self.lineage_master(id, g).is_some();
        if undecided && verdict(Verdict::Detached) && (0..rules.groups.len()).all(|g| left(g) || !belongs(g))
        {
            self.lives[id].detached = true;
        }
        self.crown(now, id, who);
        for (g, group) in rules.groups.iter().enumerate() {
            let life = &self.lives[id];
            let lineage = life.blurred || self.lineage_master(id, g).is_some();
            let worker = lineage && group.worker.as_ref().is_some_and(|w| w.matches(who));
            if worker || life.crowned.contains_key(&g) {
                self.likenesses[g].insert((who.uid, who.exe.clone()));
            }
        }
        if clear && !who.argv.is_empty() {
            self.uncrown(now, id, who);
        }
        for (g, group) in rules.groups.iter().enumerate() {
            // Born below an orphan, or a worker by its title.
            let named = group.worker.as_ref().is_some_and(|w| w.matches(who)) && !group.master.matches(who);
            let known = self.lives[id].losses.get(&g).is_some_and(|l| l.verdict != Verdict::NoWorker);
            if named && !known && !self.is_unsettled(id) && self.is_masterless_worker(id, g) {
                let loss = Loss {
                    since: now,
                    child_of_master: false,
                    daemon_unless: None,
                    unsure: false,
                    doubtful: false,
                    asked_above: false,
                    verdict: Verdict::Orphan,
                };
                self.lives[id].losses.insert(g, loss);
            }
        }
    }

    /// /proc still shows it, and the record of its exit is lost: the core has seen a master, whose workers it can know to
    /// be orphans once it knows of the loss.
    fn look_at_the_dying(&mut self, id: Id, who: &Identity) {
        let since = self.lives[id].image.exec_at;
        for (g, group) in self.rules.clone().groups.iter().enumerate() {
            if self.lives[id].exit_missed && group.master.matches(who) {
                self.lives[id].crowned.entry(g).or_insert((since, Ns::MAX));
                self.armed[g] = true;
            }
        }
    }

    fn decide(&mut self, now: Ns, id: Id, g: G, group: &Group, who: &Identity) {
        let Some(loss) = self.lives[id].losses.get(&g).filter(|l| l.verdict == Verdict::Open).cloned() else {
            return;
        };
        // Whoever is above it goes first: if that one left on purpose, it took its children along.
        if self.is_unsettled(id) || self.above(id).into_iter().any(|up| self.is_undecided(up)) {
            return;
        }
        // Who looks like a master above it could not be one as long as there was another: it is looked at first.
        let master = self.rules.groups[g].master.cmdline.clone();
        let alike = |up: &Id| master.as_ref().is_some_and(|r| r.is_match(&self.lives[*up].argv.join(" ")));
        let orphan = |life: &Life| life.losses.get(&g).is_some_and(|l| l.verdict == Verdict::Orphan);
        let may = |life: &Life| !life.reigns.contains_key(&g) && (life.execed || !orphan(life));
        let may_succeed = |up: &Id| may(&self.lives[*up]) && alike(up);
        if !loss.asked_above && !self.lives[id].blurred && self.above(id).iter().any(may_succeed) {
            if let Some(loss) = self.lives[id].losses.get_mut(&g) {
                loss.asked_above = true;
            }
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
        if above.is_some_and(|up| up == started_by || ran_one(up) && of_its_line(up)) {
            // Whoever started it has inherited.
            self.lives[id].losses.remove(&g);
            return;
        }
        if let Some(session) = loss.daemon_unless {
            if who.session != session {
                self.lives[id].detached = true;
                let heir = group.master.matches(who);
                return self.close(now, id, g, if heir { Verdict::Heir } else { Verdict::Detached });
            }
            if now < loss.since + SECOND {
                return;
            }
        }
        let daemon = self.lives[id].left_in.is_some_and(|session| session != who.session);
        let inherits = loss.child_of_master && self.lives[id].execed;
        let verdict = if (inherits || daemon) && group.master.matches(who) {
            Verdict::Heir
        } else {
            match &group.worker {
                Some(worker) if worker.matches(who) => Verdict::Orphan,
                Some(_) => Verdict::NoWorker,
                None if self.left_the_session(id, g) => Verdict::Detached,
                None => Verdict::Orphan,
            }
        };
        self.close(now, id, g, verdict);
        if loss.daemon_unless.is_some() && verdict != Verdict::Heir {
            for below in self.below(id) {
                self.lose(below, g, &Loss { child_of_master: false, daemon_unless: None, ..loss });
            }
        }
    }

    fn close(&mut self, now: Ns, id: Id, g: G, verdict: Verdict) {
        if let Some(loss) = self.lives[id].losses.get_mut(&g) {
            loss.verdict = verdict;
        }
        if verdict == Verdict::Heir {
            self.enthrone(now, id, g);
        }
    }

    /// Who made a session of his own and then exec'd left on purpose, and took his children along.
    fn left_the_session(&self, id: Id, g: G) -> bool {
        let Some(master) = self.lineage_master(id, g) else { return false };
        let mut at = id;
        while at != master {
            let life = &self.lives[at];
            if life.exec_session.is_some_and(|session| session != life.birth_session) {
                return true;
            }
            let Some(mother) = life.mother else { return false };
            at = mother;
        }
        false
    }

    fn crown(&mut self, now: Ns, id: Id, who: &Identity) {
        if self.lives[id].kernel_thread || self.is_undecided(id) || self.is_unsettled(id) {
            return;
        }
        let rules = self.rules.clone();
        for (g, group) in rules.groups.iter().enumerate() {
            if !group.master.matches(who) {
                continue;
            }
            if self.lives[id].reigns.contains_key(&g) {
                // It looks like one again: what it forks is its worker.
                self.lives[id].doubts.remove(&g);
                self.lives[id].crowned.entry(g).and_modify(|r| r.1 = Ns::MAX);
                continue;
            }
            // An orphan does not become a master by its title alone; but by an exec, whoever above it has done so too.
            let orphan = self.lives[id].losses.get(&g).is_some_and(|l| l.verdict == Verdict::Orphan);
            if if orphan { self.lives[id].execed } else { !self.master_above(id, g) } {
                self.enthrone(now, id, g);
            }
        }
    }

    fn enthrone(&mut self, _now: Ns, id: Id, g: G) {
        let since = self.lives[id].image.exec_at;
        self.lives[id].crowned.insert(g, (since, Ns::MAX));
        self.lives[id].reigns.insert(g, ());
        self.lives[id].deposed.remove(&g);
        self.armed[g] = true;
        // Of whichever group it was an orphan.
        self.lives[id].losses.retain(|_, l| l.verdict != Verdict::Orphan);
    }

    fn uncrown(&mut self, now: Ns, id: Id, who: &Identity) {
        let rules = self.rules.clone();
        for (g, group) in rules.groups.iter().enumerate() {
            if group.master.matches(who) || !self.lives[id].reigns.contains_key(&g) {
                if self.lives[id].doubts.remove(&g).is_some() && group.master.matches(who) {
                    self.lives[id].crowned.entry(g).and_modify(|r| r.1 = Ns::MAX);
                }
                continue;
            }
            // One look is not enough: titles are rewritten in place.
            let since = *self.lives[id].doubts.entry(g).or_insert(now);
            // But what it has forked since it runs something else is not its worker.
            let exec_at = self.lives[id].image.exec_at;
            if let Some(reign) = self.lives[id].crowned.get_mut(&g).filter(|r| r.0 < exec_at) {
                reign.1 = reign.1.min(exec_at);
            }
            // In a gap the core may never have taken it for one: it looked like its parent, as children do.
            let never = self.lives[id].blurred && !self.lives[id].execed;
            if now - since < SECOND && !never {
                continue;
            }
            self.lives[id].reigns.remove(&g);
            self.lives[id].doubts.remove(&g);
            self.lives[id].deposed.insert(g, since);
            // Heir no more: if it takes a worker's title it is one.
            if self.lives[id].losses.get(&g).is_some_and(|l| l.verdict == Verdict::Heir) {
                self.lives[id].losses.remove(&g);
            }
            for below in self.below(id) {
                let loss = Loss {
                    since: now,
                    child_of_master: false,
                    daemon_unless: None,
                    unsure: false,
                    doubtful: false,
                    asked_above: false,
                    verdict: Verdict::Open,
                };
                self.lose(below, g, &loss);
            }
        }
    }

    /// Nobody who decides by what is recorded and shown can know who is above it.
    fn is_unsettled(&self, id: Id) -> bool {
        self.lives[id].unsettled || self.above(id).into_iter().any(|up| self.lives[up].unsettled)
    }

    /// Nobody waits for the end of a loss that the core need not know of.
    fn is_undecided(&self, id: Id) -> bool {
        self.lives[id].losses.values().any(|l| l.verdict == Verdict::Open && !l.doubtful)
    }

    /// It has a master in its lineage, none above it, and nobody above it may still turn out to be one.
    fn is_masterless_worker(&self, id: Id, g: G) -> bool {
        let maybe = |l: &Loss| l.verdict == Verdict::Open && l.daemon_unless.is_some();
        let undecided_above =
            || self.above(id).into_iter().any(|up| self.lives[up].losses.get(&g).is_some_and(maybe));
        self.lives[id].reigns.is_empty()
            && self.lineage_master(id, g).is_some()
            && !self.master_above(id, g)
            && !undecided_above()
    }

    fn lineage_master(&self, id: Id, g: G) -> Option<Id> {
        self.find_master_of(id, g, true)
    }

    fn strict_lineage_master(&self, id: Id, g: G) -> Option<Id> {
        self.find_master_of(id, g, false)
    }

    fn find_master_of(&self, id: Id, g: G, lenient: bool) -> Option<Id> {
        let mut below = id;
        while !self.lives[below].detached {
            let up = self.lives[below].mother?;
            let blurred = lenient && (self.lives[below].blurred || self.lives[up].blurred);
            // Whom it forked before the exec that made it a master, it forked as something else. So it may have forked whom it
            // forked after it was seen to be none any more.
            let born = self.lives[below].key.start_ns;
            let was_seen = self.lives[up].deposed.get(&g).is_some_and(|&since| since <= born);
            let reigned = self.lives[up].crowned.get(&g);
            if reigned.is_some_and(|&(from, to)| (from..to).contains(&born) || blurred)
                && (lenient || !was_seen)
            {
                return Some(up);
            }
            below = up;
        }
        None
    }

    fn master_above(&self, id: Id, g: G) -> bool {
        self.above(id).into_iter().any(|up| self.lives[up].reigns.contains_key(&g))
    }

    fn orphan_above(&self, id: Id, g: G) -> bool {
        let lost = |l: &Loss| matches!(l.verdict, Verdict::Orphan | Verdict::Open);
        self.above(id).into_iter().any(|up| self.lives[up].losses.get(&g).is_some_and(lost))
    }

    fn above(&self, id: Id) -> Vec<Id> {
        let mut ids = Vec::new();
        let mut next = self.lives[id].parent;
        while let Some(up) = next.filter(|up| !ids.contains(up)) {
            ids.push(up);
            next = self.lives[up].parent;
        }
        ids
    }

    fn children(&self, id: Id) -> Vec<Id> {
        (0..self.lives.len()).filter(|&c| self.lives[c].alive && self.lives[c].parent == Some(id)).collect()
    }

    fn below(&self, id: Id) -> Vec<Id> {
        let mut ids = self.children(id);
        let mut next = 0;
        while let Some(&id) = ids.get(next) {
            ids.extend(self.children(id));
            next += 1;
        }
        ids
    }

    fn count_two(&mut self, parent: Option<Id>) {
        let Some(parent) = parent else { return };
        let image = &self.lives[parent].image;
        let same =
            self.children(parent).into_iter().filter(|&c| Rc::ptr_eq(&self.lives[c].image, image)).count();
        self.lives[parent].had_two |= same >= 2;
    }

    fn add(&mut self, life: Life) -> Id {
        self.by_key.insert(life.key, self.lives.len());
        self.lives.push(life);
        self.lives.len() - 1
    }

    /// Section 3, for one signal. The error says which rule it breaks.
    pub fn judge(&mut self, shot: &Shot<'_>) -> Result<(), String> {
        let rules = self.rules.clone();
        let Some(g) = rules.groups.iter().position(|g| g.name == shot.group) else {
            return no("there is no such group");
        };
        let group = &rules.groups[g];
        let Some(&id) = self.by_key.get(&shot.key) else { return no("nobody knows that process") };
        let life = &self.lives[id];
        check(shot.alive && life.alive, "it is not alive, or not that process")?;
        check(shot.key.tgid != 1, "it is pid 1")?;
        check(!life.kernel_thread, "it is a kernel thread")?;
        check(!shot.of_the_agent, "it is the agent or above it")?;
        check(!rules.protect.iter().any(|p| p.is_match(&*shot.who.comm)), "it is protected")?;
        check(group.mode == Mode::Enforce, "the group observes")?;
        check(!self.blind, "events are lost and the tree is not rebuilt")?;
        let cmdline = shot.who.cmdline();
        check(!group.stop.job_children.iter().any(|r| r.is_match(&cmdline)), "it is the job itself")?;
        if shot.unnoticed_loss {
            return self.judge_step(shot, g, group);
        }
        // Looked at before the one above it, in a gap: both seemed to be masters.
        let below_another = |&g: &G| life.blurred && self.master_above(id, g);
        // In a gap it may have been seen for the first time when it was a worker again, or below a master.
        let may_be_unseen = life.blurred && !life.execed && !shot.called_master;
        let reigns = !may_be_unseen && life.reigns.keys().any(|g| !below_another(g));
        check(!reigns || life.exec_missed, "it is a master or an heir")?;
        let since = self.orphaned_since(id, g, group, &shot.who)?;
        let overdue = group.stop.deadline > 0 && shot.at >= since + group.stop.deadline;
        let quiet = shot.idle_since.is_some_and(|t| t + group.idle.quiet <= shot.at);
        check(overdue || quiet, "it is not idle, or not for long enough")?;
        let drains = life.asked.iter().any(|&s| group.stop.signals.contains(&Signal(s)));
        check(overdue || !drains, "somebody else has asked it to stop")?;
        // In a gap somebody may be taken for a master who is still undecided here.
        let looks_like_one = |l: &Life| {
            l.blurred && group.master.cmdline.as_ref().is_some_and(|r| r.is_match(&l.argv.join(" ")))
        };
        let was_one = |l: &Life| l.blurred && l.crowned.contains_key(&g);
        let is_one = |l: &Life| l.reigns.contains_key(&g) || looks_like_one(l) || was_one(l);
        let replaced = self.lives.iter().any(|l| l.alive && is_one(l));
        check(
            group.stop.when == reaper::core::rules::When::Always || replaced,
            "nobody has replaced its master",
        )?;
        self.judge_step(shot, g, group)
    }

    fn judge_step(&mut self, shot: &Shot<'_>, g: G, group: &Group) -> Result<(), String> {
        let (sent, last) = self.sent.get(&shot.key).copied().unwrap_or_default();
        let kill = (sent == group.stop.signals.len() && group.stop.kill).then_some(Signal::KILL);
        let expected = group.stop.signals.get(sent).copied().or(kill);
        check(expected == Some(shot.signal), "it is not the turn of that signal")?;
        check(sent == 0 || shot.at >= last + group.stop.grace, "the grace of the last signal is not over")?;
        check(!self.broken[g], "the group's breaker is open")?;
        self.sent.insert(shot.key, (sent + 1, shot.at));
        if sent == 0 {
            self.stopped.push((shot.at, shot.key, g));
        }
        let start = shot.at.saturating_sub(group.stop.window).max(self.rearmed);
        let in_window = self.stopped.iter().filter(|(t, _, of)| *t > start && *of == g).count();
        check(in_window <= group.stop.max_kills as usize, "that is one more than max_kills")
    }

    pub fn breaker_opened(&mut self, group: &str) {
        let rules = self.rules.clone();
        for (g, _) in rules.groups.iter().enumerate().filter(|(_, r)| r.name == group) {
            self.broken[g] = true;
        }
    }

    fn orphaned_since(&self, id: Id, g: G, group: &Group, who: &Identity) -> Result<Ns, String> {
        let life = &self.lives[id];
        let named = group.worker.as_ref().is_some_and(|w| w.matches(who));
        // Nobody has ever seen where it came from.
        let stray = life.blurred && !life.born_in_sight && named && !self.master_above(id, g);
        if let Some(loss) = life.losses.get(&g) {
            match loss.verdict {
                Verdict::Orphan => return Ok(self.since_when(id, g, loss)),
                Verdict::Open if (loss.unsure || life.blurred) && loss.daemon_unless.is_none() => {
                    return Ok(self.since_when(id, g, loss));
                }
                Verdict::Open => return no("its fate is not decided"),
                // Its exec, and with it that it became something else, is lost.
                Verdict::Heir if life.exec_missed && !group.master.matches(who) => {
                    return Ok(self.since_when(id, g, loss));
                }
                Verdict::Heir => return no("it is an heir"),
                // Those that tell how it left are lost: all that can be known of it is what it looks like.
                Verdict::Detached | Verdict::NoWorker if stray => {}
                Verdict::Detached => return no("it left on purpose"),
                Verdict::NoWorker => return no("it is not a worker"),
            }
        }
        if stray {
            check(self.armed[g], "it is a stray and the group is unarmed")?;
            let alike = self.likenesses[g].contains(&(who.uid, who.exe.clone()));
            check(alike, "nobody of the group was of its user and executable")?;
            return Ok(life.key.start_ns);
        }
        // Seen later than it happened: who was a master for a while, or was forked by one that is none any more.
        let orphans_above = self
            .above(id)
            .into_iter()
            .any(|up| self.lives[up].losses.get(&g).is_some_and(|l| l.verdict == Verdict::Orphan));
        let unsure = |up: Id| self.lives[up].losses.values().any(|l| l.unsure);
        let unsure_above = self.above(id).into_iter().any(unsure);
        let is_worker = group.worker.as_ref().is_none_or(|w| w.matches(who));
        if self.is_masterless_worker(id, g) && is_worker && (!orphans_above || life.blurred || unsure_above) {
            return Ok(life.key.start_ns);
        }
        // An exec was lost: the core cannot tell the master above from any other worker.
        let known_master = |up: Id| self.lives[up].reigns.contains_key(&g) && !self.lives[up].exec_missed;
        let master_above = self.above(id).into_iter().any(known_master);
        if life.blurred && is_worker && !master_above && self.lineage_master(id, g).is_some() {
            return Ok(life.key.start_ns);
        }
        no("it is no orphan")
    }

    /// Since when it is an orphan. What is born below an orphan is one as well (section 2: no live master of its group in its
    /// ancestry), but is left to that one until it is gone, and of a loss that was told before anybody knew the master nobody
    /// took notice: so its deadline may count from its birth or from the first death between it and its master, whichever came
    /// later. Who was a master in a gap only may be known for no more than a worker of the one before.
    fn since_when(&self, id: Id, g: G, loss: &Loss) -> Ns {
        let master = self.lineage_master(id, g);
        let line = std::iter::successors(self.lives[id].mother, |&up| {
            self.lives[up].mother.filter(|_| Some(up) != master || self.lives[up].blurred)
        });
        let first = line.filter(|&up| !self.lives[up].alive).map(|up| self.lives[up].died).min();
        first.map_or(loss.since, |died| loss.since.min(died.max(self.lives[id].key.start_ns)))
    }

    /// Those that must be stopped sooner or later, and the group that must do it: what is certain only.
    pub fn must_stop(&self) -> Vec<(ProcKey, G)> {
        let waits = |id: Id| self.lives[id].losses.values().any(|l| l.unsure);
        let clear_above = |life: &Life| !self.above(self.by_key[&life.key]).into_iter().any(waits);
        let certain =
            |life: &&Life| life.alive && clear_above(life) && !life.was_job && life.crowned.is_empty();
        let acting = |life: &Life| {
            // The first that enforces acts; if that is one that the core need not know of, no other has to.
            let orphan = life.losses.iter().filter(|(_, l)| l.verdict == Verdict::Orphan);
            // Where a breaker is open, somebody has to look first.
            if orphan.clone().any(|(g, _)| self.broken[*g]) {
                return None;
            }
            let (&g, loss) = { orphan }.find(|(g, _)| self.rules.groups[**g].mode == Mode::Enforce)?;
            let id = self.by_key[&life.key];
            let is_work = life.work_of_orphan.contains(&g) && self.orphan_above(id, g);
            (!loss.unsure && !is_work && self.is_certain(life, g)).then_some(g)
        };
        self.lives.iter().filter(certain).filter_map(|l| Some((l.key, acting(l)?))).collect()
    }

    /// Nothing that the core knows of it, or of those between it and its master, has a gap.
    fn is_certain(&self, life: &Life, g: G) -> bool {
        let mut below = life;
        while let Some(mother) = below.mother.map(|m| &self.lives[m]) {
            if below.blurred || !below.crowned.is_empty() {
                return false;
            }
            if mother.crowned.get(&g).is_some_and(|&(from, to)| (from..to).contains(&below.key.start_ns)) {
                let was_seen = mother.deposed.get(&g).is_some_and(|&since| since <= below.key.start_ns);
                return !mother.blurred && !was_seen;
            }
            below = mother;
        }
        false
    }

    /// What the oracle thinks of a process.
    pub fn describe(&self, key: ProcKey) -> String {
        let Some(life) = self.by_key.get(&key).map(|&id| &self.lives[id]) else {
            return "unknown".to_owned();
        };
        let name = |g: &G| self.rules.groups[*g].name.clone();
        let mut words: Vec<String> = life.reigns.keys().map(|g| format!("master of {}", name(g))).collect();
        words.extend(
            life.losses.iter().map(|(g, l)| format!("{:?} of {} since {}", l.verdict, name(g), l.since)),
        );
        words.extend(life.blurred.then(|| "blurred".to_owned()));
        words.extend(life.detached.then(|| "detached".to_owned()));
        words.join(", ")
    }

    pub fn was_asked(&self, key: ProcKey) -> bool {
        self.by_key.get(&key).is_some_and(|&id| !self.lives[id].asked.is_empty())
    }

    pub fn signals_sent(&self, key: ProcKey) -> usize {
        self.sent.get(&key).map_or(0, |s| s.0)
    }

    pub fn is_broken(&self, g: G) -> bool {
        self.broken[g]
    }

    pub fn masters(&self, g: G) -> Vec<ProcKey> {
        self.lives.iter().filter(|l| l.alive && l.reigns.contains_key(&g)).map(|l| l.key).collect()
    }

    /// Live processes whose history has a gap.
    pub fn is_blurred(&self, key: ProcKey) -> bool {
        self.by_key.get(&key).is_none_or(|&id| self.lives[id].blurred)
    }

    /// Dead processes in the lineage of live ones.
    pub fn dead_ancestors(&self) -> usize {
        let mut found = BTreeSet::new();
        for life in self.lives.iter().filter(|l| l.alive) {
            let mut up = life.mother;
            while let Some(id) = up {
                if !self.lives[id].alive {
                    found.insert(id);
                }
                up = self.lives[id].mother;
            }
        }
        found.len()
    }
}

impl Life {
    fn new(key: ProcKey) -> Self {
        Self {
            key,
            mother: None,
            parent: None,
            unsettled: false,
            alive: true,
            died: 0,
            image: Rc::new(Image { exec_at: 0, session: 0 }),
            execed: false,
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
            born_in_sight: false,
            exec_missed: false,
            exit_missed: false,
            detached: false,
            work_of_orphan: Vec::new(),
            was_job: false,
            crowned: BTreeMap::new(),
            argv: Vec::new(),
            reigns: BTreeMap::new(),
            losses: BTreeMap::new(),
            asked: Vec::new(),
        }
    }
}

fn check(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { no(otherwise) }
}

fn no<T>(why: &str) -> Result<T, String> {
    Err(why.to_owned())
}
