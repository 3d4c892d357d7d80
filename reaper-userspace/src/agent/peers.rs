//! Who may talk to the agent over its socket: root, and the members of one group if the configuration names one.
//!
//! The file's mode keeps everybody else out already. That it does is not taken for granted: whoever connects is asked of the
//! kernel (unix(7), `SO_PEERCRED` and `SO_PEERGROUPS`), and sent away without a word if it is somebody else.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use nix::libc;

/// Who is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// A group besides root.
    pub group: Option<u32>,
}

impl Peers {
    /// Gives the socket's file the mode that lets exactly these in.
    ///
    /// # Errors
    /// Its owner or mode cannot be changed.
    pub fn restrict(self, socket: &Path) -> anyhow::Result<()> {
        if let Some(gid) = self.group {
            std::os::unix::fs::chown(socket, None, Some(gid))
                .with_context(|| format!("cannot give the socket {} to group {gid}", socket.display()))?;
        }
        let mode = if self.group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(socket, Permissions::from_mode(mode))
            .with_context(|| format!("cannot restrict the socket {}", socket.display()))
    }

    /// Whether whoever has connected is one of them. In doubt it is not.
    pub fn admit(self, stream: &tokio::net::UnixStream) -> bool {
        let Ok(peer) = stream.peer_cred() else { return false };
        if peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw() {
            return true;
        }
        let Some(gid) = self.group else { return false };
        peer.gid() == gid || groups_of_peer(stream).is_ok_and(|groups| groups.contains(&gid))
    }
}

/// The supplementary groups that whoever connected had then. NGROUPS_MAX is 65,536; whoever is in more than a thousand is
/// judged by its first group alone.
fn groups_of_peer(stream: &tokio::net::UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 1024];
    let mut length = libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of a live vector; the kernel writes whole group ids (u32) into it, at most
    // so many bytes, and sets the length to what it wrote.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(usize::try_from(length).unwrap_or(0) / size_of::<u32>());
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn oneself_is_let_in() {
        let (stream, _other) = tokio::net::UnixStream::pair().expect("a pair");
        assert!(Peers::default().admit(&stream));
        let mut own = groups_of_peer(&stream).expect("the kernel tells them");
        let mut known: Vec<u32> =
            nix::unistd::getgroups().expect("known").iter().map(|g| g.as_raw()).collect();
        own.sort_unstable();
        known.sort_unstable();
        assert_eq!(own, known);
    }

    #[test]
    fn the_mode_is_for_them_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let mode = || fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        Peers::default().restrict(&path).expect("restricted");
        assert_eq!(mode(), 0o600);
        let own = rustix::process::getegid().as_raw();
        Peers { group: Some(own) }.restrict(&path).expect("restricted");
        assert_eq!(mode(), 0o660);
    }
}
