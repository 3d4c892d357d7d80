//! End to end: whom a group does not touch (rules 1, 5, 6 and 7 of the design), and strays.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use reaper_tests::agent::{Agent, is_shot, run_command};
use reaper_tests::config::Config;
use reaper_tests::process::{PATIENCE, Proc, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, exec, fork, gate, note, worker, worker_doing};

/// A worker whose master nobody has seen: it was orphaned before there was an agent.
fn stray(scene: &Scene) -> Proc {
    let start = scene.spawn("start", [worker("stray"), gate("start-exits")]);
    let stray = scene.proc("stray");
    scene.open_gate("start-exits");
    assert!(start.wait_gone(PATIENCE));
    wait_until("reparenting", || stray.stat().is_some_and(|stat| stat.ppid != start.pid()));
    stray
}

/// A master that runs under another user, as a service manager starts it.
fn as_nobody(scene: &Scene, name: &str) -> (Proc, Proc) {
    let master = exec("master", [worker(name), Op::Forever]);
    let master = scene.spawn("start", [Op::User("nobody".into()), master]);
    (master, scene.proc(name))
}

#[test]
fn processes_of_another_user_are_not_meant() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).user("nobody"));
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    // The agent has seen them when it has seen those that came later.
    let (nobodys, nobodys_w) = as_nobody(&scene, "nobodys-w");
    agent.knows_master(&nobodys);
    master.kill();
    nobodys.kill();
    agent.wait_reaped(&nobodys_w);
    agent.assert_unharmed(300, &w);
    assert_eq!(agent.find(|r| r.about(&w) || r.about(&master)), None);
    agent.assert_signalled(&[&nobodys_w]);
    agent.stop();
}

#[test]
fn processes_of_the_groups_user_are() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).user("nobody"));
    let (master, w) = as_nobody(&scene, "w");
    agent.knows_master(&master);
    master.kill();
    assert_eq!(agent.wait("orphaned", &w).number("/proc/uid"), 65534);
    agent.wait_reaped(&w);
    agent.stop();
}

#[test]
fn strays_of_an_unarmed_group_are_reported_only() {
    let scene = Scene::new();
    let stray = stray(&scene);
    let agent = Agent::start(&scene, &Config::new(&scene).worker_matcher());
    let orphaned = agent.wait("orphaned", &stray);
    assert!(orphaned.flag("stray"), "{orphaned:?}");
    assert_eq!(agent.wait("spared", &stray).text("because"), "unarmed");
    agent.assert_unharmed(700, &stray);
    agent.assert_signalled(&[]);
    agent.stop();
}

#[test]
fn strays_of_an_armed_group_are_stopped() {
    let scene = Scene::new();
    let stray = stray(&scene);
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    let agent = Agent::start(&scene, &Config::new(&scene).worker_matcher());
    agent.knows_master(&master);
    let orphaned = agent.wait("orphaned", &stray);
    assert!(orphaned.flag("stray") && orphaned.get("lost").unwrap().is_null(), "{orphaned:?}");
    agent.wait_reaped(&stray);
    agent.assert_unharmed(200, &w);
    agent.assert_unharmed(0, &master);
    agent.assert_signalled(&[&stray]);
    agent.stop();
}

/// Only a worker matcher tells a stray from anybody else.
#[test]
fn a_group_without_a_worker_matcher_has_no_strays() {
    let scene = Scene::new();
    let stray = stray(&scene);
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    let agent = Agent::start(&scene, &Config::new(&scene));
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&w);
    agent.assert_unharmed(300, &stray);
    assert_eq!(agent.find(|r| r.about(&stray)), None);
    agent.stop();
}

#[test]
fn a_group_stays_armed_over_a_restart_of_the_agent() {
    let scene = Scene::new();
    let config = Config::new(&scene).worker_matcher();
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    let first = Agent::start(&scene, &config);
    first.knows_master(&master);
    first.stop();
    master.kill();
    wait_until("reparenting", || w.stat().is_some_and(|stat| stat.ppid != master.pid()));

    let second = Agent::start(&scene, &config.named("second"));
    assert!(second.wait("orphaned", &w).flag("stray"));
    second.wait_reaped(&w);
    second.assert_signalled(&[&w]);
    second.stop();
}

/// And it is the state directory that remembers.
#[test]
fn a_new_state_directory_knows_of_no_arming() {
    let scene = Scene::new();
    let config = Config::new(&scene).worker_matcher();
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    let first = Agent::start(&scene, &config);
    first.knows_master(&master);
    first.stop();
    master.kill();
    let mut elsewhere = config.named("second");
    elsewhere.state = scene.path("other-state");
    let second = Agent::start(&scene, &elsewhere);
    assert_eq!(second.wait("spared", &w).text("because"), "unarmed");
    second.assert_unharmed(500, &w);
    second.stop();
}

#[test]
fn the_breaker_stops_a_massacre() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).stop("max_kills = 2\nwindow = \"1m\""));
    let names = ["w1", "w2", "w3", "w4", "w5"];
    let mut program: Vec<_> = names.into_iter().map(worker).collect();
    program.push(Op::Forever);
    let master = scene.spawn("master", program);
    let workers = names.map(|name| scene.proc(name));
    agent.knows_master(&master);
    master.kill();

    let open = agent.wait_for("breaker_open", |r| r.kind() == "breaker_open");
    assert_eq!((open.text("group"), open.number("kills")), ("g", 2), "{open:?}");
    let spared = |w: &&Proc| agent.find(|r| r.is("spared", w) && r.text("because") == "breaker").is_some();
    wait_until("three spared", || workers.iter().filter(spared).count() == 3);
    let (spared, shot): (Vec<_>, Vec<_>) = workers.iter().partition(spared);
    agent.assert_never(700, "a third signal", |r| is_shot(r) && spared.iter().any(|w| r.about(w)));
    assert!(spared.iter().all(|w| w.is_alive()));
    agent.assert_signalled(&shot);
    agent.stop();
}

#[test]
fn a_protected_name_is_never_signalled() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).agent("protect = [\"keep-*\"]"));
    let protected = worker_doing("protected", [Op::Comm("keep-me".into()), note("named"), Op::Forever]);
    let master = scene.spawn("master", [protected, worker("w"), Op::Forever]);
    let (protected, w) = (scene.proc("protected"), scene.proc("w"));
    scene.entry("named");
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&w);
    assert_eq!(agent.wait("spared", &protected).text("because"), "protected");
    agent.assert_unharmed(500, &protected);
    agent.assert_signalled(&[&w]);
    agent.stop();
}

#[test]
fn a_child_that_is_the_job_is_watched_only() {
    let scene = Scene::new();
    let job_children = format!("job_children = ['\\bjob {}$']", scene.token());
    let agent = Agent::start(&scene, &Config::new(&scene).stop(&job_children));
    let job = fork([exec("job", [note("job"), gate("job-ends")])]);
    let w = worker_doing("w", [job, Op::WaitChildren, Op::Forever]);
    let master = scene.spawn("master", [w, Op::Forever]);
    let (w, job) = (scene.proc("w"), scene.proc("job"));
    agent.knows_master(&master);
    master.kill();
    assert_eq!(agent.wait("spared", &job).text("because"), "job_child");
    agent.assert_unharmed(700, &job);
    agent.assert_unharmed(0, &w);
    scene.open_gate("job-ends");
    agent.wait_reaped(&w);
    agent.assert_signalled(&[&w]);
    agent.stop();
}

fn looks_on(scene: &Scene, agent: Agent) {
    let master = scene.spawn("master", [worker("w1"), worker("w2"), Op::Forever]);
    let workers = [scene.proc("w1"), scene.proc("w2")];
    agent.knows_master(&master);
    master.kill();
    for w in &workers {
        agent.wait("orphaned", w);
        assert_eq!(agent.wait("spared", w).text("because"), "observe");
    }
    // What it would do is in the log, marked.
    agent.wait_for("a dry run", |r| r.kind() == "signal" && r.flag("dry_run"));
    agent.assert_unharmed(700, &workers[0]);
    agent.assert_unharmed(0, &workers[1]);
    let records = agent.stop();
    assert!(records.iter().all(|r| r.kind() != "signal" || r.flag("dry_run")));
    assert!(records.iter().all(|r| r.kind() != "reaped"));
}

#[test]
fn a_group_that_observes_signals_nobody() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).observe());
    looks_on(&scene, agent);
}

#[test]
fn an_agent_that_observes_signals_nobody() {
    let scene = Scene::new();
    let agent = Agent::start_with(&scene, &Config::new(&scene), &["--observe"]);
    looks_on(&scene, agent);
}

/// A new group observes until a person writes otherwise (rule 7).
#[test]
fn a_group_without_a_mode_signals_nobody() {
    let scene = Scene::new();
    let command = run_command(&scene, &Config::new(&scene), &[]);
    let file = scene.path("agent.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("mode = \"enforce\"\n", "");
    assert!(!text.contains("mode"));
    std::fs::write(&file, text).unwrap();
    let agent = Agent::launch(&scene, &Config::new(&scene), command);
    looks_on(&scene, agent);
}

#[test]
fn when_replaced_waits_for_another_master() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).stop("when = \"replaced\""));
    let old = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    agent.knows_master(&old);
    old.kill();
    assert_eq!(agent.wait("spared", &w).text("because"), "not_replaced");
    agent.assert_unharmed(700, &w);

    let new = scene.spawn("master", [worker("w-new"), Op::Forever]);
    let w_new = scene.proc("w-new");
    agent.wait_reaped(&w);
    assert!(agent.wait("signal", &w).seq() > agent.wait("master_found", &new).seq());
    agent.assert_unharmed(200, &w_new);
    agent.assert_signalled(&[&w]);
    agent.stop();
}
