//! Who must never be signalled though it looks like somebody who may be: they stand beside every drill.
//!
//! A second application of the same framework with its own live master is [`super::Instance::Beside`]. Here are those that
//! are not of the framework at all: a `tail -f` and an editor with its name and the token in their arguments, and a
//! process of another user whose command line is a worker's.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use anyhow::{Context, Result};
use nix::unistd::User;

use super::{Framework, Stage};
use crate::process::Proc;

/// They live as long as this.
pub(super) struct Innocents(Vec<(&'static str, Child, Proc)>);

impl Innocents {
    pub(super) fn start(framework: &dyn Framework, stage: &Stage) -> Result<Self> {
        let log = stage.scene.path(&format!("{}-{}.log", framework.name(), stage.token()));
        File::create(&log)?;
        let nobody = User::from_name("nobody")?.context("there is no user nobody")?;
        let mut tail = Command::new("tail");
        tail.arg("-f").arg(&log);
        let mut editor = Command::new("tail");
        editor.arg0(format!("vim {}", framework.lookalike(stage))).arg("-f").arg(&log);
        let mut stranger = Command::new("tail");
        stranger.arg0(framework.lookalike(stage)).arg("-f").arg(&log);
        stranger.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
        let mut all = Vec::new();
        for (what, command) in
            [("tail -f", tail), ("an editor", editor), ("a worker of another user", stranger)]
        {
            let child = stage.dress(command, "innocents").spawn().with_context(|| what)?;
            let proc = Proc::of_child(&child).context("it died at once")?;
            all.push((what, child, proc));
        }
        Ok(Self(all))
    }

    /// Those that have died.
    pub(super) fn dead(&self) -> Vec<&'static str> {
        self.0.iter().filter(|(_, _, proc)| !proc.is_alive()).map(|(what, ..)| *what).collect()
    }
}

impl Drop for Innocents {
    fn drop(&mut self) {
        for (_, child, _) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
