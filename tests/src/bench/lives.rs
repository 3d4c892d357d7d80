//! Processes to measure with: the program `lives`, and what it can do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::scene::{Scene, build_folder};

/// How a process life goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// fork(2) and _exit(2).
    Fork,
    /// The same with vfork(2).
    Vfork,
    /// posix_spawn(3) of this program.
    Spawn(&'static str, PathBuf),
}

impl Kind {
    /// All that this machine can make: a static program is there if `cargo xtask bench` has built one.
    pub(super) fn all() -> Vec<Self> {
        let mut kinds = vec![Self::Fork, Self::Vfork];
        let built = build_folder().join("nothing");
        if built.exists() {
            kinds.push(Self::Spawn("posix_spawn of a static program", built));
        }
        kinds.push(Self::Spawn("posix_spawn of a dynamic program", "/bin/true".into()));
        kinds
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Fork => "fork and exit",
            Self::Vfork => "vfork and exit",
            Self::Spawn(name, _) => name,
        }
    }

    /// Events that a life is.
    pub(super) fn events(&self) -> f64 {
        if self.execs() { 3.0 } else { 2.0 }
    }

    pub(super) fn execs(&self) -> bool {
        matches!(self, Self::Spawn(..))
    }
}

/// The program, running.
pub(super) struct Lives {
    child: Child,
    say: Option<ChildStdin>,
    hear: BufReader<ChildStdout>,
}

impl Lives {
    /// One that makes processes when it is told to.
    pub(super) fn maker(scene: &Scene) -> Result<Self> {
        Self::start(&["make", scene.token()])
    }

    /// One that has so many children.
    pub(super) fn holder(scene: &Scene, count: usize) -> Result<Self> {
        Self::start(&["hold", scene.token(), &count.to_string()])
    }

    /// One with so many threads and sockets.
    pub(super) fn wide(scene: &Scene, threads: usize, sockets: usize) -> Result<Self> {
        Self::start(&["wide", scene.token(), &threads.to_string(), &sockets.to_string()])
    }

    /// One that keeps so many CPUs busy.
    pub(super) fn burner(scene: &Scene, threads: usize) -> Result<Self> {
        Self::start(&["burn", scene.token(), &threads.to_string()])
    }

    fn start(args: &[&str]) -> Result<Self> {
        let program = build_folder().join("lives");
        let mut child = Command::new(&program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (say, hear) = (child.stdin.take(), child.stdout.take().context("no pipe")?);
        let mut lives = Self { child, say, hear: BufReader::new(hear) };
        let answer = lives.answer()?;
        ensure!(answer == "ready", "lives {args:?} says {answer:?}");
        Ok(lives)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes so many, one after the other; how long that took, in nanoseconds.
    pub(super) fn make(&mut self, kind: &Kind, count: usize) -> Result<f64> {
        let say = self.say.as_mut().context("its input is closed")?;
        match kind {
            Kind::Fork => writeln!(say, "fork {count}")?,
            Kind::Vfork => writeln!(say, "vfork {count}")?,
            Kind::Spawn(_, program) => writeln!(say, "spawn {count} {}", program.display())?,
        }
        self.answer()?.parse().context("lives does not answer with a time")
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.hear.read_line(&mut line).context("lives does not answer")?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Lives {
    fn drop(&mut self) {
        // The end of its input is its own.
        self.say = None;
        let _ = self.child.wait();
    }
}
