//! `cargo xtask drill`: real frameworks under load, as root. The drills themselves are in the crate `tests`.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;

use crate::{build, run};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of drills, `race`, `--all`, `--kills N`, `--rounds N`, `--short`, `--seed N`, `--cron`, `--asleep`; without any the
    /// drills are listed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Builds the agent and runs the drills; their exit status is this task's.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    // The short form proves promises; the long one measures, too.
    let short = args.args.iter().any(|arg| arg == "--short");
    run::program("drill", &args.args, if short { build::Profile::Debug } else { build::Profile::Release })
}
