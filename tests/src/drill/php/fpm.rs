//! php-fpm with requests in flight.
//!
//! A new master of php-fpm does not start while orphans listen: it cannot bind to their port. So the drill holds the
//! socket and hands it to every master, in the variable by which php-fpm itself hands its sockets over when it reloads.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use super::{env, fastcgi, files};
use crate::drill::{Framework, Group, Instance, Job, Stage, env as drill_env};

const WORKERS: usize = 3;

/// php-fpm with a static pool.
pub(super) struct Fpm;

impl Fpm {
    fn pool(stage: &Stage, which: Instance) -> String {
        let which = if which == Instance::Beside { "beside" } else { "drilled" };
        format!("{}-{which}", stage.token())
    }
}

impl Framework for Fpm {
    fn name(&self) -> &'static str {
        "php-fpm"
    }

    fn about(&self) -> String {
        let program = env::fpm().map(drill_env::text).unwrap_or_else(|_| "php-fpm".into());
        format!("{program}, pm = static, {WORKERS} children")
    }

    fn prepare(&self, stage: &Stage) -> Result<()> {
        env::php()?;
        env::fpm()?;
        files(
            stage,
            &[("slow.php", include_str!("app/slow.php")), ("work.php", include_str!("app/work.php"))],
        )?;
        stage.start_redis()?;
        stage.start_postgres()?;
        for which in [Instance::Drilled, Instance::Beside] {
            let (pool, port) = (Self::pool(stage, which), stage.listen(which));
            let config = format!(
                "[global]\ndaemonize = no\nerror_log = /dev/stderr\n\n\
                 [{pool}]\nlisten = 127.0.0.1:{port}\nuser = root\ngroup = root\nclear_env = no\n\
                 pm = static\npm.max_children = {WORKERS}\n"
            );
            fs::write(stage.scene.path(&format!("{pool}.conf")), config)?;
        }
        Ok(())
    }

    fn master(&self, stage: &Stage, which: Instance) -> Command {
        let mut command = Command::new(env::fpm().unwrap());
        let config = stage.scene.path(&format!("{}.conf", Self::pool(stage, which)));
        command.arg("--allow-to-run-as-root").arg("--fpm-config").arg(config);
        command.env("FPM_SOCKETS", format!("127.0.0.1:{}=3", stage.listen(which)));
        stage.pass_listener(&mut command, which);
        command
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    fn group(&self, stage: &Stage) -> Group {
        let token = stage.token();
        Group::new(
            "php-fpm",
            &format!(r"^php-fpm: master process \(\S*{token}|^(\S*/)?php-fpm[0-9.]* .*{token}"),
            &format!(r"^php-fpm: pool {token}-"),
        )
    }

    fn submit(&self, stage: &Stage, which: Instance, job: Job) -> Result<()> {
        let script = drill_env::text(stage.scene.path("slow.php"));
        let query = format!("{}/{}/{}", job.id, job.kind, job.ms);
        let answer = fastcgi::get(stage.listen(which), &script, &query)?;
        ensure!(answer.ends_with("whole"), "{answer:?}");
        Ok(())
    }

    fn answers(&self) -> bool {
        true
    }

    fn lookalike(&self, stage: &Stage) -> String {
        format!("php-fpm: pool {}", Self::pool(stage, Instance::Drilled))
    }
}
