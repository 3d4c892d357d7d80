//! How far something has come that may take long: on a terminal, and wiped away in the end.

use std::io::{IsTerminal as _, Write as _};

/// What is done sooner needs no telling.
const MANY: u64 = 10_000;

/// Says on stderr how far something has come, if that is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    counted: u64,
    shown: Option<u64>,
    terminal: bool,
}

impl Progress {
    /// Nothing has been done yet.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, counted: 0, shown: None, terminal: std::io::stderr().is_terminal() }
    }

    /// So much of so much has been done.
    pub(super) fn at(&mut self, done: u64, of: u64) {
        if of >= MANY {
            self.show(done * 100 / of, "%");
        }
    }

    /// One more, of nobody knows how many.
    pub(super) fn count(&mut self) {
        self.counted += 1;
        if self.counted >= MANY && self.counted.is_multiple_of(1_000) {
            self.show(self.counted, "");
        }
    }

    fn show(&mut self, number: u64, unit: &str) {
        if !self.terminal || self.shown == Some(number) {
            return;
        }
        self.shown = Some(number);
        // Progress is a courtesy: a terminal that takes nothing has gone.
        let _gone = write!(std::io::stderr(), "\r{} {number} {unit}", self.what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _gone = write!(std::io::stderr(), "\r{:40}\r", "");
        }
    }
}
