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

#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Profile {
    /// Optimised, in target/release.
    #[arg(long)]
    release: bool,
}

/// Sets up, builds, and returns the path of the binary.
pub(crate) fn run(profile: Profile) -> Result<PathBuf> {
    agent(&setup::ensure()?, profile)
}

/// Builds the agent and returns the path of the binary.
pub(crate) fn agent(toolchain: &Toolchain, profile: Profile) -> Result<PathBuf> {
    let mut cargo = sh::cargo();
    cargo.args(["build", "--package", "reaper-userspace"]);
    if profile.release {
        cargo.arg("--release");
    }
    toolchain.apply(&mut cargo);
    sh::run(&mut cargo)?;
    Ok(binary(profile))
}

fn binary(profile: Profile) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    sh::root().join(target).join(if profile.release { "release" } else { "debug" }).join("reaper")
}

impl Profile {
    /// What the tests run: quick to build.
    pub(crate) const DEBUG: Self = Self { release: false };
    /// What figures are taken from.
    pub(crate) const RELEASE: Self = Self { release: true };
}
