//! Puts the objects with the kernel programs into `OUT_DIR`, where the library embeds them.
//!
//! The BPF target needs a compiler with the sources of `core` and a linker of its own, so by default the objects are
//! empty: `cargo check` and `cargo test` need no BPF toolchain, and an agent built that way says so when it starts.
//! `REAPER_BPF_TOOLCHAIN` names the rustup toolchain for a real build; `cargo xtask` sets it.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

/// The package with the programs.
const NAME: &str = "reaper-ebpf";

/// Its objects, by their names in `OUT_DIR`.
const OBJECTS: [&str; 2] = ["reaper-ebpf", "reaper-observer"];

/// The variable that asks for a real build.
const TOOLCHAIN: &str = "REAPER_BPF_TOOLCHAIN";

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    // aya-build watches the programs; the wire format they share with the library is on us.
    println!("cargo:rerun-if-changed=../reaper-common");

    match env::var(TOOLCHAIN) {
        Ok(toolchain) if !toolchain.is_empty() => build(&toolchain),
        _ => {
            let out_dir = env::var_os("OUT_DIR").context("OUT_DIR is not set")?;
            OBJECTS.iter().try_for_each(|name| {
                let object = PathBuf::from(&out_dir).join(name);
                fs::write(&object, []).with_context(|| format!("writing {}", object.display()))
            })
        }
    }
}

/// Compiles the programs with `toolchain`.
fn build(toolchain: &str) -> Result<()> {
    if !is_nightly(toolchain)? {
        // A compiler of the stable channel takes `-Z build-std` and the BPF target's inline assembly only like this.
        // Set here and not by the caller, so that it reaches nothing but the build of the programs.
        // SAFETY: a build script has one thread here, so nobody reads the environment at the same time.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    // The workspace's release profile is the agent's. bpf-linker does its own link-time optimisation.
    // SAFETY: as above.
    unsafe {
        env::set_var("CARGO_PROFILE_RELEASE_LTO", "off");
        env::set_var("CARGO_PROFILE_RELEASE_DEBUG", "2");
    }
    // The objects name their sources, for whoever reads what the kernel's verifier says: not by where they lie on this machine.
    // SAFETY: as above.
    unsafe {
        env::set_var("CARGO_UNSTABLE_TRIM_PATHS", "true");
        env::set_var("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all");
    }
    aya_build::build_ebpf(
        [Package { name: NAME, root_dir: "../reaper-ebpf", ..Package::default() }],
        Toolchain::Custom(toolchain),
    )
    .with_context(|| format!("building the kernel programs with the toolchain `{toolchain}`"))
}

/// Whether `toolchain`'s compiler is a nightly one.
fn is_nightly(toolchain: &str) -> Result<bool> {
    let output = Command::new("rustup")
        .args(["run", toolchain, "rustc", "--version", "--verbose"])
        .output()
        .context("running rustup")?;
    anyhow::ensure!(
        output.status.success(),
        "rustup has no toolchain `{toolchain}`: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let version = String::from_utf8_lossy(&output.stdout);
    Ok(version.lines().any(|line| line.starts_with("release:") && line.contains("nightly")))
}
