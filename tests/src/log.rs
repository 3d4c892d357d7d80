//! The agent's event log as tests read it, and what every record of it must be.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::process::{Proc, TICK_NS};

/// One record.
#[derive(Clone, PartialEq)]
pub struct Record(Value);

/// Fields that every process in a record has.
const PROC: [&str; 7] = ["pid", "start_ns", "ppid", "uid", "comm", "exe", "argv"];

/// What each kind has beside the fields that all have.
const KINDS: &[(&str, &[&str])] = &[
    ("agent_started", &["version", "kernel", "config", "mode"]),
    ("agent_stopped", &["version", "kernel", "config", "mode"]),
    ("config_loaded", &["file", "groups"]),
    ("config_rejected", &["file", "errors"]),
    ("snapshot", &["processes", "took_us"]),
    ("fork", &["proc", "parent"]),
    ("exec", &["proc", "parent"]),
    ("exit", &["proc", "parent", "code", "signal"]),
    ("reparent", &["proc", "old_parent", "new_parent"]),
    ("master_found", &["group", "proc"]),
    ("master_lost", &["group", "proc", "workers", "code", "signal"]),
    ("heir", &["group", "proc", "of", "because"]),
    ("orphaned", &["group", "proc", "lost", "lineage", "stray"]),
    ("busy", &["group", "proc", "evidence"]),
    ("idle", &["group", "proc", "evidence"]),
    ("draining", &["group", "proc", "signal", "sender"]),
    (
        "signal",
        &[
            "group",
            "proc",
            "signal",
            "step",
            "evidence",
            "since_orphan_us",
            "since_idle_us",
            "verified",
            "dry_run",
        ],
    ),
    ("reaped", &["group", "proc", "signal", "took_us"]),
    ("left", &["group", "proc"]),
    ("spared", &["group", "proc", "because"]),
    ("breaker_open", &["group", "kills", "window"]),
    ("breaker_closed", &["group", "kills", "window"]),
    ("events_lost", &["count"]),
    ("resynced", &["added", "removed", "took_us"]),
    ("error", &["what"]),
];

impl Record {
    /// Its kind.
    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    /// Its number.
    pub fn seq(&self) -> u64 {
        self.number("seq")
    }

    /// When it happened, `CLOCK_BOOTTIME`.
    pub fn boot_ns(&self) -> u64 {
        self.number("boot_ns")
    }

    /// A field; a path through nested ones is written with slashes (`/evidence/verdict`).
    pub fn get(&self, path: &str) -> Option<&Value> {
        match path.strip_prefix('/') {
            Some(_) => self.0.pointer(path),
            None => self.0.get(path),
        }
    }

    /// A field that is text; empty if it is absent or not.
    pub fn text(&self, path: &str) -> &str {
        self.get(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field that is a number.
    #[track_caller]
    pub fn number(&self, path: &str) -> u64 {
        self.get(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} is not a number: {self:?}"))
    }

    /// Pids from the process up to its master.
    #[track_caller]
    pub fn lineage(&self) -> Vec<i64> {
        let pids = self.get("lineage").and_then(Value::as_array).unwrap_or_else(|| panic!("{self:?}"));
        pids.iter().filter_map(Value::as_i64).collect()
    }

    /// A field that is true or false.
    #[track_caller]
    pub fn flag(&self, path: &str) -> bool {
        self.get(path).and_then(Value::as_bool).unwrap_or_else(|| panic!("{path} is not a bool: {self:?}"))
    }

    /// The pid of its `proc`.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.number("/proc/pid")).unwrap()
    }

    /// Whether a kind and this process.
    pub fn is(&self, kind: &str, who: &Proc) -> bool {
        self.kind() == kind && self.about(who)
    }

    /// Whether its `proc` is this process, by pid and start.
    pub fn about(&self, who: &Proc) -> bool {
        self.names("proc", who)
    }

    /// Whether a field is this process, by pid and start.
    pub fn names(&self, field: &str, who: &Proc) -> bool {
        let number = |key: &str| self.get(field)?.get(key)?.as_u64();
        number("pid") == u64::try_from(who.pid()).ok()
            && number("start_ns").is_some_and(|ns| ns / TICK_NS == who.start_ticks())
    }

    /// States of the threads in its evidence.
    pub fn thread_states(&self) -> Vec<&str> {
        let threads = self.get("/evidence/threads").and_then(Value::as_array);
        threads.into_iter().flatten().filter_map(|t| t.get("state")?.as_str()).collect()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The records in a file so far: whole lines only.
#[track_caller]
pub fn read(path: &Path) -> Vec<Record> {
    parse(&std::fs::read_to_string(path).unwrap_or_default())
}

/// The records in a text: whole lines only.
#[track_caller]
pub fn parse(text: &str) -> Vec<Record> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let record = |line| match serde_json::from_str(line) {
        Ok(value) => Record(value),
        Err(e) => panic!("not a record: {line:?}: {e}"),
    };
    whole.lines().map(record).collect()
}

/// Every record has what the contract says, and `seq` rises by one. A new run of the agent may go on counting or begin
/// again at its `agent_started`.
#[track_caller]
pub fn assert_well_formed(records: &[Record]) {
    assert_fields(records);
    for pair in records.windows(2) {
        let begins = pair[1].kind() == "agent_started";
        let follows = pair[1].seq() == pair[0].seq() + 1;
        assert!(follows || begins, "seq does not rise by one: {pair:#?}");
    }
}

/// Every record has what the contract says, whatever its `seq`.
#[track_caller]
pub fn assert_fields(records: &[Record]) {
    let kinds: BTreeMap<_, _> = KINDS.iter().copied().collect();
    for record in records {
        assert_eq!(record.number("v"), 1, "{record:?}");
        assert!(record.boot_ns() > 0, "{record:?}");
        record.seq();
        assert!(is_utc_nanoseconds(record.text("ts")), "ts is not RFC 3339 with nanoseconds: {record:?}");
        let fields = kinds.get(record.kind()).unwrap_or_else(|| panic!("unknown kind: {record:?}"));
        for field in *fields {
            let value = record.get(field).unwrap_or_else(|| panic!("no {field}: {record:?}"));
            if ["proc", "parent", "old_parent", "new_parent", "of"].contains(field) {
                assert!(PROC.iter().all(|key| value.get(key).is_some()), "{field} is not whole: {record:?}");
            }
            if *field == "evidence" {
                assert_evidence(record);
            }
        }
    }
}

#[track_caller]
fn assert_evidence(record: &Record) {
    let verdict = record.text("/evidence/verdict");
    assert!(["idle", "busy", "unknown"].contains(&verdict), "{record:?}");
    assert!(!record.text("/evidence/because").is_empty(), "{record:?}");
    for field in ["cpu_us", "children", "quiet_us"] {
        record.number(&format!("/evidence/{field}"));
    }
    let threads = record.get("/evidence/threads").and_then(Value::as_array).expect("threads");
    for thread in threads {
        let has = ["tid", "comm", "state", "syscall", "waits_on"].iter().all(|key| thread.get(key).is_some());
        assert!(has, "a thread is not whole: {record:?}");
    }
}

/// `2025-01-31T23:59:59.123456789Z`
fn is_utc_nanoseconds(ts: &str) -> bool {
    let shape = "dddd-dd-ddTdd:dd:dd.dddddddddZ";
    let fits = |(c, s): (char, char)| if s == 'd' { c.is_ascii_digit() } else { c == s };
    ts.len() == shape.len() && ts.chars().zip(shape.chars()).all(fits)
}
