//! End to end: masters and workers in containers, seen from the host. Pids are the host's, whatever the container calls them.
//!
//! The containers are made of namespaces by actors. `/proc` stays the host's in them, so that the ledger has the host's pids.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a broken assumption is a failure")]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use reaper_tests::agent::{Agent, is_shot, run_command};
use reaper_tests::cgroup::Cgroups;
use reaper_tests::config::Config;
use reaper_tests::not_run;
use reaper_tests::process::{PATIENCE, Proc, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Call, Op, Open, exec, fork, gate, note, open, wait_in, worker, worker_doing};

/// What pid 1 of a container is.
#[derive(Clone, Copy, Debug)]
enum Init {
    /// The program that docker's `--init` is, where it is installed (Debian: `tini`).
    Tini,
    /// An actor that does the same.
    Actor,
}

impl Init {
    const TINI: &str = "/usr/bin/tini";

    /// Those that there are here.
    fn all() -> Vec<Self> {
        let tini = Path::new(Self::TINI).exists().then_some(Self::Tini);
        if tini.is_none() {
            not_run(&format!("containers below tini: there is no {}", Self::TINI));
        }
        [Self::Actor].into_iter().chain(tini).collect()
    }

    /// A container: pid 1, and below it whoever has this role.
    fn container(self, role: &str, ops: impl Into<Vec<Op>>) -> Vec<Op> {
        let pid_1 = match self {
            Self::Tini => Op::ExecUnder(vec![Self::TINI.into(), "--".into()], role.into(), ops.into()),
            Self::Actor => exec("init", [Op::Init(vec![exec(role, ops)])]),
        };
        vec![Op::NewPidNamespace, fork([pid_1]), Op::Forever]
    }
}

/// The parent of a process, which is a process of the scene.
fn parent(scene: &Scene, who: &Proc) -> Proc {
    Proc::with_token(who.stat().unwrap().ppid, scene.token()).unwrap()
}

/// The pids of a process, from the host's to the one in its innermost pid namespace.
fn pids_of(who: &Proc) -> Vec<i32> {
    let status = fs::read_to_string(format!("/proc/{}/status", who.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap();
    line.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A script between pid 1 and the master starts the next one when the first is gone. Whoever the first leaves behind is pid 1's
/// child then.
#[test]
fn an_entry_script_between_pid_1_and_the_master() {
    for init in Init::all() {
        let scene = Scene::new();
        let agent = Agent::start(&scene, &Config::new(&scene));
        let old = fork([exec("master", [note("old"), worker("w"), Op::Forever])]);
        let new = fork([exec("master", [note("new"), worker("w-new"), Op::Forever])]);
        let entry = [note("entry"), old, gate("restart"), new, Op::Forever];
        scene.spawn("outer", init.container("entry", entry));
        let (entry, old, w) = (scene.proc("entry"), scene.proc("old"), scene.proc("w"));
        let pid_1 = parent(&scene, &entry);
        let pids = pids_of(&w);
        assert!(pids.len() == 2 && pids[0] == w.pid() && pids[1] != pids[0], "{init:?}: {pids:?}");
        assert_eq!(pids_of(&pid_1)[1], 1, "{init:?}");
        agent.knows_master(&old);

        old.kill();
        let orphaned = agent.wait("orphaned", &w);
        assert!(orphaned.names("lost", &old) && !orphaned.flag("stray"), "{init:?}: {orphaned:?}");
        assert_eq!(orphaned.number("/proc/ppid"), u64::try_from(pid_1.pid()).unwrap(), "{init:?}");
        agent.wait_reaped(&w);
        scene.open_gate("restart");
        let (new, w_new) = (scene.proc("new"), scene.proc("w-new"));
        agent.knows_master(&new);
        for other in [&pid_1, &entry, &new, &w_new] {
            agent.assert_unharmed(150, other);
        }
        agent.assert_signalled(&[&w]);
        agent.stop();
    }
}

/// The master is all that pid 1 waits for: it goes when the master does, and the kernel kills everybody else. (tini's own command
/// line ends like the master's, which is why the group names the executable.)
#[test]
fn the_container_ends_with_its_master() {
    for init in Init::all() {
        let scene = Scene::new();
        let agent = Agent::start(&scene, &Config::new(&scene).master_exe("**/actor").quiet("2s"));
        let master = [note("master"), worker("w1"), worker("w2"), Op::Forever];
        scene.spawn("outer", init.container("master", master));
        let master = scene.proc("master");
        let workers = ["w1", "w2"].map(|name| scene.proc(name));
        let pid_1 = parent(&scene, &master);
        agent.knows_master(&master);
        master.kill();
        agent.wait("master_lost", &master);
        for w in &workers {
            assert!(w.wait_gone(PATIENCE), "{init:?}");
        }
        assert!(pid_1.wait_gone(PATIENCE), "{init:?}");
        // What happens now is in the log after everything that was about them.
        next_master(&scene, &agent);
        let records = agent.stop();
        assert_eq!(records.iter().find(|r| r.kind() == "signal" || r.kind() == "reaped"), None, "{init:?}");
        for w in &workers {
            let count = |kind| records.iter().filter(|r| r.is(kind, w)).count();
            assert_eq!(count("left"), count("orphaned"), "{init:?}: {records:#?}");
        }
    }
}

/// Pid 1 dies, and the kernel kills everybody: there is no orphan, and the record of the master's death says why.
#[test]
fn pid_1_of_the_container_dies() {
    for init in Init::all() {
        let scene = Scene::new();
        let agent = Agent::start(&scene, &Config::new(&scene));
        let master = fork([exec("master", [note("master"), worker("w1"), worker("w2"), Op::Forever])]);
        scene.spawn("outer", init.container("entry", [note("entry"), master, Op::Forever]));
        let (master, w) = (scene.proc("master"), scene.proc("w1"));
        scene.entry("w2");
        let pid_1 = parent(&scene, &scene.proc("entry"));
        agent.knows_master(&master);
        pid_1.kill();
        assert!(master.wait_gone(PATIENCE) && w.wait_gone(PATIENCE), "{init:?}");
        let lost = agent.wait("master_lost", &master);
        assert_eq!(lost.text("signal"), "KILL", "{init:?}: {lost:?}");
        assert_eq!(lost.number("workers"), 0, "{init:?}: {lost:?}");
        assert!(lost.flag("namespace_died"), "{init:?}: {lost:?}");
        next_master(&scene, &agent);
        let records = agent.stop();
        let wrong = records.iter().find(|r| matches!(r.kind(), "orphaned" | "signal" | "spared"));
        assert_eq!(wrong, None, "{init:?}");
    }
}

/// A master that is pid 1 itself.
#[test]
fn the_master_is_pid_1() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene));
    let master = fork([exec("master", [note("master"), worker("w"), Op::Forever])]);
    scene.spawn("outer", [Op::NewPidNamespace, master, Op::Forever]);
    let (master, w) = (scene.proc("master"), scene.proc("w"));
    agent.knows_master(&master);
    master.kill();
    assert!(w.wait_gone(PATIENCE));
    let lost = agent.wait("master_lost", &master);
    assert!(lost.flag("namespace_died") && lost.number("workers") == 0, "{lost:?}");
    next_master(&scene, &agent);
    let records = agent.stop();
    assert_eq!(records.iter().find(|r| matches!(r.kind(), "orphaned" | "signal" | "spared")), None);
}

/// Starts a master and waits until the agent knows it: it has taken in all that was before.
fn next_master(scene: &Scene, agent: &Agent) {
    let last = scene.spawn("master", [Op::Forever]);
    agent.knows_master(&last);
    agent.assert_never(150, "a signal", is_shot);
}

/// Everything at once, without root: user, pid, network and mount namespaces. The queue is an address that only this network has,
/// the executable a path that only these mounts have, and the user is root inside and nobody outside.
#[test]
fn a_rootless_container_with_a_network_and_mounts_of_its_own() {
    let scene = Scene::new();
    let exe = scene.path("inside/actor").display().to_string();
    let config = Config::new(&scene).source().master_exe(&exe).idle("queue = [\"tcp/127.0.0.1:6379\"]");
    let agent = Agent::start(&scene, &config);
    let listens = |name: &str, at: &str| open(name, Open::Listener(at.into()));
    let connects = |to: &str| open("c", Open::Connection(to.into()));
    let waits = wait_in(Call::Poll, &["c"]);
    let idle = worker_doing("idle", [connects("127.0.0.1:6379"), note("idle-waits"), waits.clone()]);
    let busy = worker_doing("busy", [connects("127.0.0.1:7777"), note("busy-waits"), waits]);
    let master = fork([exec("master", [note("master"), idle, busy, Op::Forever])]);
    let pid_1 = exec(
        "init",
        [note("init"), listens("q", "127.0.0.1:6379"), listens("o", "127.0.0.1:7777"), master, Op::Forever],
    );
    let outer = [
        Op::User("nobody".into()),
        Op::OwnUsers,
        Op::OwnNetwork,
        Op::OwnMounts("inside".into()),
        Op::NewPidNamespace,
        fork([pid_1]),
        Op::Forever,
    ];
    scene.spawn("outer", outer);
    let (master, idle, busy) = (scene.proc("master"), scene.proc("idle"), scene.proc("busy"));
    scene.entry("idle-waits");
    scene.entry("busy-waits");
    let found = agent.wait("master_found", &master);
    assert_eq!(found.number("/proc/uid"), 65534, "{found:?}");
    assert_eq!(found.text("/proc/exe"), exe, "{found:?}");
    for kind in ["user", "pid", "net", "mnt"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(of(&idle.pid().to_string()), of("self"), "{kind}");
    }

    master.kill();
    let signal = agent.wait("signal", &idle);
    assert_eq!(signal.text("/evidence/verdict"), "idle", "{signal:?}");
    assert!(signal.flag("verified"), "{signal:?}");
    assert!(signal.text("/evidence/because").contains("its queue tcp/127.0.0.1:6379"), "{signal:?}");
    assert_eq!(signal.text("/proc/exe"), exe, "{signal:?}");
    agent.wait_reaped(&idle);
    let stays = agent.wait("busy", &busy);
    assert!(stays.text("/evidence/because").contains("tcp/127.0.0.1:7777"), "{stays:?}");
    agent.assert_unharmed(300, &busy);
    agent.assert_signalled(&[&idle]);
    agent.stop();
}

/// In cgroups named as container runtimes name them: every record tells the container and the pod.
fn told_in_records(kind: &str, options: impl Fn(&Scene) -> Option<String>, path: &str, pod: Option<&str>) {
    let scene = Scene::new();
    let id = "5f".repeat(32);
    let agent = Agent::start(&scene, &Config::new(&scene));
    let mut cgroups = Cgroups::mount(kind, options(&scene).as_deref()).unwrap();
    let program = [note("start"), gate("go"), exec("master", [worker("w"), Op::Forever])];
    let start = scene.spawn("start", program);
    scene.entry("start");
    // The token makes it a cgroup of this test's own.
    cgroups.put(&start, &format!("{}/{}", scene.token(), path.replace("ID", &id)));
    scene.open_gate("go");
    let w = scene.proc("w");
    agent.knows_master(&start);
    start.kill();
    let orphaned = agent.wait("orphaned", &w);
    assert_eq!(orphaned.text("/proc/container"), id, "{orphaned:?}");
    assert_eq!(orphaned.get("/proc/pod").and_then(|v| v.as_str()), pod, "{orphaned:?}");
    agent.wait_reaped(&w);
    let signal = agent.wait("signal", &w);
    assert_eq!(signal.text("/proc/container"), id, "{signal:?}");

    let plain = scene.spawn("master", [Op::Forever]);
    let found = agent.wait("master_found", &plain);
    assert!(found.get("/proc/container").is_none() && found.get("/proc/pod").is_none(), "{found:?}");
    agent.stop();
    scene.end();
    drop(cgroups);
}

#[test]
fn the_container_and_pod_of_a_cgroup_v2() {
    let uid = "8e7c1e7f-2c5b-4f0a-9d1e-0a1b2c3d4e5f";
    let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
    let path = format!("kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-ID.scope");
    told_in_records("cgroup2", |_| None, &path, Some(uid));
}

#[test]
fn the_container_of_a_cgroup_v1() {
    told_in_records("cgroup", |scene| Some(format!("none,name={}", scene.token())), "docker/ID", None);
}

/// The agent in a container of its own with the host's pids (`--pid=host`, `hostPID: true`): other mounts, another network, another
/// host name, other cgroups. (In any other pid namespace it refuses: see `bad_input.rs`.)
#[test]
fn the_agent_in_a_container_with_the_hosts_pids() {
    let scene = Scene::new();
    let queue = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = queue.local_addr().unwrap();
    let config = Config::new(&scene).source().idle(&format!("queue = [\"tcp/{at}\"]"));
    let mut command = run_command(&scene, &config, &[]);
    let contain = || {
        let all = [
            CloneFlags::CLONE_NEWNS,
            CloneFlags::CLONE_NEWNET,
            CloneFlags::CLONE_NEWIPC,
            CloneFlags::CLONE_NEWUTS,
            CloneFlags::CLONE_NEWCGROUP,
        ];
        Ok(unshare(all.into_iter().collect())?)
    };
    // SAFETY: between fork and exec: one system call.
    unsafe { command.pre_exec(contain) };
    let agent = Agent::launch(&scene, &config, command);
    let waits = [open("q", Open::Connection(at.to_string())), note("waits"), wait_in(Call::Read, &["q"])];
    let master = scene.spawn("master", [worker_doing("w", waits), Op::Forever]);
    let w = scene.proc("w");
    scene.entry("waits");
    agent.knows_master(&master);
    master.kill();
    let signal = agent.wait("signal", &w);
    assert!(signal.text("/evidence/because").contains(&format!("its queue tcp/{at}")), "{signal:?}");
    assert!(signal.flag("verified"), "{signal:?}");
    agent.wait_reaped(&w);
    wait_until("the socket", || config.socket.exists());
    agent.stop();
}
