//! Every system call that sends or receives on a socket, with the connections to try them on.

use std::any::Any;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

/// What [`send`] can send with.
pub(crate) const SENDS: [&str; 7] =
    ["write", "writev", "send", "sendto", "MSG_DONTWAIT", "sendmsg", "sendmmsg"];

/// What [`receive`] can receive with, as many.
pub(crate) const RECEIVES: [&str; 7] =
    ["read", "readv", "recv", "recvfrom", "MSG_DONTWAIT", "recvmsg", "recvmmsg"];

/// Sends by one of [`SENDS`]. How many bytes that sent; negative is an error.
pub(crate) fn send(call: &str, fd: RawFd, bytes: &[u8]) -> isize {
    let (data, len) = (bytes.as_ptr().cast(), bytes.len());
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: len };
    let mut many = libc::mmsghdr { msg_hdr: message(&mut vector), msg_len: 0 };
    // SAFETY: the pointers are to the slice and to what is on the stack, which the kernel only reads.
    unsafe {
        match call {
            "write" => libc::write(fd, data, len),
            "writev" => libc::writev(fd, &raw const vector, 1),
            "send" => libc::send(fd, data, len, 0),
            "sendto" => libc::sendto(fd, data, len, 0, std::ptr::null(), 0),
            "MSG_DONTWAIT" => libc::send(fd, data, len, libc::MSG_DONTWAIT),
            "sendmsg" => libc::sendmsg(fd, &raw const many.msg_hdr, 0),
            "sendmmsg" => match libc::sendmmsg(fd, &raw mut many, 1, 0) {
                1 => many.msg_len.cast_signed().try_into().unwrap(),
                _ => -1,
            },
            _ => panic!("{call}"),
        }
    }
}

/// Receives by one of [`RECEIVES`]. How many bytes that received; negative is an error.
pub(crate) fn receive(call: &str, fd: RawFd, room: &mut [u8]) -> isize {
    let (data, len) = (room.as_mut_ptr().cast(), room.len());
    let mut vector = libc::iovec { iov_base: data, iov_len: len };
    let mut many = libc::mmsghdr { msg_hdr: message(&mut vector), msg_len: 0 };
    let none = std::ptr::null_mut();
    // SAFETY: the pointers are to the slice and to what is on the stack.
    unsafe {
        match call {
            "read" => libc::read(fd, data, len),
            "readv" => libc::readv(fd, &raw const vector, 1),
            "recv" => libc::recv(fd, data, len, 0),
            "recvfrom" => libc::recvfrom(fd, data, len, 0, std::ptr::null_mut(), std::ptr::null_mut()),
            "MSG_DONTWAIT" => libc::recv(fd, data, len, libc::MSG_DONTWAIT),
            "recvmsg" => libc::recvmsg(fd, &raw mut many.msg_hdr, 0),
            "recvmmsg" => match libc::recvmmsg(fd, &raw mut many, 1, libc::MSG_DONTWAIT, none) {
                1 => many.msg_len.cast_signed().try_into().unwrap(),
                _ => -1,
            },
            _ => panic!("{call}"),
        }
    }
}

/// A message of one buffer.
fn message(vector: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: all zeros are an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vector;
    message.msg_iovlen = 1;
    message
}

/// Both ends of a connection.
pub(crate) struct Ends {
    pub(crate) name: &'static str,
    pub(crate) near: RawFd,
    pub(crate) far: RawFd,
    /// Keeps them open.
    _both: Box<dyn Any>,
}

impl Ends {
    fn new<T: AsRawFd + 'static>(name: &'static str, near: T, far: T) -> Self {
        Self { name, near: near.as_raw_fd(), far: far.as_raw_fd(), _both: Box::new((near, far)) }
    }

    /// A connection of each kind.
    pub(crate) fn of_each_kind() -> [Self; 4] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let tcp = Self::new("tcp", near, listener.accept().unwrap().0);

        let (near, far) = UnixStream::pair().unwrap();
        let unix = Self::new("unix", near, far);

        let (near, far) = UnixDatagram::pair().unwrap();
        let datagram = Self::new("unix datagram", near, far);

        let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        near.connect(far.local_addr().unwrap()).unwrap();
        far.connect(near.local_addr().unwrap()).unwrap();
        [tcp, unix, datagram, Self::new("udp", near, far)]
    }
}
