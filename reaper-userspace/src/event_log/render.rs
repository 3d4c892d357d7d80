//! A record in words, one line: for `reaper tail` and `reaper demo`.
//!
//! What it keeps true: everything that comes from the log is escaped, groups' names included; anybody may have written
//! the file.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize as _;
use serde_json::Value;

use super::line::Line;
use crate::core::records::{Event, HeirBecause, ProcView, Record, SparedBecause};
use crate::core::view::words::{because, count, span};
use crate::output::escape;

/// One line without its newline: local time, kind, group, pid, comm, and what happened in a sentence. An object that is
/// no record is shown as it is, escaped.
pub fn human(value: &Value, color: bool) -> String {
    human_at(value, color, &TimeZone::system())
}

/// As [`human`], in a given time zone.
pub fn human_at(value: &Value, color: bool, zone: &TimeZone) -> String {
    let text = |key| value.get(key).and_then(Value::as_str).unwrap_or("-");
    let kind = text("kind");
    let time = match text("ts").parse::<Timestamp>() {
        // To the millisecond, cut: a record is never shown before it was written.
        Ok(ts) => ts.to_zoned(zone.clone()).strftime("%H:%M:%S.%3f").to_string(),
        Err(_) => escape(text("ts")).into_owned(),
    };
    let mut line = format!("{} {} ", paint(DIM, &time, color), paint(style(kind), &pad(kind, 15), color));
    if let Some(pid) = value.pointer("/proc/pid").and_then(Value::as_u64) {
        let comm = value.pointer("/proc/comm").and_then(Value::as_str).unwrap_or("-");
        let _ = write!(line, "{} {pid:>7} {}  ", pad(text("group"), 10), pad(comm, 15));
    } else if let Some(group) = value.get("group").and_then(Value::as_str) {
        let _ = write!(line, "{}  ", pad(group, 10));
    }
    // As this version knows it, or, from a newer agent, field by field.
    let what = Record::deserialize(value).map_or_else(|_| fields(value), |record| sentence(&record.event));
    line.push_str(&escape(&what));
    line.truncate(line.trim_end().len());
    line
}

impl Line {
    /// See [`human_at`].
    pub fn human(&self, color: bool, zone: &TimeZone) -> String {
        human_at(&self.record, color, zone)
    }
}

const DIM: Style = Style::new().dimmed();

/// Red is what stops a process or is wrong, yellow what may lead to it, green what ends well.
fn style(kind: &str) -> Style {
    let color = match kind {
        "signal" | "error" | "events_lost" | "breaker_open" | "config_rejected" => AnsiColor::Red,
        "orphaned" | "master_lost" | "draining" | "spared" => AnsiColor::Yellow,
        "reaped" | "left" | "master_found" | "heir" | "breaker_closed" => AnsiColor::Green,
        "idle" | "busy" => AnsiColor::Cyan,
        _ => return DIM,
    };
    color.on_default()
}

fn paint(style: Style, text: &str, color: bool) -> String {
    if color { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// Escaped first: what is escaped is longer.
fn pad(text: &str, width: usize) -> String {
    format!("{:<width$}", escape(text))
}

/// What happened, without when and to whom. Not escaped yet.
pub fn sentence(event: &Event) -> String {
    match event {
        Event::AgentStarted { version, kernel, config, mode } => {
            format!("reaper {version} on Linux {kernel}, {config}: {mode}")
        }
        Event::AgentStopped { version, .. } => format!("reaper {version}"),
        Event::ConfigLoaded { file, groups } if groups.is_empty() => format!("{file}: no groups"),
        Event::ConfigLoaded { file, groups } => format!("{file}: {}", groups.join(", ")),
        Event::ConfigRejected { file, errors } => format!("{file}: {}", errors.join("; ")),
        Event::Snapshot { processes, took_us } => {
            format!("{} in {}", count(*processes, "process"), time(*took_us))
        }
        Event::Fork { parent, .. } => format!("by {}", who(parent)),
        Event::Exec { proc, .. } => format!("{} {}", proc.exe, args(proc)),
        Event::Exit { code, signal, .. } => exit(*code, signal.as_deref()),
        Event::Reparent { old_parent, new_parent, .. } => {
            format!("from {} to {}", who(old_parent), who(new_parent))
        }
        Event::MasterFound { proc, .. } => args(proc),
        Event::MasterLost { code, signal, namespace_died: true, .. } => {
            format!("{}: everybody in its pid namespace dies", exit(*code, signal.as_deref()))
        }
        Event::MasterLost { workers, code, signal, .. } => {
            format!("{}: {} orphaned", exit(*code, signal.as_deref()), count(*workers, "worker"))
        }
        Event::Heir { of, because, .. } => {
            let because = match because {
                HeirBecause::Exec => "upgraded in place",
                HeirBecause::Session => "detached",
            };
            format!("is master after {}: {because}", who(of))
        }
        Event::Orphaned { stray: true, .. } => "stray: orphaned before the agent started".to_owned(),
        Event::Orphaned { lost, lineage, .. } => {
            let lost = lost.as_ref().map_or_else(|| "its master".to_owned(), who);
            let lineage: Vec<_> = lineage.iter().map(u32::to_string).collect();
            format!("lost {lost}; lineage {}", lineage.join(" < "))
        }
        Event::Busy { evidence, .. } | Event::Idle { evidence, .. } => because(evidence).into_owned(),
        Event::Draining { signal, sender: Some(sender), .. } => format!("{signal} by {}", who(sender)),
        Event::Draining { signal, sender: None, .. } => signal.clone(),
        Event::Signal { signal, step, evidence, since_orphan_us, verified, dry_run, .. } => format!(
            "{}{signal} (step {step}) {} after it was orphaned: {}{}",
            if *dry_run { "would get " } else { "" },
            time(*since_orphan_us),
            evidence.because,
            // A dry run stops nothing to look again.
            if *verified || *dry_run { "" } else { " (not looked at again while stopped)" },
        ),
        Event::Reaped { signal, took_us, .. } => {
            format!("gone {} after it was orphaned, by {signal}", time(*took_us))
        }
        Event::Left { .. } => "went by itself".to_owned(),
        Event::Spared { because, .. } => spared(*because).to_owned(),
        Event::BreakerOpen { kills, window, .. } => {
            let window = self::window(window);
            format!("{} in {window}: no more signals until it is armed again", count(*kills as usize, "kill"))
        }
        Event::BreakerClosed { .. } => "armed again".to_owned(),
        Event::EventsLost { count: lost } => {
            let lost = usize::try_from(*lost).unwrap_or(usize::MAX);
            format!("{} of the kernel: no signals until the tree is rebuilt", count(lost, "event"))
        }
        Event::Resynced { added, removed, took_us } => {
            format!("{added} added, {removed} removed in {}", time(*took_us))
        }
        Event::Error { what, .. } => what.clone(),
    }
}

fn spared(because: SparedBecause) -> &'static str {
    match because {
        SparedBecause::Observe => "the group only observes",
        SparedBecause::Unarmed => {
            "nobody of its user and executable was seen in the group: has it had a master, is its matcher right?"
        }
        SparedBecause::Protected => "protected",
        SparedBecause::Breaker => "the group has used up its kills",
        SparedBecause::JobChild => "it is a job itself",
        SparedBecause::Adopted => "a subreaper below its master adopted it",
        SparedBecause::Detached => "it left on purpose",
        SparedBecause::NotReplaced => "no new master lives yet",
    }
}

fn who(proc: &ProcView) -> String {
    format!("{} ({})", proc.pid, proc.comm)
}

fn args(proc: &ProcView) -> String {
    proc.argv.line()
}

fn exit(code: Option<i32>, signal: Option<&str>) -> String {
    match (code, signal) {
        (_, Some(signal)) => format!("killed by {signal}"),
        (Some(code), None) => format!("exit status {code}"),
        (None, None) => "exit status not known".to_owned(),
    }
}

fn time(us: u64) -> String {
    span(us.saturating_mul(1_000))
}

/// A length of time that the record has in words for machines.
fn window(text: &str) -> String {
    let length =
        humantime::parse_duration(text).ok().and_then(|length| u64::try_from(length.as_nanos()).ok());
    length.map_or_else(|| text.to_owned(), span)
}

/// What the columns do not show, as it is.
fn fields(value: &Value) -> String {
    let Value::Object(fields) = value else { return value.to_string() };
    let shown = ["v", "seq", "ts", "boot_ns", "kind", "group"];
    let rest: Vec<_> = fields
        .iter()
        .filter(|(key, _)| !shown.contains(&&***key))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    rest.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::records::{Evidence, Verdict};
    use expect_test::expect;

    fn proc(pid: u32, comm: &str) -> ProcView {
        ProcView {
            pid,
            comm: comm.into(),
            exe: "/usr/bin/php8.3".into(),
            argv: ["php", "artisan\x1b[2J"].into_iter().collect(),
            ..ProcView::default()
        }
    }

    fn show(event: Event, color: bool) -> String {
        let kind = event.kind();
        let record = Record { boot_ns: 1, event };
        let mut value = serde_json::to_value(record).expect("it is JSON");
        assert_eq!(value["kind"], kind);
        value["ts"] = "2026-01-02T12:00:01.123987654Z".into();
        human_at(&value, color, &TimeZone::UTC) + "\n"
    }

    fn signal(comm: &str, dry_run: bool, verified: bool) -> Event {
        Event::Signal {
            group: "horizon".into(),
            proc: proc(4711, comm),
            signal: "TERM".into(),
            step: 0,
            evidence: Evidence {
                verdict: Verdict::Idle,
                because: "all 1 threads asleep, no CPU for 200 ms".into(),
                threads: vec![],
                cpu_us: 0,
                children: 0,
                quiet_us: 200_000,
            },
            since_orphan_us: 214_003,
            since_idle_us: 200_000,
            verified,
            dry_run,
        }
    }

    /// One of each kind that tells of the agent's beginning and end.
    fn about_the_agent() -> [Event; 5] {
        [
            Event::AgentStarted {
                version: "0.1.0".into(),
                kernel: "6.12.1".into(),
                config: "built in".into(),
                mode: "observe".into(),
            },
            Event::AgentStopped {
                version: "0.1.0".into(),
                kernel: "6.12.1".into(),
                config: "built in".into(),
                mode: "observe".into(),
            },
            Event::ConfigLoaded {
                file: "/etc/reaper/reaper.toml".into(),
                groups: vec!["horizon".into(), "web".into()],
            },
            Event::ConfigRejected { file: "r.toml".into(), errors: vec!["1:2: no".into(), "3:4: no".into()] },
            Event::Snapshot { processes: 1, took_us: 412 },
        ]
    }

    /// One of each other kind, and of those that are told in several ways one of each.
    fn about_processes() -> Vec<Event> {
        let group = || "horizon".to_owned();
        let code = Some(137);
        let lost = |workers, code, signal: Option<&str>, namespace_died| Event::MasterLost {
            group: group(),
            proc: proc(8, "php"),
            workers,
            code,
            signal: signal.map(str::to_owned),
            namespace_died,
        };
        vec![
            Event::Fork { proc: proc(8, "php"), parent: proc(7, "sh") },
            Event::Exec { proc: proc(8, "php"), parent: proc(7, "sh") },
            Event::Exit {
                proc: proc(8, "php"),
                parent: proc(7, "sh"),
                code: None,
                signal: Some("KILL".into()),
            },
            Event::Reparent {
                proc: proc(8, "php"),
                old_parent: proc(7, "sh"),
                new_parent: proc(1, "systemd"),
            },
            Event::MasterFound { group: group(), proc: proc(8, "php") },
            lost(3, code, None, false),
            lost(0, None, Some("KILL"), true),
            Event::Heir {
                group: group(),
                proc: proc(9, "php"),
                of: proc(8, "php"),
                because: HeirBecause::Exec,
            },
            Event::Orphaned {
                group: group(),
                proc: proc(10, "php"),
                lost: Some(proc(8, "p\x07hp")),
                lineage: vec![9, 8],
                stray: false,
            },
            Event::Orphaned {
                group: group(),
                proc: proc(10, "php"),
                lost: None,
                lineage: vec![],
                stray: true,
            },
            Event::Draining {
                group: group(),
                proc: proc(10, "php"),
                signal: "TERM".into(),
                sender: Some(proc(77, "sh")),
            },
            signal("php", false, true),
            signal("php", false, false),
            signal("php", true, false),
            Event::Reaped {
                group: group(),
                proc: proc(10, "php"),
                signal: "TERM".into(),
                took_us: 75_000_000,
            },
            Event::Left { group: group(), proc: proc(10, "php") },
            Event::Spared { group: group(), proc: proc(10, "php"), because: SparedBecause::NotReplaced },
            Event::BreakerOpen { group: group(), kills: 50, window: "1m".into() },
            Event::BreakerClosed { group: group(), kills: 50, window: "1m".into() },
            Event::EventsLost { count: 2 },
            Event::Resynced { added: 1, removed: 2, took_us: 1_999 },
            Event::Error { what: "cannot read /proc/10/stat".into(), proc: Some(proc(10, "php")) },
        ]
    }

    #[test]
    fn every_kind_in_words() {
        let shown: String =
            about_the_agent().into_iter().chain(about_processes()).map(|event| show(event, false)).collect();
        expect![[r#"
            12:00:01.123 agent_started   reaper 0.1.0 on Linux 6.12.1, built in: observe
            12:00:01.123 agent_stopped   reaper 0.1.0
            12:00:01.123 config_loaded   /etc/reaper/reaper.toml: horizon, web
            12:00:01.123 config_rejected r.toml: 1:2: no; 3:4: no
            12:00:01.123 snapshot        1 process in 412 us
            12:00:01.123 fork            -                8 php              by 7 (sh)
            12:00:01.123 exec            -                8 php              /usr/bin/php8.3 php artisan\x1b[2J
            12:00:01.123 exit            -                8 php              killed by KILL
            12:00:01.123 reparent        -                8 php              from 7 (sh) to 1 (systemd)
            12:00:01.123 master_found    horizon          8 php              php artisan\x1b[2J
            12:00:01.123 master_lost     horizon          8 php              exit status 137: 3 workers orphaned
            12:00:01.123 master_lost     horizon          8 php              killed by KILL: everybody in its pid namespace dies
            12:00:01.123 heir            horizon          9 php              is master after 8 (php): upgraded in place
            12:00:01.123 orphaned        horizon         10 php              lost 8 (p\x07hp); lineage 9 < 8
            12:00:01.123 orphaned        horizon         10 php              stray: orphaned before the agent started
            12:00:01.123 draining        horizon         10 php              TERM by 77 (sh)
            12:00:01.123 signal          horizon       4711 php              TERM (step 0) 214 ms after it was orphaned: all 1 threads asleep, no CPU for 200 ms
            12:00:01.123 signal          horizon       4711 php              TERM (step 0) 214 ms after it was orphaned: all 1 threads asleep, no CPU for 200 ms (not looked at again while stopped)
            12:00:01.123 signal          horizon       4711 php              would get TERM (step 0) 214 ms after it was orphaned: all 1 threads asleep, no CPU for 200 ms
            12:00:01.123 reaped          horizon         10 php              gone 1 min 15 s after it was orphaned, by TERM
            12:00:01.123 left            horizon         10 php              went by itself
            12:00:01.123 spared          horizon         10 php              no new master lives yet
            12:00:01.123 breaker_open    horizon     50 kills in 1 min: no more signals until it is armed again
            12:00:01.123 breaker_closed  horizon     armed again
            12:00:01.123 events_lost     2 events of the kernel: no signals until the tree is rebuilt
            12:00:01.123 resynced        1 added, 2 removed in 1 ms
            12:00:01.123 error           -               10 php              cannot read /proc/10/stat
        "#]].assert_eq(&shown);
    }

    #[test]
    fn hostile_text_stays_text() {
        let hostile = "\x1b[2J\u{202e}\n\u{9b}x";
        expect![[r#"
            [2m12:00:01.123[0m [31msignal         [0m horizon       4711 \x1b[2J\u{202e}\n\u{9b}x  TERM (step 0) 214 ms after it was orphaned: all 1 threads asleep, no CPU for 200 ms
        "#]].assert_eq(&show(signal(hostile, false, true), true));
        let newer = serde_json::json!({"ts": hostile, "kind": hostile, "group": hostile, "new": hostile, "proc": {"pid": 1}});
        expect![[r#"\x1b[2J\u{202e}\n\u{9b}x \x1b[2J\u{202e}\n\u{9b}x \x1b[2J\u{202e}\n\u{9b}x       1 -                new="\u001b[2J\u{202e}\n\u{9b}x" proc={"pid":1}"#]].assert_eq(&human_at(&newer, false, &TimeZone::UTC));
        expect![[r#"- -               "\u001b[2J\u{202e}\n\u{9b}x""#]].assert_eq(&human_at(
            &Value::from(hostile),
            false,
            &TimeZone::UTC,
        ));
    }
}
