//! `agent`: CPU time of the agent for processes that do not concern it, and its memory by the number of live processes.

use anyhow::Result;

use super::Plan;
use super::cost::{all_profiles, cpu_of, memory_of, nanos, settled_cpu_of};
use super::lives::{Kind, Lives};
use super::report::{Cell, Report, Table};
use crate::agent::Agent;
use crate::process::wait_until;
use crate::scene::Scene;

/// How often memory is measured: each time with an agent of its own.
const AGENTS: usize = 3;

pub(super) fn run(plan: Plan) -> Result<Report> {
    let mut report = Report::new("agent");
    report.table(cpu(plan)?);
    report.table(memory(plan)?);
    report.note("CPU time is the agent's own clock (CLOCK_PROCESS_CPUTIME_ID), until it has come to rest after the last life");
    report.note("memory is VmRSS and RssAnon of /proc/PID/status; the processes share one memory and sleep");
    Ok(report.end())
}

fn cpu(plan: Plan) -> Result<Table> {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &all_profiles(&scene));
    let pid = agent.process().pid();
    let mut maker = Lives::maker(&scene)?;
    let lives = if plan.short { 500 } else { 5_000 };
    let columns =
        ["life", "agent, CPU us a life", "agent, CPU us an event", "the life itself, wall-clock us"];
    let mut table = Table::new("The agent's CPU time", &columns);
    settled_cpu_of(pid)?;
    for kind in Kind::all() {
        let mut figures: [Vec<f64>; 3] = Default::default();
        for _ in 0..plan.rounds {
            let before = cpu_of(pid)?;
            let wall = maker.make(&kind, lives)?;
            let used = nanos(settled_cpu_of(pid)? - before) / lives as f64 / 1_000.0;
            figures[0].push(used);
            figures[1].push(used / kind.events());
            figures[2].push(wall / lives as f64 / 1_000.0);
        }
        table.row(kind.name(), figures.map(Cell::of).into());
    }
    agent.stop();
    Ok(table)
}

fn memory(plan: Plan) -> Result<Table> {
    let columns = ["further live processes", "resident, MiB", "not files, MiB", "not files, bytes a process"];
    let mut table = Table::new("The agent's memory", &columns);
    let most: usize = std::fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse()?;
    let sizes: &[usize] = if plan.short { &[0, 100] } else { &[0, 1_000, 10_000, 20_000, 100_000] };
    let mut without = 0.0;
    for &size in sizes {
        if size + 2_000 > most {
            let why = format!("not measured: pid_max is {most}");
            table.row(&size.to_string(), vec![Cell::none(&why), Cell::none("–"), Cell::none("–")]);
            continue;
        }
        let mut figures: [Vec<f64>; 2] = Default::default();
        for _ in 0..AGENTS {
            let scene = Scene::new();
            let agent = Agent::start(&scene, &all_profiles(&scene));
            let pid = agent.process().pid();
            let before = processes()?;
            let holder = Lives::holder(&scene, size)?;
            settled_cpu_of(pid)?;
            let (resident, own) = memory_of(pid)?;
            figures[0].push(resident as f64);
            figures[1].push(own as f64);
            drop(holder);
            // They take their time to go, and there is no room for as many again.
            wait_until("the end of the processes", || processes().is_ok_and(|now| now < before + 100));
            agent.stop();
        }
        let mebibytes = |values: &[f64]| Cell::of(values.iter().map(|bytes| bytes / 1_048_576.0).collect());
        let own = super::stats::median(&figures[1]);
        let each = if size == 0 {
            without = own;
            Cell::none("–")
        } else {
            Cell::of(figures[1].iter().map(|bytes| (bytes - without) / size as f64).collect())
        };
        table.row(&size.to_string(), vec![mebibytes(&figures[0]), mebibytes(&figures[1]), each]);
    }
    Ok(table)
}

/// How many there are on this machine.
fn processes() -> Result<usize> {
    let is_pid = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    Ok(std::fs::read_dir("/proc")?.flatten().filter(|entry| is_pid(&entry.file_name())).count())
}
