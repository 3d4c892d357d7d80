//! The parsers of this module for `tests/fuzz`, which cannot reach them otherwise. Not part of the agent.

use super::call::{self, Arch, Blocked};
use super::parse::{self, Interest, MOST, Target};
use super::wait::{self, Place};
use super::{files, signals_caught, switches};
use crate::core::ids::Ns;
use crate::core::sample::Wait;

/// More descriptors than this no call waits for.
pub const MOST_WAITED: usize = MOST;

/// Reads one text as each of the files.
pub fn read(text: &str) {
    if let Ok(call::Line::Blocked(call)) = call::parse(text) {
        assert!(call.is_at(&call));
    }
    if let Ok(targets) = parse::targets(text) {
        assert!(targets.len() <= MOST && targets.iter().all(|t| t.waited.fd >= 0));
    }
    let bytes = text.as_bytes();
    assert!(parse::pollfds(bytes).iter().all(|w| w.fd >= 0));
    let nfds = bytes.len() * 4;
    assert!(parse::fd_set(bytes, nfds, Interest::Input).len() <= nfds);
    if let Some((time, _)) = bytes.split_first_chunk() {
        let _ = (parse::duration(*time, 1), parse::duration(*time, 1_000));
    }
    let _ = (signals_caught(text), switches(text), files::inode_of(text), files::by_link(text));
}

/// A process that makes things up.
#[derive(Debug)]
pub struct Victim {
    /// What is at every address; more cannot be read.
    pub memory: Vec<u8>,
    /// By descriptor; `None` is no epoll descriptor.
    pub fdinfo: Vec<Option<String>>,
    /// `SO_RCVTIMEO`.
    pub patience: Option<Ns>,
}

impl Victim {
    /// What this call of it waits for.
    pub fn wait(&self, aarch64: bool, nr: u64, args: [u64; 6]) -> Option<Wait> {
        let arch = if aarch64 { Arch::Aarch64 } else { Arch::X86_64 };
        wait::resolve(arch, &Blocked { nr, args, sp: 0, pc: 0 }, self).map(|resolved| resolved.wait)
    }
}

impl Place for Victim {
    fn memory(&self, at: u64, into: &mut [u8]) -> Result<(), String> {
        let start = usize::try_from(at % 16).unwrap_or_default();
        let bytes = self.memory.get(start..).and_then(|m| m.get(..into.len()));
        into.copy_from_slice(bytes.ok_or("nothing is there")?);
        Ok(())
    }

    fn epoll(&self, fd: i32) -> Result<Option<Vec<Target>>, String> {
        let fdinfo = usize::try_from(fd).ok().and_then(|fd| self.fdinfo.get(fd)?.as_deref());
        fdinfo.map(parse::targets).transpose()
    }

    fn patience(&self, _: i32) -> Result<Option<Ns>, String> {
        Ok(self.patience)
    }
}
