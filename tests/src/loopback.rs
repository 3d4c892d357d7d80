//! The loopback interface, which a new network namespace and a new machine have, but switched off.

use nix::errno::Errno;

/// Switches it on for the network namespace of the calling thread.
pub fn up() -> nix::Result<()> {
    // SAFETY: all zero is a valid ifreq, in which there is room for the name; the request reads and writes only that.
    let outcome = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        std::ptr::copy_nonoverlapping(c"lo".as_ptr(), request.ifr_name.as_mut_ptr(), 3);
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let outcome = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw mut request);
        libc::close(socket);
        outcome
    };
    Errno::result(outcome).map(drop)
}
