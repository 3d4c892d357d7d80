//! End to end: who becomes a master when another one goes, and who does not.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use reaper_tests::agent::Agent;
use reaper_tests::config::Config;
use reaper_tests::process::{PATIENCE, Proc};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, exec, fork, gate, note, title, twin, worker};

/// The heir and its workers are left alone, now and after the second in which a daemon may still leave its session;
/// they were orphans at no time. When the heir dies, its workers go.
fn heir_is_a_master(agent: &Agent, heir: &Proc, workers: &[&Proc]) {
    agent.assert_unharmed(1_300, heir);
    for w in workers {
        agent.assert_unharmed(0, w);
    }
    let everybody = [&[heir], workers].concat();
    let wrong =
        agent.find(|r| ["orphaned", "signal"].contains(&r.kind()) && everybody.iter().any(|p| r.about(p)));
    assert_eq!(wrong, None);
    heir.kill();
    agent.wait("master_lost", heir);
    for w in workers {
        agent.wait_reaped(w);
    }
}

fn by_exec(scene: &Scene, config: &Config) {
    let agent = Agent::start(scene, config);
    let new = fork([exec("master", [note("heir"), worker("new"), Op::Forever])]);
    let old = scene.spawn("master", [worker("old"), gate("usr2"), new, Op::Forever]);
    let old_worker = scene.proc("old");
    agent.knows_master(&old);
    scene.open_gate("usr2");
    let (heir, new_worker) = (scene.proc("heir"), scene.proc("new"));
    old.kill();

    let record = agent.wait("heir", &heir);
    assert_eq!(record.text("because"), "exec", "{record:?}");
    assert!(record.names("of", &old), "{record:?}");
    agent.wait_reaped(&old_worker);
    heir_is_a_master(&agent, &heir, &[&new_worker]);
    agent.assert_signalled(&[&old_worker, &new_worker]);
    agent.stop();
}

#[test]
fn an_upgrade_in_place_when_every_descendant_is_a_worker() {
    let scene = Scene::new();
    by_exec(&scene, &Config::new(&scene));
}

#[test]
fn an_upgrade_in_place_when_workers_have_a_matcher() {
    let scene = Scene::new();
    by_exec(&scene, &Config::new(&scene).worker_matcher());
}

/// The old master exits by itself, with 0, when the new one is ready: two children are left, one of them is the heir.
#[test]
fn an_upgrade_in_place_with_a_polite_old_master() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let new = fork([exec("master", [note("heir"), worker("new"), Op::Forever])]);
    let old = scene.spawn("master", [worker("old"), new, gate("ready"), Op::Exit(0)]);
    let (old_worker, heir, new_worker) = (scene.proc("old"), scene.proc("heir"), scene.proc("new"));
    agent.knows_master(&old);
    scene.open_gate("ready");
    assert_eq!(agent.wait("heir", &heir).text("because"), "exec");
    agent.wait_reaped(&old_worker);
    heir_is_a_master(&agent, &heir, &[&new_worker]);
    agent.assert_signalled(&[&old_worker, &new_worker]);
    agent.stop();
}

/// What a daemon does after it has daemonised.
fn daemon() -> Vec<Op> {
    vec![note("daemon"), worker("w1"), worker("w2"), Op::Forever]
}

/// Starts a program that daemonises; `first_exits` opens the gate at which its first process waits, if it does.
fn daemonised(config: impl Fn(&Scene) -> Config, program: &[Op], first_exits: bool) {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &config(&scene));
    let first = scene.spawn("master", program);
    let (heir, w1, w2) = (scene.proc("daemon"), scene.proc("w1"), scene.proc("w2"));
    if first_exits {
        agent.knows_master(&first);
        scene.open_gate("first-exits");
    }
    assert!(first.wait_gone(PATIENCE));

    let record = agent.wait("heir", &heir);
    assert_eq!(record.text("because"), "session", "{record:?}");
    heir_is_a_master(&agent, &heir, &[&w1, &w2]);
    agent.assert_signalled(&[&w1, &w2]);
    agent.stop();
}

fn one_fork() -> Vec<Op> {
    let mut child = vec![Op::Setsid];
    child.extend(daemon());
    vec![fork(child), gate("first-exits"), Op::Exit(0)]
}

/// As `celery multi` and python daemons: the daemon does not lead its session, and the leader is dead.
fn two_forks() -> Vec<Op> {
    vec![fork([Op::Setsid, fork(daemon()), Op::Exit(0)]), Op::Sleep(50), Op::Exit(0)]
}

/// As `unicorn -D`: the middle process exits while the first one still waits for the daemon to be ready.
fn first_waits() -> Vec<Op> {
    vec![fork([Op::Setsid, fork(daemon()), Op::Exit(0)]), gate("first-exits"), Op::Exit(0)]
}

#[test]
fn daemonised_with_one_fork() {
    daemonised(Config::new, &one_fork(), true);
}

#[test]
fn daemonised_with_one_fork_and_a_worker_matcher() {
    daemonised(|s| Config::new(s).worker_matcher(), &one_fork(), true);
}

#[test]
fn daemonised_with_two_forks() {
    daemonised(Config::new, &two_forks(), false);
}

#[test]
fn daemonised_with_two_forks_and_a_worker_matcher() {
    daemonised(|s| Config::new(s).worker_matcher(), &two_forks(), false);
}

#[test]
fn daemonised_while_the_first_process_waits() {
    daemonised(Config::new, &first_waits(), true);
}

#[test]
fn daemonised_while_the_first_process_waits_and_a_worker_matcher() {
    daemonised(|s| Config::new(s).worker_matcher(), &first_waits(), true);
}

/// setsid comes a while after the first process has gone: until then the daemon is neither orphan nor master.
#[test]
fn daemonised_with_a_late_setsid() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let child = [note("daemon"), gate("first-exits"), Op::Sleep(400), Op::Setsid, worker("w"), Op::Forever];
    let first = scene.spawn("master", [fork(child), gate("first-exits"), Op::Exit(0)]);
    let heir = scene.proc("daemon");
    agent.knows_master(&first);
    scene.open_gate("first-exits");
    let w = scene.proc("w");
    assert_eq!(agent.wait("heir", &heir).text("because"), "session");
    heir_is_a_master(&agent, &heir, &[&w]);
    agent.assert_signalled(&[&w]);
    agent.stop();
}

/// All of it within a millisecond. The first process may be gone before anybody could read its command line, so whether
/// the daemon is its heir or just a master is all the same.
#[test]
fn daemonised_as_fast_as_can_be() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let mut child = vec![Op::Setsid];
    child.extend(daemon());
    scene.spawn("start", [exec("master", [fork(child), Op::Exit(0)])]);
    let (heir, w1, w2) = (scene.proc("daemon"), scene.proc("w1"), scene.proc("w2"));
    agent.wait_for("a new master", |r| r.is("heir", &heir) || r.is("master_found", &heir));
    heir_is_a_master(&agent, &heir, &[&w1, &w2]);
    agent.assert_signalled(&[&w1, &w2]);
    agent.stop();
}

/// A session of its own is not enough: the master crashed, it did not daemonise.
#[test]
fn a_crash_leaves_no_heir() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let child = fork([Op::Setsid, note("w"), Op::Forever]);
    let master = scene.spawn("master", [child, gate("crash"), Op::Exit(1)]);
    let w = scene.proc("w");
    agent.knows_master(&master);
    scene.open_gate("crash");
    assert_eq!(agent.wait("master_lost", &master).get("code").unwrap().as_i64(), Some(1));
    agent.wait_reaped(&w);
    assert!(agent.find(|r| r.kind() == "heir").is_none());
    agent.assert_signalled(&[&w]);
    agent.stop();
}

/// Two children at once are workers, not a daemon, whatever their sessions.
#[test]
fn two_children_at_once_are_no_heirs() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let child = |name| fork([Op::Setsid, note(name), Op::Forever]);
    let master = scene.spawn("master", [child("w1"), child("w2"), gate("exit"), Op::Exit(0)]);
    let (w1, w2) = (scene.proc("w1"), scene.proc("w2"));
    agent.knows_master(&master);
    scene.open_gate("exit");
    agent.wait_reaped(&w1);
    agent.wait_reaped(&w2);
    assert!(agent.find(|r| r.kind() == "heir").is_none());
    agent.stop();
}

/// A worker's job started a daemon of its own: it left on purpose and is nobody's worker any more.
#[test]
fn who_detached_and_is_no_master_is_let_go() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let tool = fork([Op::Setsid, exec("tool", [note("tool"), Op::Forever])]);
    let launcher = fork([exec("launcher", [note("launcher"), tool, gate("launched"), Op::Exit(0)])]);
    let master = scene.spawn("master", [launcher, worker("w"), Op::Forever]);
    let (tool, w) = (scene.proc("tool"), scene.proc("w"));
    agent.knows_master(&master);
    scene.open_gate("launched");
    assert_eq!(agent.wait("spared", &tool).text("because"), "detached");
    master.kill();
    agent.wait_reaped(&w);
    agent.assert_unharmed(1_300, &tool);
    agent.assert_signalled(&[&w]);
    agent.stop();
}

/// As nginx and gunicorn with setproctitle: the titles that match come after the exec, without any event.
fn titled(config: impl Fn(&Scene) -> Config) {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &config(&scene));
    let long = "app: a title that reaches far into the environment of the process, worker";
    let workers =
        [fork([title("app: worker"), note("w1"), Op::Forever]), fork([title(long), note("w2"), Op::Forever])];
    let [w1, w2] = workers;
    let master = scene.spawn("app", [Op::Sleep(50), title("app: master"), w1, w2, note("up"), Op::Forever]);
    let (w1, w2) = (scene.proc("w1"), scene.proc("w2"));
    scene.entry("up");
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&w1);
    agent.wait_reaped(&w2);
    agent.assert_signalled(&[&w1, &w2]);
    agent.stop();
}

#[test]
fn titles_rewritten_after_exec() {
    titled(Config::new);
}

#[test]
fn titles_rewritten_after_exec_and_a_worker_matcher() {
    titled(|s| Config::new(s).worker_matcher());
}

/// The heir of an upgrade in place is known by a title that it gave itself after its exec.
#[test]
fn an_upgrade_in_place_with_titles() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let new_worker = fork([title("app: worker"), note("new"), Op::Forever]);
    let new = fork([exec("app", [title("app: master"), note("heir"), new_worker, Op::Forever])]);
    let old_worker = fork([title("app: worker"), note("old"), Op::Forever]);
    let old = scene.spawn("app", [title("app: master"), old_worker, gate("usr2"), new, Op::Forever]);
    let old_worker = scene.proc("old");
    agent.knows_master(&old);
    scene.open_gate("usr2");
    let (heir, new_worker) = (scene.proc("heir"), scene.proc("new"));
    old.kill();
    assert_eq!(agent.wait("heir", &heir).text("because"), "exec");
    agent.wait_reaped(&old_worker);
    heir_is_a_master(&agent, &heir, &[&new_worker]);
    agent.assert_signalled(&[&old_worker, &new_worker]);
    agent.stop();
}

/// The other way round: a worker that was forked without an exec and looks like its master is no heir of it.
#[test]
fn a_twin_is_no_heir() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let master = scene.spawn("master", [twin("w1"), twin("w2"), Op::Forever]);
    let (w1, w2) = (scene.proc("w1"), scene.proc("w2"));
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&w1);
    agent.wait_reaped(&w2);
    assert!(agent.find(|r| r.kind() == "heir").is_none());
    agent.stop();
}
