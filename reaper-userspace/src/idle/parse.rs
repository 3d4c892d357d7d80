//! The structures that a blocked call's arguments point at, and the targets of an epoll descriptor. Pure, and made for
//! hostile input: every byte here was written by the process that is looked at.

use crate::core::ids::{Ns, SECOND};

/// More descriptors than this in one call are not looked at.
pub(super) const MOST: usize = 4096;

/// Size of a `struct pollfd`.
pub(super) const POLLFD: usize = 8;

/// What somebody waits for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Something to read or to accept.
    Input,
    /// Room to write, or the end of a connect(2): it is in the middle of saying something.
    Output,
    /// Only errors and hang-ups, which are reported unasked, or not even these (`EPOLLONESHOT`, disarmed): nothing that comes
    /// in would wake it.
    Hangup,
}

/// A descriptor that a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waited {
    pub(super) fd: i32,
    pub(super) interest: Interest,
}

/// `POLLIN`, `POLLRDNORM`, `POLLRDBAND`; epoll(7) has the same numbers.
const INPUT: u32 = 0x1 | 0x40 | 0x80;
/// `POLLOUT`, `POLLWRNORM`, `POLLWRBAND`.
const OUTPUT: u32 = 0x4 | 0x100 | 0x200;
/// `EPOLLET`.
const EDGE: u32 = 0x8000_0000;

/// Interest of a poll(2) entry. One that is also about output is about output: the call would have returned had there been
/// room, so it is stuck in writing.
fn interest(events: u32) -> Interest {
    if events & OUTPUT != 0 {
        Interest::Output
    } else if events & INPUT != 0 {
        Interest::Input
    } else {
        Interest::Hangup
    }
}

/// An array of `struct pollfd` (poll(2)). Negative descriptors are not looked at by the kernel either.
pub(super) fn pollfds(bytes: &[u8]) -> Vec<Waited> {
    let (entries, _) = bytes.as_chunks::<POLLFD>();
    let read = |e: &[u8; POLLFD]| {
        let [a, b, c, d, lo, hi, _, _] = *e;
        let interest = interest(u32::from(u16::from_ne_bytes([lo, hi])));
        Waited { fd: i32::from_ne_bytes([a, b, c, d]), interest }
    };
    entries.iter().map(read).filter(|w| w.fd >= 0).collect()
}

/// Bytes that the kernel reads of an `fd_set` for `nfds` descriptors (kernel: `FDS_BYTES`).
pub(super) fn fd_set_len(nfds: usize) -> usize {
    nfds.div_ceil(64) * 8
}

/// The members of an `fd_set` (select(2)): an array of longs, which on a little-endian machine is one of bytes.
pub(super) fn fd_set(bytes: &[u8], nfds: usize, interest: Interest) -> Vec<Waited> {
    let is_set = |n: &usize| bytes.get(n / 8).is_some_and(|byte| byte & (1 << (n % 8)) != 0);
    let numbers = (0..nfds).filter(is_set).filter_map(|n| i32::try_from(n).ok());
    numbers.map(|fd| Waited { fd, interest }).collect()
}

/// A `struct timespec`, or a `struct timeval` with `unit` 1000. `None` if the kernel would not take it.
pub(super) fn duration(bytes: [u8; 16], unit: Ns) -> Option<Ns> {
    let (seconds, rest) = bytes.split_at(8);
    let number = |b: &[u8]| b.try_into().ok().map(i64::from_ne_bytes).and_then(|n| u64::try_from(n).ok());
    let (seconds, rest) = (number(seconds)?, number(rest)?);
    // A timeval may hold more than a second of microseconds (kernel: `kern_select`), a timespec may not.
    if unit == 1 && rest >= SECOND {
        return None;
    }
    Some(seconds.saturating_mul(SECOND).saturating_add(rest.saturating_mul(unit)))
}

/// One target of an epoll descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// What is waited for on which number. The number is the one it had when it was added.
    pub(super) waited: Waited,
    /// Inode and device of the file that is really meant.
    pub(super) inode: u64,
    pub(super) device: u64,
}

/// The targets in `/proc/PID/fdinfo/FD` of an epoll descriptor, proc(5).
///
/// ```text
/// tfd:        5 events:       19 data:                5 pos:0 ino:1a2b sdev:9
/// ```
pub(super) fn targets(fdinfo: &str) -> Result<Vec<Target>, String> {
    let mut targets = Vec::new();
    for line in fdinfo.lines().filter(|l| l.starts_with("tfd:")) {
        let target = target(line).ok_or_else(|| {
            format!("this is not understood: {:?}", line.chars().take(120).collect::<String>())
        })?;
        targets.push(target);
        if targets.len() > MOST {
            return Err(format!("it has more than {MOST} targets"));
        }
    }
    Ok(targets)
}

/// `None`: not understood.
fn target(line: &str) -> Option<Target> {
    let after = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.split_whitespace().next()
    };
    let fd = after("tfd:")?.parse().ok().filter(|fd| *fd >= 0)?;
    let events = u32::from_str_radix(after(" events:")?, 16).ok()?;
    let inode = u64::from_str_radix(after(" ino:")?, 16).ok()?;
    let device = u64::from_str_radix(after(" sdev:")?, 16).ok()?;
    // Event loops add both directions at once with an edge trigger, and then try to write before they wait for it.
    let by_edge = events & EDGE != 0 && events & INPUT != 0;
    let interest = if by_edge { Interest::Input } else { interest(events) };
    Some(Target { waited: Waited { fd, interest }, inode, device })
}

/// The device number of fstat(2) as fdinfo has it: the kernel's own `MKDEV`, 20 bits of minor.
pub(super) fn kernel_device(major: u32, minor: u32) -> u64 {
    (u64::from(major) << 20) | u64::from(minor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waited(fd: i32, interest: Interest) -> Waited {
        Waited { fd, interest }
    }

    fn pollfd(fd: i32, events: u16) -> Vec<u8> {
        [&fd.to_ne_bytes()[..], &events.to_ne_bytes(), &[0xff, 0xff]].concat()
    }

    #[test]
    fn reads_pollfds() {
        let bytes = [
            pollfd(5, 0x1),
            pollfd(-1, 0x1),
            pollfd(6, 0x4),
            pollfd(7, 0x5),
            pollfd(8, 0x2),
            pollfd(9, 0x40 | 0x2),
            pollfd(10, 0),
        ]
        .concat();
        let expected = [
            waited(5, Interest::Input),
            waited(6, Interest::Output),
            waited(7, Interest::Output),
            waited(8, Interest::Hangup),
            waited(9, Interest::Input),
            waited(10, Interest::Hangup),
        ];
        assert_eq!(pollfds(&bytes), expected);
        assert!(pollfds(&bytes[..7]).is_empty(), "half an entry is none");
    }

    #[test]
    fn reads_fd_sets() {
        let mut bytes = [0u8; 16];
        bytes[0] = 0b1000_0001;
        bytes[8] = 0b0000_0010;
        let fds =
            |nfds| -> Vec<i32> { fd_set(&bytes, nfds, Interest::Input).into_iter().map(|w| w.fd).collect() };
        assert_eq!(fds(66), [0, 7, 65]);
        assert_eq!(fds(65), [0, 7], "only what is below nfds");
        assert_eq!(fds(1000), [0, 7, 65], "what was not read is not set");
        assert_eq!([fd_set_len(0), fd_set_len(1), fd_set_len(64), fd_set_len(65)], [0, 8, 8, 16]);
    }

    fn time(seconds: i64, rest: i64) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seconds.to_ne_bytes());
        bytes[8..].copy_from_slice(&rest.to_ne_bytes());
        bytes
    }

    #[test]
    fn reads_durations() {
        assert_eq!(duration(time(3, 5), 1), Some(3 * SECOND + 5));
        assert_eq!(duration(time(3, 5), 1_000), Some(3 * SECOND + 5_000));
        assert_eq!(duration(time(0, 2_000_000), 1_000), Some(2 * SECOND));
        assert_eq!(duration(time(0, 1_000_000_000), 1), None);
        assert_eq!(duration(time(-1, 0), 1), None);
        assert_eq!(duration(time(0, -1), 1_000), None);
        assert_eq!(duration(time(i64::MAX, 0), 1), Some(u64::MAX));
    }

    #[test]
    fn reads_the_targets_of_an_epoll() {
        let text = "pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t1057\n\
            tfd:        5 events:       19 data:                5  pos:0 ino:1a2b sdev:9\n\
            tfd:        6 events: 8000201d data: ffffffffffffffff  pos:0 ino:1a2c sdev:9\n\
            tfd:        7 events:       1c data:                7  pos:0 ino:1a2d sdev:9\n\
            tfd:        8 events: 40000000 data:                8  pos:0 ino:1a2e sdev:9\n\
            tfd:        9 events: 8000001c data:                9  pos:0 ino:1a2f sdev:9\n\
            tfd:       10 events:       18 data:                9  pos:0 ino:1a30 sdev:9\n";
        let read: Vec<_> =
            targets(text).expect("targets").iter().map(|t| (t.waited, t.inode, t.device)).collect();
        let expected = [
            (waited(5, Interest::Input), 0x1a2b, 9),
            (waited(6, Interest::Input), 0x1a2c, 9),
            (waited(7, Interest::Output), 0x1a2d, 9),
            (waited(8, Interest::Hangup), 0x1a2e, 9),
            (waited(9, Interest::Output), 0x1a2f, 9),
            (waited(10, Interest::Hangup), 0x1a30, 9),
        ];
        assert_eq!(read, expected);
        assert_eq!(targets("pos:\t0\nflags:\t02\n"), Ok(Vec::new()));
    }

    #[test]
    fn refuses_targets_it_does_not_understand() {
        for line in [
            "tfd: 5 events: 19 data: 5",
            "tfd: -5 events: 19 data: 5 pos:0 ino:1 sdev:9",
            "tfd: 5 events: xx data: 5 pos:0 ino:1 sdev:9",
            "tfd:",
        ] {
            assert!(targets(line).is_err(), "{line}");
        }
        let line = "tfd: 5 events: 19 data: 5 pos:0 ino:1 sdev:9\n";
        assert!(targets(&line.repeat(MOST)).is_ok());
        assert!(targets(&line.repeat(MOST + 1)).is_err(), "too many");
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), nfds in 0usize..2000) {
            let n = pollfds(&bytes).len();
            prop_assert!(n <= bytes.len() / POLLFD);
            let set = fd_set(&bytes, nfds, Interest::Input);
            prop_assert!(set.iter().all(|w| usize::try_from(w.fd).is_ok_and(|fd| fd < nfds)));
            if let Ok(bytes) = <[u8; 16]>::try_from(bytes.iter().copied().take(16).collect::<Vec<_>>()) {
                let _ = (duration(bytes, 1), duration(bytes, 1_000));
            }
        }

        #[test]
        fn targets_never_panic(text in "(tfd:[ 0-9-]{0,12}( events:| data:| ino:| sdev:|[a-f0-9]{0,20}|\\PC){0,8}\n?){0,4}") {
            let _ = targets(&text);
        }
    }
}
