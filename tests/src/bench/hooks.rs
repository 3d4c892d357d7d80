//! `hooks`: what the kernel programs cost, from the kernel's own statistics of them (`BPF_ENABLE_STATS`), with a running agent.
//!
//! The statistics count every run, those for other programs of the machine too: the figures are means of a run, so these do not
//! matter much. What starting a program costs (the tracepoint, the trampoline) is not in them; `host` shows everything.

use anyhow::Result;

use super::Plan;
use super::cost::{Counted, PROGRAMS, all_profiles};
use super::lives::{Kind, Lives};
use super::report::{Cell, Report, Table};
use crate::scene::Scene;

pub(super) fn run(plan: Plan) -> Result<Report> {
    let mut report = Report::new("hooks");
    let scene = Scene::new();
    let counted = Counted::start(&scene, &all_profiles(&scene))?;
    let mut maker = Lives::maker(&scene)?;
    let lives = if plan.short { 500 } else { 5_000 };
    let columns = [
        "life",
        "process_fork, ns",
        "process_exec, ns",
        "process_exit, ns",
        "the life's programs, ns",
        "of its wall-clock time, %",
    ];
    let mut table = Table::new("Kernel programs, a run each", &columns);
    for kind in Kind::all() {
        let mut figures: [Vec<f64>; 5] = Default::default();
        maker.make(&kind, lives / 10)?;
        for _ in 0..plan.rounds {
            let before = counted.runs()?;
            let wall = maker.make(&kind, lives)?;
            let after = counted.runs()?;
            let mut all = 0.0;
            for at in 0..3 {
                let (runs, time) = (after[at].0 - before[at].0, after[at].1 - before[at].1);
                // A program that is not a part of this life ran for others only.
                if runs > 0 && (PROGRAMS[at] != "process_exec" || kind.execs()) {
                    let each = time / runs as f64;
                    all += each;
                    figures[at].push(each);
                }
            }
            figures[3].push(all);
            figures[4].push(all / (wall / lives as f64) * 100.0);
        }
        let cell = |values: Vec<f64>| if values.is_empty() { Cell::none("–") } else { Cell::of(values) };
        table.row(kind.name(), figures.map(cell).into());
    }
    report.table(table);
    report.note(format!(
        "{} rounds of {lives} lives each; {} profiles observed",
        plan.rounds,
        reaper::profiles::all().len()
    ));
    counted.agent.stop();
    Ok(report.end())
}
