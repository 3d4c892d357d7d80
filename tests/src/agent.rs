//! The agent under test: started as a user would start it, read through its event log only.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reaper::kernel::Pins;

use crate::config::Config;
use crate::log::{self, Record};
use crate::manager::Manager;
use crate::process::{PATIENCE, Proc, Signal, comes_true, wait_until};
use crate::scene::{Scene, build_folder};

/// How long an agent may take to load its programs: the verifier is slow on a machine that does much else.
const STARTUP: Duration = Duration::from_secs(30);

/// A running `reaper run`. Dropping it kills it and removes what it has pinned in the kernel; [`Agent::stop`] is the orderly
/// end.
pub struct Agent {
    child: Child,
    held: Proc,
    log: PathBuf,
    stderr: PathBuf,
    state: PathBuf,
    manager: Manager,
    keeps_pins: bool,
}

/// What a program that came to its end has said.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

/// The binary under test: `REAPER_BIN`, else the one of this build.
pub fn binary() -> PathBuf {
    let given = std::env::var_os("REAPER_BIN").map(PathBuf::from);
    let path = given.unwrap_or_else(|| build_folder().join("reaper"));
    assert!(path.exists(), "{} is not there: cargo xtask build, or set REAPER_BIN", path.display());
    path
}

/// `reaper run` with a configuration that is written now.
pub fn run_command(scene: &Scene, config: &Config, args: &[&str]) -> Command {
    let file = scene.path(&format!("{}.toml", config.name()));
    fs::write(&file, config.text()).unwrap();
    let mut command = Command::new(binary());
    command.arg("run").arg("--config").arg(file).args(args);
    command
}

impl Agent {
    /// Starts an agent and waits until it is ready.
    #[track_caller]
    pub fn start(scene: &Scene, config: &Config) -> Self {
        Self::start_with(scene, config, &[])
    }

    /// The same, with more arguments.
    #[track_caller]
    pub fn start_with(scene: &Scene, config: &Config, args: &[&str]) -> Self {
        Self::launch(scene, config, run_command(scene, config, args))
    }

    /// Starts a command that becomes an agent. It is ready when it has told the service manager so and its log has the
    /// `snapshot` record: both are in the contract.
    #[track_caller]
    pub fn launch(scene: &Scene, config: &Config, mut command: Command) -> Self {
        let notify = scene.path(&format!("{}.notify", config.name()));
        let manager = Manager::bind(&notify);
        let stderr = scene.path(&format!("{}.stderr", config.name()));
        let child = command
            .env("NOTIFY_SOCKET", &notify)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let held = Proc::of_child(&child).unwrap();
        let (log, state) = (config.log.clone(), config.state.clone());
        let agent = Self { child, held, log, stderr, state, manager, keeps_pins: false };
        let ready = comes_true(STARTUP, || {
            agent.told().iter().any(|line| line == "READY=1") || !agent.held.is_alive()
        });
        let said = agent.told();
        assert!(agent.held.is_alive(), "the agent died before it was ready; it told systemd {said:?}");
        assert!(ready, "the agent is not ready after {STARTUP:?}; it told systemd {said:?}");
        agent
    }

    /// What it has told the service manager, line by line.
    pub fn told(&self) -> Vec<String> {
        self.manager.told()
    }

    /// Waits until it has told the service manager so.
    #[track_caller]
    pub fn wait_told(&self, what: &str, fits: impl Fn(&[String]) -> bool) {
        wait_until(&format!("the service manager is told: {what}"), || fits(&self.told()));
    }

    /// The agent's process.
    pub fn process(&self) -> &Proc {
        &self.held
    }

    /// Reads the log elsewhere: the agent has a mount namespace of its own.
    pub fn read_log_at(&mut self, path: PathBuf) {
        self.log = path;
    }

    /// All records so far.
    #[track_caller]
    pub fn records(&self) -> Vec<Record> {
        log::read(&self.log)
    }

    /// The first record that fits, if there is one yet.
    #[track_caller]
    pub fn find(&self, fits: impl Fn(&Record) -> bool) -> Option<Record> {
        self.records().into_iter().find(fits)
    }

    /// Waits for a record that fits.
    #[track_caller]
    pub fn wait_for(&self, what: &str, fits: impl Fn(&Record) -> bool) -> Record {
        self.wait_within(PATIENCE, what, fits)
    }

    /// The same, with another patience.
    #[track_caller]
    pub fn wait_within(&self, patience: Duration, what: &str, fits: impl Fn(&Record) -> bool) -> Record {
        let mut found = None;
        comes_true(patience, || {
            found = self.find(&fits);
            found.is_some() || !self.held.is_alive()
        });
        found.unwrap_or_else(|| panic!("waited {patience:?} in vain for the record: {what}"))
    }

    /// Waits for a record of this kind about this process.
    #[track_caller]
    pub fn wait(&self, kind: &str, who: &Proc) -> Record {
        self.wait_for(&format!("{kind} of {}", who.pid()), |r| r.is(kind, who))
    }

    /// Waits until the agent knows a master that was just started.
    #[track_caller]
    pub fn knows_master(&self, master: &Proc) {
        self.wait("master_found", master);
    }

    /// Waits until an orphan was stopped with TERM: dead, and the log says so.
    #[track_caller]
    pub fn wait_reaped(&self, who: &Proc) -> Record {
        let reaped = self.wait("reaped", who);
        assert!(who.wait_gone(PATIENCE), "{} is in the log as reaped, and alive", who.pid());
        reaped
    }

    /// For so long, no record fits. There is nothing to wait for when nothing must happen.
    #[track_caller]
    pub fn assert_never(&self, ms: u64, what: &str, fits: impl Fn(&Record) -> bool) {
        let mut found = None;
        comes_true(Duration::from_millis(ms), || {
            found = self.find(&fits);
            found.is_some()
        });
        assert!(found.is_none(), "must not be: {what}: {found:?}");
        assert!(self.held.is_alive(), "the agent died");
    }

    /// For so long, nobody sends this process anything, and it lives.
    #[track_caller]
    pub fn assert_unharmed(&self, ms: u64, who: &Proc) {
        self.assert_never(ms, &format!("signal to {}", who.pid()), |r| is_shot(r) && r.about(who));
        assert!(who.is_alive(), "{} died", who.pid());
    }

    /// The log says of nobody else than these that they were signalled.
    #[track_caller]
    pub fn assert_signalled(&self, who: &[&Proc]) {
        assert_signalled(&self.records(), who);
    }

    /// Has it read its configuration again.
    pub fn reload(&self) {
        self.held.signal(Signal::HUP);
    }

    /// Stops it as a service manager would. It must exit with 0 and leave a well-formed log that ends with
    /// `agent_stopped`.
    #[track_caller]
    pub fn stop(self) -> Vec<Record> {
        let records = self.stop_with_gaps();
        log::assert_well_formed(&records);
        let kinds: Vec<_> = records.iter().map(Record::kind).collect();
        assert_eq!(kinds.last(), Some(&"agent_stopped"), "{kinds:?}");
        assert!(kinds.contains(&"agent_started") && kinds.contains(&"snapshot"), "{kinds:?}");
        records
    }

    /// The same for an agent that could not write all its records.
    #[track_caller]
    pub fn stop_with_gaps(mut self) -> Vec<Record> {
        assert!(self.held.is_alive(), "the agent died before it was stopped");
        // While it lives: its mount namespace goes with it.
        let held_log = File::open(&self.log).unwrap();
        self.held.signal(Signal::TERM);
        assert!(self.held.wait_gone(PATIENCE), "the agent does not stop");
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{status:?}");
        let records = log::parse(&std::io::read_to_string(held_log).unwrap());
        log::assert_fields(&records);
        records
    }

    /// What it has pinned in the kernel outlives it: another agent with the same state directory is to follow.
    pub fn keep_pins(&mut self) {
        self.keeps_pins = true;
    }

    /// Ends it without a chance to tidy up. Another agent with the same state directory is to follow.
    pub fn crash(mut self) {
        self.keep_pins();
        self.held.kill();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9));
    }

    /// What it wrote to stderr.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.held.signal(Signal::KILL);
        let _ = self.child.wait();
        if !self.keeps_pins {
            let removed = Pins::of(&self.state).and_then(|pins| pins.remove());
            assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
        }
        if std::thread::panicking() {
            eprintln!("---- stderr of the agent\n{}", self.stderr());
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("---- event log\n{log}");
        }
    }
}

/// A signal that was really sent.
pub fn is_shot(record: &Record) -> bool {
    record.kind() == "signal" && !record.flag("dry_run")
}

/// The log says of exactly these that they were signalled.
#[track_caller]
pub fn assert_signalled(records: &[Record], who: &[&Proc]) {
    let pid = |r: &Record| i32::try_from(r.number("/proc/pid")).unwrap();
    let shot: BTreeSet<_> = records.iter().filter(|r| is_shot(r)).map(pid).collect();
    let meant: BTreeSet<_> = who.iter().map(|p| p.pid()).collect();
    assert_eq!(shot, meant, "signalled, and meant to be signalled");
}

/// Runs a command to its end. It is killed, and the test fails, if that does not come in time.
#[track_caller]
pub fn run_to_end(scene: &Scene, command: &mut Command, patience: Duration) -> Outcome {
    let (out, err) = (scene.path("run.stdout"), scene.path("run.stderr"));
    let begin = Instant::now();
    let mut child = command
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let held = Proc::of_child(&child).unwrap();
    let ended = held.wait_gone(patience);
    let took = begin.elapsed();
    held.signal(Signal::KILL);
    let status = child.wait().unwrap();
    let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let outcome = Outcome { status, stdout: text(out), stderr: text(err), took };
    assert!(ended, "does not end within {patience:?}: {outcome:#?}");
    outcome
}
