//! `cargo xtask lint`: formatting, clippy, dependencies, and then `tidy`.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{setup, sh, tidy};

const DENY: &str = "cargo-deny";
const DENY_VERSION: &str = "0.20.2";

/// Runs every check, so that one round shows everything there is to mend.
pub(crate) fn run() -> Result<ExitCode> {
    let mut failed = Vec::new();
    let mut check = |name: &'static str, result: Result<()>| {
        if let Err(error) = result {
            eprintln!("lint: {error:#}");
            failed.push(name);
        }
    };
    check("fmt", sh::run(sh::cargo().args(["fmt", "--all", "--", "--check", "--files-with-diff"])));
    check("clippy", clippy());
    check("deny", deny());
    if tidy::run()? != ExitCode::SUCCESS {
        failed.push("tidy");
    }
    if failed.is_empty() {
        eprintln!("lint: fine");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("lint: failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

fn clippy() -> Result<()> {
    let mut cargo = sh::cargo();
    cargo.args(["clippy", "--workspace", "--all-targets"]);
    // Clippy needs no programs. It gets them where they can be built, because cargo would else build the agent anew
    // each time after `build` or `test`: to cargo, another toolchain is another build.
    if let Some(toolchain) = setup::look() {
        toolchain.apply(&mut cargo);
    }
    sh::run(cargo.args(["--", "--deny", "warnings"]))
}

fn deny() -> Result<()> {
    let program = match sh::find(DENY) {
        Some(program) => program,
        None => {
            eprintln!("lint: installing {DENY} {DENY_VERSION}: this takes a few minutes, once");
            sh::run(sh::cargo().args(["install", &format!("{DENY}@{DENY_VERSION}"), "--locked"]))?;
            sh::cargo_bin().join(DENY)
        }
    };
    let deny = || {
        let mut command = Command::new(&program);
        command.current_dir(sh::root()).arg("--log-level").arg("warn");
        command
    };
    sh::run(deny().args(["check", "licenses", "bans", "sources"]))?;
    // The database of known vulnerabilities is a git repository on the network, and not everybody can reach it.
    if sh::run(deny().env("GIT_TERMINAL_PROMPT", "0").args(["fetch", "db"])).is_err() {
        eprintln!("lint: NOT checked for known vulnerabilities: their database cannot be fetched from here");
        return Ok(());
    }
    sh::run(deny().args(["check", "--disable-fetch", "advisories"]))
}
