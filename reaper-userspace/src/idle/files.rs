//! The descriptors of one process: its sockets, and those that its threads wait for.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use nix::libc;
use rustix::fs::{AtFlags, Dir, FileType, StatxFlags, fstat, readlinkat, statx};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::holders::Holders;
use super::known::Known;
use super::parse::{self, Interest, Target};
use super::socket;
use super::wait::Place;
use crate::core::ids::Ns;
use crate::core::sample::{File, FileKind};
use crate::procfs::Opened;

/// So many sockets of one process are asked what they are; each takes some microseconds.
const MOST_SOCKETS: usize = 4096;

/// One look into one process. What it opens is opened once, relative to the directory that was checked.
pub(super) struct Look<'a> {
    opened: &'a Opened,
    /// `/proc/PID/fd`.
    links: Result<fs::File, String>,
    memory: OnceCell<Result<fs::File, String>>,
    pidfd: OnceCell<Result<OwnedFd, String>>,
}

/// `/proc/PID/mem`, `/proc/PID/fd` and `/proc/PID/fdinfo`, proc(5).
impl Place for Look<'_> {
    fn memory(&self, at: u64, into: &mut [u8]) -> Result<(), String> {
        let memory = self.memory.get_or_init(|| self.opened.file("mem").map_err(|e| e.to_string()));
        let memory = memory.as_ref().map_err(Clone::clone)?;
        memory.read_exact_at(into, at).map_err(|e| format!("its memory cannot be read: {e}"))
    }

    fn epoll(&self, fd: i32) -> Result<Option<Vec<Target>>, String> {
        if self.link(fd)? != "anon_inode:[eventpoll]" {
            return Ok(None);
        }
        let fdinfo = self.opened.read(&format!("fdinfo/{fd}")).map_err(|e| e.to_string())?;
        let targets = parse::targets(&fdinfo).map_err(|e| format!("epoll descriptor {fd}: {e}"))?;
        for target in targets.iter().filter(|t| t.waited.interest != Interest::Hangup) {
            self.check(fd, target)?;
        }
        Ok(Some(targets))
    }

    fn patience(&self, fd: i32) -> Result<Option<Ns>, String> {
        if !self.link(fd)?.starts_with("socket:[") {
            return Ok(None);
        }
        let duplicate = self.duplicate(fd)?.ok_or_else(|| format!("descriptor {fd} was closed meanwhile"))?;
        let limit = sockopt::socket_timeout(duplicate, sockopt::Timeout::Recv);
        let limit = limit.map_err(|e| format!("descriptor {fd}: SO_RCVTIMEO: {e}"))?;
        Ok(limit.map(|l| l.as_nanos().try_into().unwrap_or(Ns::MAX)))
    }
}

impl<'a> Look<'a> {
    pub(super) fn new(opened: &'a Opened) -> Self {
        let links = if opened.stat.state == 'Z' {
            Err("its main thread has ended, and its descriptors are shown no more".to_owned())
        } else {
            opened.file("fd").map_err(|e| e.to_string())
        };
        Self { opened, links, memory: OnceCell::new(), pidfd: OnceCell::new() }
    }

    /// Whether thread `tid` has the process's descriptors, and not a table of its own (`unshare(CLONE_FILES)`), in which the
    /// numbers mean something else.
    pub(super) fn shares_descriptors(&self, tid: u32) -> Result<(), String> {
        /// `KCMP_FILES` of `linux/kcmp.h`.
        const KCMP_FILES: libc::c_int = 2;
        let (pid, none) = (self.opened.pid, 0 as libc::c_ulong);
        if tid == pid {
            return Ok(());
        }
        // SAFETY: kcmp(2) takes five numbers and touches no memory of the caller.
        match unsafe { libc::syscall(libc::SYS_kcmp, pid, tid, KCMP_FILES, none, none) } {
            0 => Ok(()),
            -1 => {
                let why = std::io::Error::last_os_error();
                Err(format!("whether thread {tid} has the process's descriptors is not known: kcmp: {why}"))
            }
            _ => Err(format!("thread {tid} has descriptors of its own")),
        }
    }

    /// Every socket and everything in `waited`, and why that is not all, if it is not. What is `known` is not asked again, unless
    /// it is waited for.
    pub(super) fn files(
        &self,
        waited: &BTreeSet<i32>,
        known: &mut Known,
        holders: &mut Holders,
    ) -> (Vec<File>, Option<String>) {
        let mut incomplete = None;
        let mut numbers: BTreeMap<i32, Option<u64>> = waited.iter().map(|fd| (*fd, None)).collect();
        match self.sockets() {
            Ok(sockets) => {
                if sockets.len() > MOST_SOCKETS {
                    incomplete = Some(format!("it has {} sockets, more than {MOST_SOCKETS}", sockets.len()));
                }
                for (fd, inode) in sockets.into_iter().take(MOST_SOCKETS) {
                    numbers.entry(fd).or_insert(Some(inode));
                }
            }
            Err(why) => incomplete = Some(why),
        }
        let mut files = Vec::with_capacity(numbers.len());
        for (fd, inode) in numbers {
            // It was accepted, which is all that matters of it: no queue is behind it, so nobody asks what is unread on it.
            if let Some(what) = inode.and_then(|inode| known.accepted(fd, inode)) {
                let inode = inode.unwrap_or_default();
                let holders = holders.besides(self.opened.pid, inode);
                files.push(File { fd, what, inode, readable: None, holders, traffic: None });
                continue;
            }
            match self.file(fd, holders) {
                Ok(Some(file)) => files.push(file),
                Ok(None) if waited.contains(&fd) => files.push(unknown(fd, "it was closed meanwhile")),
                Ok(None) => {}
                Err(why) => {
                    files.push(unknown(fd, &why));
                    incomplete.get_or_insert_with(|| format!("descriptor {fd}: {why}"));
                }
            }
        }
        known.remember(&files);
        (files, incomplete)
    }

    /// The numbers of its sockets, and their inodes.
    fn sockets(&self) -> Result<Vec<(i32, u64)>, String> {
        let links = self.links.as_ref().map_err(Clone::clone)?;
        let failed = |e: Errno| format!("/proc/{}/fd: {e}", self.opened.pid);
        let mut sockets = Vec::new();
        let mut buffer = Vec::with_capacity(256);
        for entry in Dir::read_from(links).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let number = entry.file_name().to_str().ok().and_then(|n| n.parse::<i32>().ok());
            let Some(fd) = number else { continue };
            match readlinkat(links, entry.file_name(), std::mem::take(&mut buffer)) {
                Ok(link) => {
                    let is_socket = link.to_bytes().starts_with(b"socket:[");
                    let inode = link.to_str().ok().and_then(inode_of).filter(|_| is_socket);
                    sockets.extend(inode.map(|inode| (fd, inode)));
                    buffer = link.into_bytes();
                }
                // Closed meanwhile.
                Err(Errno::NOENT) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(sockets)
    }

    /// What descriptor `fd` is. `None` if there is none.
    fn file(&self, fd: i32, holders: &mut Holders) -> Result<Option<File>, String> {
        let links = self.links.as_ref().map_err(Clone::clone)?;
        let link = match readlinkat(links, fd.to_string(), Vec::with_capacity(64)) {
            Ok(link) => link.to_string_lossy().into_owned(),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e.to_string()),
        };
        let mut inode = inode_of(&link).unwrap_or_default();
        let mut what = by_link(&link);
        if link.starts_with('/')
            && let Ok(stat) = self.stat(fd)
            && FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Fifo
        {
            (what, inode) = (FileKind::Pipe, stat.stx_ino);
        }
        let is_socket = link.starts_with("socket:[");
        let is_pipe = what == FileKind::Pipe;
        let mut readable = None;
        if is_socket || is_pipe || asks_readable(&what) {
            let Some(duplicate) = self.duplicate(fd)? else { return Ok(None) };
            let is_same = fstat(&duplicate).is_ok_and(|s| s.st_ino == inode);
            if (is_socket || is_pipe) && !is_same {
                return Err("it became another one while it was looked at".to_owned());
            }
            if is_socket {
                what = socket::kind(&duplicate).map_err(|e| format!("{link}: {e}"))?;
            }
            readable = socket::readable(&duplicate, is_pipe);
        }
        let is_shared = matches!(what, FileKind::Pipe | FileKind::Pair { .. } | FileKind::Connected { .. });
        // A FIFO's number is its file system's: another one than that of pipes and sockets.
        let is_fifo = link.starts_with('/');
        let holders = if is_shared && !is_fifo { holders.besides(self.opened.pid, inode) } else { None };
        Ok(Some(File { fd, what, inode, readable, holders, traffic: None }))
    }

    fn link(&self, fd: i32) -> Result<String, String> {
        let links = self.links.as_ref().map_err(Clone::clone)?;
        let link = readlinkat(links, fd.to_string(), Vec::with_capacity(64));
        link.map(|l| l.to_string_lossy().into_owned()).map_err(|e| format!("descriptor {fd}: {e}"))
    }

    /// Follows the link to the file itself, without asking a network for it.
    fn stat(&self, fd: i32) -> Result<rustix::fs::Statx, String> {
        let links = self.links.as_ref().map_err(Clone::clone)?;
        let wanted = StatxFlags::TYPE | StatxFlags::INO;
        statx(links, fd.to_string(), AtFlags::STATX_DONT_SYNC, wanted)
            .map_err(|e| format!("descriptor {fd}: {e}"))
    }

    /// Whether the number that an epoll target was added with still stands for the same file. What was inherited, closed or
    /// duplicated may be waited for under a number that is another's now.
    fn check(&self, epoll: i32, target: &Target) -> Result<(), String> {
        let fd = target.waited.fd;
        let stat = self.stat(fd).map_err(|e| format!("a target of epoll descriptor {epoll}: {e}"))?;
        let device = parse::kernel_device(stat.stx_dev_major, stat.stx_dev_minor);
        if (stat.stx_ino, device) == (target.inode, target.device) {
            Ok(())
        } else {
            Err(format!("epoll descriptor {epoll} waits for a file that is not descriptor {fd} any more"))
        }
    }

    /// A duplicate of descriptor `fd`. `None` if there is none.
    fn duplicate(&self, fd: i32) -> Result<Option<OwnedFd>, String> {
        let pidfd = self.pidfd.get_or_init(|| self.hold()).as_ref().map_err(Clone::clone)?;
        match pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty()) {
            Ok(duplicate) => Ok(Some(duplicate)),
            Err(Errno::BADF) => Ok(None),
            Err(e) => Err(format!("pidfd_getfd: {e}")),
        }
    }

    /// A pidfd of this very process: its directory answers after the pid was used, so the pid was still its own.
    fn hold(&self) -> Result<OwnedFd, String> {
        let pid = i32::try_from(self.opened.pid).ok().and_then(Pid::from_raw).ok_or("it has no pid")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| format!("pidfd_open: {e}"))?;
        self.opened.read("stat").map_err(|e| e.to_string())?;
        Ok(pidfd)
    }
}

fn unknown(fd: i32, why: &str) -> File {
    let what = FileKind::Other(why.to_owned());
    File { fd, what, inode: 0, readable: None, holders: None, traffic: None }
}

/// The inode of a pipe or socket, from its link.
pub(super) fn inode_of(link: &str) -> Option<u64> {
    let rest = link.strip_prefix("socket:[").or_else(|| link.strip_prefix("pipe:["))?;
    rest.strip_suffix(']')?.parse().ok()
}

/// What a `/proc/PID/fd` link says by itself. Paths begin with a slash, so no file can be named to look like another kind.
pub(super) fn by_link(link: &str) -> FileKind {
    if link.starts_with("pipe:[") {
        return FileKind::Pipe;
    }
    // Since 6.9 pidfds have a file system of their own.
    if link.starts_with("pidfd:[") {
        return FileKind::Other("pidfd".to_owned());
    }
    let Some(name) = link.strip_prefix("anon_inode:") else { return FileKind::Other(link.to_owned()) };
    match name.trim_start_matches('[').trim_end_matches(']') {
        name @ ("eventfd" | "timerfd" | "signalfd" | "inotify") => FileKind::Neutral(name.to_owned()),
        name => FileKind::Other(name.to_owned()),
    }
}

/// Whether poll(2) from outside says the same as from inside. A signalfd tells of the signals of whoever asks.
fn asks_readable(what: &FileKind) -> bool {
    matches!(what, FileKind::Neutral(name) if name == "eventfd" || name == "inotify")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_kinds_by_their_links() {
        let neutral = |n: &str| FileKind::Neutral(n.to_owned());
        let other = |n: &str| FileKind::Other(n.to_owned());
        for (link, kind) in [
            ("pipe:[12]", FileKind::Pipe),
            ("anon_inode:[eventfd]", neutral("eventfd")),
            ("anon_inode:[timerfd]", neutral("timerfd")),
            ("anon_inode:[signalfd]", neutral("signalfd")),
            ("anon_inode:inotify", neutral("inotify")),
            ("anon_inode:[eventpoll]", other("eventpoll")),
            ("anon_inode:[io_uring]", other("io_uring")),
            ("anon_inode:[pidfd]", other("pidfd")),
            ("pidfd:[77]", other("pidfd")),
            ("/dev/pts/3", other("/dev/pts/3")),
            ("/tmp/pipe:[12]", other("/tmp/pipe:[12]")),
            ("/tmp/x (deleted)", other("/tmp/x (deleted)")),
        ] {
            assert_eq!(by_link(link), kind, "{link}");
        }
    }

    #[test]
    fn reads_inodes() {
        assert_eq!(inode_of("socket:[123]"), Some(123));
        assert_eq!(inode_of("pipe:[7]"), Some(7));
        for link in ["socket:[]", "socket:[x]", "socket:[1", "/a/socket:[1]", "anon_inode:[eventfd]", ""] {
            assert_eq!(inode_of(link), None, "{link}");
        }
    }
}
