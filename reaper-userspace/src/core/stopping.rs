//! What is done about orphans: look, judge, hold, signal, wait.

use super::breaker::Allowance;
use super::effect::Effect;
use super::idle::Around;
use super::ids::{MS, Ns, ProcKey};
use super::input::{Fired, Sampled};
use super::membership::GroupId;
use super::orphan::{Orphan, Phase, Seen};
use super::records::{Event, Evidence, SparedBecause};
use super::rules::{Mode, Signal, When};
use super::sample::{Child, Depth};
use super::schedule::Timer;
use super::tree::NodeId;
use super::{Core, View};

/// How much a signal that is told of is worth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is sent.
    Real {
        /// Its process was held still for the last look and until it was sent.
        frozen: bool,
    },
    /// It would have been sent.
    Rehearsed,
}

/// How soon an orphan is looked at again that could be stopped if its fate in another group were decided.
const UNDECIDED_POLL: Ns = 10 * MS;

/// Who somebody is was read just now, if it is no longer ago than this: about as long as all that comes between such a reading and a
/// signal.
const FRESH: Ns = MS;

impl Core {
    pub(super) fn on_orphan_due(&mut self, now: Ns, key: ProcKey) {
        let Some(orphan) = self.orphans.get_mut(&key) else { return };
        if let Phase::Grace(until) = orphan.phase {
            if until > now {
                return self.reschedule(now, key);
            }
            orphan.phase = Phase::Watching;
        }
        if orphan.phase != Phase::Watching {
            return;
        }
        let stop = &self.rules.groups[orphan.group].stop;
        if orphan.next_step(stop).is_none() {
            orphan.phase = Phase::Spent;
            return self.tell_spent(now, key);
        }
        let idle = &self.rules.groups[orphan.group].idle;
        let depth = idle.depth();
        if depth == Depth::Source && !std::mem::replace(&mut orphan.watched, true) {
            self.effects.push_back(Effect::Watch { key, wants: idle.wants() });
        }
        self.effects.push_back(Effect::Sample { key, depth });
    }

    /// Nothing is left that could be done about it.
    fn tell_spent(&mut self, now: Ns, key: ProcKey) {
        self.remember_eventually();
        let Some(orphan) = self.orphans.get(&key) else { return };
        let stop = &self.rules.groups[orphan.group].stop;
        let signals = stop.signals.iter().chain(stop.kill.then_some(&Signal::KILL));
        let signals: Vec<String> = signals.map(ToString::to_string).collect();
        let (pid, signals) = (key.tgid, signals.join(", "));
        let what = format!(
            "process {pid} is still there after {signals}: it is not signalled again, see `reaper explain {pid}`"
        );
        let proc = self.tree.find(key).map(|id| self.tree.view(id));
        self.record(now, Event::Error { what, proc });
    }

    pub(super) fn on_sampled(&mut self, now: Ns, key: ProcKey, sampled: &Sampled) {
        let Some(orphan) = self.orphans.get(&key).filter(|o| o.phase == Phase::Watching) else { return };
        if *sampled == Sampled::Gone {
            // Its exit is on its way; if it is not, it is looked at again.
            return self.reschedule(now, key);
        }
        let overdue = orphan.is_overdue(now, &self.rules.groups[orphan.group].stop);
        let Some(seen) = self.see(now, key, sampled) else { return };
        if seen.news {
            self.tell_verdict(now, key, seen.evidence.clone());
        }
        if seen.ready || overdue {
            self.want_stopped(now, key, &seen.evidence, overdue);
        }
        self.reschedule(now, key);
    }

    /// It is held by a verified pidfd and has been looked at once more: the last word.
    pub(super) fn on_aimed(&mut self, now: Ns, key: ProcKey, sampled: &Sampled) {
        // What follows from this comes before everything else: the less time between the look and the signal, the
        // better.
        let later = std::mem::take(&mut self.effects);
        self.judge_aimed(now, key, sampled);
        self.effects.extend(later);
    }

    fn judge_aimed(&mut self, now: Ns, key: ProcKey, sampled: &Sampled) {
        if !self.orphans.get(&key).is_some_and(|o| o.phase == Phase::Aiming) {
            return self.effects.push_back(Effect::Release(key));
        }
        if !self.fire(now, key, sampled) {
            self.effects.push_back(Effect::Release(key));
            let Some(orphan) = self.orphans.get_mut(&key) else { return };
            let overdue = orphan.is_overdue(now, &self.rules.groups[orphan.group].stop);
            if overdue && matches!(sampled, Sampled::Unreadable(_)) {
                // It is aimed at whatever it does, and each time may cost the agent as long as a hold may last.
                let again = orphan.failed(now);
                return self.schedule.set(Timer::Orphan(key), again);
            }
            orphan.let_go();
            self.reschedule(now, key);
        }
    }

    pub(super) fn on_fired(&mut self, at: Ns, key: ProcKey, outcome: Fired) {
        let Some(orphan) = self.orphans.get_mut(&key) else { return };
        let group = &self.rules.groups[orphan.group];
        let Some((_, signal)) = orphan.next_step(&group.stop).filter(|_| orphan.phase == Phase::Firing)
        else {
            return;
        };
        match outcome {
            Fired::Sent => {
                let kill = orphan.signalled.is_none().then_some(at);
                kill.into_iter().for_each(|at| self.groups[orphan.group].breaker.count(at));
                orphan.sent(at, signal, &group.stop);
                self.reschedule(at, key);
                self.remember_signal(key, kill);
            }
            Fired::Gone => {
                let again = orphan.failed(at);
                self.schedule.set(Timer::Orphan(key), again);
                let proc = self.tree.find(key).map(|id| self.tree.view(id));
                let what = format!("process {} was gone before it could be sent {signal}", key.tgid);
                self.record(at, Event::Error { what, proc });
            }
            Fired::Failed(why) => {
                let again = orphan.failed(at);
                let proc = self.tree.find(key).map(|id| self.tree.view(id));
                let what = format!("process {} was not sent {signal}: {why}", key.tgid);
                self.record(at, Event::Error { what, proc });
                self.schedule.set(Timer::Orphan(key), again);
            }
        }
    }

    /// Somebody else asked a member of a group to stop: it is left to finish.
    pub(super) fn on_signal_seen(&mut self, at: Ns, target: ProcKey, signal: i32, sender: u32) {
        if self.former_agent == Some(sender) && self.former_agent_sent(at, target, Signal(signal)) {
            return;
        }
        let Some(id) = self.tree.find(target).filter(|_| sender != self.agent) else { return };
        let is_stop = |g: &GroupId| self.rules.groups[*g].stop.signals.contains(&Signal(signal));
        if !self.group_ids().any(|g| is_stop(&g)) {
            return;
        }
        // Whose worker it is may turn out later: when everybody has been looked at, or when its master has taken its title.
        self.asked.entry(target).or_default().entry(signal).or_insert(sender);
        let is_worker = |g: &GroupId| {
            !self.members.is_master(target, *g) && self.members.lineage_master(&self.tree, id, *g).is_some()
        };
        if self.group_ids().any(|g| is_stop(&g) && (self.is_orphan_of(target, g) || is_worker(&g))) {
            self.remember();
            self.resume_draining(at, target);
        }
    }

    /// If somebody has asked this orphan to stop, before or after it became one, it is draining.
    pub(super) fn resume_draining(&mut self, now: Ns, key: ProcKey) {
        let Some(asked) = self.asked.get(&key) else { return };
        let Some(orphan) = self.orphans.get_mut(&key) else { return };
        let stops = &self.rules.groups[orphan.group].stop.signals;
        let Some((&signal, &sender)) = asked.iter().find(|(signal, _)| stops.contains(&Signal(**signal)))
        else {
            return;
        };
        if std::mem::replace(&mut orphan.draining, true) {
            return;
        }
        let group = orphan.group;
        let Some(id) = self.tree.find(key) else { return };
        let sender = self.tree.find_pid(sender).map(|s| self.tree.view(s));
        let (group, proc) = (self.group_name(group), self.tree.view(id));
        self.record(now, Event::Draining { group, proc, signal: Signal(signal).to_string(), sender });
    }

    /// What may have kept these orphans from being stopped has changed.
    pub(super) fn wake_orphans(&mut self, now: Ns, g: GroupId) {
        let waiting: Vec<ProcKey> = self
            .orphans
            .values()
            // Of whom it was told what would be done, nothing else keeps it from being done than that the group observes.
            .filter(|o| o.group == g && o.phase == Phase::Watching && !o.rehearsed)
            .map(|o| o.key)
            .collect();
        for key in waiting {
            if let Some(orphan) = self.orphans.get_mut(&key).filter(|o| !o.spared.is_empty()) {
                orphan.reconsider();
                self.schedule.set(Timer::Orphan(key), now);
            }
        }
    }

    pub(super) fn window(&self, g: GroupId) -> String {
        format!("{}ms", self.rules.groups[g].stop.window / MS)
    }

    /// It is idle, or overdue: hold it, unless something speaks against it.
    fn want_stopped(&mut self, now: Ns, key: ProcKey, evidence: &Evidence, overdue: bool) {
        let Some(orphan) = self.orphans.get(&key) else { return };
        if (orphan.draining && !overdue) || self.view != View::Clear {
            return;
        }
        // It has lost a master of another group since, and may turn out to be the next one.
        if self.bereaved.contains_key(&key) {
            return self.schedule.set(Timer::Orphan(key), now.saturating_add(UNDECIDED_POLL));
        }
        let Some(id) = self.tree.find(key) else { return };
        match self.may_stop(now, id, key) {
            Ok(()) => {
                let Some(orphan) = self.orphans.get_mut(&key) else { return };
                orphan.phase = Phase::Aiming;
                let depth = self.rules.groups[orphan.group].idle.depth();
                // Who it is, read once more: titles and names change without any event.
                let (read_at, exec_at) = (self.tree[id].checked_at, self.tree[id].image().exec_at);
                if read_at <= exec_at || now.saturating_sub(read_at) > FRESH {
                    self.effects.push_back(Effect::Identify(key));
                }
                self.effects.push_back(Effect::Aim { key, depth });
            }
            Err(SparedBecause::Observe) => {
                self.rehearse(now, id, key, evidence);
                self.spare_once(now, id, key, SparedBecause::Observe);
            }
            Err(because) => self.spare_once(now, id, key, because),
        }
    }

    /// Sends the signal if everything still holds. False if the process is to be let go.
    fn fire(&mut self, now: Ns, key: ProcKey, sampled: &Sampled) -> bool {
        if *sampled == Sampled::Gone {
            return false;
        }
        // What was drained since it was aimed at may have left its fate open: it may be another group's heir.
        if self.bereaved.contains_key(&key) {
            return false;
        }
        let Some(id) = self.tree.find(key).filter(|_| self.view == View::Clear) else { return false };
        let Some(seen) = self.see(now, key, sampled) else { return false };
        let Some(orphan) = self.orphans.get(&key) else { return false };
        let group = &self.rules.groups[orphan.group];
        let overdue = orphan.is_overdue(now, &group.stop);
        let looked_at = matches!(sampled, Sampled::Seen(_));
        if !looked_at || !(seen.ready || overdue) || (orphan.draining && !overdue) {
            if seen.news {
                self.tell_verdict(now, key, seen.evidence);
            }
            return false;
        }
        let Some((step, signal)) = orphan.next_step(&group.stop) else { return false };
        if let Err(because) = self.may_stop(now, id, key) {
            self.spare_once(now, id, key, because);
            return false;
        }
        let mut evidence = seen.evidence;
        if overdue && !seen.ready {
            evidence.because.push_str("; but its group's deadline has passed");
        }
        let frozen = matches!(sampled, Sampled::Seen(sample) if sample.frozen);
        self.tell_signal(now, id, (step, signal), evidence, Kind::Real { frozen });
        if let Some(orphan) = self.orphans.get_mut(&key) {
            orphan.phase = Phase::Firing;
        }
        self.effects.push_back(Effect::Fire { key, signal });
        true
    }

    /// Everything that forbids a signal except work.
    fn may_stop(&mut self, now: Ns, id: NodeId, key: ProcKey) -> Result<(), SparedBecause> {
        let Some(orphan) = self.orphans.get(&key) else { return Err(SparedBecause::Observe) };
        if let Some(because) = self.forbids(id, orphan) {
            return Err(because);
        }
        let (g, counted) = (orphan.group, orphan.signalled.is_some());
        if counted {
            return Ok(());
        }
        let (max, window) = (self.allowance(g), self.rules.groups[g].stop.window);
        match self.groups[g].breaker.ask(now, max, window) {
            Allowance::Granted => Ok(()),
            Allowance::Refused => Err(SparedBecause::Breaker),
            Allowance::Opens(kills) => {
                let (group, window) = (self.group_name(g), self.window(g));
                self.record(now, Event::BreakerOpen { group, kills, window });
                self.remember();
                Err(SparedBecause::Breaker)
            }
        }
    }

    /// Whether a group may stop this orphan without its breaker opening.
    pub(super) fn has_kills_left(&self, now: Ns, orphan: &Orphan) -> bool {
        let (g, window) = (orphan.group, self.rules.groups[orphan.group].stop.window);
        orphan.signalled.is_some() || self.groups[g].breaker.grants(now, self.allowance(g), window)
    }

    /// How many a group may have stopped within its window. Those that are held right now have not been counted yet.
    fn allowance(&self, g: GroupId) -> u32 {
        let firing = self.orphans.values().filter(|o| o.group == g && o.phase == Phase::Firing);
        let firing = u32::try_from(firing.filter(|o| o.signalled.is_none()).count()).unwrap_or(u32::MAX);
        self.rules.groups[g].stop.max_kills.saturating_sub(firing)
    }

    /// What forbids a signal whatever the process does; the count of the breaker is asked after that.
    pub(super) fn forbids(&self, id: NodeId, orphan: &Orphan) -> Option<SparedBecause> {
        let g = orphan.group;
        let group = &self.rules.groups[g];
        if self.is_protected(id) {
            return Some(SparedBecause::Protected);
        }
        let cmdline = self.tree[id].argv().line();
        // A process whose leader has exited has no command line any more. What was read before may be what it was born with: it may
        // be the job.
        let unread = self.tree[id].is_argv_gone() && !group.stop.job_children.is_empty();
        if unread || group.stop.is_job(&cmdline) {
            return Some(SparedBecause::JobChild);
        }
        let node = &self.tree[id];
        if orphan.stray && !self.groups[g].likenesses.has(node.uid(), node.exe()) {
            return Some(SparedBecause::Unarmed);
        }
        if group.stop.when == When::Replaced && !self.is_replaced(id, g) {
            return Some(SparedBecause::NotReplaced);
        }
        if group.mode == Mode::Observe {
            return Some(SparedBecause::Observe);
        }
        // An open breaker ends enforcing altogether; a closed one counts each orphan once.
        self.groups[g].breaker.is_open().then_some(SparedBecause::Breaker)
    }

    /// Whether there is a master again in the place of the one that an orphan has lost: of that one's user, of the orphan's or
    /// root. Else whoever starts something by a master's name would decide when the servers of others go.
    fn is_replaced(&self, id: NodeId, g: GroupId) -> bool {
        let lost = self.members.lineage_master(&self.tree, id, g);
        let users = [Some(0), Some(self.tree[id].uid()), lost.map(|master| self.tree[master].uid())];
        let mut masters = self.members.reigning().filter(|(_, of)| *of == g);
        masters.any(|(key, _)| self.tree.find(key).is_some_and(|m| users.contains(&Some(self.tree[m].uid()))))
    }

    /// Whether nobody may ever signal it, whatever group it belongs to.
    pub(super) fn is_protected(&self, id: NodeId) -> bool {
        let node = &self.tree[id];
        self.rules.protect.iter().any(|p| p.is_match(node.comm().as_str()))
            || node.key().tgid == 1
            || node.is_kernel_thread()
            || self.protected_ancestors().contains(&id)
    }

    /// What would have been done, in a group that only observes. Said once an orphan.
    fn rehearse(&mut self, now: Ns, id: NodeId, key: ProcKey, evidence: &Evidence) {
        let Some(orphan) = self.orphans.get_mut(&key) else { return };
        if std::mem::replace(&mut orphan.rehearsed, true) {
            return;
        }
        let stop = &self.rules.groups[orphan.group].stop;
        let Some((step, signal)) = orphan.next_step(stop) else { return };
        self.tell_signal(now, id, (step, signal), evidence.clone(), Kind::Rehearsed);
    }

    fn tell_signal(&mut self, now: Ns, id: NodeId, step: (usize, Signal), evidence: Evidence, kind: Kind) {
        let Some(orphan) = self.orphans.get(&self.tree[id].key()) else { return };
        let (group, proc) = (self.group_name(orphan.group), self.tree.view(id));
        let signal = Event::Signal {
            group,
            proc,
            signal: step.1.to_string(),
            step: step.0,
            evidence,
            since_orphan_us: now.saturating_sub(orphan.since) / 1_000,
            since_idle_us: orphan.idle_since().map_or(0, |t| now.saturating_sub(t) / 1_000),
            verified: kind == Kind::Real { frozen: true },
            dry_run: kind == Kind::Rehearsed,
        };
        self.record(now, signal);
    }

    fn spare_once(&mut self, now: Ns, id: NodeId, key: ProcKey, because: SparedBecause) {
        let Some(orphan) = self.orphans.get_mut(&key) else { return };
        if orphan.spared.insert(because) {
            let group = orphan.group;
            self.remember_eventually();
            self.spare(now, id, group, because);
        }
    }

    fn tell_verdict(&mut self, now: Ns, key: ProcKey, evidence: Evidence) {
        let Some(id) = self.tree.find(key) else { return };
        let (group, proc) = (self.name_of_group_of(key), self.tree.view(id));
        let event = match evidence.verdict {
            super::records::Verdict::Idle => Event::Idle { group, proc, evidence },
            _ => Event::Busy { group, proc, evidence },
        };
        self.record(now, event);
    }

    /// Judges a sample of an orphan by what is known around it.
    fn see(&mut self, now: Ns, key: ProcKey, sampled: &Sampled) -> Option<Seen> {
        let orphan = self.orphans.get(&key)?;
        let group = &self.rules.groups[orphan.group];
        let id = self.tree.find(key)?;
        let mate = |pid: u32| {
            let mate = self.orphans.get(&self.tree[self.tree.find_pid(pid)?].key())?;
            mate.groups.contains(&orphan.group).then_some(mate.standing)
        };
        let parent = self.tree.lineage(id).next();
        let siblings = || {
            let is_sibling = |o: &&Orphan| {
                let born_of = |o: &Orphan| self.tree.find(o.key).and_then(|id| self.tree.lineage(id).next());
                o.key != key && o.groups.contains(&orphan.group) && born_of(o) == parent
            };
            self.orphans.values().filter(is_sibling).map(|o| (o.key.tgid, o.standing)).collect()
        };
        let around = Around {
            pid: key.tgid,
            children: &self.children_of(key),
            lineage: &self.pids_up_to_master(id, orphan.group),
            mate: &mate,
            siblings: &siblings,
            polls: 0,
            title_says_idle: false,
        };
        let judged = orphan.judge(sampled, around, group);
        let group = &self.rules.groups[orphan.group];
        self.orphans.get_mut(&key).map(|orphan| orphan.see(now, sampled, judged, group))
    }

    /// Its live children, and whoever may be one.
    fn children_of(&self, key: ProcKey) -> Vec<Child> {
        let Some(id) = self.tree.find(key) else { return Vec::new() };
        let child = |c: NodeId| Child { key: self.tree[c].key(), comm: self.tree[c].comm().clone() };
        self.tree.children(id).chain(self.tree.homeless_of(id)).map(child).collect()
    }

    fn name_of_group_of(&self, key: ProcKey) -> String {
        self.orphans.get(&key).map(|o| self.group_name(o.group)).unwrap_or_default()
    }

    pub(super) fn reschedule(&mut self, now: Ns, key: ProcKey) {
        let Some(orphan) = self.orphans.get(&key) else { return };
        match orphan.next_look(now, self.orphans.len(), &self.rules.groups[orphan.group]) {
            Some(at) => self.schedule.set(Timer::Orphan(key), at),
            None => self.schedule.cancel(Timer::Orphan(key)),
        }
    }
}
