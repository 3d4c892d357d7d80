//! The processes of `reaper demo`. Each is the `reaper` binary under a role of its own, ends by itself after a while
//! whatever happens, and tells what it does in a ledger.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

/// No process of the demo outlives this.
const LIFETIME_SECONDS: u32 = 60;

/// How long the busy worker's job takes.
pub const JOB: Duration = Duration::from_secs(2);

/// Who a process of the demo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The master that is killed.
    MasterA,
    /// The master that lives on.
    MasterB,
    /// A worker without work.
    WorkerIdle,
    /// A worker in the middle of a job.
    WorkerBusy,
    /// An intermediate with a worker of its own.
    WorkerSupervisor,
    /// That worker.
    WorkerBelow,
    /// The worker of the master that lives on.
    WorkerKept,
}

/// Arguments of a process of the demo.
#[derive(Args, Clone, Debug)]
pub struct ActorArgs {
    /// Who it is.
    pub role: Role,
    /// What makes it this demo's.
    pub token: String,
    /// Where it tells what it does.
    #[arg(long, env = "REAPER_DEMO_LEDGER")]
    pub ledger: PathBuf,
}

impl Role {
    /// As it stands in the arguments.
    pub fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }

    fn children(self) -> &'static [Self] {
        match self {
            Self::MasterA => &[Self::WorkerIdle, Self::WorkerBusy, Self::WorkerSupervisor],
            Self::MasterB => &[Self::WorkerKept],
            Self::WorkerSupervisor => &[Self::WorkerBelow],
            Self::WorkerIdle | Self::WorkerBusy | Self::WorkerBelow | Self::WorkerKept => &[],
        }
    }
}

/// A command that becomes this role.
pub fn command(role: Role, token: &str, ledger: &std::path::Path) -> anyhow::Result<Command> {
    let this = std::env::current_exe().context("cannot find the running program")?;
    let mut command = Command::new(this);
    command.args(["demo-actor", &role.name(), token]).env("REAPER_DEMO_LEDGER", ledger);
    Ok(command)
}

/// Plays the role.
///
/// # Errors
/// The ledger cannot be written or a child cannot be started.
pub fn run(args: &ActorArgs) -> anyhow::Result<ExitCode> {
    nix::unistd::alarm::set(LIFETIME_SECONDS);
    let mut children = Vec::new();
    for &child in args.role.children() {
        children.push(command(child, &args.token, &args.ledger)?.spawn().context("cannot start a child")?);
    }
    tell(args, "up")?;
    if args.role == Role::WorkerBusy {
        work(args)?;
    }
    // A supervisor collects its dead. Everybody else waits for the end.
    for child in &mut children {
        child.wait()?;
    }
    wait_for_work(args)
}

/// Waits for connections at a socket of its own, as servers do. Nobody connects.
fn wait_for_work(args: &ActorArgs) -> anyhow::Result<ExitCode> {
    let socket = args.ledger.with_file_name(format!("worker-{}.sock", std::process::id()));
    let source =
        UnixListener::bind(&socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
    loop {
        source.accept().context("cannot accept")?;
    }
}

/// A job that needs the CPU at first and then sleeps, as one does that waits for somebody else.
fn work(args: &ActorArgs) -> anyhow::Result<()> {
    tell(args, "job-started")?;
    let begin = Instant::now();
    while begin.elapsed() < JOB / 2 {
        std::hint::spin_loop();
    }
    std::thread::sleep(JOB.saturating_sub(begin.elapsed()));
    tell(args, "job-ended")
}

/// One line, in one write: `event role pid`.
fn tell(args: &ActorArgs, event: &str) -> anyhow::Result<()> {
    let line = format!("{event} {} {}\n", args.role.name(), std::process::id());
    let mut ledger = OpenOptions::new().append(true).create(true).open(&args.ledger).context("the ledger")?;
    ledger.write_all(line.as_bytes()).context("the ledger")
}
