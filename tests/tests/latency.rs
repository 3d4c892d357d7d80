//! How long an idle orphan lives: from its master's exit to the record that says so, and to its own exit.
//!
//! A measurement, to be run alone on a machine that does nothing else, with the release build:
//! `cargo build --release -p reaper-userspace`, then
//! `REAPER_BIN=target/release/reaper cargo test -p reaper-tests --test latency -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reaper::clock;
use reaper_tests::agent::Agent;
use reaper_tests::config::Config;
use reaper_tests::log::Record;
use reaper_tests::process::{Signal, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, worker};

/// Masters killed with one agent.
const KILLS: usize = 50;

/// Agents, one after the other.
const ROUNDS: usize = 20;

/// One master, in nanoseconds since its exit tracepoint.
struct Death {
    /// The `orphaned` record was written.
    orphaned: u64,
    /// The `signal` record was written: the signal follows when it is on the disk's way.
    signalled: u64,
    /// The worker's exit tracepoint.
    worker: u64,
}

#[test]
#[ignore = "a measurement"]
fn a_thousand_masters_die() {
    let mut all = Vec::new();
    let mut medians: [Vec<u64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        let deaths = round();
        for (medians, column) in medians.iter_mut().zip(columns(&deaths)) {
            medians.push(quantile(&column, 50));
        }
        all.extend(deaths);
    }
    println!("{} masters killed, microseconds since the master's exit tracepoint:", all.len());
    let names = ["to the orphaned record", "to the signal record", "to the worker's exit"];
    for ((name, column), medians) in names.iter().zip(columns(&all)).zip(&mut medians) {
        medians.sort_unstable();
        let of = |percent| quantile(&column, percent) / 1_000;
        println!(
            "{name:24} p50 {:6}  p90 {:6}  p99 {:6}  worst {:6}   medians of {ROUNDS} rounds {} to {}",
            of(50),
            of(90),
            of(99),
            of(100),
            medians[0] / 1_000,
            medians[ROUNDS - 1] / 1_000,
        );
    }
}

/// One agent, [`KILLS`] masters one after the other.
fn round() -> Vec<Death> {
    let scene = Scene::new();
    let config = Config::new(&scene).quiet("0s").stop("max_kills = 1000000");
    let agent = Agent::start(&scene, &config);
    let before = real_minus_boot();
    for n in 0..KILLS {
        let name = format!("w{n}");
        let master = scene.spawn("master", [worker(&name), Op::Forever]);
        agent.knows_master(&master);
        let worker = scene.proc(&name);
        worker.wait_state('S');
        master.signal(Signal::KILL);
        wait_until("the worker's end", || !worker.is_alive());
    }
    let done = |records: &[Record]| records.iter().filter(|r| r.kind() == "reaped").count();
    wait_until("the last record", || done(&agent.records()) == KILLS);
    let offset = real_minus_boot();
    assert!(offset.abs_diff(before) < 100_000, "somebody set the clock");
    let records = agent.stop();
    let lost = records.iter().filter(|r| r.kind() == "master_lost");
    lost.map(|master| death(&records, master, offset)).collect()
}

fn death(records: &[Record], master: &Record, offset: i128) -> Death {
    let pid = master.number("/proc/pid");
    let orphaned = records
        .iter()
        .find(|r| r.kind() == "orphaned" && r.number("/lost/pid") == pid && r.seq() > master.seq());
    let orphaned = orphaned.unwrap();
    let worker = orphaned.number("/proc/pid");
    let of_worker = |kind: &str| {
        let found = records
            .iter()
            .find(|r| r.kind() == kind && r.number("/proc/pid") == worker && r.seq() > orphaned.seq());
        found.unwrap()
    };
    let (signal, reaped) = (of_worker("signal"), of_worker("reaped"));
    let written = |r: &Record| {
        let boot = i128::from(real_ns(r.text("ts"))) - offset;
        u64::try_from(boot - i128::from(master.boot_ns())).unwrap()
    };
    let worker = reaped.boot_ns() - master.boot_ns();
    Death { orphaned: written(orphaned), signalled: written(signal), worker }
}

fn columns(deaths: &[Death]) -> [Vec<u64>; 3] {
    let column = |of: fn(&Death) -> u64| {
        let mut values: Vec<u64> = deaths.iter().map(of).collect();
        values.sort_unstable();
        values
    };
    [column(|d| d.orphaned), column(|d| d.signalled), column(|d| d.worker)]
}

/// Of sorted values.
fn quantile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// What to take from a record's `ts` to get its `boot_ns`.
fn real_minus_boot() -> i128 {
    let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i128::try_from(real.as_nanos()).unwrap() - i128::from(clock::now())
}

/// Nanoseconds since 1970 of `2025-01-31T23:59:59.123456789Z`.
fn real_ns(ts: &str) -> u64 {
    let number = |at: std::ops::Range<usize>| ts[at].parse::<u64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days since 1970, the year beginning in March so that its last day may be the leap day.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469;
    let seconds = number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    u64::try_from(Duration::from_secs(days * 86_400 + seconds).as_nanos()).unwrap() + number(20..29)
}

#[test]
fn dates_are_read() {
    assert_eq!(real_ns("1970-01-01T00:00:00.000000001Z"), 1);
    assert_eq!(real_ns("2000-02-29T12:00:00.000000000Z"), 951_825_600_000_000_000);
    assert_eq!(real_ns("2026-11-21T08:01:05.561623808Z"), 1_795_248_065_561_623_808);
}
