//! End to end: every way to lose a master, and everybody who is not to be touched meanwhile.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use reaper_tests::agent::Agent;
use reaper_tests::config::Config;
use reaper_tests::process::{PATIENCE, Proc, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, exec, fork, gate, note, twin, worker, worker_doing};

/// Kills a master that has one idle worker and nobody else.
fn killed_master(scene: &Scene, agent: Agent, master: &Proc) {
    let worker = scene.proc("w");
    agent.knows_master(master);
    master.kill();

    let lost = agent.wait("master_lost", master);
    assert_eq!((lost.text("signal"), lost.number("workers")), ("KILL", 1), "{lost:?}");
    let orphaned = agent.wait("orphaned", &worker);
    assert!(orphaned.names("lost", master), "{orphaned:?}");
    assert!(!orphaned.flag("stray"), "{orphaned:?}");
    let lineage: Vec<_> = orphaned.get("lineage").unwrap().as_array().unwrap().iter().collect();
    assert!(lineage.iter().any(|pid| pid.as_i64() == Some(master.pid().into())), "{orphaned:?}");
    assert_eq!(agent.wait_reaped(&worker).text("signal"), "TERM");
    agent.assert_signalled(&[&worker]);
    agent.stop();
}

#[test]
fn killed_and_every_descendant_is_a_worker() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    killed_master(&scene, agent, &master);
}

#[test]
fn killed_and_workers_have_a_matcher() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).worker_matcher());
    let master = scene.spawn("master", [worker("w"), fork([exec("helper", [Op::Forever])]), Op::Forever]);
    killed_master(&scene, agent, &master);
}

#[test]
fn killed_and_the_agent_came_after_them() {
    let scene = Scene::new();
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    scene.entry("w");
    let agent = Agent::start(&scene, &Config::new(&scene));
    killed_master(&scene, agent, &master);
}

#[test]
fn killed_and_workers_look_like_their_master() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let master = scene.spawn("master", [twin("w"), Op::Forever]);
    killed_master(&scene, agent, &master);
}

#[test]
fn an_orphan_below_a_subreaper_above_the_master() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let holder = scene.spawn(
        "holder",
        [
            Op::Subreaper(true),
            fork([exec("master", [note("m"), worker("w"), Op::Forever])]),
            Op::WaitChildren,
        ],
    );
    scene.entry("w");
    killed_master(&scene, agent, &scene.proc("m"));
    assert!(holder.wait_gone(PATIENCE), "it waited for the worker it adopted");
}

#[test]
fn exits_with_0_and_leaves_two() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let master = scene.spawn("master", [worker("w1"), worker("w2"), gate("exit"), Op::Exit(0)]);
    let workers = [scene.proc("w1"), scene.proc("w2")];
    agent.knows_master(&master);
    scene.open_gate("exit");

    let lost = agent.wait("master_lost", &master);
    assert_eq!((lost.get("code").unwrap().as_i64(), lost.number("workers")), (Some(0), 2), "{lost:?}");
    assert!(lost.get("signal").unwrap().is_null(), "{lost:?}");
    workers.iter().for_each(|w| assert_eq!(agent.wait_reaped(w).text("signal"), "TERM"));
    agent.assert_signalled(&[&workers[0], &workers[1]]);
    agent.stop();
}

/// The only child of a process that exits with 0 may be about to leave its session: that is looked at for a second.
#[test]
fn exits_with_0_and_leaves_one_that_stays_in_the_session() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let master = scene.spawn("master", [twin("w"), gate("exit"), Op::Exit(0)]);
    let worker = scene.proc("w");
    agent.knows_master(&master);
    scene.open_gate("exit");
    let lost = agent.wait("master_lost", &master);
    let reaped = agent.wait_reaped(&worker);
    assert!(reaped.boot_ns() > lost.boot_ns() + 900_000_000, "{lost:?} {reaped:?}");
    agent.assert_signalled(&[&worker]);
    agent.stop();
}

#[test]
fn the_intermediate_dies_and_the_master_lives() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).worker_matcher());
    let supervisor = |n: &str, w: &str| fork([exec("supervisor", [note(n), worker(w), Op::Forever])]);
    let master = scene.spawn("master", [supervisor("s1", "w1"), supervisor("s2", "w2"), Op::Forever]);
    let (s1, s2, w1, w2) = (scene.proc("s1"), scene.proc("s2"), scene.proc("w1"), scene.proc("w2"));
    agent.knows_master(&master);
    s1.kill();

    let orphaned = agent.wait("orphaned", &w1);
    assert!(orphaned.names("lost", &s1), "{orphaned:?}");
    agent.wait_reaped(&w1);
    for other in [&master, &s2, &w2] {
        agent.assert_unharmed(150, other);
    }
    agent.assert_signalled(&[&w1]);
    assert!(agent.find(|r| r.is("master_lost", &master)).is_none());
    agent.stop();
}

#[test]
fn a_subreaper_below_the_master_adopts() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).worker_matcher());
    let intermediate = fork([exec("supervisor", [note("i"), worker("w"), Op::Forever])]);
    let subreaper = fork([exec("holder", [Op::Subreaper(true), note("s"), intermediate, Op::Forever])]);
    let master = scene.spawn("master", [subreaper, Op::Forever]);
    let (s, i, w) = (scene.proc("s"), scene.proc("i"), scene.proc("w"));
    agent.knows_master(&master);
    i.kill();
    wait_until("adoption", || w.stat().is_some_and(|stat| stat.ppid == s.pid()));

    assert_eq!(agent.wait("spared", &w).text("because"), "adopted");
    agent.assert_unharmed(500, &w);
    assert!(agent.find(|r| r.is("orphaned", &w)).is_none());

    master.kill();
    agent.wait_reaped(&w);
    agent.assert_signalled(&[&w]);
    assert!(s.is_alive());
    agent.stop();
}

#[test]
fn a_deploy_with_the_new_master_beside_the_old() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let old = scene.spawn("master", [worker("old-1"), worker("old-2"), Op::Forever]);
    let new = scene.spawn("master", [worker("new-1"), worker("new-2"), Op::Forever]);
    let workers = ["old-1", "old-2", "new-1", "new-2"].map(|name| scene.proc(name));
    agent.knows_master(&old);
    agent.knows_master(&new);
    old.kill();

    agent.wait_reaped(&workers[0]);
    agent.wait_reaped(&workers[1]);
    for other in [&new, &workers[2], &workers[3]] {
        agent.assert_unharmed(150, other);
    }
    agent.assert_signalled(&[&workers[0], &workers[1]]);
    agent.stop();
}

#[test]
fn a_master_that_execs_itself_in_place() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let again = exec("master", [note("again"), worker("w2"), Op::Forever]);
    let master = scene.spawn("master", [worker("w1"), gate("upgrade"), again]);
    let w1 = scene.proc("w1");
    agent.knows_master(&master);
    scene.open_gate("upgrade");
    let w2 = scene.proc("w2");

    agent.assert_never(500, "anything about the workers", |r| r.about(&w1) || r.about(&w2));
    assert!(agent.find(|r| r.is("master_lost", &master)).is_none());

    master.kill();
    agent.wait_reaped(&w1);
    agent.wait_reaped(&w2);
    agent.assert_signalled(&[&w1, &w2]);
    agent.stop();
}

/// A container whose pid 1 is a script that starts a master, loses it and execs the next one: the workers of the first
/// are now below the second, which did not start them.
#[test]
fn pid_1_of_a_namespace_execs_the_new_master() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).worker_matcher());
    let job = fork([exec("job", [note("job"), gate("job-ends")])]);
    let w_old = worker_doing("w-old", [job, Op::WaitChildren, Op::Forever]);
    let old = fork([exec("master", [note("old"), w_old, Op::Forever])]);
    let new = exec("master", [note("new"), worker("w-new"), Op::Forever]);
    scene.spawn(
        "outer",
        [Op::NewPidNamespace, fork([note("init"), old, gate("take-over"), new]), Op::Forever],
    );
    let (init, old, w_old) = (scene.proc("init"), scene.proc("old"), scene.proc("w-old"));
    scene.entry("job");
    agent.knows_master(&old);
    old.kill();
    agent.wait("orphaned", &w_old);
    agent.wait("busy", &w_old);
    wait_until("adoption", || w_old.stat().is_some_and(|stat| stat.ppid == init.pid()));

    scene.open_gate("take-over");
    agent.knows_master(&init);
    let w_new = scene.proc("w-new");
    agent.assert_unharmed(200, &w_old);
    scene.open_gate("job-ends");
    agent.wait_reaped(&w_old);
    for other in [&init, &w_new] {
        agent.assert_unharmed(150, other);
    }
    agent.assert_signalled(&[&w_old]);
    agent.stop();
}

/// Every descendant is a worker: the child is idle and goes, and only then its parent is idle.
#[test]
fn a_worker_and_its_own_child_go_one_after_the_other() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let master = scene
        .spawn("master", [worker_doing("w", [twin("child"), Op::WaitChildren, Op::Forever]), Op::Forever]);
    let (w, child) = (scene.proc("w"), scene.proc("child"));
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&child);
    agent.wait_reaped(&w);
    assert!(agent.wait("signal", &child).seq() < agent.wait("signal", &w).seq());
    agent.assert_signalled(&[&w, &child]);
    agent.stop();
}
