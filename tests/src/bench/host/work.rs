//! Work as hosts have it, done by programs of others.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::super::Plan;
use crate::scene::Scene;

/// What is done, once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// perf's own benchmark of the scheduler, which starts 400 processes.
    Messaging,
    /// A crate that this repository uses anyway, with all that it depends on, into an empty folder. No download: cargo has
    /// fetched it to build this program.
    Compile,
}

impl Work {
    pub(super) const ALL: [Self; 2] = [Self::Messaging, Self::Compile];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Messaging => "perf bench sched messaging",
            Self::Compile => "cargo build",
        }
    }

    /// Wall-clock time; `None` if the program for it is not installed.
    pub(super) fn done(self, scene: &Scene, plan: Plan) -> Result<Option<Duration>> {
        let mut command = match self {
            Self::Messaging => messaging(plan),
            Self::Compile => compile(scene, plan),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let began = Instant::now();
        let output = match command.output() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            output => output.with_context(|| format!("cannot start {command:?}"))?,
        };
        let took = began.elapsed();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?} failed, {}: {said}", output.status);
        Ok(Some(took))
    }
}

fn messaging(plan: Plan) -> Command {
    let loops = if plan.short { "20" } else { "200" };
    let mut perf = Command::new("perf");
    perf.args(["bench", "sched", "messaging", "--group", "10", "--nr_loops", loops]);
    perf
}

fn compile(scene: &Scene, plan: Plan) -> Command {
    let package = if plan.short { "anyhow" } else { "serde_json" };
    // The one that has started this, if one has: it has its toolchain.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--offline", "--locked", "--quiet", "--package", package]);
    cargo.current_dir(repository).arg("--target-dir").arg(scene.path("compiled"));
    cargo
}

#[cfg(test)]
mod tests {
    use super::Work;
    use crate::bench::Plan;
    use crate::scene::Scene;

    #[test]
    fn something_is_compiled() {
        let scene = Scene::new();
        let took = Work::Compile.done(&scene, Plan { rounds: 1, short: true }).unwrap();
        assert!(took.is_some());
        let built = std::fs::read_dir(scene.path("compiled/debug/deps")).unwrap().flatten();
        assert!(built.into_iter().any(|entry| entry.path().extension().is_some_and(|ext| ext == "rlib")));
    }
}
