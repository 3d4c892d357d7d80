//! A process that does what a test tells it: see `reaper_tests::script`.
//!
//! Nothing it starts can outlive its test for long: every process, after each fork and each exec, arms an alarm and,
//! because a stopped process does not see SIGALRM, a timer with SIGKILL a little later.
//! It never signals anybody but itself.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken actor shows up as a test that waits for its ledger"
)]

mod namespaces;
mod targets;
mod waits;

use std::ffi::{CString, OsStr, c_int, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::sys::wait::{WaitPidFlag, WaitStatus, wait, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{
    ForkResult, Pid, User, alarm, execv, execve, getppid, mkfifo, setgid, setgroups, setsid, setuid,
};
use procfs::process::Process;
use reaper_tests::script::{DIR, LEDGER, LIFETIME_S, Op, PROGRAM};

/// A SIGTERM has come and is handled.
static TERM: AtomicBool = AtomicBool::new(false);

/// What a process keeps over forks.
#[derive(Clone)]
struct Actor {
    exe: PathBuf,
    token: String,
    dir: PathBuf,
    /// First byte of argv, first byte after it, first byte after the environment.
    area: (usize, usize, usize),
    /// What to do on SIGTERM.
    on_term: Option<Vec<Op>>,
}

fn main() {
    set_handler(Signal::SIGALRM, SigHandler::Handler(exit_on_alarm));
    SigSet::all().thread_unblock().unwrap();
    bound_lifetime();
    let [_, _, token] = <[String; 3]>::try_from(std::env::args().collect::<Vec<_>>()).unwrap();
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let program: Vec<Op> = serde_json::from_str(&std::env::var(PROGRAM).unwrap()).unwrap();
    let mut actor = Actor { exe: std::env::current_exe().unwrap(), token, dir, area: area(), on_term: None };
    actor.run(&program);
    exit(0);
}

impl Actor {
    fn run(&mut self, program: &[Op]) {
        for op in program {
            self.step(op);
            self.serve_term();
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Fork(ops) => {
                self.fork(CloneFlags::empty(), ops);
            }
            Op::ForkSibling(ops) => {
                self.fork(CloneFlags::CLONE_PARENT, ops);
            }
            Op::Thread(ops) => {
                let (mut actor, ops) = (self.clone(), ops.clone());
                std::thread::spawn(move || actor.run(&ops));
            }
            Op::Exec(role, ops) => self.exec_under(&[], role, ops),
            Op::ExecUnder(argv, role, ops) => self.exec_under(argv, role, ops),
            Op::Run(argv) => become_program(argv),
            Op::Setsid => {
                setsid().unwrap();
            }
            Op::Subreaper(on) => prctl::set_child_subreaper(*on).unwrap(),
            Op::DeathSignal => prctl::set_pdeathsig(Signal::SIGTERM).unwrap(),
            Op::WatchParent(ms) => self.watch_parent(*ms),
            Op::Title(text) => self.title(text),
            Op::Comm(name) => prctl::set_name(&cstring(OsStr::new(name))).unwrap(),
            Op::Busy(ms) => burn(*ms),
            Op::BusyUntil(gate) => {
                let gate = self.dir.join(gate);
                while !gate.exists() {
                    burn(1);
                }
            }
            Op::Sleep(ms) => self.doze(None, Some(now_ns() + ms * 1_000_000)),
            Op::Forever => self.doze(None, None),
            Op::Gate(name) => self.gate(name),
            Op::IgnoreTerm => set_handler(Signal::SIGTERM, SigHandler::SigIgn),
            Op::OnTerm(ops) => self.take_term(Some(ops.clone())),
            Op::DefaultTerm => self.take_term(None),
            Op::User(name) => become_user(name),
            Op::NewPidNamespace => unshare(CloneFlags::CLONE_NEWPID).unwrap(),
            Op::Init(ops) => self.init(ops),
            Op::OwnUsers => namespaces::own_users(),
            Op::OwnMounts(name) => self.exe = namespaces::own_mounts(&self.dir.join(name)),
            Op::MountProc => namespaces::mount_proc(),
            Op::Uninterruptible(name) => self.uninterruptible(name),
            Op::Stop => reaper_tests::process::stop_oneself(),
            Op::Churn(threads) => targets::churn(*threads),
            Op::ReadOn => targets::read_on(),
            Op::NoteTermThreads(name) => targets::note_term_threads(&self.dir.join(name)),
            Op::NoteValues(name) => targets::note_values(&self.dir.join(name)),
            Op::FreezeAndDie(name) => self.freeze_and_die(name),
            Op::TellChildren => self.tell_children(),
            Op::Open(name, what) => {
                if let Some(address) = waits::open(&self.dir, name, what) {
                    self.ledger(&format!("{name}@{address}"));
                }
            }
            Op::Close(name) => waits::close(name),
            Op::Await(call, names) => waits::wait(*call, names),
            Op::Send(name, bytes) => waits::send(name, *bytes),
            Op::Nanosleep(ms) => waits::nanosleep(*ms),
            Op::Alarm(seconds) => {
                // As alarm(2) has it, none in no time.
                if *seconds == 0 {
                    alarm::cancel()
                } else {
                    alarm::set(*seconds)
                };
            }
            Op::Repeat(ops) => loop {
                self.run(ops);
            },
            Op::OwnDescriptors => unshare(CloneFlags::CLONE_FILES).unwrap(),
            Op::OwnNetwork => namespaces::own_network(),
            Op::WaitChildren => while wait() != Err(Errno::ECHILD) {},
            Op::ExitLikeChild => exit_like_child(),
            // SAFETY: ends this thread only; nothing that another thread uses lives on this stack.
            Op::ExitThread => unsafe {
                libc::syscall(libc::SYS_exit, 0);
            },
            Op::Exit(code) => exit(*code),
            Op::Ledger(event) => self.ledger(event),
            Op::Copy(from, to) => self.copy(from, to),
        }
    }

    /// With a program for it a TERM waits until it can be served; without one it has its default action.
    fn take_term(&mut self, on_term: Option<Vec<Op>>) {
        let term = SigSet::from_iter([Signal::SIGTERM]);
        if on_term.is_some() {
            term.thread_block().unwrap();
            set_handler(Signal::SIGTERM, SigHandler::Handler(note_term));
        } else {
            set_handler(Signal::SIGTERM, SigHandler::SigDfl);
            term.thread_unblock().unwrap();
        }
        self.on_term = on_term;
    }

    fn watch_parent(&mut self, ms: u64) {
        let parent = getppid();
        while getppid() == parent {
            self.doze(None, Some(now_ns() + ms * 1_000_000));
        }
    }

    fn copy(&self, from: &str, to: &str) {
        let partial = self.dir.join(format!("{to}.partial"));
        fs::copy(self.dir.join(from), &partial).unwrap();
        fs::rename(partial, self.dir.join(to)).unwrap();
    }

    fn fork(&mut self, flags: CloneFlags, ops: &[Op]) -> Pid {
        match fork_with(flags) {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                bound_lifetime();
                self.run(ops);
                exit(0);
            }
        }
    }

    fn init(&mut self, ops: &[Op]) {
        let first = self.fork(CloneFlags::empty(), ops);
        while wait().map(|status| status.pid() == Some(first)) != Ok(true) {}
    }

    fn exec_under(&self, under: &[String], role: &str, ops: &[Op]) {
        let variable = |name: &str, value: &OsStr| {
            let mut text = name.as_bytes().to_vec();
            text.push(b'=');
            text.extend_from_slice(value.as_bytes());
            CString::new(text).unwrap()
        };
        let program = serde_json::to_string(ops).unwrap();
        let own = [self.exe.as_os_str(), OsStr::new(role), OsStr::new(&self.token)];
        let argv: Vec<_> = under.iter().map(OsStr::new).chain(own).map(cstring).collect();
        let envp = [variable(DIR, self.dir.as_os_str()), variable(PROGRAM, OsStr::new(&program))];
        let mut failed = execve(&argv[0], &argv, &envp);
        if failed == Err(Errno::EACCES) && under.is_empty() {
            // Another user may not be let through the directories above; the link needs no way there.
            failed = execve(c"/proc/self/exe", &argv, &envp);
        }
        panic!("exec {role}: {failed:?}");
    }

    /// As setproctitle(3) on Linux: over the old arguments, on into the environment if the title is longer, the rest
    /// filled with zeros. (The kernel shows a string that has overwritten the last zero of argv up to its end.)
    fn title(&self, text: &str) {
        let title = format!("{text} {}", self.token);
        let (start, end, limit) = self.area;
        assert!(title.len() < limit - start, "no room for {title:?}");
        let length = (title.len() + 1).max(end - start);
        // SAFETY: argv and the environment lie side by side (checked in `area`), the kernel mapped them writable for
        // this process, and nothing reads either after `main` copied what it needs.
        let old = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, length) };
        old.fill(0);
        old[..title.len()].copy_from_slice(title.as_bytes());
    }

    fn gate(&mut self, name: &str) {
        let path = self.dir.join(name);
        make_gate(&path);
        let fifo = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        self.doze(Some(&fifo), None);
    }

    /// Sleeps in ppoll(2), the only place where a handled SIGTERM is let through, until `fifo` has something to read
    /// or the moment has come.
    fn doze(&mut self, fifo: Option<&File>, until_ns: Option<u64>) {
        loop {
            let left = until_ns.map(|until| until.saturating_sub(now_ns()));
            if left == Some(0) {
                return;
            }
            let timeout = left.map(|ns| libc::timespec {
                tv_sec: (ns / 1_000_000_000).try_into().unwrap(),
                tv_nsec: (ns % 1_000_000_000).try_into().unwrap(),
            });
            let mut fd =
                libc::pollfd { fd: fifo.map_or(-1, AsRawFd::as_raw_fd), events: libc::POLLIN, revents: 0 };
            let mask = SigSet::empty();
            // SAFETY: all pointers are to live values of the right type, or null.
            let ready = unsafe {
                libc::ppoll(
                    &raw mut fd,
                    1,
                    timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
                    std::ptr::from_ref(mask.as_ref()),
                )
            };
            if ready > 0 {
                return;
            }
            self.serve_term();
        }
    }

    fn serve_term(&mut self) {
        if TERM.swap(false, Ordering::SeqCst)
            && let Some(ops) = self.on_term.clone()
        {
            self.run(&ops);
        }
    }

    fn ledger(&self, event: &str) {
        let (pid, start, ppid) = whoami();
        let line = format!("{event} {pid} {start} {} {ppid}\n", now_ns());
        let mut ledger = OpenOptions::new().append(true).open(self.dir.join(LEDGER)).unwrap();
        ledger.write_all(line.as_bytes()).unwrap();
    }

    fn freeze_and_die(&self, name: &str) {
        let ledger = fs::read_to_string(self.dir.join(LEDGER)).unwrap();
        let line = ledger.lines().find(|l| l.split(' ').next() == Some(name)).unwrap();
        let mut words = line.split(' ').skip(1);
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        let _frozen = targets::freeze(number(), number());
        self.ledger("frozen");
        reaper_tests::process::kill_oneself();
    }

    fn tell_children(&mut self) {
        targets::note_sigchld(&self.dir.join("sigchld"));
        self.ledger("watching");
        loop {
            match waitpid(None, Some(WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED)) {
                Ok(status) => self.ledger(&format!("{status:?}").replace(' ', "")),
                Err(Errno::EINTR) => {}
                Err(_) => self.doze(None, None),
            }
        }
    }

    fn uninterruptible(&self, name: &str) {
        extern "C" fn sibling(argument: *mut c_void) -> c_int {
            // SAFETY: the pointer is to a value on the stack of the parent, which sleeps until this ends.
            let (actor, name) = unsafe { *argument.cast::<(&Actor, &str)>() };
            actor.ledger(name);
            reaper_tests::process::stop_oneself();
            // SAFETY: ends this process without running what belongs to the one whose memory it shares.
            unsafe { libc::_exit(0) }
        }
        let mut stack = vec![0_u8; 256 * 1024];
        let mut argument = (self, name);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT | libc::SIGCHLD;
        let top = (stack.as_mut_ptr_range().end as usize & !15) as *mut c_void;
        // SAFETY: the stack is large enough and lives longer than the sibling (CLONE_VFORK); the sibling touches
        // nothing that is locked, because this process has one thread when it comes here.
        let pid = unsafe { libc::clone(sibling, top, flags, (&raw mut argument).cast()) };
        assert!(pid > 0, "{}", Errno::last());
    }
}

fn become_program(argv: &[String]) {
    let argv: Vec<_> = argv.iter().map(|a| cstring(OsStr::new(a))).collect();
    let failed = execv(&argv[0], &argv);
    panic!("{argv:?}: {failed:?}");
}

fn become_user(name: &str) {
    let user = User::from_name(name).unwrap().unwrap();
    setgroups(&[user.gid]).unwrap();
    setgid(user.gid).unwrap();
    setuid(user.uid).unwrap();
}

/// Uses the CPU for so many milliseconds.
fn burn(ms: u64) {
    let end = now_ns() + ms * 1_000_000;
    while now_ns() < end {
        std::hint::spin_loop();
    }
}

fn exit_like_child() -> ! {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(_, code)) => exit(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => exit(128 + signal as i32),
            Err(Errno::EINTR) | Ok(_) => {}
            Err(e) => panic!("no child to exit like: {e}"),
        }
    }
}

/// Makes the FIFO, unless somebody else was quicker; everybody may use it.
fn make_gate(path: &Path) {
    match mkfifo(path, Mode::from_bits_truncate(0o666)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => panic!("{}: {e}", path.display()),
    }
}

fn fork_with(flags: CloneFlags) -> ForkResult {
    let flags = libc::c_long::from(flags.bits() | libc::SIGCHLD);
    // SAFETY: a fork with its own copy of the memory and the same stack. An actor forks from its only thread, so no
    // lock of the C library is held by somebody who is not there in the child.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        0 => ForkResult::Child,
        pid if pid > 0 => ForkResult::Parent { child: Pid::from_raw(i32::try_from(pid).unwrap()) },
        _ => panic!("fork: {}", Errno::last()),
    }
}

/// Neither a forgotten test nor a stop signal keeps this process for long. The alarm has a handler because pid 1 of a
/// namespace is immune to default actions; the timer has SIGKILL because a stopped process handles nothing.
fn bound_lifetime() {
    alarm::set(LIFETIME_S);
    let kill = SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 };
    let mut timer = Timer::new(ClockId::CLOCK_BOOTTIME, SigEvent::new(kill)).unwrap();
    let end = TimeSpec::from_duration(Duration::from_secs(u64::from(LIFETIME_S) + 5));
    timer.set(Expiration::OneShot(end), TimerSetTimeFlags::empty()).unwrap();
    std::mem::forget(timer);
}

extern "C" fn exit_on_alarm(_: c_int) {
    // SAFETY: async-signal-safe.
    unsafe { libc::_exit(99) }
}

extern "C" fn note_term(_: c_int) {
    TERM.store(true, Ordering::SeqCst);
}

fn set_handler(signal: Signal, handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: both handlers are async-signal-safe: one stores a flag, one exits.
    unsafe { sigaction(signal, &action) }.unwrap();
}

/// Pid, start and parent as the /proc of the test shows them, whatever pid namespace this is in.
fn whoami() -> (i32, u64, i32) {
    let stat = Process::myself().unwrap().stat().unwrap();
    (stat.pid, stat.starttime, stat.ppid)
}

fn area() -> (usize, usize, usize) {
    let stat = Process::myself().unwrap().stat().unwrap();
    let at = |field: Option<u64>| usize::try_from(field.unwrap()).unwrap();
    let (arg_end, env_start) = (at(stat.arg_end), at(stat.env_start));
    assert_eq!(arg_end, env_start, "argv and environment are not side by side");
    (at(stat.arg_start), arg_end, at(stat.env_end))
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    u64::try_from(now.tv_sec()).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap()
}

fn cstring(text: &OsStr) -> CString {
    CString::new(text.as_bytes()).unwrap()
}

fn exit(code: i32) -> ! {
    // SAFETY: no destructor of this program matters, and a forked child must not run its parent's.
    unsafe { libc::_exit(code) }
}
