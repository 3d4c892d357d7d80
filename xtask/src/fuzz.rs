//! `cargo xtask fuzz`: hostile input for everything that reads what reaper did not write, found by libFuzzer.
//!
//! The targets are in `tests/fuzz`, with a small corpus for each; plain tests run them too, for seconds. What a run finds is kept in `target/fuzz/corpus`, so
//! that the next one goes on from there; an input that breaks something is shown, and kept in `target/fuzz/found`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{setup, sh};

const CARGO_FUZZ: &str = "cargo-fuzz";
const CARGO_FUZZ_VERSION: &str = "0.13.1";

/// One input may take so many seconds and so much memory; it takes milliseconds.
const LIMITS: [&str; 3] = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=8192"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this one; without it, one after the other.
    target: Option<String>,
    /// For each target.
    #[arg(long, default_value_t = 1)]
    minutes: u64,
}

/// Fuzzes; fails if something was found.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let targets = match &args.target {
        Some(target) if !targets()?.contains(target) => {
            bail!("there is no target {target}: {}", targets()?.join(", "))
        }
        Some(target) => vec![target.clone()],
        None => targets()?,
    };
    let mut broken = Vec::new();
    for target in targets {
        if !fuzz(&target, args.minutes * 60)? {
            broken.push(target);
        }
    }
    if broken.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("fuzz: broken by the inputs that are shown above: {}", broken.join(", "));
    Ok(ExitCode::FAILURE)
}

/// The targets are the files.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder().join("targets")).context("cannot list tests/fuzz/targets")? {
        let name = entry?.file_name();
        names.extend(Path::new(&name).to_str().and_then(|name| name.strip_suffix(".rs")).map(String::from));
    }
    names.sort();
    Ok(names)
}

/// Whether it held for so many seconds.
fn fuzz(target: &str, seconds: u64) -> Result<bool> {
    let binary = build(target)?;
    let work = work();
    let (grown, found) = (work.join("corpus").join(target), work.join("found").join(target));
    for folder in [&grown, &found] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Command::new(&binary);
    command
        .args(LIMITS)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg("-print_final_stats=1")
        .args([grown, folder().join("corpus").join(target)]);
    let started = Instant::now();
    let held = sh::run(&mut command).map_err(|error| eprintln!("fuzz: {target}: {error:#}")).is_ok();
    eprintln!(
        "fuzz: {target}: {} after {} s",
        if held { "nothing found" } else { "BROKEN" },
        started.elapsed().as_secs()
    );
    Ok(held)
}

/// Compiles one target, so that libFuzzer sees its branches. The sanitizers need a nightly; the code that is fuzzed has no
/// `unsafe` of its own.
fn build(target: &str) -> Result<PathBuf> {
    let program = match sh::find(CARGO_FUZZ) {
        Some(program) => program,
        None => {
            eprintln!("fuzz: installing {CARGO_FUZZ} {CARGO_FUZZ_VERSION}: this takes a minute, once");
            let version = format!("{CARGO_FUZZ}@{CARGO_FUZZ_VERSION}");
            sh::run(sh::cargo().args(["install", &version, "--locked"]))?;
            sh::cargo_bin().join(CARGO_FUZZ)
        }
    };
    let mut command = Command::new(program);
    command.current_dir(sh::root()).args(["fuzz", "build", "--sanitizer", "none"]);
    command
        .args(["--features", "libfuzzer", "--fuzz-dir", "tests/fuzz", "--target-dir"])
        .arg(work())
        .arg(target);
    // Otherwise as for a release, which takes minutes to build with branches that are counted.
    command.envs([("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")]);
    // Nothing is loaded into the kernel: the agent's programs need not be compiled.
    command.env_remove(setup::TOOLCHAIN_ENV);
    sh::run(&mut command)?;
    let host = sh::ask("rustc", ["-vV"]).context("rustc does not say which host this is")?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(work().join(host).join("release").join(target))
}

/// Where it is built, and what is found is kept.
fn work() -> PathBuf {
    sh::target().join("fuzz")
}

fn folder() -> PathBuf {
    sh::root().join("tests/fuzz")
}
