//! `reaper demo`: the main job, proved with processes of its own, of which none is left.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "in a test a broken assumption is a failure")]

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use procfs::process::all_processes;
use reaper_tests::agent::{Outcome, binary, run_to_end};
use reaper_tests::log::{self, Record};
use reaper_tests::process::comes_true;
use reaper_tests::scene::Scene;

/// Inherited by everything that a demo starts.
const MARK: &str = "REAPER_TESTS_DEMO";

/// Runs a demo from a copy of the binary, so that whatever it leaves behind is known by its executable or by its
/// environment.
fn demo(scene: &Scene, args: &[&str]) -> Outcome {
    let copy = scene.path("reaper-under-test");
    fs::copy(binary(), &copy).unwrap();
    let mut command = Command::new(&copy);
    command.arg("demo").args(args).env(MARK, scene.token());
    let outcome = run_to_end(scene, &mut command, Duration::from_secs(60));
    assert_eq!(outcome.status.code(), Some(0), "{outcome:#?}");
    // Under 10 s on a quiet machine; on others the time says nothing about the demo.
    println!("the demo took {:.1?}", outcome.took);
    // Killed and not yet waited for is gone soon enough.
    comes_true(Duration::from_secs(1), || left_behind(scene, &copy).is_empty());
    assert_eq!(left_behind(scene, &copy), Vec::<String>::new(), "{outcome:#?}");
    outcome
}

fn left_behind(scene: &Scene, exe: &Path) -> Vec<String> {
    let is_of_demo = |p: &procfs::process::Process| {
        p.exe().is_ok_and(|of| of == exe)
            || p.environ()
                .is_ok_and(|env| env.get(OsStr::new(MARK)).is_some_and(|mark| mark == scene.token()))
    };
    let all = all_processes().unwrap().flatten();
    all.filter(is_of_demo).map(|p| format!("{} {:?}", p.pid, p.cmdline())).collect()
}

/// What the demo claims, from its records.
#[track_caller]
fn assert_claim(records: &[Record]) {
    log::assert_well_formed(records);
    let count = |kind: &str| records.iter().filter(|r| r.kind() == kind).count();
    assert!(count("master_lost") >= 1, "{records:#?}");
    assert!(count("orphaned") >= 2, "an idle and a busy one: {records:#?}");
    assert!(count("busy") >= 1, "{records:#?}");
    assert!(count("idle") >= 2, "{records:#?}");
    assert!(count("signal") >= 2, "{records:#?}");
    assert!(count("reaped") >= 2, "{records:#?}");
    // Nobody but orphans was signalled.
    let pid = |r: &Record| r.number("/proc/pid");
    for signal in records.iter().filter(|r| r.kind() == "signal") {
        assert_eq!(signal.text("/evidence/verdict"), "idle", "{signal:?}");
        assert!(records.iter().any(|r| r.kind() == "orphaned" && pid(r) == pid(signal)), "{signal:?}");
    }
}

#[test]
fn shows_the_records_and_leaves_nobody() {
    let scene = Scene::new();
    let outcome = demo(&scene, &[]);
    for kind in ["orphaned", "busy", "signal", "reaped"] {
        assert!(outcome.stdout.contains(kind), "does not show {kind}: {outcome:#?}");
    }
    assert!(!outcome.stdout.contains('\u{1b}'), "no colours into a file: {outcome:#?}");
}

#[test]
fn writes_the_records_to_a_file() {
    let scene = Scene::new();
    let file = scene.path("demo.jsonl");
    demo(&scene, &["--log", file.to_str().unwrap()]);
    assert_claim(&log::read(&file));
}

#[test]
fn writes_the_records_to_stdout() {
    let scene = Scene::new();
    let outcome = demo(&scene, &["--log", "-"]);
    // What a person reads, and the demo's own verdict, may stand between them.
    let records: String = outcome.stdout.split_inclusive('\n').filter(|l| l.starts_with("{\"v\":")).collect();
    assert_claim(&log::parse(&records));
}

/// Without the means to do it, it says so and changes nothing: 2, it could not run.
#[test]
fn needs_root() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let scene = Scene::new();
    let copy = scene.path("reaper-under-test");
    fs::copy(binary(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&copy);
    command.arg("demo").env(MARK, scene.token()).uid(65534).gid(65534);
    let outcome = run_to_end(&scene, &mut command, Duration::from_secs(10));
    assert_eq!(outcome.status.code(), Some(2), "{outcome:#?}");
    assert!(!outcome.stderr.is_empty() && !outcome.stderr.contains("panicked"), "{outcome:#?}");
    assert_eq!(left_behind(&scene, &copy), Vec::<String>::new());
}
