//! What Prometheus reads: counters that follow from the event log's records, and what the agent knows at the moment.
//!
//! What it keeps true: a counter that says what was decided is raised in one place, [`Metrics::observe`], by the very record that goes to
//! the event log, so the two cannot tell different stories. No label holds text that came from a process: the number of
//! series is bounded by the configuration.

mod server;

use std::time::Duration;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;

use crate::core::Core;
use crate::core::ids::{MS, Ns};
use crate::core::records::{Event, Record};
use crate::core::rules::Mode;
use crate::kernel::ProgramStats;

pub use server::{Ask, Server};

/// Upper bounds of the histograms, seconds: around the usual `quiet` closely, then up to the length of long jobs.
const BOUNDS: [f64; 16] =
    [0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0];

/// A page younger than this is given again: whoever asks in a loop takes little of the agent's time.
const FRESH: Ns = 100 * MS;

/// Label names and values.
type Labels<const N: usize> = [(&'static str, String); N];

/// Histograms of one length of time.
type Lengths<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// Which text format is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's own, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What an answer in this format is called.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What is not in any record: how things stand when somebody asks.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The decisions.
    pub core: &'a Core,
    /// Events of the kernel that were taken in, by kind.
    pub events: [(&'static str, u64); 4],
    /// What the kernel programs cost.
    pub programs: &'a [ProgramStats],
    /// Records that did not make it to the event log.
    pub log_lost: u64,
    /// How often the event log could not be written.
    pub log_failures: u64,
    /// It cannot be written now.
    pub log_failing: bool,
}

/// Every metric.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    decided: Decided,
    standing: Standing,
    last: Option<(Ns, Format, String)>,
}

/// What is raised by records.
#[derive(Debug)]
struct Decided {
    records: Family<Labels<1>, Counter>,
    orphaned: Family<Labels<2>, Counter>,
    signals: Family<Labels<4>, Counter>,
    reaped: Family<Labels<2>, Counter>,
    left: Family<Labels<1>, Counter>,
    spared: Family<Labels<2>, Counter>,
    lost: Counter,
    resyncs: Counter,
    since_orphan: Lengths<2>,
    since_idle: Lengths<2>,
    gone: Lengths<1>,
}

/// What is set when somebody asks.
#[derive(Debug)]
struct Standing {
    processes: Gauge,
    complete: Gauge,
    masters: Family<Labels<1>, Gauge>,
    orphans: Family<Labels<2>, Gauge>,
    armed: Family<Labels<1>, Gauge>,
    breaker: Family<Labels<1>, Gauge>,
    enforcing: Family<Labels<1>, Gauge>,
    events: Family<Labels<1>, Counter>,
    runs: Family<Labels<1>, Counter>,
    run_time: Family<Labels<1>, Counter<f64, std::sync::atomic::AtomicU64>>,
    missed: Family<Labels<1>, Counter>,
    log_lost: Counter,
    log_failures: Counter,
    log_failing: Gauge,
}

impl Metrics {
    /// Nothing has happened yet.
    pub fn new(version: &str, kernel: &str) -> Self {
        let mut registry = Registry::with_prefix("reaper");
        let build = Family::<Labels<2>, Gauge>::default();
        build.get_or_create(&[("version", version.to_owned()), ("kernel", kernel.to_owned())]).set(1);
        registry.register("build_info", "The agent's version and the kernel it runs on; always 1", build);
        let decided = Decided::new(&mut registry);
        let standing = Standing::new(&mut registry);
        Self { registry, decided, standing, last: None }
    }

    /// Takes in a record that goes to the event log.
    pub fn observe(&self, record: &Record) {
        self.decided.observe(&record.event);
    }

    /// The page, at the time `now`.
    pub fn page(&mut self, now: Ns, format: Format, facts: &Facts<'_>) -> String {
        if let Some((at, of, page)) = &self.last
            && *of == format
            && now.saturating_sub(*at) < FRESH
        {
            return page.clone();
        }
        self.standing.set(facts);
        let mut page = String::new();
        let written = match format {
            Format::Prometheus => prometheus_text::encode(&mut page, &self.registry),
            Format::OpenMetrics => text::encode(&mut page, &self.registry),
        };
        if let Err(e) = written {
            // A string takes everything, so this is a value that cannot be said.
            tracing::error!("the metrics cannot be written: {e}");
        }
        self.last = Some((now, format, page.clone()));
        page
    }
}

impl Decided {
    fn new(registry: &mut Registry) -> Self {
        let lengths = || Histogram::new(BOUNDS);
        let new = Self {
            records: Family::default(),
            orphaned: Family::default(),
            signals: Family::default(),
            reaped: Family::default(),
            left: Family::default(),
            spared: Family::default(),
            lost: Counter::default(),
            resyncs: Counter::default(),
            since_orphan: Family::new_with_constructor(lengths),
            since_idle: Family::new_with_constructor(lengths),
            gone: Family::new_with_constructor(lengths),
        };
        registry.register("records", "Records for the event log, by kind", new.records.clone());
        registry.register("orphaned", "Processes that became orphans", new.orphaned.clone());
        registry.register(
            "signals",
            "Signals, and with dry_run=\"true\" those that would have been; one that fails has an error record besides",
            new.signals.clone(),
        );
        registry.register("reaped", "Orphans gone after a signal of the agent's", new.reaped.clone());
        registry.register("left", "Orphans gone by themselves", new.left.clone());
        registry.register(
            "spared",
            "Orphans, or what looked like one, that are not signalled, and why",
            new.spared.clone(),
        );
        registry.register("events_lost", "Events of the kernel that were lost", new.lost.clone());
        registry.register("resyncs", "How often the tree was rebuilt after a loss", new.resyncs.clone());
        let mut seconds = |name, help, lengths: Lengths<2>| {
            registry.register_with_unit(name, help, Unit::Seconds, lengths);
        };
        seconds(
            "signal_since_orphaned",
            "From the loss of the master to the signal",
            new.since_orphan.clone(),
        );
        seconds("signal_since_idle", "From the beginning of idleness to the signal", new.since_idle.clone());
        registry.register_with_unit(
            "gone_since_orphaned",
            "From the loss of the master to the orphan's end, if the agent signalled it",
            Unit::Seconds,
            new.gone.clone(),
        );
        new
    }

    fn observe(&self, event: &Event) {
        self.records.get_or_create(&[("kind", event.kind().to_owned())]).inc();
        match event {
            Event::Orphaned { group, stray, .. } => {
                self.orphaned.get_or_create(&[of(group), ("stray", stray.to_string())]).inc();
            }
            Event::Signal { group, signal, step, dry_run, since_orphan_us, since_idle_us, .. } => {
                let dry_run = ("dry_run", dry_run.to_string());
                let labels =
                    [of(group), ("signal", signal.clone()), ("step", step.to_string()), dry_run.clone()];
                self.signals.get_or_create(&labels).inc();
                let labels = [of(group), dry_run];
                self.since_orphan.get_or_create(&labels).observe(seconds(*since_orphan_us));
                self.since_idle.get_or_create(&labels).observe(seconds(*since_idle_us));
            }
            Event::Reaped { group, signal, took_us, .. } => {
                self.reaped.get_or_create(&[of(group), ("signal", signal.clone())]).inc();
                self.gone.get_or_create(&[of(group)]).observe(seconds(*took_us));
            }
            Event::Left { group, .. } => {
                self.left.get_or_create(&[of(group)]).inc();
            }
            Event::Spared { group, because, .. } => {
                self.spared.get_or_create(&[of(group), ("because", word(because))]).inc();
            }
            Event::EventsLost { count } => {
                self.lost.inc_by(*count);
            }
            Event::Resynced { .. } => {
                self.resyncs.inc();
            }
            _ => {}
        }
    }
}

impl Standing {
    fn new(registry: &mut Registry) -> Self {
        let new = Self {
            processes: Gauge::default(),
            complete: Gauge::default(),
            masters: Family::default(),
            orphans: Family::default(),
            armed: Family::default(),
            breaker: Family::default(),
            enforcing: Family::default(),
            events: Family::default(),
            runs: Family::default(),
            run_time: Family::default(),
            missed: Family::default(),
            log_lost: Counter::default(),
            log_failures: Counter::default(),
            log_failing: Gauge::default(),
        };
        let of_group: [(&str, &str, &Family<Labels<1>, Gauge>); 4] = [
            ("masters", "Masters now", &new.masters),
            ("armed", "1 if the group has had a master since boot", &new.armed),
            ("breaker_open", "1 if the group has used up its kills and signals nobody", &new.breaker),
            ("enforcing", "1 if the group signals, 0 if it observes", &new.enforcing),
        ];
        for (name, help, family) in of_group {
            registry.register(name, help, family.clone());
        }
        registry.register("processes", "Live processes in the agent's tree", new.processes.clone());
        registry.register("orphans", "Orphans now, by what was last seen of them", new.orphans.clone());
        registry.register(
            "tree_complete",
            "1 if every process is known, 0 from a loss until the tree is rebuilt: nobody is signalled then",
            new.complete.clone(),
        );
        registry.register("events", "Events of the kernel taken in, by kind", new.events.clone());
        registry.register(
            "program_runs",
            "Runs of a kernel program; only while the kernel counts (kernel.bpf_stats_enabled)",
            new.runs.clone(),
        );
        registry.register_with_unit(
            "program_run",
            "Time that the runs of a kernel program took; only while the kernel counts",
            Unit::Seconds,
            new.run_time.clone(),
        );
        registry.register(
            "program_missed",
            "Runs of a kernel program that the kernel left out; not in reaper_events_lost_total",
            new.missed.clone(),
        );
        registry.register(
            "log_records_lost",
            "Records that could not be written to the event log",
            new.log_lost.clone(),
        );
        registry.register(
            "log_write_failures",
            "Failed attempts to write to the event log",
            new.log_failures.clone(),
        );
        registry.register(
            "log_failing",
            "1 if the event log cannot be written: nobody is signalled meanwhile",
            new.log_failing.clone(),
        );
        new
    }

    fn set(&self, facts: &Facts<'_>) {
        let Facts { core, events, programs, log_lost, log_failures, log_failing } = facts;
        self.processes.set(whole(core.tree().live_count()));
        self.complete.set(core.is_clear().into());
        self.set_groups(core);
        for &(kind, total) in events {
            raise(&self.events.get_or_create(&[("kind", kind.to_owned())]), total);
        }
        for program in *programs {
            let labels = [("program", program.name.to_owned())];
            raise(&self.missed.get_or_create(&labels), program.missed);
            // A kernel that does not count says 0 of everything.
            if program.runs > 0 {
                raise(&self.runs.get_or_create(&labels), program.runs);
                let spent = self.run_time.get_or_create(&labels);
                let new = program.time.saturating_sub(Duration::from_secs_f64(spent.get()));
                spent.inc_by(new.as_secs_f64());
            }
        }
        raise(&self.log_lost, *log_lost);
        raise(&self.log_failures, *log_failures);
        self.log_failing.set((*log_failing).into());
    }

    /// Groups go with a reload, so these series are made anew.
    fn set_groups(&self, core: &Core) {
        for family in [&self.masters, &self.armed, &self.breaker, &self.enforcing] {
            family.clear();
        }
        self.orphans.clear();
        for group in core.status() {
            let labels = [of(&group.name)];
            self.masters.get_or_create(&labels).set(whole(group.masters));
            self.armed.get_or_create(&labels).set(group.armed.into());
            self.breaker.get_or_create(&labels).set(group.breaker_open.into());
            for verdict in ["idle", "busy", "unknown", "unseen"] {
                self.orphans.get_or_create(&[of(&group.name), ("verdict", verdict.to_owned())]).set(0);
            }
        }
        for (group, mode) in core.modes() {
            self.enforcing.get_or_create(&[of(group)]).set((mode == Mode::Enforce).into());
        }
        for orphan in core.orphans() {
            let verdict = orphan.shown().map_or_else(|| "unseen".to_owned(), |v| word(&v));
            for group in core.groups_of(orphan) {
                self.orphans.get_or_create(&[of(group), ("verdict", verdict.clone())]).inc();
            }
        }
    }
}

fn of(group: &str) -> (&'static str, String) {
    ("group", group.to_owned())
}

/// As records write it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn seconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

fn whole(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Lets a counter follow one that is kept elsewhere.
fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests;
