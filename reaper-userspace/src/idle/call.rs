//! The system call a thread is blocked in, as `/proc/PID/task/TID/syscall` tells it, and what kind of waiting that is.
//!
//! The table holds what is understood, and the names of other common calls for display. A number that is not in it is
//! "nr N" and waits for nothing that counts as work.

/// `/proc/PID/task/TID/syscall`, proc(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// `running`: on a CPU, or about to be.
    Running,
    /// A negative number: asleep, but not in a system call (a page fault, a trace stop on the way).
    Outside,
    /// In a system call.
    Blocked(Blocked),
}

/// A system call with its arguments, and where the thread made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    pub(super) nr: u64,
    pub(super) args: [u64; 6],
    pub(super) sp: u64,
    pub(super) pc: u64,
}

impl Blocked {
    /// The same call, or the kernel's restart of it: restart_syscall(2) changes the number and no other register.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        (self.args, self.sp, self.pc) == (other.args, other.sp, other.pc)
    }
}

/// Reads the file's one line; the error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Line, String> {
    let odd = || format!("this is not understood: {:?}", text.chars().take(80).collect::<String>());
    let text = text.trim_end();
    if text == "running" {
        return Ok(Line::Running);
    }
    let mut words = text.split(' ');
    let nr: i64 = words.next().and_then(|w| w.parse().ok()).ok_or_else(odd)?;
    let numbers: Option<Vec<u64>> =
        words.map(|w| u64::from_str_radix(w.strip_prefix("0x")?, 16).ok()).collect();
    match (u64::try_from(nr), numbers.ok_or_else(odd)?.as_slice()) {
        (Ok(nr), &[a, b, c, d, e, f, sp, pc]) => {
            Ok(Line::Blocked(Blocked { nr, args: [a, b, c, d, e, f], sp, pc }))
        }
        (Err(_), &[_, _]) => Ok(Line::Outside),
        _ => Err(odd()),
    }
}

/// What a call waits for, by where it has it written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Input on the descriptor in its first argument.
    Input,
    /// poll(2): an array of pollfd, its length, milliseconds.
    Poll,
    /// ppoll(2): the same with a timespec.
    Ppoll,
    /// select(2): length, three fd_sets, a timeval.
    Select,
    /// pselect6(2): the same with a timespec.
    Pselect,
    /// epoll_wait(2), epoll_pwait(2): milliseconds in the fourth argument.
    Epoll,
    /// epoll_pwait2(2): a timespec in the fourth argument.
    Epoll2,
    /// futex(2): the operation decides.
    Futex,
    /// A futex call that only waits; the index of its timeout.
    FutexWait(usize),
    /// nanosleep(2).
    Nanosleep,
    /// clock_nanosleep(2).
    ClockNanosleep,
    /// A child.
    Child,
    /// A signal, and nothing else: pause(2), rt_sigsuspend(2).
    Pause,
    /// restart_syscall(2).
    Restart,
    /// Something that is not work that comes in.
    Other,
}

/// The architectures whose numbers are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    /// The agent's own.
    pub(super) fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// Name and kind of a call. `None`: not in the table.
    pub(super) fn call(self, nr: u64) -> Option<(&'static str, Kind)> {
        let column = |c: &&Entry| {
            match self {
                Self::X86_64 => c.1,
                Self::Aarch64 => c.2,
            }
            .is_some_and(|n| u64::from(n) == nr)
        };
        CALLS.iter().find(column).map(|c| (c.0, c.3))
    }
}

/// Name, number on x86-64, number on aarch64, kind.
type Entry = (&'static str, Option<u16>, Option<u16>, Kind);

const fn both(name: &'static str, x86: u16, arm: u16, kind: Kind) -> Entry {
    (name, Some(x86), Some(arm), kind)
}

const fn x86(name: &'static str, nr: u16, kind: Kind) -> Entry {
    (name, Some(nr), None, kind)
}

/// Source: `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h` (aarch64).
const CALLS: &[Entry] = &[
    both("read", 0, 63, Kind::Input),
    both("readv", 19, 65, Kind::Input),
    both("recvfrom", 45, 207, Kind::Input),
    both("recvmsg", 47, 212, Kind::Input),
    both("recvmmsg", 299, 243, Kind::Input),
    both("accept", 43, 202, Kind::Input),
    both("accept4", 288, 242, Kind::Input),
    x86("poll", 7, Kind::Poll),
    both("ppoll", 271, 73, Kind::Ppoll),
    x86("select", 23, Kind::Select),
    both("pselect6", 270, 72, Kind::Pselect),
    x86("epoll_wait", 232, Kind::Epoll),
    both("epoll_pwait", 281, 22, Kind::Epoll),
    both("epoll_pwait2", 441, 441, Kind::Epoll2),
    both("futex", 202, 98, Kind::Futex),
    both("futex_waitv", 449, 449, Kind::FutexWait(3)),
    both("futex_wait", 455, 455, Kind::FutexWait(4)),
    both("nanosleep", 35, 101, Kind::Nanosleep),
    both("clock_nanosleep", 230, 115, Kind::ClockNanosleep),
    both("wait4", 61, 260, Kind::Child),
    both("waitid", 247, 95, Kind::Child),
    x86("pause", 34, Kind::Pause),
    both("rt_sigsuspend", 130, 133, Kind::Pause),
    both("restart_syscall", 219, 128, Kind::Restart),
    // From here on only names.
    both("write", 1, 64, Kind::Other),
    both("close", 3, 57, Kind::Other),
    x86("open", 2, Kind::Other),
    both("mmap", 9, 222, Kind::Other),
    both("munmap", 11, 215, Kind::Other),
    both("ioctl", 16, 29, Kind::Other),
    // Neither works on a pipe or a socket: whoever blocks here waits for a disk.
    both("pread64", 17, 67, Kind::Other),
    both("pwrite64", 18, 68, Kind::Other),
    both("preadv", 295, 69, Kind::Other),
    both("pwritev", 296, 70, Kind::Other),
    both("writev", 20, 66, Kind::Other),
    both("sched_yield", 24, 124, Kind::Other),
    both("msync", 26, 227, Kind::Other),
    both("sendfile", 40, 71, Kind::Other),
    both("connect", 42, 203, Kind::Other),
    both("sendto", 44, 206, Kind::Other),
    both("sendmsg", 46, 211, Kind::Other),
    both("sendmmsg", 307, 269, Kind::Other),
    both("clone", 56, 220, Kind::Other),
    both("clone3", 435, 435, Kind::Other),
    x86("fork", 57, Kind::Other),
    x86("vfork", 58, Kind::Other),
    both("execve", 59, 221, Kind::Other),
    both("exit", 60, 93, Kind::Other),
    both("exit_group", 231, 94, Kind::Other),
    both("semop", 65, 193, Kind::Other),
    both("semtimedop", 220, 192, Kind::Other),
    both("msgsnd", 69, 189, Kind::Other),
    both("msgrcv", 70, 188, Kind::Other),
    both("fcntl", 72, 25, Kind::Other),
    both("flock", 73, 32, Kind::Other),
    both("fsync", 74, 82, Kind::Other),
    both("fdatasync", 75, 83, Kind::Other),
    both("ptrace", 101, 117, Kind::Other),
    both("rt_sigtimedwait", 128, 137, Kind::Other),
    both("sync", 162, 81, Kind::Other),
    both("io_getevents", 208, 4, Kind::Other),
    both("io_pgetevents", 333, 292, Kind::Other),
    both("io_uring_enter", 426, 426, Kind::Other),
    both("mq_timedsend", 242, 182, Kind::Other),
    both("mq_timedreceive", 243, 183, Kind::Other),
    both("openat", 257, 56, Kind::Other),
    both("splice", 275, 76, Kind::Other),
    both("tee", 276, 77, Kind::Other),
    both("vmsplice", 278, 75, Kind::Other),
    both("fallocate", 285, 47, Kind::Other),
];

#[cfg(test)]
mod tests {
    use nix::libc;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_each_form_of_the_line() {
        let poll = "7 0x7ffd1 0x1 0xffffffffffffffff 0x0 0x0 0x0 0x7ffd0 0x7f12\n";
        let blocked = Blocked { nr: 7, args: [0x7ffd1, 1, u64::MAX, 0, 0, 0], sp: 0x7ffd0, pc: 0x7f12 };
        assert_eq!(parse(poll), Ok(Line::Blocked(blocked)));
        assert_eq!(parse("running\n"), Ok(Line::Running));
        assert_eq!(parse("-1 0x7ffd0 0x7f12\n"), Ok(Line::Outside));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let odd = ["", "\n", "7", "7 0x1", "-1", "x", "7 1 2 3 4 5 6 7 8", "runningx", "-1 0x1 0x2 0x3"];
        for text in odd {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(parse("7 0x1 0x1 0x1 0x1 0x1 0x1 0x1 0x1 0x1").is_err(), "one number too many");
    }

    #[test]
    fn numbers_and_names_are_unique_and_right() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let column = |c: &Entry| if arch == Arch::X86_64 { c.1 } else { c.2 };
            let mut numbers: Vec<_> = CALLS.iter().filter_map(column).collect();
            numbers.sort_unstable();
            assert!(numbers.windows(2).all(|w| w[0] != w[1]), "{arch:?}: a number twice");
        }
        assert_eq!(Arch::X86_64.call(219), Some(("restart_syscall", Kind::Restart)));
        assert_eq!(Arch::Aarch64.call(128), Some(("restart_syscall", Kind::Restart)));
        assert_eq!(Arch::Aarch64.call(7), None);
        // What the C library was built with for this machine.
        let native = Arch::native().expect("an architecture with a table");
        for (nr, name) in [
            (libc::SYS_read, "read"),
            (libc::SYS_recvfrom, "recvfrom"),
            (libc::SYS_recvmsg, "recvmsg"),
            (libc::SYS_accept4, "accept4"),
            (libc::SYS_ppoll, "ppoll"),
            (libc::SYS_pselect6, "pselect6"),
            (libc::SYS_epoll_pwait, "epoll_pwait"),
            (libc::SYS_epoll_pwait2, "epoll_pwait2"),
            (libc::SYS_futex, "futex"),
            (libc::SYS_futex_waitv, "futex_waitv"),
            (libc::SYS_nanosleep, "nanosleep"),
            (libc::SYS_clock_nanosleep, "clock_nanosleep"),
            (libc::SYS_wait4, "wait4"),
            (libc::SYS_waitid, "waitid"),
            (libc::SYS_flock, "flock"),
            (libc::SYS_restart_syscall, "restart_syscall"),
            (libc::SYS_rt_sigsuspend, "rt_sigsuspend"),
            (libc::SYS_io_uring_enter, "io_uring_enter"),
            (libc::SYS_connect, "connect"),
            (libc::SYS_write, "write"),
        ] {
            let nr = u64::try_from(nr).expect("a system call");
            assert_eq!(native.call(nr).map(|c| c.0), Some(name));
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_what_is_nearly_right(text in "-?[0-9]{1,25}( 0x[0-9a-f]{0,20}){0,10}\n?") {
            let _ = parse(&text);
        }
    }
}
