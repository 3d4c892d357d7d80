//! A script from an event log: its records turned back into inputs, as far as they carry what is needed.
//!
//! Births and deaths come from `fork`, `exec`, `exit` and `reparent` records where the log has them (`log_level`), else
//! from what the others tell of the processes that they name. What no record tells is said in [`Script::notes`]: nothing
//! is guessed that a decision would rest on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::driver::{key_of, proc_of};
use super::timeline::Timeline;
use super::{Script, Step};
use crate::core::ids::{Ns, ProcKey};
use crate::core::input::{Exec, Exit, Fork, Input, Parent, Task};
use crate::core::records::{Event, HeirBecause, ProcView, Record};
use crate::core::rules::Signal;
use crate::core::rules::{LogLevel, Rules};

/// kthreadd, the parent of every kernel thread.
const KTHREADD: u32 = 2;

impl Script {
    /// Of an event log. `rules` are those of the replay: what they ask for and no record tells is noted.
    pub fn of_log(lines: Vec<(Timestamp, Record)>, rules: &Rules) -> Self {
        let clock = lines.first().map(|(wall, record)| (record.boot_ns, *wall));
        let records: Vec<Record> = lines.into_iter().map(|(_, record)| record).collect();
        let mut timeline = Timeline::default();
        records.iter().for_each(|record| timeline.learn(record));
        timeline.complete();
        let level = level_of(&records);
        let mut world = World::new(&records, timeline, level);
        world.introduce();
        records.iter().for_each(|record| world.replay(record));
        let steps = world.in_order();
        let notes = notes(level, &records, rules);
        Self {
            agent: None,
            steps,
            records: Some(records),
            known: Box::new(world.timeline),
            clock,
            notes,
            slack: Some(0),
            verdicts_only: true,
        }
    }
}

/// How much a log tells, as far as that can be seen.
fn level_of(records: &[Record]) -> LogLevel {
    let named = |event: &Event| !is_lineage(event);
    let of_groups: BTreeSet<ProcKey> =
        records.iter().filter(|r| named(&r.event)).filter_map(|r| proc_of(&r.event)).map(key_of).collect();
    let mut lineage = records.iter().filter(|r| is_lineage(&r.event)).peekable();
    if lineage.peek().is_none() {
        return LogLevel::Decisions;
    }
    // At `lineage` whoever is told of descends from a master or is one; at `all` there are others.
    let mut tracked = of_groups;
    let mut all = false;
    for record in lineage {
        let parent = match &record.event {
            Event::Fork { parent, .. } | Event::Exec { parent, .. } | Event::Exit { parent, .. } => {
                Some(key_of(parent))
            }
            _ => None,
        };
        let Some(key) = proc_of(&record.event).map(key_of) else { continue };
        if !tracked.contains(&key) && parent.is_some_and(|parent| !tracked.contains(&parent)) {
            all = true;
        }
        tracked.insert(key);
    }
    if all { LogLevel::All } else { LogLevel::Lineage }
}

fn is_lineage(event: &Event) -> bool {
    matches!(event, Event::Fork { .. } | Event::Exec { .. } | Event::Exit { .. } | Event::Reparent { .. })
}

fn notes(level: LogLevel, records: &[Record], rules: &Rules) -> Vec<String> {
    let mut notes = Vec::new();
    match level {
        LogLevel::Decisions => notes.push(
            "this log has no births and deaths (log_level = \"decisions\"): only processes that its records name are known, \
             so other patterns than those it was written with find nobody else"
                .to_owned(),
        ),
        LogLevel::Lineage => notes.push(
            "this log has the births and deaths of its groups' processes only (log_level = \"lineage\"): other patterns find \
             nobody else"
                .to_owned(),
        ),
        LogLevel::All => notes.push(
            "who was there before the log began, and did nothing since, is not in it (log_level = \"all\")".to_owned(),
        ),
    }
    notes.push(
        "an event log has verdicts, not samples: of [group.idle] only quiet makes a difference; who is in a session of its \
         own is known of heirs and of those spared as detached only"
            .to_owned(),
    );
    for group in &rules.groups {
        let places = |m: &crate::core::rules::Matcher| m.cgroup.is_some() || m.unit.is_some();
        if places(&group.master) || group.worker.as_ref().is_some_and(places) {
            notes.push(format!(
                "group {}: cgroups are not in an event log, so its cgroup and unit patterns match nobody",
                group.name
            ));
        }
    }
    let started = records.iter().filter(|r| matches!(r.event, Event::AgentStarted { .. })).count();
    if started > 1 {
        notes.push(format!("the agent started {started} times in this log: it is replayed as one run"));
    }
    notes
}

/// What happened, in the making.
struct World {
    timeline: Timeline,
    level: LogLevel,
    began: Ns,
    /// The kernel's first process: whoever has no other parent has this one.
    init: ProcKey,
    /// Who forked whom, where a record tells.
    parents: BTreeMap<ProcKey, ProcKey>,
    /// Whose birth a record tells.
    born: BTreeSet<ProcKey>,
    /// Whose birth nobody saw.
    strays: BTreeSet<ProcKey>,
    /// Whose exec a record tells.
    exec_told: BTreeSet<ProcKey>,
    /// Who exec'd, by what a decision says.
    execed: BTreeSet<ProcKey>,
    /// Whose death was told already, and when.
    died: BTreeMap<ProcKey, Ns>,
    /// Who adopted the children of the dead.
    adopters: BTreeMap<ProcKey, ProcKey>,
    /// Masters that died with the pid namespace that they were in: nobody adopted their children.
    doomed: BTreeSet<ProcKey>,
    /// By time, then in the order in which they were made.
    steps: Vec<(Ns, Input)>,
}

impl World {
    fn new(records: &[Record], timeline: Timeline, level: LogLevel) -> Self {
        let mut world = Self {
            timeline,
            level,
            began: began(records),
            init: ProcKey { tgid: 1, start_ns: 0 },
            parents: BTreeMap::new(),
            born: BTreeSet::new(),
            strays: BTreeSet::new(),
            exec_told: BTreeSet::new(),
            execed: BTreeSet::new(),
            died: BTreeMap::new(),
            adopters: BTreeMap::new(),
            doomed: BTreeSet::new(),
            steps: Vec::new(),
        };
        world.init = world.key_at(1, Ns::MAX).unwrap_or(world.init);
        for record in records {
            match &record.event {
                Event::Fork { proc, parent } => {
                    world.parents.insert(key_of(proc), key_of(parent));
                    world.born.insert(key_of(proc));
                }
                Event::Exec { proc, .. } => {
                    world.exec_told.insert(key_of(proc));
                }
                Event::Orphaned { proc, stray: true, .. } => {
                    world.strays.insert(key_of(proc));
                }
                Event::Reparent { old_parent, new_parent, .. } => {
                    world.adopters.insert(key_of(old_parent), key_of(new_parent));
                }
                Event::MasterLost { proc, namespace_died: true, .. } => {
                    world.doomed.insert(key_of(proc));
                }
                Event::Heir { proc, because: HeirBecause::Exec, .. } => {
                    world.execed.insert(key_of(proc));
                }
                _ => {}
            }
        }
        world.note_lineages(records);
        world
    }

    /// Lineages name pids, nearest first; whose they are follows from the time.
    fn note_lineages(&mut self, records: &[Record]) {
        for record in records {
            let Event::Orphaned { proc, lineage, .. } = &record.event else { continue };
            let mut child = key_of(proc);
            for &pid in lineage {
                let parent = self.key_at(pid, child.start_ns).unwrap_or(ProcKey {
                    tgid: pid,
                    // Not known, but before its child's.
                    start_ns: child.start_ns.saturating_sub(1),
                });
                self.timeline.looks.entry(parent).or_insert_with(|| {
                    let view = ProcView { pid, start_ns: parent.start_ns, ..ProcView::default() };
                    vec![(parent.start_ns, view)]
                });
                self.parents.entry(child).or_insert(parent);
                child = parent;
            }
        }
    }

    /// Who had a pid at a moment: the youngest that was there by then.
    fn key_at(&self, pid: u32, at: Ns) -> Option<ProcKey> {
        let from = ProcKey { tgid: pid, start_ns: 0 };
        let to = ProcKey { tgid: pid, start_ns: at };
        self.timeline.looks.range(from..=to).next_back().map(|(key, _)| *key)
    }

    fn parent_of(&self, key: ProcKey) -> ProcKey {
        if let Some(parent) = self.parents.get(&key) {
            return *parent;
        }
        let ppid = self.timeline.look(key.start_ns, key).map_or(0, |look| look.ppid);
        self.key_at(ppid, key.start_ns).filter(|parent| *parent != key).unwrap_or(self.init)
    }

    /// Everybody who is named, by a dump if they were there before the log, else by their birth.
    fn introduce(&mut self) {
        let (began, init) = (self.began, self.init);
        let mut tasks = vec![Task {
            key: init,
            parent: Parent::None,
            comm: "init".into(),
            uid: 0,
            session: 0,
            kernel_thread: false,
            reaper: true,
        }];
        let keys: Vec<ProcKey> = self.timeline.looks.keys().copied().filter(|key| *key != init).collect();
        for key in keys {
            let parent = self.parent_of(key);
            let Some(look) = self.timeline.look(key.start_ns, key) else { continue };
            let (comm, uid) = (look.comm.clone(), look.uid);
            let kernel_thread = key.tgid == KTHREADD || parent.tgid == KTHREADD;
            if key.start_ns > began {
                self.be_born(key, parent, kernel_thread);
                continue;
            }
            let parent = Parent::Known(parent);
            tasks.push(Task { key, parent, comm, uid, session: 0, kernel_thread, reaper: key.tgid == 1 });
        }
        let start = [
            Input::Configured { at: began, rules: Arc::default(), armed: Vec::new(), broken: Vec::new() },
            Input::Snapshot { at: began, took_ns: 0, tasks },
            Input::Merged { at: began },
        ];
        self.steps.extend(start.map(|input| (began, input)));
    }

    /// A birth that no record tells: at its start, and with an image of its own if it looks unlike its parent.
    fn be_born(&mut self, key: ProcKey, parent: ProcKey, kernel_thread: bool) {
        if self.born.contains(&key) || self.strays.contains(&key) {
            return;
        }
        let at = key.start_ns;
        let Some(look) = self.timeline.look(at, key).cloned() else { return };
        let unlike = self.timeline.look(at, parent).is_none_or(|parent| parent.argv != look.argv);
        let comm = look.comm.clone();
        let fork = Fork { at, child: key, parent, comm, uid: look.uid, session: 0, kernel_thread };
        self.steps.push((at, Input::Fork(fork)));
        if !self.exec_told.contains(&key) && (unlike || self.execed.contains(&key)) {
            self.steps.push((at, exec(at, &look)));
        }
    }

    fn replay(&mut self, record: &Record) {
        let at = record.boot_ns;
        match &record.event {
            Event::Fork { proc, parent } => {
                let (child, parent) = (key_of(proc), key_of(parent));
                let kernel_thread = parent.tgid == KTHREADD;
                let comm = proc.comm.clone();
                let fork = Fork { at, child, parent, comm, uid: proc.uid, session: 0, kernel_thread };
                self.steps.push((at, Input::Fork(fork)));
            }
            Event::Exec { proc, .. } => self.steps.push((at, exec(at, proc))),
            Event::Exit { proc, code, signal, .. } => self.die(at, key_of(proc), status(*code, signal)),
            // Without code and signal it became something else, or nobody saw how it ended.
            Event::MasterLost { proc, code, signal, .. }
                if self.level == LogLevel::Decisions
                    && (code.is_some() || signal.is_some() || !self.is_named_after(at, key_of(proc))) =>
            {
                self.die(at, key_of(proc), status(*code, signal));
            }
            Event::Orphaned { lost: Some(lost), .. }
                if self.level == LogLevel::Decisions && !self.is_named_after(at, key_of(lost)) =>
            {
                self.die(at, key_of(lost), Exit::UNSEEN);
            }
            Event::Reaped { proc, .. } | Event::Left { proc, .. } if self.level == LogLevel::Decisions => {
                self.die(at, key_of(proc), Exit::UNSEEN);
            }
            Event::Draining { proc, signal, sender, .. } => {
                if let Some(Signal(signal)) = Signal::from_name(signal) {
                    let sender = sender.as_ref().map_or(0, |s| s.pid);
                    self.steps.push((at, Input::SignalSeen { at, target: key_of(proc), signal, sender }));
                }
            }
            Event::EventsLost { count } => self.steps.push((at, Input::Lost { at, count: *count })),
            Event::Resynced { .. } => self.resync(at),
            _ => {}
        }
    }

    fn is_named_after(&self, at: Ns, key: ProcKey) -> bool {
        let looks = self.timeline.looks.get(&key).map(Vec::as_slice).unwrap_or_default();
        looks.iter().any(|(then, _)| *then > at)
    }

    fn die(&mut self, at: Ns, key: ProcKey, status: u32) {
        if self.died.insert(key, at).is_some() {
            return;
        }
        let adopter = match self.adopters.get(&key) {
            _ if self.doomed.contains(&key) => Parent::NamespaceDies,
            adopter => Parent::Known(adopter.copied().unwrap_or(self.init)),
        };
        self.steps.push((at, Input::Exit(Exit { at, key, status, adopter })));
    }

    /// The tree was rebuilt: everybody who is known and not dead.
    fn resync(&mut self, at: Ns) {
        let alive = |key: &ProcKey| key.start_ns <= at && !self.died.contains_key(key);
        let keys: Vec<ProcKey> = self.timeline.looks.keys().copied().filter(alive).collect();
        let row = |key: ProcKey| {
            let look = self.timeline.look(at, key);
            let ppid = look.map_or(0, |look| look.ppid);
            let parent = self
                .key_at(ppid, at)
                .filter(|p| *p != key && !self.died.contains_key(p))
                .unwrap_or(self.init);
            Task {
                key,
                parent: if key == self.init { Parent::None } else { Parent::Known(parent) },
                comm: look.map(|look| look.comm.clone()).unwrap_or_default(),
                uid: look.map_or(0, |look| look.uid),
                session: 0,
                kernel_thread: key.tgid == KTHREADD || parent.tgid == KTHREADD,
                reaper: key.tgid == 1,
            }
        };
        let mut tasks: Vec<Task> = keys.into_iter().map(row).collect();
        if !tasks.iter().any(|task| task.key == self.init) {
            tasks.push(row(self.init));
        }
        self.steps.push((at, Input::Snapshot { at, took_ns: 0, tasks }));
        self.steps.push((at, Input::Merged { at }));
    }

    fn in_order(&mut self) -> Vec<Step> {
        let mut steps = std::mem::take(&mut self.steps);
        steps.sort_by_key(|(at, _)| *at);
        steps.into_iter().map(|(now, input)| Step::World { now, input }).collect()
    }
}

/// When the tree was complete, or whatever came before that.
fn began(records: &[Record]) -> Ns {
    let counts = |r: &&Record| is_lineage(&r.event) || matches!(r.event, Event::Snapshot { .. });
    let first = records.iter().filter(counts).map(|r| r.boot_ns).min();
    first.or_else(|| records.first().map(|r| r.boot_ns)).unwrap_or_default()
}

fn exec(at: Ns, proc: &ProcView) -> Input {
    Input::Exec(Exec {
        at,
        key: key_of(proc),
        comm: proc.comm.clone(),
        uid: proc.uid,
        session: 0,
        filename: proc.exe.clone(),
        argv: proc.argv.clone(),
        truncated: false,
    })
}

/// As in wait(2).
fn status(code: Option<i32>, signal: &Option<String>) -> u32 {
    let signal = signal.as_deref().map(|s| Signal::from_name(s).map(|s| s.0).or_else(|| s.parse().ok()));
    match (code, signal) {
        (_, Some(Some(signal))) => u32::try_from(signal).unwrap_or(Exit::UNSEEN),
        (Some(code), None) => u32::try_from(code).map_or(Exit::UNSEEN, |code| code << 8),
        _ => Exit::UNSEEN,
    }
}
