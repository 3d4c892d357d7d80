//! `start`: from the start of the program to `READY=1`, by the number of processes; beside it one sweep of what the cron
//! script does.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};

use super::Plan;
use super::cost::{all_profiles, cpu_of, nanos, settled_cpu_of};
use super::lives::Lives;
use super::report::{Cell, Report, Table};
use crate::agent::Agent;
use crate::scene::Scene;

pub(super) fn run(plan: Plan) -> Result<Report> {
    let mut report = Report::new("start");
    let columns = [
        "further live processes",
        "reaper until ready, ms",
        "reaper until ready, CPU ms",
        "CPU ms until it has looked at everybody",
        "of that the dump, ms",
        "ps -efww, CPU ms",
        "pstree -a -p, CPU ms",
        "ps and pstree, wall-clock ms",
    ];
    let mut table = Table::new("Starting, and one sweep of the cron script", &columns);
    let sizes: &[usize] = if plan.short { &[100] } else { &[100, 1_000, 10_000] };
    for &size in sizes {
        let scene = Scene::new();
        let holder = Lives::holder(&scene, size)?;
        let mut figures: [Vec<f64>; 7] = Default::default();
        for _ in 0..plan.rounds {
            let Start { wall, cpu, settled, dump } = start(&scene)?;
            let (ps, ps_wall) = sweep(Command::new("ps").arg("-efww"))?;
            let (pstree, pstree_wall) = sweep(Command::new("pstree").args(["-a", "-p"]))?;
            let all = [wall, cpu, settled, dump, ps, pstree, ps_wall + pstree_wall];
            figures.iter_mut().zip(all).for_each(|(figures, one)| figures.push(one));
        }
        table.row(&size.to_string(), figures.map(Cell::of).into());
        drop(holder);
    }
    report.table(table);
    report.note("`Agent::start` asks every 3 ms whether the agent is ready, which is in its wall-clock time");
    Ok(report.end())
}

/// Milliseconds until an agent is ready, the CPU time of that, the CPU time until it has come to rest, and what its `snapshot`
/// record says of the dump.
struct Start {
    wall: f64,
    cpu: f64,
    settled: f64,
    dump: f64,
}

fn start(scene: &Scene) -> Result<Start> {
    let config = all_profiles(scene);
    let began = Instant::now();
    let agent = Agent::start(scene, &config);
    let wall = ms(began.elapsed());
    let cpu = ms(cpu_of(agent.process().pid())?);
    let settled = ms(settled_cpu_of(agent.process().pid())?);
    let dump = agent.wait_for("snapshot", |record| record.kind() == "snapshot").number("took_us");
    agent.stop();
    std::fs::remove_file(&config.log)?;
    Ok(Start { wall, cpu, settled, dump: dump as f64 / 1_000.0 })
}

/// CPU and wall-clock time of a command whose output nobody reads, in milliseconds.
fn sweep(command: &mut Command) -> Result<(f64, f64)> {
    let used = || getrusage(UsageWho::RUSAGE_CHILDREN).map(|usage| usage.user_time() + usage.system_time());
    let (before, began) = (used()?, Instant::now());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?} failed");
    let wall = ms(began.elapsed());
    let used = used()? - before;
    let micros = used.tv_sec() as f64 * 1e6 + used.tv_usec() as f64;
    Ok((micros / 1_000.0, wall))
}

fn ms(time: Duration) -> f64 {
    nanos(time) / 1e6
}
