//! `cargo xtask bench`: what reaper costs, as root. The benchmarks themselves are in the crate `tests`.

use std::{
    ffi::OsString,
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::Parser as _;

mod core;

use crate::{
    build,
    run::{as_root, rooted},
    setup, sh,
};

/// A program that does nothing, for the cost of starting one.
const NOTHING: &str = "fn main() {}\n";

/// Tools that watch processes, and one that makes work: programs, and the packages of Debian that have them.
const OTHERS: [(&str, &str); 3] =
    [("forkstat", "forkstat"), ("bpftrace", "bpftrace"), ("perf", "linux-perf")];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of benchmarks, `--all`, `--rounds N`, `--short`, `--json`, `--out FOLDER`; without any they are listed. `core [--save]
    /// [--json]` stands by itself.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Builds the agent and the benchmarks, optimised, and runs them; their exit status is this task's.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.args.first().is_some_and(|arg| arg == "core") {
        return core::run(&core::Args::parse_from(&args.args));
    }
    let root = as_root()?;
    let toolchain = setup::ensure()?;
    let agent = build::agent(&toolchain, build::Profile::Release)?;
    let mut cargo = sh::cargo();
    cargo.args(["build", "--package", "reaper-tests", "--bins"]).args(build::Profile::Release.args());
    toolchain.apply(&mut cargo);
    sh::run(&mut cargo)?;
    let folder = agent.parent().context("the agent is in no folder")?;
    build_nothing(folder)?;
    if args.args.iter().any(|arg| arg == "host" || arg == "--all") {
        install_others();
    }
    let bench = folder.join("bench");
    let mut command = rooted(root, &bench);
    command.current_dir(sh::root()).args(&args.args).env("REAPER_BIN", agent);
    let status = command.status().with_context(|| format!("cannot start {}", bench.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What reaper is compared with. Whatever cannot be had is left out, and the table says so.
fn install_others() {
    for (program, package) in OTHERS.into_iter().filter(|(program, _)| sh::on_path(program).is_none()) {
        if let Err(error) = setup::apt_install(&[package.to_owned()]) {
            eprintln!("bench: measured without {program}: {error:#}");
        }
    }
}

/// A static program beside the others. Where the C library cannot be linked statically there is none, and no figure of it.
fn build_nothing(folder: &Path) -> Result<()> {
    let program = folder.join("nothing");
    if program.exists() {
        return Ok(());
    }
    let source = folder.join("nothing.rs");
    fs::write(&source, NOTHING).with_context(|| format!("cannot write {}", source.display()))?;
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-C", "opt-level=2", "-C", "target-feature=+crt-static", "-o"]);
    if let Err(error) = sh::run(rustc.arg(&program).arg(&source)) {
        eprintln!("bench: no static program to start: {error:#}");
    }
    Ok(())
}
