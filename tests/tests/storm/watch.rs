//! The agent's own way of an event, from the programs to the tree, without the rest of the agent: what `agent/mod.rs` does
//! to attach, dump, merge and drain.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reaper::agent::snapshot;
use reaper::clock;
use reaper::config::Config;
use reaper::core::Core;
use reaper::core::effect::Effect;
use reaper::core::input::Input;
use reaper::core::rules::Rules;
use reaper::kernel::{Events, Probes};
use reaper::procfs;
use reaper_tests::process::{PATIENCE, TICK_NS};
use reaper_tests::storm::{Row, Storm, proc_rows};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::book::Book;

/// Every process is told about, and a group makes the agent look at them; nobody is a master.
const CONFIG: &str = "[agent]\nlog_level = \"all\"\n\
    [[group]]\nname = \"nobody\"\n[group.master]\ncmdline = '^no process is called this$'\n";

/// Priority of the watching thread, unless `REAPER_STORM_NICE` says otherwise. Processes of the storm have 0.
const NICE: i32 = -15;

/// A storm is over when nothing has been heard of it for so long.
const CALM: Duration = Duration::from_millis(100);

/// No storm that a test waits for lasts longer.
pub(crate) const STORM_MAX: Duration = Duration::from_secs(900);

/// Programs, core, and notes.
pub(crate) struct Watch {
    runtime: Runtime,
    probes: Probes,
    events: Events,
    pub(crate) core: Core,
    pub(crate) book: Book,
    pub(crate) resyncs: usize,
    /// Runs of programs that the kernel has left out.
    pub(crate) left_out: u64,
    inputs: u64,
    drained: Instant,
    worst: Worst,
}

/// The longest that something took.
#[derive(Clone, Copy, Debug, Default)]
struct Worst {
    /// From one drain to the next.
    between_drains: Duration,
    effect: Duration,
    drain: Duration,
}

impl Watch {
    /// Loads the programs; nothing is seen yet. This thread goes before the storm's processes, as an agent should: a debug
    /// build that has to share two CPUs with a hundred others cannot keep up.
    pub(crate) fn load(ring_bytes: u32) -> Self {
        let nice = std::env::var("REAPER_STORM_NICE").map_or(NICE, |n| n.parse().unwrap());
        rustix::process::setpriority_process(None, nice).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut probes = Probes::load(ring_bytes).unwrap_or_else(|error| panic!("{error}"));
        let events = {
            let _context = runtime.enter();
            probes.events().unwrap()
        };
        let mut core = Core::new(std::process::id());
        let (at, rules) = (clock::now(), Arc::new(rules()));
        core.handle(at, Input::Configured { at, rules, armed: Vec::new(), broken: Vec::new() });
        Self {
            runtime,
            probes,
            events,
            core,
            book: Book::default(),
            resyncs: 0,
            left_out: 0,
            inputs: 0,
            drained: Instant::now(),
            worst: Worst::default(),
        }
    }

    /// Attaches, dumps, merges: afterwards the tree is complete.
    pub(crate) fn begin(&mut self) {
        self.probes.attach().unwrap();
        self.drained = Instant::now();
        self.dump();
    }

    /// From here on the processes of this storm are counted as its.
    pub(crate) fn follow(&mut self, storm: &Storm) {
        self.book.roots.extend(storm.forkers());
    }

    /// Takes in what the kernel has written.
    pub(crate) fn drain(&mut self) {
        let began = Instant::now();
        self.worst.between_drains = self.worst.between_drains.max(began - self.drained);
        let Self { events, core, book, inputs, .. } = self;
        let drained = events.drain(|input| {
            book.note(&input);
            core.handle(clock::now(), input);
        });
        *inputs += u64::try_from(drained.records).unwrap();
        if let Some(lost) = events.losses().unwrap() {
            book.note(&lost);
            core.handle(clock::now(), lost);
        }
        let left_out = self.probes.missed();
        if left_out > self.left_out {
            let (at, count) = (clock::now(), left_out - self.left_out);
            self.core.handle(at, Input::Lost { at, count });
            self.left_out = left_out;
        }
        self.drained = Instant::now();
        self.worst.drain = self.worst.drain.max(self.drained - began);
    }

    /// Takes in what there is and does what the core wants, for a turn; false if something is left to do.
    fn settle(&mut self) -> bool {
        let end = Instant::now() + CALM;
        self.drain();
        let mut done = 0;
        while let Some(effect) = self.core.poll_effect() {
            let began = Instant::now();
            self.perform(effect);
            self.worst.effect = self.worst.effect.max(began.elapsed());
            done += 1;
            if done % 64 == 0 {
                self.drain();
                if Instant::now() > end {
                    return false;
                }
            }
        }
        true
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Record(record) => self.book.record(&record),
            Effect::Identify(key) => {
                if self.core.tree().find(key).is_some_and(|id| self.core.tree().is_unsettled(id)) {
                    self.book.asked.insert(key);
                }
                let now = clock::now();
                let outcome = procfs::identify(now, key, false);
                self.core.handle(now, Input::Identified { key, outcome });
            }
            Effect::Resync => {
                self.resyncs += 1;
                self.dump();
            }
            Effect::Persist | Effect::PersistSignal(_) | Effect::Release(_) => {}
            Effect::Watch { .. }
            | Effect::Unwatch(_)
            | Effect::Sample { .. }
            | Effect::Aim { .. }
            | Effect::Fire { .. } => {
                panic!("nobody has a master: {effect:?}")
            }
        }
    }

    fn dump(&mut self) {
        let at = clock::now();
        let mut tasks = self.probes.tasks().unwrap();
        snapshot::add_hidden(at, &mut tasks);
        let now = clock::now();
        let dumped = Input::Snapshot { at, took_ns: now - at, tasks };
        self.book.note(&dumped);
        self.core.handle(now, dumped);
        self.drain();
        let at = clock::now();
        self.book.merged_at = at;
        self.core.handle(at, Input::Merged { at });
    }

    /// Sleeps as the agent does, at most `longest`, and takes in what there is.
    fn turn(&mut self, longest: Duration) {
        let began = Instant::now();
        let due = self.core.next_deadline().map(|at| Duration::from_nanos(at.saturating_sub(clock::now())));
        let events = &mut self.events;
        let nap = due.map_or(longest, |due| due.min(longest));
        match self.runtime.block_on(async { timeout(nap, events.readable()).await }) {
            Ok(ready) => ready.unwrap(),
            Err(_) => self.core.handle(clock::now(), Input::Tick),
        }
        while !self.settle() && began.elapsed() < longest {}
    }

    /// Goes on until so many more were born.
    pub(crate) fn until_born(&mut self, more: u64) {
        let (began, enough) = (Instant::now(), self.book.lives + more);
        while self.book.lives < enough {
            assert!(began.elapsed() < STORM_MAX, "nobody is born: {}", self.numbers());
            self.turn(CALM);
        }
    }

    /// Goes on until the storm has played its last scene and all that it set off has been heard.
    pub(crate) fn until_over(&mut self, storm: &Storm) {
        let began = Instant::now();
        while !storm.is_over() {
            assert!(began.elapsed() < STORM_MAX, "the storm does not end: {}", self.numbers());
            self.turn(CALM);
        }
        let mut heard = (self.book.heard, Instant::now());
        while heard.1.elapsed() < CALM {
            assert!(began.elapsed() < STORM_MAX, "no calm after the storm: {}", self.numbers());
            self.turn(CALM);
            if heard.0 != self.book.heard {
                heard = (self.book.heard, Instant::now());
            }
        }
    }

    /// The tree against /proc. Other programs of the machine go on meanwhile: what differs is looked at again until it does
    /// not any more. What differs for [`PATIENCE`] is wrong.
    #[track_caller]
    pub(crate) fn compare(&mut self) -> Compared {
        let end = Instant::now() + PATIENCE;
        let mut looks = 1;
        let (mut open, processes) = self.differences();
        while !open.is_empty() && Instant::now() < end {
            self.turn(Duration::from_millis(20));
            let (again, _) = self.differences();
            open.retain(|difference| again.contains(difference));
            looks += 1;
        }
        let told: Vec<String> = open.iter().map(ToString::to_string).collect();
        assert!(open.is_empty(), "{} differences to /proc, of {processes}:\n{}", open.len(), told.join("\n"));
        let tree = self.core.tree();
        let survivors = tree.live().filter(|&id| self.book.is_ours(tree[id].key())).count();
        Compared { processes, survivors, looks }
    }

    fn differences(&mut self) -> (BTreeSet<Difference>, usize) {
        while !self.settle() {}
        let proc = proc_rows();
        while !self.settle() {}
        let tree = self.core.tree();
        let rows = tree.live().map(|id| {
            let key = tree[id].key();
            let ppid = tree.parent(id).map_or(0, |up| tree[up].key().tgid);
            (key.tgid, Row { start_ticks: key.start_ns / TICK_NS, ppid })
        });
        let rows: BTreeMap<u32, Row> = rows.collect();
        let pids: BTreeSet<u32> = proc.keys().chain(rows.keys()).copied().collect();
        let differing = pids.into_iter().filter_map(|pid| {
            let (proc, tree) = (proc.get(&pid).copied(), rows.get(&pid).copied());
            (proc != tree).then_some(Difference { pid, proc, tree })
        });
        (differing.collect(), proc.len())
    }

    /// What came in.
    pub(crate) fn numbers(&self) -> String {
        let Book { lives, lost, .. } = &self.book;
        let Worst { between_drains, drain, effect } = self.worst;
        format!(
            "{lives} lives, {} events, {lost} lost, {} left out, {} dumps more, worst drain {drain:.1?}, between drains \
             {between_drains:.1?}, effect {effect:.1?}",
            self.inputs, self.left_out, self.resyncs
        )
    }
}

fn rules() -> Rules {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("storm.toml");
    std::fs::write(&file, CONFIG).unwrap();
    Config::load(&file).unwrap_or_else(|errors| panic!("{errors}")).rules
}

/// One process that is not the same in the tree and in /proc.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Difference {
    pid: u32,
    proc: Option<Row>,
    tree: Option<Row>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, proc, tree } = self;
        let name =
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        write!(f, "{pid}: /proc has {proc:?}, the tree has {tree:?} ({name})")
    }
}

/// How the comparison went.
#[derive(Debug)]
pub(crate) struct Compared {
    /// Processes in /proc.
    processes: usize,
    /// Of these, the storm's.
    pub(crate) survivors: usize,
    looks: usize,
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processes, survivors, looks } = self;
        write!(f, "{processes} processes ({survivors} of the storm) compared {looks} times, 0 differences")
    }
}
