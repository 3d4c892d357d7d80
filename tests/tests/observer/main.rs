//! The observer against the running kernel: what is counted of whom, whether an alarm runs, and that nothing stays loaded.
//!
//! Needs root and `REAPER_BPF_TOOLCHAIN`. The test watches itself, or children that it forks.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use reaper::core::ids::ProcKey;
use reaper::core::sample::{File, FileKind, Sample, Source, Traffic, Wants};
use reaper::kernel::{DEFAULT_RING_BYTES, Observer, Probes, Teller};

mod calls;

use calls::{Ends, RECEIVES, SENDS};

/// How long the kernel may take to let go of a program that nobody holds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The observer, and what tells who is who.
struct Scene {
    probes: Probes,
    observer: Observer,
}

impl Scene {
    fn open() -> Self {
        let mut probes = Probes::load(DEFAULT_RING_BYTES).unwrap_or_else(|error| panic!("{error}"));
        let observer = probes.observer().unwrap();
        Self { probes, observer }
    }

    /// One for each way in which this kernel tells of traffic.
    fn each() -> impl Iterator<Item = Self> {
        let tellers = Self::open().observer.tellers().to_vec();
        assert!(tellers.contains(&Teller::Calls), "{tellers:?}");
        tellers.into_iter().map(|teller| {
            println!("{teller:?}");
            let mut scene = Self::open();
            scene.observer.prefer(teller);
            scene
        })
    }

    fn key(&mut self, pid: u32) -> ProcKey {
        self.probes.tasks().unwrap().iter().find(|task| task.key.tgid == pid).unwrap().key
    }

    /// The test's own process, watched in each of the ways.
    fn each_watching_itself() -> impl Iterator<Item = (Self, ProcKey)> {
        Self::each().map(|mut scene| {
            let key = scene.key(std::process::id());
            scene.observer.watch(key).unwrap();
            (scene, key)
        })
    }

    /// A look at these sockets of the process.
    fn look(&mut self, key: ProcKey, sockets: &[RawFd]) -> Sample {
        let files = sockets.iter().map(|&fd| file(fd)).collect();
        let source = Source { files, ..Source::default() };
        let mut sample = Sample { source: Some(source), ..Sample::default() };
        self.observer.complete(key, &mut sample, Wants { traffic: true, alarm: true });
        sample
    }

    /// What the process did on one socket.
    fn traffic(&mut self, key: ProcKey, socket: RawFd) -> Traffic {
        self.look(key, &[socket]).source.unwrap().files[0].traffic.unwrap()
    }

    fn alarm(&mut self, key: ProcKey) -> Option<bool> {
        self.look(key, &[]).source.unwrap().alarm
    }
}

/// A descriptor of this process as a look shows it.
fn file(fd: RawFd) -> File {
    let link = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    let link = link.to_str().unwrap();
    let inode = link.strip_prefix("socket:[").unwrap().strip_suffix(']').unwrap().parse().unwrap();
    let what = FileKind::Pair { peer: 0 };
    File { fd, what, inode, readable: None, holders: None, traffic: None }
}

/// Ids of the observer's programs.
fn programs() -> Vec<u32> {
    let all = aya::programs::loaded_programs().filter_map(Result::ok);
    all.filter(|program| program.name_as_str().is_some_and(|name| name.starts_with("observe_")))
        .map(|program| program.id())
        .collect()
}

/// Runs `body` in a forked child, which ends with its answer as exit code. The body may only use system calls.
fn fork(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child makes system calls only, and never returns.
    match unsafe { libc::fork() } {
        0 => {
            let code = body();
            // SAFETY: no precondition.
            unsafe { libc::_exit(code) }
        }
        child => {
            assert!(child > 0, "fork");
            child
        }
    }
}

fn wait(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

fn now() -> u64 {
    reaper::clock::now()
}

#[test]
fn every_call_counts_once() {
    for (mut scene, key) in Scene::each_watching_itself() {
        let mut room = [0; 64];
        for ends in Ends::of_each_kind() {
            let name = ends.name;
            let (mut sends, mut sent) = (0, 0);
            assert_eq!(scene.traffic(key, ends.near), Traffic::default());
            for (round, (by, through)) in SENDS.into_iter().zip(RECEIVES).enumerate() {
                let what = format!("{name}: {by} to {through}");
                let bytes = &b"0123456789"[..=round];
                let before = now();
                assert_eq!(calls::send(by, ends.near, bytes), bytes.len().cast_signed(), "{what}");
                let between = now();
                assert_eq!(calls::receive(through, ends.far, &mut room), bytes.len().cast_signed(), "{what}");
                (sends, sent) = (sends + 1, sent + bytes.len() as u64);
                let (near, far) = (scene.traffic(key, ends.near), scene.traffic(key, ends.far));
                assert_eq!(
                    (near.sends, near.sent, near.receives, near.received),
                    (sends, sent, 0, 0),
                    "{what}"
                );
                assert_eq!((far.sends, far.sent, far.receives, far.received), (0, 0, sends, sent), "{what}");
                let (near, far) = (near.last.unwrap(), far.last.unwrap());
                assert_eq!((near.sent, near.bytes), (true, bytes.len() as u64), "{what}");
                assert_eq!((far.sent, far.bytes), (false, bytes.len() as u64), "{what}");
                assert!(before <= near.at && near.at <= between, "{what}");
                assert!(between <= far.at && far.at <= now(), "{what}");
            }
        }
    }
}

#[test]
fn what_moves_nothing_does_not_count() {
    for (mut scene, key) in Scene::each_watching_itself() {
        let mut room = [0_u8; 64];
        let (mut near, far) = UnixStream::pair().unwrap();
        let fd = far.as_raw_fd();
        // SAFETY: `room` outlives the call.
        let mut recv = |flags| unsafe { libc::recv(fd, room.as_mut_ptr().cast(), room.len(), flags) };
        assert_eq!(recv(libc::MSG_DONTWAIT), -1);
        near.write_all(b"abc").unwrap();
        assert_eq!(recv(libc::MSG_PEEK), 3);
        assert_eq!(recv(libc::MSG_PEEK | libc::MSG_DONTWAIT), 3);
        let traffic = scene.traffic(key, fd);
        assert_eq!(traffic, Traffic::default());
        assert_eq!(recv(0), 3);
        drop(near);
        // The end of the stream.
        assert_eq!(recv(0), 0);
        let traffic = scene.traffic(key, fd);
        assert_eq!((traffic.receives, traffic.received), (1, 3));
    }
}

#[test]
fn both_directions_and_the_last_of_them() {
    for (mut scene, key) in Scene::each_watching_itself() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let mut room = [0; 8];
        near.write_all(b"ping").unwrap();
        far.read_exact(&mut room[..4]).unwrap();
        far.write_all(b"pong!").unwrap();
        near.read_exact(&mut room[..5]).unwrap();
        let traffic = scene.traffic(key, near.as_raw_fd());
        assert_eq!((traffic.sends, traffic.sent, traffic.receives, traffic.received), (1, 4, 1, 5));
        assert!(!traffic.last.unwrap().sent);
        let traffic = scene.traffic(key, far.as_raw_fd());
        assert_eq!((traffic.sends, traffic.sent, traffic.receives, traffic.received), (1, 5, 1, 4));
        assert!(traffic.last.unwrap().sent);
    }
}

#[test]
fn a_file_sent_counts_and_a_splice_out_of_a_socket_does_not() {
    for (mut scene, key) in Scene::each_watching_itself() {
        let (near, far) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(b"content").unwrap();
        let mut at = 0;
        // SAFETY: `at` outlives the call.
        let sent = unsafe { libc::sendfile(near.as_raw_fd(), file.as_raw_fd(), &raw mut at, 7) };
        assert_eq!(sent, 7);
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let none = std::ptr::null_mut();
        // SAFETY: no pointer is passed.
        let moved = unsafe { libc::splice(far.as_raw_fd(), none, writer.as_raw_fd(), none, 7, 0) };
        assert_eq!(moved, 7);
        drop(reader);
        let (near, far) = (scene.traffic(key, near.as_raw_fd()), scene.traffic(key, far.as_raw_fd()));
        println!("sendfile: {near:?}\nsplice: {far:?}");
        assert_eq!((near.sends, near.sent), (1, 7));
        assert_eq!(far, Traffic::default());
    }
}

#[test]
fn only_the_watched_process_counts() {
    for (mut scene, key) in Scene::each_watching_itself() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let fd = near.as_raw_fd();
        // The same socket, in a child.
        let child = fork(|| {
            // SAFETY: the pointer is to a constant.
            i32::from(unsafe { libc::send(fd, b"child".as_ptr().cast(), 5, 0) } != 5)
        });
        assert_eq!(wait(child), 0);
        far.read_exact(&mut [0; 5]).unwrap();
        let traffic = scene.traffic(key, fd);
        assert_eq!(traffic, Traffic::default());
        assert_eq!(scene.traffic(key, far.as_raw_fd()).received, 5);
        // Who is not watched is not told about.
        let stranger = scene.key(nix::unistd::getppid().as_raw().cast_unsigned());
        let sample = scene.look(stranger, &[fd]);
        let source = sample.source.unwrap();
        assert_eq!((source.files[0].traffic, source.alarm), (None, None));
    }
}

#[test]
fn a_recycled_pid_does_not_count() {
    let mut scene = Scene::open();
    let own = scene.key(std::process::id());
    let before = ProcKey { start_ns: own.start_ns - 1, ..own };
    scene.observer.watch(before).unwrap();
    let (mut near, _far) = UnixStream::pair().unwrap();
    near.write_all(b"abc").unwrap();
    assert_eq!(scene.alarm(before), None, "that process is gone");
    let traffic = scene.traffic(before, near.as_raw_fd());
    assert_eq!(traffic, Traffic::default());
    // Now the new one is watched too, and letting go of the old one does not end that.
    scene.observer.watch(own).unwrap();
    near.write_all(b"abc").unwrap();
    scene.observer.unwatch(before);
    near.write_all(b"abc").unwrap();
    assert_eq!(scene.alarm(own), Some(false));
    let traffic = scene.traffic(own, near.as_raw_fd());
    assert_eq!((traffic.sends, traffic.sent), (2, 6));
}

#[test]
fn a_watch_starts_from_zero() {
    for (mut scene, key) in Scene::each_watching_itself() {
        // Somebody else is watched all the time, so the programs stay.
        let other = scene.key(nix::unistd::getppid().as_raw().cast_unsigned());
        scene.observer.watch(other).unwrap();
        let (mut near, _far) = UnixStream::pair().unwrap();
        for _ in 0..5 {
            near.write_all(b"abc").unwrap();
            let traffic = scene.traffic(key, near.as_raw_fd());
            assert_eq!((traffic.sends, traffic.sent), (1, 3));
            scene.observer.unwatch(key);
            near.write_all(b"abc").unwrap();
            scene.observer.watch(key).unwrap();
            let traffic = scene.traffic(key, near.as_raw_fd());
            assert_eq!(traffic, Traffic::default());
        }
    }
}

#[test]
fn threads_on_every_cpu_add_up() {
    const ROUNDS: u64 = 2_000;
    for (mut scene, key) in Scene::each_watching_itself() {
        let (near, far) = UnixDatagram::pair().unwrap();
        let fd = near.as_raw_fd();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        near.send(b"x").unwrap();
                    }
                });
            }
            scope.spawn(|| (0..4 * ROUNDS).for_each(|_| _ = far.recv(&mut [0; 4]).unwrap()));
        });
        let files = scene.look(key, &[fd, far.as_raw_fd()]).source.unwrap().files;
        // A kernel that lets a program be preempted leaves out another thread's run of it meanwhile; that is noticed.
        if let (Some(near), Some(far)) = (files[0].traffic, files[1].traffic) {
            assert_eq!((near.sends, near.sent), (4 * ROUNDS, 4 * ROUNDS));
            assert_eq!((far.receives, far.received), (4 * ROUNDS, 4 * ROUNDS));
        } else {
            println!("runs were left out");
            assert_eq!((files[0].traffic, files[1].traffic), (None, None));
        }
        near.send(b"x").unwrap();
        assert!(scene.traffic(key, fd).sends % (4 * ROUNDS) == 1, "it goes on, or begins anew");
    }
}

#[test]
fn too_many_sockets_are_unknown_once_and_counted_again() {
    for (mut scene, key) in Scene::each_watching_itself() {
        let (mut first, _far) = UnixStream::pair().unwrap();
        first.write_all(b"abc").unwrap();
        for _ in 0..1100 {
            let (mut near, _far) = UnixStream::pair().unwrap();
            near.write_all(b"abc").unwrap();
        }
        let (mut last, _far) = UnixStream::pair().unwrap();
        last.write_all(b"abc").unwrap();
        let both = [first.as_raw_fd(), last.as_raw_fd()];
        let look = scene.look(key, &both);
        assert!(look.source.unwrap().files.iter().all(|file| file.traffic.is_none()));
        assert_eq!(scene.traffic(key, both[0]), Traffic::default());
        last.write_all(b"abc").unwrap();
        assert_eq!(scene.traffic(key, both[1]).sends, 1);
    }
}

/// A child that runs `steps`, one for each byte that it is sent, and answers each with a byte.
struct Stepper {
    child: i32,
    line: UnixStream,
}

impl Stepper {
    fn start(steps: &[fn()]) -> Self {
        let (line, far) = UnixStream::pair().unwrap();
        let (near_fd, fd) = (line.as_raw_fd(), far.as_raw_fd());
        let child = fork(|| {
            let mut byte = 0_u8;
            // SAFETY: the pointers are to `byte`.
            unsafe {
                libc::close(near_fd);
                libc::signal(libc::SIGALRM, libc::SIG_IGN);
                for step in steps {
                    if libc::read(fd, (&raw mut byte).cast(), 1) != 1 {
                        return 1;
                    }
                    step();
                    libc::write(fd, (&raw const byte).cast(), 1);
                }
                libc::read(fd, (&raw mut byte).cast(), 1);
            }
            0
        });
        Self { child, line }
    }

    /// When it returns, the next step is done.
    fn step(&mut self) {
        self.line.write_all(b"x").unwrap();
        self.line.read_exact(&mut [0]).unwrap();
    }
}

fn real_timer(first_us: i64, interval_us: i64) {
    let time = |us| libc::timeval { tv_sec: us / 1_000_000, tv_usec: us % 1_000_000 };
    let timer = libc::itimerval { it_value: time(first_us), it_interval: time(interval_us) };
    // SAFETY: `timer` outlives the call.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}

#[test]
fn an_alarm_is_seen_as_long_as_it_runs() {
    let mut scene = Scene::open();
    let steps: [fn(); 5] = [
        // SAFETY: no precondition.
        || _ = unsafe { libc::alarm(60) },
        // SAFETY: no precondition.
        || _ = unsafe { libc::alarm(0) },
        || real_timer(300_000, 0),
        // With an interval: blocked, so that its signal stays pending and the timer is not started again.
        || {
            // SAFETY: the set is initialised by the first call.
            unsafe {
                let mut set = std::mem::zeroed();
                libc::sigemptyset(&raw mut set);
                libc::sigaddset(&raw mut set, libc::SIGALRM);
                libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            }
            real_timer(1_000, 60_000_000);
        },
        || real_timer(0, 0),
    ];
    let mut stepper = Stepper::start(&steps);
    let key = scene.key(stepper.child.cast_unsigned());
    scene.observer.watch(key).unwrap();
    assert_eq!(scene.alarm(key), Some(false));
    stepper.step();
    assert_eq!(scene.alarm(key), Some(true), "after alarm(60)");
    stepper.step();
    assert_eq!(scene.alarm(key), Some(false), "after alarm(0)");
    stepper.step();
    assert_eq!(scene.alarm(key), Some(true), "before it fires");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(scene.alarm(key), Some(false), "after it fired");
    stepper.step();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(scene.alarm(key), Some(true), "after it fired once of many times");
    stepper.step();
    assert_eq!(scene.alarm(key), Some(false), "after it was taken back");
    drop(stepper.line);
    assert_eq!(wait(stepper.child), 0);
    assert_eq!(scene.alarm(key), None, "after its end");
}

#[test]
fn nothing_is_loaded_while_nobody_is_watched() {
    let before = programs();
    let mut scene = Scene::open();
    let with_traffic = if scene.observer.tellers()[0] == Teller::Lengths { 3 } else { 2 };
    let new = programs().into_iter().filter(|id| !before.contains(id)).count();
    assert_eq!(new, 0, "before the first");
    let (own, parent) =
        (scene.key(std::process::id()), scene.key(nix::unistd::getppid().as_raw().cast_unsigned()));
    for _ in 0..3 {
        scene.observer.watch(own).unwrap();
        scene.observer.watch(parent).unwrap();
        let ours: Vec<u32> = programs().into_iter().filter(|id| !before.contains(id)).collect();
        assert_eq!(ours.len(), with_traffic);
        scene.observer.unwatch(own);
        assert!(ours.iter().all(|id| programs().contains(id)), "one is still watched");
        scene.observer.unwatch(parent);
        // The kernel frees them a little later.
        let started = Instant::now();
        while ours.iter().any(|id| programs().contains(id)) {
            assert!(started.elapsed() < PATIENCE, "still loaded");
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("gone after {:?}", started.elapsed());
    }
}
