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

use reaper::core::ids::{Ns, ProcKey};
use reaper::core::input::{Exec, Exit, Fork, Identity, Parent};
use reaper::core::rules::{Group, Rules};

mod family;
mod life;
mod losses;
mod masters;
mod signals;

use life::{Image, Life, Loss, Verdict};
pub use signals::Shot;

type Id = usize;
type G = usize;

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
        // Forked by a sibling with another image, if the session is not its mother's (CLONE_PARENT).
        self.lives[id].maybe_left =
            mother.is_some_and(|m| self.lives[m].maybe_left || self.lives[m].session != fork.session);
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
                self.lose(id, g, &Loss { unsure: late, ..Loss::open(fork.at) });
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
            self.lives[child].left_in = Some((session, exit.at));
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
            self.lives[child].lost_its_parent = true;
            self.lives[child].unsettled |= exit.adopter == Parent::Unknown;
            self.lives[child].maybe_left |= maybe_alone;
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
                        child_of_master: direct && reigned.contains(&g),
                        daemon_unless,
                        unsure: exit.adopter == Parent::Unknown || (direct && maybe_alone),
                        // The core asks for a loss before the dump when it has looked at everybody.
                        doubtful: n >= known_below,
                        ..Loss::open(exit.at)
                    },
                );
            }
        }
    }

    /// The core was told who a process is, which it may have `called` a master.
    pub fn look(&mut self, now: Ns, key: ProcKey, who: &Identity, clear: bool, called: bool) {
        let Some(&id) = self.by_key.get(&key) else { return };
        if !self.lives[id].alive {
            return self.look_at_the_dying(id, who);
        }
        self.lives[id].looked_at = now;
        let mut who = who.clone();
        // Another agent knows nothing of one whose leader had exited before.
        self.lives[id].faceless |= who.argv.is_empty() && self.lives[id].blurred;
        if who.argv.is_empty() {
            // Whether it is the job nobody can read any more.
            self.lives[id].was_job |= self.rules.groups.iter().any(|g| !g.stop.job_children.is_empty());
            who.argv.clone_from(&self.lives[id].argv);
        }
        self.lives[id].argv.clone_from(&who.argv);
        self.lives[id].session = who.session;
        self.settle(now, id, who.ppid);
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
        self.lives[id].detached |= std::mem::take(&mut self.lives[id].leaving);
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
            self.uncrown(now, id, who, called);
        }
        for (g, group) in rules.groups.iter().enumerate() {
            // Born below an orphan, or a worker by its title.
            let named = group.worker.as_ref().is_some_and(|w| w.matches(who)) && !group.master.matches(who);
            let known = self.lives[id].losses.get(&g).is_some_and(|l| l.verdict != Verdict::NoWorker);
            // Whoever is undecided above it goes first.
            let open = |up: Id| self.lives[up].losses.values().any(|l| l.verdict == Verdict::Open);
            let waits = self.is_unsettled(id) || self.above(id).into_iter().any(open);
            if named && !known && !waits && self.is_masterless_worker(id, g) {
                let loss = Loss { verdict: Verdict::Orphan, ..Loss::open(now) };
                self.lives[id].losses.insert(g, loss);
            }
        }
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
}
