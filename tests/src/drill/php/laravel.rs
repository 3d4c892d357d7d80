//! Laravel's queue workers on Redis: the real `queue:work`, below a script, below supervisord, and below masters of
//! Horizon's shape.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{env, files};
use crate::drill::{Framework, Group, Instance, Job, Kill, Stage, env as drill_env};

/// Workers of a master.
const WORKERS: usize = 3;
/// `--sleep`: seconds between polls.
const SLEEP: u64 = 1;
/// How long a worker that does not heed TERM has before it is killed.
const GRACE: u64 = 2;

/// What is above the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Under {
    /// A shell script that starts them, as the entry point of a container does.
    Script,
    /// supervisord.
    Supervisord,
    /// A master and a supervisor of Horizon's shape, whose orphans go to pid 1.
    Horizon,
    /// The same below a subreaper: the supervisor does not see that its master is gone.
    Subreaper,
}

/// `queue:work redis` with one setting of `block_for`.
pub(super) struct Laravel {
    pub(super) name: &'static str,
    pub(super) block_for: Option<u64>,
    pub(super) under: Under,
}

impl Laravel {
    fn is_horizon(&self) -> bool {
        matches!(self.under, Under::Horizon | Under::Subreaper)
    }

    /// `php TOKENDIR/artisan`.
    fn artisan(stage: &Stage) -> String {
        format!("{} {}", drill_env::text(env::php().unwrap()), drill_env::text(stage.scene.path("artisan")))
    }

    fn worker(stage: &Stage) -> String {
        format!("{} queue:work redis --sleep={SLEEP}", Self::artisan(stage))
    }

    /// A command with what the application reads from its environment.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("DRILL_ILLUMINATE", env::illuminate().unwrap());
        if let Some(seconds) = self.block_for {
            command.env("DRILL_BLOCK_FOR", seconds.to_string());
        }
        command
    }
}

impl Framework for Laravel {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> String {
        let block = self.block_for.map_or("without block_for".into(), |s| format!("block_for={s}"));
        let under = match self.under {
            Under::Script => "below a script",
            Under::Supervisord => "below supervisord",
            Under::Horizon => "below a master of Horizon's shape",
            Under::Subreaper => "below a master of Horizon's shape and a subreaper",
        };
        format!("Illuminate Queue {}, queue:work redis --sleep={SLEEP} {block}, {under}", env::version())
    }

    fn prepare(&self, stage: &Stage) -> Result<()> {
        let php = env::php()?;
        env::illuminate()?;
        let app = [
            ("artisan", include_str!("app/artisan")),
            ("work.php", include_str!("app/work.php")),
            ("jobs.php", include_str!("app/jobs.php")),
            ("horizon.php", include_str!("app/horizon.php")),
        ];
        files(stage, &app)?;
        let worker = Self::worker(stage);
        let script = format!("#!/bin/sh\nfor n in $(seq {WORKERS}); do {worker} & done\nwait\n");
        files(stage, &[("workers.sh", &script)])?;
        if self.under == Under::Supervisord {
            drill_env::program("supervisord", "supervisor")?;
            fs::write(stage.scene.path("supervisord.conf"), supervisord(stage, &worker))?;
        }
        stage.start_redis()?;
        stage.start_postgres()?;
        let mut submit = self.command(php);
        submit.arg(stage.scene.path("artisan")).arg("drill:push");
        stage.start_submitter(submit)
    }

    fn master(&self, stage: &Stage, _which: Instance) -> Command {
        let artisan = stage.scene.path("artisan");
        let horizon = |mut command: Command| {
            let options = [format!("--sleep={SLEEP}"), format!("--processes={WORKERS}")];
            command.arg(&artisan).arg("horizon").args(options);
            command
        };
        match self.under {
            Under::Script => self.command(stage.scene.path("workers.sh")),
            Under::Supervisord => {
                let mut command = self.command(drill_env::program("supervisord", "supervisor").unwrap());
                command.arg("-n").arg("-c").arg(stage.scene.path("supervisord.conf"));
                command
            }
            Under::Horizon | Under::Subreaper => horizon(self.command(env::php().unwrap())),
        }
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    fn group(&self, stage: &Stage) -> Group {
        let token = stage.token();
        let php = format!(r"^\S*php\S* \S*{token}\S*/artisan");
        let (profile, master, worker) = match self.under {
            Under::Script => ("laravel-queue", format!(r"^/bin/sh \S*{token}\S*/workers.sh"), "queue:work"),
            Under::Supervisord => (
                "laravel-queue",
                format!(r"^(\S*/)?python\S* \S*/supervisord -n -c \S*{token}"),
                "queue:work",
            ),
            Under::Horizon | Under::Subreaper => {
                ("laravel-horizon", format!("{php} horizon( |$)"), "horizon:work")
            }
        };
        let group = Group::new(profile, &master, &format!("{php} {worker}( |$)"))
            .with("idle", "queue", vec![format!("tcp/{}", stage.redis())])
            .with("idle", "sleep", format!("{SLEEP}s"));
        let group = match self.block_for {
            Some(0) => group.with("stop", "grace", format!("{GRACE}s")),
            _ => group,
        };
        if !self.is_horizon() {
            return group;
        }
        group.beside(supervisors(&format!("{php} horizon( |$)"), &format!("{php} horizon:supervisor ")))
    }

    fn submit(&self, stage: &Stage, _which: Instance, job: Job) -> Result<()> {
        stage.hand_in(job)
    }

    fn kills(&self) -> Vec<Kill> {
        match self.under {
            Under::Horizon | Under::Subreaper => vec![Kill::Kill, Kill::Intermediate, Kill::Kill],
            _ => vec![Kill::Kill, Kill::Kill, Kill::Term],
        }
    }

    fn below_subreaper(&self) -> bool {
        self.under == Under::Subreaper
    }

    fn is_intermediate(&self, _stage: &Stage, cmdline: &str) -> bool {
        self.is_horizon() && cmdline.contains(" horizon:supervisor ")
    }

    fn patience(&self) -> Option<Duration> {
        match self.block_for {
            // Two polls that find nothing, each after a sleep, and one more for a look that came at a bad moment.
            None => Some(Duration::from_millis(3 * SLEEP * 1_000 + 400)),
            // It sleeps when its pop found nothing, as when another worker was faster, and is not idle in the middle of that.
            Some(_) => Some(Duration::from_millis(SLEEP * 1_000 + 300)),
        }
    }

    fn farewell(&self) -> Duration {
        match self.block_for {
            None => Duration::ZERO,
            // TERM is not heeded.
            Some(0) => Duration::from_millis(GRACE * 1_000 + 500),
            // TERM is heeded when the pop has returned and the sleep after it is over.
            Some(seconds) => Duration::from_secs(seconds + SLEEP),
        }
    }

    fn lookalike(&self, stage: &Stage) -> String {
        match self.is_horizon() {
            true => format!("{} horizon:work redis --sleep={SLEEP}", Self::artisan(stage)),
            false => Self::worker(stage),
        }
    }
}

/// An orphaned supervisor has no jobs, only workers, and starts a new one for each that goes. TERM makes it send TERM to all of
/// them, busy or not: KILL does not.
fn supervisors(master: &str, supervisor: &str) -> Group {
    Group::new("laravel-horizon", master, supervisor)
        .with("idle", "proof", "asleep")
        .with("idle", "children", vec!["php*"])
        .with("stop", "signals", vec!["KILL"])
}

fn supervisord(stage: &Stage, program: &str) -> String {
    let folder = drill_env::text(stage.folder());
    format!(
        "[supervisord]\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={folder}/supervisord.pid\n\n\
         [program:laravel]\ncommand={program}\ndirectory={folder}\nnumprocs={WORKERS}\n\
         process_name=%(program_name)s_%(process_num)02d\nautorestart=true\nstopwaitsecs=20\n\
         stdout_logfile={folder}/workers.log\nredirect_stderr=true\n"
    )
}
