//! `cargo xtask soak`: everything at once for a while, as root. The soak itself is in the crate `tests`.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;

use crate::{build, run};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// `--minutes N`, `--seed N`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Builds the agent and runs the soak; its exit status is this task's.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    run::program("soak", &args.args, build::Profile::Debug)
}
