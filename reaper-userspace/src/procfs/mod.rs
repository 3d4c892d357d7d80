//! What /proc says about one process, at the moment of asking.
//!
//! A pid is never trusted: every reader first opens `/proc/PID` and compares the start time, and then reads relative
//! to that directory, which the kernel keeps bound to the one process. Text from processes may be any bytes; what is
//! not UTF-8 is replaced, never an error.

#[doc(hidden)]
pub mod fuzzed;
mod identity;
mod tasks;

use std::fs::File;
use std::io::{ErrorKind, Read as _};

use ::procfs::process::Process;
pub(crate) use ::procfs::process::Stat;
use ::procfs::{FromRead as _, ProcError};

pub use identity::identify;
pub use tasks::tasks;

use crate::core::ids::{Ns, ProcKey};

/// So much is read at once, bytes: nearly every file of a process is shorter.
const PIECE: usize = 4096;

/// Why a process cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no such process: its pid is free, or another's, or it is a zombie.
    #[error("it is gone")]
    Gone,
    /// It may be there, but the file cannot be read.
    #[error("/proc/{pid}/{file}: {why}")]
    Unreadable {
        /// Its pid.
        pid: u32,
        /// Which file below `/proc/PID`.
        file: String,
        /// The system's words.
        why: String,
    },
}

/// One opened process directory whose start time has been checked.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) pid: u32,
    pub(crate) dir: Process,
    /// As it was when that was checked.
    pub(crate) stat: Stat,
}

impl Opened {
    /// Two processes of one pid within one tick (10 ms) cannot be told apart here; the order of the kernel's events can.
    pub(crate) fn open(key: ProcKey) -> Result<Self, ReadError> {
        let pid = key.tgid;
        let raw = i32::try_from(pid).map_err(|_| ReadError::Gone)?;
        let dir = Process::new(raw).map_err(|e| read_error(pid, "", &e))?;
        let opened = Self { pid, stat: stat_of(pid, &read(pid, &dir, "stat", usize::MAX)?)?, dir };
        if opened.stat.starttime != ticks(key.start_ns) {
            return Err(ReadError::Gone);
        }
        // The leader of a process may be a zombie while other threads live on (proc(5): the whole process is then
        // shown as Z). Only when no thread is left it is gone.
        if matches!(opened.stat.state, 'Z' | 'X') && !opened.has_live_thread()? {
            return Err(ReadError::Gone);
        }
        Ok(opened)
    }

    /// How many threads it has now, those included that have died and are not yet waited for.
    pub(crate) fn thread_count(&self) -> Result<usize, ReadError> {
        Ok(threads_in(&stat_of(self.pid, &self.read("stat")?)?))
    }

    pub(crate) fn read(&self, file: &str) -> Result<String, ReadError> {
        self.read_start(file, usize::MAX)
    }

    /// The first so many bytes.
    pub(crate) fn read_start(&self, file: &str, most: usize) -> Result<String, ReadError> {
        read(self.pid, &self.dir, file, most)
    }

    /// A file or directory below `/proc/PID`, opened for reading.
    pub(crate) fn file(&self, file: &str) -> Result<File, ReadError> {
        self.dir.open_relative(file).map_err(|e| read_error(self.pid, file, &e))
    }

    /// Whether a thread is left. A thread that goes meanwhile is none.
    fn has_live_thread(&self) -> Result<bool, ReadError> {
        for task in self.dir.tasks().map_err(|e| read_error(self.pid, "task", &e))? {
            let tid = task.map_err(|e| read_error(self.pid, "task", &e))?.tid;
            match self.read(&format!("task/{tid}/stat")).and_then(|text| stat_of(self.pid, &text)) {
                Ok(stat) if !matches!(stat.state, 'Z' | 'X') => return Ok(true),
                Ok(_) | Err(ReadError::Gone) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }
}

/// The start time as `/proc/PID/stat` has it, in ticks (kernel: `nsec_to_clock_t`).
pub fn ticks(start_ns: Ns) -> u64 {
    start_ns / (1_000_000_000 / ::procfs::ticks_per_second().max(1))
}

/// The start of a live process as precisely as /proc tells it, in ticks.
pub fn start_ticks(pid: u32) -> Result<u64, ReadError> {
    let raw = i32::try_from(pid).map_err(|_| ReadError::Gone)?;
    let dir = Process::new(raw).map_err(|e| read_error(pid, "", &e))?;
    Ok(stat_of(pid, &read(pid, &dir, "stat", usize::MAX)?)?.starttime)
}

/// Who has this pid now, with its start as precisely as /proc tells it.
pub(crate) fn key(pid: u32) -> Result<ProcKey, ReadError> {
    let tick_ns = 1_000_000_000 / ::procfs::ticks_per_second().max(1);
    Ok(ProcKey { tgid: pid, start_ns: start_ticks(pid)? * tick_ns })
}

/// Reads the beginning of a file that the kernel makes in one piece (fs/seq_file.c `single_open`, fs/proc/base.c
/// `get_mm_cmdline`): who is given less than he has room for has it all.
fn read(pid: u32, dir: &Process, file: &str, most: usize) -> Result<String, ReadError> {
    let mut opened = dir.open_relative(file).map_err(|e| read_error(pid, file, &e))?;
    let mut bytes = vec![0; PIECE.min(most)];
    let mut len = 0;
    loop {
        match opened.read(&mut bytes[len..]) {
            Ok(more) => len += more,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(io_error(pid, file, &e)),
        }
        if len < bytes.len() || len == most {
            break;
        }
        bytes.resize((2 * len).min(most), 0);
    }
    bytes.truncate(len);
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
    })
}

/// The number of threads in a `/proc/PID/stat`.
pub(crate) fn threads_in(stat: &Stat) -> usize {
    usize::try_from(stat.num_threads).unwrap_or_default()
}

pub(crate) fn stat_of(pid: u32, text: &str) -> Result<Stat, ReadError> {
    // The crate takes what is between the first and the last parenthesis for the name, and panics if it does not find a pid and
    // a space before it, and a space and more after it.
    let text = text.trim();
    let named = text.find('(').zip(text.rfind(')')).is_some_and(|(begin, end)| {
        begin < end && text[..begin].ends_with(' ') && text[end..].starts_with(") ")
    });
    if !named {
        let why = "it does not name the process".to_owned();
        return Err(ReadError::Unreadable { pid, file: "stat".to_owned(), why });
    }
    Stat::from_read(text.as_bytes()).map_err(|e| read_error(pid, "stat", &e))
}

fn read_error(pid: u32, file: &str, error: &ProcError) -> ReadError {
    match error {
        ProcError::NotFound(_) => ReadError::Gone,
        ProcError::Io(e, _) => io_error(pid, file, e),
        other => ReadError::Unreadable { pid, file: file.to_owned(), why: other.to_string() },
    }
}

fn io_error(pid: u32, file: &str, error: &std::io::Error) -> ReadError {
    // A process that dies between open and read answers ESRCH.
    match error.raw_os_error() {
        Some(libc_esrch) if libc_esrch == nix::errno::Errno::ESRCH as i32 => ReadError::Gone,
        Some(libc_enoent) if libc_enoent == nix::errno::Errno::ENOENT as i32 => ReadError::Gone,
        _ => ReadError::Unreadable { pid, file: file.to_owned(), why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by `tests/fuzz`.
    #[test]
    fn a_stat_that_does_not_name_the_process() {
        for text in
            ["1 )a( S 1", "1 a) S 1 (", "1 (a S 1", "", ")(", "(a) S 1", "1 (a)", "1 (a) ", "1 (a)S 1"]
        {
            assert!(matches!(stat_of(1, text), Err(ReadError::Unreadable { .. })), "{text:?}");
        }
    }
}
