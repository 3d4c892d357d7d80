//! What a real agent recorded is decided the same way again, and by other rules differently.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a broken assumption is a failure")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reaper_tests::agent::{Agent, Outcome, binary, run_command, run_to_end};
use reaper_tests::config::Config;
use reaper_tests::log::{self, Record};
use reaper_tests::process::PATIENCE;
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, twin, worker, worker_doing};

/// A replay reads tens of megabytes on a machine that does much else.
const SLOW: Duration = Duration::from_secs(120);

#[track_caller]
fn replay(scene: &Scene, log: &Path, config: &Path, args: &[&str]) -> Outcome {
    let mut command = Command::new(binary());
    command.arg("replay").arg(log).arg("--config").arg(config).args(args);
    let outcome = run_to_end(scene, &mut command, SLOW);
    assert_eq!(outcome.status.code(), Some(0), "{outcome:#?}");
    outcome
}

/// An idle, a busy and a twin worker lose their master, and another group of processes does not.
fn play(scene: &Scene, agent: &Agent) {
    let busy = worker_doing("busy", [Op::BusyUntil("job ends".into()), Op::Forever]);
    let master = scene.spawn("master", [worker("idle"), busy, twin("twin"), Op::Forever]);
    let other = scene.spawn("master", [worker("other"), Op::Forever]);
    let orphans = [scene.proc("idle"), scene.proc("busy"), scene.proc("twin")];
    scene.proc("other");
    agent.knows_master(&master);
    agent.knows_master(&other);
    master.kill();
    agent.wait("busy", &orphans[1]);
    scene.open_gate("job ends");
    for orphan in &orphans {
        agent.wait_reaped(orphan);
    }
}

/// Decisions by kind and process. What was decided does not depend on the moment of a look.
fn decisions(records: &[Record]) -> BTreeMap<(String, u64), usize> {
    let kinds =
        ["master_found", "master_lost", "orphaned", "busy", "idle", "signal", "reaped", "left", "spared"];
    let mut decided = BTreeMap::new();
    for record in records.iter().filter(|r| kinds.contains(&r.kind())) {
        *decided.entry((record.kind().to_owned(), record.number("/proc/pid"))).or_default() += 1;
    }
    decided
}

#[test]
fn a_recording_is_decided_the_same_way_again() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let recording = scene.path("recording.jsonl");
    let agent = Agent::start_with(&scene, &config, &["--record", recording.to_str().unwrap()]);
    play(&scene, &agent);
    let written = agent.stop();
    let file = scene.path("agent.toml");
    let again = replay(&scene, &recording, &file, &[]);
    assert!(again.stdout.contains("The same decisions as recorded."), "{again:#?}");
    let json = replay(&scene, &recording, &file, &["--output", "json"]);
    let records = log::parse(&json.stdout);
    assert_eq!(decisions(&records), decisions(&written));
    // To the nanosecond: the very same inputs went in.
    let times = |records: &[Record]| {
        let told = records.iter().filter(|r| ["orphaned", "signal", "reaped"].contains(&r.kind()));
        told.map(|r| (r.kind().to_owned(), r.number("/proc/pid"), r.boot_ns())).collect::<Vec<_>>()
    };
    let (mut here, mut there) = (times(&records), times(&written));
    here.sort();
    there.sort();
    assert_eq!(here, there);
    assert!(records.iter().filter(|r| r.kind() == "signal").all(|r| r.flag("dry_run")), "would be");
}

#[test]
fn other_rules_decide_otherwise() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let recording = scene.path("recording.jsonl");
    let agent = Agent::start_with(&scene, &config, &["--record", recording.to_str().unwrap()]);
    play(&scene, &agent);
    agent.stop();
    let other = scene.path("other.toml");
    for (text, wanted) in [
        (config.clone().quiet("30s").text(), "what came after is not in the recording"),
        (config.clone().observe().text(), "would get TERM if its group enforced"),
        (config.text().replace("\\bmaster", "\\bnobody"), "was a master of g, here it is no master"),
        (config.clone().stop("signals = [\"INT\"]").text(), "here INT after"),
        (config.clone().stop("max_kills = 1").text(), "spared: breaker"),
    ] {
        fs::write(&other, text).unwrap();
        let outcome = replay(&scene, &recording, &other, &[]);
        assert!(outcome.stdout.contains(wanted), "{wanted}: {outcome:#?}");
    }
}

#[test]
fn an_event_log_of_everything_leads_to_the_same_decisions() {
    let scene = Scene::new();
    let config = Config::new(&scene).agent("log_level = \"all\"");
    let agent = Agent::start(&scene, &config);
    // Somebody whom no group has to do with: on a machine where nothing else happens, two log levels say the same.
    assert!(Command::new("true").status().unwrap().success());
    play(&scene, &agent);
    let written = agent.stop();
    let outcome = replay(&scene, &config.log, &scene.path("agent.toml"), &["--output", "json"]);
    assert!(outcome.stderr.contains("log_level = \"all\""), "{outcome:#?}");
    let fates = |records: &[Record]| {
        let told = records.iter().filter(|r| ["orphaned", "signal", "reaped"].contains(&r.kind()));
        let mut told: Vec<_> = told.map(|r| (r.kind().to_owned(), r.number("/proc/pid"))).collect();
        told.sort();
        told
    };
    assert_eq!(fates(&log::parse(&outcome.stdout)), fates(&written), "{}", outcome.stderr);
}

#[test]
fn a_recording_ends_at_its_limit_and_the_agent_goes_on() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let recording = scene.path("recording.jsonl");
    let args = ["--record", recording.to_str().unwrap(), "--record-limit", "16kB"];
    let agent = Agent::start_with(&scene, &config, &args);
    play(&scene, &agent);
    assert!(agent.stderr().contains("is full and ends here"), "{}", agent.stderr());
    agent.stop();
    assert!(fs::metadata(&recording).unwrap().len() < 17_000);
    let outcome = replay(&scene, &recording, &scene.path("agent.toml"), &[]);
    assert!(outcome.stderr.contains("the recording was full at 16000 bytes"), "{outcome:#?}");
}

#[test]
fn a_recording_is_never_overwritten() {
    let scene = Scene::new();
    let recording = scene.path("recording.jsonl");
    fs::write(&recording, "mine").unwrap();
    let args = ["--record", recording.to_str().unwrap()];
    let outcome = run_to_end(&scene, &mut run_command(&scene, &Config::new(&scene), &args), PATIENCE);
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("exists"), "{outcome:?}");
    assert_eq!(fs::read_to_string(&recording).unwrap(), "mine");
}
