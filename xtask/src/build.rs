//! `cargo xtask build`: the agent with its BPF programs.
//!
//! The programs are compiled by `reaper-userspace/build.rs`, which is told with which toolchain. Without that it
//! embeds an empty object, so that plain `cargo build` and `cargo test` need no BPF toolchain.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    setup::{self, Toolchain},
    sh,
};

/// How the agent is compiled, by cargo's names (`Cargo.toml`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What the tests run: quick to build.
    Debug,
    /// Optimised, with the checks of a debug build: what runs for hours, or where every instruction counts twice.
    Checked,
    /// What figures are taken from.
    Release,
}

#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Options {
    /// Optimised, in target/release.
    #[arg(long)]
    release: bool,
}

/// Sets up, builds, and returns the path of the binary.
pub(crate) fn run(options: Options) -> Result<PathBuf> {
    agent(&setup::ensure()?, if options.release { Profile::Release } else { Profile::Debug })
}

/// Builds the agent and returns the path of the binary.
pub(crate) fn agent(toolchain: &Toolchain, profile: Profile) -> Result<PathBuf> {
    let mut cargo = sh::cargo();
    cargo.args(["build", "--package", "reaper-userspace"]).args(profile.args());
    toolchain.apply(&mut cargo);
    sh::run(&mut cargo)?;
    Ok(sh::target().join(profile.folder()).join("reaper"))
}

impl Profile {
    /// What selects it, for every command of cargo that builds.
    pub(crate) const fn args(self) -> &'static [&'static str] {
        match self {
            Self::Debug => &[],
            Self::Checked => &["--profile", "checked"],
            Self::Release => &["--release"],
        }
    }

    /// Below `target`.
    const fn folder(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Checked => "checked",
            Self::Release => "release",
        }
    }
}
