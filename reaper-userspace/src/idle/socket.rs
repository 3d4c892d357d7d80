//! What an open file of another process is, asked of a duplicate of it (pidfd_getfd(2)).
//!
//! The duplicate is the same open file: its addresses are those in the process's own network namespace, whichever that is, and
//! asking costs the same with ten sockets and with a million, which `/proc/PID/net` does not. It takes the same right as
//! ptrace(2), and it is closed at once.

use std::os::fd::{AsFd, BorrowedFd};

use core::net::IpAddr;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketAddrV4, SocketAddrV6, SocketType, getpeername,
    getsockname, ipproto, sockopt,
};

use crate::core::sample::{Address, FileKind};

/// What a socket is.
pub(super) fn kind(socket: impl AsFd) -> Result<FileKind, Errno> {
    let socket = socket.as_fd();
    let family = sockopt::socket_domain(socket)?;
    Ok(match family {
        AddressFamily::INET | AddressFamily::INET6 => internet(socket)?,
        AddressFamily::UNIX => unix(socket)?,
        AddressFamily::NETLINK => FileKind::Unconnected { family: "netlink".to_owned(), local: None },
        AddressFamily::PACKET => FileKind::Unconnected { family: "packet".to_owned(), local: None },
        other => FileKind::Other(format!("a socket of address family {}", other.as_raw())),
    })
}

fn internet(socket: BorrowedFd<'_>) -> Result<FileKind, Errno> {
    let protocol = sockopt::socket_protocol(socket)?;
    let is_tcp = matches!(protocol, Some(ipproto::TCP | ipproto::MPTCP));
    let name = match protocol {
        Some(ipproto::TCP) => "tcp".to_owned(),
        Some(ipproto::MPTCP) => "mptcp".to_owned(),
        Some(ipproto::UDP) => "udp".to_owned(),
        Some(other) => format!("IP protocol {}", other.as_raw()),
        None => "IP".to_owned(),
    };
    if is_tcp && sockopt::socket_acceptconn(socket)? {
        return Ok(match tcp(&getsockname(socket)?) {
            Some(address) => FileKind::Listening(address),
            None => FileKind::Other("a listening socket at no IP address".to_owned()),
        });
    }
    Ok(match peer(socket)? {
        Peer::None => {
            let local = if is_tcp { tcp(&getsockname(socket)?) } else { None };
            let local = local.filter(|at| !matches!(at, Address::Tcp(_, 0)));
            FileKind::Unconnected { family: name, local }
        }
        Peer::Unnamed => FileKind::Other(format!("a {name} socket to no IP address")),
        Peer::At(address) => match (is_tcp, tcp(&getsockname(socket)?), tcp(&address)) {
            (true, Some(local), Some(peer)) => FileKind::Connected { local, peer },
            (_, _, Some(Address::Tcp(ip, port))) => {
                FileKind::Other(format!("a {name} socket to {ip}:{port}"))
            }
            _ => FileKind::Other(format!("a {name} socket to no IP address")),
        },
    })
}

/// IP address and port, told as IPv4 where it is mapped into IPv6.
fn tcp(address: &SocketAddrAny) -> Option<Address> {
    let (ip, port) = match address.address_family() {
        AddressFamily::INET => {
            let v4 = SocketAddrV4::try_from(address.clone()).ok()?;
            (IpAddr::V4(*v4.ip()), v4.port())
        }
        AddressFamily::INET6 => {
            let v6 = SocketAddrV6::try_from(address.clone()).ok()?;
            (IpAddr::V6(*v6.ip()), v6.port())
        }
        _ => return None,
    };
    Some(Address::Tcp(ip.to_canonical(), port))
}

fn unix(socket: BorrowedFd<'_>) -> Result<FileKind, Errno> {
    let local = name(&getsockname(socket)?);
    if sockopt::socket_acceptconn(socket)? {
        return Ok(FileKind::Listening(Address::Unix(local)));
    }
    let peer = match peer(socket)? {
        Peer::None => return Ok(FileKind::Unconnected { family: "unix".to_owned(), local: None }),
        Peer::Unnamed => String::new(),
        Peer::At(address) => name(&address),
    };
    if !local.is_empty() || !peer.is_empty() {
        return Ok(FileKind::Connected { local: Address::Unix(local), peer: Address::Unix(peer) });
    }
    // Of datagram sockets that were connected nobody has noted it down; it is in another pid namespace: both are 0.
    let pid = match sockopt::socket_type(socket)? {
        SocketType::STREAM | SocketType::SEQPACKET | SocketType::DGRAM => {
            sockopt::socket_peercred(socket).map_or(0, |c| c.pid.as_raw_nonzero().get())
        }
        _ => 0,
    };
    Ok(FileKind::Pair { peer: u32::try_from(pid).unwrap_or_default() })
}

/// The path, `@` and the abstract name, or nothing.
fn name(address: &SocketAddrAny) -> String {
    let Ok(unix) = SocketAddrUnix::try_from(address.clone()) else { return String::new() };
    match (unix.path_bytes(), unix.abstract_name()) {
        (Some(path), _) => String::from_utf8_lossy(path).into_owned(),
        // Without a name at all it is told as an abstract name without a character.
        (None, Some(name)) if !name.is_empty() => format!("@{}", String::from_utf8_lossy(name)),
        (None, _) => String::new(),
    }
}

enum Peer {
    /// It is not connected.
    None,
    /// It is, to somebody without an address.
    Unnamed,
    At(SocketAddrAny),
}

fn peer(socket: BorrowedFd<'_>) -> Result<Peer, Errno> {
    match getpeername(socket) {
        Ok(Some(address)) => Ok(Peer::At(address)),
        Ok(None) => Ok(Peer::Unnamed),
        // An end of TCP that was reset is not connected any more (kernel: `inet_getname` of a closed one).
        Err(Errno::NOTCONN) => Ok(Peer::None),
        Err(e) => Err(e),
    }
}

/// Whether reading from it, or accepting, would not block. `hangups`: an end of file shows as a hang-up (pipes).
pub(super) fn readable(file: impl AsFd, hangups: bool) -> Option<bool> {
    let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).ok()?;
    let revents = fds[0].revents();
    Some(revents.contains(PollFlags::IN) || (hangups && revents.intersects(PollFlags::HUP | PollFlags::ERR)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    fn at(address: std::net::SocketAddr) -> Address {
        Address::Tcp(address.ip().to_canonical(), address.port())
    }

    #[test]
    fn tells_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let here = listener.local_addr().expect("its address");
        assert_eq!(kind(&listener), Ok(FileKind::Listening(at(here))));
        assert_eq!(readable(&listener, false), Some(false));
        let mut client = TcpStream::connect(here).expect("a connection");
        assert_eq!(readable(&listener, false), Some(true), "somebody waits to be accepted");
        let (server, there) = listener.accept().expect("it");
        assert_eq!(kind(&server), Ok(FileKind::Connected { local: at(here), peer: at(there) }));
        assert_eq!(kind(&client), Ok(FileKind::Connected { local: at(there), peer: at(here) }));
        assert_eq!(readable(&server, false), Some(false));
        client.write_all(b"x").expect("written");
        assert_eq!(readable(&server, false), Some(true));
        drop(client);
        assert_eq!(readable(&server, false), Some(true), "the end of file too");
    }

    #[test]
    fn an_accepted_connection_that_was_reset_is_still_known_by_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let here = listener.local_addr().expect("its address");
        let client = TcpStream::connect(here).expect("a connection");
        let (server, _) = listener.accept().expect("it");
        sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).expect("set");
        drop(client);
        let begun = std::time::Instant::now();
        while matches!(kind(&server), Ok(FileKind::Connected { .. })) && begun.elapsed().as_secs() < 5 {
            std::thread::yield_now();
        }
        let expected = FileKind::Unconnected { family: "tcp".to_owned(), local: Some(at(here)) };
        assert_eq!(kind(&server), Ok(expected));
    }

    #[test]
    fn tells_ipv4_mapped_into_ipv6_as_ipv4() {
        // Without IPv6 there is nothing to be mapped into.
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let port = listener.local_addr().expect("its address").port();
        let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let (server, _) = listener.accept().expect("it");
        let local = Address::Tcp(IpAddr::from([127, 0, 0, 1]), port);
        let expected = FileKind::Connected { local, peer: at(client.local_addr().expect("its address")) };
        assert_eq!(kind(&server), Ok(expected));
    }

    #[test]
    fn tells_unix_sockets() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).expect("bound");
        let address = || Address::Unix(path.to_string_lossy().into_owned());
        assert_eq!(kind(&listener), Ok(FileKind::Listening(address())));
        let client = UnixStream::connect(&path).expect("connected");
        let (server, _) = listener.accept().expect("it");
        let unnamed = || Address::Unix(String::new());
        assert_eq!(kind(&client), Ok(FileKind::Connected { local: unnamed(), peer: address() }));
        assert_eq!(kind(&server), Ok(FileKind::Connected { local: address(), peer: unnamed() }));
        let (a, b) = UnixStream::pair().expect("a pair");
        let pair = FileKind::Pair { peer: std::process::id() };
        assert_eq!((kind(&a), kind(&b)), (Ok(pair.clone()), Ok(pair.clone())));
        drop(b);
        assert_eq!(kind(&a), Ok(pair), "its other end is gone");
        assert_eq!(readable(&a, false), Some(true));
        let datagram = UnixDatagram::unbound().expect("a socket");
        assert_eq!(kind(&datagram), Ok(FileKind::Unconnected { family: "unix".to_owned(), local: None }));
    }

    #[test]
    fn tells_abstract_names() {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("reaper-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("bound");
        assert_eq!(kind(&listener), Ok(FileKind::Listening(Address::Unix(format!("@{name}")))));
    }

    #[test]
    fn tells_udp() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        assert_eq!(kind(&socket), Ok(FileKind::Unconnected { family: "udp".to_owned(), local: None }));
        let port = socket.local_addr().expect("its address").port();
        socket.connect(("127.0.0.1", port)).expect("connected");
        assert_eq!(kind(&socket), Ok(FileKind::Other(format!("a udp socket to 127.0.0.1:{port}"))));
    }

    #[test]
    fn a_pipe_without_writers_is_at_its_end() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        assert_eq!(readable(&reader, true), Some(false));
        drop(writer);
        assert_eq!(readable(&reader, true), Some(true));
        assert_eq!(kind(&reader), Err(Errno::NOTSOCK));
    }
}
