//! What the agent has given up: read from outside for each of its threads, and tried from inside.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a broken assumption is a failure")]

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown, fchown};
use std::path::PathBuf;
use std::sync::Arc;

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Uid, chroot, execv, fork as fork_process, setuid};
use reaper::confine::{KEPT, confine, drop_capabilities};
use reaper::core::ids::ProcKey;
use reaper::core::rules::Signal;
use reaper::freeze::freeze;
use reaper::kernel::{DEFAULT_RING_BYTES, Observer, Probes};
use reaper::signal::Held;
use reaper_tests::agent::Agent;
use reaper_tests::config::Config;
use reaper_tests::process::{Proc, TICK_NS, signals_by_number, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Call, Op, Open, exec, note, open, wait_in, worker_doing};

const NOBODY: u32 = 65534;

/// `/proc/PID/task/TID/status` of every thread.
fn threads(of: &Proc) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", of.pid())).unwrap();
    // A thread that has just ended has none.
    let texts = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok());
    let pair = |line: &str| line.split_once(':').map(|(k, v)| (k.to_owned(), v.trim().to_owned()));
    texts.map(|text| text.lines().filter_map(pair).collect()).collect()
}

#[track_caller]
fn assert_confined(agent: &Proc) -> usize {
    let kept = KEPT.iter().fold(0_u64, |set, (cap, _)| set | 1 << cap.index());
    let threads = threads(agent);
    for status in &threads {
        let set = |name: &str| u64::from_str_radix(&status[name], 16).unwrap();
        assert_eq!(set("CapEff"), kept, "{status:?}");
        assert_eq!(set("CapPrm"), kept, "{status:?}");
        assert_eq!(set("CapBnd"), kept, "{status:?}");
        assert_eq!((set("CapInh"), set("CapAmb")), (0, 0), "{status:?}");
        assert_eq!((&*status["NoNewPrivs"], &*status["Seccomp"]), ("1", "2"), "{status:?}");
    }
    threads.len()
}

/// While it looks at orphans, holds one still with a thread of its own, has loaded the observer, and has read its configuration
/// again: nothing of all that needs more.
#[test]
fn every_thread_is_confined_and_the_agent_works() {
    let scene = Scene::new();
    let queue = TcpListener::bind("127.0.0.1:0").unwrap();
    let config =
        Config::new(&scene).source().idle(&format!("queue = [\"tcp/{}\"]", queue.local_addr().unwrap()));
    let agent = Agent::start(&scene, &config);
    assert_eq!(assert_confined(agent.process()), 1);
    agent.reload();
    let loaded = |records: Vec<_>| {
        records.iter().filter(|r: &&reaper_tests::log::Record| r.kind() == "config_loaded").count()
    };
    wait_until("the reload", || loaded(agent.records()) == 2);
    let waits = [
        open("q", Open::Connection(queue.local_addr().unwrap().to_string())),
        note("waits"),
        wait_in(Call::Read, &["q"]),
    ];
    // Of another user, so that it takes the capabilities.
    let master = exec("master", [worker_doing("w", waits), note("up"), Op::Forever]);
    let master = scene.spawn("start", [Op::User("nobody".into()), master]);
    let w = scene.proc("w");
    scene.entry("waits");
    agent.knows_master(&master);
    master.kill();
    while w.is_alive() {
        assert_confined(agent.process());
    }
    let signal = agent.wait("signal", &w);
    assert!(signal.flag("verified"), "{signal:?}");
    agent.wait_reaped(&w);
    assert_confined(agent.process());
    let said = agent.stderr();
    assert!(!said.contains("denied") && !said.contains("not permitted"), "{said}");
    agent.stop();
}

/// Runs this in a forked child. What it panics with is on stderr.
#[track_caller]
fn in_a_child(act: impl FnOnce()) {
    // SAFETY: the child has one thread; glibc's malloc and stdio are usable in it.
    match unsafe { fork_process() }.unwrap() {
        ForkResult::Child => {
            // The harness keeps what is printed by macros, and what it keeps here dies with the child.
            std::panic::set_hook(Box::new(|panic| drop(writeln!(std::io::stderr(), "in a child: {panic}"))));
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            // SAFETY: ends the child without running what belongs to its parent.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
        ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
    }
}

#[test]
fn what_is_given_up_is_gone() {
    in_a_child(|| {
        confine().unwrap();
        assert_eq!(execv(c"/bin/true", &[c"true"]), Err(Errno::EPERM));
        // SAFETY: there is no child.
        assert_eq!(unsafe { fork_process() }.err(), Some(Errno::EPERM));
        assert_eq!(signals_by_number(), [Err(Errno::EPERM); 2]);
        let none = None::<&str>;
        assert_eq!(mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), none), Err(Errno::EPERM));
        assert_eq!(unshare(CloneFlags::CLONE_NEWNS), Err(Errno::EPERM));
        assert_eq!(setuid(Uid::from_raw(NOBODY)), Err(Errno::EPERM));
        // A request that is none of holding still and looking.
        // SAFETY: the request takes no address; it would make this process traced by its parent.
        let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        assert_eq!((traced, Errno::last()), (-1, Errno::EPERM));
        // SAFETY: without arguments these calls can but fail.
        let fails = |number| (unsafe { libc::syscall(number, 0, 0, 0) }, Errno::last());
        for number in [
            libc::SYS_io_uring_setup,
            libc::SYS_perf_event_open,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_setns,
        ] {
            assert_eq!(fails(number), (-1, Errno::EPERM), "{number}");
        }
        // There is something older in their place.
        for number in [libc::SYS_clone3, libc::SYS_mount_setattr, 511] {
            assert_eq!(fails(number), (-1, Errno::ENOSYS), "{number}");
        }
        // What is kept works.
        assert_eq!(std::thread::spawn(|| 1).join().unwrap(), 1);
        assert!(fs::read_to_string("/proc/self/status").unwrap().contains("Seccomp:\t2"));
        assert!(TcpListener::bind("127.0.0.1:0").is_ok());
    });
}

/// Every capability but the kept ones is in no set of the kernel's any more and cannot be taken back; and what most of them are for
/// could be done before and cannot be done after, without any filter of system calls.
#[test]
fn each_capability_that_is_given_up_is_gone() {
    let scene = Scene::new();
    let others = scene.path("others");
    fs::write(&others, "").unwrap();
    fs::set_permissions(&others, Permissions::from_mode(0o600)).unwrap();
    chown(&others, Some(NOBODY), Some(NOBODY)).unwrap();
    let held = caps::read(None, CapSet::Effective).unwrap();
    in_a_child(|| {
        let room = Room { dir: scene.path(""), others };
        let given_up = || caps::all().into_iter().filter(|cap| KEPT.iter().all(|(kept, _)| kept != cap));
        let tried: Vec<_> = given_up().filter(|cap| held.contains(cap) && room.act(*cap).is_some()).collect();
        for &cap in &tried {
            assert_eq!(room.act(cap), Some(Ok(())), "with {cap}");
        }
        drop_capabilities().unwrap();
        for cap in given_up() {
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
                assert!(!caps::has_cap(None, set, cap).unwrap(), "{cap} in {set:?}");
                assert!(caps::raise(None, set, cap).is_err(), "{cap} in {set:?} again");
            }
            // Not every kernel knows all of them.
            assert!(!caps::has_cap(None, CapSet::Bounding, cap).unwrap_or(false), "{cap}");
        }
        for cap in tried {
            let refused = matches!(room.act(cap), Some(Err(Errno::EPERM | Errno::EACCES)));
            assert!(refused, "without {cap}: {:?}", room.act(cap));
        }
    });
}

/// Where capabilities are tried.
struct Room {
    dir: PathBuf,
    /// A file of another user.
    others: PathBuf,
}

impl Room {
    /// Does something that takes this capability and that harms nobody, in a thread of its own: whatever it changes about its
    /// thread ends with it. `None` if there is no such thing here.
    fn act(&self, cap: Capability) -> Option<Result<(), Errno>> {
        let own = self.dir.join("own");
        let call = |number: libc::c_long, [a, b, c]: [libc::c_long; 3]| {
            // SAFETY: the calls below take numbers, no pointers.
            let made = move || Errno::result(unsafe { libc::syscall(number, a, b, c) }).map(drop);
            std::thread::spawn(made).join().unwrap()
        };
        let errno = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or_default());
        let nobody = libc::c_long::from(NOBODY);
        Some(match cap {
            Capability::CAP_CHOWN => {
                let _ = fs::remove_file(&own);
                let file = File::create(&own).unwrap();
                fchown(file, Some(NOBODY), None).map_err(errno)
            }
            Capability::CAP_DAC_OVERRIDE => {
                File::options().append(true).open(&self.others).map(drop).map_err(errno)
            }
            Capability::CAP_FOWNER => {
                fs::set_permissions(&self.others, Permissions::from_mode(0o600)).map_err(errno)
            }
            Capability::CAP_SETUID => call(libc::SYS_setresuid, [nobody; 3]),
            Capability::CAP_SETGID => call(libc::SYS_setresgid, [nobody; 3]),
            Capability::CAP_SETPCAP => call(libc::SYS_prctl, [libc::PR_CAPBSET_DROP.into(), 0, 0]),
            Capability::CAP_SYS_CHROOT => chroot("/"),
            Capability::CAP_SYS_ADMIN => call(libc::SYS_unshare, [libc::CLONE_NEWUTS.into(), 0, 0]),
            Capability::CAP_SYS_NICE => call(libc::SYS_setpriority, [libc::PRIO_PROCESS.into(), 0, -1]),
            Capability::CAP_SYSLOG => {
                /// How much of the kernel's log is unread.
                const SIZE_UNREAD: libc::c_long = 9;
                call(libc::SYS_syslog, [SIZE_UNREAD, 0, 0])
            }
            Capability::CAP_WAKE_ALARM => {
                call(libc::SYS_timerfd_create, [libc::CLOCK_BOOTTIME_ALARM.into(), 0, 0])
            }
            Capability::CAP_NET_RAW => {
                let raw = [libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP];
                call(libc::SYS_socket, raw.map(Into::into))
            }
            Capability::CAP_NET_BIND_SERVICE => {
                let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok()?;
                let first: u16 = first.trim().parse().ok()?;
                TcpListener::bind(("127.0.0.1", first.checked_sub(1).filter(|port| *port > 0)?))
                    .map(drop)
                    .map_err(errno)
            }
            _ => return None,
        })
    }
}

/// Not one too many is kept: without each of them the agent could not do what it is kept for.
#[test]
fn each_capability_that_is_kept_is_needed() {
    let scene = Scene::new();
    scene.spawn("start", [Op::User("nobody".into()), exec("victim", [note("victim"), Op::Forever])]);
    let victim = scene.proc("victim");
    victim.wait_state('S');
    let key = ProcKey { tgid: victim.pid().cast_unsigned(), start_ns: victim.start_ticks() * TICK_NS };
    in_a_child(|| {
        let observer = Probes::load(DEFAULT_RING_BYTES).unwrap().observer().unwrap();
        let kept: caps::CapsHashSet = KEPT.iter().map(|(cap, _)| *cap).collect();
        caps::set(None, CapSet::Effective, &kept).unwrap();
        caps::set(None, CapSet::Permitted, &kept).unwrap();
        let mut tries = Tries { key, observer };
        for (needed, _) in KEPT {
            assert!(tries.with(needed), "with all of them: {needed}");
            caps::drop(None, CapSet::Effective, needed).unwrap();
            assert!(!tries.with(needed), "without {needed}");
            caps::raise(None, CapSet::Effective, needed).unwrap();
        }
    });
    assert!(victim.is_alive());
}

struct Tries {
    key: ProcKey,
    observer: Observer,
}

impl Tries {
    /// Does what a capability is kept for.
    fn with(&mut self, cap: Capability) -> bool {
        let held = || Arc::new(Held::open(self.key).unwrap());
        match cap {
            // A signal that is ignored, and unlike CONT none that everybody in its session may send.
            Capability::CAP_KILL => held().send(Signal(libc::SIGURG)).is_ok(),
            Capability::CAP_SYS_PTRACE => freeze(held()).is_ok(),
            Capability::CAP_DAC_READ_SEARCH => fs::read_dir(format!("/proc/{}/fd", self.key.tgid)).is_ok(),
            Capability::CAP_BPF | Capability::CAP_PERFMON => {
                let outcome = self.observer.watch(self.key);
                self.observer.unwatch(self.key);
                outcome.is_ok()
            }
            other => panic!("nobody has said what {other} is for"),
        }
    }
}
