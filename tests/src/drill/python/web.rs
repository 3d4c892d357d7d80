//! Web servers: gunicorn with its worker classes, and uWSGI without a master.
//!
//! The drill holds the listening socket, as a service manager does, and hands it to every master: so a new master can
//! serve beside the orphans of the old one.

use std::process::Command;

use anyhow::Result;

use super::{files, version};
use crate::drill::{Framework, Group, Instance, Job, Kill, Stage, env, get};

/// gunicorn with one class of workers.
pub(super) struct Gunicorn {
    pub(super) name: &'static str,
    pub(super) class: &'static str,
    pub(super) app: &'static str,
    pub(super) more: &'static [&'static str],
}

impl Framework for Gunicorn {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> String {
        format!("gunicorn {}, {} --worker-class {}", version("gunicorn"), self.more.join(" "), self.class)
    }

    fn prepare(&self, stage: &Stage) -> Result<()> {
        files(stage)?;
        stage.start_redis()?;
        stage.start_postgres()
    }

    fn master(&self, stage: &Stage, which: Instance) -> Command {
        let mut command = Command::new(env::python().unwrap().join("gunicorn"));
        command
            .args(["--bind", "fd://3", "--workers", "3", "--worker-class", self.class])
            .args(self.more)
            .args(["--timeout", "20", "--no-control-socket", "--name", stage.token(), self.app]);
        stage.pass_listener(&mut command, which);
        command
    }

    fn workers(&self) -> usize {
        3
    }

    fn group(&self, stage: &Stage) -> Group {
        let token = stage.token();
        Group::new(
            "gunicorn",
            &format!(r"^gunicorn: master \[{token}\]|^(\S*/)?python\S* \S*/gunicorn .*--name {token} "),
            &format!(r"^gunicorn: worker \[{token}\]"),
        )
    }

    fn submit(&self, stage: &Stage, which: Instance, job: Job) -> Result<()> {
        get(stage.listen(which), &format!("/{}/{}/{}", job.id, job.kind, job.ms))
    }

    fn answers(&self) -> bool {
        true
    }

    fn kills(&self) -> Vec<Kill> {
        vec![Kill::Kill, Kill::Kill, Kill::Term]
    }

    fn lookalike(&self, stage: &Stage) -> String {
        format!("gunicorn: worker [{}]", stage.token())
    }
}
