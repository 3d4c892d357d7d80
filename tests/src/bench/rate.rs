//! `rate`: as many process lives as the machine can make, for a minute each kind, and whether the agent has missed an event.
//!
//! Every CPU has a process that makes them as fast as it can, so the agent has to get its share. The rings have their default
//! size.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Plan;
use super::cost::{all_profiles, cpu_of, nanos};
use super::lives::{Kind, Lives};
use super::report::{Cell, Report, Table};
use crate::agent::Agent;
use crate::scene::Scene;

/// Lives between two looks at the clock.
const BATCH: usize = 200;

pub(super) fn run(plan: Plan) -> Result<Report> {
    let mut report = Report::new("rate");
    let (slices, slice) =
        if plan.short { (2, Duration::from_millis(500)) } else { (12, Duration::from_secs(5)) };
    let columns = ["life", "lives a second", "events lost", "agent, % of a CPU"];
    let mut table = Table::new("As fast as the machine can", &columns);
    let makers = std::thread::available_parallelism()?.get();
    for kind in Kind::all() {
        let scene = Scene::new();
        let agent = Agent::start(&scene, &all_profiles(&scene));
        let mut makers = (0..makers).map(|_| Lives::maker(&scene)).collect::<Result<Vec<_>>>()?;
        let (mut rates, mut shares) = (Vec::new(), Vec::new());
        for _ in 0..slices {
            let (before, began) = (cpu_of(agent.process().pid())?, Instant::now());
            let lives = together(&mut makers, &kind, began + slice)?;
            let took = nanos(began.elapsed());
            rates.push(lives as f64 * 1e9 / took);
            shares.push(nanos(cpu_of(agent.process().pid())? - before) / took * 100.0);
        }
        drop(makers);
        let lost = lost(agent);
        table.row(kind.name(), vec![Cell::of(rates), Cell::of(vec![lost as f64]), Cell::of(shares)]);
    }
    report.table(table);
    report.note(format!(
        "{makers} makers for {slices} times {slice:?} each kind; in brackets how the slices differ"
    ));
    Ok(report.end())
}

/// Has all of them make lives until then; how many came about.
fn together(makers: &mut [Lives], kind: &Kind, until: Instant) -> Result<usize> {
    std::thread::scope(|scope| {
        let alone = |maker: &mut Lives| -> Result<usize> {
            let mut lives = 0;
            while Instant::now() < until {
                maker.make(kind, BATCH)?;
                lives += BATCH;
            }
            ensure!(lives > 0, "one of them made nothing");
            Ok(lives)
        };
        let all: Vec<_> = makers.iter_mut().map(|maker| scope.spawn(move || alone(maker))).collect();
        let join = |one: std::thread::ScopedJoinHandle<'_, _>| {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        all.into_iter().map(join).sum()
    })
}

/// What the agent says that it has missed until its end.
fn lost(agent: Agent) -> u64 {
    let records = agent.stop();
    records.iter().filter(|r| r.kind() == "events_lost").map(|r| r.number("count")).sum()
}
