//! `decide`: what it costs to look at one process, to hold it still, and to watch its sockets.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::time::{ClockId, clock_gettime};
use reaper::clock;
use reaper::core::ids::ProcKey;
use reaper::core::input::Sampled;
use reaper::core::sample::Depth;
use reaper::freeze::freeze;
use reaper::idle::Sampler;
use reaper::kernel::{DEFAULT_RING_BYTES, Observer, Probes};
use reaper::procfs::start_ticks;
use reaper::signal::Held;

use super::Plan;
use super::cost::{many_descriptors, nanos};
use super::lives::Lives;
use super::report::{Cell, Report, Table};
use crate::process::TICK_NS;
use crate::scene::Scene;

/// Looks at one process after the first.
const LOOKS: u32 = 20;

/// Datagrams in one round.
const DATAGRAMS: u32 = 50_000;

pub(super) fn run(plan: Plan) -> Result<Report> {
    let mut report = Report::new("decide");
    many_descriptors()?;
    report.table(looks(plan)?);
    report.table(watching(plan)?);
    report.note("looks are CPU time of the thread that looks; freezes are wall-clock time, the helper thread's included");
    Ok(report.end())
}

fn looks(plan: Plan) -> Result<Table> {
    let columns = [
        "threads, sockets",
        "first look, CPU us",
        "then each, CPU us",
        "the last look, CPU us",
        "all threads stopped after, us",
        "frozen and let go, us",
    ];
    let mut table = Table::new("One look at an idle process, and one freeze", &columns);
    let shapes: &[(usize, usize)] =
        if plan.short { &[(1, 2)] } else { &[(1, 2), (16, 2), (128, 2), (1, 100), (1, 1_000)] };
    for &(threads, sockets) in shapes {
        let scene = Scene::new();
        let process = Lives::wide(&scene, threads, sockets)?;
        let pid = process.pid();
        let ticks = start_ticks(pid).map_err(anyhow::Error::msg)?;
        let key = ProcKey { tgid: pid, start_ns: ticks * TICK_NS };
        let mut figures: [Vec<f64>; 5] = Default::default();
        for _ in 0..plan.rounds {
            let mut sampler = Sampler::new();
            let first = look(&mut sampler, key, false)?;
            let mut then = Duration::ZERO;
            for _ in 0..LOOKS {
                then += look(&mut sampler, key, false)?;
            }
            let held = Arc::new(Held::open(key)?);
            let began = Instant::now();
            let frozen = freeze(held)?;
            let stopped = frozen.took();
            let last = look(&mut sampler, key, true)?;
            drop(frozen);
            let whole = began.elapsed();
            let all = [first, then / LOOKS, last, stopped, whole];
            figures.iter_mut().zip(all).for_each(|(figures, one)| figures.push(nanos(one) / 1_000.0));
        }
        table.row(&format!("{threads}, {sockets}"), figures.map(Cell::of).into());
    }
    Ok(table)
}

/// CPU time of one look.
fn look(sampler: &mut Sampler, key: ProcKey, frozen: bool) -> Result<Duration> {
    let used = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let began = used()?;
    match sampler.sample(clock::now(), key, Depth::Source, frozen) {
        Sampled::Seen(_) => Ok(used()? - began),
        other => bail!("the process cannot be looked at: {other:?}"),
    }
}

/// What the observer costs: its first watch, and the calls of a process that is watched, or is not while another is.
fn watching(plan: Plan) -> Result<Table> {
    let columns = [
        "a send and a receive",
        "nobody watched, ns",
        "watched, ns",
        "ratio",
        "first watch, ms",
        "last unwatch, ms",
    ];
    let mut table = Table::new("Watching a process's sockets", &columns);
    let mut probes = Probes::load(DEFAULT_RING_BYTES)?;
    let tasks = probes.tasks()?;
    let tellers = probes.observer().context("the observer is taken")?.tellers().to_vec();
    let key_of = |pid: u32| {
        let task = tasks.iter().find(|task| task.key.tgid == pid);
        task.map(|task| task.key).with_context(|| format!("{pid} is not in the dump"))
    };
    let own = key_of(std::process::id())?;
    let other = key_of(nix::unistd::getppid().as_raw().cast_unsigned())?;
    for teller in tellers {
        let mut observer = Probes::load(DEFAULT_RING_BYTES)?.observer().context("the observer is taken")?;
        observer.prefer(teller);
        for (name, key) in [("of the watched process", own), ("of another process", other)] {
            let mut figures: [Vec<f64>; 5] = Default::default();
            for _ in 0..plan.rounds {
                let all = watch(&mut observer, key)?;
                figures.iter_mut().zip(all).for_each(|(figures, one)| figures.push(one));
            }
            table.row(&format!("{name}, told by {teller:?}"), figures.map(Cell::of).into());
        }
    }
    Ok(table)
}

fn watch(observer: &mut Observer, key: ProcKey) -> Result<[f64; 5]> {
    let without = datagrams()?;
    let began = Instant::now();
    observer.watch(key)?;
    let loaded = began.elapsed();
    let with = datagrams()?;
    let began = Instant::now();
    observer.unwatch(key);
    let unloaded = began.elapsed();
    Ok([without, with, with / without, nanos(loaded) / 1e6, nanos(unloaded) / 1e6])
}

/// Nanoseconds of CPU time for a send and a receive.
fn datagrams() -> Result<f64> {
    let (near, far) = UnixDatagram::pair()?;
    let used = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let began = used()?;
    for _ in 0..DATAGRAMS {
        near.send(b"x")?;
        far.recv(&mut [0; 4])?;
    }
    Ok(nanos(used()? - began) / f64::from(DATAGRAMS))
}
