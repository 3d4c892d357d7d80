//! `reaper tail` on logs that the writer wrote.

use std::fs;
use std::io;

use clap::Parser;
use expect_test::expect;
use tempfile::TempDir;

use super::*;
use crate::core::records::{Event, ProcView, Record, SparedBecause};
use crate::event_log::{EventLog, LogTarget};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: TailArgs,
}

fn parse(args: &[&str]) -> Result<TailArgs, clap::Error> {
    Cli::try_parse_from([&["tail"], args].concat()).map(|cli| cli.args)
}

/// Runs with what was typed; with `-f`, every wait does the next of `steps`.
fn tail_with(
    log: &Path,
    typed: &[&str],
    steps: &mut dyn FnMut() -> bool,
) -> (anyhow::Result<ExitCode>, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let sink = Sink {
        format: OutputFormat::Json,
        color: false,
        zone: TimeZone::UTC,
        out: &mut out,
        err: &mut err,
        wait: steps,
    };
    let result = run(&parse(typed).expect("it is right"), log.to_owned(), sink);
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (result, text(out), text(err))
}

fn tail(log: &Path, typed: &[&str]) -> Vec<u64> {
    let (result, out, err) = tail_with(log, typed, &mut || false);
    result.expect("it can be read");
    assert_eq!(err, "");
    seqs(&out)
}

fn seqs(out: &str) -> Vec<u64> {
    out.lines().map(|line| Line::parse(line.as_bytes()).expect("a record").seq).collect()
}

fn record(pid: u32) -> Record {
    let proc = ProcView { pid, comm: "p\x1bhp".into(), ..ProcView::default() };
    let group = if pid.is_multiple_of(2) { "even" } else { "odd" }.to_owned();
    let event = if pid.is_multiple_of(3) {
        Event::Left { group, proc }
    } else {
        Event::Spared { group, proc, because: SparedBecause::Observe }
    };
    Record { boot_ns: 5, event }
}

/// Records 1 to 12 about the processes 1 to 12, over several files.
fn log() -> (TempDir, PathBuf, EventLog) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("events.jsonl");
    let mut log = EventLog::open(&LogTarget::File(path.clone()), 1000, 9).expect("it opens");
    for pid in 1..=12 {
        log.write(&record(pid)).expect("kept");
    }
    log.flush().expect("written");
    assert!(dir.path().join("events.jsonl.2").exists());
    (dir, path, log)
}

#[test]
fn filters() {
    let (_dir, path, _log) = log();
    assert_eq!(tail(&path, &[]), (1..=12).collect::<Vec<_>>());
    assert_eq!(tail(&path, &["-n", "5"]), [8, 9, 10, 11, 12]);
    assert_eq!(tail(&path, &["-n0"]), [0; 0]);
    assert_eq!(tail(&path, &["-n", "3", "--kind", "left"]), [6, 9, 12]);
    assert_eq!(tail(&path, &["--kind", "left,spared", "--group", "odd"]), [1, 3, 5, 7, 9, 11]);
    assert_eq!(tail(&path, &["--kind", "left", "--kind", "error"]), [3, 6, 9, 12]);
    assert_eq!(tail(&path, &["--pid", "4"]), [4]);
    assert_eq!(tail(&path, &["--since", "1h"]).len(), 12);
    assert_eq!(tail(&path, &["--since", "2999-01-01T00:00:00Z"]), [0; 0]);
    assert_eq!(tail(Path::new("/nonexistent"), &["-n1", path.to_str().expect("UTF-8")]), [12]);
}

#[test]
fn an_unknown_kind_is_a_usage_error_that_lists_them() {
    let error = parse(&["--kind", "left,nonsense"]).expect_err("there is none");
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains("nonsense") && KINDS.iter().all(|kind| text.contains(kind)), "{text}");
    assert_eq!(parse(&["--since", "whenever"]).expect_err("no time").exit_code(), 2);
}

#[test]
fn a_log_that_is_not_there_is_named() {
    let (result, out, _) = tail_with(Path::new("/nonexistent/log"), &["-f"], &mut || false);
    let error = format!("{:#}", result.expect_err("there is none"));
    assert_eq!(error, "cannot read the event log /nonexistent/log: No such file or directory (os error 2)");
    assert_eq!(out, "");
    let dir = tempfile::tempdir().expect("a directory");
    tail_with(dir.path(), &[], &mut || false).0.expect_err("it is a directory");
}

#[test]
fn follows_what_matches() {
    let (_dir, path, mut log) = log();
    let mut rounds = 0;
    let (result, out, _) = tail_with(&path, &["-f", "--group", "even"], &mut || {
        rounds += 1;
        for pid in 13..=20 {
            log.write(&record(pid)).expect("kept");
            log.flush().expect("written");
        }
        rounds < 3
    });
    result.expect("it can be read");
    assert_eq!(seqs(&out), [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28]);
    let (_, out, _) = tail_with(&path, &["-f"], &mut || false);
    assert_eq!(seqs(&out).len(), 10);
}

#[test]
fn foreign_and_torn_lines_are_counted_on_stderr() {
    let (_dir, path, log) = log();
    drop(log);
    let text = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, format!("a\x1b[2J\n{text}{{\"v\":1,")).expect("written");
    let (_, out, err) = tail_with(&path, &[], &mut || false);
    assert_eq!(seqs(&out).len(), 12);
    assert!(err.ends_with("lines skipped: 1 that are no records, 1 cut short\n"), "{err}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_dir, path, _log) = log();
    let sink = Sink {
        format: OutputFormat::Human,
        color: true,
        zone: TimeZone::UTC,
        out: &mut Gone,
        err: &mut io::sink(),
        wait: &mut || true,
    };
    run(&parse(&["-f"]).expect("right"), path, sink).expect("no error");
}

#[test]
fn for_people() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("events.jsonl");
    let line = |ts: &str| {
        let mut value = serde_json::to_value(record(12)).expect("JSON");
        value["v"] = 1.into();
        value["seq"] = 1.into();
        value["ts"] = ts.into();
        format!("{value}\n")
    };
    let (one, two) = ("2026-01-02T23:59:59.999999999Z", "2026-01-03T00:00:00.000000000Z");
    fs::write(&path, line(one) + &line(two) + &line(two)).expect("written");
    let mut out = Vec::new();
    let sink = Sink {
        format: OutputFormat::Human,
        color: false,
        zone: TimeZone::UTC,
        out: &mut out,
        err: &mut io::sink(),
        wait: &mut || false,
    };
    run(&TailArgs::default(), path, sink).expect("it can be read");
    expect![[r#"
        -- 2026-01-02 --
        23:59:59.999 left            even            12 p\x1bhp          went by itself
        -- 2026-01-03 --
        00:00:00.000 left            even            12 p\x1bhp          went by itself
        00:00:00.000 left            even            12 p\x1bhp          went by itself
    "#]]
    .assert_eq(&String::from_utf8(out).expect("UTF-8"));
}

#[test]
fn times() {
    let now: Zoned = "2026-03-10T01:30:00+01:00[+01:00]".parse().expect("a time");
    let times: String = [
        "10m",
        "2h ago",
        "1h 30m",
        "now",
        "today",
        "yesterday",
        "01:29",
        "23:00",
        "23:00:05",
        "2026-03-01",
        "2026-03-01 12:00",
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:00:00+01:00",
        "",
        "25:00",
        "soon",
    ]
    .iter()
    .map(|text| format!("{text} = {:?}\n", since(text, &now)))
    .collect();
    expect![[r#"
        10m = Some(2026-03-10T00:20:00Z)
        2h ago = Some(2026-03-09T22:30:00Z)
        1h 30m = Some(2026-03-09T23:00:00Z)
        now = Some(2026-03-10T00:30:00Z)
        today = Some(2026-03-09T23:00:00Z)
        yesterday = Some(2026-03-08T23:00:00Z)
        01:29 = Some(2026-03-10T00:29:00Z)
        23:00 = Some(2026-03-09T22:00:00Z)
        23:00:05 = Some(2026-03-09T22:00:05Z)
        2026-03-01 = Some(2026-02-28T23:00:00Z)
        2026-03-01 12:00 = Some(2026-03-01T11:00:00Z)
        2026-03-01T12:00:00Z = Some(2026-03-01T12:00:00Z)
        2026-03-01T12:00:00+01:00 = Some(2026-03-01T11:00:00Z)
         = None
        25:00 = None
        soon = None
    "#]]
    .assert_eq(&times);
}
