//! The dump of all processes, and what the task iterator does not show.
//!
//! Some kernels of sandboxes keep their own init out of BPF's sight, although it is a process like any other and the
//! parent of every orphan. Whoever a row names as a parent and /proc shows alive belongs into the snapshot.

use std::collections::BTreeSet;

use anyhow::Context as _;
use rustc_hash::FxHashMap;

use super::Agent;
use crate::clock;
use crate::core::ids::{Ns, ProcKey, SECOND};
use crate::core::input::{Identified, Input, Parent, Task};
use crate::procfs;

/// What a dump says to whoever keeps things for the next agent.
pub(super) struct Dumped {
    /// Everybody alive.
    pub(super) live: Vec<ProcKey>,
    /// Whose rows came before their parents'.
    pub(super) before_parents: Vec<ProcKey>,
}

impl Agent {
    pub(super) fn resync(&mut self) {
        self.resync_at = None;
        if let Err(e) = self.dump(Vec::new()) {
            tracing::error!("the tree cannot be rebuilt, nobody is signalled until it is: {e:#}");
            self.resync_at = Some(clock::now() + SECOND);
        }
    }

    /// All tasks, and then what happened while they were dumped.
    /// `unread` are signals from before it.
    pub(super) fn dump(&mut self, unread: Vec<Input>) -> anyhow::Result<Dumped> {
        // The dump makes up for whatever was not told before it.
        self.missed = self.probes.missed();
        let at = clock::now();
        let mut tasks = self.probes.tasks().context("cannot dump all processes")?;
        let before_parents = before_parents(&tasks);
        add_hidden(at, &mut tasks);
        let now = clock::now();
        let live = tasks.iter().map(|task| task.key).collect();
        self.core.handle(now, Input::Snapshot { at, took_ns: now - at, tasks });
        for signal in unread {
            self.core.handle(now, signal);
        }
        self.drain();
        let at = clock::now();
        self.core.handle(at, Input::Merged { at });
        Ok(Dumped { live, before_parents })
    }
}

/// Rows come in the order of pids, which begin anew some day: then a parent's may come after its child's.
fn before_parents(tasks: &[Task]) -> Vec<ProcKey> {
    let places: FxHashMap<ProcKey, usize> = tasks.iter().enumerate().map(|(n, task)| (task.key, n)).collect();
    let is_early = |(n, task): &(usize, &Task)| match task.parent {
        Parent::Known(parent) => places.get(&parent).is_some_and(|at| at > n),
        _ => false,
    };
    tasks.iter().enumerate().filter(is_early).map(|(_, task)| task.key).collect()
}

/// Adds the parents that have no row of their own.
pub fn add_hidden(now: Ns, tasks: &mut Vec<Task>) {
    let mut shown: BTreeSet<ProcKey> = tasks.iter().map(|t| t.key).collect();
    let mut missing = missing_parents(tasks, &shown);
    // A parent that was hidden may have a parent that is.
    while let Some(key) = missing.pop() {
        if !shown.insert(key) {
            continue;
        }
        // Not there any more: its exit is in the ring buffer.
        let Identified::Alive(who) = procfs::identify(now, key, false) else { continue };
        let above = tasks.iter().map(|t| t.key).find(|k| k.tgid == who.ppid);
        let parent = match (above, who.ppid) {
            (Some(above), _) => Parent::Known(above),
            (None, 0) => Parent::None,
            (None, _) => Parent::Unknown,
        };
        tasks.push(Task {
            key,
            parent,
            comm: who.comm,
            uid: who.uid,
            session: who.session,
            kernel_thread: false,
            reaper: key.tgid == 1,
        });
    }
}

fn missing_parents(tasks: &[Task], shown: &BTreeSet<ProcKey>) -> Vec<ProcKey> {
    let parents =
        tasks.iter().filter_map(|t| if let Parent::Known(key) = t.parent { Some(key) } else { None });
    let missing: BTreeSet<ProcKey> = parents.filter(|key| !shown.contains(key)).collect();
    missing.into_iter().collect()
}
