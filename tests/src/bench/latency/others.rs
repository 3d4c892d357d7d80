//! What people use instead of an agent, with workers that would rather live on.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::Plan;
use super::kill_a_master;
use crate::agent::Agent;
use crate::config::Config;
use crate::drill::random::Random;
use crate::log::Record;
use crate::process::{self, Proc, Signal, wait_until};
use crate::scene::Scene;
use crate::script::{Op, exec, fork, note};

/// How often the script comes here.
const CRON: Duration = Duration::from_secs(10);

/// How often a worker looks, in milliseconds.
const LOOP_MS: u64 = 1_000;

/// How a worker without a master comes to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Other {
    /// A script looks at all processes now and then, and stops workers that are not below a master and sleep.
    Cron,
    /// The worker asks once a second whether its parent is still the same.
    Loop,
    /// The kernel sends the worker a TERM when its parent dies, whatever it does.
    DeathSignal,
}

impl Other {
    pub(super) const ALL: [Self; 3] = [Self::Cron, Self::Loop, Self::DeathSignal];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cron => "cron script every 10 s",
            Self::Loop => "getppid once a second",
            Self::DeathSignal => "PR_SET_PDEATHSIG",
        }
    }

    /// Between two looks.
    fn interval_ms(self) -> u64 {
        match self {
            Self::Cron => CRON.as_secs() * 1_000,
            Self::Loop => LOOP_MS,
            Self::DeathSignal => 0,
        }
    }

    /// It is in the ledger when nothing is left to do for the rule.
    fn worker(self, name: &str) -> Op {
        let ops = match self {
            Self::Cron => vec![note(name), Op::Forever],
            Self::Loop => vec![note(name), Op::WatchParent(LOOP_MS)],
            Self::DeathSignal => vec![Op::DeathSignal, note(name), Op::Forever],
        };
        fork([exec("worker", ops)])
    }
}

/// How long each worker lived on, in microseconds; a round is one master.
pub(super) fn other(rule: Other, workers: usize, plan: Plan) -> Result<Vec<Vec<f64>>> {
    let mut random = Random::new(workers as u64);
    let scene = Scene::new();
    let config = Config::new(&scene).observe().worker_matcher().agent("log_level = \"lineage\"");
    let agent = Agent::start(&scene, &config);
    let end = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        // Also when a round panics: the scope waits for the script before that goes on.
        let over = Over(&end);
        let script = (rule == Other::Cron).then(|| scope.spawn(|| cron(scene.token(), &end)));
        let rounds = (0..plan.rounds).map(|round| {
            // The master dies at any time between two looks.
            let pause = random.millis(0, rule.interval_ms());
            let (master, workers) =
                kill_a_master(&scene, &agent, round, |name| rule.worker(name), workers, pause);
            lived_on(&agent, &master, &workers)
        });
        let rounds = rounds.collect::<Result<Vec<_>>>();
        drop(over);
        script.map_or(Ok(()), |script| {
            script.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        rounds
    });
    agent.stop();
    rounds
}

/// Ends the script when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// From the master's exit to each worker's, by the kernel's events.
fn lived_on(agent: &Agent, master: &Proc, workers: &[Proc]) -> Result<Vec<f64>> {
    let lost = agent.wait("master_lost", master).boot_ns();
    let exits = |records: &[Record]| -> Vec<u64> {
        let exits = records.iter().filter(|r| r.kind() == "exit");
        exits.filter(|r| workers.iter().any(|worker| r.about(worker))).map(Record::boot_ns).collect()
    };
    wait_until("the exits in the log", || exits(&agent.records()).len() == workers.len());
    let gone = exits(&agent.records());
    ensure!(gone.iter().all(|exit| *exit >= lost), "a worker died before its master");
    Ok(gone.iter().map(|exit| (exit - lost) as f64 / 1_000.0).collect())
}

/// The script, until the end: what the masters left and sleeps is stopped.
fn cron(token: &str, end: &AtomicBool) -> Result<()> {
    let mut next = Instant::now() + CRON;
    while !end.load(Ordering::Relaxed) {
        if Instant::now() < next {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        next += CRON;
        for (program, options) in [("ps", &["-efww"][..]), ("pstree", &["-a", "-p"])] {
            let status =
                Command::new(program).args(options).stdin(Stdio::null()).stdout(Stdio::null()).status();
            ensure!(status?.success(), "{program} failed");
        }
        let has_role = |proc: &Proc, role: &str| proc.cmdline().ends_with(&format!("{role} {token}"));
        let all = process::with_token(token);
        let masters: Vec<i32> = all.iter().filter(|p| has_role(p, "master")).map(Proc::pid).collect();
        for worker in all.iter().filter(|p| has_role(p, "worker")) {
            if worker.stat().is_some_and(|stat| stat.state == 'S' && !masters.contains(&stat.ppid)) {
                worker.signal(Signal::TERM);
            }
        }
    }
    Ok(())
}
