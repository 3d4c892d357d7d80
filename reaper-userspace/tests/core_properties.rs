//! Whatever happens on a host, the core keeps the design's sections 2 and 3: random lives of processes on a simulated
//! kernel, with a stream that is late, double and lossy. `REAPER_STEPS` makes a long run of it (`cargo xtask test --steps`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "tests")]

mod sim;

use std::cell::Cell;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use reaper::core::ids::{MS, Ns, SECOND};
use reaper::core::rules::{Mode, Proof, Rules, When};

use sim::agent::{Host, Stream};
use sim::kernel::{Birth, Manner, Program, Who};
use sim::rules;

/// One of those alive, counted from the youngest: init, the kernel thread and the agent are not among them.
type Pick = u8;

#[derive(Clone, Debug)]
enum Op {
    Fork(Pick),
    /// Forks and runs a program.
    Spawn(Pick, Image),
    Sibling(Pick),
    /// The first process of a new pid namespace.
    Container(Pick, Image),
    /// A process from outside goes into the namespace of the second.
    Enter(Pick, Pick, Image),
    Exec(Pick, Image),
    Retitle(Pick, Image),
    /// A master below init with so many workers.
    Service(Image, u8),
    /// Leaves a child behind in a session of its own, after one fork or two.
    Daemonise(Pick, bool),
    Exit(Pick, u8),
    Kill(Pick),
    /// Somebody else sends TERM.
    Term(Pick),
    Setsid(Pick),
    Subreaper(Pick),
    Thread(Pick),
    LeaderExits(Pick),
    Work(Pick, u16),
    Hang(Pick, u16),
    Call(Pick, u16),
    Ignore(Pick),
    Reap(Pick),
    Wait(u16),
    Late(bool),
    Lossy(bool),
    Deep(bool),
    /// The dump that is under way passes so many pids.
    Dump(u8),
    Reload,
    /// The agent is killed.
    Crash,
    /// It dies with its next signal.
    CrashAtSignal,
    /// Another one starts, if none runs.
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Image {
    MasterA,
    WorkerA,
    JobA,
    MasterB,
    WorkerB,
    MasterC,
    Guarded,
    Shell,
    Tool,
}

impl Image {
    fn program(self) -> Program {
        match self {
            Self::MasterA => rules::MASTER_A,
            Self::WorkerA => rules::WORKER_A,
            Self::JobA => rules::JOB_A,
            Self::MasterB => rules::MASTER_B,
            Self::WorkerB => rules::WORKER_B,
            Self::MasterC => rules::MASTER_C,
            Self::Guarded => rules::GUARDED,
            Self::Shell => rules::SHELL,
            Self::Tool => rules::TOOL,
        }
    }
}

/// What differs from case to case, besides the operations.
#[derive(Clone, Debug)]
struct Setup {
    quiet: bool,
    /// `proof = "source"`, else "asleep".
    source: bool,
    deadline: bool,
    few_kills: bool,
    replaced: bool,
    kill: bool,
    pids: u32,
    double: bool,
    /// Before the agent is attached.
    before: Vec<Op>,
}

impl Setup {
    fn rules(&self) -> Rules {
        let mut groups = vec![rules::alpha(), rules::beta(), rules::gamma()];
        for group in &mut groups {
            group.idle.proof = if self.source { Proof::Source } else { Proof::Asleep };
            group.idle.quiet = if self.quiet { 200 * MS } else { 0 };
            group.stop.deadline = if self.deadline { 3 * SECOND } else { 0 };
            group.stop.max_kills = if self.few_kills { 2 } else { 50 };
            group.stop.kill = self.kill;
        }
        groups[0].stop.when = if self.replaced { When::Replaced } else { When::Always };
        rules::rules(groups)
    }
}

fn image() -> impl Strategy<Value = Image> {
    prop_oneof![
        3 => Just(Image::MasterA),
        4 => Just(Image::WorkerA),
        1 => Just(Image::JobA),
        3 => Just(Image::MasterB),
        3 => Just(Image::WorkerB),
        1 => Just(Image::MasterC),
        1 => Just(Image::Guarded),
        1 => Just(Image::Shell),
        1 => Just(Image::Tool),
    ]
}

fn op() -> BoxedStrategy<Op> {
    let master = prop_oneof![3 => Just(Image::MasterA), 3 => Just(Image::MasterB), 1 => Just(Image::MasterC)];
    let who = || 0..12u8;
    let births = prop_oneof![
        6 => who().prop_map(Op::Fork),
        8 => (who(), image()).prop_map(|(w, i)| Op::Spawn(w, i)),
        1 => who().prop_map(Op::Sibling),
        1 => (who(), image()).prop_map(|(w, i)| Op::Container(w, i)),
        1 => (who(), who(), image()).prop_map(|(w, o, i)| Op::Enter(w, o, i)),
        5 => (master, 0..4u8).prop_map(|(i, n)| Op::Service(i, n)),
    ];
    let changes = prop_oneof![
        4 => (who(), image()).prop_map(|(w, i)| Op::Exec(w, i)),
        1 => (who(), image()).prop_map(|(w, i)| Op::Retitle(w, i)),
        2 => who().prop_map(Op::Setsid),
        2 => who().prop_map(Op::Subreaper),
        1 => who().prop_map(Op::Thread),
    ];
    let deaths = prop_oneof![
        5 => (who(), 0..2u8).prop_map(|(w, s)| Op::Exit(w, s)),
        5 => who().prop_map(Op::Kill),
        3 => (who(), any::<bool>()).prop_map(|(w, t)| Op::Daemonise(w, t)),
        1 => who().prop_map(Op::Term),
        1 => who().prop_map(Op::LeaderExits),
        1 => who().prop_map(Op::Reap),
    ];
    let work = prop_oneof![
        3 => (who(), 0..2_000u16).prop_map(|(w, t)| Op::Work(w, t)),
        1 => (who(), 0..5_000u16).prop_map(|(w, t)| Op::Hang(w, t)),
        1 => (who(), 0..5_000u16).prop_map(|(w, t)| Op::Call(w, t)),
        1 => who().prop_map(Op::Ignore),
    ];
    let time = prop_oneof![3 => 0..40u16, 4 => 0..1_500u16].prop_map(Op::Wait);
    let shell = prop_oneof![
        4 => any::<bool>().prop_map(Op::Late),
        1 => any::<bool>().prop_map(Op::Deep),
        4 => (1..20u8).prop_map(Op::Dump),
        1 => Just(Op::Reload),
    ];
    prop_oneof![8 => births, 4 => changes, 5 => deaths, 3 => work, 6 => time, 2 => shell].boxed()
}

fn lossy_op() -> BoxedStrategy<Op> {
    prop_oneof![12 => op(), 1 => any::<bool>().prop_map(Op::Lossy)].boxed()
}

fn restarting_op() -> BoxedStrategy<Op> {
    let restarts = prop_oneof![2 => Just(Op::Crash), 1 => Just(Op::CrashAtSignal), 3 => Just(Op::Restart)];
    prop_oneof![10 => op(), 2 => restarts].boxed()
}

fn setup() -> impl Strategy<Value = Setup> {
    let flags = (
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    );
    let more = (any::<bool>(), prop_oneof![Just(24u32), Just(60)], any::<bool>());
    let before = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(op(), 1..12)];
    (flags, more, before).prop_map(
        |((quiet, source, deadline, few_kills, replaced), (kill, pids, double), before)| Setup {
            quiet,
            source,
            deadline,
            few_kills,
            replaced,
            kill,
            pids,
            double,
            before,
        },
    )
}

fn pick(host: &Host, pick: Pick) -> Who {
    let special = [0, 1, host.kernel.agent];
    let mut all: Vec<Who> = host.kernel.alive().filter(|w| !special.contains(w)).collect();
    all.reverse();
    if all.is_empty() { 0 } else { all[usize::from(pick) % all.len()] }
}

fn pid(host: &Host, who: Who) -> u32 {
    host.kernel.procs[who].key.tgid
}

fn spawn(host: &mut Host, by: Who, birth: Birth, image: Option<Image>) -> Option<Who> {
    let child = host.kernel.fork(by, birth)?;
    let (parent, pid) = (pid(host, by), pid(host, child));
    host.tell(match birth {
        Birth::Plain => format!("{parent} forks {pid}"),
        other => format!("{parent} forks {pid} ({other:?})"),
    });
    if let Some(image) = image {
        exec(host, child, image);
    }
    Some(child)
}

fn exec(host: &mut Host, who: Who, image: Image) {
    host.kernel.exec(who, image.program());
    let pid = pid(host, who);
    host.tell(format!("{pid} execs {image:?}"));
}

fn exit(host: &mut Host, who: Who, status: u32) {
    if who != 0 {
        let pid = pid(host, who);
        host.kernel.exit(who, status);
        host.tell(format!("{pid} exits, status {status}"));
    }
}

fn setsid(host: &mut Host, who: Who) {
    host.kernel.setsid(who);
    host.tell(format!("{} makes a session", pid(host, who)));
}

/// A TERM that is not the agent's.
fn term(host: &mut Host, who: Who) {
    let keeper = host.kernel.parent(host.kernel.agent).unwrap();
    if who != 0 {
        host.tell(format!("somebody sends TERM to {}", pid(host, who)));
        host.kernel.signal(who, 15, keeper);
    }
}

/// A master with workers, of which every other one looks like the master.
fn service(host: &mut Host, image: Image, workers: u8) {
    let Some(master) = spawn(host, 0, Birth::Plain, Some(image)) else { return };
    let worker = match image {
        Image::MasterA => Image::WorkerA,
        _ => Image::WorkerB,
    };
    for n in 0..workers {
        spawn(host, master, Birth::Plain, (n % 2 == 0).then_some(worker));
    }
}

fn daemonise(host: &mut Host, who: Who, twice: bool) {
    let Some(child) = spawn(host, who, Birth::Plain, None) else { return };
    setsid(host, child);
    if twice && spawn(host, child, Birth::Plain, None).is_some() {
        exit(host, child, 0);
    }
    exit(host, who, 0);
}

fn apply(host: &mut Host, op: &Op) {
    let of = |host: &Host, p: &Pick| pick(host, *p);
    match op {
        Op::Fork(p) => {
            spawn(host, of(host, p), Birth::Plain, None);
        }
        Op::Spawn(p, image) => {
            spawn(host, of(host, p), Birth::Plain, Some(*image));
        }
        Op::Sibling(p) => {
            spawn(host, of(host, p), Birth::Sibling, None);
        }
        Op::Container(p, image) => {
            spawn(host, of(host, p), Birth::NewNs, Some(*image));
        }
        Op::Enter(p, into, image) => {
            spawn(host, of(host, p), Birth::Into(of(host, into)), Some(*image));
        }
        Op::Exec(p, image) => exec(host, of(host, p), *image),
        Op::Retitle(p, image) => {
            let who = of(host, p);
            host.kernel.retitle(who, image.program());
            host.tell(format!("{} takes the title of {image:?}", pid(host, who)));
        }
        Op::Service(image, workers) => service(host, *image, *workers),
        Op::Daemonise(p, twice) => daemonise(host, of(host, p), *twice),
        Op::Exit(p, status) => exit(host, of(host, p), u32::from(*status) << 8),
        Op::Kill(p) => exit(host, of(host, p), 9),
        Op::Term(p) => term(host, of(host, p)),
        Op::Setsid(p) => setsid(host, of(host, p)),
        Op::Subreaper(p) => {
            let who = of(host, p);
            host.kernel.become_subreaper(who);
            host.tell(format!("{} becomes a subreaper", pid(host, who)));
        }
        Op::Thread(p) => host.kernel.add_thread(of(host, p)),
        Op::LeaderExits(p) => {
            let who = of(host, p);
            if who != 0 {
                host.tell(format!("the leader of {} exits", pid(host, who)));
                host.kernel.leader_exits(who);
            }
        }
        Op::Work(p, ms) => work(host, of(host, p), 'R', *ms),
        Op::Hang(p, ms) => work(host, of(host, p), 'D', *ms),
        // To `proof = "asleep"` this is no work, and it is right so.
        Op::Call(p, ms) if host.rules.groups[0].idle.proof == Proof::Source => {
            work(host, of(host, p), 'S', *ms);
        }
        Op::Call(..) => {}
        Op::Ignore(p) => {
            let who = of(host, p);
            host.kernel.procs[who].manner = Manner::Ignores;
            host.tell(format!("{} ignores TERM from now on", pid(host, who)));
        }
        Op::Reap(p) => host.kernel.reap(of(host, p)),
        Op::Wait(ms) => host.wait(Ns::from(*ms) * MS),
        Op::Late(late) => host.stream.late = *late,
        Op::Lossy(lossy) => {
            host.tell(if *lossy { "records are lost from here" } else { "records are written again" });
            host.stream.lossy = *lossy;
        }
        Op::Deep(deep) => host.stream.deep = *deep,
        Op::Dump(pids) => host.dump_some(u32::from(*pids)),
        Op::Reload => {
            // In the agent one thread does both: a reload waits for a dump.
            if !host.is_dumping() && !host.away {
                host.tell("the configuration is read again");
                host.configure(host.rules.clone());
            }
        }
        Op::Crash => host.crash(),
        Op::CrashAtSignal => host.dies_at_signal = true,
        Op::Restart => host.restart(),
    }
}

fn work(host: &mut Host, who: Who, state: char, ms: u16) {
    host.kernel.work(who, state, Ns::from(ms) * MS);
    host.tell(format!("{} works for {ms} ms in state {state}", pid(host, who)));
}

/// What happens to the stream and to the agent.
const WHOLE: u8 = 0;
const LOSSY: u8 = 1;
const RESTARTED: u8 = 2;

/// The operations need no model: each picks among those that are alive when it is applied.
struct Anything<const HOW: u8>;

impl<const HOW: u8> ReferenceStateMachine for Anything<HOW> {
    type State = Setup;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Setup> {
        setup().boxed()
    }

    fn transitions(_: &Setup) -> BoxedStrategy<Op> {
        match HOW {
            WHOLE => op(),
            LOSSY => lossy_op(),
            _ => restarting_op(),
        }
    }

    fn apply(state: Setup, _: &Op) -> Setup {
        state
    }
}

impl<const HOW: u8> StateMachineTest for Anything<HOW> {
    type SystemUnderTest = Host;
    type Reference = Self;

    fn init_test(setup: &Setup) -> Host {
        let mut host = Host::boot(setup.rules(), setup.pids);
        assert!(setup.rules().groups[2].mode == Mode::Observe);
        host.stream = Stream { double: setup.double, ..Stream::default() };
        for op in setup.before.iter().filter(|op| !matches!(op, Op::Late(_) | Op::Deep(_) | Op::Reload)) {
            apply(&mut host, op);
        }
        host.attach();
        if setup.before.is_empty() {
            host.finish_dump();
        }
        host
    }

    fn apply(mut host: Host, _: &Setup, op: Op) -> Host {
        apply(&mut host, &op);
        host.pump();
        host
    }

    fn check_invariants(host: &Host, _: &Setup) {
        host.check();
    }

    fn teardown(mut host: Host, _: Setup) {
        host.come_to_rest();
        host.check_replay();
    }
}

/// Operations in one case: fewer than that, 30 on average.
const LONGEST: usize = 60;

/// A long run goes by batches of so many cases, each with a seed of its own, so that a violation is found again soon.
const BATCH: u32 = 100;

/// Plain, the same cases every time, so that a change is judged by itself. With `REAPER_STEPS` batches of others until so
/// many operations were applied, from the seed `REAPER_SEED` on (by default the time).
fn keeps_the_law<const HOW: u8>() {
    let number = |name| std::env::var(name).ok().map(|n: String| n.parse::<u64>().unwrap());
    let Some(steps) = number("REAPER_STEPS") else {
        run_cases::<HOW>(250, 0x7ea9e7);
        return;
    };
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let first = number("REAPER_SEED").unwrap_or(clock * 1_000_000);
    let (started, mut done, mut seed) = (Instant::now(), 0, first);
    while done < steps {
        done += run_cases::<HOW>(BATCH, seed);
        seed += 1;
    }
    let stream = ["whole stream", "lossy stream", "agents that come and go"][usize::from(HOW)];
    let took = started.elapsed().as_secs();
    eprintln!("{stream}: {done} steps in {took} s, seeds {first} to {}", seed - 1);
}

/// Returns how many operations were applied.
fn run_cases<const HOW: u8>(cases: u32, seed: u64) -> u64 {
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let steps = Cell::new(0);
    let mut runner = TestRunner::new(config.clone());
    let outcome = runner.run(&Anything::<HOW>::sequential_strategy(1..LONGEST), |(setup, ops, seen)| {
        steps.set(steps.get() + ops.len() as u64);
        Anything::<HOW>::test_sequential(config.clone(), setup, ops, seen);
        Ok(())
    });
    if let Err(why) = outcome {
        panic!("REAPER_SEED={seed} finds it again: {why}\n{runner}");
    }
    steps.get()
}

#[test]
fn keeps_the_law_with_a_whole_stream() {
    keeps_the_law::<WHOLE>();
}

#[test]
fn keeps_the_law_when_records_are_lost() {
    keeps_the_law::<LOSSY>();
}

#[test]
fn keeps_the_law_when_agents_come_and_go() {
    keeps_the_law::<RESTARTED>();
}

/// Goes through batches of long runs once more.
fn again<const HOW: u8>(seeds: &[u64]) {
    for seed in seeds {
        run_cases::<HOW>(BATCH, *seed);
    }
}

/// Batches of long runs in which the law was broken once, with such a stream.
#[test]
fn keeps_the_law_where_it_was_broken_with_a_whole_stream() {
    again::<WHOLE>(&[
        1_795_716_827_000_099,
        1_795_716_827_000_103,
        1_795_720_153_000_022,
        1_795_720_153_000_034,
        1_795_743_000_000_198,
        1_795_744_000_000_090,
        1_795_750_000_000_324,
        1_795_762_000_100_095,
        1_795_763_000_000_066,
        1_795_763_000_200_003,
        1_795_763_000_500_001,
        1_795_763_000_700_018,
        1_795_764_000_000_000,
        1_795_765_000_100_090,
        1_795_765_000_300_058,
        1_795_765_000_700_042,
        1_795_766_000_000_032,
        1_795_767_000_000_080,
        1_795_767_000_100_022,
        1_795_767_000_300_049,
        1_795_768_000_000_014,
        1_795_768_000_500_062,
        1_795_770_000_000_055,
        1_795_770_000_100_067,
        1_795_772_000_300_077,
        1_795_772_000_400_063,
        1_795_773_000_400_066,
    ]);
}

/// Batches of long runs in which the law was broken once, with such a stream.
#[test]
fn keeps_the_law_where_it_was_broken_when_records_are_lost() {
    again::<LOSSY>(&[
        1_795_716_824_000_045,
        1_795_716_824_000_053,
        1_795_720_153_000_043,
        1_795_744_000_000_035,
        1_795_746_000_000_194,
        1_795_750_000_000_112,
        1_795_762_000_100_071,
        1_795_763_000_100_088,
        1_795_765_000_200_045,
        1_795_768_000_200_080,
        1_795_769_000_200_018,
        1_795_769_000_300_032,
        1_795_769_000_400_008,
        1_795_770_000_000_086,
    ]);
}

/// Batches of long runs in which the law was broken once, with such a stream.
#[test]
fn keeps_the_law_where_it_was_broken_when_agents_come_and_go() {
    again::<RESTARTED>(&[
        1_795_716_824_000_001,
        1_795_716_824_000_002,
        1_795_720_153_000_103,
        1_795_743_000_000_102,
        1_795_744_000_000_043,
        1_795_746_000_000_030,
        1_795_747_000_000_105,
        1_795_750_000_000_039,
        1_795_761_000_000_085,
        1_795_762_001_100_063,
        1_795_764_000_000_000,
        1_795_765_000_200_062,
        1_795_766_000_300_093,
        1_795_768_000_500_052,
        1_795_769_000_200_047,
        1_795_770_000_400_090,
        1_795_771_000_100_062,
        1_795_773_000_300_007,
        1_795_778_196_000_130,
    ]);
}
