//! Nothing is polled: while nothing happens and there is no orphan, the agent does not wake up.
//!
//! What wakes it shows in its context switches, as it sleeps whenever it has nothing to do. Other programs of the machine
//! start processes, which is an event for the agent too; the test counts these with programs of its own. In a window of time
//! without any event there must be no switch at all. Where no such window comes, the switches must not be more than the
//! events explain. `REAPER_QUIET_SECONDS` makes the windows longer (default 1.5).
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::time::{Duration, Instant};

use reaper::core::input::Input;
use reaper::kernel::{DEFAULT_RING_BYTES, Events, Probes};
use reaper_tests::agent::Agent;
use reaper_tests::config::Config;
use reaper_tests::process::Signal;
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, worker};
use tokio::runtime::Runtime;

/// How many windows are tried for one without events.
const WINDOWS: usize = 12;

/// Switches that one event explains: to take it in, to look again soon (the agent's half of `WAKE_INTERVAL_NS`), and to
/// look a second later at what was born.
const EACH: u64 = 3;

/// Switches in a window that need no explanation: of what happened just before.
const SLACK: u64 = 5;

/// Switches of a second in which an orphan is looked at once: the look, and what it waits for.
const EACH_LOOK: u64 = 10;

/// Counts what happens to processes.
struct Counter {
    _runtime: Runtime,
    _probes: Probes,
    events: Events,
}

impl Counter {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut probes = Probes::load(DEFAULT_RING_BYTES).unwrap_or_else(|error| panic!("{error}"));
        let events = {
            let _context = runtime.enter();
            probes.events().unwrap()
        };
        probes.attach().unwrap();
        Self { _runtime: runtime, _probes: probes, events }
    }

    /// Events since the last call.
    fn count(&mut self) -> u64 {
        let mut events = 0;
        loop {
            let drained = self.events.drain(|input| {
                assert!(!matches!(input, Input::Lost { .. }), "the test lost events");
                events += 1;
            });
            if !drained.more {
                return events;
            }
        }
    }
}

/// How often the threads of a process gave up the CPU because they had nothing to do.
fn switches(agent: &Agent) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.process().pid())).unwrap();
    let of = |status: String| {
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    tasks.map(|task| of(fs::read_to_string(task.unwrap().path().join("status")).unwrap())).sum()
}

/// The agent is silent from here on, but for what other programs do.
#[track_caller]
fn assert_silent(when: &str, agent: &Agent, counter: &mut Counter) {
    let seconds = std::env::var("REAPER_QUIET_SECONDS").map_or(1.5, |n| n.parse().unwrap());
    // Longer than what the agent does about an event of the window before.
    let window = Duration::from_secs_f64(seconds);
    let mut before = u64::MAX;
    for _ in 0..WINDOWS {
        counter.count();
        let (began, first) = (Instant::now(), switches(agent));
        // There is nothing to wait for when nothing must happen.
        std::thread::sleep(window);
        let (switched, events) = (switches(agent) - first, counter.count());
        println!("{when}: {switched} switches in {:.1?}, {events} events", began.elapsed());
        if before == 0 && events == 0 {
            assert_eq!(switched, 0, "{when}: nothing happened, and the agent woke up");
            return;
        }
        if before != u64::MAX {
            let explained = EACH * (events + before) + SLACK;
            assert!(switched <= explained, "{when}: {switched} switches, {events} events, {before} before");
        }
        before = events;
    }
    println!("{when}: the machine was never quiet; no more switches than events explain");
}

#[test]
fn without_an_orphan_the_agent_sleeps() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).observe());
    let mut counter = Counter::new();
    assert_silent("with no group's process", &agent, &mut counter);

    let master = scene.spawn("master", [worker("idle"), Op::Forever]);
    agent.knows_master(&master);
    let idle = scene.proc("idle");
    assert_silent("with a master and its worker", &agent, &mut counter);

    master.signal(Signal::KILL);
    agent.wait("orphaned", &idle);
    agent.wait("spared", &idle);
    assert!(idle.is_alive());
    idle.kill();
    agent.wait("left", &idle);
    assert_silent("after the orphan has gone", &agent, &mut counter);
    agent.stop();
}

#[test]
fn an_idle_orphan_that_is_only_observed_is_looked_at_once_a_second() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).observe());
    let mut counter = Counter::new();
    let master = scene.spawn("master", [worker("idle"), Op::Forever]);
    agent.knows_master(&master);
    let idle = scene.proc("idle");
    master.signal(Signal::KILL);
    agent.wait("orphaned", &idle);
    agent.wait_for("what would be done", |r| r.is("signal", &idle) && r.flag("dry_run"));
    counter.count();
    let (first, began) = (switches(&agent), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let (switched, events, took) = (switches(&agent) - first, counter.count(), began.elapsed());
    println!("with an observed orphan: {switched} switches in {took:.1?}, {events} events");
    let explained = EACH * events + SLACK + EACH_LOOK * took.as_secs();
    assert!(switched <= explained, "{switched} switches, {explained} explained");
    agent.stop();
}
