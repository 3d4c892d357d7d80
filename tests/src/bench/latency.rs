//! `latency`: how long an orphan lives, from its master's exit tracepoint; beside it what people use instead.
//!
//! Every time comes from an agent's event log: with reaper's rule from the agent that acts, with the others from one that only
//! observes, whose records have the kernel's times of both exits. The others are: the cron script's rule (its `ps` and
//! `pstree` included, every ten seconds here and not every minute, since nobody waits that long for a figure), a worker that
//! asks for its parent once a second as Horizon's do, and `PR_SET_PDEATHSIG`.

mod others;
mod timestamp;

use std::time::Duration;

use anyhow::{Result, ensure};

use self::others::{Other, other};
use self::timestamp::{boot_ns_written, real_minus_boot};
use super::Plan;
use super::lives::Lives;
use super::report::{Cell, Report, Table};
use super::stats::quantile;
use crate::agent::Agent;
use crate::config::Config;
use crate::log::Record;
use crate::process::{Proc, Signal, wait_until};
use crate::scene::Scene;
use crate::script::{Op, worker};

/// The clock may be adjusted while it is measured by so much, in nanoseconds.
const CLOCK: u64 = 100_000;

/// From the exit of its master, in microseconds.
struct Death {
    orphaned: f64,
    signalled: f64,
    gone: f64,
}

/// Who competes for the CPUs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Host {
    Idle,
    Loaded,
}

pub(super) fn run(plan: Plan) -> Result<Report> {
    let mut report = Report::new("latency");
    let columns = ["rule, workers", "p50, us", "p99, us", "p99.9, us", "worst, us"];
    let mut tables = [
        "From the master's exit to the `orphaned` record",
        "From the master's exit to the `signal` record, written before the signal is sent",
        "From the master's exit to the worker's exit",
    ]
    .map(|title| Table::new(title, &columns));
    let all: &[usize] = if plan.short { &[1, 16] } else { &[1, 16, 100] };
    for host in [Host::Idle, Host::Loaded] {
        for &workers in all {
            let rounds = rounds(plan, host, workers)?;
            let suffix = if host == Host::Loaded { ", every CPU busy" } else { "" };
            let name = format!("reaper, {workers}{suffix}");
            let fields: [fn(&Death) -> f64; 3] = [|d| d.orphaned, |d| d.signalled, |d| d.gone];
            for (table, field) in tables.iter_mut().zip(fields) {
                table.row(&name, cells(&rounds, field));
            }
        }
    }
    for rule in Other::ALL {
        for &workers in all {
            let rounds = other(rule, workers, plan)?;
            tables[2].row(&format!("{}, {workers}", rule.name()), cells(&rounds, |gone| *gone));
        }
    }
    tables.into_iter().for_each(|table| report.table(table));
    report
        .note("p50 and p99 are medians of the rounds' quantiles, p99.9 and worst are of all rounds together");
    report.note("reaper: `proof = \"asleep\"`, `quiet = \"0s\"`, freezing on; every worker sleeps");
    Ok(report.end())
}

fn cells<T>(rounds: &[Vec<T>], field: impl Fn(&T) -> f64) -> Vec<Cell> {
    let rounds: Vec<Vec<f64>> = rounds.iter().map(|round| round.iter().map(&field).collect()).collect();
    let all = rounds.concat();
    let of = |per_mille| Cell::of(rounds.iter().map(|round| quantile(round, per_mille)).collect());
    vec![of(500), of(990), Cell::of(vec![quantile(&all, 999)]), Cell::of(vec![quantile(&all, 1_000)])]
}

/// The rounds, each with an agent of its own.
fn rounds(plan: Plan, host: Host, workers: usize) -> Result<Vec<Vec<Death>>> {
    // A round has about as many workers whatever their number, and its agent's log stays small.
    let kills = if plan.short { 3 } else { (50 / workers).max(3) };
    let scene = Scene::new();
    let _load = match host {
        Host::Idle => None,
        Host::Loaded => Some(Lives::burner(&scene, std::thread::available_parallelism()?.get())?),
    };
    (0..plan.rounds).map(|_| round(kills, workers)).collect()
}

fn round(kills: usize, workers: usize) -> Result<Vec<Death>> {
    let scene = Scene::new();
    let config = Config::new(&scene).quiet("0s").stop("max_kills = 1000000");
    let agent = Agent::start(&scene, &config);
    let before = real_minus_boot();
    for kill in 0..kills {
        kill_a_master(&scene, &agent, kill, worker, workers, Duration::ZERO);
    }
    let done = |records: &[Record]| records.iter().filter(|r| r.kind() == "reaped").count();
    wait_until("the last record", || done(&agent.records()) == kills * workers);
    let offset = real_minus_boot();
    ensure!(u64::try_from((offset - before).abs())? < CLOCK, "somebody set the clock");
    let records = agent.stop();
    let reaped = records.iter().filter(|r| r.kind() == "reaped");
    reaped.map(|reaped| death(&records, reaped, offset)).collect()
}

/// Starts a master with so many sleeping workers, kills it after a pause, and waits for the workers' end.
fn kill_a_master(
    scene: &Scene,
    agent: &Agent,
    kill: usize,
    worker: impl Fn(&str) -> Op,
    workers: usize,
    pause: Duration,
) -> (Proc, Vec<Proc>) {
    let names: Vec<String> = (0..workers).map(|n| format!("w{kill}-{n}")).collect();
    let mut program: Vec<Op> = names.iter().map(|name| worker(name)).collect();
    program.push(Op::Forever);
    let master = scene.spawn("master", program);
    agent.knows_master(&master);
    let workers: Vec<_> = names.iter().map(|name| scene.proc(name)).collect();
    workers.iter().for_each(|worker| worker.wait_state('S'));
    std::thread::sleep(pause);
    master.signal(Signal::KILL);
    wait_until("the workers' end", || workers.iter().all(|worker| !worker.is_alive()));
    (master, workers)
}

/// One worker's end.
fn death(records: &[Record], reaped: &Record, offset: i128) -> Result<Death> {
    let worker = (reaped.number("/proc/pid"), reaped.number("/proc/start_ns"));
    let of_worker = |kind: &str| {
        let found = records
            .iter()
            .find(|r| r.kind() == kind && (r.number("/proc/pid"), r.number("/proc/start_ns")) == worker);
        found.ok_or_else(|| anyhow::anyhow!("no {kind} record of {}", worker.0))
    };
    let orphaned = of_worker("orphaned")?;
    let (lost, exit) = (orphaned.number("/lost/pid"), orphaned.number("/lost/start_ns"));
    let master = records.iter().find(|r| {
        r.kind() == "master_lost" && (r.number("/proc/pid"), r.number("/proc/start_ns")) == (lost, exit)
    });
    let master = master.ok_or_else(|| anyhow::anyhow!("no master_lost record of {lost}"))?.boot_ns();
    let since = |boot: i128| (boot - i128::from(master)) as f64 / 1_000.0;
    Ok(Death {
        orphaned: since(boot_ns_written(orphaned, offset)),
        signalled: since(boot_ns_written(of_worker("signal")?, offset)),
        gone: since(reaped.boot_ns().into()),
    })
}
