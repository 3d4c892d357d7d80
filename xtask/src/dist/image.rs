//! The container image: the binary and a configuration that observes, put together by buildah, which needs no daemon.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{VERSION, Work, binary::Binary};
use crate::{setup, sh};

const BUILDAH: &str = "buildah";
const RECIPE: &str = "packaging/container/Containerfile";

/// Writes the image as an archive in OCI's format, which podman, skopeo and ctr read.
pub(super) fn build(binary: &Binary, work: &Work) -> Result<()> {
    let buildah = buildah()?;
    // What the recipe copies, and nothing else.
    let context = sh::empty(&binary.folder().join("image"))?;
    copy(&binary.path, &context.join("reaper"))?;
    copy(&sh::root().join("packaging/reaper.toml"), &context.join("reaper.toml"))?;
    let storage = binary.folder().join("containers");
    let command = || {
        let mut command = Command::new(&buildah);
        // Its own storage, by plain copies: nothing of the machine's is touched, and no file system is mounted.
        command.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    };
    let name = format!("reaper:{VERSION}");
    let mut build = command();
    build.args(["build", "--isolation", "chroot", "--timestamp", &work.epoch, "--tag", &name]);
    sh::run(build.arg("--file").arg(sh::root().join(RECIPE)).arg(&context))?;
    // Packed here, because buildah's own archive is of the time at which it is written.
    let layout = sh::empty(&binary.folder().join("oci"))?;
    sh::run(command().args(["push", &name]).arg(format!("oci:{}:{name}", layout.display())))?;
    let archive = work.out.join(format!("reaper-{VERSION}-{}.oci.tar", binary.triple));
    sh::run(work.tar(&archive, &layout).arg("."))?;
    sh::run(command().args(["rmi", "--force", &name]))
}

/// The program, installed if it is not there.
fn buildah() -> Result<PathBuf> {
    if sh::on_path(BUILDAH).is_none() {
        if sh::on_path("apt-get").is_none() {
            bail!("there is no {BUILDAH}: install it, or ask for no image with --no-image");
        }
        setup::apt_install(&[BUILDAH.into()])?;
    }
    sh::on_path(BUILDAH).context("buildah was installed and is not found")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
}
