//! What the agent says of a worker in the middle of a job: for each job one master is killed, and the first verdict about
//! the worker that has the job is kept, and the sentences until it goes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use regex::Regex;
use serde_json::Value;

use super::run::{Masters, orphans_left, start_agent};
use super::watch::Watch;
use super::{Framework, Instance, Job, Stage, ledger};
use crate::agent::is_shot;
use crate::log::Record;
use crate::process::{Signal, comes_true};

/// How long a job may take to start, and an orphan to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was said of a worker that lost its master in the middle of a job.
#[derive(Clone, Debug)]
pub struct Verdicts {
    /// The job.
    pub job: Job,
    /// Every verdict with its sentence while the job was running.
    pub during: Vec<(String, String)>,
    /// The sentence with which it was signalled.
    pub signalled: Option<String>,
    /// Whether that was after the job, which had come to its end.
    pub after: bool,
}

/// Lets a framework run these jobs, one after the other.
///
/// # Errors
/// When something that it needs cannot be had, or a job is not started.
pub fn verdicts(framework: &Arc<dyn Framework>, jobs: &[Job]) -> Result<Vec<Verdicts>> {
    nix::sys::prctl::set_child_subreaper(framework.below_subreaper())?;
    let stage = Arc::new(Stage::new()?);
    framework.prepare(&stage).with_context(|| format!("cannot set up {}", framework.name()))?;
    let group = framework.group(&stage);
    let agent = start_agent(&stage, &group.config(&stage)?)?;
    let watch = Arc::new(Watch::start(Regex::new(group.worker())?, framework.job_in_child()));
    let masters = Masters { framework, stage: &stage, watch: &watch };
    let mut all = Vec::new();
    let mut master = masters.start(Instance::Drilled)?;
    for &job in jobs {
        let submitter = (framework.clone(), stage.clone());
        // A request is answered when the job is done; what it says then is not this test's.
        std::thread::spawn(move || submitter.0.submit(&submitter.1, Instance::Drilled, job));
        let run = || ledger::read(&stage.ledger()).into_iter().find(|run| run.job == job.id);
        comes_true(PATIENCE, || run().is_some());
        let started = run().with_context(|| format!("{job:?} was not started"))?;
        let pid = if framework.job_in_child() { started.ppid } else { started.pid };
        watch.strike(master, Signal::KILL);
        // Some orphans are only stopped once there is a master again; and the next job is for one that has a master.
        master = masters.start(Instance::Drilled)?;
        comes_true(PATIENCE, || orphans_left(&watch) == 0);
        let about = |r: &Record| r.get("/proc/pid").and_then(Value::as_i64) == Some(pid.into());
        let records: Vec<_> = agent.records().into_iter().filter(about).collect();
        let over = run().and_then(|run| run.ended);
        let shot = records.iter().find(|r| is_shot(r));
        let said = |r: &Record| (r.text("/evidence/verdict").into(), r.text("/evidence/because").into());
        let judged = records.iter().filter(|r| ["busy", "idle"].contains(&r.kind()));
        all.push(Verdicts {
            job,
            during: judged.filter(|r| over.is_none_or(|over| r.boot_ns() < over)).map(said).collect(),
            signalled: shot.map(|r| r.text("/evidence/because").into()),
            after: shot.zip(over).is_some_and(|(shot, over)| shot.boot_ns() >= over),
        });
    }
    agent.stop();
    Ok(all)
}
