//! Reads a recording, line by line; what is broken is left out and told.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::{Entry, Header, Recorded, VERSION};

/// A line that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// From 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// A whole recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// Its first line; `None` if there are only inputs.
    pub header: Option<Header>,
    /// The others.
    pub entries: Vec<Entry>,
    /// What was left out.
    pub broken: Vec<Broken>,
}

/// Whether a file is a recording: its first line that is JSON is one of a recording's.
///
/// # Errors
/// It cannot be read.
pub fn is_recording(path: &Path) -> io::Result<bool> {
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        if let Ok(value) = serde_json::from_slice::<Value>(&line?) {
            return Ok(["recording", "input", "record", "rest"].iter().any(|key| value.get(key).is_some()));
        }
    }
    Ok(false)
}

impl Recording {
    /// Reads a file. `progress` is told how many bytes have been read.
    ///
    /// # Errors
    /// It cannot be read, or a later version of reaper wrote it.
    pub fn read(path: &Path, mut progress: impl FnMut(u64)) -> anyhow::Result<Self> {
        let mut recording = Self::default();
        let mut file = BufReader::with_capacity(64 << 10, File::open(path)?);
        let (mut line, mut number, mut bytes) = (Vec::new(), 0, 0);
        loop {
            line.clear();
            bytes += file.read_until(b'\n', &mut line)? as u64;
            if line.is_empty() {
                return Ok(recording);
            }
            progress(bytes);
            number += 1;
            let whole = line.last() == Some(&b'\n');
            match parse(&line) {
                Ok(Parsed::Header(header)) => {
                    anyhow::ensure!(
                        header.recording == VERSION,
                        "{} is a recording of version {}; this is reaper {}, which reads version {VERSION}",
                        path.display(),
                        header.recording,
                        env!("CARGO_PKG_VERSION"),
                    );
                    recording.header = Some(header);
                }
                Ok(Parsed::Entry(entry)) => recording.entries.push(entry),
                Err(_) if !whole => {
                    recording.broken.push(Broken { line: number, why: "it is cut short".to_owned() });
                }
                Err(why) => recording.broken.push(Broken { line: number, why }),
            }
        }
    }
}

enum Parsed {
    Header(Header),
    Entry(Entry),
}

fn parse(line: &[u8]) -> Result<Parsed, String> {
    let value: Value = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let has = |key| value.get(key).is_some();
    let parsed = if has("input") {
        serde_json::from_value(value).map(Entry::Input).map(Parsed::Entry)
    } else if has("record") {
        serde_json::from_value(value).map(|r: Recorded<_>| Parsed::Entry(Entry::Record(r.record)))
    } else if has("rest") {
        serde_json::from_value(value).map(Entry::Rest).map(Parsed::Entry)
    } else if has("full") {
        serde_json::from_value(value).map(Entry::Full).map(Parsed::Entry)
    } else if has("recording") {
        serde_json::from_value(value).map(Parsed::Header)
    } else {
        return Err("it is no line of a recording".to_owned());
    };
    parsed.map_err(|e| e.to_string())
}
