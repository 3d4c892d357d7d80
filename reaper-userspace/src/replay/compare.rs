//! What was recorded beside what came out: numbers by group, and each difference in one line.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::driver::key_of;
use super::{Fate, Replayed};
use crate::core::ids::ProcKey;
use crate::core::records::{Event, ProcView, Record, SparedBecause};

/// So far apart two times are the same, microseconds: a look earlier or later.
const CLOSE_US: u64 = 100_000;

/// Both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// By group: what is counted, there (if it is known) and here.
    pub groups: BTreeMap<String, Vec<Row>>,
    /// A line for each difference: who, and what.
    pub differences: Vec<Difference>,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Of what.
    pub what: String,
    /// In the recording; `None` if it does not say.
    pub there: Option<usize>,
    /// In this run.
    pub here: usize,
}

/// One process of which different things are said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Who.
    pub proc: ProcView,
    /// In one sentence.
    pub what: String,
}

/// What became of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Story {
    proc: ProcView,
    master_of: BTreeSet<String>,
    orphan_of: BTreeSet<String>,
    /// By step, each with how long it was an orphan by then, microseconds. A step that comes again was not delivered before.
    /// Rehearsals are not in it.
    signals: BTreeMap<usize, (String, u64)>,
    rehearsed: Option<String>,
    spared: BTreeSet<SparedBecause>,
    /// What was last seen of it.
    seen: String,
    left: bool,
    /// How long it was an orphan, microseconds.
    reaped: Option<u64>,
}

/// Compares what was recorded, if that is known, with what came out. `observing` says which groups of this configuration
/// signal nobody: what they say of signals is a rehearsal.
pub fn compare(there: Option<&[Record]>, here: &Replayed, observing: &BTreeSet<String>) -> Summary {
    let rehearses = |group: &str, _: bool| observing.contains(group);
    let as_written = |_: &str, dry_run: bool| dry_run;
    let here_told = stories(&here.records, rehearses);
    let mut groups: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let counted_here = count(&here.records, rehearses);
    let counted_there = there.map(|records| count(records, as_written));
    let all: BTreeSet<_> =
        counted_here.keys().chain(counted_there.iter().flat_map(BTreeMap::keys)).cloned().collect();
    for (group, rank, what) in all {
        let at = (group.clone(), rank, what.clone());
        let number = |counts: &BTreeMap<_, usize>| counts.get(&at).copied().unwrap_or_default();
        let row = Row { what, there: counted_there.as_ref().map(number), here: number(&counted_here) };
        groups.entry(group).or_default().push(row);
    }
    let mut differences = Vec::new();
    if let Some(there) = there {
        let there_told = stories(there, as_written);
        let keys: BTreeSet<ProcKey> = there_told.keys().chain(here_told.keys()).copied().collect();
        for key in keys {
            let (then, now) = (there_told.get(&key), here_told.get(&key));
            let empty = Story::default();
            let what = differs(then.unwrap_or(&empty), now.unwrap_or(&empty), here.fates.get(&key).copied());
            if let (Some(what), Some(story)) = (what, then.or(now)) {
                differences.push(Difference { proc: story.proc.clone(), what });
            }
        }
    }
    Summary { groups, differences }
}

/// What is counted: by group, in this order.
type Counted = BTreeMap<(String, usize, String), usize>;

fn count(records: &[Record], is_rehearsal: impl Fn(&str, bool) -> bool) -> Counted {
    let (mut counted, mut steps) = (Counted::new(), BTreeSet::new());
    for record in records {
        let (group, rank, what) = match &record.event {
            Event::MasterFound { group, .. } => (group, 0, "masters found".to_owned()),
            Event::MasterLost { group, .. } => (group, 1, "masters lost".to_owned()),
            Event::Heir { group, .. } => (group, 2, "heirs".to_owned()),
            Event::Orphaned { group, .. } => (group, 3, "orphaned".to_owned()),
            Event::Signal { group, dry_run, signal, .. } if is_rehearsal(group, *dry_run) => {
                (group, 5, format!("would get {signal} if it enforced"))
            }
            // What comes again was not delivered before.
            Event::Signal { proc, step, .. } if !steps.insert((key_of(proc), *step)) => continue,
            Event::Signal { group, signal, .. } => (group, 4, format!("{signal} sent")),
            Event::Reaped { group, .. } => (group, 6, "reaped".to_owned()),
            Event::Left { group, .. } => (group, 7, "left by themselves".to_owned()),
            Event::Draining { group, .. } => (group, 8, "draining".to_owned()),
            Event::Spared { group, because, .. } => (group, 9, format!("spared: {}", word(because))),
            Event::BreakerOpen { group, .. } => (group, 10, "breaker opened".to_owned()),
            _ => continue,
        };
        *counted.entry((group.clone(), rank, what)).or_default() += 1;
    }
    counted
}

fn stories(records: &[Record], is_rehearsal: impl Fn(&str, bool) -> bool) -> BTreeMap<ProcKey, Story> {
    let mut stories: BTreeMap<ProcKey, Story> = BTreeMap::new();
    for record in records {
        let (Some(proc), event) = (super::driver::proc_of(&record.event), &record.event) else { continue };
        if matches!(
            event,
            Event::Fork { .. }
                | Event::Exec { .. }
                | Event::Exit { .. }
                | Event::Reparent { .. }
                | Event::MasterLost { .. }
                | Event::Error { .. }
        ) {
            continue;
        }
        let story = stories.entry(key_of(proc)).or_default();
        story.proc = proc.clone();
        match event {
            Event::MasterFound { group, .. } | Event::Heir { group, .. } => {
                story.master_of.insert(group.clone());
            }
            Event::Orphaned { group, .. } => {
                story.orphan_of.insert(group.clone());
            }
            Event::Busy { evidence, .. } | Event::Idle { evidence, .. } => {
                story.seen.clone_from(&evidence.because);
            }
            Event::Signal { group, signal, step, since_orphan_us, dry_run, .. } => {
                if is_rehearsal(group, *dry_run) {
                    story.rehearsed = Some(signal.clone());
                } else {
                    story.signals.insert(*step, (signal.clone(), *since_orphan_us));
                }
            }
            Event::Spared { because, .. } => {
                story.spared.insert(*because);
            }
            Event::Left { .. } => story.left = true,
            Event::Reaped { took_us, .. } => story.reaped = Some(*took_us),
            _ => {}
        }
    }
    stories
}

/// What is different about a process, and why.
fn differs(there: &Story, here: &Story, fate: Option<Fate>) -> Option<String> {
    if there.master_of != here.master_of {
        return Some(format!("was {}, here it is {}", mastership(there), mastership(here)));
    }
    if there.orphan_of != here.orphan_of {
        let why = match (there.spared.is_empty(), here.spared.is_empty()) {
            (true, false) => format!(": spared, {}", reasons(here)),
            (false, true) => format!(" (there it was spared, {})", reasons(there)),
            _ => String::new(),
        };
        return Some(format!("was {}, here it is {}{why}", orphanage(there), orphanage(here)));
    }
    let signals =
        |story: &Story| story.signals.values().map(|(signal, _)| signal.clone()).collect::<Vec<_>>();
    let beyond = fate == Some(Fate::SignalledHere);
    match (there.signals.values().next(), here.signals.values().next()) {
        (None, Some(_)) => Some(format!("{}, here it would get {}", idly(there), sent(here))),
        (Some(_), None) => Some(format!("got {}, here {}", sent(there), not_by_then(here))),
        (Some((_, then)), Some((_, now))) if then.abs_diff(*now) > CLOSE_US => {
            Some(format!("got {}, here {}", sent(there), sent(here)))
        }
        (Some(_), Some(_)) if signals(there) != signals(here) && !beyond => {
            Some(format!("got {}, here {}", sent(there), sent(here)))
        }
        (Some((then, _)), Some((now, _))) if then != now => {
            Some(format!("got {}, here {}", sent(there), sent(here)))
        }
        _ if there.rehearsed != here.rehearsed || there.spared != here.spared => {
            Some(format!("{}, here {}", idly(there), idly(here)))
        }
        _ => None,
    }
}

fn mastership(story: &Story) -> String {
    match &*names(&story.master_of) {
        "" => "no master".to_owned(),
        groups => format!("a master of {groups}"),
    }
}

fn orphanage(story: &Story) -> String {
    match &*names(&story.orphan_of) {
        "" => "no orphan".to_owned(),
        groups => format!("an orphan of {groups}"),
    }
}

fn names(groups: &BTreeSet<String>) -> String {
    groups.iter().cloned().collect::<Vec<_>>().join(" and ")
}

fn reasons(story: &Story) -> String {
    story.spared.iter().map(word).collect::<Vec<_>>().join(" and ")
}

fn sent(story: &Story) -> String {
    let one = |(signal, us): &(String, u64)| format!("{signal} after {} ms", us / 1_000);
    story.signals.values().map(one).collect::<Vec<_>>().join(", ")
}

/// Why it got no signal.
fn idly(story: &Story) -> String {
    match (&story.rehearsed, story.spared.is_empty()) {
        (Some(signal), _) => format!("it would get {signal} if its group enforced"),
        (None, false) => format!("spared: {}", reasons(story)),
        (None, true) if story.left => "it left by itself".to_owned(),
        (None, true) if story.seen.is_empty() => "not signalled".to_owned(),
        (None, true) => format!("not signalled: {}", story.seen),
    }
}

/// Why it got no signal here before the recorded agent stopped it.
fn not_by_then(story: &Story) -> String {
    let why = match story {
        Story { spared, rehearsed: None, .. } if !spared.is_empty() => format!("spared: {}", reasons(story)),
        Story { rehearsed: Some(signal), .. } => format!("it would get {signal} if its group enforced"),
        Story { seen, .. } if !seen.is_empty() => format!("not by then: {seen}"),
        _ => "not by then: it was not idle for long enough".to_owned(),
    };
    format!("{why}; what came after is not in the recording")
}

/// As records write it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
