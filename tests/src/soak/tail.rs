//! What was appended to a file since the last look.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Reads on where it ended.
pub(super) struct Tail {
    file: File,
    rest: Vec<u8>,
}

impl Tail {
    pub(super) fn open(path: &Path) -> Self {
        Self { file: File::open(path).unwrap(), rest: Vec::new() }
    }

    /// Whole lines, without their newlines.
    pub(super) fn lines(&mut self) -> Vec<String> {
        self.file.read_to_end(&mut self.rest).unwrap();
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        String::from_utf8(whole).unwrap().lines().map(String::from).collect()
    }
}
