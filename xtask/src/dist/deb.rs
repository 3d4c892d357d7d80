//! The Debian package, by cargo-deb: what is in it is said in `reaper-userspace/Cargo.toml`, its scripts are in
//! `packaging/debian`.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};

use super::{
    Work,
    binary::{self, Binary},
    stage,
};
use crate::sh;

const NAME: &str = "cargo-deb";
const NAME_VERSION: &str = "3.8.0";

/// Not installed for this: it takes half of Perl.
const CHECKER: &str = "lintian";

/// The revision that is handed out, and one that it can be upgraded to, for the test.
pub(super) const FIRST: &str = "1";
pub(super) const NEXT: &str = "2";

/// Packs what was built and staged. Debian's checker must have nothing to say, where it is installed.
pub(super) fn build(binary: &Binary, work: &Work, revision: &str) -> Result<PathBuf> {
    stage::changelogs(binary, work, revision)?;
    let mut deb = work.dated(Command::new(sh::tool(NAME, NAME_VERSION)?));
    deb.current_dir(sh::root()).args([
        "--package",
        "reaper-userspace",
        "--no-build",
        "--no-strip",
        "--locked",
    ]);
    deb.args(["--profile", binary::PROFILE, "--target", &binary.triple, "--deb-revision", revision]);
    sh::run(deb.arg("--output").arg(&work.out))?;
    for entry in work.out.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            if sh::on_path(CHECKER).is_some() {
                sh::run(Command::new(CHECKER).args(["--fail-on", "error,warning"]).arg(&path))?;
            }
            return Ok(path);
        }
    }
    bail!("{NAME} has put no package into {}", work.out.display())
}
