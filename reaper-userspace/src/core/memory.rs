//! What outlives the agent of what the core knows, and how the next one takes it up.
//!
//! The kernel keeps who was born of whom (`tree/recall.rs`). What only the agent knows is here: who was a master, who had left
//! its group, how far the stopping of each orphan has come, who was asked to stop, how many were stopped of late. It is kept
//! whenever it changes. A signal is kept right after it was sent, by itself, and with all that has to be known of whom it went to: if the
//! agent dies in between, the kernel's record of the signal is still unread, and says the same.
//!
//! Groups are known by their patterns, not by their names alone: with others it is decided anew who belongs to them.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::Core;
use super::effect::Effect;
use super::ids::{Ns, ProcKey};
use super::input::{Birth, Death, Exit};
use super::lineage::code_and_signal;
use super::membership::{GroupId, Reign};
use super::orphan::{Orphan, Phase, Progress};
use super::records::{Event, ProcView};
use super::reload::{Patterns, Succession};
use super::rules::{Group, Matcher, Signal};
use super::schedule::Timer;
use super::tree::{Known, NodeId};

/// After so many other effects what is to be kept is kept in between.
const POSTPONED: usize = 64;

/// The same of what the next agent would find out by itself.
const POSTPONED_LONG: usize = 512;

/// How soon it has to be kept that something has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Haste {
    /// At rest, or after [`POSTPONED_LONG`] other effects: an agent that did not know it would find it out by itself, and tell of it
    /// once more.
    Eventually,
    /// Before anybody is looked at closely, or after [`POSTPONED`] other effects.
    Soon,
}

/// What one agent leaves to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The pid of the agent: what it has sent is no one else's signal.
    agent: u32,
    groups: Vec<GroupMemory>,
    masters: Vec<MasterMemory>,
    left: Vec<ProcKey>,
    orphans: Vec<OrphanMemory>,
    /// Who was asked to stop: with which signals, and by whom.
    asked: Vec<(ProcKey, Vec<(i32, u32)>)>,
    /// Who lost its parent as daemons do and was adopted by its own master: the session that a daemon is out of.
    #[serde(default)]
    adopted: Vec<(ProcKey, u32)>,
}

/// A group, to which the others refer by its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct GroupMemory {
    name: String,
    master: String,
    worker: Option<String>,
    /// When orphans were stopped that still count for the breaker.
    kills: Vec<Ns>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct MasterMemory {
    key: ProcKey,
    group: usize,
    reign: Reign,
    proc: ProcView,
}

/// What one signal adds to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalMemory {
    /// Whom it was sent to, as it stands since.
    orphan: OrphanMemory,
    /// When it was sent, if the breaker counts it.
    kill: Option<Ns>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OrphanMemory {
    key: ProcKey,
    groups: Vec<usize>,
    acting: usize,
    progress: Progress,
    proc: ProcView,
}

/// What was kept, until the first dump is in.
#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) births: Vec<Birth>,
    pub(super) memory: Memory,
    /// See [`super::input::Input::Remembered`].
    pub(super) unwatched_since: Ns,
}

/// A master that was gone when the agent came back.
#[derive(Debug)]
pub(super) struct Absent {
    group: GroupId,
    key: ProcKey,
    proc: ProcView,
    /// If it is in somebody's lineage.
    death: Option<Death>,
}

impl Memory {
    /// Takes up what was kept of a signal after the rest.
    pub fn add(&mut self, signal: SignalMemory) {
        let SignalMemory { orphan, kill } = signal;
        if let Some(group) = self.groups.get_mut(orphan.acting) {
            group.kills.extend(kill);
        }
        self.orphans.retain(|known| known.key != orphan.key);
        self.orphans.push(orphan);
    }
}

impl Core {
    /// What the next agent will have to know.
    pub fn memory(&self) -> Memory {
        let source = Matcher::source;
        let group = |(g, group): (GroupId, &Group)| GroupMemory {
            name: group.name.clone(),
            master: source(&group.master),
            worker: group.worker.as_ref().map(source),
            kills: self.groups[g].breaker.kills(),
        };
        // Who can belong to no group needs no line: else any user could fill the file.
        let may_matter = |key: ProcKey| {
            let node = self.tree.find(key).map(|id| &self.tree[id]);
            self.orphans.contains_key(&key) || node.is_some_and(|n| n.tracked() || n.may_be_stray())
        };
        let mut memory = Memory {
            agent: self.agent,
            groups: self.rules.groups.iter().enumerate().map(group).collect(),
            asked: self
                .asked
                .iter()
                .filter(|(key, _)| may_matter(**key))
                .map(|(key, asked)| (*key, asked.iter().map(|(signal, by)| (*signal, *by)).collect()))
                .collect(),
            adopted: self.adopted.iter().map(|(key, session)| (*key, *session)).collect(),
            ..Memory::default()
        };
        // It is made with every signal: of those that nothing is decided about it wants no more than a look.
        let matters = |id: &NodeId| self.tree[*id].tracked() || self.tree[*id].has_left();
        for id in self.tree.all().filter(matters) {
            let key = self.tree[id].key();
            let masters = self.members.reigns_of(key);
            memory.masters.extend(masters.map(|(group, reign)| MasterMemory {
                key,
                group,
                reign,
                proc: self.tree.view(id),
            }));
            if self.tree[id].has_left() {
                memory.left.push(key);
            }
        }
        memory.orphans.extend(self.orphans.values().filter_map(|orphan| self.orphan_memory(orphan)));
        memory
    }

    /// `None` if there is no such process any more.
    fn orphan_memory(&self, orphan: &Orphan) -> Option<OrphanMemory> {
        Some(OrphanMemory {
            key: orphan.key,
            groups: orphan.groups.clone(),
            acting: orphan.group,
            progress: orphan.progress(),
            proc: self.tree.view(self.tree.find(orphan.key)?),
        })
    }

    /// Something has changed that the next agent will have to know: nobody waits for a file before it is known whether it is an
    /// orphan.
    pub(super) fn remember(&mut self) {
        self.persisting = Some(Haste::Soon);
    }

    /// See [`Haste::Eventually`].
    pub(super) fn remember_eventually(&mut self) {
        self.persisting = self.persisting.max(Some(Haste::Eventually));
    }

    /// An orphan was sent a signal; `kill` is when, if the breaker counts it.
    pub(super) fn remember_signal(&mut self, key: ProcKey, kill: Option<Ns>) {
        let orphan = self.orphans.get(&key).and_then(|orphan| self.orphan_memory(orphan));
        if let Some(orphan) = orphan {
            self.effects.push_front(Effect::PersistSignal(Box::new(SignalMemory { orphan, kill })));
        }
    }

    /// Whether it is kept now. Of whom the memory calls an orphan the event log has told: what there is to record goes before it.
    pub(super) fn persists_now(&mut self) -> bool {
        let next = self.effects.front();
        // Nothing comes between the last look and the signal, and what that one adds is added to what was kept before it.
        if matches!(next, Some(Effect::Fire { .. } | Effect::Release(_) | Effect::PersistSignal(_))) {
            return false;
        }
        let due = match self.persisting {
            None => false,
            Some(Haste::Eventually) => next.is_none() || self.postponed >= POSTPONED_LONG,
            Some(Haste::Soon) => {
                let waits = matches!(next, Some(Effect::Record(_) | Effect::Identify(_)));
                !waits || self.postponed >= POSTPONED
            }
        };
        if !due {
            return false;
        }
        let is_record: fn(&Effect) -> bool = |effect| matches!(effect, Effect::Record(_));
        if self.effects.front().is_some_and(is_record) {
            return false;
        }
        if self.effects.iter().any(is_record) {
            let effects = std::mem::take(&mut self.effects);
            let (mut records, others): (VecDeque<_>, VecDeque<_>) = effects.into_iter().partition(is_record);
            records.extend(others);
            self.effects = records;
            return false;
        }
        (self.persisting, self.postponed) = (None, 0);
        true
    }

    pub(super) fn on_remembered(&mut self, now: Ns, remembered: Remembered, lost: u64) {
        if lost > 0 {
            self.record(now, Event::EventsLost { count: lost });
        }
        self.former_agent = Some(remembered.memory.agent).filter(|&agent| agent != 0);
        self.remembered = Some(Box::new(remembered));
    }

    /// The first dump has been taken up: what was kept comes over it.
    pub(super) fn recall(&mut self, now: Ns) {
        let Some(remembered) = self.remembered.take() else { return };
        let Remembered { births, memory, unwatched_since } = *remembered;
        let patterns = memory.groups.iter().map(|group| Patterns {
            name: &group.name,
            master: &group.master,
            worker: group.worker.as_deref(),
        });
        let next = Succession::of(patterns, &self.rules.groups);
        let known = Known {
            masters: memory
                .masters
                .iter()
                .filter(|m| next.masters(m.group).is_some())
                .map(|m| m.key)
                .collect(),
            left: memory.left.iter().copied().collect(),
            until: unwatched_since,
        };
        let tombstones = self.tree.recall(&births, &known);
        for master in memory.masters {
            if let Some(group) = next.masters(master.group) {
                self.recall_master(group, master, &tombstones);
            }
        }
        let adopted = memory.adopted.into_iter().filter(|(key, _)| self.tree.find(*key).is_some());
        self.adopted.extend(adopted.collect::<Vec<_>>());
        for (key, asked) in memory.asked {
            if self.tree.find(key).is_some() {
                self.asked.insert(key, asked.into_iter().collect());
            }
        }
        for orphan in memory.orphans {
            let groups: Vec<GroupId> = orphan.groups.iter().filter_map(|&g| next.workers(g)).collect();
            let acted = next.workers(orphan.acting);
            self.recall_orphan(now, orphan, groups, acted);
        }
        for (old, group) in memory.groups.into_iter().enumerate() {
            if let Some(g) = next.masters(old) {
                group.kills.into_iter().for_each(|at| self.groups[g].breaker.count(at));
            }
        }
    }

    fn recall_master(
        &mut self,
        group: GroupId,
        master: MasterMemory,
        tombstones: &BTreeMap<ProcKey, NodeId>,
    ) {
        let MasterMemory { key, reign, proc, .. } = master;
        let live = self.tree.find(key);
        let tombstone = tombstones.get(&key).copied();
        if let Some(dead) = tombstone {
            self.tree.describe(dead, &proc);
        }
        if let Some(id) = live.or(tombstone) {
            self.members.restore(&mut self.tree, id, group, reign, live.is_some());
        }
        if reign.reigning && live.is_none() {
            let death = tombstone.and_then(|dead| self.tree[dead].death());
            self.absent.push(Absent { group, key, proc, death });
        }
    }

    fn recall_orphan(&mut self, now: Ns, orphan: OrphanMemory, groups: Vec<GroupId>, acted: Option<GroupId>) {
        let OrphanMemory { key, progress, proc, .. } = orphan;
        if groups.is_empty() {
            // Whatever becomes of it, what the agent has sent is not sent again.
            if let Some(signal) = progress.signalled.filter(|_| self.tree.find(key).is_some()) {
                self.asked.entry(key).or_default().insert(signal.0, self.agent);
            }
            return;
        }
        let group = self.acting_group(&groups);
        let mut resumed = Orphan::resumed(key, group, progress);
        if acted != Some(group) {
            resumed = resumed.passed_to(group, &self.rules.groups[group].stop);
        }
        resumed.groups = groups;
        if self.tree.find(key).is_none() {
            return self.gone.push((resumed, proc));
        }
        self.orphans.insert(key, resumed);
        self.resume_draining(now, key);
        self.schedule.set(Timer::Orphan(key), now);
    }

    /// The orphans that went while no agent was there, once every signal of the former agent has been read.
    pub(super) fn tell_gone(&mut self, now: Ns) {
        for (orphan, proc) in std::mem::take(&mut self.gone) {
            let group = self.group_name(orphan.group);
            self.record(now, Orphan::end(group, proc, orphan.signalled, orphan.since, now));
        }
    }

    /// A signal of the former agent that it did not read any more. If it died before it could keep that it had sent it, this
    /// says so. False if it is somebody else's, who has the pid of that agent now.
    pub(super) fn former_agent_sent(&mut self, at: Ns, target: ProcKey, signal: Signal) -> bool {
        let gone = self.gone.iter_mut().map(|(orphan, _)| orphan).find(|orphan| orphan.key == target);
        let Some(orphan) = self.orphans.get_mut(&target).or(gone) else { return false };
        let stop = &self.rules.groups[orphan.group].stop;
        let due = orphan.next_step(stop).filter(|_| orphan.phase == Phase::Watching);
        if due.is_none_or(|(_, next)| next != signal) {
            return orphan.signalled == Some(signal);
        }
        if orphan.signalled.is_none() {
            self.groups[orphan.group].breaker.count(at);
        }
        orphan.sent(at, signal, stop);
        self.reschedule(at, target);
        self.remember();
        true
    }

    /// The masters that died while no agent was there: told when everybody has been looked at, as then it is known whose
    /// workers they left.
    pub(super) fn tell_absent(&mut self, now: Ns) {
        for Absent { group, key, proc, death } in std::mem::take(&mut self.absent) {
            let told = || self.tree.find_dead(key).and_then(|id| self.tree[id].death());
            let Death { at, status } = death.or_else(told).unwrap_or(Death { at: now, status: Exit::UNSEEN });
            let workers = self.tree.find_dead(key).map_or(0, |id| self.left_behind(group, id));
            let (code, signal) = code_and_signal(status);
            let group = self.group_name(group);
            self.record(at, Event::MasterLost { group, proc, workers, code, signal, namespace_died: false });
        }
        self.remember();
    }
}
