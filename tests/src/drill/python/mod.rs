//! Worker frameworks written in Python.

use std::fs;

use anyhow::Result;

use super::{Framework, Stage, env};

mod web;

/// Every one.
pub(super) fn all() -> Vec<Box<dyn Framework>> {
    let gunicorn = |name, class, app, more| Box::new(web::Gunicorn { name, class, app, more });
    vec![
        gunicorn("gunicorn-sync", "sync", "web:wsgi", &[]),
        gunicorn("gunicorn-gthread", "gthread", "web:wsgi", &["--threads", "3"]),
        gunicorn("gunicorn-uvicorn", "uvicorn_worker.UvicornWorker", "web:asgi", &[]),
    ]
}

/// Puts the programs into the stage's folder.
fn files(stage: &Stage) -> Result<()> {
    env::python()?;
    let all = [("jobs.py", include_str!("jobs.py")), ("web.py", include_str!("web.py"))];
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
