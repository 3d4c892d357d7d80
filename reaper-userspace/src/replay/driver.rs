//! Drives the core through a script.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::{Fate, Question, Replayed, Script, Step};
use crate::core::Core;
use crate::core::effect::Effect;
use crate::core::ids::{MS, Ns, ProcKey};
use crate::core::input::{Fired, Identified, Identity, Input, Sampled};
use crate::core::records::{Event, Evidence, ProcView, Record};
use crate::core::rules::{Proof, Rules};

/// Two signals so close to each other are the same one.
const SAME: Ns = 100 * MS;

/// A pid that nobody has.
const NOBODY: u32 = u32::MAX;

/// Runs a script by these rules. `progress` is told how many steps were taken, and of how many.
pub fn replay(script: &Script, rules: &Rules, mut progress: impl FnMut(usize, usize)) -> Replayed {
    let mut driver = Driver::new(script, rules);
    for (at, step) in script.steps.iter().enumerate() {
        progress(at, script.steps.len());
        driver.take(at, step);
    }
    driver.out
}

struct Driver<'a> {
    script: &'a Script,
    core: Core,
    rules: Arc<Rules>,
    /// Recorded answers by what they answer, those to come.
    to_come: BTreeMap<Question, VecDeque<usize>>,
    /// Answers that this run has asked for as well.
    claimed: BTreeSet<usize>,
    /// Where the recorded agent rested, those to come.
    rests: VecDeque<usize>,
    /// Set while the recorded agent rests: when it meant to wake up.
    resting: Option<Option<Ns>>,
    /// Signals that the recorded agent sent.
    sent_there: BTreeMap<ProcKey, Vec<(Ns, Option<String>)>>,
    /// When somebody was last looked at, where only verdicts are known.
    looked: BTreeMap<ProcKey, Ns>,
    now: Ns,
    out: Replayed,
}

impl<'a> Driver<'a> {
    fn new(script: &'a Script, rules: &Rules) -> Self {
        let mut to_come: BTreeMap<Question, VecDeque<usize>> = BTreeMap::new();
        let mut rests = VecDeque::new();
        for (at, step) in script.steps.iter().enumerate() {
            match step {
                Step::Answer { input, .. } => {
                    if let Some(question) = Question::answered_by(input) {
                        to_come.entry(question).or_default().push_back(at);
                    }
                }
                Step::Rest(_) => rests.push_back(at),
                Step::World { .. } => {}
            }
        }
        let mut rules = rules.clone();
        if script.verdicts_only {
            // The proof was taken when it was recorded.
            for group in &mut rules.groups {
                group.idle.proof = Proof::Asleep;
            }
        }
        Self {
            script,
            core: Core::new(script.agent.unwrap_or(NOBODY)),
            rules: Arc::new(rules),
            to_come,
            claimed: BTreeSet::new(),
            rests,
            resting: None,
            sent_there: sent(script.records.as_deref().unwrap_or_default()),
            looked: BTreeMap::new(),
            now: 0,
            out: Replayed::default(),
        }
    }

    fn take(&mut self, at: usize, step: &Step) {
        match step {
            Step::World { now, input } => {
                self.wake_until(*now);
                let mut input = input.clone();
                if let Input::Configured { rules, .. } = &mut input {
                    *rules = self.rules.clone();
                }
                self.resting = None;
                self.give(*now, input, Some(at));
            }
            Step::Answer { now, input } => {
                self.wake_until(*now);
                self.resting = None;
                if self.claimed.remove(&at) {
                    self.give(*now, input.clone(), Some(at));
                } else if self.script.records.is_none()
                    && let Input::Fired { key, outcome: Fired::Sent, .. } = input
                {
                    self.sent_there.entry(*key).or_default().push((*now, None));
                }
            }
            Step::Rest(deadline) => {
                self.rests.pop_front();
                self.resting = Some(*deadline);
            }
        }
    }

    /// Deadlines of this run that the recorded one did not have.
    fn wake_until(&mut self, now: Ns) {
        while let Some(due) = self.core.next_deadline() {
            let missed = match (self.script.slack, self.resting) {
                (Some(slack), _) => due.saturating_add(slack) < now,
                // The recorded agent had the same one, and whatever it did about it comes next.
                (None, Some(deadline)) => deadline != Some(due) && due < now,
                // It was busy then, and so would this one have been.
                (None, None) => false,
            };
            if !missed {
                return;
            }
            self.give(due.max(self.now), Input::Tick, None);
        }
    }

    /// Hands in an input and answers what is asked for; `at` is its place in the script, if it has one.
    fn give(&mut self, now: Ns, input: Input, at: Option<usize>) {
        self.now = now;
        self.core.handle(now, input);
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Record(record) => self.record(*record),
                Effect::Identify(key) => self.answer(now, Question::Identify(key), at),
                Effect::Sample { key, .. } => self.answer(now, Question::Sample(key), at),
                Effect::Aim { key, .. } => self.answer(now, Question::Aim(key), at),
                Effect::Fire { key, signal } => self.fire(now, key, &signal.to_string(), at),
                Effect::Watch { .. }
                | Effect::Unwatch(_)
                | Effect::Release(_)
                | Effect::Resync
                | Effect::Persist
                | Effect::PersistSignal(_) => {}
            }
        }
    }

    /// Answers from what is known, unless the recorded agent asked for the same before it rested: then the answer is still to
    /// come.
    fn answer(&mut self, now: Ns, question: Question, at: Option<usize>) {
        let key = question.key();
        if self.out.fates.get(&key) == Some(&Fate::SignalledHere) {
            return self.core.handle(now, gone(question));
        }
        if at.is_some_and(|at| self.claim(now, question, at)) {
            return;
        }
        let known = self.script.known.nearest(now, question).unwrap_or_else(|| self.unseen(now, question));
        let known = self.as_the_tree_has_it(known);
        let known = self.since_it_holds(now, known);
        self.core.handle(now, known);
    }

    /// It was there, and nobody looked: it is what records have told of it.
    fn unseen(&self, now: Ns, question: Question) -> Input {
        let tree = self.core.tree();
        match (question, tree.find(question.key())) {
            (Question::Identify(key), Some(id)) => {
                let node = &tree[id];
                let who = Identity {
                    at: now,
                    comm: node.comm().clone(),
                    argv: node.argv().clone(),
                    exe: node.exe().clone(),
                    uid: node.uid(),
                    ppid: tree.parent(id).map_or(0, |parent| tree[parent].key().tgid),
                    session: node.session(),
                    cgroups: Vec::new(),
                };
                Input::Identified { key, outcome: Identified::Alive(who) }
            }
            _ => unknown(question),
        }
    }

    /// A verdict holds from a moment that is known, not from the first look of this run.
    fn since_it_holds(&mut self, now: Ns, mut answer: Input) -> Input {
        if let Input::Sampled { key, outcome: Sampled::Seen(sample) } = &mut answer
            && let Some((since, _)) = self.script.known.evidence(now, *key)
        {
            let last = self.looked.insert(*key, now);
            let orphaned = self.core.orphans().find(|orphan| orphan.key == *key).map_or(now, |o| o.since);
            if last.is_none_or(|last| last < since) {
                // Not before that either: what it did until then nobody wrote down.
                sample.at = since.max(orphaned);
            }
        }
        answer
    }

    /// An identity from another moment, with the parent that it has now.
    fn as_the_tree_has_it(&self, mut answer: Input) -> Input {
        if let Input::Identified { key, outcome: Identified::Alive(who) } = &mut answer
            && let Some(id) = self.core.tree().find(*key)
            && let Some(parent) = self.core.tree().parent(id)
        {
            who.ppid = self.core.tree().view(parent).pid;
        }
        answer
    }

    fn claim(&mut self, now: Ns, question: Question, at: usize) -> bool {
        let Some(answers) = self.to_come.get_mut(&question) else { return false };
        while answers.front().is_some_and(|&answer| answer <= at) {
            answers.pop_front();
        }
        let Some(&next) = answers.front() else { return false };
        let before_rest = match self.script.slack {
            None => self.rests.front().is_none_or(|&rest| next < rest),
            Some(_) => matches!(&self.script.steps[next], Step::Answer { now: at, .. } if *at <= now + SAME),
        };
        if before_rest {
            answers.pop_front();
            self.claimed.insert(next);
        }
        before_rest
    }

    fn fire(&mut self, now: Ns, key: ProcKey, signal: &str, at: Option<usize>) {
        let same = |(then, what): &(Ns, Option<String>)| {
            then.abs_diff(now) <= SAME && what.as_deref().is_none_or(|what| what == signal)
        };
        let there = self.script.records.is_none()
            || self.sent_there.get(&key).is_some_and(|signals| signals.iter().any(same));
        if there && at.is_some_and(|at| self.claim(now, Question::Fire(key), at)) {
            return;
        }
        self.core.handle(now, Input::Fired { key, at: now, outcome: Fired::Sent });
        if !(there && self.script.verdicts_only) {
            self.out.fates.insert(key, Fate::SignalledHere);
        }
    }

    fn record(&mut self, mut record: Record) {
        if let Some(proc) = proc_of(&record.event) {
            let key = key_of(proc);
            if self.is_beyond_knowledge(&record, key) {
                return;
            }
            if let Some(evidence) = evidence_of(&mut record.event)
                && let Some((_, seen)) = self.script.known.evidence(record.boot_ns, key)
                && seen.verdict == evidence.verdict
            {
                let quiet_us = evidence.quiet_us;
                *evidence = Evidence { quiet_us, ..seen.clone() };
            }
        }
        // Nobody is signalled by a replay.
        if let Event::Signal { dry_run, .. } = &mut record.event {
            *dry_run = true;
        }
        self.out.records.push(record);
    }

    /// Whether this would be said of a process whose way has parted from the recorded one.
    fn is_beyond_knowledge(&mut self, record: &Record, key: ProcKey) -> bool {
        let fact = matches!(
            record.event,
            Event::Fork { .. } | Event::Exec { .. } | Event::Exit { .. } | Event::Reparent { .. }
        );
        let stopped = matches!(record.event, Event::Left { .. })
            && self.sent_there.get(&key).is_some_and(|s| s.iter().any(|(at, _)| *at <= record.boot_ns));
        if stopped && !self.out.fates.contains_key(&key) {
            self.out.fates.insert(key, Fate::StoppedThere);
        }
        !fact && self.out.fates.contains_key(&key)
    }
}

/// The signals that were really sent, by process.
fn sent(records: &[Record]) -> BTreeMap<ProcKey, Vec<(Ns, Option<String>)>> {
    let mut sent: BTreeMap<ProcKey, Vec<_>> = BTreeMap::new();
    for record in records {
        if let Event::Signal { proc, signal, dry_run: false, .. } = &record.event {
            sent.entry(key_of(proc)).or_default().push((record.boot_ns, Some(signal.clone())));
        }
    }
    sent
}

/// Whose process a record shows.
pub(super) fn key_of(proc: &ProcView) -> ProcKey {
    ProcKey { tgid: proc.pid, start_ns: proc.start_ns }
}

/// Whom a record is about.
pub(super) fn proc_of(event: &Event) -> Option<&ProcView> {
    match event {
        Event::Fork { proc, .. }
        | Event::Exec { proc, .. }
        | Event::Exit { proc, .. }
        | Event::Reparent { proc, .. }
        | Event::MasterFound { proc, .. }
        | Event::MasterLost { proc, .. }
        | Event::Heir { proc, .. }
        | Event::Orphaned { proc, .. }
        | Event::Busy { proc, .. }
        | Event::Idle { proc, .. }
        | Event::Draining { proc, .. }
        | Event::Signal { proc, .. }
        | Event::Reaped { proc, .. }
        | Event::Left { proc, .. }
        | Event::Spared { proc, .. } => Some(proc),
        Event::Error { proc, .. } => proc.as_ref(),
        _ => None,
    }
}

fn evidence_of(event: &mut Event) -> Option<&mut Evidence> {
    match event {
        Event::Busy { evidence, .. } | Event::Idle { evidence, .. } | Event::Signal { evidence, .. } => {
            Some(evidence)
        }
        _ => None,
    }
}

/// Nothing more is known of it.
fn gone(question: Question) -> Input {
    match question {
        Question::Identify(key) => Input::Identified { key, outcome: Identified::Gone },
        Question::Sample(key) => Input::Sampled { key, outcome: Sampled::Gone },
        Question::Aim(key) => Input::Aimed { key, outcome: Sampled::Gone },
        Question::Fire(key) => Input::Fired { key, at: 0, outcome: Fired::Gone },
    }
}

/// It was there, nobody looked, and nothing is known of it.
fn unknown(question: Question) -> Input {
    let why = "nobody looked then when this was recorded".to_owned();
    match question {
        Question::Identify(key) => Input::Identified { key, outcome: Identified::Unreadable(why) },
        Question::Sample(key) => Input::Sampled { key, outcome: Sampled::Unreadable(why) },
        Question::Aim(key) => Input::Aimed { key, outcome: Sampled::Unreadable(why) },
        Question::Fire(key) => Input::Fired { key, at: 0, outcome: Fired::Failed(why) },
    }
}
