//! `cargo xtask run`: builds the agent and becomes it, as root.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{build, sh};

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
    let mut command = match as_root()?.split_first() {
        None => Command::new(&binary),
        Some((program, options)) => {
            let mut command = Command::new(program);
            command.args(options).arg(&binary);
            command
        }
    };
    let error = command.args(&args.args).exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
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
