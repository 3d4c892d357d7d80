//! `tree`: the pure core on one thread, from the bytes of a record to the last effect, by the number of live processes.
//!
//! The host is made up: init has pools, each a leader that has exec'd and the members that it forked. Beside them a few
//! processes start short-lived programs; their births, images and deaths are what is measured. Whatever the core asks of
//! /proc is answered at once from a table, as the agent would from /proc: the answers are in the figures, reading /proc is not.
//! The rules are those of an agent without a configuration: every built-in profile.

mod host;
mod records;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use reaper::config::Config;
use reaper::core::rules::Rules;
use reaper::kernel::decode::decode;

use super::Plan;
use super::allocator::counted;
use super::report::{Cell, Report, Table};
use host::{Host, Shape};
use records::Stream;

/// Short-lived programs in one round, three events each.
const LIVES: usize = 20_000;

pub(super) fn run(plan: Plan) -> Result<Report> {
    let mut report = Report::new("tree");
    let sizes: &[u32] = if plan.short { &[1_000, 10_000] } else { &[1_000, 100_000, 1_000_000, 4_000_000] };
    // Patterns make their tables when they are first used: that is no process's memory.
    let rules = Arc::new(Config::embedded().rules);
    events(&rules, Plan { rounds: 1, ..plan }, Shape { processes: 1_000, pool: 64 });
    let columns = [
        "live processes",
        "million events a second",
        "ns an event",
        "of that decoding, ns",
        "allocations an event",
        "bytes a live process",
    ];
    let mut table = Table::new("Pools of 64 that share their leader's image and command line", &columns);
    for &size in sizes {
        table.row(&size.to_string(), events(&rules, plan, Shape { processes: size, pool: 64 }));
    }
    report.table(table);
    let mut table = Table::new("Every process has exec'd, with a command line of its own", &columns);
    for &size in sizes.iter().take(2) {
        table.row(&size.to_string(), events(&rules, plan, Shape { processes: size, pool: 1 }));
    }
    report.table(table);
    report
        .note("bytes are what was asked of the allocator and is still in use, spare room of tables included");
    report.note("times are wall-clock times of one thread that never waits");
    Ok(report.end())
}

/// A host of this shape, and what its short-lived programs cost.
fn events(rules: &Arc<Rules>, plan: Plan, shape: Shape) -> Vec<Cell> {
    let before = counted().used;
    let mut host = Host::new(rules, shape);
    let bytes = (counted().used - before) as f64 / f64::from(shape.processes);
    let mut stream = Stream::new(&host);
    let mut figures: [Vec<f64>; 4] = Default::default();
    // The first round is for the caches.
    for round in 0..=plan.rounds {
        let records = stream.next(LIVES);
        let (events, before, began) = (records.len() as f64, counted().allocations, Instant::now());
        for record in records.iter() {
            host.take(record);
        }
        let each = began.elapsed().as_secs_f64() * 1e9 / events;
        let allocations = (counted().allocations - before) as f64 / events;
        let began = Instant::now();
        for record in records.iter() {
            let _ = black_box(decode(black_box(record)));
        }
        let decoding = began.elapsed().as_secs_f64() * 1e9 / events;
        if round > 0 {
            figures
                .iter_mut()
                .zip([1e3 / each, each, decoding, allocations])
                .for_each(|(f, one)| f.push(one));
        }
    }
    let mut cells: Vec<Cell> = figures.map(Cell::of).into();
    cells.push(Cell::of(vec![bytes]));
    cells
}
