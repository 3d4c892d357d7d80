//! What an actor waits for: descriptors under names, and the calls that block on them. Every call is the system call of its
//! name, so that what the agent reads of it is what the test says.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use nix::errno::Errno;
use reaper_tests::script::{Call, Open};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::net::{SocketFlags, accept_with};

static OPENED: Mutex<BTreeMap<String, OwnedFd>> = Mutex::new(BTreeMap::new());

fn opened() -> MutexGuard<'static, BTreeMap<String, OwnedFd>> {
    OPENED.lock().unwrap()
}

/// The descriptor of this name, which no script closes while another thread waits for it.
fn number(name: &str) -> RawFd {
    if name == "stdin" {
        return libc::STDIN_FILENO;
    }
    opened().get(name).unwrap_or_else(|| panic!("{name} is not open")).as_raw_fd()
}

/// Opens something under a name. Gives its address, if it is a TCP socket that listens.
pub(crate) fn open(dir: &Path, name: &str, what: &Open) -> Option<SocketAddr> {
    let mut address = None;
    let descriptor: OwnedFd = match what {
        Open::Listener(at) => match at.parse::<SocketAddr>() {
            Ok(at) => {
                let listener = TcpListener::bind(at).unwrap();
                address = listener.local_addr().ok();
                listener.into()
            }
            Err(_) => UnixListener::bind(dir.join(at)).unwrap().into(),
        },
        Open::Connection(to) => match to.parse::<SocketAddr>() {
            Ok(to) => TcpStream::connect(to).unwrap().into(),
            Err(_) => UnixStream::connect(dir.join(to)).unwrap().into(),
        },
        Open::Client(listener) => accept(number(listener)),
        Open::Pipe(writer) => {
            let (reader, end) = std::io::pipe().unwrap();
            opened().insert(writer.clone(), end.into());
            reader.into()
        }
        Open::Counter => eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
        Open::Epoll { targets, edge } => {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            let edge = if *edge { epoll::EventFlags::ET } else { epoll::EventFlags::empty() };
            let opened = opened();
            for target in targets {
                let data = epoll::EventData::new_u64(0);
                epoll::add(&epoll, &opened[target], data, epoll::EventFlags::IN | edge).unwrap();
            }
            epoll
        }
        Open::File(file) => {
            let path = dir.join(file);
            OpenOptions::new().read(true).open(path).map(File::into).unwrap()
        }
    };
    opened().insert(name.to_owned(), descriptor);
    address
}

/// Closes what was opened under a name.
pub(crate) fn close(name: &str) {
    assert!(opened().remove(name).is_some(), "{name} is not open");
}

fn accept(listener: RawFd) -> OwnedFd {
    // SAFETY: it stays open until the script closes it, which it does not while it waits for it.
    let listener = unsafe { BorrowedFd::borrow_raw(listener) };
    accept_with(listener, SocketFlags::CLOEXEC).unwrap()
}

/// Blocks once.
pub(crate) fn wait(call: Call, names: &[String]) {
    let mut fds: Vec<RawFd> = names.iter().map(|name| number(name)).collect();
    let outcome = match call {
        Call::Accept => {
            drop(accept(fds[0]));
            0
        }
        Call::Poll => poll(&fds),
        Call::Select => select(&fds),
        Call::Epoll => {
            let mut events = [libc::epoll_event { events: 0, u64: 0 }; 4];
            // SAFETY: `events` has room for as many as are asked for.
            unsafe { libc::epoll_wait(fds[0], events.as_mut_ptr(), 4, -1) }
        }
        Call::Read => read(fds.remove(0)),
        // SAFETY: flock(2) takes two numbers.
        Call::Flock => unsafe { libc::flock(fds[0], libc::LOCK_EX) },
    };
    assert!(outcome >= 0, "{call:?}: {}", Errno::last());
}

fn poll(fds: &[RawFd]) -> i32 {
    let mut set: Vec<_> =
        fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: the pointer and the length are those of a live vector.
    unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, -1) }
}

fn select(fds: &[RawFd]) -> i32 {
    let none = std::ptr::null_mut();
    // SAFETY: all zero is an empty set; the numbers are small; the pointers are to live values, or null.
    unsafe {
        let mut set: libc::fd_set = std::mem::zeroed();
        fds.iter().for_each(|&fd| libc::FD_SET(fd, &raw mut set));
        let most = fds.iter().max().map_or(0, |fd| fd + 1);
        libc::select(most, &raw mut set, none, none, std::ptr::null_mut())
    }
}

fn read(fd: RawFd) -> i32 {
    let mut room = [0_u8; 4096];
    // SAFETY: the pointer and the length are those of a live array.
    let got = unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) };
    i32::try_from(got).unwrap()
}

/// Writes so many bytes.
pub(crate) fn send(name: &str, bytes: usize) {
    let content = vec![b'x'; bytes];
    // SAFETY: the pointer and the length are those of a live vector.
    let sent = unsafe { libc::write(number(name), content.as_ptr().cast(), bytes) };
    assert_eq!(usize::try_from(sent), Ok(bytes), "{}", Errno::last());
}

/// clock_nanosleep(2) for so long, not until a point in time as the standard library does.
pub(crate) fn nanosleep(ms: u64) {
    let length = libc::timespec {
        tv_sec: (ms / 1_000).try_into().unwrap(),
        tv_nsec: (ms % 1_000 * 1_000_000).try_into().unwrap(),
    };
    // SAFETY: the pointer is to a live value; nothing is to be told of what is left.
    unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const length, std::ptr::null_mut()) };
}
