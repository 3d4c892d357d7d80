//! What is added to the state with every signal: one line, where the whole state of a host with a thousand orphans would be written
//! a thousand times.
//!
//! The first line says which state the others belong to. When the state is written anew they are in it, and count no more.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::core::ids::Ns;
use crate::core::memory::SignalMemory;
use crate::trust;

/// The file beside a state.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// The state that may be added to: when it was written.
    state: Option<Ns>,
    /// Once something was added to that one.
    file: Option<File>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    state: Ns,
}

impl Journal {
    pub(super) fn beside(state: &Path) -> Self {
        Self { path: state.with_file_name("signals.jsonl"), state: None, file: None }
    }

    /// The state was written anew at this time, or could not be: nothing can be added to it then.
    pub(super) fn begin(&mut self, state: Option<Ns>) {
        (self.state, self.file) = (state, None);
    }

    /// Adds a line. False if there is no state that it could be added to.
    pub(super) fn add(&mut self, signal: &SignalMemory) -> bool {
        let added = self.try_add(signal);
        if added.is_err() {
            self.begin(None);
        }
        added.unwrap_or_else(|e| {
            tracing::warn!("{} cannot be written, so the whole state is: {e}", self.path.display());
            false
        })
    }

    fn try_add(&mut self, signal: &SignalMemory) -> io::Result<bool> {
        let Some(state) = self.state else { return Ok(false) };
        let mut lines = Vec::new();
        if self.file.is_none() {
            put_line(&mut lines, &Head { state })?;
        }
        put_line(&mut lines, signal)?;
        let file = match self.file.take() {
            Some(file) => file,
            None => File::options().write(true).create(true).truncate(true).mode(0o600).open(&self.path)?,
        };
        self.file.insert(file).write_all(&lines)?;
        Ok(true)
    }

    /// What was added to the state of this time. A line without an end is none: its agent died as it wrote it.
    pub(super) fn read(&self, state: Ns) -> anyhow::Result<Vec<SignalMemory>> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", self.path.display())),
        };
        trust::check_file(&self.path)
            .context("what an earlier run has added to its state is not believed")?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = whole.lines();
        let wrong = || format!("{} is not what an agent wrote; remove it", self.path.display());
        let head: Option<Head> = lines.next().map(serde_json::from_str).transpose().with_context(wrong)?;
        if head.is_none_or(|head| head.state != state) {
            return Ok(Vec::new());
        }
        lines.map(serde_json::from_str).collect::<Result<_, _>>().with_context(wrong)
    }
}

fn put_line(lines: &mut Vec<u8>, what: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *lines, what)?;
    lines.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As it stands after so many signals.
    fn sent(pid: u32, step: usize) -> SignalMemory {
        let progress = json!({
            "since": 7, "signalled": 15, "stray": false, "draining": false, "phase": {"grace": 9}, "spared": [],
            "rehearsed": false, "step": step,
        });
        let orphan = json!({
            "key": {"tgid": pid, "start_ns": 5}, "groups": [0], "acting": 0, "progress": progress,
            "proc": {"pid": pid, "start_ns": 5, "ppid": 1, "uid": 0, "comm": "php", "exe": "", "argv": []},
        });
        serde_json::from_value(json!({"orphan": orphan, "kill": 8})).expect("as an agent writes it")
    }

    fn journal(dir: &Path) -> Journal {
        Journal::beside(&dir.join("state.json"))
    }

    #[test]
    fn what_was_added_to_a_state_is_read_with_that_state_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut journal = journal(dir.path());
        assert!(!journal.add(&sent(1, 1)), "there is no state yet");
        journal.begin(Some(30));
        assert!(journal.read(30).expect("nothing yet").is_empty());
        assert!(journal.add(&sent(1, 1)) && journal.add(&sent(2, 1)));
        assert_eq!(journal.read(30).expect("as written"), [sent(1, 1), sent(2, 1)]);
        assert!(journal.read(29).expect("another's").is_empty());
        // The state is written anew: whether the agent dies then, or goes on.
        journal.begin(Some(40));
        assert!(journal.read(40).expect("another's").is_empty());
        assert!(journal.add(&sent(3, 2)));
        assert_eq!(journal.read(40).expect("as written"), [sent(3, 2)]);
        journal.begin(None);
        assert!(!journal.add(&sent(3, 3)), "the state could not be written");
    }

    #[test]
    fn a_line_without_an_end_is_none_and_other_nonsense_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut journal = journal(dir.path());
        journal.begin(Some(30));
        assert!(journal.add(&sent(1, 1)) && journal.add(&sent(2, 1)));
        let whole = fs::read_to_string(&journal.path).expect("written");
        fs::write(&journal.path, &whole[..whole.len() - 5]).expect("cut");
        assert_eq!(journal.read(30).expect("a line less"), [sent(1, 1)]);
        fs::write(&journal.path, format!("{whole}{{}}\n")).expect("written");
        assert!(journal.read(30).expect_err("no signal").to_string().contains("signals.jsonl"));
    }

    #[test]
    fn what_cannot_be_written_is_said() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut journal = journal(&dir.path().join("not there"));
        journal.begin(Some(30));
        assert!(!journal.add(&sent(1, 1)));
    }
}
