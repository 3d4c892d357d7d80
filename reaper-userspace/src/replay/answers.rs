//! Answers from a recording of inputs: the nearest look at the same process.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Known;
use crate::core::argv::Argv;
use crate::core::ids::{Ns, ProcKey, SECOND};
use crate::core::input::{Comm, Exec, Identified, Identity, Input, Sampled};

/// How far a look may be away. Orphans are looked at every two seconds at least, unless a grace runs.
const FAR: Ns = 5 * SECOND;

/// Everything that was seen of processes.
#[derive(Debug, Default)]
pub(super) struct Answers {
    who: BTreeMap<ProcKey, Vec<(Ns, Identified)>>,
    looks: BTreeMap<ProcKey, Vec<(Ns, Sampled)>>,
    /// Looks at whoever was held still for it. That it could not be held says nothing about it.
    holds: BTreeMap<ProcKey, Vec<(Ns, Sampled)>>,
    /// What the kernel's own records tell of those that nobody asked about.
    told: BTreeMap<ProcKey, Identity>,
}

impl Answers {
    /// Takes in one recorded input.
    pub(super) fn learn(&mut self, now: Ns, input: &Input) {
        match input {
            Input::Identified { key, outcome } => {
                self.who.entry(*key).or_default().push((now, outcome.clone()));
            }
            Input::Sampled { key, outcome } => {
                self.looks.entry(*key).or_default().push((now, outcome.clone()));
            }
            Input::Aimed { key, outcome: outcome @ Sampled::Seen(_) } => {
                self.holds.entry(*key).or_default().push((now, outcome.clone()));
            }
            Input::Fork(fork) => {
                let mut who = self.told.get(&fork.parent).cloned().unwrap_or_else(nobody);
                (who.comm, who.uid, who.session) = (fork.comm.clone(), fork.uid, fork.session);
                who.ppid = fork.parent.tgid;
                self.told.insert(fork.child, who);
            }
            Input::Exec(exec) => self.execs(exec),
            Input::Snapshot { tasks, .. } => {
                for task in tasks {
                    let who = self.told.entry(task.key).or_insert_with(nobody);
                    (who.comm, who.uid, who.session) = (task.comm.clone(), task.uid, task.session);
                }
            }
            _ => {}
        }
    }

    fn execs(&mut self, exec: &Exec) {
        let who = self.told.entry(exec.key).or_insert_with(nobody);
        (who.comm, who.uid, who.session) = (exec.comm.clone(), exec.uid, exec.session);
        (who.argv, who.exe) = (exec.argv.clone(), exec.filename.clone());
    }
}

impl Known for Answers {
    fn identified(&self, now: Ns, key: ProcKey) -> Option<Identified> {
        let seen = self.who.get(&key).map(Vec::as_slice).unwrap_or_default();
        // It is alive: the core does not ask about the dead.
        let alive = |(at, outcome): &(Ns, Identified)| match outcome {
            Identified::Alive(who) => Some((at.abs_diff(now), who.clone())),
            _ => None,
        };
        let nearest = seen.iter().filter_map(alive).min_by_key(|(far, _)| *far).map(|(_, who)| who);
        let who = nearest.or_else(|| self.told.get(&key).cloned())?;
        Some(Identified::Alive(Identity { at: now, ..who }))
    }

    fn looked_at(&self, now: Ns, key: ProcKey) -> Option<Sampled> {
        let looks = [&self.looks, &self.holds].into_iter().filter_map(|looks| looks.get(&key)).flatten();
        let seen = looks.filter(|(_, outcome)| *outcome != Sampled::Gone);
        let (at, outcome) = seen.min_by_key(|(at, _)| at.abs_diff(now))?;
        let mut outcome = outcome.clone();
        if let Sampled::Seen(sample) = &mut outcome {
            sample.at = now;
        }
        (at.abs_diff(now) <= FAR).then_some(outcome)
    }
}

fn nobody() -> Identity {
    Identity {
        at: 0,
        comm: Comm::default(),
        argv: Argv::default(),
        exe: Arc::from(""),
        uid: 0,
        ppid: 0,
        session: 0,
        cgroups: Vec::new(),
    }
}
