//! Worker frameworks written in Python.

use std::fs;
use std::process::Command;

use anyhow::Result;

use super::{Framework, Stage, env};

mod queues;
mod web;

/// Every one.
pub(super) fn all() -> Vec<Box<dyn Framework>> {
    let gunicorn = |name, class, app, more| Box::new(web::Gunicorn { name, class, app, more });
    vec![
        Box::new(queues::Celery { stays: false }),
        Box::new(queues::Celery { stays: true }),
        Box::new(queues::Rq { supervised: true }),
        Box::new(queues::Rq { supervised: false }),
        gunicorn("gunicorn-sync", "sync", "web:wsgi", &[]),
        gunicorn("gunicorn-gthread", "gthread", "web:wsgi", &["--threads", "3"]),
        gunicorn("gunicorn-uvicorn", "uvicorn_worker.UvicornWorker", "web:asgi", &[]),
        gunicorn("gunicorn-gevent", "gevent", "web:wsgi", &[]),
        Box::new(web::Uwsgi),
    ]
}

/// Puts the programs into the stage's folder.
fn files(stage: &Stage) -> Result<()> {
    env::python()?;
    let all = [
        ("jobs.py", include_str!("jobs.py")),
        ("web.py", include_str!("web.py")),
        ("tasks.py", include_str!("tasks.py")),
        ("tokens.py", include_str!("tokens.py")),
        ("submit.py", include_str!("submit.py")),
    ];
    for (name, text) in all {
        fs::write(stage.scene.path(name), text)?;
    }
    Ok(())
}

/// The pinned version of a package.
fn version(package: &str) -> &'static str {
    let pinned = env::PYTHON.iter().filter_map(|pin| pin.split_once("=="));
    pinned.into_iter().find(|(name, _)| *name == package).map_or("?", |(_, version)| version)
}

/// One of the environment's programs.
fn python(program: &str) -> Command {
    let mut command = Command::new(env::python().unwrap().join(program));
    // The programs of the stage are found wherever the framework looks from.
    command.env("PYTHONPATH", ".").env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A configuration of supervisord with one program, run `count` times.
fn supervisord(stage: &Stage, program: &str, count: usize, section: &str) -> String {
    let folder = env::text(stage.folder());
    format!(
        "[supervisord]\nlogfile={folder}/supervisord.log\nlogfile_maxbytes=0\npidfile={folder}/supervisord.pid\n\n\
         [program:drill]\ncommand={program}\ndirectory={folder}\nnumprocs={count}\n\
         process_name=%(process_num)s\n{section}\n\
         stdout_logfile={folder}/program.log\nredirect_stderr=true\n"
    )
}
