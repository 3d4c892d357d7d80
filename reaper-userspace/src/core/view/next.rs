//! What comes next for an orphan, when, and which rule says so.
//!
//! In the order in which `stopping` asks: what forbids a signal, then where its state machine stands, then what it was seen
//! to do.

use serde::{Deserialize, Serialize};

use super::words::span;
use crate::core::ids::Ns;
use crate::core::orphan::{Orphan, Phase};
use crate::core::records::SparedBecause;
use crate::core::rules::{Group, Mode, Signal};
use crate::core::{Core, View};

/// What is done about an orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// It is signalled, under the condition that `says` tells.
    Signal,
    /// It would be, if the group enforced.
    Rehearse,
    /// Nothing, as things are.
    Nothing,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// What.
    pub does: Does,
    /// The signal it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The step of the group's signals, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// How soon at the earliest, microseconds; absent if that depends on the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_us: Option<u64>,
    /// What spares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spared: Option<SparedBecause>,
    /// All this in one clause without a subject: `TERM in 120 ms, if it stays idle`.
    pub says: String,
    /// The rule that says so, with its key in the configuration where it has one.
    pub rule: String,
}

/// Everything but work that decides.
struct Now<'a> {
    now: Ns,
    orphan: &'a Orphan,
    group: &'a Group,
    step: usize,
    signal: Signal,
    overdue: bool,
}

impl Core {
    pub(super) fn next(&self, now: Ns, orphan: &Orphan) -> Next {
        let group = &self.rules.groups[orphan.group];
        if orphan.phase == Phase::Spared {
            let doomed = self.tree.find(orphan.key).is_some_and(|id| self.tree[id].is_doomed());
            if doomed {
                return nothing(
                    "nothing: the kernel is about to kill it with its pid namespace",
                    "pid_namespaces(7)",
                );
            }
            return spared(SparedBecause::JobChild, group, None);
        }
        if self.view != View::Clear {
            let says = "nothing until the tree is rebuilt: events of the kernel were lost";
            return nothing(says, "no signal while events are known to be lost");
        }
        let Some((step, signal)) = orphan.next_step(&group.stop) else {
            return nothing(
                "nothing more: it has got every signal of its group and is still there",
                "stop.signals",
            );
        };
        let overdue = orphan.is_overdue(now, &group.stop);
        let of = Now { now, orphan, group, step, signal, overdue };
        if orphan.draining && !overdue {
            return self.draining(&of);
        }
        let forbidden = self.tree.find(orphan.key).and_then(|id| self.forbids(id, orphan));
        match forbidden {
            Some(because) => spared(because, group, Some(of.step())),
            None if !self.has_kills_left(now, orphan) => {
                spared(SparedBecause::Breaker, group, Some(of.step()))
            }
            None => of.step(),
        }
    }

    fn draining(&self, of: &Now<'_>) -> Next {
        let by = match self.asked_to_stop(of.orphan.key, of.orphan.group) {
            Some((signal, sender)) if sender == self.agent => format!("it has got {signal} before"),
            Some((signal, sender)) => format!("process {sender} has sent it {signal}"),
            None => "it has been asked to stop".to_owned(),
        };
        let until = match of.deadline() {
            Some(left) => format!(", for {} at most", span(left)),
            None => String::new(),
        };
        nothing(
            &format!("nothing: {by}, and it is left to finish{until}"),
            "a stop signal is not sent a second time: that is a cold kill in several frameworks",
        )
    }
}

impl Now<'_> {
    /// What is done if nothing forbids it.
    fn step(&self) -> Next {
        let Self { now, orphan, group, signal, overdue, .. } = self;
        let stays = match (orphan.idle_since(), orphan.phase) {
            (_, Phase::Aiming | Phase::Firing) => {
                return self.signals(Some(0), format!("{signal} now: it is held still for the last look"));
            }
            (_, Phase::Grace(until)) => {
                let left = until.saturating_sub(*now);
                let before = orphan.signalled.map_or_else(String::new, |s| format!("; {s} was sent"));
                let says = format!("{signal} in {}, if it is idle then{before}", span(left));
                return Next {
                    rule: format!("stop.grace = {}", span(group.stop.grace)),
                    ..self.signals(Some(left), says)
                };
            }
            _ if *overdue => {
                let says = format!("{signal} now, even if busy: its deadline has passed");
                let rule = format!("stop.deadline = {}", span(group.stop.deadline));
                return Next { rule, ..self.signals(Some(0), says) };
            }
            (Some(since), _) => Some(since.saturating_add(group.idle.quiet).saturating_sub(*now)),
            (None, _) => None,
        };
        let quiet = span(group.idle.quiet);
        let mut says = match stays {
            Some(0) => format!("{signal} now, if it is still idle"),
            Some(left) => format!("{signal} in {}, if it stays idle", span(left)),
            None if group.idle.quiet == 0 => format!("{signal} as soon as it is idle"),
            None => format!("{signal} as soon as it has been idle for {quiet}"),
        };
        if let Some(left) = self.deadline() {
            says.push_str(&format!("; in {} even if busy", span(left)));
        }
        self.signals(stays, says)
    }

    fn signals(&self, left: Option<Ns>, says: String) -> Next {
        Next {
            does: Does::Signal,
            signal: Some(self.signal.to_string()),
            step: Some(self.step),
            in_us: left.map(|ns| ns / 1_000),
            spared: None,
            says,
            rule: "no signal to a busy process; not known counts as busy".to_owned(),
        }
    }

    /// How long until the deadline, if there is one ahead.
    fn deadline(&self) -> Option<Ns> {
        let at = self.orphan.since.saturating_add(self.group.stop.deadline);
        (self.group.stop.deadline > 0 && !self.overdue).then(|| at.saturating_sub(self.now))
    }
}

fn nothing(says: &str, rule: &str) -> Next {
    Next {
        does: Does::Nothing,
        signal: None,
        step: None,
        in_us: None,
        spared: None,
        says: says.to_owned(),
        rule: rule.to_owned(),
    }
}

/// `step` is what would be done otherwise.
fn spared(because: SparedBecause, group: &Group, step: Option<Next>) -> Next {
    if let (SparedBecause::Observe, Some(step)) = (because, &step) {
        return Next {
            does: Does::Rehearse,
            spared: Some(because),
            says: format!("nothing: its group only observes (else: {})", step.says),
            rule: "mode = \"observe\"".to_owned(),
            ..step.clone()
        };
    }
    let (says, rule) = reason(because, group);
    let (signal, step) = step.map(|s| (s.signal, s.step)).unwrap_or_default();
    Next { spared: Some(because), signal, step, ..nothing(&says, &rule) }
}

/// Why somebody is spared, and the rule.
pub(super) fn reason(because: SparedBecause, group: &Group) -> (String, String) {
    let stop = &group.stop;
    match because {
        SparedBecause::Observe => {
            ("nothing: its group only observes".to_owned(), "mode = \"observe\"".to_owned())
        }
        SparedBecause::Unarmed => (
            "nothing: its group has never had a master since boot, so its patterns may be wrong".to_owned(),
            "a group that has never had a master signals no strays".to_owned(),
        ),
        SparedBecause::Protected => (
            "nothing: it is protected".to_owned(),
            "agent.protect and the built-in names, pid 1, kernel threads, the agent and its ancestors are never signalled"
                .to_owned(),
        ),
        SparedBecause::Breaker => (
            "nothing: its group has stopped as many as it may; a reload (SIGHUP) arms it again".to_owned(),
            format!("stop.max_kills = {} within stop.window = {}", stop.max_kills, span(stop.window)),
        ),
        SparedBecause::JobChild => (
            "nothing: it is a job itself, or has no command line to tell; jobs are never signalled".to_owned(),
            "stop.job_children".to_owned(),
        ),
        SparedBecause::Adopted => (
            "nothing: a subreaper at or below its live master has adopted it".to_owned(),
            "who has a live master above is no orphan".to_owned(),
        ),
        SparedBecause::Detached => (
            "nothing: it left on purpose, as daemons do".to_owned(),
            "who made a session of its own and was left by its parent is nobody's worker".to_owned(),
        ),
        SparedBecause::NotReplaced => (
            "nothing until a live master of its group exists: it may be the only one that still serves".to_owned(),
            "stop.when = \"replaced\"".to_owned(),
        ),
    }
}

/// What a group does with somebody who has lost its master.
pub(super) fn policy(group: &Group, who: &str) -> String {
    let signal = group.stop.signals.first().map_or_else(String::new, Signal::to_string);
    let quiet = match group.idle.quiet {
        0 => "it is idle".to_owned(),
        quiet => format!("it has been idle for {}", span(quiet)),
    };
    match group.mode {
        Mode::Enforce => format!("{who} would get {signal} as soon as {quiet}"),
        Mode::Observe => {
            format!("{who} would get {signal} as soon as {quiet}, if the group did not only observe")
        }
    }
}
