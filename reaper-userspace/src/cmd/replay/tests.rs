//! What is printed, and what is said of logs that are broken.

use std::fs;

use expect_test::expect;

use super::*;

const CONFIG: &str = "[[group]]\nname = 'mails'\nmode = 'enforce'\nmaster.cmdline = 'mailer --supervise$'\n\
    worker.cmdline = 'mailer --worker'\nidle.proof = 'asleep'\nidle.quiet = '1s'\n";

/// A master and a worker that was stopped after 212 ms.
const LOG: &str = r#"{"v":1,"seq":1,"ts":"2026-01-02T10:00:00.000000000Z","boot_ns":10000000000,"kind":"snapshot","processes":3,"took_us":1}
{"v":1,"seq":2,"ts":"2026-01-02T10:00:00.001000000Z","boot_ns":10001000000,"kind":"master_found","group":"mails","proc":{"pid":10,"start_ns":1000000000,"ppid":1,"uid":0,"comm":"mailer","exe":"/bin/mailer","argv":["mailer","--supervise"]}}
{"v":1,"seq":3,"ts":"2026-01-02T10:00:01.000000000Z","boot_ns":11000000000,"kind":"master_lost","group":"mails","proc":{"pid":10,"start_ns":1000000000,"ppid":1,"uid":0,"comm":"mailer","exe":"/bin/mailer","argv":["mailer","--supervise"]},"workers":1,"code":1,"signal":null}
{"v":1,"seq":4,"ts":"2026-01-02T10:00:01.000000000Z","boot_ns":11000000000,"kind":"orphaned","group":"mails","proc":{"pid":11,"start_ns":1000000001,"ppid":1,"uid":0,"comm":"ma\u001biler","exe":"/bin/mailer","argv":["mailer","--worker"]},"lost":{"pid":10,"start_ns":1000000000,"ppid":1,"uid":0,"comm":"mailer","exe":"/bin/mailer","argv":["mailer","--supervise"]},"lineage":[10],"stray":false}
{"v":1,"seq":5,"ts":"2026-01-02T10:00:01.212000000Z","boot_ns":11212000000,"kind":"signal","group":"mails","proc":{"pid":11,"start_ns":1000000001,"ppid":1,"uid":0,"comm":"ma\u001biler","exe":"/bin/mailer","argv":["mailer","--worker"]},"signal":"TERM","step":0,"evidence":{"verdict":"idle","because":"it waits","threads":[],"cpu_us":0,"children":0,"quiet_us":207000},"since_orphan_us":212000,"since_idle_us":207000,"verified":true,"dry_run":false}
{"v":1,"seq":6,"ts":"2026-01-02T10:00:01.213000000Z","boot_ns":11213000000,"kind":"reaped","group":"mails","proc":{"pid":11,"start_ns":1000000001,"ppid":1,"uid":0,"comm":"ma\u001biler","exe":"/bin/mailer","argv":["mailer","--worker"]},"signal":"TERM","took_us":213000}
"#;

/// What goes to stdout and to stderr; the directory is left out.
fn shown(log: &str, config: &str, format: OutputFormat) -> anyhow::Result<(String, String)> {
    let dir = tempfile::tempdir()?;
    let (log_file, config_file) = (dir.path().join("events.jsonl"), dir.path().join("reaper.toml"));
    fs::write(&log_file, log)?;
    fs::write(&config_file, config)?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ReplayArgs { log: log_file, config: config_file, agent: None };
    let mut sink = Sink { format, color: false, zone: TimeZone::UTC, out: &mut out, err: &mut err };
    run(&args, &mut sink)?;
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).map(|t| t.replace(&format!("{}/", dir.path().display()), ""))
    };
    Ok((text(out)?, text(err)?))
}

#[test]
fn for_people() {
    let (out, err) = shown(LOG, CONFIG, OutputFormat::Human).expect("it runs");
    expect![[r#"
        -- 2026-01-02 --
        10:00:00.000 snapshot        3 processes in 0 s
        10:00:00.000 master_found    mails           10 mailer           mailer --supervise
        10:00:01.000 master_lost     mails           10 mailer           exit status 1: 1 worker orphaned
        10:00:01.000 orphaned        mails           11 ma\x1biler       lost 10 (mailer); lineage 10

                         recorded  here
        mails
          masters found         1     1
          masters lost          1     1
          orphaned              1     1
          TERM sent             1     0
          reaped                1     0

        Different:
          11 (ma\x1biler): got TERM after 212 ms, here not by then: it was not idle for long enough; what came after is not in the recording
    "#]].assert_eq(&out);
    assert_eq!(err.lines().count(), 2, "{err}");
    assert!(err.lines().all(|line| line.starts_with("reaper: note: ")), "{err}");
}

#[test]
fn for_scripts() {
    let (out, _) = shown(LOG, &CONFIG.replace("1s", "200ms"), OutputFormat::Json).expect("it runs");
    let lines: Vec<Line> = out.lines().map(|l| Line::parse(l.as_bytes()).expect("a record")).collect();
    assert!(lines.iter().map(|l| l.seq).eq(1..=lines.len() as u64));
    let signal = lines.iter().find(|l| l.kind == "signal").expect("a signal");
    assert_eq!(
        (signal.record["dry_run"].as_bool(), signal.record["proc"]["pid"].as_u64()),
        (Some(true), Some(11))
    );
    let boot = |ns: u64| format!("2026-01-02T10:00:0{}", (ns - 10_000_000_000) / 1_000_000_000);
    assert!(signal.ts.to_string().starts_with(&boot(signal.boot_ns)), "{} {}", signal.ts, signal.boot_ns);
}

#[test]
fn broken_lines_are_told_and_left_out() {
    let log = LOG.replacen('\n', "\nnonsense\n", 1);
    let (out, err) = shown(&format!("{log}{{\"v\":1,"), CONFIG, OutputFormat::Human).expect("it runs");
    assert!(err.contains("events.jsonl:2: no record, left out"), "{err}");
    assert!(err.contains("lines skipped: 1 that are no records, 1 cut short"), "{err}");
    assert!(out.contains("orphaned"), "{out}");
}

#[test]
fn what_is_no_log_is_an_error() {
    for log in ["", "nonsense\n", "{}\n"] {
        let error = shown(log, CONFIG, OutputFormat::Human).expect_err(log).to_string();
        assert!(error.contains("neither an event log nor a recording"), "{error}");
    }
    let error = shown(LOG, "[[group]]\nname = 1", OutputFormat::Human).expect_err("a bad configuration");
    assert!(error.to_string().contains("reaper.toml:2:8"), "{error}");
}

#[test]
fn recordings_are_known_by_their_first_line() {
    let recording = "{\"now\":5,\"input\":\"configured\",\"at\":5,\"armed\":[],\"broken\":[]}\nnonsense\n{\"now\":6,\"inp";
    let (out, err) = shown(recording, CONFIG, OutputFormat::Human).expect("it runs");
    assert!(err.contains("events.jsonl:2: left out: "), "{err}");
    assert!(err.contains("events.jsonl:3: left out: it is cut short"), "{err}");
    assert!(err.contains("does not say who recorded it"), "{err}");
    assert_eq!(out, "\nno group found anybody\n");
}
