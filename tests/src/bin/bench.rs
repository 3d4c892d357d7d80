//! `cargo xtask bench`: measures, prints tables or JSON, and writes the JSON into `target/bench`. Progress goes to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool that talks to a terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use reaper_tests::bench::{ALL, Bench, Counting, Plan};

/// Counts what is allocated, for `tree`.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What reaper costs, measured on this machine.
#[derive(Parser)]
struct Args {
    /// Which benchmarks; without a name they are listed.
    names: Vec<String>,
    /// Every benchmark.
    #[arg(long)]
    all: bool,
    /// How often each figure is measured.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Small worlds and three rounds: to see that it works.
    #[arg(long)]
    short: bool,
    /// Print the JSON, an object on a line for each benchmark, instead of tables.
    #[arg(long)]
    json: bool,
    /// Where the JSON files go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if args.names.is_empty() && !args.all {
        ALL.iter().for_each(|bench| println!("{:<8} {}", bench.name, bench.about));
        return Ok(());
    }
    if let Some(unknown) = args.names.iter().find(|name| !ALL.iter().any(|b| b.name == **name)) {
        bail!("there is no benchmark {unknown:?}");
    }
    let wanted = |bench: &&Bench| args.all || args.names.iter().any(|name| name == bench.name);
    let plan = Plan { rounds: if args.short { 3 } else { args.rounds.max(1) }, short: args.short };
    for bench in ALL.iter().filter(wanted) {
        eprintln!("bench: {}: {}", bench.name, bench.about);
        let report = (bench.run)(plan)?;
        println!("{}", if args.json { serde_json::to_string(&report)? } else { report.shown() });
        eprintln!("bench: written to {}", report.write(&args.out)?.display());
    }
    Ok(())
}
