//! Who is below whom, as far as records and dumps tell it.

use std::collections::BTreeSet;
use std::rc::Rc;

use reaper::core::ids::{Ns, ProcKey};
use reaper::core::input::{Fork, Task};

use super::life::{Image, Life, Loss};
use super::{Id, Oracle};

impl Oracle {
    pub(super) fn learn_birth(&mut self, fork: &Fork, blurred: bool) {
        let id = self.by_key[&fork.child];
        self.lives[id].blurred |= blurred;
        if let Some(&mother) = self.by_key.get(&fork.parent) {
            self.lives[id].birth_session = fork.session;
            self.lives[id].mother = Some(mother);
            // Its row came without its parent's: that one was born when the dump had passed its pid.
            if self.lives[id].parent.is_none() && self.lives[mother].alive {
                self.lives[id].parent = Some(mother);
            }
        }
    }

    /// A row of a dump, before what was buffered meanwhile.
    pub fn row(&mut self, row: &Task, parent: Option<ProcKey>) {
        let parent = parent.and_then(|p| self.by_key.get(&p).copied());
        match self.by_key.get(&row.key) {
            Some(&id) => {
                self.lives[id].blurred = true;
                self.lives[id].unsettled = false;
            }
            None => {
                let image = Rc::new(Image { exec_at: 0, session: row.session });
                let birth_session = row.session;
                let life = Life {
                    image,
                    birth_session,
                    session: row.session,
                    dumped: true,
                    blurred: true,
                    ..Life::new(row.key)
                };
                let id = self.add(Life { kernel_thread: row.kernel_thread, ..life });
                self.lives[id].mother = parent;
                self.lives[id].parent = parent;
            }
        }
    }

    /// After all rows are in: their parents, which may come later than they.
    pub fn row_parents(&mut self, rows: &[(ProcKey, Option<ProcKey>)]) {
        for (key, parent) in rows {
            let Some(&id) = self.by_key.get(key) else { continue };
            let parent = parent.and_then(|p| self.by_key.get(&p).copied());
            if self.lives[id].dumped && self.lives[id].mother.is_none() {
                self.lives[id].mother = parent;
                self.lives[id].parent = parent;
            }
        }
    }

    /// Everybody: the core's view has a gap.
    pub fn blur(&mut self) {
        for life in self.lives.iter_mut().filter(|l| l.alive) {
            life.blurred = true;
        }
    }

    /// /proc names its parent: who adopted it, or who adopted it after that one had died, before anybody was told.
    pub(super) fn settle(&mut self, now: Ns, id: Id, ppid: u32) {
        if !self.lives[id].unsettled {
            return;
        }
        let adopter = { self.above(id).into_iter() }
            .find(|&up| self.lives[up].alive && self.lives[up].key.tgid == ppid);
        if let Some(adopter) = adopter {
            let since_dead = self.lives[id].parent.replace(adopter) != Some(adopter);
            self.lives[id].unsettled = false;
            if since_dead {
                self.lose_with_unread_adopter(now, id);
            }
        } else if ppid == 0 {
            self.lives[id].unsettled = false;
        }
    }

    /// Who adopted it has died, and only /proc has told so far.
    fn lose_with_unread_adopter(&mut self, now: Ns, id: Id) {
        for below in std::iter::once(id).chain(self.below(id)) {
            let left_in = self.lives[below].left_in.filter(|_| below == id);
            let (daemon_unless, since) =
                (left_in.map(|(session, _)| session), left_in.map_or(now, |(_, at)| at));
            for g in 0..self.rules.groups.len() {
                let loss = Loss { daemon_unless, unsure: true, ..Loss::open(since) };
                self.lose(below, g, &loss);
            }
        }
    }

    pub(super) fn above(&self, id: Id) -> Vec<Id> {
        let mut ids = Vec::new();
        let mut next = self.lives[id].parent;
        while let Some(up) = next.filter(|up| !ids.contains(up)) {
            ids.push(up);
            next = self.lives[up].parent;
        }
        ids
    }

    pub(super) fn children(&self, id: Id) -> Vec<Id> {
        (0..self.lives.len()).filter(|&c| self.lives[c].alive && self.lives[c].parent == Some(id)).collect()
    }

    pub(super) fn below(&self, id: Id) -> Vec<Id> {
        let mut ids = self.children(id);
        let mut next = 0;
        while let Some(&id) = ids.get(next) {
            ids.extend(self.children(id));
            next += 1;
        }
        ids
    }

    pub(super) fn count_two(&mut self, parent: Option<Id>) {
        let Some(parent) = parent else { return };
        let image = &self.lives[parent].image;
        let same =
            self.children(parent).into_iter().filter(|&c| Rc::ptr_eq(&self.lives[c].image, image)).count();
        self.lives[parent].had_two |= same >= 2;
    }

    pub(super) fn add(&mut self, life: Life) -> Id {
        self.by_key.insert(life.key, self.lives.len());
        self.lives.push(life);
        self.lives.len() - 1
    }

    /// Live processes whose history has a gap.
    pub fn is_blurred(&self, key: ProcKey) -> bool {
        self.by_key.get(&key).is_none_or(|&id| self.lives[id].blurred)
    }

    /// Dead processes in the lineage of live ones.
    pub fn dead_ancestors(&self) -> usize {
        let mut found = BTreeSet::new();
        for life in self.lives.iter().filter(|l| l.alive) {
            let mut up = life.mother;
            while let Some(id) = up {
                if !self.lives[id].alive {
                    found.insert(id);
                }
                up = self.lives[id].mother;
            }
        }
        found.len()
    }
}
