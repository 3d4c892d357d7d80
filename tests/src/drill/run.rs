//! One run of a drill from beginning to end.

use std::fs;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use regex::Regex;

use super::cron::Cron;
use super::facts::{Facts, Shot};
use super::innocents::Innocents;
use super::load::Load;
use super::random::Random;
use super::watch::Watch;
use super::{Framework, Instance, Kill, Stage, ledger};
use crate::agent::{self, Agent};
use crate::config::Config;
use crate::process::{Proc, Signal, comes_true};

/// How long a master may take until its workers are there.
const STARTUP: Duration = Duration::from_secs(60);
/// How long it may take until a new master's workers get a job.
const FIRST_JOB: Duration = Duration::from_secs(5);
/// How long jobs may take to end when no more come.
const SETTLE: Duration = Duration::from_secs(15);

/// Who cleans up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The agent.
    Reaper,
    /// The old cron script's rule.
    Cron,
}

/// How a drill is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many masters are ended.
    pub kills: usize,
    /// Who cleans up.
    pub rule: Rule,
    /// What the random moments are drawn from.
    pub seed: u64,
    /// With `proof = "asleep"` instead of the profile's.
    pub asleep: bool,
}

/// Runs a drill.
///
/// # Errors
/// When something that it needs cannot be had, or a master does not come up. That a promise was broken is no error but a
/// fact.
pub fn run(framework: &Arc<dyn Framework>, plan: Plan) -> Result<Facts> {
    nix::sys::prctl::set_child_subreaper(framework.below_subreaper())?;
    let stage = Arc::new(Stage::new()?);
    framework.prepare(&stage).with_context(|| format!("cannot set up {}", framework.name()))?;
    let mut group = framework.group(&stage);
    if plan.asleep {
        group = group.with("idle", "proof", "asleep");
    }
    let innocents = Innocents::start(&**framework, &stage)?;
    let agent = match plan.rule {
        Rule::Reaper => Some(start_agent(&stage, &group.config(&stage)?)?),
        Rule::Cron => None,
    };
    let watch = Arc::new(Watch::start(Regex::new(group.worker())?, framework.job_in_child()));
    let masters = Masters { framework, stage: &stage, watch: &watch };
    let beside = masters.start(Instance::Beside)?;
    let mut current = masters.start(Instance::Drilled)?;

    let cron = (plan.rule == Rule::Cron).then(|| Cron::start(&watch));
    let load = Load::start(framework, &stage, plan.seed);
    let mut random = Random::new(plan.seed);
    let kills = framework.kills();
    for n in 0..plan.kills {
        masters.wait_for_a_job(current);
        std::thread::sleep(random.millis(300, 1500));
        current = masters.end(current, kills[n % kills.len()], &mut random)?;
    }

    let counters = load.stop();
    settle(&stage, &watch);
    let limit = framework.patience().unwrap_or(Duration::from_millis(group.quiet_ms() + 100));
    comes_true(limit + framework.farewell() + Duration::from_secs(15), || orphans_left(&watch) == 0);
    let shots = match (agent, cron) {
        (Some(agent), _) => Shot::all(&agent.stop()),
        (None, Some(cron)) => cron.stop(),
        (None, None) => Vec::new(),
    };
    let runs = ledger::read(&stage.ledger());
    let mut facts = watch.book(|book| Facts::gather(book, &runs, &shots, framework.judged_together()));
    facts.kills = plan.kills;
    facts.wanted = framework.workers();
    // A worker that has just been replaced is not there for a moment.
    comes_true(SETTLE, || crew(&watch) == facts.wanted);
    facts.crew = crew(&watch);
    facts.limit = limit;
    facts.farewell = framework.farewell();
    facts.refused = counters.refused.load(Ordering::Relaxed);
    let mut hurt = innocents.dead();
    let is_dead = |master: usize| watch.book(|book| book.seen[master].gone.is_some());
    hurt.extend(is_dead(beside).then_some("the master of the second application"));
    facts.innocents_hurt += hurt.len();
    facts.wrongs.extend(hurt.iter().map(|what| format!("died: {what}")));
    keep_for_the_curious(&stage, framework.name(), plan.rule, &facts)?;
    Ok(facts)
}

pub(super) fn start_agent(stage: &Stage, config: &str) -> Result<Agent> {
    let file = stage.scene.path("drill.toml");
    fs::write(&file, config)?;
    let mut command = Command::new(agent::binary());
    command.arg("run").arg("--config").arg(&file);
    Ok(Agent::launch(&stage.scene, &Config::new(&stage.scene), command))
}

/// When jobs were lost or somebody was hurt, what the stage knows of it outlives it.
fn keep_for_the_curious(stage: &Stage, name: &str, rule: Rule, facts: &Facts) -> Result<()> {
    if rule == Rule::Cron || facts.broken().is_empty() {
        return Ok(());
    }
    let kept = super::env::folder().join("kept").join(name);
    fs::create_dir_all(&kept)?;
    for file in ["drill.toml", "agent.jsonl", "agent.stderr", "jobs", "master.log"] {
        match fs::copy(stage.scene.path(file), kept.join(file)) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
    }
    fs::write(kept.join("wrongs"), facts.wrongs.join("\n\n"))?;
    eprintln!("drill: what is known of it is in {}", kept.display());
    Ok(())
}

/// Starts and ends masters.
pub(super) struct Masters<'a> {
    pub(super) framework: &'a Arc<dyn Framework>,
    pub(super) stage: &'a Stage,
    pub(super) watch: &'a Watch,
}

impl Masters<'_> {
    /// Starts a master and waits for its workers.
    pub(super) fn start(&self, which: Instance) -> Result<usize> {
        let command = self.stage.dress(self.framework.master(self.stage, which), "master");
        let at = self.watch.master(spawn(command)?, which);
        self.wait_for_workers(at)?;
        Ok(at)
    }

    fn wait_for_workers(&self, master: usize) -> Result<()> {
        let wanted = self.framework.workers();
        let begin = Instant::now();
        loop {
            let (there, gone) =
                self.watch.book(|book| (book.workers_of(master), book.seen[master].gone.is_some()));
            if there >= wanted {
                return Ok(());
            }
            if gone || begin.elapsed() > STARTUP {
                let output = self.stage.output("master");
                let lines: Vec<_> = output.lines().collect();
                let end = lines[lines.len().saturating_sub(30)..].join("\n");
                bail!("a master has {there} workers and not {wanted} (it died: {gone}); it said:\n{end}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until one of its workers has had a job: a master may have workers and not yet ask the queue for work. That
    /// others take all of them is nobody's fault.
    fn wait_for_a_job(&self, master: usize) {
        comes_true(FIRST_JOB, || {
            std::thread::sleep(Duration::from_millis(20));
            let runs = ledger::read(&self.stage.ledger());
            self.watch.book(|book| {
                let below = |pid| {
                    book.seen
                        .iter()
                        .enumerate()
                        .any(|(at, s)| s.proc.pid() == pid && book.is_below(at, master))
                };
                runs.iter().rev().any(|run| below(run.pid) || below(run.ppid))
            })
        });
    }

    /// Ends the master, or an intermediate, and sees to it that there is a master with workers again.
    fn end(&self, master: usize, kill: Kill, random: &mut Random) -> Result<usize> {
        match kill {
            Kill::Kill => self.watch.strike(master, Signal::KILL),
            Kill::Term => self.watch.strike(master, Signal::TERM),
            Kill::Intermediate => {
                let between = self.watch.book(|book| {
                    book.seen.iter().enumerate().rposition(|(at, seen)| {
                        let line = seen.proc.cmdline();
                        let drilled = seen.which == Instance::Drilled && book.has_master(at);
                        let above = book.seen.iter().any(|s| s.parent == Some(at) && s.gone.is_none());
                        seen.gone.is_none()
                            && drilled
                            && above
                            && self.framework.is_intermediate(self.stage, &line)
                    })
                });
                self.watch.strike(between.context("there is no intermediate to kill")?, Signal::KILL);
                self.wait_for_workers(master)?;
                return Ok(master);
            }
        }
        std::thread::sleep(random.millis(0, 400));
        self.start(Instance::Drilled)
    }
}

/// A master; it is waited for as soon as it dies, as a service manager would.
fn spawn(mut command: Command) -> Result<Proc> {
    let mut child: Child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let proc = Proc::of_child(&child).context("a master died at once")?;
    std::thread::spawn(move || child.wait());
    Ok(proc)
}

/// Waits until no live process has a job.
fn settle(stage: &Stage, watch: &Watch) {
    comes_true(SETTLE, || {
        std::thread::sleep(Duration::from_millis(100));
        let open = ledger::read(&stage.ledger()).into_iter().filter(|run| run.over().is_none());
        let is_alive =
            |pid| watch.book(|book| book.seen.iter().any(|s| s.proc.pid() == pid && s.gone.is_none()));
        open.into_iter().all(|run| !is_alive(run.pid))
    });
}

/// Workers of the drilled application that are alive.
fn crew(watch: &Watch) -> usize {
    let counts =
        |seen: &&super::watch::Seen| seen.which == Instance::Drilled && seen.is_worker && seen.gone.is_none();
    watch.book(|book| book.seen.iter().filter(counts).count())
}

/// Orphans that are alive.
pub(super) fn orphans_left(watch: &Watch) -> usize {
    watch.book(|book| {
        let left = |(at, seen): (usize, &super::watch::Seen)| {
            seen.is_worker && seen.gone.is_none() && book.orphaned(at).is_some()
        };
        book.seen.iter().enumerate().filter(|each| left(*each)).count()
    })
}
