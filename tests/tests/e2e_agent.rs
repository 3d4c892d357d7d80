//! End to end: the agent itself: its log, its reload, its start and its end.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use std::fs;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use reaper_tests::agent::{Agent, run_command};
use reaper_tests::config::Config;
use reaper_tests::log::{self, Record};
use reaper_tests::process::{PATIENCE, Proc, Signal};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, note, twin, worker, worker_doing};

/// A fresh master loses its worker: does this agent stop it?
fn stops_an_orphan(scene: &Scene, agent: &Agent, name: &str) {
    let master = scene.spawn("master", [worker(name), Op::Forever]);
    let w = scene.proc(name);
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&w);
}

#[test]
fn starts_and_stops() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let snapshot = agent.wait_for("snapshot", |r| r.kind() == "snapshot");
    assert!(snapshot.number("processes") > 2, "{snapshot:?}");
    // Whoever starts it by hand is told what it does and where to look.
    let said = agent.stderr();
    for word in ["enforces in 1 of its groups", "agent.toml", "agent.jsonl", "agent.sock"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let records = agent.stop();
    let first = &records[0];
    assert_eq!((first.kind(), first.seq()), ("agent_started", 1), "{first:?}");
    assert_eq!(first.text("config"), scene.path("agent.toml").to_str().unwrap());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(first.text("kernel"), kernel.trim());
    let socket_left = scene.path("agent.sock").exists();
    assert!(!socket_left, "a clean stop takes its socket with it");
}

#[test]
fn an_interrupt_is_a_clean_stop() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    agent.process().signal(Signal::INT);
    assert!(agent.process().wait_gone(PATIENCE));
    assert_eq!(log::read(&scene.path("agent.jsonl")).last().unwrap().kind(), "agent_stopped");
}

#[test]
fn the_service_manager_is_told() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let mut command = run_command(&scene, &config, &[]);
    command.env("WATCHDOG_USEC", "300000");
    let agent = Agent::launch(&scene, &config, command);
    let count = |told: &[String], what: &str| told.iter().filter(|line| *line == what).count();
    agent.wait_told("that the loop turns", |told| count(told, "WATCHDOG=1") >= 3);
    assert!(agent.told().contains(&"STATUS=enforce, groups: 1".to_owned()), "{:?}", agent.told());

    // Whatever came of the reload, it is over.
    let file = scene.path("agent.toml");
    let good = fs::read_to_string(&file).unwrap();
    for (number, text) in [(2, "group = 1\n"), (3, good.as_str())] {
        fs::write(&file, text).unwrap();
        agent.reload();
        agent.wait_told("READY after a reload", |told| count(told, "READY=1") == number);
        let told = agent.told();
        assert_eq!(count(&told, "RELOADING=1"), number - 1, "{told:?}");
        let last = told.iter().rposition(|line| line == "RELOADING=1").unwrap();
        assert!(told[last + 1].starts_with("MONOTONIC_USEC="), "{told:?}");
        assert!(count(&told[last..], "READY=1") == 1, "{told:?}");
    }
    assert_eq!(agent.records().iter().filter(|r| r.kind() == "config_rejected").count(), 1);
    agent.process().signal(Signal::TERM);
    assert!(agent.process().wait_gone(PATIENCE));
    assert_eq!(agent.told().last().unwrap(), "STOPPING=1");
}

#[test]
fn arguments_override_the_configuration() {
    let scene = Scene::new();
    let written = Config::new(&scene);
    let meant = written.clone().named("given");
    let [log, socket] = [&meant.log, &meant.socket].map(|p| p.to_str().unwrap());
    let command = run_command(&scene, &written, &["--log", log, "--socket", socket]);
    let agent = Agent::launch(&scene, &meant, command);
    assert!(meant.socket.exists() && !written.socket.exists());
    stops_an_orphan(&scene, &agent, "w");
    agent.stop();
    assert!(!written.log.exists());
}

/// The records of one orphan, in their order.
fn story<'a>(records: &'a [Record], who: &Proc) -> Vec<&'a str> {
    records.iter().filter(|r| r.about(who)).map(Record::kind).collect()
}

#[test]
fn each_orphan_has_its_story_in_order() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let busy = worker_doing("busy", [Op::BusyUntil("job ends".into()), Op::Forever]);
    let master = scene.spawn("master", [worker("idle"), busy, Op::Forever]);
    let (idle, busy) = (scene.proc("idle"), scene.proc("busy"));
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&idle);
    agent.wait("busy", &busy);
    scene.open_gate("job ends");
    agent.wait_reaped(&busy);
    let records = agent.stop();
    assert_eq!(story(&records, &idle), ["orphaned", "idle", "signal", "reaped"]);
    assert_eq!(story(&records, &busy), ["orphaned", "busy", "idle", "signal", "reaped"]);
    assert_eq!(story(&records, &master), ["master_found", "master_lost"]);
}

#[test]
fn a_signal_is_explained_by_its_record() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&w);
    let signal = agent.wait("signal", &w);
    let reaped = agent.wait("reaped", &w);
    assert_eq!((signal.text("group"), signal.text("signal"), signal.number("step")), ("g", "TERM", 0));
    assert!(signal.flag("verified") && !signal.flag("dry_run"), "{signal:?}");
    assert_eq!(signal.text("/evidence/verdict"), "idle");
    assert_eq!(signal.thread_states(), ["t"], "held still for the last look");
    assert_eq!(signal.number("/evidence/children"), 0);
    assert!(signal.number("/evidence/quiet_us") >= 100_000, "{signal:?}");
    assert!(signal.number("since_orphan_us") >= 100_000, "{signal:?}");
    assert!(signal.number("since_idle_us") <= signal.number("since_orphan_us"), "{signal:?}");
    assert!(reaped.number("took_us") >= signal.number("since_orphan_us"), "{reaped:?}");

    let argv: Vec<_> =
        signal.get("/proc/argv").unwrap().as_array().unwrap().iter().flat_map(|a| a.as_str()).collect();
    assert_eq!(argv[1..], ["worker", scene.token()]);
    assert_eq!((signal.text("/proc/comm"), signal.number("/proc/uid")), ("actor", 0), "{signal:?}");
    assert!(signal.text("/proc/exe").ends_with("/actor"), "{signal:?}");
    agent.stop();
}

/// Whoever is debugged cannot be held still by another: it is looked at once more and signalled, and the record says so.
#[test]
fn a_signal_to_a_traced_worker_is_not_verified() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    agent.knows_master(&master);
    let traced = Pid::from_raw(w.pid());
    ptrace::seize(traced, ptrace::Options::empty()).unwrap();
    master.kill();
    let signal = agent.wait("signal", &w);
    assert!(!signal.flag("verified") && !signal.flag("dry_run"), "{signal:?}");
    assert_eq!(signal.thread_states(), ["S"], "it ran on");
    let stop = waitpid(traced, Some(WaitPidFlag::__WALL)).unwrap();
    assert_eq!(stop, WaitStatus::Stopped(traced, nix::sys::signal::Signal::SIGTERM));
    ptrace::detach(traced, nix::sys::signal::Signal::SIGTERM).unwrap();
    agent.wait_reaped(&w);
    agent.assert_signalled(&[&w]);
    agent.stop();
}

/// The worker itself looks into the log when the signal comes: why it was sent is there already.
#[test]
fn a_signal_is_on_disk_before_it_is_sent() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let on_term = Op::OnTerm(vec![Op::Copy("agent.jsonl".into(), "seen".into()), Op::Exit(0)]);
    let master =
        scene.spawn("master", [worker_doing("w", [on_term, note("polite"), Op::Forever]), Op::Forever]);
    let w = scene.proc("w");
    scene.entry("polite");
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&w);
    let seen = log::read(&scene.path("seen"));
    assert!(seen.iter().any(|r| r.is("signal", &w)), "{seen:#?}");
    agent.stop();
}

#[test]
fn lineage_is_in_the_log_when_asked_for() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).agent("log_level = \"lineage\""));
    let w = worker_doing("w", [Op::Busy(800), Op::Forever]);
    let master = scene.spawn("master", [w, twin("w2"), Op::Forever]);
    let (w, w2) = (scene.proc("w"), scene.proc("w2"));
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&w);
    agent.wait_reaped(&w2);
    let fork = agent.wait("fork", &w);
    assert!(fork.names("parent", &master), "{fork:?}");
    agent.wait("exec", &w);
    let reparent = agent.wait("reparent", &w);
    assert!(reparent.names("old_parent", &master), "{reparent:?}");
    let exit = agent.wait("exit", &w);
    assert_eq!((exit.text("signal"), exit.get("code").unwrap().is_null()), ("TERM", true), "{exit:?}");
    let records = agent.stop();
    let about_others = |r: &&Record| {
        ["fork", "exec"].contains(&r.kind())
            && !format!("{r:?}").contains(scene.token())
            && !r.names("parent", &master)
    };
    assert_eq!(records.iter().find(about_others), None, "nobody asked about other processes");
}

#[test]
fn a_good_configuration_replaces_the_old_one() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).observe());
    let master = scene.spawn("master", [worker("first"), Op::Forever]);
    let first = scene.proc("first");
    agent.knows_master(&master);
    master.kill();
    agent.wait("spared", &first);

    let before = agent.records().len();
    run_command(&scene, &Config::new(&scene), &[]);
    agent.reload();
    let fits = |r: &Record| r.kind() == "config_loaded" && r.seq() > u64::try_from(before).unwrap();
    let loaded = agent.wait_for("config_loaded", fits);
    assert_eq!(loaded.text("file"), scene.path("agent.toml").to_str().unwrap());
    assert_eq!(loaded.get("groups").unwrap().to_string(), "[\"g\"]");
    stops_an_orphan(&scene, &agent, "second");
    agent.stop();
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let file = scene.path("agent.toml");
    for (name, text) in [
        ("malformed", "[agent\n".to_owned()),
        ("unknown-key", Config::new(&scene).more("sudden = true").text()),
        ("bad-regex", Config::new(&scene).observe().text().replace("\\bmaster", "(master")),
    ] {
        fs::write(&file, text).unwrap();
        let before = agent.records().last().unwrap().seq();
        agent.reload();
        let rejected = agent.wait_for(name, |r| r.kind() == "config_rejected" && r.seq() > before);
        assert_eq!(rejected.text("file"), file.to_str().unwrap(), "{rejected:?}");
        let errors = rejected.get("errors").unwrap().as_array().unwrap();
        assert!(!errors.is_empty(), "{rejected:?}");
        stops_an_orphan(&scene, &agent, name);
    }
    fs::remove_file(&file).unwrap();
    let before = agent.records().last().unwrap().seq();
    agent.reload();
    agent.wait_for("rejected: no file", |r| r.kind() == "config_rejected" && r.seq() > before);
    stops_an_orphan(&scene, &agent, "no-file");
    agent.stop();
}

/// What a crashed agent leaves (its socket, its state, half a log) does not hinder the next one.
#[test]
fn starts_again_after_a_crash() {
    let scene = Scene::new();
    let config = Config::new(&scene).worker_matcher();
    let first = Agent::start(&scene, &config);
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    first.knows_master(&master);
    first.crash();
    assert!(config.socket.exists());
    master.kill();

    let second = Agent::start(&scene, &config);
    assert!(!second.wait("orphaned", &w).flag("stray"));
    second.wait_reaped(&w);
    let starts = second.stop().iter().filter(|r| r.kind() == "agent_started").count();
    assert_eq!(starts, 2, "the log of the first is still there");
}
