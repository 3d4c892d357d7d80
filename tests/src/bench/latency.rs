//! `latency`: how long an orphan lives, from its master's exit tracepoint; beside it what people use instead.
//!
//! Every time comes from an agent's event log: with reaper's rule from the agent that acts, with the others from one that only
//! observes, whose records have the kernel's times of both exits. The others are: the cron script's rule (its `ps` and
//! `pstree` included, every ten seconds here and not every minute, since nobody waits that long for a figure), a worker that
//! asks for its parent once a second as Horizon's do, and `PR_SET_PDEATHSIG`.

mod others;
mod timestamp;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::others::{Other, other};
use self::timestamp::{boot_ns_written, real_minus_boot};
use super::Plan;
use super::cost::many_descriptors;
use super::lives::Lives;
use super::report::{Cell, Report, Table};
use super::stats::quantile;
use crate::agent::Agent;
use crate::config::Config;
use crate::log::Record;
use crate::process::{Proc, Signal, comes_true, wait_until};
use crate::scene::Scene;
use crate::script::{Op, worker};

/// The clock may be adjusted while it is measured by so much, in nanoseconds.
const CLOCK: u64 = 100_000;

/// How long the workers of one master may live on: longer than any rule takes, and less than they live by themselves.
const AN_END: Duration = Duration::from_secs(40);

/// Workers of a master, with reaper and with the others, whose times hardly depend on it.
const WORKERS: ([usize; 4], [usize; 2]) = ([1, 16, 100, 1_000], [1, 100]);
const FEW: ([usize; 2], [usize; 1]) = ([1, 16], [1]);

/// A file system in memory.
const MEMORY: &str = "/dev/shm";

/// The first record of each kind about each process.
struct Firsts<'a>(HashMap<(&'a str, u64, u64), &'a Record>);

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
    let (all, few): (&[usize], &[usize]) =
        if plan.short { (&FEW.0, &FEW.1) } else { (&WORKERS.0, &WORKERS.1) };
    many_descriptors()?;
    for host in [Host::Idle, Host::Loaded] {
        for &workers in all {
            eprintln!("bench: latency: {workers} workers{}", host.suffix());
            let rounds = rounds(plan, host, workers)?;
            let name = format!("reaper, {workers}{}", host.suffix());
            let fields: [fn(&Death) -> f64; 3] = [|d| d.orphaned, |d| d.signalled, |d| d.gone];
            for (table, field) in tables.iter_mut().zip(fields) {
                table.row(&name, cells(&rounds, field));
            }
        }
    }
    for rule in Other::ALL {
        for &workers in few {
            eprintln!("bench: latency: {}, {workers} workers", rule.name());
            let rounds = other(rule, workers, plan)?;
            tables[2].row(&format!("{}, {workers}", rule.name()), cells(&rounds, |gone| *gone));
        }
    }
    tables.into_iter().for_each(|table| report.table(table));
    report
        .note("p50 and p99 are medians of the rounds' quantiles, p99.9 and worst are of all rounds together");
    report.note("reaper: `proof = \"asleep\"`, `quiet = \"0s\"`, freezing on; every worker sleeps; the state in memory, the log on a disk");
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
    // A round has about as many workers whatever their number, so that its agent's log stays small.
    let kills = if plan.short { 3 } else { (150 / workers).clamp(1, 50) };
    let scene = Scene::new();
    let _load = match host {
        Host::Idle => None,
        Host::Loaded => Some(Lives::burner(&scene, std::thread::available_parallelism()?.get())?),
    };
    (0..plan.rounds).map(|_| round(kills, workers)).collect()
}

fn round(kills: usize, workers: usize) -> Result<Vec<Death>> {
    let scene = Scene::new();
    // As by default, where it is below /run.
    let memory = tempfile::tempdir_in(MEMORY).with_context(|| format!("cannot keep a state in {MEMORY}"))?;
    let mut config = Config::new(&scene).quiet("0s").stop("max_kills = 1000000");
    config.state = memory.path().join("state");
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
    let firsts = Firsts::of(&records);
    let reaped = records.iter().filter(|r| r.kind() == "reaped");
    reaped.map(|reaped| firsts.death(reaped, offset)).collect()
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
    let ended = comes_true(AN_END, || workers.iter().all(|worker| !worker.is_alive()));
    assert!(ended, "workers of {} live on for {AN_END:?}", master.pid());
    (master, workers)
}

impl Host {
    fn suffix(self) -> &'static str {
        match self {
            Self::Idle => "",
            Self::Loaded => ", every CPU busy",
        }
    }
}

impl<'a> Firsts<'a> {
    fn of(records: &'a [Record]) -> Self {
        let mut firsts = HashMap::new();
        for record in records.iter().filter(|record| record.get("proc").is_some()) {
            let (pid, start) = who(record, "proc");
            firsts.entry((record.kind(), pid, start)).or_insert(record);
        }
        Self(firsts)
    }

    fn find(&self, kind: &str, (pid, start): (u64, u64)) -> Result<&'a Record> {
        self.0.get(&(kind, pid, start)).copied().with_context(|| format!("no {kind} record of {pid}"))
    }

    /// One worker's end.
    fn death(&self, reaped: &Record, offset: i128) -> Result<Death> {
        let worker = who(reaped, "proc");
        let orphaned = self.find("orphaned", worker)?;
        let master = self.find("master_lost", who(orphaned, "lost"))?.boot_ns();
        let since = |boot: i128| (boot - i128::from(master)) as f64 / 1_000.0;
        Ok(Death {
            orphaned: since(boot_ns_written(orphaned, offset)),
            signalled: since(boot_ns_written(self.find("signal", worker)?, offset)),
            gone: since(reaped.boot_ns().into()),
        })
    }
}

/// Pid and start of the process in this field.
fn who(record: &Record, field: &str) -> (u64, u64) {
    (record.number(&format!("/{field}/pid")), record.number(&format!("/{field}/start_ns")))
}
