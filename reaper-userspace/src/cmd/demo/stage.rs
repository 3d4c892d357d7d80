//! What the demo plays on: its processes, its ledger, its event log. It takes everything away again.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::clock;
use crate::cmd::demo_actor::{self, Role};
use crate::core::ids::{Ns, ProcKey};
use crate::core::rules::Signal;
use crate::event_log::{Line, Reader, render};
use crate::output::OutputFormat;
use crate::procfs;
use crate::signal::Held;

/// How often the log and the ledger are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How records are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Show {
    pub(super) format: OutputFormat,
    pub(super) color: bool,
}

/// See the module's head.
pub(super) struct Stage {
    dir: TempDir,
    token: String,
    log: PathBuf,
    began: Ns,
    show: Show,
    masters: Vec<Child>,
    reader: Option<Reader>,
    records: Vec<Value>,
}

impl Stage {
    /// The workers of the master that is killed.
    pub(super) const ORPHANS: [Role; 4] =
        [Role::WorkerIdle, Role::WorkerBusy, Role::WorkerSupervisor, Role::WorkerBelow];

    const ROLES: [Role; 7] = [
        Role::MasterA,
        Role::MasterB,
        Role::WorkerIdle,
        Role::WorkerBusy,
        Role::WorkerSupervisor,
        Role::WorkerBelow,
        Role::WorkerKept,
    ];

    pub(super) fn build(log: Option<PathBuf>, show: Show) -> anyhow::Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("reaper-demo-").tempdir().context("cannot make a directory")?;
        let log = log.unwrap_or_else(|| dir.path().join("events.jsonl"));
        let log = std::path::absolute(&log).with_context(|| format!("cannot use {}", log.display()))?;
        let began = clock::now();
        let token = format!("demo-{:x}-{began:x}", std::process::id());
        let stage =
            Self { dir, token, log, began, show, masters: Vec::new(), reader: None, records: Vec::new() };
        fs::write(stage.config_file(), stage.config()).context("cannot write the demo's configuration")?;
        fs::write(stage.ledger_file(), "").context("cannot write the demo's ledger")?;
        Ok(stage)
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.dir.path().join("reaper.toml")
    }

    pub(super) fn start_masters(&mut self) -> anyhow::Result<()> {
        for role in [Role::MasterA, Role::MasterB] {
            let mut command = demo_actor::command(role, &self.token, &self.ledger_file())?;
            let child = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .context("cannot start a master")?;
            self.masters.push(child);
        }
        Ok(())
    }

    pub(super) fn kill_master_a(&mut self) -> anyhow::Result<()> {
        let key = self.key_of(Role::MasterA).context("master-a is not there")?;
        Held::open(key)?.send(Signal::KILL)?;
        let master = self.masters.first_mut().context("master-a was not started")?;
        anyhow::ensure!(ends_soon(master), "master-a was sent KILL and is still there");
        Ok(())
    }

    pub(super) fn all_up(&self) -> bool {
        Self::ROLES.iter().all(|r| self.told("up", *r))
    }

    /// Whether the ledger has this line.
    pub(super) fn told(&self, event: &str, role: Role) -> bool {
        self.pid_told(event, role).is_some()
    }

    /// The first record of this kind about this role. Rehearsals do not count.
    pub(super) fn record(&self, kind: &str, role: Role) -> Option<&Value> {
        let pid = self.pid_told("up", role)?;
        self.records.iter().find(|r| r["kind"] == kind && r["proc"]["pid"] == pid && r["dry_run"] != true)
    }

    /// The second master and its worker live and were never spoken of; nobody got a signal who is not an orphan.
    pub(super) fn untouched(&self) -> anyhow::Result<()> {
        for role in [Role::MasterB, Role::WorkerKept] {
            anyhow::ensure!(self.key_of(role).is_some(), "{} is gone", role.name());
        }
        let orphans: Vec<u32> = Self::ORPHANS.iter().filter_map(|r| self.pid_told("up", *r)).collect();
        for record in self.records.iter().filter(|r| r["kind"] == "signal" || r["kind"] == "orphaned") {
            let pid = record["proc"]["pid"].as_u64().and_then(|p| u32::try_from(p).ok());
            anyhow::ensure!(
                pid.is_some_and(|p| orphans.contains(&p)),
                "a record about somebody else: {record}"
            );
        }
        Ok(())
    }

    /// Waits until something holds, showing records as they come.
    pub(super) async fn until(
        &mut self,
        patience: Duration,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            self.read_log()?;
            if holds(self) {
                return Ok(());
            }
            anyhow::ensure!(
                begin.elapsed() < patience,
                "waited {} s in vain until {what}",
                patience.as_secs()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Shows what is left in the log.
    pub(super) fn show_rest(&mut self) -> anyhow::Result<()> {
        self.read_log()
    }

    /// Ends every process of the demo, and says which ones would not go.
    pub(super) fn clear(&mut self) -> Vec<String> {
        let alive = |stage: &Self| -> Vec<(Role, ProcKey)> {
            Self::ROLES.iter().filter_map(|r| stage.key_of(*r).map(|k| (*r, k))).collect()
        };
        for (role, key) in alive(self) {
            if let Err(e) = Held::open(key).and_then(|held| held.send(Signal::KILL)) {
                tracing::warn!("{} could not be ended: {e}", role.name());
            }
        }
        for master in &mut self.masters {
            if !ends_soon(master) {
                tracing::warn!("a master of the demo does not end; it will by itself within a minute");
            }
        }
        // The others are not this process's children: their end can only be watched.
        let begin = Instant::now();
        while !alive(self).is_empty() && begin.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(LOOK);
        }
        alive(self).into_iter().map(|(role, _)| role.name()).collect()
    }

    /// A sentence for people. It never gets between JSON lines.
    pub(super) fn say(&self, sentence: &str) {
        match self.show.format {
            OutputFormat::Human => self.print(&format!("-- {sentence}")).unwrap_or_default(),
            OutputFormat::Json => {
                let line = format!("demo: {sentence}\n");
                // Nobody is left to tell if stderr is closed.
                io::stderr().write_all(line.as_bytes()).unwrap_or_default();
            }
        }
    }

    fn print(&self, line: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).context("stdout")
    }

    fn read_log(&mut self) -> anyhow::Result<()> {
        let reading = || "cannot read the demo's event log".to_owned();
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => {
                let mut reader = Reader::open(&self.log).with_context(reading)?;
                reader.follow();
                reader
            }
        };
        while let Some(line) = reader.next_line().with_context(reading)? {
            if line.boot_ns >= self.began {
                self.take(&line)?;
            }
        }
        self.reader = Some(reader);
        Ok(())
    }

    fn take(&mut self, line: &Line) -> anyhow::Result<()> {
        match self.show.format {
            OutputFormat::Json => self.print(&line.raw)?,
            OutputFormat::Human => self.print(&render::human(&line.record, self.show.color))?,
        }
        self.records.push(line.record.clone());
        Ok(())
    }

    /// The live process that plays a role, if it is still this demo's.
    fn key_of(&self, role: Role) -> Option<ProcKey> {
        let pid = self.pid_told("up", role)?;
        let tick = 1_000_000_000 / ::procfs::ticks_per_second().max(1);
        let key = ProcKey { tgid: pid, start_ns: procfs::start_ticks(pid).ok()? * tick };
        let crate::core::input::Identified::Alive(who) = procfs::identify(clock::now(), key, false) else {
            return None;
        };
        who.argv.iter().any(|a| a == &*self.token).then_some(key)
    }

    fn pid_told(&self, event: &str, role: Role) -> Option<u32> {
        let ledger = fs::read_to_string(self.ledger_file()).ok()?;
        let start = format!("{event} {} ", role.name());
        ledger.lines().find_map(|l| l.strip_prefix(&start)).and_then(|pid| pid.parse().ok())
    }

    fn ledger_file(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    fn config(&self) -> String {
        let dir = self.dir.path().display();
        let (token, log) = (&self.token, toml::Value::String(self.log.display().to_string()));
        format!(
            r#"[agent]
log = {log}
socket = "{dir}/reaper.sock"
state = "{dir}"

[[group]]
name = "demo"
mode = "enforce"
master.cmdline = 'demo-actor master-[ab] {token}$'
worker.cmdline = 'demo-actor worker-[a-z]+ {token}$'
stop.signals = ["TERM"]
"#
        )
    }
}

/// Whether a child ends within a second.
fn ends_soon(child: &mut Child) -> bool {
    let begin = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if begin.elapsed() < Duration::from_secs(1) => std::thread::sleep(LOOK),
            Ok(ended) => return ended.is_some(),
            Err(_) => return false,
        }
    }
}

impl Drop for Stage {
    /// However the demo ends, its processes end with it.
    fn drop(&mut self) {
        self.clear();
    }
}
