//! What the binary is made of, as CycloneDX has it: one list for the agent, one for the programs in it.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use super::{VERSION, Work, binary::Binary};
use crate::sh;

const NAME: &str = "cargo-cyclonedx";
const NAME_VERSION: &str = "0.5.9";

/// The packages whose lists are kept, and under which names.
const KEPT: [(&str, &str); 2] = [("reaper-userspace", "reaper"), ("reaper-ebpf", "reaper-ebpf")];
/// What cargo must see of the repository.
const SEEN: [&str; 7] =
    ["Cargo.toml", "Cargo.lock", "reaper-common", "reaper-ebpf", "reaper-userspace", "tests", "xtask"];
const FILE: &str = "list";

/// Writes the lists, without what only builds or tests use.
pub(super) fn write(binary: &Binary, work: &Work) -> Result<()> {
    // The program writes its lists beside the manifests. A copy, because in the repository the folders' new times would have cargo
    // build everything again.
    let copy = sh::empty(&binary.folder().join("listed"))?;
    sh::run(Command::new("cp").arg("-r").args(SEEN.map(|seen| sh::root().join(seen))).arg(&copy))?;
    let mut list = work.dated(Command::new(sh::tool(NAME, NAME_VERSION)?));
    list.current_dir(&copy).args([
        "cyclonedx",
        "--format",
        "json",
        "--spec-version",
        "1.5",
        "--no-build-deps",
    ]);
    sh::run(list.args(["--target", &binary.triple, "--override-filename", FILE]))?;
    for (package, name) in KEPT {
        let list = fs::read_to_string(copy.join(package).join(format!("{FILE}.json")));
        let list = list.with_context(|| format!("{NAME} lists nothing for {package}"))?;
        // It names this repository's packages by where they lie on this machine.
        let list = list.replace(&format!("file://{}/", copy.display()), "file:///reaper/");
        fs::write(work.out.join(format!("{name}-{VERSION}.cdx.json")), list)
            .context("cannot write the list")?;
    }
    fs::remove_dir_all(&copy).with_context(|| format!("cannot remove {}", copy.display()))
}
