//! The command line: what can be typed. What it means is in `cmd`.

use clap::{Parser, Subcommand};

use crate::cmd::{
    check::CheckArgs, demo::DemoArgs, demo_actor::ActorArgs, doctor::DoctorArgs, profiles::ProfilesArgs,
    replay::ReplayArgs, report::ReportArgs, run::RunArgs, tail::TailArgs,
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
    /// A process of the demo.
    #[command(hide = true)]
    DemoActor(ActorArgs),
}
