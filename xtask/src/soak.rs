//! `cargo xtask soak`: everything at once for a while, as root. The soak itself is in the crate `tests`.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{build, run::as_root, setup, sh};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// `--minutes N`, `--seed N`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Builds the agent and runs the soak; its exit status is this task's.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = as_root()?;
    let toolchain = setup::ensure()?;
    build::agent(&toolchain, build::Profile::Debug)?;
    let mut cargo = sh::cargo();
    if !root.is_empty() {
        cargo.arg("--config").arg(format!("target.'cfg(unix)'.runner = {root:?}"));
    }
    cargo.args(["run", "--quiet", "--package", "reaper-tests", "--bin", "soak", "--"]).args(&args.args);
    toolchain.apply(&mut cargo);
    let status = cargo.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
