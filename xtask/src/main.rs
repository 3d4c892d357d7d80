//! Every developer task, as `cargo xtask NAME`: one file per task, and `sh` for what they share.
//!
//! A task sets up what it needs and fails with a non-zero status. Its own messages go to stderr, so that the stdout
//! of `run` is the agent's alone; what a task is *for* (the summary of `test`, the findings of `tidy`) goes to stdout.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool that talks to a terminal")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod build;
mod dist;
mod drill;
mod fuzz;
mod lint;
mod run;
mod setup;
mod sh;
mod soak;
mod test;
mod tidy;
mod vm;

/// Every developer task of reaper.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install the toolchain that compiles the BPF programs.
    Setup,
    /// Build the agent with its BPF programs: target/debug/reaper or target/release/reaper.
    Build(build::Options),
    /// Build the agent and run it as root with the arguments after `--`.
    Run(run::Args),
    /// Run every test; those against a real kernel as root.
    Test(test::Args),
    /// Run real worker frameworks under load, kill their masters, and print what became of the jobs.
    Drill(drill::Args),
    /// Measure what reaper costs on this machine: tables, and JSON in target/bench.
    Bench(bench::Args),
    /// Run the tests against a real kernel on other kernels, in virtual machines, and print what became of each.
    Vm(vm::Args),
    /// Run storms, restarts and losses against the agent for a while, and report what became of everybody.
    Soak(soak::Args),
    /// Feed hostile input to everything that reads what reaper did not write.
    Fuzz(fuzz::Args),
    /// Make the README's pictures anew: docs/pictures.
    Pictures,
    /// Make everything that is handed out: a static binary, packages, an image, lists and checksums, in target/dist.
    Dist(dist::Args),
    /// Formatting, clippy, the dependencies' licences and sources, and `tidy`.
    Lint,
    /// Check this repository's own rules, which no linter knows.
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup => setup::ensure().map(|_| ExitCode::SUCCESS),
        Task::Build(options) => build::run(options).map(|_| ExitCode::SUCCESS),
        Task::Run(args) => run::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Drill(args) => drill::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Pictures => run::program("pictures", &[], build::Profile::Debug),
        Task::Dist(args) => dist::run(&args),
        Task::Lint => lint::run(),
        Task::Tidy => tidy::run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
