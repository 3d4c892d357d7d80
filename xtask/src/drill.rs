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
    let root = as_root()?;
    let toolchain = setup::ensure()?;
    // The short form proves promises; the long one measures, too.
    let short = args.args.iter().any(|arg| arg == "--short");
    let agent =
        build::agent(&toolchain, if short { build::Profile::DEBUG } else { build::Profile::RELEASE })?;
    let mut cargo = sh::cargo();
    if !root.is_empty() {
        cargo.arg("--config").arg(format!("target.'cfg(unix)'.runner = {root:?}"));
    }
    cargo.args(["run", "--quiet", "--package", "reaper-tests", "--bin", "drill", "--"]).args(&args.args);
    toolchain.apply(&mut cargo);
    cargo.env("REAPER_BIN", agent);
    let status = cargo.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
