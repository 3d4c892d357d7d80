//! Who may be signalled, and who has to be (section 3).

use std::collections::BTreeSet;

use reaper::core::ids::{Ns, ProcKey};
use reaper::core::input::Identity;
use reaper::core::rules::{Group, Mode, Signal};

use super::life::{Life, Loss, Verdict};
use super::{G, Id, Oracle};

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
    /// It is exiting, which /proc does not tell; a signal does nothing to it any more.
    pub dying: bool,
    pub of_the_agent: bool,
    /// Whom the core has ever called a master.
    pub called_masters: &'a BTreeSet<ProcKey>,
    /// Records are lost and nobody can have noticed: what they would have said cannot count.
    pub unnoticed_loss: bool,
}

impl Oracle {
    pub fn signal_seen(&mut self, target: ProcKey, signal: i32) {
        if let Some(&id) = self.by_key.get(&target) {
            self.lives[id].asked.push(signal);
        }
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
        // Nobody can know of an exit whose record is lost.
        let dying = shot.dying && life.exit_missed;
        check((shot.alive && life.alive) || dying, "it is not alive, or not that process")?;
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
        let looks_like_one_now = life.execed && group.master.matches(&shot.who);
        let may_be_unseen =
            life.is_unclear() && !looks_like_one_now && !shot.called_masters.contains(&shot.key);
        let reigns = !may_be_unseen && life.reigns.keys().any(|g| !below_another(g));
        check(!reigns || life.exec_missed, "it is a master or an heir")?;
        let since = self.orphaned_since(id, g, group, shot)?;
        let overdue = group.stop.deadline > 0 && shot.at >= since + group.stop.deadline;
        let quiet = shot.idle_since.is_some_and(|t| t + group.idle.quiet <= shot.at);
        // Pid 1 of a namespace adopts whom setns(2) brought there: until /proc names it, nobody can know.
        let mother = |&id: &Id| self.lives[id].mother;
        let of_its_line = |c: Id| std::iter::successors(Some(c), mother).any(|up| up == id);
        let brought = |&c: &Id| self.lives[c].unsettled && !of_its_line(c);
        let unknown_child = self.children(id).iter().any(brought);
        check(overdue || quiet || unknown_child, "it is not idle, or not for long enough")?;
        let drains = life.asked.iter().any(|&s| group.stop.signals.contains(&Signal(s)));
        check(overdue || !drains, "somebody else has asked it to stop")?;
        // In a gap somebody may be taken for a master who is still undecided here.
        let looks_like_one =
            |l: &Life| l.blurred && group.master.cmdline.as_ref().is_some_and(|r| r.is_match(&l.argv.line()));
        let was_one = |l: &Life| l.blurred && l.crowned.contains_key(&g);
        let is_one = |l: &Life| l.reigns.contains_key(&g) || looks_like_one(l) || was_one(l);
        let replaced = self.lives.iter().any(|l| l.alive && is_one(l));
        check(
            group.stop.when == reaper::core::rules::When::Always || replaced,
            "nobody has replaced its master",
        )?;
        self.judge_step(shot, g, group)
    }

    pub(super) fn judge_step(&mut self, shot: &Shot<'_>, g: G, group: &Group) -> Result<(), String> {
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

    pub(super) fn orphaned_since(&self, id: Id, g: G, group: &Group, shot: &Shot<'_>) -> Result<Ns, String> {
        let who = &shot.who;
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
                // Its exec, and with it that it became something else, is lost; or it was something else when it was seen.
                Verdict::Heir
                    if (life.exec_missed || life.blurred && !shot.called_masters.contains(&shot.key))
                        && !group.master.matches(who) =>
                {
                    return Ok(self.since_when(id, g, loss));
                }
                // Whether it left as daemons do nobody can know.
                Verdict::Heir if life.maybe_left && !life.execed => return Ok(self.since_when(id, g, loss)),
                Verdict::Heir => return no("it is an heir"),
                // Those that tell how it left are lost: all that can be known of it is what it looks like.
                Verdict::Detached | Verdict::NoWorker if stray || life.blurred => {}
                Verdict::Detached if life.maybe_left => return Ok(self.since_when(id, g, loss)),
                Verdict::Detached => return no("it left on purpose"),
                Verdict::NoWorker => return no("it is not a worker"),
            }
        }
        // The one above it exec'd what made it a master after the loss only.
        if let Some((up, loss)) = life.inherited_by.get(&g)
            && self.lives[*up].image.exec_at >= loss.since
        {
            return Ok(self.since_when(id, g, loss));
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
        // An exec was lost, or where it came from, or how: the core cannot tell the master above from any other worker.
        let known_master = |up: Id| {
            let up = &self.lives[up];
            let alike = group.master.cmdline.as_ref().is_none_or(|r| r.is_match(&up.argv.line()));
            let seen = !up.is_unclear() || up.execed && alike || shot.called_masters.contains(&up.key);
            up.reigns.contains_key(&g) && !up.exec_missed && !up.faceless && seen
        };
        let master_above = self.above(id).into_iter().any(known_master);
        if life.is_unclear() && is_worker && !master_above && self.lineage_master(id, g).is_some() {
            return Ok(life.key.start_ns);
        }
        no("it is no orphan")
    }

    /// Since when it is an orphan. What is born below an orphan is one as well (section 2: no live master of its group in its
    /// ancestry), but is left to that one until it is gone, and of a loss that was told before anybody knew the master nobody
    /// took notice: so its deadline may count from its birth or from the first death between it and its master, whichever came
    /// later. Who was a master in a gap only may be known for no more than a worker of the one before.
    pub(super) fn since_when(&self, id: Id, g: G, loss: &Loss) -> Ns {
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
    pub(super) fn is_certain(&self, life: &Life, g: G) -> bool {
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

    pub fn was_asked(&self, key: ProcKey) -> bool {
        self.by_key.get(&key).is_some_and(|&id| !self.lives[id].asked.is_empty())
    }

    pub fn signals_sent(&self, key: ProcKey) -> usize {
        self.sent.get(&key).map_or(0, |s| s.0)
    }

    pub fn is_broken(&self, g: G) -> bool {
        self.broken[g]
    }
}

fn check(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { no(otherwise) }
}

fn no<T>(why: &str) -> Result<T, String> {
    Err(why.to_owned())
}
