//! Scripts from few records: what a log of decisions tells, and what it cannot.

use super::*;
use crate::config::Config;
use crate::core::records::{Event, ProcView, SparedBecause, Verdict};
use crate::core::rules::Rules;

const SECOND: Ns = 1_000_000_000;

fn rules(more: &str) -> Rules {
    let text = format!(
        "[[group]]\nname = 'mails'\nmode = 'enforce'\nmaster.cmdline = 'mailer --supervise$'\n\
         worker.cmdline = 'mailer --worker'\nidle.proof = 'asleep'\n{more}"
    );
    Config::parse("reaper.toml", &text).expect("a good configuration").rules
}

fn proc(pid: u32, start: Ns, ppid: u32, argv: &str) -> ProcView {
    ProcView {
        pid,
        start_ns: start,
        ppid,
        comm: "mailer".into(),
        exe: "/usr/bin/mailer".into(),
        argv: argv.split(' ').collect(),
        ..ProcView::default()
    }
}

fn evidence(verdict: Verdict, because: &str, quiet_us: u64) -> Evidence {
    Evidence { verdict, because: because.to_owned(), threads: vec![], cpu_us: 0, children: 0, quiet_us }
}

/// A master with an idle and a busy worker, as an agent with `quiet = "200ms"` writes it: level "decisions".
fn decisions() -> Vec<(Timestamp, Record)> {
    let group = || "mails".to_owned();
    let master = proc(10, SECOND, 1, "mailer --supervise");
    let idle = || proc(11, SECOND + 1, 1, "mailer --worker a");
    let busy = || proc(12, SECOND + 2, 1, "mailer --worker b");
    let orphaned = |proc| Event::Orphaned {
        group: group(),
        proc,
        lost: Some(master.clone()),
        lineage: vec![10],
        stray: false,
    };
    let at = |ms: u64, event| Record { boot_ns: 10 * SECOND + ms * 1_000_000, event };
    let waits = "thread 11 (mailer) waits in accept4";
    let records = [
        at(0, Event::Snapshot { processes: 3, took_us: 1 }),
        at(1, Event::MasterFound { group: group(), proc: master.clone() }),
        at(
            1_000,
            Event::MasterLost {
                group: group(),
                proc: master.clone(),
                workers: 2,
                code: Some(1),
                signal: None,
                namespace_died: false,
            },
        ),
        at(1_000, orphaned(idle())),
        at(1_000, orphaned(busy())),
        at(
            1_005,
            Event::Busy {
                group: group(),
                proc: busy(),
                evidence: evidence(Verdict::Busy, "thread 12 runs", 0),
            },
        ),
        at(
            1_210,
            Event::Idle { group: group(), proc: idle(), evidence: evidence(Verdict::Idle, waits, 205_000) },
        ),
        at(
            1_212,
            Event::Signal {
                group: group(),
                proc: idle(),
                signal: "TERM".into(),
                step: 0,
                evidence: evidence(Verdict::Idle, waits, 207_000),
                since_orphan_us: 212_000,
                since_idle_us: 207_000,
                verified: true,
                dry_run: false,
            },
        ),
        at(1_213, Event::Reaped { group: group(), proc: idle(), signal: "TERM".into(), took_us: 213_000 }),
        at(60_000, Event::EventsLost { count: 0 }),
    ];
    let wall = |r: &Record| Timestamp::from_nanosecond(i128::from(r.boot_ns)).expect("a time");
    records.into_iter().map(|r| (wall(&r), r)).collect()
}

fn replayed(more: &str) -> (Script, Replayed) {
    let rules = rules(more);
    let script = Script::of_log(decisions(), &rules);
    let replayed = replay(&script, &rules, |_, _| {});
    (script, replayed)
}

/// Kind and pid of what is said of workers.
fn told(replayed: &Replayed) -> Vec<(&'static str, u32)> {
    let of = |r: &Record| driver::proc_of(&r.event).map(|proc| (r.event.kind(), proc.pid));
    replayed.records.iter().filter_map(of).filter(|(_, pid)| *pid > 10).collect()
}

fn differences(script: &Script, replayed: &Replayed, observing: &[&str]) -> Vec<String> {
    let observing = observing.iter().map(ToString::to_string).collect();
    let summary = compare(script.records.as_deref(), replayed, &observing);
    summary.differences.iter().map(|d| format!("{}: {}", d.proc.pid, d.what)).collect()
}

#[test]
fn the_same_configuration_decides_the_same() {
    let (script, out) = replayed("");
    let expected =
        [("orphaned", 11), ("orphaned", 12), ("busy", 12), ("idle", 11), ("signal", 11), ("reaped", 11)];
    let mut said = told(&out);
    said.sort_by_key(|(kind, pid)| expected.iter().position(|e| e == &(*kind, *pid)));
    assert_eq!(said, expected);
    assert_eq!(differences(&script, &out, &[]), Vec::<String>::new());
    let signal = out.records.iter().find(|r| r.event.kind() == "signal").expect("a signal");
    let Event::Signal { dry_run, evidence, .. } = &signal.event else { unreachable!() };
    assert!(dry_run, "a replay signals nobody");
    assert_eq!(evidence.because, "thread 11 (mailer) waits in accept4", "the recorded words");
    assert!(script.notes[0].contains("log_level = \"decisions\""), "{:?}", script.notes);
}

#[test]
fn a_longer_quiet_comes_too_late() {
    let (script, out) = replayed("idle.quiet = '1s'");
    assert_eq!(out.fates.values().collect::<Vec<_>>(), [&Fate::StoppedThere]);
    assert!(
        !told(&out).iter().any(|(kind, _)| ["signal", "left", "reaped"].contains(kind)),
        "{:?}",
        told(&out)
    );
    let told = differences(&script, &out, &[]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("11: got TERM after 212 ms, here not by then"), "{told:?}");
    assert!(told[0].ends_with("what came after is not in the recording"), "{told:?}");
}

#[test]
fn a_shorter_quiet_comes_sooner() {
    let (script, out) = replayed("idle.quiet = '50ms'");
    assert_eq!(out.fates.values().collect::<Vec<_>>(), [&Fate::SignalledHere]);
    let said = told(&out);
    assert!(
        said.contains(&("signal", 11)) && !said.contains(&("reaped", 11)),
        "when it would be gone is not known: {said:?}"
    );
    let told = differences(&script, &out, &[]);
    assert!(told[0].starts_with("11: got TERM after 212 ms, here TERM after "), "{told:?}");
}

#[test]
fn other_signals_and_deadlines() {
    let (script, out) = replayed("stop.signals = ['INT']\nstop.deadline = '5s'");
    let signals: Vec<_> = out
        .records
        .iter()
        .filter_map(|r| match &r.event {
            Event::Signal { proc, signal, since_orphan_us, .. } => {
                Some((proc.pid, &**signal, *since_orphan_us))
            }
            _ => None,
        })
        .collect();
    let [(11, "INT", _), (12, "INT", 5_000_000..5_100_000)] = *signals else { panic!("{signals:?}") };
    let told = differences(&script, &out, &[]);
    assert!(told[0].contains("got TERM after 212 ms, here INT after"), "{told:?}");
    assert!(
        told[1].contains("12: not signalled: thread 12 runs, here it would get INT after 50"),
        "{told:?}"
    );
}

#[test]
fn who_only_observes_signals_nobody() {
    let rules = {
        let mut rules = rules("");
        rules.groups[0].mode = crate::core::rules::Mode::Observe;
        rules
    };
    let script = Script::of_log(decisions(), &rules);
    let out = replay(&script, &rules, |_, _| {});
    assert!(told(&out).contains(&("spared", 11)), "{:?}", told(&out));
    let told = differences(&script, &out, &["mails"]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("11: got TERM after 212 ms, here it would get TERM if its group enforced"),
        "{told:?}"
    );
}

#[test]
fn a_breaker_that_allows_none() {
    let (script, out) = replayed("stop.max_kills = 1");
    assert_eq!(differences(&script, &out, &[]), Vec::<String>::new(), "one is enough");
    let rules = {
        let mut rules = rules("");
        rules.groups[0].stop.max_kills = 0;
        rules
    };
    let out = replay(&script, &rules, |_, _| {});
    assert!(out.records.iter().any(|r| r.event.kind() == "breaker_open"));
    let because = |r: &Record| matches!(r.event, Event::Spared { because: SparedBecause::Breaker, .. });
    assert!(out.records.iter().any(because));
    assert!(
        differences(&script, &out, &[])[0].contains("here spared: breaker"),
        "{:?}",
        differences(&script, &out, &[])
    );
}

#[test]
fn other_patterns_find_others() {
    let text =
        "[[group]]\nname = 'mails'\nmode = 'enforce'\nmaster.cmdline = 'poster --supervise$'\nunit = 'x'";
    let text = text.replace("\nunit = 'x'", "\nmaster.unit = 'poster.service'");
    let rules = Config::parse("reaper.toml", &text).expect("good").rules;
    let script = Script::of_log(decisions(), &rules);
    assert!(script.notes.iter().any(|n| n.contains("cgroups are not in an event log")), "{:?}", script.notes);
    let out = replay(&script, &rules, |_, _| {});
    assert_eq!(told(&out), []);
    let told = differences(&script, &out, &[]);
    assert_eq!(told[0], "10: was a master of mails, here it is no master");
    assert_eq!(told[1], "11: was an orphan of mails, here it is no orphan");
}

#[test]
fn numbers_stand_side_by_side() {
    let (script, out) = replayed("idle.quiet = '1s'");
    let summary = compare(script.records.as_deref(), &out, &Default::default());
    let rows: Vec<_> = summary.groups["mails"].iter().map(|r| (&*r.what, r.there, r.here)).collect();
    assert_eq!(
        rows,
        [
            ("masters found", Some(1), 1),
            ("masters lost", Some(1), 1),
            ("orphaned", Some(2), 2),
            ("TERM sent", Some(1), 0),
            ("reaped", Some(1), 0),
        ]
    );
    let unknown = compare(None, &out, &Default::default());
    assert_eq!(unknown.groups["mails"][0].there, None);
    assert_eq!(unknown.differences, []);
}
