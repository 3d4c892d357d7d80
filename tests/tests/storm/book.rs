//! What was heard of each process, to be held against what the process itself saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use reaper::core::ids::{Ns, ProcKey};
use reaper::core::input::{Input, Parent};
use reaper::core::records::{Event, Record};
use reaper_tests::process::TICK_NS;
use reaper_tests::storm::Report;

/// Wait status of a forker's process that has panicked.
const BROKEN: u32 = 99 << 8;

/// Notes on every process of the machine since the programs were attached.
#[derive(Default)]
pub(crate) struct Book {
    /// Pids of the forkers.
    pub(crate) roots: BTreeSet<u32>,
    /// Processes of the storm that were born.
    pub(crate) lives: u64,
    /// Records that the kernel could not write.
    pub(crate) lost: u64,
    /// Inputs about processes of the storm.
    pub(crate) heard: u64,
    /// Processes about whose parent /proc was asked.
    pub(crate) asked: BTreeSet<ProcKey>,
    /// When the last dump was merged.
    pub(crate) merged_at: Ns,
    /// Processes of the storm that did not do what they should have; they said why on stderr.
    pub(crate) broken: u64,
    known: BTreeMap<ProcKey, Life>,
}

/// One process.
#[derive(Debug, Default)]
struct Life {
    ours: bool,
    /// When it was born, and of whom.
    born: Option<(Ns, ProcKey)>,
    /// When it died, and who was to adopt its children.
    died: Option<(Ns, Parent)>,
    /// Its reparent records: when, and to whom.
    moves: Vec<(Ns, ProcKey)>,
}

impl Book {
    /// An input on its way to the core.
    pub(crate) fn note(&mut self, input: &Input) {
        match input {
            Input::Fork(fork) => {
                let root = self.roots.contains(&fork.child.tgid) && fork.parent.tgid == std::process::id();
                // A sibling of somebody who was orphaned meanwhile is born to whoever adopts on this machine.
                let sibling = fork.parent.tgid == 1 && &*fork.comm == "forker";
                let ours = root || sibling || self.is_ours(fork.parent);
                self.lives += u64::from(ours);
                self.heard += u64::from(ours);
                let life = self.known.entry(fork.child).or_default();
                life.ours |= ours;
                life.born = Some((fork.at, fork.parent));
            }
            Input::Exec(exec) => self.heard += u64::from(self.is_ours(exec.key)),
            Input::Exit(exit) => {
                let ours = self.is_ours(exit.key);
                self.heard += u64::from(ours);
                self.broken += u64::from(ours && exit.status == BROKEN);
                self.known.entry(exit.key).or_default().died.get_or_insert((exit.at, exit.adopter));
            }
            Input::Snapshot { tasks, .. } => {
                // Parents first, as pids are mostly given in order; a forker's children are found in any case.
                let mut rows: Vec<_> = tasks.iter().collect();
                rows.sort_by_key(|task| task.key.start_ns);
                for task in rows {
                    let of_ours = matches!(task.parent, Parent::Known(parent) if self.is_ours(parent));
                    let ours = of_ours || self.roots.contains(&task.key.tgid);
                    self.known.entry(task.key).or_default().ours |= ours;
                }
            }
            Input::Lost { count, .. } => self.lost += count,
            _ => {}
        }
    }

    /// A record that the agent would write.
    pub(crate) fn record(&mut self, record: &Record) {
        let Event::Reparent { proc, new_parent, .. } = &record.event else { return };
        let key = ProcKey { tgid: proc.pid, start_ns: proc.start_ns };
        let to = ProcKey { tgid: new_parent.pid, start_ns: new_parent.start_ns };
        self.known.entry(key).or_default().moves.push((record.boot_ns, to));
    }

    /// Whether a process belongs to the storm, as far as is known.
    pub(crate) fn is_ours(&self, key: ProcKey) -> bool {
        self.known.get(&key).is_some_and(|life| life.ours)
    }

    /// The reports against the records. What was over when the dump was merged has no record.
    pub(crate) fn judge(&self, reports: &[Report]) -> Verdict {
        let mut verdict = Verdict { reports: reports.len(), ..Verdict::default() };
        let mut by_life: BTreeMap<ProcKey, Vec<&Report>> = BTreeMap::new();
        for report in reports {
            match self.author(report) {
                Some(key) => by_life.entry(key).or_default().push(report),
                None if report.before < self.merged_at => verdict.early += 1,
                None => verdict.wrong.push(format!("nobody is known who wrote {report:?}")),
            }
        }
        let moves = self.known.values().filter(|life| life.ours).map(|life| life.moves.len());
        verdict.records = moves.sum();
        for (key, mut reports) in by_life {
            reports.sort_by_key(|report| report.before);
            self.judge_one(key, &reports, &mut verdict);
        }
        verdict
    }

    /// Whoever had that pid and start when the report was made. A tick is long enough for a pid to be used twice in it.
    fn author(&self, report: &Report) -> Option<ProcKey> {
        let pid_began = |start_ns| ProcKey { tgid: report.pid, start_ns };
        let within = pid_began(report.start_ticks * TICK_NS)..pid_began((report.start_ticks + 1) * TICK_NS);
        let lived = |key: &ProcKey, life: &Life| {
            key.start_ns <= report.before && life.died.is_none_or(|(died, _)| died >= report.after)
        };
        self.known.range(within).find(|(key, life)| lived(key, life)).map(|(key, _)| *key)
    }

    /// Whether its mother's exit could not say who adopts it: more ancestors than the programs look at.
    fn is_beyond(&self, key: ProcKey) -> bool {
        let mother = self.known[&key].born.and_then(|(_, mother)| self.known.get(&mother));
        mother.and_then(|life| life.died).is_some_and(|(_, adopter)| adopter == Parent::Unknown)
            || self.asked.contains(&key)
    }

    /// Whether its mother died before the dump was merged: the dump may have shown it at its new parent.
    fn was_orphaned_early(&self, key: ProcKey) -> bool {
        let mother = self.known[&key].born.and_then(|(_, mother)| self.known.get(&mother));
        mother.is_none_or(|life| life.died.is_some_and(|(died, _)| died < self.merged_at))
    }

    /// Whether its adopter is the pid 1 of a namespace whose end had begun when its mother died. The kernel moves it there and
    /// kills it right after; to the tree that pid 1 is dead.
    fn is_doomed(&self, key: ProcKey) -> bool {
        let died = |key: &ProcKey| self.known.get(key).and_then(|life| life.died);
        let Some((at, Parent::Known(adopter))) = self.known[&key].born.and_then(|(_, mother)| died(&mother))
        else {
            return false;
        };
        died(&adopter).is_some_and(|(died, adopter)| died <= at && adopter == Parent::NamespaceDies)
    }

    /// All that is known of a process and of the one that forked it.
    fn story(&self, key: ProcKey) -> String {
        let life = &self.known[&key];
        let mother = life.born.and_then(|(_, mother)| self.known.get(&mother));
        format!("{key} {life:?}, of {mother:?}")
    }

    /// Each report must be one of the records, in their order, and none of what came later. A record between two reports was
    /// overtaken by the next before the process could look.
    fn judge_one(&self, key: ProcKey, reports: &[&Report], verdict: &mut Verdict) {
        let life = &self.known[&key];
        let mut next = 0;
        for report in reports {
            let fits = |&(at, to): &(Ns, ProcKey)| {
                at <= report.after
                    && to.tgid == report.ppid
                    && to.start_ns / TICK_NS == report.parent_start_ticks
            };
            match life.moves.iter().skip(next).position(fits) {
                Some(found) => {
                    verdict.checked += 1;
                    next += found + 1;
                }
                // Its parent's exit could not say who adopts: there is no record. The tree is compared with /proc.
                None if self.is_beyond(key) => verdict.asked += 1,
                None if self.was_orphaned_early(key) => verdict.early += 1,
                None if self.is_doomed(key) => verdict.doomed += 1,
                None => verdict.wrong.push(format!("{report:?} is not so: {}", self.story(key))),
            }
        }
        // Who is alive has looked since.
        if life.died.is_none() && next < life.moves.len() && !self.is_beyond(key) {
            verdict.wrong.push(format!("never seen by {}", self.story(key)));
        }
    }
}

/// What came out of it.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Reports of orphans.
    reports: usize,
    /// Reparent records about processes of the storm.
    records: usize,
    /// Reports that are a record.
    pub(crate) checked: u64,
    /// Reports without a record, as /proc had to be asked.
    asked: u64,
    /// Reports of what was over when the dump was merged.
    early: u64,
    /// Reports of who was given to a dying namespace.
    doomed: u64,
    wrong: Vec<String>,
}

impl Verdict {
    #[track_caller]
    pub(crate) fn assert_right(&self) {
        let first: Vec<_> = self.wrong.iter().take(20).map(String::as_str).collect();
        assert!(self.wrong.is_empty(), "{} wrong:\n{}", self.wrong.len(), first.join("\n"));
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reports, records, checked, asked, early, doomed, wrong } = self;
        let wrong = wrong.len();
        write!(
            f,
            "{records} reparent records, {reports} reports of orphans, {checked} of these are records, \
             {asked} beyond the programs' sight, {early} from before the dump, {doomed} in dying namespaces, \
             {wrong} wrong"
        )
    }
}
