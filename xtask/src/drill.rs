//! `cargo xtask drill`: real frameworks under load, as root. The drills themselves are in the crate `tests`.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{build, run::as_root, setup, sh};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of drills, `--all`, `--kills N`, `--short`, `--seed N`; without any the drills are listed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Builds the agent and runs the drills; their exit status is this task's.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    // The short form proves promises; the long one measures, too.
    let short = args.args.iter().any(|arg| arg == "--short");
    run_program("drill", &args.args, if short { build::Profile::Debug } else { build::Profile::Release })
}

/// Builds the agent and runs a program of the crate `tests` with it, as root; its exit status is the task's.
pub(crate) fn run_program(name: &str, args: &[OsString], profile: build::Profile) -> Result<ExitCode> {
    let root = as_root()?;
    let toolchain = setup::ensure()?;
    let agent = build::agent(&toolchain, profile)?;
    let mut cargo = sh::cargo();
    if !root.is_empty() {
        cargo.arg("--config").arg(format!("target.'cfg(unix)'.runner = {root:?}"));
    }
    cargo.args(["run", "--quiet", "--package", "reaper-tests", "--bin", name, "--"]).args(args);
    toolchain.apply(&mut cargo);
    cargo.env("REAPER_BIN", agent);
    let status = cargo.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
