//! Web servers: gunicorn with its worker classes, and uWSGI without a master.
//!
//! The drill holds the listening socket, as a service manager does, and hands it to every master: so a new master can
//! serve beside the orphans of the old one.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{files, python, supervisord, version};
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
        let mut command = python("gunicorn");
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
        let group = Group::new(
            "gunicorn",
            &format!(r"^gunicorn: master \[{token}\]|^(\S*/)?python\S* \S*/gunicorn .*--name {token} "),
            &format!(r"^gunicorn: worker \[{token}\]"),
        );
        // It leaves within a second of its master, whatever it does (gunicorn/workers/ggevent.py, `notify`): leave it to it.
        if self.class == "gevent" { group.quiet(20_000) } else { group }
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

    fn patience(&self) -> Option<Duration> {
        // uvicorn wakes every 100 ms, and whoever is seen running begins its quiet anew.
        self.class.contains("Uvicorn").then_some(Duration::from_millis(200 + 100 + 100))
    }

    fn farewell(&self) -> Duration {
        // uvicorn looks every 100 ms whether it was told to go (uvicorn/server.py, `main_loop`); and then the interpreter ends.
        Duration::from_millis(300)
    }

    fn lookalike(&self, stage: &Stage) -> String {
        format!("gunicorn: worker [{}]", stage.token())
    }
}

/// uWSGI without --master below supervisord: its first worker is the others' parent.
pub(super) struct Uwsgi;

impl Framework for Uwsgi {
    fn name(&self) -> &'static str {
        "uwsgi"
    }

    fn about(&self) -> String {
        let (uwsgi, supervisor) = (version("uWSGI"), version("supervisor"));
        format!("uWSGI {uwsgi} without --master, 3 processes, below supervisord {supervisor}")
    }

    fn prepare(&self, stage: &Stage) -> Result<()> {
        files(stage)?;
        stage.start_redis()?;
        stage.start_postgres()?;
        let uwsgi = env::text(env::python()?.join("uwsgi"));
        for which in [Instance::Drilled, Instance::Beside] {
            // supervisord hands no descriptors on: every uWSGI binds to the port for itself, beside the drill's own socket,
            // on which nobody listens: it only keeps the port from others.
            let port = stage.reserve(which);
            let program = format!(
                "{uwsgi} --http-socket 127.0.0.1:{port} --reuse-port --processes 3 --module web:wsgi \
                 --logto2 {} --pyargv {}",
                // Not supervisord's pipe: with nobody at its other end uWSGI runs in circles.
                env::text(stage.scene.path("program.log")),
                stage.token()
            );
            let section = "stopsignal=HUP\nstopasgroup=true\nautorestart=true\nstartsecs=0";
            fs::write(stage.scene.path(conf(which)), supervisord(stage, &program, 1, section))?;
        }
        Ok(())
    }

    fn master(&self, stage: &Stage, which: Instance) -> Command {
        let mut command = python("supervisord");
        command.args(["-n", "-c"]).arg(stage.scene.path(conf(which)));
        command
    }

    fn workers(&self) -> usize {
        3
    }

    fn group(&self, stage: &Stage) -> Group {
        let token = stage.token();
        Group::new(
            "uwsgi",
            &format!(r"^(\S*/)?python\S* \S*/supervisord -n -c \S*{token}"),
            &format!(r"^(\S*/)?uwsgi .*--pyargv {token}"),
        )
    }

    fn submit(&self, stage: &Stage, which: Instance, job: Job) -> Result<()> {
        get(stage.reserve(which), &format!("/{}/{}/{}", job.id, job.kind, job.ms))
    }

    fn answers(&self) -> bool {
        true
    }

    fn kills(&self) -> Vec<Kill> {
        vec![Kill::Kill, Kill::Intermediate, Kill::Kill, Kill::Term]
    }

    fn farewell(&self) -> Duration {
        // From the signal to the end of the interpreter.
        Duration::from_millis(500)
    }

    fn is_intermediate(&self, stage: &Stage, cmdline: &str) -> bool {
        cmdline.contains(&format!("--pyargv {}", stage.token()))
    }

    fn lookalike(&self, stage: &Stage) -> String {
        format!("uwsgi --pyargv {}", stage.token())
    }
}

fn conf(which: Instance) -> &'static str {
    match which {
        Instance::Drilled => "drilled.conf",
        Instance::Beside => "beside.conf",
    }
}
