//! Bad input: each a clear message and exit status 2, nothing on stdout, and nobody signalled; a running agent survives
//! what can be survived.
//!
//! In every scene there is a bystander: an idle worker that has lost its master and that an agent with a good
//! configuration would stop at once (see `the_bystander_is_worth_something`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a broken assumption is a failure")]

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use reaper_tests::agent::{Agent, Outcome, binary, is_shot, run_command, run_to_end};
use reaper_tests::config::Config;
use reaper_tests::process::{Proc, comes_true, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, fork, worker};

const UNPRIVILEGED: u32 = 65534;

/// A scene with a live master, so that the group is armed, and a stray worker.
struct Stage {
    scene: Scene,
    bystander: Proc,
}

impl Stage {
    fn new() -> Self {
        let scene = Scene::new();
        let start = scene.spawn("start", [worker("bystander"), Op::Sleep(50)]);
        scene.spawn("master", [worker("w"), Op::Forever]);
        let bystander = scene.proc("bystander");
        scene.entry("w");
        wait_until("reparenting", || bystander.stat().is_some_and(|stat| stat.ppid != start.pid()));
        Self { scene, bystander }
    }

    fn config(&self) -> Config {
        Config::new(&self.scene).worker_matcher().quiet("0s")
    }

    /// Runs it to its end: status 2, each of `words` in at most two lines on stderr, nothing on stdout, nobody harmed.
    #[track_caller]
    fn refuses(&self, mut command: Command, words: &[&str]) -> Outcome {
        let outcome = self.refuses_at_length(&mut command, words);
        let lines = outcome.stderr.lines().filter(|l| !l.trim().is_empty()).count();
        assert!((1..=2).contains(&lines), "one or two lines: {outcome:#?}");
        outcome
    }

    /// The same, with as many lines as it likes.
    #[track_caller]
    fn refuses_at_length(&self, command: &mut Command, words: &[&str]) -> Outcome {
        let outcome = run_to_end(&self.scene, command, Duration::from_secs(10));
        assert_eq!(outcome.status.code(), Some(2), "{outcome:#?}");
        assert_eq!(outcome.stdout, "", "{outcome:#?}");
        for word in words {
            let said = outcome.stderr.to_lowercase().contains(&word.to_lowercase());
            assert!(said, "does not say {word:?}: {outcome:#?}");
        }
        assert!(!outcome.stderr.contains("panicked"), "{outcome:#?}");
        assert!(!outcome.stderr.contains('\u{1b}'), "into a file: {outcome:#?}");
        assert!(self.bystander.is_alive(), "{outcome:#?}");
        outcome
    }

    /// Runs with this text as the configuration.
    #[track_caller]
    fn refuses_text(&self, text: &str, words: &[&str]) {
        let command = run_command(&self.scene, &self.config(), &[]);
        let file = self.scene.path("agent.toml");
        fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        self.refuses(command, &[&[&*file], words].concat());
        assert!(!self.config().socket.exists() && !self.config().log.exists(), "it left something behind");
    }

    /// Runs with a configuration that is good but for its last line, and says where that is.
    #[track_caller]
    fn refuses_last_line(&self, text: &str, words: &[&str]) {
        let line = text.trim_end().lines().count();
        let place = format!("agent.toml:{line}:");
        self.refuses_text(text, &[&[&*place], words].concat());
    }
}

/// The control: with nothing wrong the bystander would be stopped.
#[test]
fn the_bystander_is_worth_something() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.scene, &stage.config());
    agent.wait_reaped(&stage.bystander);
    agent.stop();
}

#[test]
fn no_such_configuration() {
    let stage = Stage::new();
    let mut command = Command::new(binary());
    command.args(["run", "--config", "/nonexistent/reaper.toml"]);
    stage.refuses(command, &["/nonexistent/reaper.toml"]);
}

#[test]
fn a_directory_for_a_configuration() {
    let stage = Stage::new();
    let mut command = Command::new(binary());
    command.args(["run", "--config", "/etc"]);
    stage.refuses(command, &["/etc"]);
}

#[test]
fn a_configuration_that_is_not_text() {
    let stage = Stage::new();
    let command = run_command(&stage.scene, &stage.config(), &[]);
    fs::write(stage.scene.path("agent.toml"), b"[agent]\nlog = \"\xff\xfe\"\n").unwrap();
    stage.refuses(command, &["agent.toml"]);
}

#[test]
fn malformed() {
    let stage = Stage::new();
    stage.refuses_last_line(&stage.config().more("sudden death").text(), &[]);
}

#[test]
fn an_unknown_key() {
    let stage = Stage::new();
    stage.refuses_last_line(&stage.config().more("max_kilsl = 3").text(), &["max_kilsl"]);
}

#[test]
fn a_wrong_type() {
    let stage = Stage::new();
    stage.refuses_last_line(&stage.config().more("grace = true").text(), &[]);
}

#[test]
fn a_bad_regex() {
    let stage = Stage::new();
    let second = "[[group]]\nname = \"h\"\n[group.master]\ncmdline = '(unclosed'";
    stage.refuses_last_line(&stage.config().more(second).text(), &["unclosed"]);
}

#[test]
fn an_unknown_profile() {
    let stage = Stage::new();
    let second = "[[group]]\nname = \"h\"\nprofile = \"no-such-framework\"";
    stage.refuses_last_line(&stage.config().more(second).text(), &["no-such-framework"]);
}

#[test]
fn two_groups_of_one_name() {
    let stage = Stage::new();
    let second = "[[group]]\nname = \"g\"\n[group.master]\ncomm = \"x\"";
    let text = stage.config().more(second).text();
    stage.refuses_text(&text, &["g", "name"]);
}

#[test]
fn an_unknown_signal() {
    let stage = Stage::new();
    stage.refuses_last_line(&stage.config().more("signals = [\"TREM\"]").text(), &["TREM"]);
}

#[test]
fn a_group_without_a_master() {
    let stage = Stage::new();
    let second = "[[group]]\nname = \"masterless\"";
    let text = stage.config().more(second).text();
    let place = format!("agent.toml:{}:", text.trim_end().lines().count() - 1);
    stage.refuses_text(&text, &[&place, "master"]);
}

#[test]
fn unwritable_logs() {
    let stage = Stage::new();
    let directory = stage.scene.path("directory");
    fs::create_dir(&directory).unwrap();
    let directory = directory.to_str().unwrap();
    // The folder is what cannot be made, where it is missing.
    for (log, culprit) in [
        (directory, directory),
        ("/proc/no/events.jsonl", "/proc/no"),
        ("/sys/kernel/events.jsonl", "/sys/kernel/events.jsonl"),
    ] {
        let command = run_command(&stage.scene, &stage.config(), &["--log", log]);
        stage.refuses(command, &[culprit]);
    }
}

/// Neither can be made below /proc, and neither is a file that belongs to somebody else.
fn unusable(flag: &str) {
    let stage = Stage::new();
    let file = stage.scene.path("somebodys");
    fs::write(&file, "text").unwrap();
    let file = file.to_str().unwrap();
    for (place, culprit) in [("/proc/no/thing", "/proc/no"), (file, file)] {
        let command = run_command(&stage.scene, &stage.config(), &[flag, place]);
        stage.refuses(command, &[culprit]);
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "text");
}

#[test]
fn an_unusable_socket() {
    unusable("--socket");
}

/// An agent that cannot remember which groups are armed would spare all strays after its next start.
#[test]
fn an_unusable_state_directory() {
    unusable("--state");
}

#[test]
fn unusable_arguments() {
    let stage = Stage::new();
    let all: &[&[&str]] = &[
        &["run", "--no-such-flag"],
        &["run", "unexpected"],
        &["run", "--config"],
        &["no-such-command"],
        &["demo", "--no-such-flag"],
    ];
    for args in all {
        let mut command = Command::new(binary());
        command.args(*args);
        stage.refuses_at_length(&mut command, &[args.last().unwrap()]);
    }
}

#[test]
fn not_root() {
    let stage = Stage::new();
    // Everything else is as it should be: only the privileges are missing.
    let place = stage.scene.path("everybodys");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, Permissions::from_mode(0o777)).unwrap();
    let copy = place.join("reaper");
    fs::copy(binary(), &copy).unwrap();
    let mut config = stage.config();
    (config.log, config.socket, config.state) =
        (place.join("log"), place.join("socket"), place.join("state"));
    let good = run_command(&stage.scene, &config, &[]);
    fs::set_permissions(stage.scene.path("agent.toml"), Permissions::from_mode(0o644)).unwrap();
    let mut command = Command::new(copy);
    command.args(good.get_args()).uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    let outcome = stage.refuses(command, &[]);
    let said = ["root", "CAP_"].iter().any(|word| outcome.stderr.contains(word));
    assert!(said, "does not say what is missing: {outcome:#?}");
}

#[test]
fn no_btf() {
    let stage = Stage::new();
    let empty = stage.scene.path("empty");
    fs::create_dir(&empty).unwrap();
    let mut command = run_command(&stage.scene, &stage.config(), &[]);
    in_own_mounts(&mut command, move || {
        mount(Some(&empty), "/sys/kernel/btf", None::<&str>, MsFlags::MS_BIND, None::<&str>)
    });
    stage.refuses(command, &["btf"]);
}

/// Runs something in the child, in a mount namespace of its own, before it execs.
fn in_own_mounts(command: &mut Command, prepare: impl Fn() -> nix::Result<()> + Send + Sync + 'static) {
    let before = move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        Ok(prepare()?)
    };
    // SAFETY: between fork and exec: system calls, and small allocations that glibc allows in a forked child.
    unsafe {
        command.pre_exec(before);
    }
}

#[test]
fn in_another_pid_namespace() {
    let stage = Stage::new();
    let good = run_command(&stage.scene, &stage.config(), &[]);
    let words = std::iter::once(good.get_program()).chain(good.get_args());
    let run = Op::Run(words.map(|w| w.to_str().unwrap().to_owned()).collect());
    // As in a container, and as with the host's /proc mounted into one.
    for inside in [vec![Op::MountProc, run.clone()], vec![run]] {
        let program = [Op::NewPidNamespace, fork(inside), Op::ExitLikeChild];
        stage.refuses(stage.scene.command("outer", &program), &["pid namespace"]);
    }
}

/// Its clock would not be the kernel's: no process would be the one that a record names.
#[test]
fn in_another_time_namespace() {
    let stage = Stage::new();
    let good = run_command(&stage.scene, &stage.config(), &[]);
    let mut command = Command::new("unshare");
    command.args(["--time", "--boottime", "100000", "--fork", "--kill-child"]);
    command.arg(good.get_program()).args(good.get_args());
    stage.refuses(command, &["time namespace"]);
}

#[test]
fn a_second_agent_on_the_same_socket() {
    let stage = Stage::new();
    let scene = Scene::new();
    // The first agent serves its own scene; the second one would stop the bystander.
    let first = Agent::start(&scene, &Config::new(&scene));
    let socket = scene.path("agent.sock").display().to_string();
    let command = run_command(&stage.scene, &stage.config(), &["--socket", &socket]);
    stage.refuses(command, &[&socket]);

    assert!(Path::new(&socket).exists());
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    first.knows_master(&master);
    master.kill();
    first.wait_reaped(&w);
    first.stop();
}

/// The agent's log is on a tiny file system of its own that the test fills: what cannot be explained is not done
/// (rule 9). With room again it goes on.
#[test]
fn a_full_disk_while_logging() {
    let scene = Scene::new();
    let disk = scene.path("disk");
    fs::create_dir(&disk).unwrap();
    let mut config = Config::new(&scene);
    config.log = disk.join("events.jsonl");
    let mut command = run_command(&scene, &config, &[]);
    let target = disk.clone();
    in_own_mounts(&mut command, move || {
        mount(Some("tmpfs"), &target, Some("tmpfs"), MsFlags::empty(), Some("size=256k"))
    });
    let mut agent = Agent::launch(&scene, &config, command);
    let seen = format!("/proc/{}/root{}", agent.process().pid(), disk.display());
    agent.read_log_at(Path::new(&seen).join("events.jsonl"));

    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    agent.knows_master(&master);
    let filler = Path::new(&seen).join("filler");
    fill(&filler);
    fill_last_page(&agent);
    master.kill();
    agent.assert_unharmed(1_500, &w);
    assert!(agent.process().is_alive(), "a full disk does not end the agent");
    assert!(agent.stderr().contains("cannot be written"), "and it says so somewhere else");

    fs::remove_file(&filler).unwrap();
    agent.wait_reaped(&w);
    let records = agent.stop_with_gaps();
    assert!(records.iter().any(|r| is_shot(r) && r.about(&w)), "the signal that was sent is in the log");
}

/// The log's last page may have room although the disk has none: records that can be provoked go there, until one does
/// not fit any more (they are among the shortest).
fn fill_last_page(agent: &Agent) {
    for _ in 0..40 {
        let before = agent.records().len();
        agent.reload();
        if !comes_true(Duration::from_millis(500), || agent.records().len() > before) {
            return;
        }
    }
    panic!("the disk does not get full");
}

/// Writes until nothing more goes in, not even a byte.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let block = [0_u8; 4096];
    let mut length = block.len();
    while length > 0 {
        if file.write_all(&block[..length]).is_err() {
            length /= 2;
        }
    }
}
