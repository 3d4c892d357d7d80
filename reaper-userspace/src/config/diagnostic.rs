//! What is wrong with a configuration, and where.
//!
//! Messages are one line each and hold no control characters, so that they can go to a terminal, a journal or the event
//! log as they are.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::output::is_printable;
use crate::trust::Distrust;

/// One error or warning about a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file as it was given.
    pub file: String,
    /// Where; `None` if the file as a whole is meant, because it could not be read.
    #[serde(flatten)]
    pub at: Option<Position>,
    /// What is wrong and what was expected.
    pub message: String,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// Every error of a configuration, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<Diagnostic>,
    unreadable: bool,
}

impl Diagnostic {
    pub(super) fn new(file: &str, at: Option<Position>, message: &str) -> Self {
        Self { file: printable(file), at, message: printable(message) }
    }
}

impl Position {
    /// The position of a byte of `text`; a position after its end is the end.
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset.min(text.len())).unwrap_or(text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { line, column }
    }
}

impl ConfigErrors {
    /// For a file whose text was read.
    pub(super) fn invalid(errors: Vec<Diagnostic>) -> Self {
        Self { errors, unreadable: false }
    }

    /// For a file that could not be read at all.
    pub(super) fn unreadable(file: &str, message: &str) -> Self {
        Self { errors: vec![Diagnostic::new(file, None, message)], unreadable: true }
    }

    /// For a file that others than root can change, so that it does not matter what it says.
    pub fn refused(file: &Path, why: &Distrust) -> Self {
        let file = file.display().to_string();
        Self::unreadable(&file, &format!("others than root can change what it says: {why}"))
    }

    /// Each of them.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// The file could not be read, so that nothing is known about what it says.
    pub fn is_unreadable(&self) -> bool {
        self.unreadable
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, at, message } = self;
        match at {
            Some(Position { line, column }) => write!(f, "{file}:{line}:{column}: {message}"),
            None => write!(f, "{file}: {message}"),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The text with its control characters shown escaped.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// The known word that was probably meant: at most a third of its letters differ, and at least one may.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|k| (strsim::osa_distance(word, k), k))
        .filter(|(distance, k)| *distance <= (k.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_counted_in_characters() {
        let text = "a\nöä = 1\r\n";
        let at = |offset| {
            let Position { line, column } = Position::of(text, offset);
            (line, column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(2), (2, 1));
        assert_eq!(at(6), (2, 3));
        assert_eq!(at(text.len()), (3, 1));
        assert_eq!(at(1000), (3, 1));
        // In the middle of a character: the end of the file rather than a panic.
        assert_eq!(at(3), (3, 1));
    }

    #[test]
    fn control_characters_never_reach_a_terminal() {
        let shown = Diagnostic::new("a\x1b[2Jb", None, "x\ny\u{9b}").to_string();
        assert_eq!(shown, "a\\u{1b}[2Jb: x\\ny\\u{9b}");
    }

    #[test]
    fn nearest_is_near() {
        let known = ["cmdline", "exe", "comm"];
        assert_eq!(nearest("cmdlin", known), Some("cmdline"));
        assert_eq!(nearest("comn", known), Some("comm"));
        assert_eq!(nearest("ex", known), Some("exe"));
        assert_eq!(nearest("banana", known), None);
    }
}
