//! Storms, one after the other: threads, double forks, subreapers, and pids that are used again. Each is in a pid namespace of its
//! own: there the next pid may be set without harm to anybody else.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::process::{Proc, Signal};
use crate::scene::build_folder;

/// Processes of one storm.
const LIVES: u64 = 1_500;

/// Calm between two storms, milliseconds: checkpoints fall into it.
const CALM_MS: u128 = 1_500;

pub(super) struct Weather {
    seed: u64,
    storm: Option<Storm>,
    ended: Instant,
    pub(super) lives: u64,
}

struct Storm {
    child: Child,
    held: Proc,
    dir: TempDir,
    /// The forker waits for its end.
    _gate: File,
}

impl Weather {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, storm: None, ended: Instant::now(), lives: 0 }
    }

    pub(super) fn calm(&self) -> bool {
        self.storm.is_none()
    }

    /// Begins a storm when it has been calm for long enough, and ends one that has blown itself out.
    pub(super) fn blow(&mut self, token: &str) {
        if self.storm.as_ref().is_some_and(Storm::is_over) {
            self.calm_down();
            self.lives += LIVES;
        } else if self.storm.is_none() && self.ended.elapsed().as_millis() > CALM_MS {
            self.seed += 1;
            self.storm = Some(Storm::start(token, self.seed));
        }
    }

    pub(super) fn calm_down(&mut self) {
        self.storm = None;
        self.ended = Instant::now();
    }
}

impl Storm {
    fn start(token: &str, seed: u64) -> Self {
        let dir = tempfile::Builder::new().prefix(&format!("reaper-{token}-")).tempdir().unwrap();
        let path = |name: &str| -> PathBuf { dir.path().join(name) };
        mkfifo(&path("gate"), Mode::from_bits_truncate(0o600)).unwrap();
        let gate = OpenOptions::new().read(true).write(true).open(path("gate")).unwrap();
        for name in ["reports", "done"] {
            File::create(path(name)).unwrap();
        }
        let child = Command::new("unshare")
            .args(["--pid", "--mount-proc", "--fork", "--kill-child"])
            .arg(build_folder().join("forker"))
            .args(["storm", token, &seed.to_string(), &LIVES.to_string(), "0", "1"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let held = Proc::of_child(&child).unwrap();
        Self { child, held, dir, _gate: gate }
    }

    fn is_over(&self) -> bool {
        assert!(self.held.is_alive(), "a storm's forker died");
        !fs::read(self.dir.path().join("done")).unwrap().is_empty()
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // Its child is pid 1 of the namespace, and everybody in it dies with that one.
        self.held.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}
