//! The `reaper` binary: parse, run, and turn the outcome into an exit status.

use std::process::ExitCode;

use clap::Parser as _;
use reaper::cli::Cli;
use reaper::{cmd, diagnostics, output};

/// Usage, or it could not run (see the contract).
const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    diagnostics::init(cli.color.enabled());
    match cmd::dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the one place that tells why the program could not run")]
            {
                eprintln!("reaper: {}", printable(&describe(&error)));
            }
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

/// An error with its causes. Libraries differ in whether an error already tells its cause: nothing is said twice.
fn describe(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |told, cause| {
        let cause = cause.to_string();
        if told.contains(&cause) { told } else { format!("{told}: {cause}") }
    })
}

/// Safe to print, line by line: names of files and what others say are in it.
fn printable(told: &str) -> String {
    told.split('\n').map(output::escape).collect::<Vec<_>>().join("\n")
}
