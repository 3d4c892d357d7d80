//! Real threads and children, blocked in known calls.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};

use super::*;
use crate::core::ids::SECOND;
use crate::core::sample::{Address, File, FileKind};
use crate::procfs::start_ticks;

fn key(pid: u32) -> ProcKey {
    let tick = SECOND / ::procfs::ticks_per_second();
    ProcKey { tgid: pid, start_ns: start_ticks(pid).expect("its start") * tick }
}

/// A thread of this process that blocks in `call` until what it waits for comes.
struct Blocked {
    tid: u32,
    thread: Option<JoinHandle<()>>,
}

impl Blocked {
    fn start(call: impl FnOnce() + Send + 'static) -> Self {
        let (tell, tid) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("somebody listens");
            call();
        });
        let tid = u32::try_from(tid.recv().expect("its tid")).expect("a tid");
        Self { tid, thread: Some(thread) }
    }

    /// Looks until the thread is in a call that `is` what it should be in.
    fn until(&self, is: impl Fn(&Thread) -> bool) -> (Thread, Source) {
        until(&mut Sampler::new(), std::process::id(), self.tid, is)
    }

    fn join(mut self) {
        self.thread.take().expect("not joined yet").join().expect("it did not panic");
    }
}

fn until(sampler: &mut Sampler, pid: u32, tid: u32, is: impl Fn(&Thread) -> bool) -> (Thread, Source) {
    let end = Instant::now() + Duration::from_secs(10);
    let mut seen = None;
    while Instant::now() < end {
        let Sampled::Seen(sample) = sampler.sample(1, key(pid), Depth::Source, false) else {
            panic!("{pid} cannot be looked at");
        };
        if let Some(thread) = sample.threads.into_iter().find(|t| t.tid == tid) {
            if is(&thread) {
                return (thread, sample.source.expect("it was asked for"));
            }
            seen = Some(thread);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("not what it should be in: {seen:?}");
}

fn row(source: &Source, fd: i32) -> &File {
    source.files.iter().find(|f| f.fd == fd).unwrap_or_else(|| panic!("no row for {fd}: {source:?}"))
}

fn waits_for(fds: &[i32], timeout: Option<Ns>) -> impl Fn(&Thread) -> bool {
    let wait = Wait::Files { fds: fds.to_vec(), timeout };
    move |t| t.wait == wait && t.state == 'S'
}

/// The same, however it came about.
fn is_listening(file: &File) -> bool {
    matches!(file.what, FileKind::Listening(Address::Tcp(ip, _)) if ip.is_loopback())
}

#[test]
fn threads_only_is_just_that() {
    let Sampled::Seen(sample) = Sampler::new().sample(7, key(std::process::id()), Depth::Threads, false)
    else {
        panic!("this process can be looked at");
    };
    assert_eq!((sample.at, sample.source, sample.frozen), (7, None, false));
    assert!(sample.threads.iter().all(|t| t.wait == Wait::NotAsked && t.switches.is_none()));
}

#[test]
fn a_read_of_a_socket_pair() {
    let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
    let fd = theirs.as_raw_fd();
    let thread = Blocked::start(move || theirs.read_exact(&mut [0]).expect("a byte"));
    let (seen, source) = thread.until(waits_for(&[fd], None));
    assert!(matches!(seen.syscall.as_deref(), Some("read" | "recvfrom")), "{seen:?}");
    assert!(seen.switches > Some(0));
    let file = row(&source, fd);
    assert_eq!(file.what, FileKind::Pair { peer: std::process::id() });
    assert_eq!(file.readable, Some(false));
    assert!(source.files.iter().any(|f| f.fd == ours.as_raw_fd()), "sockets that nobody waits for too");
    assert!(!source.title.is_empty() && !source.title.contains('\0'));
    assert_eq!((source.alarm, file.traffic), (None, None));
    assert!(
        source.caught.is_some_and(|caught| caught & 1 << 10 != 0),
        "std handles SIGSEGV: {:?}",
        source.caught
    );
    ours.write_all(b"x").expect("written");
    thread.join();
}

#[test]
fn a_read_that_gives_up_after_a_while() {
    let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
    theirs.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let fd = theirs.as_raw_fd();
    let thread = Blocked::start(move || theirs.read_exact(&mut [0]).expect("a byte"));
    thread.until(waits_for(&[fd], Some(60 * SECOND)));
    ours.write_all(b"x").expect("written");
    thread.join();
}

#[test]
fn a_thread_with_descriptors_of_its_own_is_unknown() {
    // In a process of its own: what is looked at must not become incomplete for the other tests.
    if let Ok(path) = std::env::var(PRIVATE) {
        let thread = std::thread::spawn(|| {
            // SAFETY: this thread uses no descriptor that another one opens or closes.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }.expect("unshared");
            std::io::stdin().read_to_end(&mut Vec::new()).expect("the end");
        });
        std::fs::write(path, "").expect("written");
        thread.join().expect("it did not panic");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let ready = dir.path().join("ready");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "idle::tests::a_thread_with_descriptors_of_its_own_is_unknown"]);
    command.env(PRIVATE, &ready).stdin(Stdio::piped()).stdout(Stdio::null());
    let child = Killed(command.spawn().expect("itself"));
    let pid = child.0.id();
    let end = Instant::now() + Duration::from_secs(10);
    while !ready.exists() {
        assert!(Instant::now() < end, "the child does not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
    let own = |t: &Thread| matches!(&t.wait, Wait::Unknown(why) if why.contains("descriptors of its own"));
    while Instant::now() < end {
        if let Sampled::Seen(sample) = Sampler::new().sample(1, key(pid), Depth::Source, false)
            && sample.threads.iter().any(own)
        {
            let source = sample.source.expect("it was asked for");
            assert!(source.incomplete.is_some_and(|why| why.contains("descriptors of its own")));
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("nobody has descriptors of its own");
}

/// Tells a child of that test that it is the one to be looked at, and where it says that it is ready.
const PRIVATE: &str = "REAPER_TEST_PRIVATE_DESCRIPTORS";

#[test]
fn an_accept() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (fd, address) = (listener.as_raw_fd(), listener.local_addr().expect("its address"));
    let thread = Blocked::start(move || drop(listener.accept().expect("a client")));
    let (seen, source) = thread.until(waits_for(&[fd], None));
    assert_eq!(seen.syscall.as_deref(), Some("accept4"));
    assert_eq!(row(&source, fd).what, FileKind::Listening(Address::Tcp(address.ip(), address.port())));
    assert_eq!(row(&source, fd).readable, Some(false));
    TcpStream::connect(address).expect("connected");
    thread.join();
}

#[test]
fn a_poll_of_a_pipe_and_a_counter() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let counter = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
    let (pipe, event) = (reader.as_raw_fd(), counter.as_raw_fd());
    let thread = Blocked::start(move || {
        let mut fds = [
            PollFd::from_borrowed_fd(counter.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN),
        ];
        poll(&mut fds, Some(&Timespec { tv_sec: 60, tv_nsec: 0 })).expect("polled");
    });
    let mut fds = [pipe, event];
    fds.sort_unstable();
    let (_, source) = thread.until(|t| {
        matches!(&t.wait, Wait::Files { fds: seen, timeout: Some(t) } if *seen == fds && *t <= 60 * SECOND)
    });
    assert_eq!((&row(&source, pipe).what, row(&source, pipe).readable), (&FileKind::Pipe, Some(false)));
    assert_eq!(row(&source, event).what, FileKind::Neutral("eventfd".to_owned()));
    assert_eq!(row(&source, event).readable, Some(false));
    writer.write_all(b"x").expect("written");
    thread.join();
}

/// Adds `file` to an epoll descriptor for input.
fn add(epoll: &OwnedFd, file: impl std::os::fd::AsFd, flags: epoll::EventFlags) {
    epoll::add(epoll, file, epoll::EventData::new_u64(0), flags).expect("added");
}

fn new_epoll() -> OwnedFd {
    epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll")
}

/// A thread in epoll_wait(2) for ever.
fn in_epoll(epoll: OwnedFd) -> Blocked {
    Blocked::start(move || {
        let mut events = Vec::with_capacity(4);
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None).expect("waited");
    })
}

#[test]
fn an_epoll_within_an_epoll() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (end, _other) = UnixStream::pair().expect("a pair");
    let (inner, outer) = (new_epoll(), new_epoll());
    add(&inner, &listener, epoll::EventFlags::IN);
    add(&inner, &end, epoll::EventFlags::ONESHOT | epoll::EventFlags::IN);
    add(&outer, &inner, epoll::EventFlags::IN);
    let mut fds = [listener.as_raw_fd(), end.as_raw_fd()];
    fds.sort_unstable();
    let address = listener.local_addr().expect("its address");
    let thread = in_epoll(outer);
    let (_, source) = thread.until(waits_for(&fds, None));
    assert!(is_listening(row(&source, listener.as_raw_fd())));
    assert!(matches!(row(&source, end.as_raw_fd()).what, FileKind::Pair { .. }));
    let _client = TcpStream::connect(address).expect("connected");
    thread.join();
}

#[test]
fn a_target_whose_number_is_anothers_now_is_unknown() {
    let (end, mut other) = UnixStream::pair().expect("a pair");
    let epoll = new_epoll();
    add(&epoll, &end, epoll::EventFlags::IN);
    // The file stays open, and waited for, under another number.
    let kept = end.try_clone().expect("a duplicate");
    let (impostor, _its_other) = UnixStream::pair().expect("a pair");
    let mut end = OwnedFd::from(end);
    rustix::io::dup2(&impostor, &mut end).expect("replaced");
    let thread = in_epoll(epoll);
    let (seen, _) = thread.until(|t| matches!(t.wait, Wait::Unknown(_)));
    assert!(
        matches!(seen.syscall.as_deref(), Some("epoll_wait" | "epoll_pwait" | "epoll_pwait2")),
        "{seen:?}"
    );
    other.write_all(b"x").expect("written");
    thread.join();
    drop(kept);
}

#[test]
fn who_wants_to_write_does_not_wait_for_work() {
    let (end, mut other) = UnixStream::pair().expect("a pair");
    end.set_nonblocking(true).expect("set");
    while (&end).write(&[0; 4096]).is_ok() {}
    let epoll = new_epoll();
    add(&epoll, &end, epoll::EventFlags::OUT);
    let thread = in_epoll(epoll);
    thread.until(|t| t.wait == Wait::Other && t.syscall.as_ref().is_some_and(|s| s.starts_with("epoll")));
    other.set_nonblocking(true).expect("set");
    while other.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {}
    thread.join();
}

#[test]
fn futexes() {
    let thread = Blocked::start(std::thread::park);
    let (seen, _) = thread.until(|t| t.wait == Wait::Futex { timed: false });
    assert_eq!(seen.syscall.as_deref(), Some("futex"));
    thread.thread.as_ref().expect("it").thread().unpark();
    thread.join();
    let thread = Blocked::start(|| std::thread::park_timeout(Duration::from_secs(60)));
    thread.until(|t| t.wait == Wait::Futex { timed: true });
    thread.thread.as_ref().expect("it").thread().unpark();
    thread.join();
}

/// A child that is killed when the test is over.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Its standard input ends, and whoever reads that does too.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn shell(script: &str) -> Killed {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    Killed(command.spawn().expect("a shell"))
}

#[test]
fn a_child_that_reads_its_pipe() {
    let child = shell("exec cat");
    let pid = child.0.id();
    let (_, source) = until(&mut Sampler::new(), pid, pid, waits_for(&[0], None));
    assert_eq!(&*source.title, "cat");
    let pipe = row(&source, 0);
    assert_eq!((&pipe.what, pipe.readable), (&FileKind::Pipe, Some(false)));
    // If every process on this machine can be read, it is known that the test has the other end.
    assert!(pipe.holders.as_ref().is_none_or(|h| h.contains(&std::process::id())), "{pipe:?}");
    assert_eq!(source.incomplete, None);
}

#[test]
fn waiting_for_a_child() {
    let child = shell("cat; exit 0");
    let pid = child.0.id();
    until(&mut Sampler::new(), pid, pid, |t| t.wait == Wait::Child);
}

#[test]
fn a_sleep_is_known_again_after_a_stop() {
    // The shell stops and continues its own child, and ends it.
    let script = "sleep 300 & p=$!; echo $p; read x; kill -STOP $p; read x; kill -CONT $p; read x; kill -KILL $p; wait";
    let mut child = shell(script);
    let mut lines = BufReader::new(child.0.stdout.take().expect("a pipe")).lines();
    let pid: u32 = lines.next().expect("a line").expect("text").parse().expect("a pid");
    let mut stdin = child.0.stdin.take().expect("a pipe");
    let mut sampler = Sampler::new();
    let asleep = |t: &Thread| matches!(t.wait, Wait::Sleep { .. }) && t.state == 'S';
    let (first, _) = until(&mut sampler, pid, pid, asleep);
    assert_eq!(first.wait, Wait::Sleep { length: Some(300 * SECOND) });
    stdin.write_all(b"\n").expect("written");
    until(&mut Sampler::new(), pid, pid, |t| t.state == 'T');
    stdin.write_all(b"\n").expect("written");
    let restarted = "restarted after a stop; which call it was is not known";
    let (after, _) = until(&mut sampler, pid, pid, asleep);
    assert_eq!(after.syscall, first.syscall);
    assert_eq!(after.wait, first.wait, "sleep(1) does not ask for what is left");
    sampler.forget(key(pid));
    let (forgotten, _) = until(&mut sampler, pid, pid, |_| true);
    assert_eq!(forgotten.syscall.as_deref(), Some("restart_syscall"), "it was restarted");
    assert_eq!(forgotten.wait, Wait::Unknown(restarted.to_owned()));
    stdin.write_all(b"\n").expect("written");
}

#[test]
fn who_is_gone_is_gone() {
    let mut child = shell("exec cat");
    let gone = key(child.0.id());
    let mut sampler = Sampler::new();
    assert!(matches!(sampler.sample(1, gone, Depth::Source, false), Sampled::Seen(_)));
    assert_eq!(sampler.last.len(), 1);
    drop(child.0.stdin.take());
    child.0.wait().expect("its end");
    assert_eq!(sampler.sample(1, gone, Depth::Source, false), Sampled::Gone);
    assert!(sampler.last.is_empty(), "nothing is remembered of it");
}

/// A 32-bit program whose numbers mean other calls: 29 is pause(2) there, and shmget(2) in a 64-bit one.
#[cfg(target_arch = "x86_64")]
#[test]
fn another_architecture_is_unknown() {
    use std::os::unix::fs::PermissionsExt as _;
    // mov eax, 3; xor ebx, ebx; mov ecx, esp; mov edx, 1; int 0x80 (read); mov eax, 1; int 0x80 (exit)
    let code = [
        0xb8, 3, 0, 0, 0, 0x31, 0xdb, 0x89, 0xe1, 0xba, 1, 0, 0, 0, 0xcd, 0x80, 0xb8, 1, 0, 0, 0, 0xcd,
        0x80u8,
    ];
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("small");
    std::fs::write(&path, elf32(&code)).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("made executable");
    // Kernels without 32-bit programs refuse it.
    let Ok(child) = Command::new(&path).stdin(Stdio::piped()).spawn() else { return };
    let child = Killed(child);
    let pid = child.0.id();
    let (seen, _) = until(&mut Sampler::new(), pid, pid, |t| t.state == 'S');
    let Wait::Unknown(why) = &seen.wait else { panic!("{seen:?}") };
    assert!(why.contains("architecture"), "{why}");
}

/// An executable with one segment that holds `code`.
#[cfg(target_arch = "x86_64")]
fn elf32(code: &[u8]) -> Vec<u8> {
    let base = 0x0804_8000u32;
    let start = 84u32;
    let size = start + u32::try_from(code.len()).expect("small");
    let half = |n: u16| n.to_le_bytes().to_vec();
    let word = |n: u32| n.to_le_bytes().to_vec();
    [
        b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        [half(2), half(3), word(1), word(base + start), word(52), word(0), word(0)].concat(),
        [half(52), half(32), half(1), half(0), half(0), half(0)].concat(),
        [word(1), word(0), word(base), word(base), word(size), word(size), word(5), word(4096)].concat(),
        code.to_vec(),
    ]
    .concat()
}

#[test]
fn counts_switches() {
    let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
    assert_eq!(switches(status), Some(15));
    assert_eq!(switches("Name:\tx\n"), None);
    assert_eq!(switches("voluntary_ctxt_switches:\tx\nnonvoluntary_ctxt_switches:\t3\n"), None);
}
