//! Writes a recording while the agent runs.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;

use super::{Full, Header, Recorded, Rest, VERSION};
use crate::core::ids::Ns;
use crate::core::input::Input;
use crate::core::records::Record;

/// An open recording. It never keeps the agent from its work: if it cannot be written any more, or is full, that is said
/// once and it ends.
#[derive(Debug)]
pub struct Recorder {
    /// `None` once it has ended.
    out: Option<BufWriter<File>>,
    path: PathBuf,
    limit: u64,
    written: u64,
    line: Vec<u8>,
    /// Something was written since the agent last rested.
    moved: bool,
}

/// As it is written: a reference instead of a copy.
#[derive(Serialize)]
struct Taken<'a> {
    now: Ns,
    #[serde(flatten)]
    input: &'a Input,
}

impl Recorder {
    /// Makes the file, for root alone: it holds every command line of the host. It grows to about `limit` bytes.
    ///
    /// # Errors
    /// It exists already (a recording cannot be continued, and is not overwritten), or cannot be made.
    pub fn create(path: &Path, limit: u64, agent: u32, now: Ns) -> anyhow::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("cannot make the recording {}", path.display()))?;
        let mut recorder = Self {
            out: Some(BufWriter::with_capacity(64 << 10, file)),
            path: path.to_owned(),
            limit,
            written: 0,
            line: Vec::new(),
            moved: false,
        };
        recorder.write(&Header {
            recording: VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            agent,
            ts: format!("{:.9}", Timestamp::now()),
            boot_ns: now,
        });
        Ok(recorder)
    }

    /// An input is taken in.
    pub fn input(&mut self, now: Ns, input: &Input) {
        self.write(&Taken { now, input });
    }

    /// The core has made a record.
    pub fn record(&mut self, record: &Record) {
        self.write(&Recorded { record });
    }

    /// Everything has been done, and the core wants to be woken at `deadline`.
    pub fn rest(&mut self, deadline: Option<Ns>) {
        if std::mem::take(&mut self.moved) {
            self.write(&Rest { rest: deadline });
            self.moved = false;
        }
    }

    /// Gets it to the file.
    pub fn flush(&mut self) {
        if let Some(out) = &mut self.out
            && let Err(e) = out.flush()
        {
            self.fail(&e);
        }
    }

    fn write(&mut self, line: &impl Serialize) {
        let Some(out) = &mut self.out else { return };
        self.line.clear();
        let told = serde_json::to_writer(&mut self.line, line).map_err(io::Error::from);
        self.line.push(b'\n');
        self.written += self.line.len() as u64;
        if self.written > self.limit {
            return self.end();
        }
        self.moved = true;
        if let Err(e) = told.and_then(|()| out.write_all(&self.line)) {
            self.fail(&e);
        }
    }

    fn end(&mut self) {
        let Some(mut out) = self.out.take() else { return };
        let full = Full { full: self.limit };
        let ended = serde_json::to_writer(&mut out, &full).map_err(io::Error::from);
        match ended.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
            Ok(()) => tracing::warn!("the recording {} is full and ends here", self.path.display()),
            Err(e) => self.fail(&e),
        }
    }

    fn fail(&mut self, error: &io::Error) {
        tracing::error!("the recording {} ends here: {error}", self.path.display());
        if let Some(out) = self.out.take() {
            // What is in the buffer must not be tried again when it is dropped.
            drop(out.into_parts());
        }
    }
}
