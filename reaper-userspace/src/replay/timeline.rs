//! Answers from an event log: who processes were and how idle they were, as far as its records tell.

use std::collections::{BTreeMap, BTreeSet};

use super::Known;
use super::driver::{key_of, proc_of};
use crate::core::ids::{Ns, ProcKey};
use crate::core::input::{Identified, Identity, Sampled};
use crate::core::records::{Event, Evidence, HeirBecause, ProcView, Record, SparedBecause, Verdict};
use crate::core::sample::{Sample, Thread, Wait};

/// What is known over time.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// How a process looked, from then on.
    pub(super) looks: BTreeMap<ProcKey, Vec<(Ns, ProcView)>>,
    /// What it did, from then on.
    verdicts: BTreeMap<ProcKey, Vec<(Ns, Evidence)>>,
    /// Who turned out to be in a session of its own.
    detached: BTreeSet<ProcKey>,
}

impl Timeline {
    /// Takes in one record.
    pub(super) fn learn(&mut self, record: &Record) {
        let at = record.boot_ns;
        match &record.event {
            Event::Busy { proc, evidence, .. }
            | Event::Idle { proc, evidence, .. }
            | Event::Signal { proc, evidence, .. } => {
                // Idleness is told once it has lasted for `quiet_us`.
                let lasted = if evidence.verdict == Verdict::Idle { evidence.quiet_us * 1_000 } else { 0 };
                let verdicts = self.verdicts.entry(key_of(proc)).or_default();
                verdicts.push((at.saturating_sub(lasted), evidence.clone()));
            }
            Event::Heir { proc, because: HeirBecause::Session, .. }
            | Event::Spared { proc, because: SparedBecause::Detached, .. } => {
                self.detached.insert(key_of(proc));
            }
            _ => {}
        }
        let others = match &record.event {
            Event::Fork { parent, .. } | Event::Exec { parent, .. } | Event::Exit { parent, .. } => {
                [Some(parent), None]
            }
            Event::Reparent { old_parent, new_parent, .. } => [Some(old_parent), Some(new_parent)],
            Event::Heir { of, .. } => [Some(of), None],
            Event::Orphaned { lost, .. } => [lost.as_ref(), None],
            Event::Draining { sender, .. } => [sender.as_ref(), None],
            _ => [None, None],
        };
        for proc in proc_of(&record.event).into_iter().chain(others.into_iter().flatten()) {
            if proc.pid != 0 {
                self.looks.entry(key_of(proc)).or_default().push((at, proc.clone()));
            }
        }
    }

    /// Everything has been taken in.
    pub(super) fn complete(&mut self) {
        for looks in self.looks.values_mut() {
            looks.sort_by_key(|(at, _)| *at);
        }
        for verdicts in self.verdicts.values_mut() {
            verdicts.sort_by_key(|(at, _)| *at);
        }
    }

    /// How a process looked at a moment, or later if nothing is known of before.
    pub(super) fn look(&self, now: Ns, key: ProcKey) -> Option<&ProcView> {
        latest(self.looks.get(&key)?, now).map(|(_, look)| look)
    }
}

impl Known for Timeline {
    fn identified(&self, now: Ns, key: ProcKey) -> Option<Identified> {
        let seen = self.look(now, key)?;
        Some(Identified::Alive(Identity {
            at: now,
            comm: seen.comm.clone(),
            argv: seen.argv.clone(),
            exe: seen.exe.clone(),
            uid: seen.uid,
            ppid: seen.ppid,
            session: if self.detached.contains(&key) { key.tgid } else { 0 },
            cgroups: Vec::new(),
        }))
    }

    /// A look that leads to the recorded verdict.
    fn looked_at(&self, now: Ns, key: ProcKey) -> Option<Sampled> {
        let (_, evidence) = self.evidence(now, key)?;
        let state = match evidence.verdict {
            Verdict::Idle => 'S',
            Verdict::Busy => 'R',
            Verdict::Unknown => return Some(Sampled::Unreadable(evidence.because.clone())),
        };
        let comm = self.look(now, key).map(|look| look.comm.to_string()).unwrap_or_default();
        let thread =
            Thread { tid: key.tgid, comm, state, syscall: None, wait: Wait::NotAsked, switches: None };
        Some(Sampled::Seen(Sample { at: now, threads: vec![thread], ..Sample::default() }))
    }

    fn evidence(&self, now: Ns, key: ProcKey) -> Option<(Ns, &Evidence)> {
        latest(self.verdicts.get(&key)?, now).map(|(since, evidence)| (*since, evidence))
    }
}

fn latest<T>(known: &[(Ns, T)], now: Ns) -> Option<&(Ns, T)> {
    let before = known.partition_point(|(at, _)| *at <= now);
    known.get(before.saturating_sub(1))
}
