//! What the page says, what it must never contain, and how it looks to a browser's parser.

use std::collections::BTreeSet;
use std::fs;

use super::*;
use crate::core::records::{Event, Evidence, ProcView, SparedBecause, ThreadView, Verdict, WaitsOn};

/// Everything that could end an element, an attribute, a script or a comment.
const HOSTILE: &str = "</script><script>alert(1)</script><!--\u{2028}\u{2029}\"'&{{data}}\u{202e}\x1b[31m";

fn proc(pid: u32, comm: &str) -> ProcView {
    ProcView {
        pid,
        start_ns: u64::from(pid) * 1_000_000,
        ppid: 1,
        uid: 0,
        comm: comm.into(),
        exe: comm.into(),
        argv: [comm, "--worker"].into_iter().collect(),
        container: None,
        pod: None,
    }
}

fn evidence(because: &str) -> Evidence {
    let waits_on = vec![WaitsOn { fd: 5, what: "queue".into(), peer: Some(because.into()) }];
    let thread =
        ThreadView { tid: 7, comm: because.into(), state: 'S', syscall: Some("poll".into()), waits_on };
    Evidence {
        verdict: Verdict::Idle,
        because: because.to_owned(),
        threads: vec![thread],
        cpu_us: 0,
        children: 0,
        quiet_us: 200_000,
    }
}

/// One master, one idle worker that is stopped, one that is spared.
fn story(group: &str, text: &str) -> Vec<Event> {
    let group = || group.to_owned();
    let orphaned = |proc| Event::Orphaned {
        group: group(),
        proc,
        lost: Some(self::proc(10, text)),
        lineage: vec![10],
        stray: false,
    };
    vec![
        Event::AgentStarted {
            version: "0.1.0".into(),
            kernel: "6.12".into(),
            config: text.into(),
            mode: "enforce".into(),
        },
        Event::MasterFound { group: group(), proc: proc(10, text) },
        Event::MasterLost {
            group: group(),
            proc: proc(10, text),
            workers: 2,
            code: None,
            signal: Some("KILL".into()),
            namespace_died: false,
        },
        orphaned(proc(11, text)),
        orphaned(proc(12, text)),
        Event::Idle { group: group(), proc: proc(11, text), evidence: evidence(text) },
        Event::Signal {
            group: group(),
            proc: proc(11, text),
            signal: "TERM".into(),
            step: 0,
            evidence: evidence(text),
            since_orphan_us: 212_000,
            since_idle_us: 200_000,
            verified: true,
            dry_run: false,
        },
        Event::Reaped { group: group(), proc: proc(11, text), signal: "TERM".into(), took_us: 213_000 },
        Event::Spared { group: group(), proc: proc(12, text), because: SparedBecause::JobChild },
    ]
}

fn model(events: Vec<Event>) -> Model {
    let mut model = Model::default();
    let begin: Timestamp = "2026-01-02T10:00:00Z".parse().expect("a time");
    for (n, event) in (0..).zip(events) {
        let boot_ns = 1_000_000_000 + n * 100_000_000;
        let ts = begin + std::time::Duration::from_nanos(boot_ns);
        model.take(ts, &Record { boot_ns, event });
    }
    model.finish();
    model
}

fn page(model: &Model) -> String {
    page::render(model, "events.jsonl", &TimeZone::UTC).expect("it is rendered")
}

/// The JSON that the script reads.
fn data(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once("id=\"data\">").expect("there is data");
    let (json, _) = rest.split_once("</script>").expect("which ends");
    serde_json::from_str(json).expect("and is JSON")
}

#[test]
fn a_story_is_told() {
    let page = page(&model(story("mails", "mailer")));
    let data = data(&page);
    let rows = data["rows"].as_array().expect("rows");
    assert_eq!(rows.iter().map(|r| r["pid"].as_u64()).collect::<Vec<_>>(), [Some(10), Some(11), Some(12)]);
    let kinds = |row: &serde_json::Value| {
        let marks = row["marks"].as_array().expect("marks");
        marks.iter().map(|m| m["kind"].as_str().expect("a kind").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&rows[0]), ["master_found", "master_lost"]);
    assert_eq!(kinds(&rows[1]), ["orphaned", "idle", "signal", "reaped"]);
    assert_eq!(
        rows[1]["end"].as_f64().expect("an end") - rows[1]["orphaned"].as_f64().expect("a loss"),
        400.0
    );
    assert!(rows[2]["end"].is_null(), "it was there at the end");
    let looked = rows[1]["marks"][1]["details"].to_string();
    assert!(looked.contains("thread 7 (mailer) S: poll on 5 queue (mailer)"), "{looked}");
    for part in [
        "<tr><th scope=\"row\">mails</th><td>1</td><td>1</td><td>2</td><td>1</td><td>1</td><td>213 ms</td><td>213 ms</td>",
        "<td>stopped by TERM</td>",
        "<td>spared: it is a job itself</td>",
        "2026-01-02 10:00:01 to 2026-01-02 10:00:01, times in UTC; 9 records",
    ] {
        assert!(page.contains(part), "not in the page: {part}");
    }
}

#[test]
fn it_needs_nothing_from_outside() {
    let page = page(&model(story("mails", "mailer")));
    for outside in ["http:", "https:", "//cdn", "@import", "url(", "src=", "{{", "fetch(", "XMLHttp"] {
        assert!(!page.contains(outside), "{outside} is in the page");
    }
    let (_, rest) = page.split_once("href=\"data:,\"").expect("no icon is asked for");
    assert!(!rest.contains("<link"), "nothing else is linked");
    assert!(page.contains("default-src 'none'"), "and the browser would not let it");
}

#[test]
fn hostile_names_stay_text() {
    let page = page(&model(story(HOSTILE, HOSTILE)));
    assert_eq!(page.matches("<script").count(), 2, "the data and the script");
    assert_eq!(page.matches("</script").count(), 2);
    for never in ["<!--", "alert(1)</", "\u{2028}", "\u{2029}", "\u{202e}", "\x1b"] {
        assert!(!page.contains(never), "{never:?} is in the page");
    }
    let data = data(&page);
    let comm = data["rows"][0]["comm"].as_str().expect("a name");
    assert_eq!(
        comm,
        "</script><script>alert(1)</script><!--\\u{2028}\\u{2029}\"'&{{data}}\\u{202e}\\x1b[31m"
    );
    assert_eq!(page.matches("id=\"data\"").count(), 1, "a name is not filled in again");
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(1)"), "in the tables");
}

#[test]
fn what_is_not_text_is_escaped() {
    assert_eq!(
        page::html("<a href=\"x\" b='y'>&\u{9b}</a>"),
        "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;\\u{9b}&lt;/a&gt;"
    );
    assert_eq!(page::in_script("[\"</x><!--&\u{2028}\"]"), "[\"\\u003c/x\\u003e\\u003c!--\\u0026\\u2028\"]");
    assert_eq!(page::fill("a{{x}}b{{y}}{{", |n| format!("<{n}{{{{x}}}}>")), "a<x{{x}}>b<y{{x}}>{{");
}

/// A name that the templates do not know would leave a hole without a word.
#[test]
fn every_place_in_the_template_is_filled() {
    let places: BTreeSet<&str> = include_str!("page.html")
        .split("{{")
        .skip(1)
        .filter_map(|p| p.split_once("}}"))
        .map(|(n, _)| n)
        .collect();
    let known = ["data", "groups", "log", "notes", "processes", "records", "script", "span", "style"];
    assert!(places.iter().copied().eq(known), "{places:?}");
}

#[test]
fn a_big_log_is_cut_and_says_so() {
    let mut model = Model::default();
    let begin: Timestamp = "2026-01-02T10:00:00Z".parse().expect("a time");
    let mut take = |n: u64, event| {
        model.take(begin + std::time::Duration::from_millis(n), &Record { boot_ns: n * 1_000_000, event });
    };
    for pid in 0..25_000_u32 {
        let group = "g".to_owned();
        let at = u64::from(pid);
        take(
            at,
            Event::Orphaned {
                group: group.clone(),
                proc: proc(pid + 2, "w"),
                lost: None,
                lineage: vec![],
                stray: true,
            },
        );
        for _ in 0..2 {
            take(at, Event::Busy { group: group.clone(), proc: proc(pid + 2, "w"), evidence: evidence("x") });
        }
        take(at, Event::Left { group, proc: proc(pid + 2, "w") });
    }
    for _ in 0..100 {
        take(30_000, Event::Busy { group: "g".into(), proc: proc(25_001, "w"), evidence: evidence("x") });
    }
    model.finish();
    assert_eq!(model.records, 100_100);
    let page = page(&model);
    assert!(page.len() < 8 << 20, "{} bytes", page.len());
    assert!(page.contains("24000 processes are not shown: 1000 are"), "{}", &page[..4000.min(page.len())]);
    assert!(page.contains("64 marks are not shown"), "of the one with 104");
    assert!(
        page.contains("<th scope=\"row\">g</th><td>0</td><td>0</td><td>25000</td>"),
        "the numbers count all"
    );
    let data = data(&page);
    let pids: Vec<_> =
        data["rows"].as_array().expect("rows").iter().filter_map(|r| r["pid"].as_u64()).collect();
    assert_eq!((pids.len(), pids.iter().min()), (1_000, Some(&24_002)), "the newest");
    assert!(
        data["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .all(|r| r["marks"].as_array().expect("marks").len() <= 40)
    );
}

/// A log of a story, and the arguments for a page beside it.
fn on_disk(dir: &Path) -> ReportArgs {
    let mut log = Vec::new();
    for (n, event) in (1..).zip(story("mails", "mailer")) {
        let ts = Timestamp::from_millisecond(1_767_348_000_000 + n * 100).expect("a time");
        let record = Record { boot_ns: 1_000_000_000 + n.unsigned_abs() * 100_000_000, event };
        crate::event_log::line::append(&mut log, n.unsigned_abs(), ts, &record).expect("a line");
    }
    fs::write(dir.join("events.jsonl"), log).expect("written");
    ReportArgs {
        log: Some(dir.join("events.jsonl")),
        config: None,
        since: None,
        out: dir.join("report.html"),
    }
}

fn run_it(args: &ReportArgs) -> anyhow::Result<(String, String)> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    run(args, PathBuf::from("/nonexistent"), &TimeZone::UTC, &mut out, &mut err)?;
    Ok((String::from_utf8(out)?, String::from_utf8(err)?))
}

#[test]
fn a_page_is_replaced_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = on_disk(dir.path());
    fs::write(&args.out, "old").expect("written");
    let (out, err) = run_it(&args).expect("it runs");
    assert_eq!((&*out, err.contains("9 records")), ("", true), "{err}");
    let page = fs::read_to_string(&args.out).expect("there");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "a whole page");
    assert_eq!(fs::metadata(&args.out).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 2, "nothing else is left");

    let (out, _) = run_it(&ReportArgs { out: PathBuf::from("-"), ..args.clone() }).expect("it runs");
    assert_eq!(out, page);
    let missing = ReportArgs { out: dir.path().join("no/report.html"), ..args };
    let error = format!("{:#}", run_it(&missing).expect_err("there is no such folder"));
    assert!(error.contains("cannot write the page") && error.contains("no/report.html"), "{error}");
}

#[test]
fn a_log_without_records_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = on_disk(dir.path());
    let later = ReportArgs { since: Some(Timestamp::now()), ..args.clone() };
    let error = run_it(&later).expect_err("nothing since").to_string();
    assert!(error.contains("no records since then"), "{error}");
    fs::write(dir.path().join("events.jsonl"), "nonsense\n").expect("written");
    assert!(run_it(&args).expect_err("nothing at all").to_string().contains("no records"));
    assert!(!args.out.exists(), "no page is better than an empty one");
}

#[test]
fn after_a_reboot_times_are_right_again() {
    let mut model = Model::default();
    let at = |text: &str| -> Timestamp { text.parse().expect("a time") };
    let found = |pid| Event::MasterFound { group: "g".into(), proc: proc(pid, "m") };
    let started = || Event::AgentStarted {
        version: String::new(),
        kernel: String::new(),
        config: String::new(),
        mode: String::new(),
    };
    model.take(at("2026-01-02T10:00:00Z"), &Record { boot_ns: 86_400_000_000_000, event: found(10) });
    model.take(at("2026-01-02T11:00:00Z"), &Record { boot_ns: 20_000_000_000, event: started() });
    model.take(at("2026-01-02T11:00:00Z"), &Record { boot_ns: 20_000_000_000, event: found(10) });
    model.finish();
    let starts: Vec<_> = model.rows.iter().map(|row| row.start).collect();
    assert_eq!(starts.len(), 2, "the same pid and start time after a reboot is another process");
    let apart = (24.0 * 3600.0 + 59.0 * 60.0 + 40.0) * 1_000.0;
    assert!((starts[1] - starts[0] - apart).abs() < 1.0, "{starts:?}");
}
