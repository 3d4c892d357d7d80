//! Numbers and dates the core's records and gets them to the file, or counts those that it could not.
//!
//! On a full disk records wait in memory, up to a bound; what comes beyond it is lost, counted, and said in an `error`
//! record once writing works again. Numbers are used up by lost records too, so the gap shows.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::file::{LogFile, after_first_newline};
use super::line;
use crate::core::records::{Event, Record};
use crate::trust::Distrust;

/// How many bytes of records wait for a disk that is full: minutes of decisions, and little beside the agent itself.
const BOUND: usize = 4 << 20;

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output; not rotated.
    Stdout,
    /// A file, rotated; or a character device or FIFO, not rotated.
    File(PathBuf),
}

impl From<&Path> for LogTarget {
    /// `-` is standard output.
    fn from(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdout } else { Self::File(path.to_owned()) }
    }
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OpenError {
    #[error("cannot create the directory of the event log {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot open the event log {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is neither a file nor a pipe nor a character device: the event log cannot go there", path.display())]
    Kind { path: PathBuf },
    #[error("the event log cannot be {}: {source}", path.display())]
    Distrusted { path: PathBuf, source: Distrust },
    #[error("another agent writes to the event log {}", path.display())]
    Busy { path: PathBuf },
}

/// The event log, open for writing. Dropping it flushes, if that is possible.
#[derive(Debug)]
pub struct EventLog {
    out: LogFile,
    target: String,
    next_seq: u64,
    /// Whole lines that are not in the file yet, except that the front of the first may be (`LogFile::mid_line`).
    pending: Vec<u8>,
    /// Most bytes of `pending`; a field so that tests need not write megabytes.
    bound: usize,
    /// Why the last flush failed, if it did: until one succeeds, only `flush` tries again.
    failing: Option<String>,
    /// The last rotation failed: said once, not with every record.
    cannot_rotate: bool,
    /// What was lost since the last flush that succeeded.
    lost: Option<Lost>,
    lost_ever: u64,
    failures_ever: u64,
}

/// A run of lost records.
#[derive(Debug)]
struct Lost {
    first: u64,
    count: u64,
    boot_ns: u64,
}

impl EventLog {
    /// Opens a log and goes on numbering after its last record. A file is rotated before it would grow beyond `max_size`
    /// bytes (0: never), and `keep` rotated files are kept.
    ///
    /// # Errors
    /// Names the path: the directory or the file cannot be made or opened, it is no file, another agent has it.
    pub fn open(target: &LogTarget, max_size: u64, keep: u32) -> Result<Self, OpenError> {
        let (out, name) = match target {
            LogTarget::Stdout => (LogFile::stdout()?, "stdout".to_owned()),
            LogTarget::File(path) => (LogFile::open(path, max_size, keep)?, path.display().to_string()),
        };
        let next_seq = out.last_seq().map_or(1, |last| last.saturating_add(1));
        let pending = Vec::new();
        Ok(Self {
            out,
            target: name,
            next_seq,
            pending,
            bound: BOUND,
            failing: None,
            cannot_rotate: false,
            lost: None,
            lost_ever: 0,
            failures_ever: 0,
        })
    }

    /// Numbers and dates a record and keeps it for the next [`flush`](Self::flush). Returns its number.
    ///
    /// # Errors
    /// The record is lost: the file takes nothing, and too much is waiting already. It is counted, and the log will say
    /// so; there is nothing that the caller has to repair.
    pub fn write(&mut self, record: &Record) -> io::Result<u64> {
        let seq = self.next_seq;
        self.next_seq = seq.saturating_add(1);
        if self.lost.is_none() {
            let mut line = Vec::with_capacity(512);
            line::append(&mut line, seq, Timestamp::now(), record)?;
            if self.fits(line.len())
                || (self.failing.is_none() && self.drain().is_ok() && self.fits(line.len()))
            {
                self.pending.append(&mut line);
                return Ok(seq);
            }
        }
        self.lose(seq, record.boot_ns);
        let why = self.failing.as_deref().unwrap_or("it is too long");
        Err(io::Error::other(format!("record {seq} is lost to the event log {}: {why}", self.target)))
    }

    /// Gets everything that waits to the file, normally with one write(2). If it fails, what is not in the file yet is
    /// kept and tried again the next time.
    ///
    /// # Errors
    /// The disk is full, the pipe has no reader or is full, …
    pub fn flush(&mut self) -> io::Result<()> {
        self.drain()?;
        if let Some(Lost { first, count, boot_ns }) = self.lost.take() {
            let last = first.saturating_add(count - 1);
            let target = &self.target;
            self.note(
                boot_ns,
                format!("{count} records ({first} to {last}) could not be written to {target} and are lost"),
            );
            self.drain()?;
        }
        Ok(())
    }

    /// The number that the next record will get.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// How many records were lost since it was opened: for the metrics.
    pub fn lost(&self) -> u64 {
        self.lost_ever
    }

    /// How many attempts to write have failed since it was opened: for the metrics.
    pub fn failures(&self) -> u64 {
        self.failures_ever
    }

    /// Why the last attempt to write failed, if it did.
    pub fn failing(&self) -> Option<&str> {
        self.failing.as_deref()
    }

    fn fits(&self, line: usize) -> bool {
        // A single record longer than the bound is still a record.
        self.pending.is_empty() || self.pending.len() + line <= self.bound
    }

    fn lose(&mut self, seq: u64, boot_ns: u64) {
        self.lost_ever += 1;
        self.lost.get_or_insert(Lost { first: seq, count: 0, boot_ns }).count += 1;
    }

    fn drain(&mut self) -> io::Result<()> {
        let result = self.try_drain();
        self.failing = result.as_ref().err().map(ToString::to_string);
        self.failures_ever += u64::from(result.is_err());
        result
    }

    fn try_drain(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let torn = self.out.mid_line();
        if self.out.follow_path()? && torn {
            // The beginning of this line is in a file that is gone; its end alone would be no record.
            self.pending.drain(..after_first_newline(&self.pending));
            self.lost_ever += 1;
            self.note(
                boot_now(),
                format!("1 record was lost when the event log {} was replaced", self.target),
            );
        }
        while !self.pending.is_empty() {
            let mut room = self.out.room(&self.pending);
            if room == 0 {
                if let Err(error) = self.out.rotate() {
                    room = after_first_newline(&self.pending);
                    if !std::mem::replace(&mut self.cannot_rotate, true) {
                        self.note(
                            boot_now(),
                            format!("cannot rotate the event log {}: {error}", self.target),
                        );
                    }
                } else {
                    self.cannot_rotate = false;
                    continue;
                }
            }
            let (taken, result) = self.out.append(&self.pending[..room]);
            self.pending.drain(..taken);
            result?;
        }
        Ok(())
    }

    /// The log's own word, behind what waits.
    fn note(&mut self, boot_ns: u64, what: String) {
        let record = Record { boot_ns, event: Event::Error { what, proc: None } };
        let seq = self.next_seq;
        self.next_seq = seq.saturating_add(1);
        if line::append(&mut self.pending, seq, Timestamp::now(), &record).is_err() {
            self.lose(seq, boot_ns);
        }
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.flush();
    }
}

/// Now, for the records that do not come from the core.
fn boot_now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(now.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(now.tv_nsec))
}

#[cfg(test)]
impl EventLog {
    /// See `bound`.
    pub(super) fn set_bound(&mut self, bound: usize) {
        self.bound = bound;
    }

    /// As if the disk had been mended: numbers and what waits stay.
    pub(super) fn replace_file(&mut self, target: &LogTarget) -> Result<(), OpenError> {
        let LogTarget::File(path) = target else { return Ok(()) };
        self.out = LogFile::open(path, 0, 0)?;
        Ok(())
    }
}
