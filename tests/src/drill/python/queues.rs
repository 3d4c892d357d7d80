//! Queue workers: Celery's prefork pool, RQ's worker-pool, RQ workers below supervisord.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{files, python, supervisord, version};
use crate::drill::{Framework, Group, Instance, Job, Stage, env};

/// Workers of a master.
const WORKERS: usize = 3;

/// What queue drills need: Redis, PostgreSQL, and a program that hands jobs in.
fn prepare(stage: &Stage, queue: &str) -> Result<()> {
    files(stage)?;
    stage.start_redis()?;
    stage.start_postgres()?;
    let mut submit = python("python");
    submit.args(["submit.py", queue]);
    stage.start_submitter(submit)
}

fn queue(stage: &Stage) -> toml::Value {
    vec![format!("tcp/{}", stage.redis())].into()
}

/// Celery prefork.
pub(super) struct Celery {
    /// Children are not killed with their master, as before Celery 5.2.
    pub(super) stays: bool,
}

impl Framework for Celery {
    fn name(&self) -> &'static str {
        if self.stays { "celery-stays" } else { "celery" }
    }

    fn about(&self) -> String {
        let how = if self.stays { ", without PR_SET_PDEATHSIG, as before 5.2" } else { "" };
        format!("Celery {} on Redis, prefork, {WORKERS} children{how}", version("celery"))
    }

    fn prepare(&self, stage: &Stage) -> Result<()> {
        prepare(stage, "celery")
    }

    fn master(&self, stage: &Stage, which: Instance) -> Command {
        let mut command = python("celery");
        let name = if which == Instance::Beside { "beside" } else { "drilled" };
        command
            .args(["-A", "tasks", "worker", "-P", "prefork", "-c", &WORKERS.to_string(), "-l", "warning"])
            .args(["-n", &format!("{}-{name}@drill", stage.token())]);
        if self.stays {
            command.env("DRILL_CHILDREN_STAY", "1");
        }
        command
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    fn group(&self, stage: &Stage) -> Group {
        let token = stage.token();
        Group::new(
            "celery",
            &format!(r"^\[celeryd: {token}\S+:MainProcess\]|^(\S*/)?python\S* \S*/celery .*-n {token}"),
            &format!(r"^\[celeryd: {token}\S+:(Fork)?PoolWorker-[0-9]+\]"),
        )
        // The profile knows better than to take a child that waits on the broker for an idle one.
        .with("idle", "queue", queue(stage))
    }

    fn submit(&self, stage: &Stage, _which: Instance, job: Job) -> Result<()> {
        stage.hand_in(job)
    }

    fn farewell(&self) -> Duration {
        // A child that is told to go waits for its dead master to read its last word: 300 times 100 ms (billiard/pool.py,
        // `_ensure_messages_consumed`).
        Duration::from_secs(32)
    }

    fn judged_together(&self) -> bool {
        true
    }

    fn patience(&self) -> Option<Duration> {
        // It is seen first that the last one with a job waits, and then, a look later, that all wait.
        Some(Duration::from_millis(400))
    }

    fn lookalike(&self, stage: &Stage) -> String {
        format!("[celeryd: {}-drilled@drill:ForkPoolWorker-1]", stage.token())
    }
}

/// RQ, in a pool of its own or below supervisord.
pub(super) struct Rq {
    pub(super) supervised: bool,
}

impl Framework for Rq {
    fn name(&self) -> &'static str {
        if self.supervised { "rq" } else { "rq-pool" }
    }

    fn about(&self) -> String {
        let rq = version("rq");
        if self.supervised {
            format!("RQ {rq}, {WORKERS} × rq worker below supervisord {}", version("supervisor"))
        } else {
            format!("RQ {rq}, rq worker-pool -n {WORKERS}")
        }
    }

    fn prepare(&self, stage: &Stage) -> Result<()> {
        prepare(stage, "rq")?;
        let rq = env::text(env::python()?.join("rq"));
        let url = format!("redis://127.0.0.1:{}", stage.redis());
        let program = format!("{rq} worker -u {url} -w tokens.Worker {}", stage.token());
        let section = "stopwaitsecs=20\nautorestart=true";
        Ok(fs::write(stage.scene.path("supervisord.conf"), supervisord(stage, &program, WORKERS, section))?)
    }

    fn master(&self, stage: &Stage, _which: Instance) -> Command {
        if self.supervised {
            let mut command = python("supervisord");
            command.args(["-n", "-c"]).arg(stage.scene.path("supervisord.conf"));
            return command;
        }
        let mut command = python("rq");
        command.args(["worker-pool", "-n", &WORKERS.to_string(), "-w", "tokens.Worker"]).args([
            "-u",
            &format!("redis://127.0.0.1:{}", stage.redis()),
            stage.token(),
        ]);
        command
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    fn group(&self, stage: &Stage) -> Group {
        let token = stage.token();
        let master = match self.supervised {
            true => format!(r"^(\S*/)?python\S* \S*/supervisord -n -c \S*{token}"),
            false => format!(r"^(\S*/)?python\S* \S*/rq worker-pool .* {token}$"),
        };
        Group::new(
            "rq",
            &master,
            &format!(r"^rq:worker:{token}\S*: (Listening on|Forked|Spawned|Processing) "),
        )
        .with("idle", "queue", queue(stage))
    }

    fn submit(&self, stage: &Stage, _which: Instance, job: Job) -> Result<()> {
        stage.hand_in(job)
    }

    fn job_in_child(&self) -> bool {
        true
    }

    fn farewell(&self) -> Duration {
        // It waits a second for the thread of its subscription (`pubsub_thread.join(timeout=1)`, rq/worker/base.py).
        Duration::from_millis(1_400)
    }

    fn lookalike(&self, stage: &Stage) -> String {
        format!("rq:worker:{}-1: Listening on {}", stage.token(), stage.token())
    }
}
