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

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::tz::TimeZone;

use crate::cli::{Cli, Command};
use crate::config::AgentSettings;
use crate::event_log::{LogTarget, Reader};
use crate::output::{self, Terminal};
use reach::agent_settings;

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
            let mut stderr = io::stderr();
            let log = log(args.file.as_deref(), || configured(args.config.as_deref(), &mut stderr))?;
            output::to_stdout(|out| {
                let sink = tail::Sink {
                    format,
                    color,
                    zone: TimeZone::system(),
                    out,
                    err: &mut stderr,
                    wait: &mut || output::wait_while_read(FOLLOW_PERIOD),
                };
                tail::run(&args, log, sink)
            })
        }
        Command::Replay(args) => {
            let mut stderr = io::stderr();
            output::to_stdout(|out| {
                let zone = TimeZone::system();
                replay::run(&args, &mut replay::Sink { format, color, zone, out, err: &mut stderr })
            })
        }
        Command::Report(args) => {
            let mut stderr = io::stderr();
            let log = log(args.log.as_deref(), || configured(args.config.as_deref(), &mut stderr))?;
            output::to_stdout(|out| report::run(&args, log, &TimeZone::system(), out, &mut stderr))
        }
        Command::Tree(args) => output::to_stdout(|out| {
            tree::run(&args, &mut Terminal::stdout(format, color, out, &mut io::stderr()))
        }),
        Command::Orphans(args) => output::to_stdout(|out| {
            orphans::run(&args, &mut Terminal::stdout(format, color, out, &mut io::stderr()))
        }),
        Command::Explain(args) => output::to_stdout(|out| {
            explain::run(&args, &mut Terminal::stdout(format, color, out, &mut io::stderr()))
        }),
        Command::Top(args) => top::run(&args, format, color),
        Command::Completions(args) => output::to_stdout(|out| completions::run(&args, format, out)),
        Command::Man(args) => output::to_stdout(|out| man::run(&args, format, out)),
        Command::DemoActor(args) => demo_actor::run(&args),
    }
}

/// What the configuration says of the agent, from which comes where its log is.
fn configured(named: Option<&Path>, err: &mut dyn io::Write) -> anyhow::Result<AgentSettings> {
    agent_settings(named, err).context("the configuration does not say where the event log is")
}

/// The log that was named, or else that of a configuration. Whoever names none may not know where theirs is written.
fn log(
    named: Option<&Path>,
    config: impl FnOnce() -> anyhow::Result<AgentSettings>,
) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    match config()?.log {
        LogTarget::Stdout => {
            bail!("the configuration has the event log on stdout: name a file, or - for stdin")
        }
        LogTarget::File(path) => match Reader::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "there is no event log {}: an agent that was started with --config or --log writes another one; say which",
                path.display()
            ),
            // Whatever else there is to say is said by whoever reads it.
            _ => Ok(path),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logging_to(log: LogTarget) -> anyhow::Result<AgentSettings> {
        Ok(AgentSettings { log, ..AgentSettings::default() })
    }

    #[test]
    fn a_log_that_nobody_named_is_the_configurations() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("events.jsonl");
        let of = |named, log: LogTarget| log_error(super::log(named, || logging_to(log)));
        let other = Path::new("/nonexistent/other");
        assert_eq!(of(Some(other), LogTarget::Stdout), Ok(other.to_owned()));
        // stdin would be waited for at a terminal, without a word.
        assert!(of(None, LogTarget::Stdout).expect_err("no file").contains("stdout"));
        let missing = of(None, LogTarget::File(path.clone())).expect_err("nothing there");
        assert!(missing.contains("there is no event log") && missing.contains("--log"), "{missing}");
        std::fs::write(dir.path().join("events.jsonl.1"), "").expect("written");
        assert_eq!(of(None, LogTarget::File(path.clone())), Ok(path.clone()));

        let file = dir.path().join("reaper.toml");
        let of_file = || {
            let mut said = Vec::new();
            let log = log_error(log(None, || configured(Some(&file), &mut said)));
            (log, String::from_utf8(said).expect("text"))
        };
        assert!(of_file().0.expect_err("no such file").contains("does not say where the event log is"));
        std::fs::write(&file, format!("[agent]\nlog = {path:?}\n")).expect("written");
        assert_eq!(of_file(), (Ok(path.clone()), String::new()));
        std::fs::write(&file, format!("[agent]\nlog = {path:?}\n[[group]]\nmaster.comm = 'x'\nname = 1\n"))
            .expect("written");
        let (log, said) = of_file();
        assert_eq!(log, Ok(path));
        assert!(said.contains("reaper.toml:5:8: ") && said.lines().count() == 1, "{said}");
        std::fs::write(&file, "[agent]\nlog = 1\n").expect("written");
        assert!(of_file().0.is_err());
    }

    fn log_error(result: anyhow::Result<PathBuf>) -> Result<PathBuf, String> {
        result.map_err(|error| error.to_string())
    }
}
