//! One test's world: a directory, a token, and the processes that carry it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::process::{self, Proc, comes_true, wait_until};
use crate::script::{DIR, LEDGER, Op, PROGRAM};

/// A directory for everything that a test writes, and a token that its processes carry. Dropping it kills whoever
/// still carries the token.
pub struct Scene {
    dir: TempDir,
    token: String,
    /// Opened gates stay open: everybody who comes later passes too.
    gates: Mutex<Vec<File>>,
}

/// One line of the ledger.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What the actor said.
    pub event: String,
    /// Who said it, in the initial pid namespace.
    pub pid: i32,
    /// Its start in clock ticks.
    pub start_ticks: u64,
    /// `CLOCK_BOOTTIME` when it said so.
    pub boot_ns: u64,
    /// Its parent at that moment.
    pub ppid: i32,
}

impl Scene {
    /// An empty scene.
    #[expect(clippy::new_without_default, reason = "it touches the disk")]
    pub fn new() -> Self {
        let mut random = [0_u8; 8];
        File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
        let token = format!("t{:016x}", u64::from_ne_bytes(random));
        // The token is in the name: whoever has a file of the scene in its arguments carries it too.
        let dir = tempfile::Builder::new().prefix(&format!("reaper-{token}-")).tempdir().unwrap();
        // Actors of other users write here too. Nobody replaces what is another's, or no agent would have its files here.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
        let ledger = dir.path().join(LEDGER);
        File::create(&ledger).unwrap();
        fs::set_permissions(&ledger, Permissions::from_mode(0o666)).unwrap();
        Self { dir, token, gates: Mutex::default() }
    }

    /// What marks this scene's processes.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A file of this scene.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command that runs an actor.
    pub fn command(&self, role: &str, program: &[Op]) -> Command {
        let mut command = Command::new(actor());
        command
            .args([role, &self.token])
            .env_clear()
            .env(DIR, self.dir.path())
            .env(PROGRAM, serde_json::to_string(program).unwrap())
            .stdin(Stdio::null());
        command
    }

    /// Starts an actor. It is waited for as soon as it dies, as a service manager would.
    pub fn spawn(&self, role: &str, program: impl AsRef<[Op]>) -> Proc {
        let errors =
            OpenOptions::new().create(true).append(true).mode(0o666).open(self.path("stderr")).unwrap();
        let mut child = self
            .command(role, program.as_ref())
            .stdout(errors.try_clone().unwrap())
            .stderr(errors)
            .spawn()
            .unwrap();
        let held = Proc::of_child(&child).unwrap();
        std::thread::spawn(move || child.wait());
        held
    }

    /// What the actors have said so far: whole lines, since somebody may be writing.
    pub fn ledger(&self) -> Vec<Entry> {
        let text = fs::read_to_string(self.path(LEDGER)).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| Entry::parse(line).unwrap_or_else(|| panic!("ledger: {line:?}"))).collect()
    }

    /// Waits until somebody says so.
    #[track_caller]
    pub fn entry(&self, event: &str) -> Entry {
        let mut found = None;
        wait_until(&format!("{event:?} in the ledger"), || {
            found = self.ledger().into_iter().find(|e| e.event == event);
            found.is_some()
        });
        found.unwrap()
    }

    /// Whether somebody has said so.
    pub fn said(&self, event: &str) -> bool {
        self.ledger().iter().any(|e| e.event == event)
    }

    /// Waits until somebody says so and takes hold of that process.
    #[track_caller]
    pub fn proc(&self, event: &str) -> Proc {
        let entry = self.entry(event);
        let mut held = None;
        // In the middle of an execve(2) a process shows neither arguments nor environment.
        comes_true(Duration::from_secs(1), || {
            held = Proc::with_token(entry.pid, &self.token);
            held.is_some()
        });
        let held = held.unwrap_or_else(|| panic!("{event:?} is dead already"));
        assert_eq!(held.start_ticks(), entry.start_ticks, "{event:?} is dead, its pid belongs to another");
        held
    }

    /// Opens a gate for good.
    pub fn open_gate(&self, name: &str) {
        let path = self.path(name);
        // An actor may have made it, and not before now.
        let _ = mkfifo(&path, Mode::from_bits_truncate(0o666));
        let mut gate = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        gate.write_all(b".").unwrap();
        self.gates.lock().unwrap().push(gate);
    }

    /// Ends everybody now, as dropping the scene does.
    pub fn end(&self) {
        assert!(process::kill_all(&self.token), "somebody of {} does not die", self.token);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let all_gone = process::kill_all(&self.token);
        let pinned = pinned_for(&self.token);
        if std::thread::panicking() {
            for name in [LEDGER, "stderr"] {
                let text = fs::read_to_string(self.path(name)).unwrap_or_default();
                eprintln!("---- {name} of {}\n{text}", self.token);
            }
        } else {
            assert!(all_gone, "somebody of {} does not die", self.token);
            assert!(pinned.is_empty(), "left attached: {pinned:?}");
        }
    }
}

/// What agents of a scene have pinned in the kernel and left there: their programs are still attached.
fn pinned_for(token: &str) -> Vec<PathBuf> {
    let folders = fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter(|path| path.to_string_lossy().contains(token)).collect()
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        Some(Self {
            event: words.next()?.into(),
            pid: words.next()?.parse().ok()?,
            start_ticks: words.next()?.parse().ok()?,
            boot_ns: words.next()?.parse().ok()?,
            ppid: words.next()?.parse().ok()?,
        })
    }
}

/// Where cargo puts the programs of this build: this program's own folder, or the one above a test's.
pub(crate) fn build_folder() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().unwrap();
    if folder.ends_with("deps") { folder.parent().unwrap().into() } else { folder.into() }
}

fn actor() -> PathBuf {
    let actor = build_folder().join("actor");
    assert!(actor.exists(), "{} is not there: run the tests with cargo", actor.display());
    actor
}
