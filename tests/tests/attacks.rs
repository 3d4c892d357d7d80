//! What a user of the host who is not root may try, on the real agent: to have others' processes signalled, to write what he
//! likes into the log, to read or change what is root's. What the agent itself could do for somebody who took it over is in
//! `confined.rs`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a broken assumption is a failure")]

use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use reaper::agent::client::{self, AskError};
use reaper_tests::agent::{Agent, Outcome, binary, run_command, run_to_end};
use reaper_tests::config::Config;
use reaper_tests::process::{PATIENCE, Proc, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, exec, fork, gate, note, worker};

const NOBODY: u32 = 65534;

/// A worker that was orphaned before there was an agent, started with this command.
fn stray_of(scene: &Scene, name: &str, command: &mut Command) -> Proc {
    let mut start = command.spawn().unwrap();
    let stray = scene.proc(name);
    scene.open_gate(&format!("{name}-alone"));
    start.wait().unwrap();
    let pid = i32::try_from(start.id()).unwrap();
    wait_until("reparenting", || stray.stat().is_some_and(|stat| stat.ppid != pid));
    stray
}

fn program_of_a_stray(name: &str) -> [Op; 2] {
    [worker(name), gate(&format!("{name}-alone"))]
}

fn stray(scene: &Scene, name: &str) -> Proc {
    stray_of(scene, name, &mut scene.command("start", &program_of_a_stray(name)))
}

/// The same program with another user.
fn as_nobody(program: impl IntoIterator<Item = Op>) -> Vec<Op> {
    [Op::User("nobody".into())].into_iter().chain(program).collect()
}

/// It is reported and spared, and it stays so.
#[track_caller]
fn is_spared(agent: &Agent, stray: &Proc) {
    assert!(agent.wait("orphaned", stray).flag("stray"));
    assert_eq!(agent.wait("spared", stray).text("because"), "unarmed");
    agent.assert_unharmed(700, stray);
}

/// A process that only looks like a master makes nobody's strays fair game.
#[test]
fn imitating_a_master() {
    let scene = Scene::new();
    let stray = stray(&scene, "stray");
    let agent = Agent::start(&scene, &Config::new(&scene).worker_matcher());
    let imitation = scene.spawn("start", as_nobody([exec("master", [note("up"), Op::Forever])]));
    assert_eq!(agent.wait("master_found", &imitation).number("/proc/uid"), u64::from(NOBODY));
    is_spared(&agent, &stray);
    imitation.kill();
    agent.assert_unharmed(300, &stray);
    // A master of the stray's own user and executable: now it is one of them.
    let master = scene.spawn("master", [Op::Forever]);
    agent.knows_master(&master);
    agent.wait_reaped(&stray);
    agent.assert_signalled(&[&stray]);
    agent.stop();
}

/// Who only looks like a worker is nobody's: neither alive beside a master, nor when that dies.
#[test]
fn imitating_a_worker() {
    let scene = Scene::new();
    let before =
        stray_of(&scene, "before", &mut scene.command("start", &as_nobody(program_of_a_stray("before"))));
    let agent = Agent::start(&scene, &Config::new(&scene).worker_matcher());
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    scene.spawn(
        "start",
        as_nobody([fork([exec("worker", [note("beside"), Op::Forever])]), gate("beside-alone")]),
    );
    let beside = scene.proc("beside");
    scene.open_gate("beside-alone");
    agent.knows_master(&master);
    is_spared(&agent, &before);
    master.kill();
    agent.wait_reaped(&w);
    for imitation in [&before, &beside] {
        agent.assert_unharmed(400, imitation);
    }
    agent.assert_signalled(&[&w]);
    agent.stop();
}

/// The same name and user from another executable.
#[test]
fn a_stray_of_another_executable() {
    let scene = Scene::new();
    let template = scene.command("start", &program_of_a_stray("other"));
    let copy = scene.path("copy");
    fs::copy(template.get_program(), &copy).unwrap();
    let mut command = Command::new(&copy);
    let variables = template.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.args(template.get_args()).env_clear().envs(variables);
    let other = stray_of(&scene, "other", &mut command);
    let own = stray(&scene, "own");
    let agent = Agent::start(&scene, &Config::new(&scene).worker_matcher());
    let master = scene.spawn("master", [Op::Forever]);
    agent.knows_master(&master);
    agent.wait_reaped(&own);
    is_spared(&agent, &other);
    agent.assert_signalled(&[&own]);
    agent.stop();
}

/// Newlines, escape sequences, bytes that are not UTF-8, and more of all that than anybody wants to read.
#[test]
fn text_of_processes_stays_text() {
    let scene = Scene::new();
    let config = Config::new(&scene).agent("log_level = \"lineage\"");
    let agent = Agent::start(&scene, &config);
    // A shell that waits in open(2) for a FIFO nobody writes to, with three arguments.
    let fifo = scene.path("never");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let forged = r#"printf '\033[2J\377\n{"v":1,"seq":1,"kind":"signal"}\r\033]0;owned\007'"#;
    let long = "head -c 9000 /dev/zero | tr '\\0' x";
    let waits = format!("read x <{}", fifo.display());
    let script = format!("exec /bin/sh -c '{waits}; :' {} \"$({forged})\" \"$({long})\"", scene.token());
    let evil = fork([note("evil"), Op::Run(["/bin/sh", "-c", &script].map(Into::into).into())]);
    let master = scene.spawn("master", [Op::Comm("m\n\u{1b}[31m\u{7}x".into()), evil, Op::Forever]);
    let evil = scene.proc("evil");
    // The first shell has them in its script.
    wait_until("its arguments", || evil.cmdline().contains("owned") && !evil.cmdline().contains("printf"));
    agent.knows_master(&master);
    // It took its name after its exec, and is looked at again a second later.
    agent.assert_unharmed(1_200, &evil);
    // It has been read afresh when it is an orphan.
    master.kill();
    let orphaned = agent.wait("orphaned", &evil);
    let argv: Vec<&str> =
        orphaned.get("/proc/argv").unwrap().as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    let text = "\u{1b}[2J\u{fffd}\n{\"v\":1,\"seq\":1,\"kind\":\"signal\"}\r\u{1b}]0;owned\u{7}";
    assert!(argv.contains(&text), "{argv:?}");
    let bytes: usize = argv.iter().map(|a| a.len() + 1).sum();
    assert!((4_000..=4_097).contains(&bytes), "{bytes} bytes of arguments");
    let lost = agent.wait("master_lost", &master);
    assert_eq!(lost.text("/proc/comm"), "m\n\u{1b}[31m\u{7}x", "{lost:?}");
    let records = agent.stop();

    let raw = fs::read_to_string(&config.log).unwrap();
    assert_eq!(raw.lines().count(), records.len(), "a record is a line");
    assert!(raw.lines().all(|line| line.len() < 32_768), "no record is long");
    assert!(!raw.chars().any(|c| c.is_control() && c != '\n'), "nothing in it does anything to a terminal");
    for format in ["human", "json"] {
        let mut tail = Command::new(binary());
        tail.args(["--output", format, "--color", "never", "tail", "-n", "1000"]).arg(&config.log);
        let shown = run_to_end(&scene, &mut tail, PATIENCE);
        assert_eq!(shown.status.code(), Some(0), "{shown:?}");
        assert_eq!(shown.stdout.lines().count(), records.len(), "{format}: {}", shown.stdout);
        assert!(!shown.stdout.chars().any(|c| c.is_control() && c != '\n'), "{format}: {}", shown.stdout);
    }
}

/// One master after the other: the disk has an end, and the log comes to its own before.
#[test]
fn flooding_the_log() {
    const SIZE: u64 = 32 << 10;
    let scene = Scene::new();
    let limits = format!("log_max_size = {SIZE}\nlog_keep = 2");
    let config = Config::new(&scene).agent(&limits);
    let agent = Agent::start(&scene, &config);
    let master = fork([exec("master", [Op::Sleep(20), Op::Exit(0)])]);
    let all = [vec![master; 250], vec![Op::WaitChildren, note("done"), Op::Forever]].concat();
    scene.spawn("start", as_nobody(all));
    let rotated = |n: u32| config.log.with_extension(format!("jsonl.{n}"));
    scene.entry("done");
    wait_until("the second rotation", || rotated(2).exists());
    let sizes: Vec<u64> = [config.log.clone(), rotated(1), rotated(2)]
        .iter()
        .map(|path| fs::metadata(path).map_or(0, |m| m.len()))
        .collect();
    assert!(sizes.iter().all(|&size| size <= SIZE), "{sizes:?}");
    assert!(!rotated(3).exists());
    assert!(agent.process().is_alive());
}

/// In a thread of its own, which has another user and groups from then on (the system calls, unlike the C library's functions,
/// are about the calling thread).
fn as_user<T: Send + 'static>(
    uid: u32,
    gid: u32,
    groups: &'static [u32],
    act: impl FnOnce() -> T + Send + 'static,
) -> T {
    let change = move || {
        // SAFETY: system calls that take numbers, and a pointer to a live slice with its length.
        let outcomes = unsafe {
            [
                libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()),
                libc::syscall(libc::SYS_setresgid, gid, gid, gid),
                libc::syscall(libc::SYS_setresuid, uid, uid, uid),
            ]
        };
        assert_eq!(outcomes, [0; 3], "{}", Errno::last());
        act()
    };
    std::thread::spawn(change).join().unwrap()
}

/// Asks as somebody: whether there is an answer. `None`: it is denied.
fn asks(uid: u32, gid: u32, groups: &'static [u32], socket: &Path) -> Option<bool> {
    let socket = socket.to_owned();
    as_user(uid, gid, groups, move || match client::status(&socket) {
        Ok(answer) => Some(answer.is_some()),
        Err(e) if matches!(e.downcast_ref(), Some(AskError::Denied(_))) => None,
        Err(e) => panic!("{e:#}"),
    })
}

#[test]
fn asking_the_agent() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let agent = Agent::start(&scene, &config);
    let found = fs::metadata(&config.socket).unwrap();
    assert_eq!((found.mode() & 0o777, found.uid()), (0o600, 0));
    assert_eq!(asks(0, 0, &[], &config.socket), Some(true));
    assert_eq!(asks(NOBODY, NOBODY, &[0], &config.socket), None);
    // If somebody should open the file for everybody: the agent asks who it is, and says nothing.
    fs::set_permissions(&config.socket, Permissions::from_mode(0o666)).unwrap();
    let path = config.socket.clone();
    let said = as_user(NOBODY, NOBODY, &[0], move || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).map(|_| said)
    });
    assert!(said.as_ref().map_or(true, Vec::is_empty), "{said:?}");
    assert_eq!(asks(0, 0, &[], &config.socket), Some(true));
    agent.stop();
}

#[test]
fn a_group_that_may_ask() {
    let scene = Scene::new();
    let config = Config::new(&scene).agent("socket_group = 1");
    let agent = Agent::start(&scene, &config);
    let found = fs::metadata(&config.socket).unwrap();
    assert_eq!((found.mode() & 0o777, found.uid(), found.gid()), (0o660, 0, 1));
    assert_eq!(asks(NOBODY, 1, &[], &config.socket), Some(true), "its first group");
    assert_eq!(asks(NOBODY, NOBODY, &[5, 1], &config.socket), Some(true), "another of its groups");
    assert_eq!(asks(NOBODY, NOBODY, &[5], &config.socket), None);
    assert_eq!(asks(0, 0, &[], &config.socket), Some(true));
    agent.stop();
}

/// The agent does not start, and says each of these.
#[track_caller]
fn refuses(scene: &Scene, config: &Config, prepare: impl FnOnce(&Path), words: &[&str]) -> Outcome {
    let mut command = run_command(scene, config, &[]);
    prepare(&scene.path("agent.toml"));
    let outcome = run_to_end(scene, &mut command, Duration::from_secs(20));
    assert_eq!(outcome.status.code(), Some(2), "{outcome:#?}");
    for word in words {
        assert!(outcome.stderr.contains(word), "does not say {word:?}: {outcome:#?}");
    }
    outcome
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn given_to_nobody(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

/// A directory of nobody's in the scene.
fn nobodys(scene: &Scene) -> PathBuf {
    let dir = scene.path("nobodys");
    fs::create_dir(&dir).unwrap();
    given_to_nobody(&dir);
    dir
}

#[test]
fn a_configuration_that_others_can_change() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    for (bits, shown) in [(0o666, "mode 0666"), (0o664, "mode 0664")] {
        refuses(&scene, &config, |file| mode(file, bits), &[shown, "chmod go-w", "agent.toml"]);
        let mut check = Command::new(binary());
        check.arg("check").arg(scene.path("agent.toml"));
        let told = run_to_end(&scene, &mut check, PATIENCE);
        assert_eq!(told.status.code(), Some(0), "{told:#?}");
        assert!(told.stdout.contains("warning") && told.stdout.contains("chmod go-w"), "{told:#?}");
    }
    mode(&scene.path("agent.toml"), 0o644);
    refuses(&scene, &config, given_to_nobody, &["uid 65534", "chown root"]);
}

#[test]
fn a_configuration_in_somebodys_directory() {
    let scene = Scene::new();
    let dir = nobodys(&scene);
    let file = dir.join("reaper.toml");
    fs::write(&file, Config::new(&scene).text()).unwrap();
    let mut command = Command::new(binary());
    command.arg("run").arg("--config").arg(&file);
    let outcome = run_to_end(&scene, &mut command, Duration::from_secs(20));
    assert_eq!(outcome.status.code(), Some(2), "{outcome:#?}");
    let said = format!("{} belongs to uid {NOBODY}", dir.display());
    assert!(outcome.stderr.contains(&said), "{outcome:#?}");
}

/// A running agent does not take it over either.
#[test]
fn a_configuration_that_is_opened_later() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let file = scene.path("agent.toml");
    fs::write(&file, Config::new(&scene).observe().text()).unwrap();
    mode(&file, 0o666);
    agent.reload();
    let rejected = agent.wait_for("the rejection", |r| r.kind() == "config_rejected");
    assert!(rejected.get("errors").unwrap().to_string().contains("chmod go-w"), "{rejected:?}");
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&w);
    agent.stop();
}

/// Each of the agent's own files in a directory of somebody's: what he puts there is not touched.
#[test]
fn files_in_somebodys_directory() {
    let scene = Scene::new();
    let dir = nobodys(&scene);
    let roots = scene.path("roots");
    fs::write(&roots, "precious\n").unwrap();
    let planted = dir.join("planted");
    symlink(&roots, &planted).unwrap();
    let said = format!("{} belongs to uid {NOBODY}", dir.display());
    let with = |set: &dyn Fn(&mut Config)| {
        let mut config = Config::new(&scene);
        set(&mut config);
        refuses(&scene, &config, |_| {}, &[&said, "in a directory of root's"]);
    };
    with(&|c| c.log = planted.clone());
    with(&|c| c.log = dir.join("events.jsonl"));
    with(&|c| c.socket = planted.clone());
    with(&|c| c.socket = dir.join("reaper.sock"));
    with(&|c| c.state = dir.clone());
    with(&|c| c.state = dir.join("state"));
    assert_eq!(fs::read_to_string(&roots).unwrap(), "precious\n");
    let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["planted"]);
}

/// In a directory that everybody may use (the scene's own is sticky, as `/tmp` is) somebody was there first.
#[test]
fn files_that_somebody_planted() {
    let scene = Scene::new();
    let roots = scene.path("roots");
    fs::write(&roots, "precious\n").unwrap();
    let path = scene.path("planted");
    let (to, at) = (roots.clone(), path.clone());
    as_user(NOBODY, NOBODY, &[], move || symlink(to, at)).unwrap();
    let mut config = Config::new(&scene);
    config.log.clone_from(&path);
    refuses(&scene, &config, |_| {}, &["planted", "uid 65534"]);
    config = Config::new(&scene);
    config.socket.clone_from(&path);
    refuses(&scene, &config, |_| {}, &["planted", "uid 65534"]);
    assert_eq!(fs::read_to_string(&roots).unwrap(), "precious\n");

    let at = scene.path("log");
    as_user(NOBODY, NOBODY, &[], move || File::create(at)).unwrap();
    config = Config::new(&scene);
    config.log = scene.path("log");
    refuses(&scene, &config, |_| {}, &["uid 65534", "chown root"]);

    config = Config::new(&scene);
    fs::create_dir(&config.state).unwrap();
    fs::write(config.state.join("state.json"), "{}").unwrap();
    given_to_nobody(&config.state.join("state.json"));
    refuses(&scene, &config, |_| {}, &["state.json", "uid 65534"]);
}

/// A directory in which others may replace what is root's.
#[test]
fn files_in_a_directory_that_everybody_may_write() {
    let scene = Scene::new();
    let dir = scene.path("open");
    fs::create_dir(&dir).unwrap();
    mode(&dir, 0o777);
    let mut config = Config::new(&scene);
    config.log = dir.join("events.jsonl");
    refuses(&scene, &config, |_| {}, &["mode 0777", &format!("chmod go-w {}", dir.display())]);
    mode(&dir, 0o1777);
    let agent = Agent::start(&scene, &config);
    agent.stop();
}
