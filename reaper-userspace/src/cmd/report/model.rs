//! What the page shows, made of records: processes with their marks, and numbers.
//!
//! It holds what it shows and not the log: beyond [`ROWS`] processes, those that nothing was decided about go first, then
//! the oldest; beyond [`MARKS`] marks of one process, those in the middle. The numbers count everything.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::core::ids::{Ns, ProcKey};
use crate::core::records::{Event, Evidence, ProcView, Record};
use crate::core::view::words::span;
use crate::event_log::render::sentence;
use crate::output::escape;

/// So many processes have a row.
pub(super) const ROWS: usize = 1_000;

/// So many marks has one process: those at the beginning and those at the end.
pub(super) const MARKS: usize = 40;

/// So many marks has the agent itself.
const AGENT_MARKS: usize = 200;

/// So much of a command line is shown, characters.
const ARGV: usize = 300;

/// So many threads of one look are shown.
const THREADS: usize = 8;

/// So far back the kernel's clock goes only because the host has booted.
const BOOTED: Ns = 10_000_000_000;

/// Milliseconds since 1970.
pub(super) type Millis = f64;

/// Everything that the page shows.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Records that were taken in.
    pub(super) records: u64,
    /// Records that this version does not know.
    pub(super) unknown: u64,
    /// The first and the last moment.
    pub(super) span: Option<(Millis, Millis)>,
    /// By name.
    pub(super) groups: BTreeMap<String, Numbers>,
    /// In the order in which they began.
    pub(super) rows: Vec<Row>,
    /// Processes that have no row.
    pub(super) left_out: usize,
    /// Marks that are not shown.
    pub(super) marks_left_out: u64,
    /// What the agent says of itself.
    pub(super) agent: Vec<Mark>,
    known: BTreeMap<(u32, ProcKey), Row>,
    boot: u32,
    /// Wall clock less kernel clock, milliseconds.
    offset: Option<Millis>,
    last_boot_ns: Ns,
}

/// What is counted of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Numbers {
    pub(super) masters: u64,
    pub(super) masters_lost: u64,
    pub(super) orphaned: u64,
    pub(super) signals: u64,
    pub(super) rehearsed: u64,
    pub(super) left: u64,
    pub(super) spared: u64,
    pub(super) breakers: u64,
    /// How long orphans that were stopped had been orphans, microseconds.
    pub(super) reaped_us: Vec<u64>,
}

/// A process.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) group: String,
    pub(super) pid: u32,
    pub(super) comm: String,
    pub(super) argv: String,
    pub(super) master: bool,
    pub(super) start: Millis,
    /// `None`: it was there at the end.
    pub(super) end: Option<Millis>,
    pub(super) orphaned: Option<Millis>,
    pub(super) marks: Vec<Mark>,
    /// Marks in the middle that are not here.
    pub(super) more: u64,
    /// How it ended, for the table.
    pub(super) fate: String,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Mark {
    pub(super) at: Millis,
    pub(super) kind: &'static str,
    pub(super) text: String,
    pub(super) details: Vec<String>,
}

impl Model {
    /// Takes in one record.
    pub(super) fn take(&mut self, ts: Timestamp, record: &Record) {
        self.records += 1;
        if record.boot_ns.saturating_add(BOOTED) < self.last_boot_ns
            && matches!(record.event, Event::AgentStarted { .. })
        {
            (self.boot, self.offset, self.last_boot_ns) = (self.boot + 1, None, 0);
        }
        self.last_boot_ns = self.last_boot_ns.max(record.boot_ns);
        let offset = *self.offset.get_or_insert(millis_of(ts) - millis(record.boot_ns));
        let at = offset + millis(record.boot_ns);
        let (from, to) = self.span.unwrap_or((at, at));
        self.span = Some((from.min(at), to.max(at)));
        match &record.event {
            Event::Fork { proc, parent } => self.born(offset, proc, parent),
            Event::Exec { proc, .. } => {
                if let Some(row) = self.known.get_mut(&(self.boot, key_of(proc))) {
                    row.name(proc);
                }
            }
            Event::Exit { proc, .. } => {
                if let Some(row) = self.known.get_mut(&(self.boot, key_of(proc))) {
                    row.end.get_or_insert(at);
                }
            }
            Event::Reparent { .. } => {}
            event => self.decided(at, offset, event),
        }
    }

    /// Whoever is born below somebody of a group is of that group.
    fn born(&mut self, offset: Millis, proc: &ProcView, parent: &ProcView) {
        let Some(group) = self.known.get(&(self.boot, key_of(parent))).map(|row| row.group.clone()) else {
            return;
        };
        self.row(offset, &group, proc);
    }

    fn row(&mut self, offset: Millis, group: &str, proc: &ProcView) -> &mut Row {
        let row = self.known.entry((self.boot, key_of(proc))).or_insert_with(|| Row {
            group: safe(group),
            pid: proc.pid,
            comm: String::new(),
            argv: String::new(),
            master: false,
            start: offset + millis(proc.start_ns),
            end: None,
            orphaned: None,
            marks: Vec::new(),
            more: 0,
            fate: String::new(),
        });
        row.name(proc);
        row
    }

    fn decided(&mut self, at: Millis, offset: Millis, event: &Event) {
        self.count(event);
        let mark = Mark::of(at, event);
        let Some((group, proc)) = whose(event) else {
            if self.agent.len() < AGENT_MARKS {
                self.agent.push(mark);
            } else {
                self.marks_left_out += 1;
            }
            return;
        };
        let row = self.row(offset, group, proc);
        match event {
            Event::MasterFound { .. } | Event::Heir { .. } => row.master = true,
            Event::MasterLost { .. } => {
                row.end = Some(at);
                row.fate = "lost".to_owned();
            }
            Event::Orphaned { .. } => row.orphaned = Some(at),
            Event::Signal { signal, dry_run: false, .. } => row.fate = format!("{signal} sent"),
            Event::Signal { signal, dry_run: true, .. } => row.fate = format!("would get {signal}"),
            Event::Reaped { signal, .. } => {
                row.end = Some(at);
                row.fate = format!("stopped by {signal}");
            }
            Event::Left { .. } => {
                row.end = Some(at);
                row.fate = "left by itself".to_owned();
            }
            Event::Spared { .. } if row.fate.is_empty() => row.fate = format!("spared: {}", mark.text),
            _ => {}
        }
        row.marks.push(mark);
        if row.marks.len() > MARKS {
            row.marks.remove(MARKS / 2);
            row.more += 1;
            self.marks_left_out += 1;
        }
    }

    fn count(&mut self, event: &Event) {
        let group = match event {
            Event::BreakerOpen { group, .. } => group,
            event => match whose(event) {
                Some((group, _)) => group,
                None => return,
            },
        };
        let numbers = self.groups.entry(safe(group)).or_default();
        match event {
            Event::MasterFound { .. } | Event::Heir { .. } => numbers.masters += 1,
            Event::MasterLost { .. } => numbers.masters_lost += 1,
            Event::Orphaned { .. } => numbers.orphaned += 1,
            Event::Signal { dry_run: false, .. } => numbers.signals += 1,
            Event::Signal { dry_run: true, .. } => numbers.rehearsed += 1,
            Event::Reaped { took_us, .. } => numbers.reaped_us.push(*took_us),
            Event::Left { .. } => numbers.left += 1,
            Event::Spared { .. } => numbers.spared += 1,
            Event::BreakerOpen { .. } => numbers.breakers += 1,
            _ => {}
        }
    }

    /// Everything has been taken in: chooses who is shown.
    pub(super) fn finish(&mut self) {
        let mut rows: Vec<Row> = std::mem::take(&mut self.known).into_values().collect();
        let all = rows.len();
        // What was decided about first, then the newest.
        rows.sort_by(|a, b| {
            let decided = |row: &Row| row.orphaned.is_some() || row.master;
            decided(b).cmp(&decided(a)).then(b.start.total_cmp(&a.start))
        });
        rows.truncate(ROWS);
        rows.sort_by(|a, b| a.group.cmp(&b.group).then(a.start.total_cmp(&b.start)));
        self.left_out = all - rows.len();
        self.rows = rows;
        for numbers in self.groups.values_mut() {
            numbers.reaped_us.sort_unstable();
        }
    }
}

impl Row {
    /// As it was last seen.
    fn name(&mut self, proc: &ProcView) {
        self.comm = safe(&proc.comm);
        if !proc.argv.is_empty() {
            self.argv = short(&proc.argv.line());
        }
    }
}

impl Mark {
    fn of(at: Millis, event: &Event) -> Self {
        let details = match event {
            Event::Busy { evidence, .. } | Event::Idle { evidence, .. } | Event::Signal { evidence, .. } => {
                details(evidence)
            }
            _ => Vec::new(),
        };
        let kind = match event {
            Event::Signal { dry_run: true, .. } => "would",
            event => event.kind(),
        };
        let text = match event {
            Event::MasterFound { .. } => "a master of its group".to_owned(),
            event => sentence(event),
        };
        Self { at, kind, text: short(&text), details }
    }
}

/// A look in lines.
fn details(evidence: &Evidence) -> Vec<String> {
    let Evidence { threads, cpu_us, children, quiet_us, .. } = evidence;
    let quiet = span(quiet_us.saturating_mul(1_000));
    let mut lines = vec![format!("quiet for {quiet}, {cpu_us} us of CPU time, children: {children}")];
    for thread in threads.iter().take(THREADS) {
        let call = thread.syscall.as_deref().unwrap_or("-");
        let waits = thread.waits_on.iter().map(|w| match &w.peer {
            Some(peer) => format!("{} {} ({peer})", w.fd, w.what),
            None => format!("{} {}", w.fd, w.what),
        });
        let waits = waits.collect::<Vec<_>>().join(", ");
        let on = if waits.is_empty() { String::new() } else { format!(" on {waits}") };
        lines.push(short(&format!("thread {} ({}) {}: {call}{on}", thread.tid, thread.comm, thread.state)));
    }
    if threads.len() > THREADS {
        lines.push(format!("and {} more threads", threads.len() - THREADS));
    }
    lines
}

/// The group and the process of a decision.
fn whose(event: &Event) -> Option<(&str, &ProcView)> {
    match event {
        Event::MasterFound { group, proc }
        | Event::MasterLost { group, proc, .. }
        | Event::Heir { group, proc, .. }
        | Event::Orphaned { group, proc, .. }
        | Event::Busy { group, proc, .. }
        | Event::Idle { group, proc, .. }
        | Event::Draining { group, proc, .. }
        | Event::Signal { group, proc, .. }
        | Event::Reaped { group, proc, .. }
        | Event::Left { group, proc }
        | Event::Spared { group, proc, .. } => Some((group, proc)),
        _ => None,
    }
}

fn key_of(proc: &ProcView) -> ProcKey {
    ProcKey { tgid: proc.pid, start_ns: proc.start_ns }
}

/// Nothing in it that reorders or hides text.
fn safe(text: &str) -> String {
    escape(text).into_owned()
}

fn short(text: &str) -> String {
    match text.char_indices().nth(ARGV) {
        Some((at, _)) => format!("{}…", escape(&text[..at])),
        None => safe(text),
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 fit into 53 bits")]
fn millis(ns: Ns) -> Millis {
    (ns / 1_000) as Millis / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 fit into 53 bits")]
fn millis_of(ts: Timestamp) -> Millis {
    ts.as_microsecond() as Millis / 1_000.0
}
