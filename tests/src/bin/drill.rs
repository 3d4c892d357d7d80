//! `cargo xtask drill`: runs drills and prints their table. What happens on the way goes to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool that talks to a terminal")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Parser;
use reaper_tests::drill::{self, Comparison, Framework, Plan, Race, Rule};

/// Real frameworks under load whose masters are killed; which promises hold.
#[derive(Parser)]
struct Args {
    /// Which drills; without a name they are listed.
    names: Vec<String>,
    /// Every drill.
    #[arg(long)]
    all: bool,
    /// How many masters are killed; 50, or 4 with --short.
    #[arg(long)]
    kills: Option<usize>,
    /// How many rounds the race has.
    #[arg(long, default_value_t = 1000)]
    rounds: usize,
    /// No comparison with the cron script, and fewer kills unless it is said how many.
    #[arg(long)]
    short: bool,
    /// Only with the cron script's rule, without the agent.
    #[arg(long, conflicts_with_all = ["short", "asleep"])]
    cron: bool,
    /// With `proof = "asleep"` instead of the profile's: what that costs.
    #[arg(long)]
    asleep: bool,
    /// What random moments are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every drill kept every promise.
fn run(args: &Args) -> Result<bool> {
    if args.names == ["race"] {
        return race(args);
    }
    let mut drills: Vec<Arc<dyn Framework>> = drill::all().into_iter().map(Arc::from).collect();
    if !args.all {
        if let Some(unknown) = args.names.iter().find(|name| !drills.iter().any(|d| d.name() == **name)) {
            bail!("there is no drill {unknown:?}");
        }
        if args.names.is_empty() {
            println!("{:<24} an idle orphan gets a job around the signal that would stop it", "race");
            drills.iter().for_each(|drill| println!("{:<24} {}", drill.name(), drill.about()));
            return Ok(true);
        }
        drills.retain(|drill| args.names.iter().any(|name| name == drill.name()));
    }
    let kills = args.kills.unwrap_or(if args.short { 4 } else { 50 });
    let plan = Plan { kills, rule: Rule::Reaper, seed: args.seed, asleep: args.asleep };
    if args.cron {
        return cron(&drills, plan);
    }
    let (mut done, mut good) = (Vec::new(), true);
    for drill in &drills {
        eprintln!("drill: {}: {}", drill.name(), drill.about());
        let one = || drill::compare(drill, plan, !args.short);
        match catch_unwind(AssertUnwindSafe(one)) {
            Ok(Ok(comparison)) => {
                good &= judge(&comparison);
                done.push(comparison);
            }
            Ok(Err(error)) => {
                good = false;
                eprintln!("drill: {}: could not be run: {error:#}", drill.name());
            }
            Err(_panic) => {
                good = false;
                eprintln!("drill: {}: could not be run to its end", drill.name());
            }
        }
    }
    print!("{}", drill::table(&done));
    if args.all {
        println!();
        good &= race(args)?;
    }
    Ok(good)
}

/// The cron script's rule by itself: it makes no promise.
fn cron(drills: &[Arc<dyn Framework>], plan: Plan) -> Result<bool> {
    let mut done = Vec::new();
    for drill in drills {
        eprintln!("drill: {}: the cron script's rule", drill.name());
        done.push((drill.name(), drill::run(drill, Plan { rule: Rule::Cron, ..plan })?));
    }
    let rows: Vec<_> = done.iter().map(|(name, facts)| (*name, facts)).collect();
    print!("{}", drill::cron_table(&rows));
    Ok(true)
}

/// The race drill with freezing and without: only with it is there a promise to keep.
fn race(args: &Args) -> Result<bool> {
    let rounds = if args.short { 100 } else { args.rounds };
    let frozen = drill::race(rounds, true, args.seed)?;
    let unfrozen = drill::race(rounds, false, args.seed)?;
    println!("{}\n{}\n{}", Race::HEAD, frozen.row(), unfrozen.row());
    for wrong in frozen.wrongs.iter().take(5) {
        eprintln!("drill: race: lost: {wrong}");
    }
    Ok(frozen.lost == 0 && frozen.signals > 0)
}

fn judge(comparison: &Comparison) -> bool {
    let facts = &comparison.reaper;
    let broken = facts.broken();
    for what in &broken {
        eprintln!("drill: {}: broken: {what}", comparison.name);
    }
    for wrong in facts.wrongs.iter().take(5) {
        eprintln!("drill: {}: {wrong}", comparison.name);
    }
    broken.is_empty()
}
