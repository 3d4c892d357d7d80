//! The event log: JSON lines, one record each, as in the contract.
//!
//! `writer` numbers and dates the core's records and gets them to the disk, `file` is the file below it (whole lines,
//! rotation), `line` is the text of one record in both directions, `reader` reads and follows a log across rotation,
//! `render` says a record in words.
//!
//! What it keeps true: a file holds whole lines only; `seq` rises by one, and a gap means that records were lost and an
//! `error` record says how many; no byte of a process's name or arguments reaches a terminal unescaped. Deliberately not
//! in it: fsync (a record before every signal would wait for the disk; what a crash of the machine cuts off is repaired
//! at the next start) and compression.

pub mod line;
pub mod reader;
pub mod render;
pub mod writer;

mod file;

pub use line::{KINDS, Line};
pub use reader::Reader;

pub use writer::{EventLog, LogTarget, OpenError};

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The `n`th rotated file of a log: `events.jsonl.1` is the newest. 0 is the log itself.
fn numbered(path: &Path, n: u32) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    let mut name = OsString::from(path);
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
