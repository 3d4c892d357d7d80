//! Who is a master, and whose worker somebody is (section 2: Master, Heir, Worker).

use reaper::core::ids::{Ns, ProcKey, SECOND};
use reaper::core::input::Identity;

use super::life::{Loss, Verdict};
use super::{G, Id, Oracle};

impl Oracle {
    /// /proc still shows it, and the record of its exit is lost: the core has seen a master, whose workers it can know to
    /// be orphans once it knows of the loss.
    pub(super) fn look_at_the_dying(&mut self, id: Id, who: &Identity) {
        let since = self.lives[id].image.exec_at;
        for (g, group) in self.rules.clone().groups.iter().enumerate() {
            if self.lives[id].exit_missed && group.master.matches(who) {
                self.lives[id].crowned.entry(g).or_insert((since, Ns::MAX));
                self.armed[g] = true;
            }
        }
    }

    pub(super) fn crown(&mut self, now: Ns, id: Id, who: &Identity) {
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
            // An orphan does not become a master by its title alone; but by an exec, whoever above it has done so too. Nor does what
            // an orphan has forked.
            let orphan = self.lives[id].losses.get(&g).is_some_and(|l| l.verdict == Verdict::Orphan);
            let execed = self.lives[id].execed;
            let work = group.worker.is_none() && self.orphan_above(id, g);
            if if orphan { execed } else { !self.master_above(id, g) && (execed || !work) } {
                self.enthrone(now, id, g);
            }
        }
    }

    pub(super) fn enthrone(&mut self, _now: Ns, id: Id, g: G) {
        // What the agent has sent it is anybody's signal if it becomes an orphan again.
        if let Some((sent, _)) = self.sent.remove(&self.lives[id].key) {
            let steps = self.rules.groups.iter().flat_map(|group| group.stop.signals.iter().take(sent));
            self.lives[id].asked.extend(steps.map(|signal| signal.0));
        }
        let since = self.lives[id].image.exec_at;
        self.lives[id].crowned.insert(g, (since, Ns::MAX));
        self.lives[id].reigns.insert(g, ());
        self.lives[id].deposed.remove(&g);
        self.armed[g] = true;
        // Of whichever group it was an orphan.
        self.lives[id].losses.retain(|_, l| l.verdict != Verdict::Orphan);
    }

    pub(super) fn uncrown(&mut self, now: Ns, id: Id, who: &Identity, called: bool) {
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
            let never = self.lives[id].blurred && !self.lives[id].execed && !called;
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
            let loss = Loss::open(now);
            for below in self.below(id) {
                self.lose(below, g, &loss);
            }
            // Of the others it is a worker again.
            for other in (0..rules.groups.len()).filter(|&o| o != g && rules.groups[o].worker.is_none()) {
                self.lose(id, other, &loss);
            }
        }
    }

    /// It has a master in its lineage, none above it, and nobody above it may still turn out to be one.
    pub(super) fn is_masterless_worker(&self, id: Id, g: G) -> bool {
        let maybe = |l: &Loss| l.verdict == Verdict::Open && l.daemon_unless.is_some();
        let undecided_above =
            || self.above(id).into_iter().any(|up| self.lives[up].losses.get(&g).is_some_and(maybe));
        self.lives[id].reigns.is_empty()
            && self.lineage_master(id, g).is_some()
            && !self.master_above(id, g)
            && !undecided_above()
    }

    pub(super) fn lineage_master(&self, id: Id, g: G) -> Option<Id> {
        self.find_master_of(id, g, true)
    }

    pub(super) fn strict_lineage_master(&self, id: Id, g: G) -> Option<Id> {
        self.find_master_of(id, g, false)
    }

    pub(super) fn find_master_of(&self, id: Id, g: G, lenient: bool) -> Option<Id> {
        let mut below = id;
        while !self.lives[below].detached || lenient && self.lives[below].blurred {
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

    pub(super) fn master_above(&self, id: Id, g: G) -> bool {
        self.above(id).into_iter().any(|up| self.lives[up].reigns.contains_key(&g))
    }

    pub fn masters(&self, g: G) -> Vec<ProcKey> {
        self.lives.iter().filter(|l| l.alive && l.reigns.contains_key(&g)).map(|l| l.key).collect()
    }
}
