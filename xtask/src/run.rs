//! `cargo xtask run`: builds the agent and becomes it, as root. And how other tasks run something as root.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{build, setup, sh};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: build::Options,
    /// The agent's arguments.
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Returns only if the agent could not be started: on success this process *is* the agent, so signals reach it, and
/// its stdout and exit status are the task's.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let binary = build::run(args.options)?;
    let error = rooted(as_root()?, &binary).args(&args.args).exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
}

/// A command that runs a program as root, by [`as_root`]'s words.
pub(crate) fn rooted(root: &[&str], program: impl AsRef<OsStr>) -> Command {
    match root.split_first() {
        None => Command::new(program),
        Some((before, options)) => {
            let mut command = Command::new(before);
            command.args(options).arg(program);
            command
        }
    }
}

/// Has cargo run what it builds as root, by [`as_root`]'s words.
pub(crate) fn runner(cargo: &mut Command, root: &[&str]) {
    if !root.is_empty() {
        cargo.arg("--config").arg(format!("target.'cfg(unix)'.runner = {root:?}"));
    }
}

/// Builds the agent and runs a program of the crate `tests` with it, as root; its exit status is the task's.
pub(crate) fn program(name: &str, args: &[OsString], profile: build::Profile) -> Result<ExitCode> {
    let root = as_root()?;
    let toolchain = setup::ensure()?;
    let agent = build::agent(&toolchain, profile)?;
    let mut cargo = sh::cargo();
    runner(&mut cargo, root);
    cargo.args(["run", "--quiet", "--package", "reaper-tests", "--bin", name, "--"]).args(args);
    toolchain.apply(&mut cargo);
    cargo.env("REAPER_BIN", agent);
    let status = cargo.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The command that is put before another so that it runs as root: nothing if this is root already.
///
/// # Errors
/// When this is not root and there is no sudo.
pub(crate) fn as_root() -> Result<&'static [&'static str]> {
    if sh::is_root() {
        return Ok(&[]);
    }
    sh::on_path("sudo").context("this needs root, and there is no sudo: run it as root")?;
    eprintln!("not root: continuing through sudo");
    Ok(&["sudo", "-E"])
}
