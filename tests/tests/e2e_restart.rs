//! End to end: the agent goes and another one comes. The kernel has kept recording meanwhile.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use reaper::agent::client;
use reaper::kernel::Pins;
use reaper_tests::agent::{Agent, binary, is_shot, run_to_end};
use reaper_tests::config::Config;
use reaper_tests::process::{PATIENCE, Proc, Signal};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, exec, fork, gate, note, twin, worker, worker_doing};

/// Births and deaths that 64 KiB hold a third of at most.
const MORE_THAN_FITS: usize = 800;

fn folder(config: &Config) -> PathBuf {
    Pins::of(&config.state).unwrap().folder().to_owned()
}

/// The folder of the wire version.
fn version(config: &Config) -> PathBuf {
    let mut entries = fs::read_dir(folder(config)).unwrap();
    let version = entries.next().unwrap().unwrap().path();
    assert!(entries.next().is_none(), "there is one");
    version
}

/// How many generations of programs are attached.
fn generations(config: &Config) -> usize {
    let entries = fs::read_dir(version(config)).unwrap().flatten();
    entries.filter(|entry| entry.path().is_dir()).count()
}

/// This agent knows who an orphan has lost and in which line, although it was not there.
#[track_caller]
fn assert_known(agent: &Agent, orphan: &Proc, line: &[&Proc], lost: &Proc) {
    let orphaned = agent.wait("orphaned", orphan);
    assert!(!orphaned.flag("stray") && orphaned.names("lost", lost), "{orphaned:?}");
    assert_eq!(orphaned.lineage(), line.iter().map(|p| i64::from(p.pid())).collect::<Vec<_>>());
    agent.wait_reaped(orphan);
}

#[test]
fn orphaned_while_no_agent_runs() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let agent = Agent::start(&scene, &config);
    let between = fork([exec("supervisor", [note("s"), worker("below"), Op::Forever])]);
    let master = scene.spawn("master", [worker("w"), between, gate("late"), worker("late"), Op::Forever]);
    let kept = scene.spawn("master", [worker("kept"), Op::Forever]);
    let (w, s, below, other) = (scene.proc("w"), scene.proc("s"), scene.proc("below"), scene.proc("kept"));
    agent.knows_master(&master);
    agent.knows_master(&kept);
    agent.crash();
    // One that no agent has ever seen alive with its master.
    scene.open_gate("late");
    let late = scene.proc("late");
    s.kill();
    master.kill();

    let agent = Agent::start(&scene, &config);
    let lost = agent.wait("master_lost", &master);
    assert_eq!((lost.text("signal"), lost.number("workers")), ("KILL", 3), "{lost:?}");
    let snapshot = agent.records().into_iter().rfind(|r| r.kind() == "snapshot").unwrap();
    assert!(lost.boot_ns() < snapshot.boot_ns(), "it died before the agent was back");
    assert_known(&agent, &w, &[&master], &master);
    assert_known(&agent, &late, &[&master], &master);
    assert_known(&agent, &below, &[&s, &master], &master);
    assert!(agent.find(|r| r.is("master_lost", &kept)).is_none());
    agent.assert_unharmed(300, &other);
    agent.assert_signalled(&[&w, &late, &below]);
    // Business as usual.
    kept.kill();
    assert_known(&agent, &other, &[&kept], &kept);
    agent.stop();
}

#[test]
fn orphaned_while_no_agent_runs_and_older_than_the_first_agent() {
    let scene = Scene::new();
    let config = Config::new(&scene).worker_matcher();
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    let agent = Agent::start(&scene, &config);
    agent.knows_master(&master);
    agent.crash();
    master.kill();
    let agent = Agent::start(&scene, &config);
    assert_known(&agent, &w, &[&master], &master);
    agent.stop();
}

/// Nobody has seen what their master was: they are known by their looks, as if there had been no agent before.
#[test]
fn born_and_orphaned_while_no_agent_runs() {
    let scene = Scene::new();
    let config = Config::new(&scene).worker_matcher();
    let agent = Agent::start(&scene, &config);
    let known = scene.spawn("master", [worker("known"), Op::Forever]);
    let safe = scene.proc("known");
    agent.knows_master(&known);
    agent.crash();
    let below = fork([exec("helper", [worker("below"), Op::Forever])]);
    let master = scene.spawn("master", [worker("w"), below, Op::Forever]);
    let (w, below) = (scene.proc("w"), scene.proc("below"));
    master.kill();
    let agent = Agent::start(&scene, &config);
    agent.wait_reaped(&w);
    agent.wait_reaped(&below);
    agent.assert_unharmed(300, &safe);
    agent.stop();
}

#[test]
fn the_ring_buffer_overflows_while_no_agent_runs() {
    let scene = Scene::new();
    let config = Config::new(&scene).agent("ring = \"64KiB\"");
    let agent = Agent::start(&scene, &config);
    let master = scene.spawn("master", [worker("w"), gate("late"), worker("late"), Op::Forever]);
    let w = scene.proc("w");
    agent.knows_master(&master);
    agent.crash();
    for _ in 0..MORE_THAN_FITS {
        assert!(Command::new("true").status().unwrap().success());
    }
    scene.open_gate("late");
    let late = scene.proc("late");
    master.kill();
    let agent = Agent::start(&scene, &config);
    let lost = agent.wait_for("events_lost", |r| r.kind() == "events_lost");
    assert!(lost.number("count") > 0, "{lost:?}");
    assert_known(&agent, &w, &[&master], &master);
    assert_known(&agent, &late, &[&master], &master);
    agent.assert_signalled(&[&w, &late]);
    agent.stop();
}

/// A daemon and the heir of an upgrade are no orphans to the next agent either.
#[test]
fn who_had_left_has_left() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let agent = Agent::start(&scene, &config);
    let daemon = exec("daemon", [Op::Setsid, fork([note("daemon"), Op::Forever]), Op::Exit(0)]);
    let master = scene.spawn("master", [worker("w"), fork([daemon]), Op::WaitChildren, Op::Forever]);
    let (w, daemon) = (scene.proc("w"), scene.proc("daemon"));
    agent.knows_master(&master);
    let told = agent.wait("spared", &daemon);
    assert_eq!(told.text("because"), "detached", "{told:?}");
    agent.crash();
    master.kill();
    let agent = Agent::start(&scene, &config);
    assert_known(&agent, &w, &[&master], &master);
    agent.assert_unharmed(1_500, &daemon);
    agent.assert_signalled(&[&w]);
    agent.stop();
}

#[test]
fn a_daemon_whose_parent_exits_while_no_agent_runs_is_an_heir() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let agent = Agent::start(&scene, &config);
    let child = fork([Op::Setsid, note("heir"), twin("w"), Op::Forever]);
    let master = scene.spawn("master", [gate("go"), child, gate("leave"), Op::Exit(0)]);
    agent.knows_master(&master);
    agent.crash();
    scene.open_gate("go");
    let (heir, w) = (scene.proc("heir"), scene.proc("w"));
    scene.open_gate("leave");
    assert!(master.wait_gone(PATIENCE));
    let agent = Agent::start(&scene, &config);
    agent.wait_for("a master", |r| ["master_found", "heir"].contains(&r.kind()) && r.about(&heir));
    agent.assert_unharmed(1_500, &heir);
    agent.assert_unharmed(100, &w);
    agent.assert_signalled(&[]);
    agent.stop();
}

#[test]
fn a_step_is_not_taken_twice() {
    let scene = Scene::new();
    let config = Config::new(&scene).stop("grace = \"4s\"");
    let agent = Agent::start(&scene, &config);
    let deaf = worker_doing(
        "w",
        [Op::OnTerm(vec![note("term")]), note("ready"), Op::Repeat(vec![Op::Sleep(60_000)])],
    );
    let master = scene.spawn("master", [deaf, Op::Forever]);
    let w = scene.proc("w");
    scene.entry("ready");
    agent.knows_master(&master);
    master.kill();
    scene.entry("term");
    let first = agent.wait_for("TERM", |r| is_shot(r) && r.about(&w));
    agent.crash();

    let agent = Agent::start(&scene, &config);
    let second = agent.wait_for("KILL", |r| is_shot(r) && r.about(&w) && r.text("signal") == "KILL");
    assert_eq!(second.number("step"), 1, "{second:?}");
    assert!(second.boot_ns() >= first.boot_ns() + 4_000_000_000, "{first:?} {second:?}");
    let reaped = agent.wait_reaped(&w);
    assert!(reaped.number("took_us") >= 4_000_000, "{reaped:?}");
    let records = agent.stop();
    let told = |kind: &str| records.iter().filter(|r| r.is(kind, &w)).count();
    assert_eq!((told("orphaned"), told("signal"), told("reaped")), (1, 2, 1), "{records:#?}");
    assert_eq!(scene.ledger().iter().filter(|e| e.event == "term").count(), 1);
}

#[test]
fn an_orphan_that_goes_while_no_agent_runs_is_told_of() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let agent = Agent::start(&scene, &config);
    let busy = worker_doing("w", [gate("job"), Op::Exit(0)]);
    let master = scene.spawn("master", [busy, worker("idle"), Op::Forever]);
    let (w, idle) = (scene.proc("w"), scene.proc("idle"));
    agent.knows_master(&master);
    idle.signal(Signal::STOP);
    master.kill();
    agent.wait("orphaned", &w);
    agent.wait("orphaned", &idle);
    agent.crash();
    idle.kill();
    let agent = Agent::start(&scene, &config);
    agent.wait_for("its end", |r| ["left", "reaped"].contains(&r.kind()) && r.about(&idle));
    agent.wait_reaped(&w);
    agent.stop();
}

/// Somebody else has asked it to stop while no agent ran: it is left to finish.
#[test]
fn asked_to_stop_while_no_agent_runs() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let agent = Agent::start(&scene, &config);
    let deaf = worker_doing(
        "w",
        [Op::OnTerm(vec![note("term")]), note("ready"), Op::Repeat(vec![Op::Sleep(60_000)])],
    );
    let master = scene.spawn("master", [deaf, Op::Forever]);
    let w = scene.proc("w");
    scene.entry("ready");
    agent.knows_master(&master);
    agent.crash();
    w.signal(Signal::TERM);
    scene.entry("term");
    master.kill();
    let agent = Agent::start(&scene, &config);
    let draining = agent.wait("draining", &w);
    assert_eq!(draining.text("signal"), "TERM", "{draining:?}");
    agent.assert_unharmed(1_000, &w);
    agent.assert_signalled(&[]);
    agent.stop();
}

#[test]
fn an_upgrade_keeps_what_was_armed_and_counted() {
    let scene = Scene::new();
    let config = Config::new(&scene).worker_matcher().stop("max_kills = 1");
    let mut agent = Agent::start(&scene, &config);
    let first = scene.spawn("master", [worker("w1"), Op::Forever]);
    let second = scene.spawn("master", [worker("w2"), Op::Forever]);
    let (w1, w2) = (scene.proc("w1"), scene.proc("w2"));
    agent.knows_master(&first);
    agent.knows_master(&second);
    first.kill();
    agent.wait_reaped(&w1);
    agent.keep_pins();
    agent.stop();
    second.kill();

    let agent = Agent::start(&scene, &config);
    let orphaned = agent.wait("orphaned", &w2);
    assert!(!orphaned.flag("stray"), "{orphaned:?}");
    agent.wait_for("breaker_open", |r| r.kind() == "breaker_open");
    agent.assert_unharmed(300, &w2);
    let status = client::status(&config.socket).unwrap().unwrap();
    assert!(status.groups[0].armed && status.groups[0].breaker_open, "{status:?}");
    agent.assert_signalled(&[&w1]);
    agent.stop();
}

/// One state directory belongs to one agent that runs: another one leaves what is pinned alone.
#[test]
fn a_second_agent_with_the_same_state_is_not_pinned() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let agent = Agent::start(&scene, &config);
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    agent.knows_master(&master);
    let mut second = Agent::start(&scene, &config.clone().named("second").observe());
    second.keep_pins();
    assert!(second.stderr().contains("not pinned"), "{}", second.stderr());
    assert_eq!(generations(&config), 1);
    second.stop();
    agent.crash();
    master.kill();
    let agent = Agent::start(&scene, &config);
    assert_known(&agent, &w, &[&master], &master);
    assert_eq!(generations(&config), 1, "the older one is gone");
    agent.stop();
}

#[test]
fn another_wire_version_is_a_fresh_start() {
    let scene = Scene::new();
    let config = Config::new(&scene).worker_matcher();
    let agent = Agent::start(&scene, &config);
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    agent.knows_master(&master);
    agent.crash();
    let folder = folder(&config);
    fs::rename(version(&config), folder.join("v1")).unwrap();
    master.kill();
    let agent = Agent::start(&scene, &config);
    assert!(agent.wait("orphaned", &w).flag("stray"));
    agent.wait_reaped(&w);
    assert!(agent.stderr().contains("v1"), "{}", agent.stderr());
    assert!(!folder.join("v1").exists());
    agent.stop();
}

#[test]
fn unpin_leaves_nothing() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let mut other = Config::new(&scene).named("other");
    other.state = scene.path("other");
    let (agent, mut neighbour) = (Agent::start(&scene, &config), Agent::start(&scene, &other));
    let folders = [folder(&config), folder(&other)];
    assert!(folders[0] != folders[1] && folders.iter().all(|f| f.exists()));
    agent.crash();
    let unpin = || {
        let mut command = Command::new(binary());
        command.args(["run", "--unpin", "--state"]).arg(&config.state);
        run_to_end(&scene, &mut command, PATIENCE)
    };
    let first = unpin();
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    assert!(first.stderr.contains(folders[0].to_str().unwrap()), "{first:?}");
    assert!(!folders[0].exists() && folders[1].exists());
    let again = unpin();
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    assert!(again.stderr.contains("nothing"), "{again:?}");

    // The neighbour has not noticed.
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    neighbour.knows_master(&master);
    neighbour.keep_pins();
    neighbour.crash();
    master.kill();
    let neighbour = Agent::start(&scene, &other);
    assert_known(&neighbour, &w, &[&master], &master);
    neighbour.stop();
    assert!(!folders[1].exists(), "the tests tidy up");
}

#[test]
fn doctor_names_what_nobody_will_go_on_with() {
    let scene = Scene::new();
    let mut config = Config::new(&scene);
    config.state = scene.path("an-old.state");
    let agent = Agent::start(&scene, &config);
    let pins = || {
        let mut command = Command::new(binary());
        command.args(["doctor", "--output", "json", "--socket"]).arg(scene.path("nobody.sock"));
        let outcome = run_to_end(&scene, &mut command, PATIENCE);
        let line = outcome.stdout.lines().find(|line| line.contains("\"pins\"")).unwrap().to_owned();
        (line.contains(config.state.to_str().unwrap()), line)
    };
    agent.crash();
    let (named, line) = pins();
    assert!(!named, "an agent may come back to its state: {line}");
    fs::remove_dir_all(&config.state).unwrap();
    let (named, line) = pins();
    assert!(named && line.contains("warning") && line.contains("--unpin"), "{line}");
    let mut unpin = Command::new(binary());
    unpin.args(["run", "--unpin", "--state"]).arg(&config.state);
    assert_eq!(run_to_end(&scene, &mut unpin, PATIENCE).status.code(), Some(0));
    assert!(!pins().0);
}
