//! One file per subcommand.

pub mod check;
pub mod completions;
pub mod demo;
pub mod demo_actor;
pub mod doctor;
pub mod explain;
pub mod from_proc;
pub mod man;
pub mod orphans;
pub mod profiles;
mod progress;
pub mod reach;
pub mod replay;
pub mod report;
pub mod run;
pub mod tail;
pub mod top;
pub mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::agent::DEFAULT_CONFIG;
use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::event_log::LogTarget;
use crate::output::{self, Terminal};

/// How often `tail -f` looks for more.
const FOLLOW_PERIOD: Duration = Duration::from_millis(100);

/// Runs what was typed.
///
/// # Errors
/// It could not run: the exit status is 2.
pub fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let format = cli.output.unwrap_or_default();
    let color = cli.color.enabled();
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => match demo::run(&args, cli.output, color) {
            Err(error) if output::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            outcome => outcome,
        },
        Command::Check(args) => output::to_stdout(|out| check::run(&args, format, out)),
        Command::Doctor(args) => output::to_stdout(|out| doctor::run(&args, format, out)),
        Command::Profiles(args) => output::to_stdout(|out| profiles::run(&args, format, out)),
        Command::Tail(args) => {
            let mut stderr = std::io::stderr();
            output::to_stdout(|out| {
                let sink = tail::Sink {
                    format,
                    color,
                    zone: TimeZone::system(),
                    out,
                    err: &mut stderr,
                    wait: &mut || output::wait_while_read(FOLLOW_PERIOD),
                };
                tail::run(&args, default_log(), sink)
            })
        }
        Command::Replay(args) => {
            let mut stderr = std::io::stderr();
            output::to_stdout(|out| {
                let zone = TimeZone::system();
                replay::run(&args, &mut replay::Sink { format, color, zone, out, err: &mut stderr })
            })
        }
        Command::Report(args) => {
            let mut stderr = std::io::stderr();
            output::to_stdout(|out| report::run(&args, default_log(), &TimeZone::system(), out, &mut stderr))
        }
        Command::Tree(args) => output::to_stdout(|out| {
            tree::run(&args, &mut Terminal::stdout(format, color, out, &mut std::io::stderr()))
        }),
        Command::Orphans(args) => output::to_stdout(|out| {
            orphans::run(&args, &mut Terminal::stdout(format, color, out, &mut std::io::stderr()))
        }),
        Command::Explain(args) => output::to_stdout(|out| {
            explain::run(&args, &mut Terminal::stdout(format, color, out, &mut std::io::stderr()))
        }),
        Command::Top(args) => top::run(&args, format, color),
        Command::Completions(args) => output::to_stdout(|out| completions::run(&args, format, out)),
        Command::Man(args) => output::to_stdout(|out| man::run(&args, format, out)),
        Command::DemoActor(args) => demo_actor::run(&args),
    }
}

/// The log of the installed configuration, or of the embedded one.
fn default_log() -> PathBuf {
    let installed = Path::new(DEFAULT_CONFIG);
    let config = if installed.exists() { Config::load(installed).ok() } else { None };
    match config.unwrap_or_else(Config::embedded).agent.log {
        LogTarget::File(path) => path,
        LogTarget::Stdout => PathBuf::from("-"),
    }
}
