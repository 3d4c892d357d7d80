//! A soak: storms, masters that come and go, and an agent that is stopped, killed and started again, for minutes or hours.
//!
//! What is right is known from what the soak itself did (`family`), never from the agent. What must hold all the time: nobody is
//! signalled but an orphan that has ended its work; no orphan is left when the agent has had time; between the storms the
//! agent's tree is /proc's (`tree`); and the agent does not grow.
//!
//! The agent is killed and starved in the first third only: its memory is compared within the last run, which has seen losses
//! too.

mod chaos;
mod family;
mod memory;
mod tail;
mod tree;
mod weather;

use std::time::{Duration, Instant};
use std::{fmt, fs};

use crate::agent::Agent;
use crate::config::Config;
use crate::drill::random::Random;
use crate::log::Record;
use crate::process::{Proc, Signal, TICK_NS};
use crate::scene::Scene;
use chaos::{Chaos, Turn};
use family::{Book, Family};
use memory::Memory;
use reaper::clock;
use tail::Tail;
use weather::Weather;

/// One turn of the loop.
const TURN: Duration = Duration::from_millis(50);

/// An orphan that is idle, under an agent that runs and knows everything, is gone by then. Actors live for a minute at most.
const STOPPED_WITHIN: Duration = Duration::from_secs(25);

/// Between two checkpoints.
const CHECK_EVERY: Duration = Duration::from_secs(8);

/// Families at a time.
const FAMILIES: usize = 4;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long new trouble is made.
    pub length: Duration,
    /// What random things are drawn from.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How long it took, seconds.
    pub seconds: u64,
    /// Processes that were born in storms and families.
    pub lives: u64,
    /// Workers that lost their master.
    pub orphans: u64,
    /// Signals that were sent, by the log.
    pub signals: u64,
    /// How often the agent was killed and started anew.
    pub restarts: u64,
    /// How often it was starved.
    pub starved: u64,
    /// Records that the kernel could not write, by the log.
    pub lost: u64,
    /// Dumps after a loss.
    pub resyncs: u64,
    /// How often the tree was compared, and how many processes each time at least.
    pub checkpoints: u64,
    /// Processes compared, all checkpoints together.
    pub compared: u64,
    /// Resident memory of the last run in its first and last tenth, KiB, if it ran for long enough.
    pub memory: Option<(u64, u64)>,
    /// What must not be.
    pub wrong: Vec<String>,
    /// What the log says about the processes in `wrong`, and when the agent was not there.
    pub evidence: Vec<String>,
}

impl Outcome {
    /// Whether everything was right.
    pub fn is_good(&self) -> bool {
        self.wrong.is_empty() && self.signals > 0 && self.checkpoints > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16} {}", "seconds", self.seconds)?;
        writeln!(f, "{:<16} {}", "lives", self.lives)?;
        writeln!(f, "{:<16} {}", "orphans", self.orphans)?;
        writeln!(f, "{:<16} {}", "signals", self.signals)?;
        writeln!(f, "{:<16} {}", "agent restarts", self.restarts)?;
        writeln!(
            f,
            "{:<16} {}, {} events lost, {} resyncs",
            "starved", self.starved, self.lost, self.resyncs
        )?;
        writeln!(f, "{:<16} {}, {} processes compared", "checkpoints", self.checkpoints, self.compared)?;
        if let Some((first, last)) = self.memory {
            writeln!(f, "{:<16} {first} KiB in the first tenth, {last} KiB in the last", "memory")?;
        }
        write!(f, "{:<16} {}", "wrong", self.wrong.len())?;
        self.wrong.iter().try_for_each(|what| write!(f, "\n  {what}"))?;
        self.evidence.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Runs a soak to its end.
pub fn run(plan: Plan) -> Outcome {
    let scene = Scene::new();
    let config = Config::new(&scene)
        .worker_matcher()
        .stop("max_kills = 1000000")
        .agent("ring = \"64KiB\"\nlog_max_size = \"4GiB\"");
    let agent = Agent::start(&scene, &config);
    let mut soak = Soak {
        plan,
        began: Instant::now(),
        ledger: Tail::open(&scene.path(crate::script::LEDGER)),
        log: Tail::open(&config.log),
        weather: Weather::new(plan.seed),
        chaos: Chaos::new(plan.length),
        memory: Memory::default(),
        book: Book::default(),
        families: Vec::new(),
        next_family: 0,
        agent: Some(agent),
        awake_since: Instant::now(),
        checked: Instant::now(),
        rng: Random::new(plan.seed),
        outcome: Outcome::default(),
        config,
        scene,
    };
    while soak.turn() {
        std::thread::sleep(TURN);
    }
    soak.end()
}

struct Soak {
    plan: Plan,
    began: Instant,
    ledger: Tail,
    log: Tail,
    weather: Weather,
    chaos: Chaos,
    memory: Memory,
    book: Book,
    families: Vec<Family>,
    next_family: u64,
    /// `None` between a kill and the next start.
    agent: Option<Agent>,
    /// Since when the agent has been able to do something.
    awake_since: Instant,
    checked: Instant,
    rng: Random,
    outcome: Outcome,
    config: Config,
    // Last: everybody who is left is ended by it.
    scene: Scene,
}

impl Soak {
    /// False when it is over.
    fn turn(&mut self) -> bool {
        let going_on = self.began.elapsed() < self.plan.length;
        for line in self.ledger.lines() {
            self.book.ledger(&line);
        }
        self.read_log();
        if going_on {
            self.act();
            self.make_families();
            self.weather.blow(self.scene.token());
        }
        self.lead_families(going_on);
        if self.checked.elapsed() >= CHECK_EVERY {
            self.check_tree();
        }
        if let Some(agent) = &self.agent {
            assert!(agent.process().is_alive(), "the agent died by itself: {}", agent.stderr());
            self.memory.look(agent.process());
        }
        going_on || !self.families.is_empty()
    }

    fn act(&mut self) {
        match self.chaos.next(self.began.elapsed(), &mut self.rng) {
            Turn::Nothing => {}
            Turn::Kill => {
                if let Some(agent) = self.agent.take() {
                    agent.crash();
                }
            }
            Turn::Start => self.start_agent(),
            Turn::Starve => self.tell_agent(Signal::STOP),
            Turn::Feed => {
                self.outcome.starved += 1;
                self.tell_agent(Signal::CONT);
                self.awake_since = Instant::now();
            }
            Turn::Reload => self.tell_agent(Signal::HUP),
        }
    }

    fn start_agent(&mut self) {
        self.agent = Some(Agent::start(&self.scene, &self.config));
        self.awake_since = Instant::now();
        self.outcome.restarts += 1;
        self.memory = Memory::default();
    }

    fn tell_agent(&self, signal: Signal) {
        if let Some(agent) = &self.agent {
            agent.process().signal(signal);
        }
    }

    fn make_families(&mut self) {
        // One a turn at most: a start is a fork of this process.
        if self.families.len() < FAMILIES {
            let family = Family::start(&self.scene, self.next_family, &mut self.rng, &mut self.book);
            self.next_family += 1;
            self.families.push(family);
        }
    }

    fn lead_families(&mut self, going_on: bool) {
        let awake = self.agent.is_some() && !self.chaos.is_starved();
        let patient = awake && self.awake_since.elapsed() > STOPPED_WITHIN;
        for family in &mut self.families {
            family.lead(&self.scene, &mut self.book, going_on);
        }
        let wrong = &mut self.outcome.wrong;
        self.families.retain(|family| {
            let done = family.is_done();
            if done {
                family.close(wrong);
            } else if patient && family.lost_for() > STOPPED_WITHIN {
                family.give_up(wrong);
                return false;
            }
            !done
        });
    }

    /// What the log has about those who are wrong: a soak cannot be run a second time.
    fn gather_evidence(&mut self) {
        let inside = |text: &str| text.split(['(', ')']).nth(1).map(|pid| format!("\"pid\":{pid},"));
        let pids: Vec<String> = self.outcome.wrong.iter().filter_map(|what| inside(what)).collect();
        let kinds = ["agent_started", "events_lost", "resynced"].map(|kind| format!("\"kind\":\"{kind}\""));
        let log = if pids.is_empty() { String::new() } else { fs::read_to_string(&self.config.log).unwrap() };
        let tells = |line: &&str| pids.iter().chain(&kinds).any(|part| line.contains(part.as_str()));
        self.outcome.evidence = log.lines().filter(tells).map(String::from).collect();
    }

    fn read_log(&mut self) {
        for line in self.log.lines() {
            let record = crate::log::parse(&format!("{line}\n")).remove(0);
            match record.kind() {
                "signal" if !record.flag("dry_run") => {
                    self.outcome.signals += 1;
                    self.book.signal(&record);
                }
                "orphaned" => self.outcome.orphans += 1,
                "events_lost" => self.outcome.lost += record.number("count"),
                "resynced" => self.outcome.resyncs += 1,
                _ => {}
            }
        }
    }

    /// Between two storms, while the agent is there.
    fn check_tree(&mut self) {
        if self.agent.is_none() || self.chaos.is_starved() || !self.weather.calm() {
            return;
        }
        self.checked = Instant::now();
        match tree::compare(&self.config.socket) {
            Ok(compared) => {
                self.outcome.checkpoints += 1;
                self.outcome.compared += compared;
            }
            Err(what) => self.outcome.wrong.push(what),
        }
    }

    fn end(mut self) -> Outcome {
        self.weather.calm_down();
        self.check_tree();
        let records = self.agent.take().map(Agent::stop_with_gaps).unwrap_or_default();
        self.read_log();
        self.outcome.seconds = self.began.elapsed().as_secs();
        self.outcome.lives = self.weather.lives + self.book.lives();
        self.outcome.wrong.extend(self.book.judge());
        self.outcome.memory = self.memory.tenths();
        if let Some(what) = self.memory.grown() {
            self.outcome.wrong.push(what);
        }
        self.gather_evidence();
        assert!(records.iter().any(|r| r.kind() == "agent_stopped"), "the agent did not stop in order");
        self.outcome
    }
}

/// A process as records and ledgers name it: pid and start in ticks.
type Name = (i32, u64);

fn name(who: &Proc) -> Name {
    (who.pid(), who.start_ticks())
}

fn name_in(record: &Record) -> Name {
    let pid = i32::try_from(record.number("/proc/pid")).unwrap_or_default();
    (pid, record.number("/proc/start_ns") / TICK_NS)
}

fn now() -> u64 {
    clock::now()
}
