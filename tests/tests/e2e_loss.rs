//! End to end: the kernel has more to tell than the ring buffer holds while the agent stands still.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use std::process::Command;

use reaper_tests::agent::{Agent, is_shot};
use reaper_tests::config::Config;
use reaper_tests::log::Record;
use reaper_tests::process::{Proc, Signal, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, exec, fork, gate, note, worker, worker_doing};

/// Births and deaths that 64 KiB hold a third of at most.
const MORE_THAN_FITS: usize = 800;

/// Stops the agent and lets so much happen that its ring buffer overflows.
fn overflow(agent: &Agent) {
    agent.process().signal(Signal::STOP);
    agent.process().wait_state('T');
    for _ in 0..MORE_THAN_FITS {
        assert!(Command::new("true").status().unwrap().success());
    }
}

/// The agent goes on. What it says of the loss: `events_lost` and `resynced`.
fn go_on(agent: &Agent) -> (Record, Record) {
    assert!(agent.find(|r| r.kind() == "events_lost").is_none(), "it does not run");
    agent.process().signal(Signal::CONT);
    let lost = agent.wait_for("events_lost", |r| r.kind() == "events_lost");
    let resynced = agent.wait_for("resynced", |r| r.kind() == "resynced");
    assert!(lost.number("count") > 0, "{lost:?}");
    assert!(lost.seq() < resynced.seq(), "{lost:?} {resynced:?}");
    assert!(resynced.number("took_us") > 0, "{resynced:?}");
    (lost, resynced)
}

/// Nobody is signalled between a loss and the last dump that made it good.
fn assert_silence(records: &[Record]) {
    let mut lossy = false;
    for record in records {
        match record.kind() {
            "events_lost" => lossy = true,
            "resynced" => lossy = false,
            _ => assert!(!(lossy && is_shot(record)), "{record:?}"),
        }
    }
    assert!(!lossy, "the tree was never rebuilt");
}

#[test]
fn a_master_killed_in_the_gap_leaves_orphans() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).agent("ring = \"64KiB\""));
    let first = scene.spawn(
        "master",
        [worker_doing("busy", [Op::BusyUntil("job ends".into()), Op::Forever]), Op::Forever],
    );
    let late = [gate("late"), worker("late"), Op::Forever];
    let second = scene.spawn("master", [worker("w"), Op::Forever]);
    let third = scene.spawn("master", late);
    let (busy, w) = (scene.proc("busy"), scene.proc("w"));
    for master in [&first, &second, &third] {
        agent.knows_master(master);
    }
    // One that is an orphan already and comes to rest in the gap.
    first.kill();
    agent.wait("orphaned", &busy);

    overflow(&agent);
    second.kill();
    scene.open_gate("job ends");
    scene.open_gate("late");
    let late = scene.proc("late");
    let (_, resynced) = go_on(&agent);
    assert!(resynced.number("added") >= 1 && resynced.number("removed") >= 1, "{resynced:?}");

    let master_lost = agent.wait("master_lost", &second);
    assert_eq!(master_lost.number("workers"), 1, "{master_lost:?}");
    assert!(master_lost.get("code").unwrap().is_null() && master_lost.get("signal").unwrap().is_null());
    let orphaned = agent.wait("orphaned", &w);
    assert!(orphaned.names("lost", &second) && !orphaned.flag("stray"), "{orphaned:?}");
    assert_eq!(orphaned.lineage(), [i64::from(second.pid())]);
    agent.wait_reaped(&w);
    agent.wait_reaped(&busy);
    // What an orphan did in the gap nobody knows: it is idle from then on at the earliest.
    let shot = agent.find(|r| is_shot(r) && r.about(&busy)).unwrap();
    assert!(
        shot.boot_ns() - shot.number("since_idle_us") * 1_000 >= resynced.boot_ns(),
        "{shot:?} {resynced:?}"
    );

    // Business as usual, for whoever was born in the gap below its master too.
    agent.assert_unharmed(200, &late);
    third.kill();
    let orphaned = agent.wait("orphaned", &late);
    assert!(orphaned.names("lost", &third) && !orphaned.flag("stray"), "{orphaned:?}");
    agent.wait_reaped(&late);
    agent.assert_signalled(&[&busy, &w, &late]);
    assert_silence(&agent.stop());
}

/// Born in the gap and orphaned in it: nobody knows of whom.
fn born_and_orphaned_in_the_gap(scene: &Scene, agent: &Agent) -> (Proc, Proc) {
    let between = exec("supervisor", [note("between"), worker("lone"), gate("leave"), Op::Exit(0)]);
    let master =
        scene.spawn("master", [worker("w"), gate("go"), fork([between]), Op::WaitChildren, Op::Forever]);
    scene.proc("w");
    agent.knows_master(&master);
    overflow(agent);
    scene.open_gate("go");
    let (between, lone) = (scene.proc("between"), scene.proc("lone"));
    scene.open_gate("leave");
    wait_until("adoption", || lone.stat().is_some_and(|stat| stat.ppid != between.pid()));
    go_on(agent);
    (master, lone)
}

#[test]
fn whose_lineage_is_hidden_in_the_gap_is_nobodys() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).agent("ring = \"64KiB\""));
    let (master, lone) = born_and_orphaned_in_the_gap(&scene, &agent);
    agent.assert_unharmed(1_500, &lone);
    assert!(agent.find(|r| r.is("orphaned", &lone)).is_none());
    let w = scene.proc("w");
    master.kill();
    agent.wait_reaped(&w);
    agent.assert_unharmed(500, &lone);
    agent.assert_signalled(&[&w]);
    assert_silence(&agent.stop());
}

#[test]
fn whose_lineage_is_hidden_in_the_gap_is_at_most_a_stray() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).worker_matcher().agent("ring = \"64KiB\""));
    let (_master, lone) = born_and_orphaned_in_the_gap(&scene, &agent);
    let orphaned = agent.wait("orphaned", &lone);
    assert!(orphaned.flag("stray") && orphaned.lineage().is_empty(), "{orphaned:?}");
    agent.wait_reaped(&lone);
    agent.assert_signalled(&[&lone]);
    assert_silence(&agent.stop());
}
