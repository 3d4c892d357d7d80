//! Where the program's own messages go: to journald with their fields where stderr is a stream of its, else to stderr in
//! words.
//!
//! What is decided about processes is not among them: that is in the event log.

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// Who connects stdout or stderr with journald says here which file that is: `device:inode` (systemd.exec(5)).
const STREAM: &str = "JOURNAL_STREAM";

/// Takes every message from now on, those that `RUST_LOG` lets through. On a terminal they are in colour if `color`.
pub fn init(color: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let journal = if stderr_is_journals() { journal() } else { None };
    let words = journal.is_none().then(|| {
        let ansi = io::stderr().is_terminal() && color;
        fmt::layer().with_writer(io::stderr).with_ansi(ansi).with_target(false)
    });
    tracing_subscriber::registry().with(filter).with(journal).with(words).init();
}

/// The variable is inherited by those whose stderr is another file, so the file itself is looked at.
fn stderr_is_journals() -> bool {
    let Ok(stream) = env::var(STREAM) else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().and_then(|stderr| File::from(stderr).metadata());
    stderr.is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

/// `None` where its socket does not answer: it has stderr all the same.
fn journal() -> Option<tracing_journald::Layer> {
    let levels = PriorityMappings { info: Priority::Informational, ..PriorityMappings::new() };
    Some(tracing_journald::layer().ok()?.with_priority_mappings(levels))
}
