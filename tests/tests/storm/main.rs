//! Storms: whatever processes do to each other, the tree is /proc's afterwards, and every reparent record was true.
//!
//! `REAPER_STORM_LIVES` and `REAPER_STORM_SEEDS` (comma-separated) make the first one larger; it prints its numbers with
//! `--nocapture`. `REAPER_STORM_NICE=0` takes the priority away that the watching thread otherwise has.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod book;
mod watch;

use std::process::Command;
use std::time::Instant;

use reaper::kernel::DEFAULT_RING_BYTES;
use reaper_tests::agent::{Agent, run_command};
use reaper_tests::config::Config;
use reaper_tests::process::{comes_true, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::storm::Storm;
use watch::{STORM_MAX, Watch};

/// Processes of one storm, unless the environment says otherwise.
const LIVES: u64 = 20_000;

/// Scenes that leave somebody behind: several hundred processes.
const KEEP: u64 = 160;

fn lives() -> u64 {
    std::env::var("REAPER_STORM_LIVES").map_or(LIVES, |n| n.parse().unwrap())
}

fn seeds() -> Vec<u64> {
    let seeds = std::env::var("REAPER_STORM_SEEDS");
    seeds.map_or(vec![1], |list| list.split(',').map(|n| n.trim().parse().unwrap()).collect())
}

/// The tree is what /proc says, and what the storm's processes have reported of themselves, at least so many of them, is what
/// the programs have told.
fn assert_told(watch: &mut Watch, storm: &Storm, least: u64) {
    let compared = watch.compare();
    let verdict = watch.book.judge(&storm.reports());
    println!("{}; {compared}; {verdict}", watch.numbers());
    assert!(compared.survivors >= 100, "{compared}");
    if watch.left_out > 0 {
        // A kernel that lets programs be preempted leaves out others' runs meanwhile: then the tree was made again, and single
        // lives are not known.
        assert!(watch.resyncs > 0);
        return;
    }
    assert_eq!((watch.book.lost, watch.book.broken), (0, 0), "events lost, processes of the storm broken");
    assert!(verdict.checked >= least, "{verdict}");
    verdict.assert_right();
}

#[test]
fn after_a_storm_the_tree_is_what_proc_says() {
    for seed in seeds() {
        let began = Instant::now();
        let mut watch = Watch::load(DEFAULT_RING_BYTES);
        watch.begin();
        let storm = Storm::start(seed, lives(), KEEP);
        watch.follow(&storm);
        watch.until_over(&storm);
        let took = began.elapsed();
        println!("seed {seed} in {took:.1?}");
        assert_told(&mut watch, &storm, lives() / 100);
    }
}

#[test]
fn a_snapshot_in_the_middle_of_a_storm_fits_what_comes_before_and_after() {
    let mut watch = Watch::load(DEFAULT_RING_BYTES);
    let storm = Storm::start(11, 3 * LIVES, 3 * KEEP);
    watch.follow(&storm);
    wait_until("the first orphans", || storm.reports().len() > 100);
    watch.begin();
    watch.until_born(LIVES / 4);
    storm.enough();
    watch.until_over(&storm);
    assert_told(&mut watch, &storm, LIVES / 200);
}

#[test]
fn after_a_loss_the_tree_is_made_again() {
    let mut watch = Watch::load(64 * 1024);
    watch.begin();
    assert!(watch.core.is_clear());
    let storm = Storm::start(21, LIVES / 4, KEEP);
    watch.follow(&storm);
    // Nobody drains.
    assert!(comes_true(STORM_MAX, || storm.is_over()), "the storm does not end");
    watch.drain();
    assert!(watch.book.lost > 0 && !watch.core.is_clear(), "the loss is not known");
    watch.until_over(&storm);
    assert!(watch.core.is_clear() && watch.resyncs > 0);
    let compared = watch.compare();
    println!("{}; {compared}", watch.numbers());
    assert!(compared.survivors >= 100, "{compared}");
}

/// Two CPUs, thirty processes that fork, and a debug build: without priority the agent would not even get as far as its first
/// event.
#[test]
fn an_agent_starts_and_stops_while_a_storm_goes_on() {
    let storm = Storm::start(41, 100 * LIVES, 0);
    wait_until("the first orphans", || storm.reports().len() > 100);
    let scene = Scene::new();
    let config = Config::new(&scene).observe().agent("log_level = \"all\"");
    let run = run_command(&scene, &config, &[]);
    let mut preferred = Command::new("nice");
    preferred.args(["-n", "-15"]).arg(run.get_program()).args(run.get_args());
    let agent = Agent::launch(&scene, &config, preferred);
    let records = agent.stop();
    assert!(!storm.is_over(), "the storm was over too early");
    storm.enough();
    println!("{} records", records.len());
    assert!(records.iter().any(|r| r.kind() == "fork"), "nobody was born");
}

#[test]
fn losses_all_through_a_storm_are_made_good() {
    let mut watch = Watch::load(4096);
    watch.begin();
    let storm = Storm::start(31, LIVES / 4, KEEP);
    watch.follow(&storm);
    watch.until_over(&storm);
    let compared = watch.compare();
    println!("{}; {compared}", watch.numbers());
    assert!(watch.book.lost > 0 && watch.resyncs > 1, "nothing was lost");
    assert!(watch.core.is_clear());
    assert!(compared.survivors >= 100, "{compared}");
}
