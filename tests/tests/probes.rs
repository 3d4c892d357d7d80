//! The kernel programs against the running kernel: what happens to processes, and what comes out.
//!
//! Needs root and `REAPER_BPF_TOOLCHAIN`. Each test loads the programs for itself and looks only at its own processes; other
//! programs of the machine are in the stream too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::ffi::{CString, c_int, c_void};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use reaper::core::ids::ProcKey;
use reaper::core::input::{Exec, Exit, Fork, Input, Parent};
use reaper::kernel::{DEFAULT_RING_BYTES, Events, Probes};
use reaper_common::WAKE_INTERVAL_NS;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// How long an event may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Loaded and attached programs, and all that came out of them.
struct Stream {
    runtime: Runtime,
    probes: Probes,
    events: Events,
    seen: Vec<Input>,
    /// Waits that nothing ended within a second: what came afterwards was found by looking.
    unwoken: usize,
}

impl Stream {
    fn open(ring_bytes: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut probes = Probes::load(ring_bytes).unwrap_or_else(|error| panic!("{error}"));
        let events = {
            let _context = runtime.enter();
            probes.events().unwrap()
        };
        probes.attach().unwrap();
        Self { runtime, probes, events, seen: Vec::new(), unwoken: 0 }
    }

    /// The first input that `find` accepts, waiting for it.
    fn until<T>(&mut self, what: &str, find: impl Fn(&Input) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut looked_at = 0;
        loop {
            if let Some(found) = self.seen[looked_at..].iter().find_map(&find) {
                return found;
            }
            looked_at = self.seen.len();
            assert!(Instant::now() < deadline, "no {what} after {looked_at} inputs");
            let events = &mut self.events;
            let woken = async { timeout(Duration::from_secs(1), events.readable()).await };
            match self.runtime.block_on(woken) {
                Ok(ready) => ready.unwrap(),
                Err(_) => self.unwoken += 1,
            }
            let seen = &mut self.seen;
            self.events.drain(|input| seen.push(input));
        }
    }

    fn fork_of(&mut self, child: i32) -> Fork {
        self.until("fork", |input| match input {
            Input::Fork(fork) if fork.child.tgid == child.cast_unsigned() => Some(fork.clone()),
            _ => None,
        })
    }

    /// The birth of a child of `parent`.
    fn fork_by(&mut self, parent: ProcKey) -> Fork {
        self.until("fork by parent", |input| match input {
            Input::Fork(fork) if fork.parent == parent => Some(fork.clone()),
            _ => None,
        })
    }

    fn exec_of(&mut self, key: ProcKey) -> Exec {
        self.until("exec", |input| match input {
            Input::Exec(exec) if exec.key == key => Some(exec.clone()),
            _ => None,
        })
    }

    fn exit_of(&mut self, key: ProcKey) -> Exit {
        self.until("exit", |input| match input {
            Input::Exit(exit) if exit.key == key => Some(exit.clone()),
            _ => None,
        })
    }
}

/// Runs `body` in a forked child, which ends with its answer as exit code. The body may only use what is safe after a fork in
/// a program with threads: system calls.
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

/// Raw wait status of a child.
fn wait(child: i32) -> u32 {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status.cast_unsigned()
}

/// Starts a thread, or with other flags a process, that runs `body` on a stack of its own; for use in a forked child.
fn clone(flags: c_int, body: extern "C" fn(*mut c_void) -> c_int, argument: *mut c_void) -> i32 {
    const STACK: usize = 64 * 1024;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: fresh memory, never given back; the pointer handed over is its end, as stacks grow down.
    unsafe {
        let stack = libc::mmap(
            std::ptr::null_mut(),
            STACK,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        libc::clone(body, stack.byte_add(STACK), flags, argument)
    }
}

const THREAD: c_int =
    libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;

fn sleep_ms(ms: i64) {
    let time = libc::timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
    // SAFETY: `time` outlives the call.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

/// A field of /proc/PID/stat, counted from 1 as in proc(5).
fn stat(pid: u32, field: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_comm = text.rsplit_once(") ")?.1;
    after_comm.split(' ').nth(field - 3)?.trim().parse().ok()
}

/// A pipe whose end is seen when all writers are gone.
fn pipe() -> (fs::File, fs::File) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let file = |fd: OwnedFd| fs::File::from(fd);
    (file(reader), file(writer))
}

fn own_pid() -> u32 {
    std::process::id()
}

#[test]
fn an_exec_from_birth_to_death() {
    let mut stream = Stream::open(DEFAULT_RING_BYTES);
    let mut child = Command::new("/bin/sh").args(["-c", "exit 7", "", "ende"]).spawn().unwrap();
    let fork = stream.fork_of(child.id().cast_signed());
    assert_eq!(fork.parent.tgid, own_pid());
    assert_eq!(fork.parent.start_ns / 10_000_000, stat(own_pid(), 22).unwrap());
    assert!(fork.child.start_ns > fork.parent.start_ns && fork.child.start_ns <= fork.at);
    assert_eq!(u64::from(fork.session), stat(own_pid(), 6).unwrap());
    assert_eq!((fork.uid, fork.kernel_thread), (0, false));

    let exec = stream.exec_of(fork.child);
    assert_eq!(exec.argv.iter().collect::<Vec<_>>(), ["/bin/sh", "-c", "exit 7", "", "ende"]);
    assert_eq!((&*exec.filename, &*exec.comm, exec.truncated), ("/bin/sh", "sh", false));
    assert_eq!(exec.session, fork.session);

    child.wait().unwrap();
    let exit = stream.exit_of(fork.child);
    assert_eq!(exit.status, 7 << 8);
    assert!(fork.at <= exec.at && exec.at <= exit.at);
}

#[test]
fn long_texts_are_cut_and_say_so() {
    let mut stream = Stream::open(DEFAULT_RING_BYTES);
    let long = "x".repeat(3000);
    let mut child = Command::new("/bin/sh").args(["-c", "exit 0", &long]).spawn().unwrap();
    let key = stream.fork_of(child.id().cast_signed()).child;
    let exec = stream.exec_of(key);
    assert!(exec.truncated);
    let bytes: usize = exec.argv.iter().map(str::len).sum::<usize>() + exec.argv.len() - 1;
    assert_eq!(bytes, reaper_common_argv_max());
    child.wait().unwrap();

    // A name of 256 bytes just fits, one of 257 does not.
    for (len, truncated) in [(256, false), (257, true)] {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().to_str().unwrap();
        // Components that lead nowhere else, and a name that fills up the rest.
        let padding = "/.".repeat((len - directory.len() - 10) / 2);
        let name = "t".repeat(len - directory.len() - padding.len() - 1);
        let path = format!("{directory}{padding}/{name}");
        fs::copy("/bin/true", &path).unwrap();
        let mut child = Command::new(&path).spawn().unwrap();
        let key = stream.fork_of(child.id().cast_signed()).child;
        let exec = stream.exec_of(key);
        child.wait().unwrap();
        assert_eq!((path.len(), exec.truncated), (len, truncated), "{path}");
        assert_eq!(&*exec.filename, &path[..256]);
    }
}

/// `reaper_common::ARGV_MAX`, which is part of the wire format and not of the library.
const fn reaper_common_argv_max() -> usize {
    1024
}

extern "C" fn exit_group_4(_: *mut c_void) -> c_int {
    sleep_ms(30);
    // SAFETY: no precondition.
    unsafe { libc::syscall(libc::SYS_exit_group, 4) };
    0
}

extern "C" fn exit_thread_3(_: *mut c_void) -> c_int {
    sleep_ms(60);
    // SAFETY: no precondition.
    unsafe { libc::syscall(libc::SYS_exit, 3) };
    0
}

extern "C" fn sleep_forever(_: *mut c_void) -> c_int {
    sleep_ms(1_000_000);
    0
}

/// The leader alone ends.
fn exit_thread(code: i32) -> i32 {
    // SAFETY: no precondition.
    unsafe { libc::syscall(libc::SYS_exit, code) };
    0
}

/// What a forked child does; its answer is the exit code.
type Body = fn() -> i32;

#[test]
fn the_status_is_what_wait_reports() {
    let mut stream = Stream::open(DEFAULT_RING_BYTES);
    let cases: [(&str, Body); 7] = [
        ("exit", || 3),
        ("abort", || {
            // SAFETY: the default action ends the process.
            unsafe { libc::raise(libc::SIGUSR1) };
            0
        }),
        ("exit_group of another thread", || {
            clone(THREAD, exit_group_4, std::ptr::null_mut());
            sleep_ms(10_000);
            0
        }),
        ("the leader first, then another thread alone", || {
            clone(THREAD, exit_thread_3, std::ptr::null_mut());
            exit_thread(5)
        }),
        ("another thread first, then the leader alone", || {
            clone(THREAD, exit_thread_3, std::ptr::null_mut());
            sleep_ms(120);
            exit_thread(6)
        }),
        ("the leader first, then exit_group of another thread", || {
            clone(THREAD, exit_group_4, std::ptr::null_mut());
            exit_thread(5)
        }),
        ("an exit with other threads asleep", || {
            clone(THREAD, sleep_forever, std::ptr::null_mut());
            clone(THREAD, sleep_forever, std::ptr::null_mut());
            sleep_ms(10);
            8
        }),
    ];
    for (name, body) in cases {
        let child = fork(body);
        let status = wait(child);
        let key = stream.fork_of(child).child;
        let exit = stream.exit_of(key);
        println!("{name}: {status:#x}");
        assert_eq!(exit.status, status, "{name}");
        // It comes when the last thread dies, and once.
        let exits = stream.seen.iter().filter(|input| matches!(input, Input::Exit(exit) if exit.key == key));
        assert_eq!(exits.count(), 1, "{name}");
    }

    let child = fork(|| {
        clone(THREAD, sleep_forever, std::ptr::null_mut());
        sleep_forever(std::ptr::null_mut())
    });
    sleep_ms(20);
    // The child is ours and not waited for, so the pid is still its own.
    Command::new("kill").args(["-KILL", &child.to_string()]).status().unwrap();
    let status = wait(child);
    let key = stream.fork_of(child).child;
    assert_eq!((stream.exit_of(key).status, status), (9, 9));

    assert!(!stream.seen.iter().any(|input| matches!(input, Input::Lost { .. })));
}

extern "C" fn exec_true(path: *mut c_void) -> c_int {
    let path: *const libc::c_char = path.cast();
    let argv = [path, std::ptr::null()];
    // SAFETY: `path` is a string that the parent keeps; argv ends with a null pointer.
    unsafe { libc::execv(path, argv.as_ptr()) };
    1
}

#[test]
fn an_exec_from_another_thread_keeps_the_process() {
    let mut stream = Stream::open(DEFAULT_RING_BYTES);
    let path = CString::new("/bin/true").unwrap();
    let child = fork(|| {
        clone(THREAD, exec_true, path.as_ptr().cast_mut().cast());
        sleep_ms(10_000);
        1
    });
    assert_eq!(wait(child), 0);
    let fork = stream.fork_of(child);
    assert_eq!(&*stream.exec_of(fork.child).comm, "true");
    assert_eq!(stream.exit_of(fork.child).status, 0);
    let births = stream.seen.iter().filter(|input| matches!(input, Input::Fork(f) if f.parent == fork.child));
    assert_eq!(births.count(), 0, "the thread is no process");
}

extern "C" fn nothing(_: *mut c_void) -> c_int {
    0
}

#[test]
fn clone_parent_makes_a_sibling() {
    let mut stream = Stream::open(DEFAULT_RING_BYTES);
    let (mut reader, writer) = pipe();
    let child = fork(|| {
        let sibling = clone(libc::CLONE_PARENT | libc::SIGCHLD, nothing, std::ptr::null_mut());
        let _ = (&writer).write(&sibling.to_ne_bytes());
        0
    });
    drop(writer);
    let mut sibling = [0; 4];
    reader.read_exact(&mut sibling).unwrap();
    let sibling = i32::from_ne_bytes(sibling);
    let (first, second) = (stream.fork_of(child), stream.fork_of(sibling));
    assert_eq!(first.parent, second.parent);
    assert_eq!(second.parent.tgid, own_pid());
    wait(child);
    wait(sibling);
}

/// A middle process with one child that lives until the pipe closes.
fn orphan_maker(reader: &fs::File) -> i32 {
    fork(|| {
        let _ = (&*reader).read(&mut [0]);
        0
    });
    0
}

#[test]
fn orphans_go_to_the_subreaper() {
    let mut stream = Stream::open(DEFAULT_RING_BYTES);
    let (reader, writer) = pipe();
    let writer_fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
    let subreaper = fork(|| {
        // SAFETY: no precondition; the writing end belongs to the test alone.
        unsafe {
            libc::close(writer_fd);
            libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        }
        wait(fork(|| orphan_maker(&reader)));
        let _ = (&reader).read(&mut [0]);
        // SAFETY: no precondition; the orphan is our child by now.
        unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
        0
    });
    let subreaper_key = stream.fork_of(subreaper).child;
    let middle = stream.fork_by(subreaper_key).child;
    let worker = stream.fork_by(middle).child;
    let exit = stream.exit_of(middle);
    assert_eq!(exit.adopter, Parent::Known(subreaper_key));
    sleep_ms(20);
    assert_eq!(stat(worker.tgid, 4), Some(u64::from(subreaper_key.tgid)));

    let tasks = stream.probes.tasks().unwrap();
    let row = |key| tasks.iter().find(|task| task.key == key).unwrap();
    assert_eq!(row(worker).parent, Parent::Known(subreaper_key));
    assert!(row(subreaper_key).reaper && !row(worker).reaper);
    drop(writer);
    assert_eq!(wait(subreaper), 0);
}

#[test]
fn orphans_without_a_subreaper_go_where_the_kernel_says() {
    let mut stream = Stream::open(DEFAULT_RING_BYTES);
    let (reader, writer) = pipe();
    let writer_fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
    let middle = fork(|| {
        // SAFETY: the writing end belongs to the test alone.
        unsafe { libc::close(writer_fd) };
        orphan_maker(&reader)
    });
    wait(middle);
    let middle = stream.fork_of(middle).child;
    let worker = stream.fork_by(middle).child;
    let Parent::Known(adopter) = stream.exit_of(middle).adopter else { panic!("no adopter") };
    assert_eq!(stat(worker.tgid, 4), Some(u64::from(adopter.tgid)));
    assert_eq!(stat(adopter.tgid, 22), Some(adopter.start_ns / 10_000_000));
    drop(writer);
}

#[test]
fn a_walk_that_is_too_long_is_unknown() {
    /// Each leaves somebody behind: else nobody asks who adopts.
    fn chain(left: u32, reader: &fs::File) -> i32 {
        if left > 0 {
            wait(fork(|| chain(left - 1, reader)));
        }
        orphan_maker(reader)
    }
    let mut stream = Stream::open(DEFAULT_RING_BYTES);
    let (reader, writer) = pipe();
    let writer_fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
    let subreaper = fork(|| {
        // SAFETY: no precondition; the writing end belongs to the test alone.
        unsafe {
            libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
            libc::close(writer_fd);
        }
        chain(70, &reader)
    });
    wait(subreaper);
    let subreaper = stream.fork_of(subreaper).child;
    let mut at = subreaper;
    for depth in 1..=70 {
        at = stream.fork_by(at).child;
        let expected = if depth <= 64 { Parent::Known(subreaper) } else { Parent::Unknown };
        assert_eq!(stream.exit_of(at).adopter, expected, "depth {depth}");
    }
    drop(writer);
}

#[test]
fn a_pid_namespace_has_its_own_reaper() {
    let mut stream = Stream::open(DEFAULT_RING_BYTES);
    let outside = fork(|| {
        // SAFETY: no precondition.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
            return 1;
        }
        wait(fork(|| {
            // Pid 1 of the namespace; its child leaves a child behind.
            wait(fork(|| {
                fork(|| {
                    sleep_ms(30);
                    0
                });
                0
            }));
            // SAFETY: no precondition.
            unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
            0
        }));
        0
    });
    assert_eq!(wait(outside), 0);
    let outside = stream.fork_of(outside).child;
    let init = stream.fork_by(outside).child;
    let middle = stream.fork_by(init).child;
    assert_eq!(stream.exit_of(middle).adopter, Parent::Known(init));
    assert_eq!(stream.exit_of(init).adopter, Parent::NamespaceDies);
}

#[test]
fn the_snapshot_is_what_proc_says() {
    let mut stream = Stream::open(DEFAULT_RING_BYTES);
    let started = Instant::now();
    let tasks = stream.probes.tasks().unwrap();
    println!("{} processes in {:?}", tasks.len(), started.elapsed());
    let (mut same, mut different) = (0, 0);
    for task in &tasks {
        let pid = task.key.tgid;
        // What came and went meanwhile is not compared.
        let (Some(ppid), Some(start), Some(session)) = (stat(pid, 4), stat(pid, 22), stat(pid, 6)) else {
            continue;
        };
        if start != task.key.start_ns / 10_000_000 {
            continue;
        }
        let expected = match task.parent {
            Parent::Known(parent) => parent.tgid.into(),
            Parent::None => 0,
            other => panic!("{other:?}"),
        };
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if ppid == expected && session == u64::from(task.session) {
            same += 1;
        } else {
            // It may have changed between the dump and the look.
            different += 1;
            println!("{task:?} has parent {ppid} and session {session}, {comm}");
        }
    }
    assert!(same > 10 && different * 20 <= same, "{same} as /proc says, {different} not");
    let own = tasks.iter().find(|task| task.key.tgid == own_pid()).unwrap();
    assert!(!own.kernel_thread && own.uid == 0);
    assert!(tasks.iter().any(|task| task.key.tgid == 2 && task.kernel_thread && task.parent == Parent::None));
    // Some sandboxes' kernels leave their own pid 1 out of the iterator.
    assert!(tasks.iter().all(|task| task.key.tgid != 1 || task.reaper));
    let adopters = tasks.iter().filter(|task| task.reaper).count();
    println!("{adopters} of them adopt");
}

#[test]
fn a_full_ring_is_told_about_once() {
    let mut stream = Stream::open(4096);
    for _ in 0..100 {
        wait(fork(|| 0));
    }
    let Some(Input::Lost { count, .. }) = stream.events.losses().unwrap() else { panic!("nothing lost") };
    println!("{count} lost");
    assert!(count > 100);
    let mut records = 0;
    stream.events.drain(|input| {
        records += 1;
        assert!(!matches!(input, Input::Lost { .. }), "told already");
    });
    assert!(records > 10);
    // Now there is room again, and the counter comes with the next record.
    wait(fork(|| 0));
    stream.events.drain(|_| {});
    assert_eq!(stream.events.losses().unwrap(), None);
}

#[test]
fn an_exit_that_orphans_wakes_at_once_and_others_do_soon() {
    let mut stream = Stream::open(DEFAULT_RING_BYTES);
    let (mut worst, mut best) = ([Duration::ZERO; 2], [Duration::MAX; 2]);
    for round in 0..20 {
        let orphaning = round % 2 == 0;
        let child = fork(|| {
            if orphaning {
                fork(|| {
                    sleep_ms(5);
                    0
                });
            }
            0
        });
        wait(child);
        let started = Instant::now();
        let key = stream.fork_of(child).child;
        stream.exit_of(key);
        let (which, took) = (usize::from(orphaning), started.elapsed());
        (worst[which], best[which]) = (worst[which].max(took), best[which].min(took));
    }
    println!("worst from wait(2) to the input: {:?} if it orphans, else {:?}", worst[1], worst[0]);
    assert_eq!(stream.unwoken, 0, "nobody is left asleep with news");
    // Of ten, since the machine may be doing something else: without the wake-up it is this late every time.
    assert!(best[1] < Duration::from_nanos(WAKE_INTERVAL_NS), "{best:?}");
}

#[test]
fn an_empty_drain_does_not_put_off_the_second_look() {
    let mut stream = Stream::open(DEFAULT_RING_BYTES);
    let mut worst = Duration::ZERO;
    for _ in 0..20 {
        // The exit of a process with a child wakes at once; what follows within the interval does not.
        let orphaning = fork(|| {
            fork(|| 0);
            0
        });
        wait(orphaning);
        let key = stream.fork_of(orphaning).child;
        stream.exit_of(key);
        while stream.events.drain(|_| {}).records > 0 {}
        let silent = fork(|| 0);
        wait(silent);
        let started = Instant::now();
        let key = stream.fork_of(silent).child;
        stream.exit_of(key);
        worst = worst.max(started.elapsed());
    }
    println!("worst from wait(2) to the input: {worst:?}");
    assert_eq!(stream.unwoken, 0, "the second look never comes");
}
