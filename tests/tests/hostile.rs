//! Surroundings that are hostile or broken: the agent outlives them, stops whom it should and nobody else.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "in a test a broken assumption is a failure"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reaper_tests::agent::{Agent, binary, is_shot, run_command, run_to_end};
use reaper_tests::cgroup::Cgroups;
use reaper_tests::config::Config;
use reaper_tests::log::Record;
use reaper_tests::process::{PATIENCE, Proc, Signal, comes_true, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, exec, fork, note, worker, worker_doing};

/// For a thousand processes on a machine that does much else.
const LONG: Duration = Duration::from_secs(120);

/// How many records of a kind are in the log, without a look at each: there are thousands.
fn count(log: &Path, kind: &str) -> usize {
    fs::read_to_string(log).unwrap_or_default().matches(&format!("\"kind\":\"{kind}\"")).count()
}

/// Waits until the log has so many of these kinds.
#[track_caller]
fn wait_for_count(agent: &Agent, log: &Path, kinds: &[&str], wanted: usize) {
    let counted = || kinds.iter().map(|kind| count(log, kind)).sum::<usize>();
    let reached = comes_true(LONG, || {
        std::thread::sleep(Duration::from_millis(100));
        counted() >= wanted || !agent.process().is_alive()
    });
    assert!(agent.process().is_alive(), "the agent died");
    assert!(reached, "{} of {wanted} records of {kinds:?} after {LONG:?}", counted());
}

/// Pids with a record that fits, each only once.
#[track_caller]
fn once_each(records: &[Record], fits: impl Fn(&Record) -> bool) -> BTreeSet<u64> {
    let mut pids = BTreeSet::new();
    for record in records.iter().filter(|r| fits(r)) {
        let pid = record.number("/proc/pid");
        if !pids.insert(pid) {
            let of_it = records.iter().filter(|r| r.get("/proc/pid").is_some_and(|p| *p == pid));
            panic!("more than once: {:#?}", of_it.collect::<Vec<_>>());
        }
    }
    pids
}

/// Who was sent the first signal, each only once. What could not be sent is tried again: on a busy machine the kernel may not
/// answer while a process is held.
#[track_caller]
fn stopped_once_each(records: &[Record]) -> BTreeSet<u64> {
    let mut sent = BTreeMap::new();
    for record in records {
        let change = match record.kind() {
            "signal" if record.number("step") == 0 => 1,
            "error" if record.text("what").contains("sent TERM") => -1,
            _ => continue,
        };
        let times = sent.entry(record.number("/proc/pid")).or_insert(0);
        *times += change;
        assert!(*times <= 1, "{record:?} is the second");
    }
    sent.into_iter().filter_map(|(pid, times)| (times == 1).then_some(pid)).collect()
}

/// The agent's resident memory, KiB.
fn resident(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.process().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn five_hundred_orphans_at_once() {
    let scene = Scene::new();
    let config = Config::new(&scene).stop("max_kills = 2000\ngrace = \"60s\"");
    let agent = Agent::start(&scene, &config);
    let mut program: Vec<Op> = (0..500).map(|_| fork([Op::Forever])).collect();
    program.extend([note("ready"), Op::Forever]);
    let master = scene.spawn("master", program);
    agent.knows_master(&master);
    scene.entry("ready");
    master.kill();
    wait_for_count(&agent, &config.log, &["reaped"], 500);
    let records = agent.stop();
    let orphans = once_each(&records, |r| r.kind() == "orphaned");
    assert_eq!(orphans.len(), 500);
    assert_eq!(stopped_once_each(&records), orphans);
    assert_eq!(once_each(&records, |r| r.kind() == "reaped"), orphans);
}

/// Five times a thousand processes, each born of another, all orphaned while they fork: nobody who works is signalled, and the
/// agent's memory is its own again afterwards.
#[test]
fn a_fork_bomb() {
    const BOMB: &str = "b() { [ $1 -eq 0 ] || { b $(($1 - 1)) & b $(($1 - 1)) & wait; }; }\n\
                        for i in 1 2 3 4 5; do b 9; done; exec sleep 50";
    let scene = Scene::new();
    let config = Config::new(&scene).stop("max_kills = 20000");
    let agent = Agent::start(&scene, &config);
    let bomb = Op::Run(["/bin/sh", "-c", BOMB, "bomb", scene.token()].map(String::from).to_vec());
    let master = scene.spawn("master", [worker("idle"), fork([note("bomb"), bomb]), Op::Forever]);
    agent.knows_master(&master);
    let (idle, bomb) = (scene.proc("idle"), scene.proc("bomb"));
    let before = resident(&agent);
    master.kill();
    agent.wait("orphaned", &bomb);
    agent.wait_reaped(&idle);
    // It is idle when the last of its children has gone.
    agent.wait_within(LONG, "the end of the bomb", |r| r.is("reaped", &bomb));
    let after = resident(&agent);
    println!("resident: {before} KiB before, {after} KiB after");
    assert!(after < before + 32 * 1024, "{before} KiB before, {after} KiB after");
    let records = agent.stop();
    // Of 15,000 events. Some kernels leave out runs of the programs, a few in a thousand, which are losses as well.
    let lost: u64 = records.iter().filter(|r| r.kind() == "events_lost").map(|r| r.number("count")).sum();
    assert!(lost < 300, "the default ring holds a bomb: {lost} lost");
    // Those of the bomb that lived when it was its turn, and no other.
    let shot = stopped_once_each(&records);
    let orphans: BTreeSet<u64> =
        records.iter().filter(|r| r.kind() == "orphaned").map(|r| r.number("/proc/pid")).collect();
    assert!(shot.is_subset(&orphans), "signalled and no orphans: {:?}", shot.difference(&orphans));
}

/// Arguments of 4,096 bytes that would clear the screen, move the cursor, rename the window and forge a line of the log.
#[test]
fn arguments_of_escapes() {
    const EVIL: &str = "\x1b[2J\x1b]0;owned\x07\n{\"v\":1}\r\x08\u{9b}31m\u{202e}";
    let scene = Scene::new();
    let config = Config::new(&scene).agent("log_level = \"all\"");
    let agent = Agent::start(&scene, &config);
    let role = EVIL.repeat(4_096 / EVIL.len());
    let evil = fork([exec(&role, [Op::Comm("\x1b[31m\n\r".into()), note("evil"), Op::Forever])]);
    let master = scene.spawn("master", [evil, Op::Forever]);
    agent.knows_master(&master);
    let evil = scene.proc("evil");
    master.kill();
    agent.wait_reaped(&evil);
    let said = agent.stderr();
    let records = agent.stop();
    let argv = records.iter().find(|r| r.is("orphaned", &evil)).unwrap().get("/proc/argv").cloned().unwrap();
    // Up to 4,096 bytes with the program's name, every byte as it was.
    let told = argv[1].as_str().unwrap();
    assert!(told.len() > 3_000 && role.starts_with(told), "{told:?}");
    let raw = fs::read_to_string(&config.log).unwrap();
    let safe = |text: &str| text.chars().all(|c| !c.is_control() || c == '\n') && !text.contains('\u{202e}');
    assert!(safe(&raw), "a control character in the log");
    assert!(safe(&said), "a control character on stderr");
    let mut tail = Command::new(binary());
    tail.arg("tail").arg(&config.log);
    let shown = run_to_end(&scene, &mut tail, LONG);
    assert!(shown.status.success() && safe(&shown.stdout), "a control character from reaper tail");
    assert!(shown.stdout.contains("owned"), "it is shown, escaped");
}

/// Workers that go by themselves a few milliseconds sooner or later than they would be stopped: between the record and the look,
/// the looks, the hold and the signal.
#[test]
fn processes_that_vanish_between_every_two_steps() {
    let scene = Scene::new();
    let config = Config::new(&scene).quiet("20ms").stop("max_kills = 2000");
    let agent = Agent::start(&scene, &config);
    for round in 0..15 {
        let (ready, last) = (format!("ready{round}"), format!("last{round}"));
        let mut program: Vec<Op> =
            (0..40).map(|n| fork([Op::Gate(ready.clone()), Op::Sleep(n * 10 + round)])).collect();
        program.extend([worker(&last), note(&ready), Op::Forever]);
        let master = scene.spawn("master", program);
        agent.knows_master(&master);
        scene.entry(&ready);
        let last = scene.proc(&last);
        master.kill();
        scene.open_gate(&ready);
        agent.wait_reaped(&last);
    }
    wait_until("the end of each", || {
        count(&config.log, "orphaned") == count(&config.log, "reaped") + count(&config.log, "left")
    });
    let records = agent.stop();
    let orphans = once_each(&records, |r| r.kind() == "orphaned");
    assert_eq!(once_each(&records, |r| ["reaped", "left"].contains(&r.kind())), orphans);
    let (reaped, left) = (count(&config.log, "reaped"), count(&config.log, "left"));
    println!("{reaped} were stopped, {left} went by themselves");
    assert!(reaped > 15 && left > 0, "no race: {reaped} were stopped, {left} went by themselves");
    let shot = stopped_once_each(&records);
    assert!(shot.is_subset(&orphans), "signalled and no orphans: {:?}", shot.difference(&orphans));
}

#[test]
fn a_master_that_restarts_ten_times_a_second() {
    let scene = Scene::new();
    let config = Config::new(&scene).quiet("50ms");
    let agent = Agent::start(&scene, &config);
    let mut lost = Vec::new();
    for round in 0..20 {
        let names = [format!("a{round}"), format!("b{round}")];
        let master = scene.spawn("master", [worker(&names[0]), worker(&names[1]), Op::Forever]);
        lost.extend(names.iter().map(|name| scene.proc(name)));
        master.kill();
    }
    let last = scene.spawn("master", [worker("live"), Op::Forever]);
    agent.knows_master(&last);
    let live = scene.proc("live");
    for worker in &lost {
        agent.wait_reaped(worker);
    }
    agent.assert_unharmed(300, &live);
    agent.assert_signalled(&lost.iter().collect::<Vec<_>>());
    assert!(last.is_alive());
    agent.stop();
}

#[test]
fn an_agent_that_is_stopped_for_a_while() {
    let scene = Scene::new();
    let config = Config::new(&scene);
    let agent = Agent::start(&scene, &config);
    let busy = worker_doing("busy", [Op::BusyUntil("job ends".into()), Op::Forever]);
    let master = scene.spawn("master", [worker("idle"), busy, Op::Forever]);
    agent.knows_master(&master);
    let (idle, busy) = (scene.proc("idle"), scene.proc("busy"));
    agent.process().signal(Signal::STOP);
    wait_until("the agent stops", || agent.process().stat().is_some_and(|stat| stat.state == 'T'));
    master.kill();
    // What happens meanwhile waits in the ring.
    for _ in 0..50 {
        assert!(Command::new("true").status().unwrap().success());
    }
    assert!(idle.is_alive() && busy.is_alive());
    agent.process().signal(Signal::CONT);
    agent.wait_reaped(&idle);
    agent.wait("busy", &busy);
    assert!(busy.is_alive(), "who works is left alone");
    scene.open_gate("job ends");
    agent.wait_reaped(&busy);
    agent.assert_signalled(&[&idle, &busy]);
    agent.stop();
}

/// Somebody tidies up: the folder comes back, and with it what is decided from then on.
#[test]
fn the_logs_folder_is_removed() {
    let scene = Scene::new();
    let mut config = Config::new(&scene);
    let folder = scene.path("log");
    config.log = folder.join("events.jsonl");
    let agent = Agent::start(&scene, &config);
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    agent.knows_master(&master);
    let w = scene.proc("w");
    fs::remove_dir_all(&folder).unwrap();
    master.kill();
    assert!(w.wait_gone(LONG), "the worker is not stopped");
    agent.wait("reaped", &w);
    agent.assert_signalled(&[&w]);
    agent.stop_with_gaps();
}

/// Fewer descriptors than orphans: each is looked at with what there is.
#[test]
fn few_descriptors() {
    let scene = Scene::new();
    let config = Config::new(&scene).source().stop("max_kills = 2000");
    let run = run_command(&scene, &config, &[]);
    let mut limited = Command::new("prlimit");
    limited.args(["--nofile=48:48", "--"]).arg(run.get_program()).args(run.get_args());
    let agent = Agent::launch(&scene, &config, limited);
    // Nobody can tell what they wait for: they sleep. They are looked at again and again, none is stopped.
    let mut program: Vec<Op> = (0..100).map(|_| fork([Op::Forever])).collect();
    program.extend([note("ready"), Op::Forever]);
    let master = scene.spawn("master", program);
    agent.knows_master(&master);
    scene.entry("ready");
    master.kill();
    wait_for_count(&agent, &config.log, &["orphaned"], 100);
    agent.assert_never(1_000, "a signal to one whose wait proves nothing", is_shot);
    let open = fs::read_dir(format!("/proc/{}/fd", agent.process().pid())).unwrap().count();
    println!("{open} descriptors are open");
    let errors: Vec<_> = agent.records().into_iter().filter(|r| r.kind() == "error").collect();
    assert!(errors.is_empty(), "{errors:?}");
    agent.stop();
}

/// So few that it cannot even start: it says why.
#[test]
fn no_descriptors() {
    let scene = Scene::new();
    let run = run_command(&scene, &Config::new(&scene), &[]);
    let mut refusals = 0;
    for limit in [4, 8, 12, 16, 20] {
        let mut limited = Command::new("prlimit");
        limited
            .arg(format!("--nofile={limit}:{limit}"))
            .arg("--")
            .arg(run.get_program())
            .args(run.get_args());
        let outcome = run_to_end_or_ready(&scene, &mut limited);
        let Some((status, stderr)) = outcome else { continue };
        assert_eq!(status, Some(2), "{limit} descriptors: {stderr}");
        assert!(stderr.to_lowercase().contains("too many open files"), "{limit} descriptors: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        refusals += 1;
    }
    assert!(refusals > 0, "it runs with four descriptors");
}

/// Status and words of one that does not get ready; `None` if it runs after all, and then it is ended.
fn run_to_end_or_ready(scene: &Scene, command: &mut Command) -> Option<(Option<i32>, String)> {
    let log = Config::new(scene).log;
    let _ = fs::remove_file(&log);
    let errors = scene.path("limited.stderr");
    let mut child = command
        .env("NO_COLOR", "1")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(fs::File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    let held = Proc::of_child(&child).unwrap();
    let decided = comes_true(LONG, || !held.is_alive() || count(&log, "snapshot") > 0);
    let runs = held.is_alive();
    held.signal(Signal::TERM);
    let ended = held.wait_gone(PATIENCE);
    held.signal(Signal::KILL);
    let status = child.wait().unwrap();
    assert!(decided && ended, "ready or refused: {decided}, ended: {ended}");
    (!runs).then(|| (status.code(), fs::read_to_string(&errors).unwrap()))
}

/// Whether this kernel shows that somebody is frozen: by the state, or by the function that it sleeps in. On x86 those before 5.16
/// do not name that one, and there the freezer of version 2 is a sleep like any other; who was frozen as it worked is seen when it
/// is held.
fn is_shown(frozen: &Proc) -> bool {
    frozen.stat().is_some_and(|stat| stat.state == 'D')
        || fs::read_to_string(format!("/proc/{}/wchan", frozen.pid())).unwrap() != "0"
}

/// Whoever is frozen in the middle of its work looks asleep, and works on when it is thawed: what `docker pause` does.
fn frozen(mut cgroups: Cgroups, freeze: (&str, &str), thaw: (&str, &str), is_frozen: (&str, &str)) {
    // Its processes die before the cgroup goes.
    let scene = Scene::new();
    let config = Config::new(&scene).stop("grace = \"1s\"");
    let agent = Agent::start(&scene, &config);
    let working = worker_doing("working", [Op::BusyUntil("job ends".into()), Op::Forever]);
    let master = scene.spawn("master", [worker("idle"), working, Op::Forever]);
    agent.knows_master(&master);
    let (idle, working) = (scene.proc("idle"), scene.proc("working"));
    for who in [&idle, &working] {
        cgroups.put(who, scene.token());
    }
    cgroups.write(scene.token(), freeze.0, freeze.1);
    wait_until("both are frozen", || cgroups.read(scene.token(), is_frozen.0).contains(is_frozen.1));
    let shown = is_shown(&idle);
    master.kill();
    agent.wait("busy", &working);
    if shown {
        agent.wait("busy", &idle);
    }
    let forbidden = |r: &Record| is_shot(r) && (shown || r.about(&working));
    agent.assert_never(1_500, "a signal to somebody who is frozen", forbidden);
    cgroups.write(scene.token(), thaw.0, thaw.1);
    scene.open_gate("job ends");
    for who in [&idle, &working] {
        agent.wait_reaped(who);
    }
    agent.stop();
}

#[test]
fn frozen_by_cgroup_v2() {
    let cgroups = Cgroups::mount("cgroup2", None).unwrap();
    frozen(cgroups, ("cgroup.freeze", "1"), ("cgroup.freeze", "0"), ("cgroup.events", "frozen 1"));
}

#[test]
fn frozen_by_cgroup_v1() {
    let cgroups = Cgroups::mount("cgroup", Some("freezer")).unwrap();
    let state = "freezer.state";
    frozen(cgroups, (state, "FROZEN"), (state, "THAWED"), (state, "FROZEN"));
}

/// The agent within 64 MiB, besides 500 orphans: as a container's limit would have it.
#[test]
fn little_memory() {
    // Its processes die before the cgroup goes.
    let (mut cgroups, limit) = match Cgroups::mount("cgroup", Some("memory")) {
        Ok(cgroups) => (cgroups, "memory.limit_in_bytes"),
        Err(_) => (Cgroups::mount("cgroup2", None).unwrap(), "memory.max"),
    };
    let scene = Scene::new();
    if limit == "memory.max" {
        cgroups.write("", "cgroup.subtree_control", "+memory");
    }
    cgroups.write(scene.token(), limit, "64M");
    let config = Config::new(&scene).stop("max_kills = 3000").agent("log_level = \"all\"");
    // From its first instruction, which is the shell's.
    let run = run_command(&scene, &config, &[]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(cgroups.processes(scene.token()));
    limited.arg(run.get_program()).args(run.get_args());
    let agent = Agent::launch(&scene, &config, limited);
    let mut program: Vec<Op> = (0..500).map(|_| fork([Op::Forever])).collect();
    program.extend([worker("idle"), note("ready"), Op::Forever]);
    let master = scene.spawn("master", program);
    agent.knows_master(&master);
    scene.entry("ready");
    let idle = scene.proc("idle");
    master.kill();
    agent.wait_within(LONG, "reaped", |r| r.is("reaped", &idle));
    println!("resident: {} KiB", resident(&agent));
    assert!(agent.process().is_alive());
    agent.stop();
}
