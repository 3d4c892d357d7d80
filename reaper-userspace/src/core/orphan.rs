//! One orphan: what is known of its idleness, and how far its stopping has come.
//!
//! ```text
//! Watching ──idle for `quiet`──▶ Aiming ──still idle──▶ Firing ──sent──▶ Grace ──over──▶ Watching (next step)
//!    ▲                             │ not any more          │ not sent                    └─▶ Spent (no step left)
//!    └─────────────────────────────┴───────────────────────┘
//! ```
//! [`Phase::Spared`] is who was a job child when it was orphaned, whatever its title says later, and who dies with its pid namespace.
//! The end of every orphan is its exit.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::idle::polls::Polls;
use super::idle::{self, Around, IdleSpan, Judged, Standing};
use super::ids::{MS, Ns, ProcKey, SECOND};
use super::input::Sampled;
use super::membership::GroupId;
use super::records::{Event, Evidence, ProcView, SparedBecause, Verdict};
use super::rules::{Group, Signal, StopRules};

/// How often a busy orphan is looked at. There may be many: see [`sampling_period`].
const BUSY_PERIOD: Ns = 50 * MS;

/// How often one is looked at that nothing would be done to anyway.
const SPARED_PERIOD: Ns = SECOND;

/// How soon a signal is tried again that could not be sent; twice as long after each failure.
const RETRY: Ns = SECOND;

/// So often the pause is doubled: four minutes.
const LAST_RETRY: u32 = 8;

/// Where an orphan is in its state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is sampled until it is idle.
    Watching,
    /// It is held and looked at once more.
    Aiming,
    /// A signal is on its way.
    Firing,
    /// It has been signalled and has until then to go.
    Grace(Ns),
    /// Every signal has been sent.
    Spent,
    /// It is not signalled, whatever it does.
    Spared,
}

/// One orphan of one group.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// Who.
    pub key: ProcKey,
    /// The group that acts on it: the first of `groups` that enforces, else the first.
    pub group: GroupId,
    /// Every group whose orphan it is.
    pub groups: Vec<GroupId>,
    /// When it was orphaned.
    pub since: Ns,
    /// Its lineage was never seen.
    pub stray: bool,
    /// It was asked to stop, by somebody else or by the agent for another group: it is left to finish.
    pub draining: bool,
    /// The last signal it got from the agent.
    pub signalled: Option<Signal>,
    /// See [`Phase`].
    pub phase: Phase,
    /// Why it is not signalled, as far as that has been said.
    pub spared: BTreeSet<SparedBecause>,
    /// A dry run of its stopping has been recorded.
    pub rehearsed: bool,
    step: usize,
    failures: u32,
    idle: Option<IdleSpan>,
    polls: Polls,
    shown: Option<Verdict>,
    /// How it stood when it was last looked at.
    pub standing: Standing,
    /// When that was, and what it showed.
    pub last_look: Option<(Ns, Evidence)>,
    /// The observer looks at it.
    pub watched: bool,
}

/// How far the stopping of an orphan has come: what outlives the agent of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// When it was orphaned.
    pub since: Ns,
    /// The last signal it got.
    pub signalled: Option<Signal>,
    stray: bool,
    draining: bool,
    phase: Phase,
    spared: BTreeSet<SparedBecause>,
    rehearsed: bool,
    step: usize,
}

/// What a sample led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The judgement.
    pub evidence: Evidence,
    /// It differs from what was last said of this orphan.
    pub news: bool,
    /// Idle for long enough to be stopped.
    pub ready: bool,
}

impl Orphan {
    /// A new one.
    pub fn new(key: ProcKey, group: GroupId, since: Ns, stray: bool) -> Self {
        Self {
            key,
            group,
            groups: vec![group],
            since,
            stray,
            draining: false,
            signalled: None,
            phase: Phase::Watching,
            spared: BTreeSet::new(),
            rehearsed: false,
            step: 0,
            failures: 0,
            idle: None,
            polls: Polls::default(),
            shown: None,
            standing: Standing::Works,
            last_look: None,
            watched: false,
        }
    }

    /// The same process, with another group acting on it. What the agent itself has sent counts as anybody's signal.
    pub fn passed_to(self, group: GroupId, stop: &StopRules) -> Self {
        let Self { key, groups, since, stray, signalled, watched, .. } = self;
        let asked = signalled.is_some_and(|signal| stop.signals.contains(&signal));
        let draining = asked || self.draining;
        Self { groups, signalled, draining, watched, ..Self::new(key, group, since, stray) }
    }

    /// What outlives the agent. Who was aimed at is looked at again; if the signal was sent all the same, the kernel says so.
    pub fn progress(&self) -> Progress {
        let phase = match self.phase {
            Phase::Aiming | Phase::Firing => Phase::Watching,
            phase => phase,
        };
        Progress {
            since: self.since,
            signalled: self.signalled,
            stray: self.stray,
            draining: self.draining,
            phase,
            spared: self.spared.clone(),
            rehearsed: self.rehearsed,
            step: self.step,
        }
    }

    /// An orphan of an earlier agent.
    pub fn resumed(key: ProcKey, group: GroupId, progress: Progress) -> Self {
        let Progress { since, signalled, stray, draining, phase, spared, rehearsed, step } = progress;
        Self { signalled, draining, phase, spared, rehearsed, step, ..Self::new(key, group, since, stray) }
    }

    /// The record of its end.
    pub fn end(group: String, proc: ProcView, signalled: Option<Signal>, since: Ns, at: Ns) -> Event {
        match signalled {
            Some(signal) => {
                let took_us = at.saturating_sub(since) / 1_000;
                Event::Reaped { group, proc, signal: signal.to_string(), took_us }
            }
            None => Event::Left { group, proc },
        }
    }

    /// Judges a sample.
    pub fn judge(&self, sampled: &Sampled, around: Around<'_>, group: &Group) -> Judged {
        let unseen = |why| Judged {
            evidence: idle::unreadable(why),
            standing: Standing::Works,
            polls: Polls::default(),
        };
        match sampled {
            Sampled::Seen(sample) => {
                idle::judge(sample, around, self.idle.as_ref(), &self.polls, &group.idle)
            }
            Sampled::Unreadable(why) => unseen(why),
            Sampled::Gone => unseen("it is gone"),
        }
    }

    /// Takes a sample and its judgement in.
    pub fn see(&mut self, now: Ns, sampled: &Sampled, judged: Judged, group: &Group) -> Seen {
        let Judged { evidence, standing, polls } = judged;
        self.last_look = Some((now, evidence.clone()));
        self.standing = standing;
        self.polls = polls;
        let idle = evidence.verdict == Verdict::Idle;
        match sampled {
            Sampled::Seen(sample) if idle => {
                self.idle.get_or_insert_with(|| IdleSpan::begin(sample)).extend(sample);
            }
            _ => self.idle = None,
        }
        let ready = idle && evidence.quiet_us.saturating_mul(1_000) >= group.idle.quiet;
        // Idleness is only said once it has lasted; work is said at once.
        let news = (!idle || ready) && self.shown != Some(evidence.verdict);
        if news {
            self.shown = Some(evidence.verdict);
        }
        Seen { evidence, news, ready }
    }

    /// What was last said of its idleness; `None` if nothing was yet.
    pub fn shown(&self) -> Option<Verdict> {
        self.shown
    }

    /// Since when it has been idle.
    pub fn idle_since(&self) -> Option<Ns> {
        self.idle.as_ref().map(|s| s.since)
    }

    /// Whether the group's deadline for it has passed.
    pub fn is_overdue(&self, now: Ns, stop: &StopRules) -> bool {
        stop.deadline > 0 && now >= self.since.saturating_add(stop.deadline)
    }

    /// The step it is at, from 0, and its signal. `None` when every step has been taken.
    pub fn next_step(&self, stop: &StopRules) -> Option<(usize, Signal)> {
        let last = (self.step == stop.signals.len() && stop.kill).then_some(Signal::KILL);
        stop.signals.get(self.step).copied().or(last).map(|signal| (self.step, signal))
    }

    /// The signal of this step was sent.
    pub fn sent(&mut self, now: Ns, signal: Signal, stop: &StopRules) {
        self.signalled = Some(signal);
        self.step += 1;
        self.idle = None;
        self.shown = None;
        self.phase = Phase::Grace(now.saturating_add(stop.grace));
    }

    /// It had work to do until `at`: its idleness begins anew.
    pub fn was_busy(&mut self, at: Ns) {
        self.idle = self.idle.take().filter(|span| span.since > at);
    }

    /// It runs another image: what was seen of it was another program's.
    pub fn began_anew(&mut self) {
        self.idle = None;
        self.last_look = None;
        self.polls = Polls::default();
        self.standing = Standing::Works;
    }

    /// It was let go of again, or could not be signalled.
    pub fn let_go(&mut self) {
        self.idle = None;
        self.phase = Phase::Watching;
    }

    /// What has been said of why it is spared does not hold any more. While it was spared it was looked at too rarely to
    /// prove that it has been idle for the whole of `quiet`.
    pub fn reconsider(&mut self) {
        self.idle = None;
        let was_job = self.spared.contains(&SparedBecause::JobChild);
        self.spared.clear();
        self.rehearsed = false;
        if self.phase == Phase::Spent || self.phase == Phase::Spared && was_job {
            self.phase = Phase::Watching;
        }
    }

    /// When it is to be looked at next, given how many others there are.
    pub fn next_look(&self, now: Ns, orphans: usize, group: &Group) -> Option<Ns> {
        let period = sampling_period(orphans);
        match self.phase {
            Phase::Aiming | Phase::Firing | Phase::Spent | Phase::Spared => None,
            Phase::Grace(until) => Some(until),
            Phase::Watching if !self.spared.is_empty() => Some(now.saturating_add(SPARED_PERIOD)),
            Phase::Watching => {
                let at = now.saturating_add(period);
                let ready = self.idle.as_ref().map(|s| s.since.saturating_add(group.idle.quiet));
                // Idle for long enough and still here: something keeps it from being stopped for now.
                let ready = ready.map(|r| if r <= now { now.saturating_add(period) } else { r });
                let overdue =
                    now.saturating_add(group.stop.deadline.saturating_sub(now.saturating_sub(self.since)));
                let deadline = (group.stop.deadline > 0 && overdue > now).then_some(overdue);
                Some([Some(at), ready, deadline].into_iter().flatten().min().unwrap_or(at))
            }
        }
    }

    /// It could not be signalled: when to try again. At first as soon as it has been idle for long enough once more, because a
    /// machine that is busy for a moment lets go of whoever is held; then each time later than the time before.
    pub fn failed(&mut self, now: Ns) -> Ns {
        self.let_go();
        let pause = RETRY.saturating_mul((1 << self.failures.min(LAST_RETRY)) - 1);
        self.failures += 1;
        now.saturating_add(pause)
    }
}

/// How often each of so many orphans is looked at. A look costs about 100 us: all of them stay below a quarter of a CPU.
fn sampling_period(orphans: usize) -> Ns {
    let each = MS / 2;
    BUSY_PERIOD.max(each.saturating_mul(orphans as u64)).min(2 * SECOND)
}
