//! The orphans now.

use serde::{Deserialize, Serialize};

use super::Next;
use crate::core::Core;
use crate::core::ids::Ns;
use crate::core::orphan::Orphan;
use crate::core::records::{Evidence, ProcView};

/// One orphan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrphanView {
    /// The group that acts on it.
    pub group: String,
    /// Every group whose orphan it is.
    pub groups: Vec<String>,
    /// Who.
    pub proc: ProcView,
    /// Pids of those it descends from, up to its master, nearest first; empty for a stray.
    pub lineage: Vec<u32>,
    /// Since when, `CLOCK_BOOTTIME`.
    pub since_ns: Ns,
    /// For how long, microseconds.
    pub age_us: u64,
    /// Orphaned before anybody saw whose it was.
    pub stray: bool,
    /// Somebody has asked it to stop.
    pub draining: bool,
    /// The last signal that the agent sent it.
    pub signalled: Option<String>,
    /// What the last look showed; absent before the first.
    pub evidence: Option<Evidence>,
    /// How long ago that was, microseconds.
    pub looked_us: Option<u64>,
    /// What comes next.
    pub next: Next,
}

impl Core {
    /// Every orphan, longest orphaned first, `most` at most.
    pub fn orphan_views(&self, now: Ns, most: usize) -> Vec<OrphanView> {
        let mut orphans: Vec<&Orphan> = self.orphans.values().collect();
        orphans.sort_unstable_by_key(|o| (o.since, o.key));
        orphans.into_iter().take(most).filter_map(|o| self.orphan_view(now, o)).collect()
    }

    /// Every master with its group, by pid.
    pub fn masters(&self) -> impl Iterator<Item = (&str, ProcView)> {
        self.members.reigning().filter_map(|(key, g)| {
            let id = self.tree.find(key)?;
            Some((self.rules.groups[g].name.as_str(), self.tree.view(id)))
        })
    }

    fn orphan_view(&self, now: Ns, orphan: &Orphan) -> Option<OrphanView> {
        let id = self.tree.find(orphan.key)?;
        let look = orphan.last_look.as_ref();
        Some(OrphanView {
            group: self.group_name(orphan.group),
            groups: orphan.groups.iter().map(|&g| self.group_name(g)).collect(),
            proc: self.tree.view(id),
            lineage: self.pids_up_to_master(id, orphan.group),
            since_ns: orphan.since,
            age_us: now.saturating_sub(orphan.since) / 1_000,
            stray: orphan.stray,
            draining: orphan.draining,
            signalled: orphan.signalled.map(|s| s.to_string()),
            evidence: look.map(|(_, evidence)| evidence.clone()),
            looked_us: look.map(|(at, _)| now.saturating_sub(*at) / 1_000),
            next: self.next(now, orphan),
        })
    }
}
