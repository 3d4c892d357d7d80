//! `host`: what the host's own work loses to whoever watches its processes: nobody, reaper, and other tools.
//!
//! Each round measures every watcher once, in an order that changes from round to round, and a watcher's figures are ratios to
//! the figure without any of the same round. So a slow drift of the machine does not look like a difference.

mod watchers;
mod work;

use std::collections::BTreeMap;

use anyhow::Result;

use self::watchers::{Watcher, Watching};
use self::work::Work;
use super::Plan;
use super::cost::{memory_of, nanos, settled_cpu_of};
use super::lives::{Kind, Lives};
use super::report::{Cell, Report, Table};
use super::stats::median;
use crate::scene::Scene;

/// By watcher and work, a figure for each round: microseconds.
type Figures = BTreeMap<(Watcher, String), Vec<f64>>;

/// What a watcher itself cost in a round.
#[derive(Default)]
struct Own {
    cpu_each: Vec<f64>,
    resident: Vec<f64>,
}

pub(super) fn run(plan: Plan) -> Result<Report> {
    let mut report = Report::new("host");
    let kinds = Kind::all();
    let (mut figures, mut own) = (Figures::new(), BTreeMap::<Watcher, Own>::new());
    let watchers: Vec<Watcher> = Watcher::ALL.into_iter().filter(|w| w.is_here()).collect();
    for round in 0..plan.rounds {
        for at in 0..watchers.len() {
            let watcher = watchers[(at + round) % watchers.len()];
            eprintln!("bench: host: round {} of {}, {}", round + 1, plan.rounds, watcher.name());
            let measured = own.entry(watcher).or_default();
            for (work, micros) in one(watcher, &kinds, plan, measured)? {
                figures.entry((watcher, work)).or_default().push(micros);
            }
        }
    }
    let mut works: Vec<String> = kinds.iter().map(|kind| kind.name().to_owned()).collect();
    for work in Work::ALL {
        match figures.contains_key(&(Watcher::Nobody, work.name().to_owned())) {
            true => works.push(work.name().to_owned()),
            false => report.note(format!("{} is not installed: not measured", work.name())),
        }
    }
    report.table(slower(&watchers, &works, &figures));
    report.table(themselves(&watchers, &own));
    for missing in Watcher::ALL.into_iter().filter(|w| !watchers.contains(w)) {
        report.note(format!("{} is not installed", missing.name()));
    }
    report.note(format!(
        "{} rounds; in brackets the 95 % interval of the median of the rounds' ratios",
        plan.rounds
    ));
    report.note("wall-clock times: they want a machine that does nothing else");
    Ok(report.end())
}

/// Every work once while somebody watches.
fn one(watcher: Watcher, kinds: &[Kind], plan: Plan, own: &mut Own) -> Result<Vec<(String, f64)>> {
    let scene = Scene::new();
    let mut maker = Lives::maker(&scene)?;
    let watching = Watching::start(watcher, &scene, &mut maker)?;
    let lives = if plan.short { 200 } else { 2_000 };
    let mut micros = Vec::new();
    let before = watching.pid().map(settled_cpu_of).transpose()?;
    for kind in kinds {
        micros.push((kind.name().to_owned(), maker.make(kind, lives)? / lives as f64 / 1_000.0));
    }
    if let (Some(pid), Some(before)) = (watching.pid(), before) {
        let used = settled_cpu_of(pid)? - before;
        own.cpu_each.push(nanos(used) / 1_000.0 / (lives * kinds.len()) as f64);
        own.resident.push(memory_of(pid)?.0 as f64 / 1_048_576.0);
    }
    for work in Work::ALL {
        if let Some(time) = work.done(&scene, plan)? {
            micros.push((work.name().to_owned(), nanos(time) / 1_000.0));
        }
    }
    watching.stop()?;
    Ok(micros)
}

fn slower(watchers: &[Watcher], works: &[String], figures: &Figures) -> Table {
    let mut columns = vec!["watched by"];
    columns.extend(works.iter().map(String::as_str));
    let title = "The host's work: microseconds a life or a run without a watcher, then by how many per cent it is slower";
    let mut table = Table::new(title, &columns);
    for &watcher in watchers {
        let cell = |work: &String| {
            let (own, without) =
                (&figures[&(watcher, work.clone())], &figures[&(Watcher::Nobody, work.clone())]);
            if watcher == Watcher::Nobody {
                return Cell::of(own.clone());
            }
            Cell::of(own.iter().zip(without).map(|(own, without)| (own / without - 1.0) * 100.0).collect())
        };
        table.row(watcher.name(), works.iter().map(cell).collect());
    }
    table
}

fn themselves(watchers: &[Watcher], own: &BTreeMap<Watcher, Own>) -> Table {
    let columns = ["watcher", "its own CPU, us a life", "as reaper's", "resident, MiB"];
    let mut table = Table::new("The watchers themselves, over all lives of the table above", &columns);
    let reaper = median(&own[&Watcher::Reaper].cpu_each);
    for &watcher in watchers.iter().filter(|w| **w != Watcher::Nobody) {
        let Own { cpu_each, resident } = &own[&watcher];
        let ratios = cpu_each.iter().map(|one| one / reaper).collect();
        let cells = vec![Cell::of(cpu_each.clone()), Cell::of(ratios), Cell::of(resident.clone())];
        table.row(watcher.name(), cells);
    }
    table
}
