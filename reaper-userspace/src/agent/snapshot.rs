//! What the task iterator does not show.
//!
//! Some kernels of sandboxes keep their own init out of BPF's sight, although it is a process like any other and the
//! parent of every orphan. Whoever a row names as a parent and /proc shows alive belongs into the snapshot.

use std::collections::BTreeSet;

use crate::core::ids::{Ns, ProcKey};
use crate::core::input::{Identified, Parent, Task};
use crate::procfs;

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
