//! The snapshot: every live process, from `iter/task`.
//!
//! It is not one instant: the kernel walks its pids in order while processes come and go. That is why the programs are
//! attached before, and what they wrote meanwhile is merged after.

use std::io::{self, Read as _};

use aya::programs::{Iter, ProgramError, links::LinkError};
use thiserror::Error;

use super::decode::{DecodeError, decode_tasks};
use super::load::{ITERATOR, LoadError, program};
use super::probes::Probes;
use crate::core::input::Task;

/// What one read asks for. The kernel puts at most 32 KiB together for one.
const READ_BYTES: usize = 32 * 1024;

/// Why there is no snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The iterator is not loaded.
    #[error(transparent)]
    Program(#[from] LoadError),
    /// The iterator cannot be attached.
    #[error("attaching the task iterator: {0}")]
    Attach(#[from] ProgramError),
    /// The iterator cannot be opened.
    #[error("opening the task iterator: {0}")]
    Open(#[from] LinkError),
    /// The iterator cannot be read.
    #[error("reading the task iterator: {0}")]
    Read(#[from] io::Error),
    /// It wrote something else than rows.
    #[error("rows of the task iterator: {0}")]
    Decode(#[from] DecodeError),
}

impl Probes {
    /// A row for every process with a live thread, kernel threads included, in no particular order. About 0.7 us a process.
    ///
    /// # Errors
    /// Every [`SnapshotError`].
    pub fn tasks(&mut self) -> Result<Vec<Task>, SnapshotError> {
        Ok(decode_tasks(&dump(program::<Iter>(&mut self.ebpf, ITERATOR)?)?)?)
    }
}

/// Everything that an iterator writes.
///
/// # Errors
/// Every [`SnapshotError`] but those of the program and of the rows.
pub(super) fn dump(iterator: &mut Iter) -> Result<Vec<u8>, SnapshotError> {
    let link = iterator.attach()?;
    let mut file = iterator.take_link(link)?.into_file()?;
    let mut rows = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(rows),
            Ok(read) => rows.extend_from_slice(&buffer[..read]),
            // The kernel pauses after a million tasks without a row: threads.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
