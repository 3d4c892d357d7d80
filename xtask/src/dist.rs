//! `cargo xtask dist`: everything that is handed out, in `target/dist`.
//!
//! One static binary (`binary`), and around it a `.deb` and an archive (`stage`, `deb`), a container image (`image`), the
//! Kubernetes manifests, checked against the API's schemas (`manifests`), a list of what the binary is made of (`sbom`), and
//! checksums. Every file is a function of the commit and the toolchain: times are the commit's, nothing tells where it was made.
//!
//! `--test` installs the package in a virtual machine with systemd (`crate::vm::package`).

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};

use crate::{setup, sh, vm};

mod binary;
mod deb;
mod image;
mod manifests;
mod sbom;
mod stage;

/// Of everything here.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const SUMS: &str = "SHA256SUMS";
/// When it was made, as everybody who makes files repeatably has agreed: seconds since 1970.
const EPOCH_ENV: &str = "SOURCE_DATE_EPOCH";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Without the container image, which buildah makes.
    #[arg(long)]
    no_image: bool,
    /// Then install the package in a virtual machine with systemd, use it, upgrade it and purge it.
    #[arg(long)]
    test: bool,
}

/// Makes all of it anew, and says what it has made.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let work = Work { epoch: epoch()?, out: sh::empty(&sh::target().join("dist"))? };
    // First what is quick to find fault with, and what may not be had.
    manifests::check()?;
    let machine = args.test.then(vm::package::prepare).transpose()?;
    let binary = binary::build(&setup::ensure()?, &work)?;
    let stage = stage::fill(&binary)?;
    stage::archive(&stage, &binary, &work)?;
    let package = deb::build(&binary, &work, deb::FIRST)?;
    sbom::write(&binary, &work)?;
    if args.no_image {
        eprintln!("dist: no container image, as asked");
    } else {
        image::build(&binary, &work)?;
    }
    let files = sums(&work)?;
    if let Some(machine) = machine {
        let upgrade = Work { epoch: work.epoch.clone(), out: sh::empty(&sh::target().join("dist-upgrade"))? };
        vm::package::test(&machine, &package, &deb::build(&binary, &upgrade, deb::NEXT)?)?;
    }
    for file in files {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What every part needs.
struct Work {
    /// [`EPOCH_ENV`].
    epoch: String,
    /// Where what is handed out is put.
    out: PathBuf,
}

impl Work {
    /// A command whose files are of that time.
    fn dated(&self, mut command: Command) -> Command {
        command.env(EPOCH_ENV, &self.epoch);
        command
    }

    /// A tar that packs what is in a folder: the same every time, nobody's, readable for all. What to pack comes last.
    fn tar(&self, file: &Path, folder: &Path) -> Command {
        let mut tar = Command::new("tar");
        tar.arg("--create").arg("--file").arg(file).arg("--directory").arg(folder);
        tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=go=rX,u+rw,a-s"]);
        tar.arg(format!("--mtime=@{}", self.epoch));
        tar
    }
}

/// The time of the commit, unless the environment gives another.
fn epoch() -> Result<String> {
    if let Ok(given) = env::var(EPOCH_ENV) {
        return Ok(given);
    }
    let root = sh::root().display().to_string();
    let time = sh::ask("git", ["-C", &root, "log", "-1", "--format=%ct"]).context(format!(
        "git does not tell the time of the commit: in a source archive, set {EPOCH_ENV} (seconds since 1970)"
    ))?;
    Ok(time.trim().to_owned())
}

/// Writes the checksums, which `sha256sum --check` reads. Returns every file in the folder.
fn sums(work: &Work) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(&work.out)? {
        names.push(entry?.file_name().into_string().ok().context("a file's name is not UTF-8")?);
    }
    names.sort();
    let sums = Command::new("sha256sum").current_dir(&work.out).arg("--").args(&names).output();
    let sums = sums.context("cannot start sha256sum")?;
    ensure!(sums.status.success(), "sha256sum: {}", String::from_utf8_lossy(&sums.stderr).trim());
    fs::write(work.out.join(SUMS), sums.stdout).context("cannot write the checksums")?;
    Ok(names.into_iter().chain([SUMS.into()]).map(|name| work.out.join(name)).collect())
}
