//! `reaper doctor`: what this host can do, a line each with the mend.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pause};
use rustix::process::{Resource, getrlimit};

use crate::agent::preflight::{self, Check, Outcome};
use crate::agent::{DEFAULT_CONFIG, client};
use crate::config::{AgentSettings, Config};
use crate::core::ids::ProcKey;
use crate::core::rules::Signal;
use crate::core::view::words::count;
use crate::event_log::LogTarget;
use crate::freeze::freeze;
use crate::kernel::{DEFAULT_RING_BYTES, LoadError, Observer, Pins, Probes, Teller};
use crate::output::{OutputFormat, escape};
use crate::procfs;
use crate::signal::Held;
use crate::trust::{self, Distrust};

/// Descriptors the agent may need at once: an orphan being stopped holds one, /proc files a few.
const DESCRIPTORS: u64 = 1024;

/// Arguments of `reaper doctor`.
#[derive(Args, Clone, Debug, Default)]
pub struct DoctorArgs {
    /// The agent's socket [default: the configured one]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The agent's configuration [default: /etc/reaper/reaper.toml if it is there, else the built-in one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Prints every check; exits 1 if something keeps the agent from running.
///
/// # Errors
/// Stdout cannot be written.
pub fn run(args: &DoctorArgs, format: OutputFormat, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let mut checks = preflight::checks();
    let able = checks.iter().all(|c| c.outcome != Outcome::Missing);
    checks.extend(programs(able));
    checks.push(ptrace());
    checks.push(proc_mount());
    checks.push(descriptors());
    let (configuration, settings) = configuration(args.config.as_deref());
    checks.push(configuration);
    let settings = settings.unwrap_or_default();
    let socket = args.socket.clone().unwrap_or(settings.socket);
    checks.push(place("log", &settings.log));
    checks.push(trusted("state", &settings.state, trust::check_directory(&settings.state)));
    checks.push(trusted("socket", &socket, trust::check_place(&socket)));
    checks.push(agent(&socket));
    for check in &checks {
        print(check, format, out)?;
    }
    let healthy = checks.iter().all(|c| c.outcome != Outcome::Missing);
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(check: &Check, format: OutputFormat, out: &mut dyn Write) -> anyhow::Result<()> {
    match format {
        OutputFormat::Json => {
            serde_json::to_writer(&mut *out, check)?;
            writeln!(out)?;
        }
        OutputFormat::Human => {
            let mark = match check.outcome {
                Outcome::Ok => "ok     ",
                Outcome::Warning => "warning",
                Outcome::Missing => "MISSING",
            };
            writeln!(out, "{mark}  {:<14}  {}", check.name, escape(&check.found))?;
            if !check.mend.is_empty() {
                writeln!(out, "{:25}{}", "", escape(&check.mend))?;
            }
        }
    }
    Ok(())
}

/// Loads the programs for real, and lets them go again.
fn programs(able: bool) -> Vec<Check> {
    if !able {
        let mend = "Mend what is above first.";
        return vec![Check::bad("programs", Outcome::Missing, "not tried", mend)];
    }
    match Probes::load(DEFAULT_RING_BYTES) {
        Ok(mut probes) => {
            let mut checks = vec![Check::ok("programs", "the kernel accepts them"), pins()];
            checks.extend(probes.observer().map(observer));
            checks
        }
        Err(e @ LoadError::NoPrograms) => {
            vec![Check::bad("programs", Outcome::Missing, e.to_string(), "Use a build with programs.")]
        }
        Err(e) => vec![Check::bad(
            "programs",
            Outcome::Missing,
            format!("{:#}", anyhow::Error::from(e)),
            "If the kernel refuses them, that is a bug of reaper: report this line with the kernel's version.",
        )],
    }
}

/// Whether the programs can stay attached while no agent runs.
fn pins() -> Check {
    const NAME: &str = "pins";
    match Pins::mount().and_then(|()| Pins::abandoned()) {
        Ok(abandoned) if abandoned.is_empty() => {
            Check::ok(NAME, "the kernel goes on recording while no agent runs")
        }
        Ok(abandoned) => {
            let states: Vec<_> = abandoned.iter().map(|state| state.display().to_string()).collect();
            Check::bad(
                NAME,
                Outcome::Warning,
                format!(
                    "programs are attached whose agents' state directories are not there: {}",
                    states.join(" ")
                ),
                "For each, unless its agent sees other files (a container's, or the host's): reaper run --unpin --state DIR",
            )
        }
        Err(e) => Check::bad(
            NAME,
            Outcome::Warning,
            format!("what happens while no agent runs will not be known: {e}"),
            "Mount bpffs: mount -t bpf -o mode=700 bpf /sys/fs/bpf. systemd does so by itself.",
        ),
    }
}

/// Loads what is loaded for orphans only, by watching this very process for a moment.
fn observer(mut observer: Observer) -> Check {
    // Nobody was born at 0: it loads and attaches the same, and counts nothing.
    let nobody = ProcKey { tgid: std::process::id(), start_ns: 0 };
    match observer.watch(nobody) {
        Ok(()) => match observer.tellers().first() {
            Some(Teller::Lengths) => {
                Check::ok("observer", "tells what orphans send and receive, and their alarms")
            }
            Some(Teller::Calls) => Check::ok(
                "observer",
                "tells what orphans send and receive, and their alarms; by every system call on the host, as this kernel \
                 has no tracepoint sock_send_length",
            ),
            None => Check::bad(
                "observer",
                Outcome::Warning,
                "this kernel has no tracepoint that tells what is sent and received",
                "Workers whose idleness shows only in what they send and receive count as busy. Linux 6.3 or newer has it.",
            ),
        },
        Err(e) => Check::bad(
            "observer",
            Outcome::Warning,
            e.to_string(),
            "Workers whose idleness shows only in what they send and receive count as busy.",
        ),
    }
}

/// Needed for reading what a worker of another user waits for, and for holding it still for the last look: a process of
/// its own is held for real, and let go again.
fn ptrace() -> Check {
    const NAME: &str = "ptrace";
    let scope = match fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") {
        Ok(scope) => format!("ptrace_scope {}", scope.trim()),
        Err(_) => "no Yama".to_owned(),
    };
    match Sleeper::start().and_then(|child| Ok(freeze(child.held.clone()).map(|frozen| frozen.took())?)) {
        Ok(took) => Check::ok(
            NAME,
            format!("permitted ({scope}); a process was held still after {} us", took.as_micros()),
        ),
        Err(e) => Check::bad(
            NAME,
            Outcome::Warning,
            format!("no process can be held still for the last look before a signal: {e:#} ({scope})"),
            "Signals are sent without that look. Give it CAP_SYS_PTRACE, let seccomp pass ptrace(2), and set \
             kernel.yama.ptrace_scope to 2 or less (from 3 that takes a restart of the host).",
        ),
    }
}

/// A child that sleeps until it is dropped.
struct Sleeper {
    held: Arc<Held>,
    pid: Pid,
}

impl Sleeper {
    fn start() -> anyhow::Result<Self> {
        // SAFETY: the child makes system calls only, and ends with its parent.
        let pid = match unsafe { fork() }.context("fork")? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                let bound = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
                while bound.is_ok() {
                    pause();
                }
                // SAFETY: ends the child without running what belongs to its parent.
                unsafe { nix::libc::_exit(1) }
            }
        };
        // Until it is waited for, its pid is its own.
        let key = procfs::key(pid.as_raw().unsigned_abs())?;
        Ok(Self { held: Arc::new(Held::open(key)?), pid })
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let ended = self.held.send(Signal(nix::libc::SIGKILL)).map_err(anyhow::Error::from);
        if let Err(e) = ended.and_then(|()| Ok(waitpid(self.pid, None)?)) {
            tracing::debug!("the process that was held still ends with this one: {e:#}");
        }
    }
}

fn proc_mount() -> Check {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let proc = mounts.lines().find(|l| l.split_whitespace().nth(1) == Some("/proc"));
    match proc {
        Some(line) if line.contains("hidepid=") && !line.contains("hidepid=0") => Check::bad(
            "/proc",
            Outcome::Warning,
            "mounted with hidepid",
            "The agent needs CAP_SYS_PTRACE to see through hidepid; as root it has it.",
        ),
        Some(_) => Check::ok("/proc", "mounted"),
        None => Check::bad("/proc", Outcome::Missing, "not mounted", "Mount proc on /proc."),
    }
}

fn descriptors() -> Check {
    let limit = getrlimit(Resource::Nofile).current;
    match limit {
        Some(n) if n < DESCRIPTORS => Check::bad(
            "limits",
            Outcome::Warning,
            format!("{n} descriptors"),
            format!("Raise LimitNOFILE to {DESCRIPTORS} or more."),
        ),
        Some(n) => Check::ok("limits", format!("{n} descriptors")),
        None => Check::ok("limits", "descriptors are not limited"),
    }
}

/// The configuration, and what it says of the agent as far as that can be told.
fn configuration(named: Option<&Path>) -> (Check, Option<AgentSettings>) {
    const NAME: &str = "configuration";
    let path = named.unwrap_or(Path::new(DEFAULT_CONFIG));
    if named.is_none() && !path.exists() {
        let found = format!("no {DEFAULT_CONFIG}: the embedded default observes and signals nobody");
        return (Check::ok(NAME, found), None);
    }
    let shown = path.display();
    let bad = |found: String, mend: &str| Check::bad(NAME, Outcome::Missing, found, mend);
    match (Config::load(path), trust::check_file(path)) {
        (Ok(config), Ok(())) => {
            let found = format!("{shown}: {}", count(config.rules.groups.len(), "group"));
            (Check::ok(NAME, found), Some(config.agent))
        }
        (Ok(config), Err(why)) => {
            let found = format!("{shown} would be refused: {why}");
            (bad(found, "What others than root can change decides about no signals."), Some(config.agent))
        }
        (Err(errors), _) => {
            let found = errors.to_string().lines().next().unwrap_or_default().to_owned();
            let mend = if errors.is_unreadable() {
                "Without a file that it can read, an agent that was told of one does not start."
            } else {
                "reaper check FILE says everything that is wrong with it."
            };
            (bad(found, mend), Config::load_agent(path).ok().map(|part| part.settings))
        }
    }
}

fn place(name: &'static str, log: &LogTarget) -> Check {
    match log {
        LogTarget::Stdout => Check::ok(name, "stdout"),
        LogTarget::File(path) => trusted(name, path, trust::check_place(path)),
    }
}

/// Whether the agent would write there.
fn trusted(name: &'static str, path: &Path, outcome: Result<(), Distrust>) -> Check {
    match outcome {
        Ok(()) => Check::ok(name, path.display().to_string()),
        Err(why) => {
            let mend = "The agent does not start with it: what it writes is nobody else's to change.";
            Check::bad(name, Outcome::Missing, why.to_string(), mend)
        }
    }
}

fn agent(path: &Path) -> Check {
    match client::status(path) {
        Ok(Some(status)) => {
            let orphans: usize = status.groups.iter().map(|g| g.orphans).sum();
            let found = format!(
                "running, pid {}, {}, {}, {}",
                status.pid,
                count(status.groups.len(), "group"),
                count(status.processes, "process"),
                count(orphans, "orphan")
            );
            Check::ok("agent", found)
        }
        Ok(None) => Check::ok("agent", "not running"),
        Err(e) => Check::bad("agent", Outcome::Warning, format!("{e:#}"), "Is it another user's?"),
    }
}
