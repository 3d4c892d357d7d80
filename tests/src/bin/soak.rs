//! `cargo xtask soak`: everything at once for a while, and a report at the end.
#![allow(clippy::print_stdout, reason = "a developer's tool that talks to a terminal")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use reaper_tests::soak::{self, Plan};

/// Storms, masters that come and go, an agent that is starved, killed and started again; what is right is known beforehand.
#[derive(Parser)]
struct Args {
    /// How long.
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// What random things are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let Args { minutes, seed } = Args::parse();
    let outcome = soak::run(Plan { length: Duration::from_secs(60 * minutes), seed });
    println!("soak of {minutes} minutes, seed {seed}\n{outcome}");
    if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
