//! What outlives a restart of the agent, but not of the host: which groups are armed, which breakers are open, and what the
//! core knows that the kernel does not keep.
//!
//! The file names the boot it was written in; after another boot it counts for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::journal::Journal;
use crate::clock;
use crate::core::ids::Ns;
use crate::core::likeness::Likenesses;
use crate::core::memory::{Memory, SignalMemory};
use crate::trust;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The state directory.
#[derive(Debug)]
pub struct StateDir {
    file: PathBuf,
    journal: Journal,
    boot_id: String,
    /// Held while this agent runs; `None` if another one holds it.
    lock: Option<File>,
}

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    boot_id: String,
    /// When it was written, `CLOCK_BOOTTIME`.
    #[serde(default)]
    written_at: Ns,
    /// Groups whose master matcher has matched a process since boot, with that matcher: another one has not.
    pub armed: BTreeMap<String, String>,
    /// What their masters and workers were.
    #[serde(default)]
    pub likenesses: BTreeMap<String, Likenesses>,
    /// Groups whose breaker is open.
    pub broken: BTreeSet<String>,
    /// What the core leaves to the next one.
    #[serde(default)]
    pub memory: Memory,
}

impl StateDir {
    /// Makes the directory if it is not there.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        trust::check_directory(dir).context("the state cannot be kept there")?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .with_context(|| format!("cannot make the state directory {}", dir.display()))?;
        let boot_id = fs::read_to_string(BOOT_ID).with_context(|| format!("cannot read {BOOT_ID}"))?;
        Ok(Self::of(dir.join("state.json"), boot_id.trim(), lock(dir)?))
    }

    fn of(file: PathBuf, boot_id: &str, lock: Option<File>) -> Self {
        Self { journal: Journal::beside(&file), file, boot_id: boot_id.to_owned(), lock }
    }

    /// Whether no other agent that runs has this directory: what is pinned in its name is this agent's.
    pub fn is_own(&self) -> bool {
        self.lock.is_some()
    }

    /// What an earlier run left; nothing if there was none since boot.
    pub fn load(&self) -> anyhow::Result<State> {
        let text = match fs::read_to_string(&self.file) {
            Ok(text) => {
                trust::check_file(&self.file).context("the state of an earlier run is not believed")?;
                text
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", self.file.display())),
        };
        // The host crashed before it was on the disk: that was another boot.
        if text.is_empty() {
            return Ok(State::default());
        }
        let mut state: State = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is not what an agent wrote; remove it to begin with unarmed groups",
                self.file.display()
            )
        })?;
        if state.boot_id != self.boot_id {
            return Ok(State::default());
        }
        self.journal.read(state.written_at)?.into_iter().for_each(|signal| state.memory.add(signal));
        Ok(state)
    }

    /// Writes it, whole or not at all as far as this boot can tell. No fsync: what was sent is written down with every signal, and
    /// none waits for a disk; after a crash of the host it counts for nothing.
    pub fn save(&mut self, state: &mut State) -> anyhow::Result<()> {
        state.boot_id.clone_from(&self.boot_id);
        state.written_at = clock::now();
        let dir = self.file.parent().unwrap_or(Path::new("."));
        let write = || -> io::Result<()> {
            let mut new = tempfile::NamedTempFile::new_in(dir)?;
            // In one piece: the writer has no buffer, and a thousand orphans have ten thousands of words.
            new.write_all(&serde_json::to_vec(state)?)?;
            new.persist(&self.file).map_err(|e| e.error)?;
            Ok(())
        };
        let written = write();
        // Whoever shares the directory with another agent cannot add to what that one may have written since.
        self.journal.begin((written.is_ok() && self.is_own()).then_some(state.written_at));
        written.with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// Adds a signal to what was written last. False if it cannot be: then it is to be written anew.
    pub fn add(&mut self, signal: &SignalMemory) -> bool {
        self.journal.add(signal)
    }
}

/// Takes the directory for this process; `None` if another one has it.
fn lock(dir: &Path) -> anyhow::Result<Option<File>> {
    let path = dir.join("lock");
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(dir: &Path) -> StateDir {
        StateDir::of(dir.join("state.json"), "one", lock(dir).expect("nobody has it"))
    }

    #[test]
    fn remembers_within_a_boot_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut here = here(dir.path());
        assert_eq!(here.load().expect("nothing yet"), State::default());
        let mut state = State {
            armed: [("horizon".to_owned(), "artisan horizon$".to_owned())].into(),
            ..State::default()
        };
        here.save(&mut state).expect("saved");
        assert_eq!(here.load().expect("same boot").armed, state.armed);
        let later = StateDir::of(here.file, "two", None);
        assert_eq!(later.load().expect("other boot"), State::default());
    }

    /// A state that a signal was added to is the same as one that was written with it.
    #[test]
    fn a_signal_is_added_to_what_was_written_last() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut here = here(dir.path());
        let mut state = State::default();
        let signal = serde_json::json!({"kill": null, "orphan": {
            "key": {"tgid": 9, "start_ns": 5}, "groups": [0], "acting": 0,
            "progress": {"since": 7, "signalled": 15, "stray": false, "draining": false, "phase": {"grace": 9},
                "spared": [], "rehearsed": false, "step": 1},
            "proc": {"pid": 9, "start_ns": 5, "ppid": 1, "uid": 0, "comm": "php", "exe": "", "argv": []},
        }});
        let signal: SignalMemory = serde_json::from_value(signal).expect("as an agent writes it");
        assert!(!here.add(&signal), "nothing was written yet");
        here.save(&mut state).expect("saved");
        assert!(here.add(&signal));
        state.memory.add(signal);
        assert_eq!(here.load().expect("both"), state);
        here.save(&mut state).expect("saved");
        assert_eq!(here.load().expect("the state alone"), state);
    }

    #[test]
    fn is_nothing_where_a_crash_of_the_host_has_cut_it_off() {
        let dir = tempfile::tempdir().expect("a directory");
        let here = here(dir.path());
        fs::write(&here.file, "").expect("written");
        assert_eq!(here.load().expect("as if it were not there"), State::default());
    }

    #[test]
    fn belongs_to_one_agent_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = StateDir::open(dir.path()).expect("made");
        let second = StateDir::open(dir.path()).expect("opened");
        assert!(first.is_own() && !second.is_own());
        drop(first);
        assert!(StateDir::open(dir.path()).expect("opened").is_own());
    }

    #[test]
    fn refuses_what_it_did_not_write() {
        let dir = tempfile::tempdir().expect("a directory");
        let here = here(dir.path());
        fs::write(&here.file, "{").expect("written");
        assert!(here.load().expect_err("not JSON").to_string().contains("state.json"));
    }
}
