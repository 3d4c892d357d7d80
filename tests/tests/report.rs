//! The page about a real agent's log, opened by a real browser.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a broken assumption is a failure")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use reaper_tests::agent::{Agent, binary, run_to_end};
use reaper_tests::browser::{SLOW, browse, picture};
use reaper_tests::config::Config;
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, worker, worker_doing};

/// Runs `reaper report` and returns the page.
#[track_caller]
fn report(scene: &Scene, log: &Path) -> PathBuf {
    let page = scene.path("report.html");
    let mut command = Command::new(binary());
    command.arg("report").arg(log).arg("-o").arg(&page);
    let outcome = run_to_end(scene, &mut command, SLOW);
    assert_eq!(outcome.status.code(), Some(0), "{outcome:#?}");
    page
}

/// The number of processes that the script has drawn.
#[track_caller]
fn drawn(dom: &str) -> usize {
    let (_, rest) = dom
        .split_once("data-drawn=\"")
        .unwrap_or_else(|| panic!("the script did not come to its end: {dom}"));
    rest.split_once('"').unwrap().0.parse().unwrap()
}

/// An agent's log of one master's death, births and deaths included.
fn a_log(scene: &Scene) -> PathBuf {
    let config = Config::new(scene).agent("log_level = \"lineage\"");
    let agent = Agent::start(scene, &config);
    let busy = worker_doing("busy", [Op::Busy(1_000), Op::Forever]);
    let master = scene.spawn("master", [worker("idle"), busy, Op::Forever]);
    let orphans = [scene.proc("idle"), scene.proc("busy")];
    agent.knows_master(&master);
    master.kill();
    for orphan in &orphans {
        agent.wait_reaped(orphan);
    }
    agent.stop();
    config.log
}

#[test]
fn a_browser_draws_it() {
    let scene = Scene::new();
    let page = report(&scene, &a_log(&scene));
    let dom = browse(&scene, &page, &["--dump-dom"]).stdout;
    assert_eq!(drawn(&dom), 3, "a master and two workers: {dom}");
    for part in [
        "class=\"bar master\"",
        "class=\"bar orphan\"",
        "class=\"mark signal\"",
        "signal sent at",
        "TERM (step 0)",
    ] {
        assert!(dom.contains(part), "{part} was not drawn: {dom}");
    }
    let image = scene.path("page.png");
    picture(&scene, &page, &image, (1200, 900));
}

/// Names are whatever a process calls itself.
#[test]
fn hostile_names_do_nothing() {
    let scene = Scene::new();
    let log = a_log(&scene);
    let hostile = r#"</script><img src=x onerror=document.title='owned'><!--\u2028'\"&"#;
    let text =
        fs::read_to_string(&log).unwrap().replace("\"comm\":\"actor\"", &format!("\"comm\":\"{hostile}\""));
    assert!(text.contains("owned"));
    fs::write(&log, text).unwrap();
    let dom = browse(&scene, &report(&scene, &log), &["--dump-dom"]).stdout;
    assert_eq!(drawn(&dom), 3);
    assert!(!dom.contains("<img") && !dom.contains("<title>owned"), "{dom}");
    assert!(dom.contains("&lt;img src=x onerror"), "it is shown as it is: {dom}");
}

#[test]
fn a_hundred_thousand_records_are_drawn_in_part() {
    let scene = Scene::new();
    let log = scene.path("big.jsonl");
    let mut text = String::new();
    let evidence = r#""evidence":{"verdict":"busy","because":"thread 7 runs","threads":[],"cpu_us":0,"children":0,"quiet_us":0}"#;
    for n in 0..25_000_u64 {
        let (boot, pid) = (n * 1_000_000, n + 100);
        let proc = format!(
            r#""proc":{{"pid":{pid},"start_ns":{boot},"ppid":1,"uid":0,"comm":"worker","exe":"/bin/w","argv":["w","{n}"]}}"#
        );
        for (k, rest) in [
            ("orphaned", r#","lost":null,"lineage":[],"stray":true"#.to_owned()),
            ("busy", format!(",{evidence}")),
            ("idle", format!(",{evidence}")),
            ("left", String::new()),
        ]
        .into_iter()
        .enumerate()
        .map(|(k, kind)| (k as u64, kind))
        .map(|(k, (kind, rest))| (k, format!(r#""kind":"{kind}","group":"g",{proc}{rest}"#)))
        {
            let (minute, second, ms) = (n / 60_000, n / 1_000 % 60, n % 1_000);
            writeln!(
                text,
                r#"{{"v":1,"seq":{},"ts":"2026-01-02T10:{minute:02}:{second:02}.{ms:03}000000Z","boot_ns":{},{rest}}}"#,
                n * 4 + k + 1,
                boot + k * 1_000
            )
            .unwrap();
        }
    }
    fs::write(&log, text).unwrap();
    let page = report(&scene, &log);
    let size = fs::metadata(&page).unwrap().len();
    assert!(size < 8 << 20, "{size} bytes");
    let dom = browse(&scene, &page, &["--dump-dom"]).stdout;
    assert_eq!(drawn(&dom), 1_000);
    assert!(dom.contains("24000 processes are not shown"), "and that is said");
}
