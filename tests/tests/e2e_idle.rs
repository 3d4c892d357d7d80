//! End to end: a busy worker is never signalled, whatever makes it busy, and an idle one as the group says.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use reaper_tests::agent::Agent;
use reaper_tests::config::Config;
use reaper_tests::log::Record;
use reaper_tests::process::{PATIENCE, Proc, Signal};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, exec, fork, gate, note, worker_doing};

/// A master with one worker `w`, killed when the agent knows it. Gives the worker, after `before` was done.
fn orphan(scene: &Scene, agent: &Agent, program: impl Into<Vec<Op>>, before: impl FnOnce(&Proc)) -> Proc {
    let master = scene.spawn("master", [worker_doing("w", program), Op::Forever]);
    let worker = scene.proc("w");
    agent.knows_master(&master);
    before(&worker);
    master.kill();
    agent.wait("orphaned", &worker);
    worker
}

/// Waits for the record that says why it is busy.
fn busy(agent: &Agent, who: &Proc) -> Record {
    let record = agent.wait("busy", who);
    assert_ne!(record.text("/evidence/verdict"), "idle", "{record:?}");
    record
}

/// Ends when the test has seen what it has to see.
fn job() -> Op {
    Op::BusyUntil("job ends".into())
}

fn finishes_first(program: impl Into<Vec<Op>>) {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let w = orphan(&scene, &agent, program, |_| {});
    busy(&agent, &w);
    scene.open_gate("job ends");
    let signal = agent.wait("signal", &w);
    let done = scene.entry("done").boot_ns;
    assert!(signal.boot_ns() >= done + 90_000_000, "the job ended at {done}, quiet is 100 ms: {signal:?}");
    assert_eq!(signal.text("/evidence/verdict"), "idle", "{signal:?}");
    agent.wait_reaped(&w);
    agent.assert_signalled(&[&w]);
    agent.stop();
}

#[test]
fn a_worker_that_uses_the_cpu_finishes_first() {
    finishes_first([job(), note("done"), Op::Forever]);
}

#[test]
fn every_thread_counts() {
    finishes_first([Op::Thread(vec![job(), note("done"), Op::Forever]), Op::Forever]);
}

#[test]
fn a_worker_whose_leader_has_exited_is_judged_by_its_other_threads() {
    finishes_first([Op::Thread(vec![job(), note("done"), Op::Forever]), Op::ExitThread]);
}

#[test]
fn a_worker_with_a_live_child_is_busy() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).worker_matcher());
    let job = fork([exec("job", [note("job"), gate("job-ends")])]);
    let w = orphan(&scene, &agent, [job, Op::WaitChildren, Op::Forever], |_| {
        scene.entry("job");
    });
    let record = busy(&agent, &w);
    assert_eq!(record.number("/evidence/children"), 1, "{record:?}");
    agent.assert_unharmed(700, &w);
    assert!(scene.proc("job").is_alive());
    scene.open_gate("job-ends");
    agent.wait_reaped(&w);
    agent.assert_signalled(&[&w]);
    agent.stop();
}

#[test]
fn a_worker_in_uninterruptible_sleep_is_busy() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    // The sibling is stopped and so neither idle nor signalled: only the test ends it.
    let program = [Op::Uninterruptible("sibling".into()), Op::Forever];
    let w = orphan(&scene, &agent, program, |w| w.wait_state('D'));
    let record = busy(&agent, &w);
    assert!(record.thread_states().contains(&"D"), "{record:?}");
    let sibling = scene.proc("sibling");
    agent.assert_unharmed(700, &w);
    agent.assert_unharmed(0, &sibling);
    sibling.kill();
    agent.wait_reaped(&w);
    agent.assert_signalled(&[&w]);
    agent.stop();
}

#[test]
fn a_worker_stopped_by_somebody_is_busy() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let w = orphan(&scene, &agent, [Op::Forever], |w| {
        w.signal(Signal::STOP);
        w.wait_state('T');
    });
    let record = busy(&agent, &w);
    assert!(record.thread_states().contains(&"T"), "{record:?}");
    agent.assert_unharmed(700, &w);
    w.signal(Signal::CONT);
    agent.wait_reaped(&w);
    agent.assert_signalled(&[&w]);
    agent.stop();
}

#[test]
fn who_ignores_term_is_killed_after_its_grace() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).stop("grace = \"500ms\""));
    let program = [Op::IgnoreTerm, note("deaf"), Op::Forever];
    let w = orphan(&scene, &agent, program, |_| {
        scene.entry("deaf");
    });
    let reaped = agent.wait_reaped(&w);
    assert_eq!(reaped.text("signal"), "KILL", "{reaped:?}");
    let signals: Vec<_> = agent.records().into_iter().filter(|r| r.is("signal", &w)).collect();
    let steps: Vec<_> = signals.iter().map(|r| (r.text("signal"), r.number("step"))).collect();
    assert_eq!(steps, [("TERM", 0), ("KILL", 1)]);
    assert!(signals[1].boot_ns() >= signals[0].boot_ns() + 500_000_000, "{signals:#?}");
    agent.stop();
}

#[test]
fn without_kill_nobody_is_killed() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).stop("grace = \"200ms\"\nkill = false"));
    let program = [Op::IgnoreTerm, note("deaf"), Op::Forever];
    let w = orphan(&scene, &agent, program, |_| {
        scene.entry("deaf");
    });
    agent.wait("signal", &w);
    agent.assert_never(1_200, "a second signal", |r| r.is("signal", &w) && r.number("step") != 0);
    assert!(w.is_alive());
    agent.stop();
}

/// TERM makes it work: the next step waits until it is idle again.
#[test]
fn the_next_signal_waits_until_it_is_idle_again() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).stop("grace = \"200ms\""));
    let on_term = Op::OnTerm(vec![note("term"), Op::Busy(1_500), note("done")]);
    let w = orphan(&scene, &agent, [on_term, note("polite"), Op::Forever], |_| {
        scene.entry("polite");
    });
    let kill = agent.wait_for("the second signal", |r| r.is("signal", &w) && r.number("step") == 1);
    let done = scene.entry("done").boot_ns;
    assert!(kill.boot_ns() >= done + 90_000_000, "the job ended at {done}: {kill:?}");
    assert_eq!(agent.wait_reaped(&w).text("signal"), "KILL");
    agent.stop();
}

#[test]
fn another_signal_than_term() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).stop("signals = [\"USR1\"]"));
    let w = orphan(&scene, &agent, [Op::Forever], |_| {});
    assert_eq!(agent.wait_reaped(&w).text("signal"), "USR1");
    agent.stop();
}

#[test]
fn a_deadline_stops_even_a_busy_one() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).stop("deadline = \"1s\""));
    let w = orphan(&scene, &agent, [Op::Busy(30_000)], |_| {});
    let signal = agent.wait("signal", &w);
    assert!(signal.number("since_orphan_us") >= 1_000_000, "{signal:?}");
    assert_ne!(signal.text("/evidence/verdict"), "idle", "{signal:?}");
    agent.wait_reaped(&w);
    agent.stop();
}

#[test]
fn an_orphan_that_goes_by_itself_has_left() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let w = orphan(&scene, &agent, [Op::Busy(800), Op::Exit(0)], |_| {});
    agent.wait("left", &w);
    assert!(w.wait_gone(PATIENCE));
    assert_eq!(agent.find(|r| r.is("signal", &w) || r.is("reaped", &w)), None);
    agent.stop();
}

/// Somebody else has told it already: a second TERM is sudden death in several frameworks.
#[test]
fn who_was_told_already_is_left_to_finish() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let w = orphan(&scene, &agent, [Op::OnTerm(vec![note("term")]), note("polite"), Op::Forever], |w| {
        scene.entry("polite");
        w.signal(Signal::TERM);
        scene.entry("term");
    });
    let draining = agent.wait("draining", &w);
    assert_eq!(draining.text("signal"), "TERM", "{draining:?}");
    assert_eq!(draining.number("/sender/pid"), u64::from(std::process::id()), "{draining:?}");
    agent.assert_unharmed(1_000, &w);
    agent.stop();
}
