//! The decisions: who is whose worker, who is an orphan, who is stopped when.
//!
//! Pure: no I/O, no clock, no locks, no async. What happens comes in through [`Core::handle`] with the time; what is to
//! be done comes out of [`Core::poll_effect`]; [`Core::next_deadline`] says when to call again if nothing happens. The
//! same inputs always give the same effects.
//!
//! The files are chapters of one state machine. The main way through them: `lineage` (births and deaths change the tree) → `bereave`
//! (who has lost a master) → `fates` (who became a master, an heir, an orphan) → `stopping` (what is done about orphans).

pub mod argv;
mod bereave;
pub mod bereaved;
pub mod breaker;
pub mod container;
pub mod effect;
pub mod errors;
mod fates;
pub mod idle;
pub mod ids;
pub mod input;
pub mod likeness;
mod lineage;
mod masters;
pub mod membership;
pub mod memory;
pub mod orphan;
mod parting;
pub mod records;
mod reload;
pub mod rules;
pub mod sample;
pub mod schedule;
mod stopping;
mod survey;
pub mod tree;
pub mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bereaved::Bereaved;
use breaker::Breaker;
use effect::Effect;
use ids::{Ns, ProcKey};
use input::{Armed, Input};
use likeness::Likenesses;
use membership::{GroupId, Membership};
use memory::{Absent, Haste, Remembered};
use orphan::Orphan;
use records::{Event, ProcView, Record};
use rules::{LogLevel, Mode, Rules};
use schedule::{Schedule, Timer};
use serde::{Deserialize, Serialize};
use survey::Survey;
use tree::{NodeId, Tree};

/// Room for so many effects is kept. A start asks who everybody is, and so does every loss.
const EFFECTS_KEPT: usize = 1024;

/// The state of the agent, all of it.
#[derive(Debug)]
pub struct Core {
    /// The agent's own pid: it and its ancestors are never signalled.
    agent: u32,
    rules: Arc<Rules>,
    tree: Tree,
    members: Membership,
    groups: Vec<GroupState>,
    bereaved: BTreeMap<ProcKey, Bereaved>,
    orphans: BTreeMap<ProcKey, Orphan>,
    /// Who died detached before anybody knew who had adopted it: if that was its master, it had not left after all.
    parted: BTreeMap<ProcKey, Vec<GroupId>>,
    /// Who lost its parent as daemons do and was adopted by its own master: the session that a daemon is out of.
    adopted: BTreeMap<ProcKey, u32>,
    /// Whom somebody has asked to stop: with which signals, and who sent each.
    asked: BTreeMap<ProcKey, BTreeMap<i32, u32>>,
    survey: Survey,
    schedule: Schedule,
    view: View,
    errors: errors::Limit,
    effects: VecDeque<Effect>,
    /// The command line that is looked at, so that not every exec asks for memory.
    line: String,
    /// What the next agent has to know has changed, and [`Effect::Persist`] is to come.
    persisting: Option<Haste>,
    /// How many others have come before it.
    postponed: usize,
    /// What the agent before this one has left, until it is taken up.
    remembered: Option<Box<Remembered>>,
    /// The pid of that agent, until what it left is taken up.
    former_agent: Option<u32>,
    /// Masters that were gone when this agent came, until that has been told.
    absent: Vec<Absent>,
    /// The orphans that were gone then.
    gone: Vec<(Orphan, ProcView)>,
}

/// What is kept of a group besides its rules.
#[derive(Debug, Default)]
struct GroupState {
    /// Its master matcher has matched a process since boot.
    armed: bool,
    /// What its masters and workers were since boot.
    likenesses: Likenesses,
    breaker: Breaker,
    /// It has been said that its two matchers overlap.
    overlap_said: bool,
}

/// How complete the tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum View {
    /// Nothing has been dumped yet.
    Blind,
    /// A dump is in, what happened during it is being replayed.
    Merging { took_ns: Ns, first: bool, added: usize, removed: usize },
    /// Everything is known.
    Clear,
    /// Records were lost: nobody is signalled until the tree has been rebuilt.
    Lossy,
}

/// Where a group stands, for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Whether it signals.
    #[serde(default)]
    pub mode: Mode,
    /// Its master matcher has matched a process since boot.
    pub armed: bool,
    /// Its circuit breaker is open.
    pub breaker_open: bool,
    /// Masters now.
    pub masters: usize,
    /// Orphans now.
    pub orphans: usize,
    /// Its master patterns, see [`rules::Matcher::source`].
    pub master_source: String,
}

impl Core {
    /// A core that knows nothing yet. `agent` is the pid of the process it runs in.
    pub fn new(agent: u32) -> Self {
        Self {
            agent,
            rules: Arc::default(),
            tree: Tree::default(),
            members: Membership::default(),
            groups: Vec::new(),
            bereaved: BTreeMap::new(),
            orphans: BTreeMap::new(),
            parted: BTreeMap::new(),
            adopted: BTreeMap::new(),
            asked: BTreeMap::new(),
            survey: Survey::default(),
            schedule: Schedule::default(),
            view: View::Blind,
            errors: errors::Limit::default(),
            effects: VecDeque::new(),
            line: String::new(),
            persisting: None,
            postponed: 0,
            remembered: None,
            former_agent: None,
            absent: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// Takes in what happened, at the time `now` (`CLOCK_BOOTTIME`).
    pub fn handle(&mut self, now: Ns, input: Input) {
        match input {
            Input::Fork(fork) => self.on_fork(now, &fork),
            Input::Exec(exec) => self.on_exec(now, &exec),
            Input::Exit(exit) => self.on_exit(now, &exit),
            Input::Snapshot { at: _, took_ns, tasks } => self.on_snapshot(now, took_ns, &tasks),
            Input::Merged { at } => self.on_merged(now, at),
            Input::Lost { at, count } => self.on_lost(at, count),
            Input::Identified { key, outcome } => self.on_identified(now, key, &outcome),
            Input::Sampled { key, outcome } => self.on_sampled(now, key, &outcome),
            Input::Aimed { key, outcome } => self.on_aimed(now, key, &outcome),
            Input::Fired { key, at, outcome } => self.on_fired(at, key, outcome),
            Input::SignalSeen { at, target, signal, sender } => {
                self.on_signal_seen(at, target, signal, sender);
            }
            Input::Remembered { births, memory, lost, unwatched_since } => {
                self.on_remembered(now, Remembered { births, memory, unwatched_since }, lost);
            }
            Input::Configured { at, rules, armed, broken } => self.on_configured(at, rules, &armed, &broken),
            Input::Tick => {}
        }
        self.run_timers(now);
        for key in self.tree.take_unsettled() {
            self.effects.push_back(Effect::Identify(key));
        }
        let forgotten = self.tree.take_forgotten();
        self.members.forget(&forgotten);
        for key in &forgotten {
            self.parted.remove(key);
        }
        let tree = &self.tree;
        self.schedule.prune(|key| tree.find(key).is_some());
    }

    /// The next thing to do, if there is any.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        if self.persists_now() {
            return Some(Effect::Persist);
        }
        self.postponed += usize::from(self.persisting.is_some());
        let effect = self.effects.pop_front();
        if effect.is_none() && self.effects.capacity() > EFFECTS_KEPT {
            self.effects.shrink_to(EFFECTS_KEPT);
        }
        effect
    }

    /// Whether the next effect must be carried out before anything else that the kernel has written is taken in.
    pub fn must_persist(&self) -> bool {
        matches!(self.effects.front(), Some(Effect::PersistSignal(_)))
    }

    /// When [`Input::Tick`] is due if nothing else comes before. `None`: never.
    pub fn next_deadline(&self) -> Option<Ns> {
        self.schedule.next()
    }

    /// The tree, to look at.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Whether the tree is complete.
    pub fn is_clear(&self) -> bool {
        self.view == View::Clear
    }

    /// Every group's name, and whether it signals, in the order of the configuration.
    pub fn modes(&self) -> impl Iterator<Item = (&str, Mode)> {
        self.rules.groups.iter().map(|g| (&*g.name, g.mode))
    }

    /// The names of the groups whose orphan it is.
    pub fn groups_of(&self, orphan: &Orphan) -> impl Iterator<Item = &str> {
        orphan.groups.iter().map(|&g| &*self.rules.groups[g].name)
    }

    /// Every orphan, by age of its process.
    pub fn orphans(&self) -> impl Iterator<Item = &Orphan> {
        self.orphans.values()
    }

    /// Every group, in the order of the configuration.
    pub fn status(&self) -> Vec<GroupStatus> {
        let of = |(id, group): (GroupId, &rules::Group)| GroupStatus {
            name: group.name.clone(),
            mode: group.mode,
            armed: self.groups[id].armed,
            breaker_open: self.groups[id].breaker.is_open(),
            masters: self.members.count(id),
            master_source: group.master.source(),
            orphans: self.orphans.values().filter(|o| o.groups.contains(&id)).count(),
        };
        self.rules.groups.iter().enumerate().map(of).collect()
    }

    /// Every armed group, to be kept over a restart of the agent.
    pub fn armed(&self) -> Vec<Armed> {
        let all = self.rules.groups.iter().zip(&self.groups).filter(|(_, state)| state.armed);
        all.map(|(group, state)| Armed { group: group.name.clone(), likenesses: state.likenesses.clone() })
            .collect()
    }

    fn run_timers(&mut self, now: Ns) {
        while let Some(timer) = self.schedule.pop(now) {
            match timer {
                Timer::Orphan(key) => self.on_orphan_due(now, key),
                Timer::Bereaved(key) | Timer::Unsettled(key) => self.effects.push_back(Effect::Identify(key)),
            }
        }
        while let Some(key) = self.schedule.pop_settled(now) {
            if self.tree.find(key).is_some() && self.view == View::Clear {
                self.effects.push_back(Effect::Identify(key));
            }
        }
    }

    fn record(&mut self, boot_ns: Ns, mut event: Event) {
        if self.errors.admits(boot_ns, &mut event) {
            self.effects.push_back(Effect::Record(Box::new(Record { boot_ns, event })));
        }
    }

    /// Whether fork, exec, exit and reparent of this process are to be written.
    fn tells_lineage_of(&self, id: NodeId) -> bool {
        match self.rules.log_level {
            LogLevel::Decisions => false,
            LogLevel::Lineage => self.tree[id].tracked(),
            LogLevel::All => true,
        }
    }

    fn group_name(&self, group: GroupId) -> String {
        self.rules.groups[group].name.clone()
    }

    fn group_ids(&self) -> std::ops::Range<GroupId> {
        0..self.rules.groups.len()
    }

    /// The groups in which a process is a worker without a live master above it, and not known as an orphan yet. Masters
    /// are nobody's workers: who is one of any group is not stopped for another. Below somebody who may still turn out to be the next master nobody has lost one.
    fn masterless_in(&self, id: NodeId) -> Vec<GroupId> {
        let key = self.tree[id].key();
        // Nearly everybody is nobody's worker.
        if !self.tree[id].tracked() || !self.members.reigns(key).is_empty() {
            return Vec::new();
        }
        self.group_ids()
            .filter(|&g| {
                !self.is_orphan_of(key, g)
                    && self.members.lineage_master(&self.tree, id, g).is_some()
                    && self.members.live_master_above(&self.tree, id, g).is_none()
                    && !self.tree.ancestors(id).any(|up| self.may_inherit(up, g))
            })
            .collect()
    }

    /// It may be a daemon in the making that becomes a master of this group.
    fn may_inherit(&self, id: NodeId, g: GroupId) -> bool {
        let open = self.bereaved.get(&self.tree[id].key());
        open.is_some_and(|b| b.exec_session.is_some() && b.is_of(g))
    }

    fn is_orphan_of(&self, key: ProcKey, g: GroupId) -> bool {
        self.orphans.get(&key).is_some_and(|o| o.groups.contains(&g))
    }

    /// It is no orphan any more.
    fn lose_orphan(&mut self, key: ProcKey) -> Option<Orphan> {
        let orphan = self.orphans.remove(&key)?;
        self.remember_eventually();
        if orphan.watched {
            self.effects.push_back(Effect::Unwatch(key));
        }
        // If it becomes one again, what the agent has sent is not sent again.
        if let Some(signal) = orphan.signalled.filter(|_| self.tree.find(key).is_some()) {
            self.asked.entry(key).or_default().entry(signal.0).or_insert(self.agent);
        }
        Some(orphan)
    }

    fn forget_process(&mut self, key: ProcKey) {
        self.bereaved.remove(&key);
        self.asked.remove(&key);
        self.adopted.remove(&key);
        self.schedule.cancel(Timer::Bereaved(key));
        self.schedule.cancel(Timer::Orphan(key));
        self.schedule.cancel(Timer::Unsettled(key));
    }

    fn pids_up_to_master(&self, id: NodeId, group: GroupId) -> Vec<u32> {
        let Some(master) = self.members.lineage_master(&self.tree, id, group) else { return Vec::new() };
        let mut pids = Vec::new();
        for up in self.tree.lineage(id) {
            pids.push(self.tree[up].key().tgid);
            if up == master {
                break;
            }
        }
        pids
    }

    fn protected_ancestors(&self) -> BTreeSet<NodeId> {
        let Some(agent) = self.tree.find_pid(self.agent) else { return BTreeSet::new() };
        self.tree.ancestors(agent).chain([agent]).collect()
    }
}
