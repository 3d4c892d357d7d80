//! What every command that prints shares: the two global flags, text from processes made safe, and stdout that may go
//! away. Nothing here knows what is printed.

mod text;

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use text::{Terminal, Text, fit, pad, width_of, wrap};

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Human,
    /// One object per line.
    Json,
}

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// If stdout is a terminal and neither `NO_COLOR` nor `TERM=dumb` is set.
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Whether to colour what goes to stdout. An explicit flag wins over `NO_COLOR` (<https://no-color.org>).
    pub fn enabled(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            // The library colours for a continuous integration's terminal of whatever kind.
            Self::Auto => {
                !is_dumb() && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
            }
        }
    }
}

/// term(7): a terminal that knows no colours says so in `TERM`.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Whether a character may go to a terminal as it is: no control character (C0, DEL, C1), nothing that reorders text
/// (bidi controls), nothing invisible (zero-width, line and paragraph separators, unassigned).
///
/// The standard library's table of printable characters decides, the one behind `{:?}`.
pub fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\0'..='\x7f' => false,
        _ => c.escape_debug().len() == 1,
    }
}

/// Text that came from a process, safe to print: what is not printable is shown as `\n`, `\x1b`, `\u{202e}`.
///
/// A backslash stays as it is: PHP's class names in command lines should be readable, and it does no harm.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if is_printable(c) => safe.push(c),
            '\n' | '\r' | '\t' => safe.extend(c.escape_default()),
            '\0'..='\x7f' => safe.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => safe.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(safe)
}

/// A file's name, which may hold anything as well: whoever names it may have had it from a pattern.
pub fn escape_path(path: &Path) -> String {
    escape(&path.display().to_string()).into_owned()
}

/// How wide the terminal is that stdout goes to, columns: `COLUMNS` if that says so, else what the terminal says. `None` if
/// stdout is no terminal, or it does not tell: then nothing is cut.
pub fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    let told = rustix::termios::tcgetwinsize(&stdout).ok()?.ws_col;
    let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    columns.or(Some(usize::from(told))).filter(|&columns| columns > 0)
}

/// Lets `print` write to stdout, buffered, and flushes. A reader that went away (`reaper tail | head`) is no error:
/// the command ends quietly with 0.
///
/// # Errors
/// What `print` returns, and any other failure to write.
pub fn to_stdout(print: impl FnOnce(&mut dyn Write) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = print(&mut out).and_then(|code| out.flush().map(|()| code).map_err(Into::into));
    // What is still in the buffer after an error must not be tried again when the buffer is dropped.
    drop(out.into_parts());
    match result {
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

/// Whether an error comes down to a reader that closed its end.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Waits, and says whether anybody still reads stdout: without this, `reaper tail -f | head -1` would stay until the
/// next record, which may never come.
pub fn wait_while_read(time: Duration) -> bool {
    let stdout = io::stdout();
    let Ok(timeout) = Timespec::try_from(time) else { return false };
    // No event is asked for: POLLERR and POLLHUP are reported in any case, poll(2).
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    match poll(&mut fds, Some(&timeout)) {
        // POLLNVAL (no stdout at all) would come at once and for ever: that is an end as well.
        Ok(n) => n == 0,
        Err(_) => {
            std::thread::sleep(time);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_text_cannot_reach_the_terminal() {
        assert_eq!(escape("php-fpm: pool www"), "php-fpm: pool www");
        assert_eq!(escape("naïve 作業 🐘 App\\Jobs"), "naïve 作業 🐘 App\\Jobs");
        assert_eq!(escape("\x1b]0;x\x07\n\t\0\x7f"), r"\x1b]0;x\x07\n\t\x00\x7f");
        assert_eq!(
            escape("\u{9b}31m\u{202e}\u{2066}\u{2028}\u{200b}"),
            r"\u{9b}31m\u{202e}\u{2066}\u{2028}\u{200b}"
        );
    }

    #[test]
    fn a_closed_pipe_is_told_from_other_errors() {
        use anyhow::Context as _;
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&Err::<(), _>(gone).context("writing").expect_err("it is one")));
        assert!(!is_broken_pipe(&anyhow::anyhow!("something else")));
    }
}
