//! `reaper demo`: proves the main job on this kernel, with processes of its own and the real agent.
//!
//! ```text
//! master-a ── worker-idle                 master-b ── worker-kept
//!          ├─ worker-busy (a job of 2 s)
//!          └─ worker-supervisor ── worker-below
//! ```
//! It kills master-a and then watches the event log and the ledger in which its processes tell what they do. What it
//! claims, it checks.

mod stage;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::demo_actor::{JOB, Role};
use super::run::log_target;
use crate::agent::{Agent, Settings};
use crate::core::view::words::span;
use crate::event_log::LogTarget;
use crate::output::OutputFormat;
use stage::{Show, Stage};

/// The idle orphan must be gone this soon after its master's death: its quiet time and some for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// Arguments of `reaper demo`.
#[derive(Args, Clone, Debug, Default)]
pub struct DemoArgs {
    /// Keep the event log there; - shows it on stdout as JSON lines. Without it records are shown readable on a
    /// terminal and as JSON lines elsewhere
    #[arg(long, value_name = "FILE|-")]
    pub log: Option<PathBuf>,
}

/// Runs the demo. Exits 1 with a reason if any part of its claim does not hold.
///
/// # Errors
/// It could not run: the agent does not start here, or it was interrupted.
pub fn run(args: &DemoArgs, format: Option<OutputFormat>, color: bool) -> anyhow::Result<ExitCode> {
    let log = args.log.clone().map(log_target);
    let format = format.unwrap_or(match &log {
        Some(LogTarget::Stdout) => OutputFormat::Json,
        _ if std::io::stdout().is_terminal() => OutputFormat::Human,
        _ => OutputFormat::Json,
    });
    let kept = log.and_then(|log| if let LogTarget::File(path) = log { Some(path) } else { None });
    let stage = Stage::build(kept, Show { format, color })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(perform(stage))
}

async fn perform(mut stage: Stage) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let settings = Settings { config: Some(stage.config_file()), unpinned: true, ..Settings::default() };
    let agent = Agent::start(settings.clone(), settings.load()?)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let play = async {
        let claims = play(&mut stage).await;
        // The agent may have gone already; then there is nobody to tell.
        let _gone = stop.send(());
        claims
    };
    let run = agent.run(hangup, async move {
        let _dropped = stopped.await;
    });
    let claims = tokio::select! {
        (claims, ran) = async { tokio::join!(play, run) } => { ran?; claims }
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("interrupted")),
    };
    let left = stage.clear();
    let mut claims = claims?;
    claims.push(Claim {
        says: "no process of the demo is left",
        fails: (!left.is_empty()).then(|| format!("still there: {left:?}")),
    });
    stage.show_rest()?;
    Ok(report(&stage, &claims))
}

/// One part of what the demo claims.
struct Claim {
    says: &'static str,
    /// Why it does not hold.
    fails: Option<String>,
}

impl Claim {
    fn new(says: &'static str, outcome: anyhow::Result<()>) -> Self {
        Self { says, fails: outcome.err().map(|e| format!("{e:#}")) }
    }
}

async fn play(stage: &mut Stage) -> anyhow::Result<Vec<Claim>> {
    stage.say("starting two masters with their workers");
    stage.start_masters()?;
    stage.until(PATIENCE, "all processes are up", Stage::all_up).await?;
    let mut claims = vec![Claim::new("both masters were found", both_masters(stage).await)];
    if claims.iter().any(|c| c.fails.is_some()) {
        return Ok(claims);
    }
    stage.say("killing master-a (SIGKILL)");
    claims.push(Claim::new("master-a was killed", stage.kill_master_a()));
    if claims.iter().any(|c| c.fails.is_some()) {
        return Ok(claims);
    }
    claims.push(Claim::new("its four workers were orphaned", orphaned(stage).await));
    claims.push(Claim::new("the idle orphan went at once", idle_went(stage).await));
    claims.push(Claim::new("the busy orphan went after its job, not before", busy_went(stage).await));
    claims.push(Claim::new("the supervisor and the worker below it went", supervisor_went(stage).await));
    claims.push(Claim::new("nothing else was touched", stage.untouched()));
    Ok(claims)
}

async fn both_masters(stage: &mut Stage) -> anyhow::Result<()> {
    let found =
        |s: &Stage| [Role::MasterA, Role::MasterB].iter().all(|r| s.record("master_found", *r).is_some());
    stage.until(PATIENCE, "both masters are in the event log", found).await
}

async fn orphaned(stage: &mut Stage) -> anyhow::Result<()> {
    let all = |s: &Stage| Stage::ORPHANS.iter().all(|r| s.record("orphaned", *r).is_some());
    stage.until(PATIENCE, "all four are in the event log as orphans", all).await
}

async fn idle_went(stage: &mut Stage) -> anyhow::Result<()> {
    stage
        .until(PATIENCE, "the idle orphan is reaped", |s| s.record("reaped", Role::WorkerIdle).is_some())
        .await?;
    let took =
        stage.record("reaped", Role::WorkerIdle).and_then(|r| r["took_us"].as_u64()).unwrap_or(u64::MAX);
    anyhow::ensure!(Duration::from_micros(took) <= AT_ONCE, "it took {}", span(took.saturating_mul(1_000)));
    stage.say(&format!("the idle orphan was gone {} after its master", span(took.saturating_mul(1_000))));
    Ok(())
}

async fn busy_went(stage: &mut Stage) -> anyhow::Result<()> {
    let signalled = |s: &Stage| s.record("signal", Role::WorkerBusy).is_some();
    stage.until(PATIENCE + JOB, "the busy orphan is signalled", signalled).await?;
    anyhow::ensure!(stage.told("job-ended", Role::WorkerBusy), "it was signalled before its job had ended");
    anyhow::ensure!(stage.record("busy", Role::WorkerBusy).is_some(), "it was never seen busy");
    stage
        .until(PATIENCE, "the busy orphan is reaped", |s| s.record("reaped", Role::WorkerBusy).is_some())
        .await
}

async fn supervisor_went(stage: &mut Stage) -> anyhow::Result<()> {
    let both = [Role::WorkerSupervisor, Role::WorkerBelow];
    let gone = |s: &Stage| both.iter().all(|r| s.record("reaped", *r).is_some());
    stage.until(PATIENCE, "both are reaped", gone).await
}

fn report(stage: &Stage, claims: &[Claim]) -> ExitCode {
    let passed = claims.iter().all(|c| c.fails.is_none());
    for claim in claims {
        match &claim.fails {
            None => stage.say(&format!("ok      {}", claim.says)),
            Some(why) => stage.say(&format!("FAILED  {}: {why}", claim.says)),
        }
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
