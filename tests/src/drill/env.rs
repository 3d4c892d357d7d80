//! What drills need from outside: Python packages from PyPI, programs from the distribution.
//!
//! Everything that is not the distribution's is put below `target/drill-env` and found there again. Every step says on
//! stderr what it does, does nothing when it has been done, and fails with what a person can do about it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::scene::build_folder;

/// `target/drill-env`.
pub fn folder() -> PathBuf {
    let target = build_folder().parent().map(Path::to_path_buf).unwrap();
    let folder = target.join("drill-env");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Says what is done, does it with its output in a file of `target/drill-env`, and fails with the end of that output.
///
/// # Errors
/// When the command cannot be started or fails.
pub fn step(what: &str, command: &mut Command) -> Result<()> {
    eprintln!("drill: {what}");
    let log = folder().join("steps.log");
    let file = fs::File::create(&log)?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("{what}: cannot start {}", command.get_program().display()))?;
    if !status.success() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        bail!("{what}: {} ended with {status}:\n{end}", command.get_program().display());
    }
    Ok(())
}

/// Does `work` unless the stamp of this name says that it was done with the same `input`.
///
/// # Errors
/// Those of `work`.
pub fn once(name: &str, input: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = folder().join(format!("{name}.stamp"));
    if fs::read_to_string(&stamp).is_ok_and(|done| done == input) {
        return Ok(());
    }
    work()?;
    fs::write(&stamp, input).with_context(|| format!("cannot write {}", stamp.display()))
}

/// The path of a program of the distribution; installs its package when it is not there.
///
/// # Errors
/// When it is not there and cannot be installed.
pub fn program(name: &str, package: &str) -> Result<PathBuf> {
    if let Some(path) = find(name) {
        return Ok(path);
    }
    apt(&[package])?;
    find(name).with_context(|| format!("the package {package} is installed, and {name} is not there"))
}

/// A program on the path, or where Debian puts PostgreSQL's and the administrator's.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    let fixed = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut all = std::env::split_paths(&path).chain(fixed).chain(folders.into_iter().rev());
    all.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
}

/// Installs packages of the distribution without starting what services they bring.
///
/// # Errors
/// When there is no apt-get, this is not root, or a package cannot be had.
pub fn apt(packages: &[&str]) -> Result<()> {
    let command = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !nix::unistd::geteuid().is_root() {
        bail!("needed: {command} (as root)");
    }
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        // In this run level Debian's invoke-rc.d starts nothing.
        apt.args(args).args(packages.iter().filter(|_| args != ["update"]));
        apt.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        apt
    };
    let install = ["install", "--yes", "--no-install-recommends"];
    if step(&command, &mut apt(&install)).is_err() {
        step("apt-get update", &mut apt(&["update"]))?;
        step(&command, &mut apt(&install))?;
    }
    Ok(())
}

/// What the Python drills need, pinned. uWSGI is compiled by pip: it needs a C compiler and Python's headers.
pub(super) const PYTHON: &[&str] = &[
    "celery==5.7.0",
    // Kombu's transport for Redis imports it and does not ask for it.
    "packaging==26.3",
    "supervisor==4.3.0",
    "redis==8.1.0",
    "rq==2.12.0",
    "gunicorn==27.0.1",
    "gevent==26.9.0",
    "uvicorn==0.54.0",
    "uvicorn-worker==0.4.0",
    "setproctitle==1.3.8",
    "psycopg2-binary==2.9.13",
    "uWSGI==2.0.31",
];

/// The folder of the Python programs, with everything in it that the Python drills need.
///
/// # Errors
/// When Python or a package cannot be had.
pub fn python() -> Result<PathBuf> {
    let bin = folder().join("py/bin");
    once("python", &PYTHON.join("\n"), || {
        if !bin.join("pip").exists() {
            let python = program("python3", "python3")?;
            let venv = || {
                step(
                    "python3 -m venv py",
                    Command::new(&python).args(["-m", "venv"]).arg(folder().join("py")),
                )
            };
            if venv().is_err() {
                apt(&["python3-venv", "python3-dev", "gcc", "libc6-dev"])?;
                venv()?;
            }
        }
        let args = ["install", "--quiet", "--disable-pip-version-check"].iter().chain(PYTHON);
        step("pip install (drills' Python packages)", Command::new(bin.join("pip")).args(args))
    })?;
    Ok(bin)
}

/// A text for a path that is one.
pub fn text(path: impl AsRef<OsStr>) -> String {
    path.as_ref().to_str().map(str::to_owned).unwrap()
}
