//! The static binary: with this machine's C library put into it whole.
//!
//! Not against musl: the freezer ends a thread inside a system call, of which musl's list of threads would not learn, and every
//! test runs on glibc. What a static glibc does not do is load name services: users are looked up in /etc/passwd.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::Work;
use crate::{setup::Toolchain, sh};

/// Like release, but without symbols: `[profile.shipped]` of the workspace.
pub(super) const PROFILE: &str = "shipped";
/// Between flags in cargo's variable.
const SEPARATOR: &str = "\x1f";

/// A binary that was built.
pub(super) struct Binary {
    pub(super) path: PathBuf,
    /// Rust's name for what it was built for.
    pub(super) triple: String,
}

impl Binary {
    /// The folder of its profile, where the parts of the package are put together.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}

/// Builds it, and makes sure that it needs nothing of the host that it will run on.
pub(super) fn build(toolchain: &Toolchain, work: &Work) -> Result<Binary> {
    // Naming it keeps the flags from what only builds.
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut cargo = work.dated(sh::cargo());
    cargo.args(["build", "--package", "reaper-userspace", "--bin", "reaper", "--locked"]);
    cargo.args(["--profile", PROFILE, "--target", &triple]).env("CARGO_ENCODED_RUSTFLAGS", flags());
    toolchain.apply(&mut cargo);
    sh::run(&mut cargo)?;
    let path = sh::target().join(&triple).join(PROFILE).join("reaper");
    let output =
        Command::new("ldd").arg(&path).output().context("cannot start ldd, which says what is static")?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(is_static(&said), "{} is not static, says ldd:\n{}", path.display(), said.trim_end());
    Ok(Binary { path, triple })
}

/// What ldd says of a program that loads nothing: of one at a fixed address, and of one that may be anywhere.
fn is_static(said: &str) -> bool {
    ["statically linked", "not a dynamic executable"].iter().any(|words| said.contains(words))
}

/// Static, and no path of this machine stays in it.
fn flags() -> String {
    let cargo_home = sh::cargo_bin();
    let cargo_home = cargo_home.parent().unwrap_or(&cargo_home);
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=cargo", cargo_home.display()),
        format!("--remap-path-prefix={}=reaper", sh::root().display()),
    ];
    flags.join(SEPARATOR)
}

#[cfg(test)]
mod tests {
    use super::is_static;

    #[test]
    fn only_what_ldd_calls_static_is() {
        assert!(is_static("\tstatically linked\n") && is_static("\tnot a dynamic executable\n"));
        assert!(!is_static("\tlibc.so.6 => /lib/libc.so.6 (0x1)\n") && !is_static(""));
    }
}
