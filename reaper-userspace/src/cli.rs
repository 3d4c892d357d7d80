//! The command line: what can be typed. What it means is in `cmd`.

use clap::{Parser, Subcommand};

use crate::cmd::{
    check::CheckArgs, completions::CompletionsArgs, demo::DemoArgs, demo_actor::ActorArgs,
    doctor::DoctorArgs, explain::ExplainArgs, man::ManArgs, orphans::OrphansArgs, profiles::ProfilesArgs,
    replay::ReplayArgs, report::ReportArgs, run::RunArgs, tail::TailArgs, top::TopArgs, tree::TreeArgs,
};
use crate::output::{ColorChoice, OutputFormat};

/// Stops worker processes that have lost their master and are idle, the moment both are true.
#[derive(Debug, Parser)]
#[command(name = "reaper", version, propagate_version = true)]
pub struct Cli {
    /// How data is printed [default: human]
    #[arg(long, global = true, value_enum)]
    pub output: Option<OutputFormat>,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t)]
    pub color: ColorChoice,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent, in the foreground
    Run(RunArgs),
    /// Prove the main job on this kernel, with processes of its own
    Demo(DemoArgs),
    /// Validate a configuration
    Check(CheckArgs),
    /// Say what this host can do, and what to mend
    Doctor(DoctorArgs),
    /// List the built-in profiles, or print one
    Profiles(ProfilesArgs),
    /// Read the event log
    Tail(TailArgs),
    /// Decide once more what was recorded, by another configuration
    Replay(ReplayArgs),
    /// Write one HTML page about an event log
    Report(ReportArgs),
    /// Show the process tree with everybody's role
    Tree(TreeArgs),
    /// List the orphans, and what comes next for each
    Orphans(OrphansArgs),
    /// Say what a process is, what was seen of it, what would happen and why
    Explain(ExplainArgs),
    /// Watch groups, masters and orphans live
    Top(TopArgs),
    /// Print a shell's completions
    Completions(CompletionsArgs),
    /// Print a manual page
    Man(ManArgs),
    /// A process of the demo.
    #[command(hide = true)]
    DemoActor(ActorArgs),
}
