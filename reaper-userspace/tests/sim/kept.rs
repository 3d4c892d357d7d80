//! What the programs keep for an agent that does not run: the map of lineages, as the kernel's side writes it.

use std::collections::BTreeSet;

use reaper::core::input::Birth as Kept;

use super::kernel::Kernel;

impl Kernel {
    /// The programs are attached, and the iterator finds whoever was there before.
    pub fn keep_lineages(&mut self) {
        self.keeps = true;
        for who in 0..self.procs.len() {
            let p = &self.procs[who];
            if p.kept.is_none() && !p.kernel_thread && self.is_alive(who) {
                let kept = Kept {
                    key: p.key,
                    parent: p.real_parent.map(|parent| self.procs[parent].key),
                    birth_session: p.session,
                    exec_at: 0,
                    exec_session: p.session,
                    execed: false,
                    dumped: true,
                    death: None,
                };
                self.procs[who].kept = Some(kept);
            }
        }
    }

    /// What the programs have kept: everybody alive and their ancestors, and no one else.
    pub fn births(&self) -> Vec<Kept> {
        let mut needed = BTreeSet::new();
        for who in self.alive() {
            let mut up = self.procs[who].kept;
            while let Some(kept) = up.filter(|kept| needed.insert(kept.key)) {
                up = kept.parent.and_then(|key| self.find(key)).and_then(|parent| self.procs[parent].kept);
            }
        }
        self.procs.iter().filter_map(|p| p.kept).filter(|kept| needed.contains(&kept.key)).collect()
    }
}
