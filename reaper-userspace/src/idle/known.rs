//! The connections of a server that were asked what they are: they need not be asked again.
//!
//! Only those that clients made to a socket that still listened at the last look: they make a process busy whatever is on them.
//! Nothing is remembered of any other socket, because what is unread on it, or whom it leads to, may matter.

use rustc_hash::FxHashMap;

use crate::core::sample::{Address, File, FileKind};

/// What is known of one process's sockets.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By number: inode, and what it is.
    accepted: FxHashMap<i32, (u64, FileKind)>,
}

impl Known {
    /// What a socket is, if it is one of those.
    pub(super) fn accepted(&self, fd: i32, inode: u64) -> Option<FileKind> {
        self.accepted.get(&fd).filter(|(known, _)| *known == inode).map(|(_, what)| what.clone())
    }

    /// Replaces what was known by what a look has shown.
    pub(super) fn remember(&mut self, files: &[File]) {
        let mut listening: Vec<&Address> = files
            .iter()
            .filter_map(|f| if let FileKind::Listening(at) = &f.what { Some(at) } else { None })
            .collect();
        listening.dedup();
        let is_accepted = |what: &FileKind| match what {
            FileKind::Connected { local: Address::Tcp(_, port), .. } => {
                listening.iter().any(|at| matches!(at, Address::Tcp(_, p) if p == port))
            }
            FileKind::Connected { local, .. } => listening.contains(&local),
            _ => false,
        };
        let accepted = files.iter().filter(|f| is_accepted(&f.what));
        self.accepted = accepted.map(|f| (f.fd, (f.inode, f.what.clone()))).collect();
    }
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn tcp(port: u16) -> Address {
        Address::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }

    fn file(fd: i32, what: FileKind) -> File {
        File { fd, what, inode: 7, readable: None, holders: None, traffic: None }
    }

    #[test]
    fn remembers_what_clients_opened_and_nothing_else() {
        let connection = |local, peer| FileKind::Connected { local: tcp(local), peer: tcp(peer) };
        let mut known = Known::default();
        let client = connection(80, 40_000);
        let others = [file(5, connection(40_001, 6379)), file(6, FileKind::Pair { peer: 1 })];
        let listener = file(3, FileKind::Listening(tcp(80)));
        let look = [vec![listener, file(4, client.clone())], others.to_vec()].concat();
        known.remember(&look);
        assert_eq!(known.accepted(4, 7), Some(client));
        assert_eq!(known.accepted(4, 8), None, "another socket has its number");
        for fd in [3, 5, 6, 9] {
            assert_eq!(known.accepted(fd, 7), None, "{fd}");
        }
        known.remember(&look[1..]);
        assert_eq!(known.accepted(4, 7), None, "nobody listens any more");
    }
}
