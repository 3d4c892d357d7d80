//! `reaper run`: the agent, in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::{Agent, Settings};
use crate::config::parse_size;
use crate::event_log::LogTarget;
use crate::kernel::Pins;

/// Arguments of `reaper run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// The configuration [default: /etc/reaper/reaper.toml if it is there, else one that only observes]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Signal nobody, whatever the configuration says
    #[arg(long)]
    pub observe: bool,
    /// Where the event log goes; - is stdout
    #[arg(long, value_name = "FILE|-")]
    pub log: Option<PathBuf>,
    /// Where the agent answers the other commands
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where it keeps what outlives a restart
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Record everything the decisions rest on, for `reaper replay`; the file must not exist yet
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Where the recording ends
    #[arg(long, value_name = "SIZE", default_value = "64MiB", requires = "record", value_parser = size)]
    pub record_limit: u64,
    /// Run no agent, but remove what the agents with this state directory have pinned in the kernel
    #[arg(long)]
    pub unpin: bool,
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "expected a size such as 64MiB, or a number of bytes".to_owned())
}

/// `--log` as a target.
pub fn log_target(path: PathBuf) -> LogTarget {
    if path.as_os_str() == "-" { LogTarget::Stdout } else { LogTarget::File(path) }
}

/// Removes the pins: the programs are detached, unless a running agent holds them.
fn unpin(settings: &Settings) -> anyhow::Result<ExitCode> {
    // A configuration with errors must not keep anybody from cleaning up after it.
    let state = match &settings.state {
        Some(state) => state.clone(),
        None => settings.load()?.agent.state,
    };
    let pins = Pins::of(&state)?;
    let removed = pins.remove()?;
    let folder = pins.folder().display();
    match removed.len() {
        0 => tracing::info!("nothing is pinned in {folder}"),
        count => {
            tracing::info!("removed {folder} with {count} maps and links; what was attached is detached");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start, or cannot go on.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings {
        config: args.config.clone(),
        observe: args.observe,
        log: args.log.clone().map(log_target),
        socket: args.socket.clone(),
        state: args.state.clone(),
        record: args.record.clone().map(|path| (path, args.record_limit)),
        unpinned: false,
        confine: true,
    }
    .with_default_file();
    if args.unpin {
        return unpin(&settings);
    }
    let config = settings.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let agent = Agent::start(settings, config)?;
        agent.say_where();
        agent
            .run(hangup, async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            })
            .await?;
        Ok(ExitCode::SUCCESS)
    })
}
