//! What comes with the binary: made by the binary itself (manual pages, completions), or kept in the repository.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{VERSION, Work, binary::Binary};
use crate::sh;

/// Below the folder of the binary's profile; the package's assets in `reaper-userspace/Cargo.toml` name it, too.
const STAGE: &str = "stage";

/// As in the package's metadata.
const MAINTAINER: &str = "The reaper contributors <reaper@localhost>";

/// Shell, and the file in which it looks for a command's completions.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "completions/reaper"), ("zsh", "completions/_reaper"), ("fish", "completions/reaper.fish")];

/// What of the repository is in the archive.
const KEPT: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-GPL2",
    "LICENSE-MIT",
    "docs",
    "packaging",
];

/// Has the binary write its pages and completions. Returns where they are.
pub(super) fn fill(binary: &Binary) -> Result<PathBuf> {
    let stage = sh::empty(&binary.folder().join(STAGE))?;
    let overview = said(binary, &["man"])?;
    write(&stage.join("man/reaper.1"), &overview)?;
    for command in commands(&String::from_utf8_lossy(&overview)) {
        write(&stage.join(format!("man/reaper-{command}.1")), &said(binary, &["man", &command])?)?;
    }
    let pages = fs::read_dir(stage.join("man"))?.map(|page| Ok(page?.path())).collect::<Result<Vec<_>>>()?;
    pack(&pages)?;
    for (shell, file) in COMPLETIONS {
        write(&stage.join(file), &said(binary, &["completions", shell])?)?;
    }
    Ok(stage)
}

/// The archive for whoever has no dpkg: everything in one folder.
pub(super) fn archive(stage: &Path, binary: &Binary, work: &Work) -> Result<()> {
    let name = format!("reaper-{VERSION}");
    let above = sh::empty(&binary.folder().join("archive"))?;
    let folder = sh::empty(&above.join(&name))?;
    let copy = |from: &Path| sh::run(Command::new("cp").arg("-r").arg(from).arg(&folder));
    copy(&binary.path)?;
    copy(&stage.join("man"))?;
    copy(&stage.join("completions"))?;
    for kept in KEPT {
        copy(&sh::root().join(kept))?;
    }
    let file = work.out.join(format!("{name}-{}.tar.gz", binary.triple));
    sh::run(work.tar(&file, &above).arg("--gzip").arg(&name))
}

/// What the binary prints.
fn said(binary: &Binary, args: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(&binary.path).args(args).output();
    let output = output.with_context(|| format!("cannot start {}", binary.path.display()))?;
    if !output.status.success() {
        bail!("`reaper {}`: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// Packs files as Debian wants its pages and changelogs, which `man` reads anywhere.
fn pack(files: &[PathBuf]) -> Result<()> {
    sh::run(Command::new("gzip").args(["--best", "--no-name", "--force", "--"]).args(files))
}

/// The project's list of changes as the package has it, and Debian's own, whose one entry points to that.
pub(super) fn changelogs(binary: &Binary, work: &Work, revision: &str) -> Result<()> {
    let date = sh::ask("date", ["--utc", "--rfc-email", &format!("--date=@{}", work.epoch)]);
    let date = date.context("date does not say the time of the commit")?;
    let entry = format!(
        "reaper ({VERSION}-{revision}) unstable; urgency=medium\n\n  * See changelog.gz beside this file.\n\n \
         -- {MAINTAINER}  {}\n",
        date.trim()
    );
    let stage = binary.folder().join(STAGE);
    let (debian, project) = (stage.join("changelog.Debian"), stage.join("changelog"));
    write(&debian, entry.as_bytes())?;
    write(&project, &fs::read(sh::root().join("CHANGELOG.md")).context("cannot read CHANGELOG.md")?)?;
    pack(&[debian, project])
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let done = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, content));
    done.with_context(|| format!("cannot write {}", path.display()))
}

/// The commands that the overview names: `reaper\-tree(1)`.
fn commands(page: &str) -> Vec<String> {
    let names = page.lines().filter_map(|line| line.trim().strip_prefix("reaper\\-")?.strip_suffix("(1)"));
    names.map(|name| name.replace("\\-", "-")).collect()
}

#[cfg(test)]
mod tests {
    use super::commands;

    #[test]
    fn the_pages_are_those_that_the_overview_names() {
        let page = ".SH SUBCOMMANDS\n.TP\nreaper\\-run(1)\nRun the agent\n.TP\nreaper\\-demo\\-actor(1)\nreaper(1)\n";
        assert_eq!(commands(page), ["run", "demo-actor"]);
    }
}
