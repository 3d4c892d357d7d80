//! What PHP's drills need from outside: PHP itself from the distribution, and the Illuminate packages that Debian 13 has.
//!
//! Those are PHP text and run on Debian 12's PHP too; they are unpacked below `target/drill-env`, not installed, with an
//! apt that has all its state there and reads one suite from the archive that the machine itself uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::drill::env::{apt, folder, once, program, step, text};

/// The interpreter with its extensions: pcntl is part of it.
const PHP: [&str; 5] = ["php-cli", "php-redis", "php-pgsql", "php-mbstring", "php-intl"];
/// The suite with Illuminate 10.48, and what is asked of it.
const SUITE: &str = "trixie";
const ILLUMINATE: [&str; 5] = [
    "php-illuminate-queue",
    "php-illuminate-console",
    "php-illuminate-redis",
    "php-illuminate-events",
    "php-illuminate-cache",
];
/// What they depend on and is no PHP text: the interpreter and its extensions, which are installed.
const NATIVE: [&str; 4] = ["php-common", "php-json", "php-intl", "php-mbstring"];

/// The interpreter.
///
/// # Errors
/// When it or an extension cannot be had.
pub(super) fn php() -> Result<PathBuf> {
    once("php", &PHP.join("\n"), || apt(&PHP))?;
    program("php", PHP[0])
}

/// php-fpm, whose program carries a version in its name.
///
/// # Errors
/// When it cannot be had.
pub(super) fn fpm() -> Result<PathBuf> {
    let find = || {
        let programs = fs::read_dir("/usr/sbin").ok()?.flatten().map(|entry| entry.path());
        programs.filter(|path| text(path).starts_with("/usr/sbin/php-fpm")).max()
    };
    if find().is_none() {
        apt(&["php-fpm"])?;
    }
    find().context("the package php-fpm is installed, and there is no /usr/sbin/php-fpm*")
}

/// The folder with `Illuminate/` in it.
///
/// # Errors
/// When the packages cannot be had.
pub(super) fn illuminate() -> Result<PathBuf> {
    let to = folder().join("illuminate");
    let library = to.join("usr/share/php");
    once("illuminate", SUITE, || {
        let apt = Apt::new()?;
        step(&format!("apt-get update (suite {SUITE} only)"), apt.command("apt-get").arg("update"))?;
        let names = apt.needed()?;
        let debs = apt.folder.join("debs");
        fs::create_dir_all(&debs)?;
        let mut download = apt.command("apt-get");
        download.arg("download").args(&names).current_dir(&debs);
        step(&format!("apt-get download ({} packages around Illuminate)", names.len()), &mut download)?;
        let unpack = r#"for deb in "$1"/*.deb; do dpkg-deb --extract "$deb" "$2" || exit; done"#;
        step("dpkg-deb --extract", Command::new("sh").args(["-c", unpack, "sh"]).arg(&debs).arg(&to))?;
        relocate(&library)
    })?;
    Ok(library)
}

/// The version of the unpacked queue worker, as its package has it.
pub(super) fn version() -> String {
    let debs = fs::read_dir(folder().join("apt/debs")).into_iter().flatten().flatten();
    let names = debs.filter_map(|deb| deb.file_name().into_string().ok());
    let version = |name: String| {
        let (version, _) = name.strip_prefix("php-illuminate-queue_")?.split_once(['+', '-', '_'])?;
        Some(version.to_owned())
    };
    names.filter_map(version).next().unwrap_or_else(|| "10.48".into())
}

/// Debian's autoloaders require each other by absolute path. PHP is told the new place when it starts.
fn relocate(library: &Path) -> Result<()> {
    let mut folders = vec![library.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "autoload.php") {
                let old = fs::read_to_string(&path)?;
                fs::write(&path, old.replace("'/usr/share/php/", "LIBRARY.'/"))?;
            }
        }
    }
    Ok(())
}

/// An apt whose only source is one suite and that leaves the machine's alone.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new() -> Result<Self> {
        let folder = folder().join("apt");
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(below))?;
        }
        fs::write(folder.join("status"), "")?;
        fs::write(
            folder.join("sources.list"),
            format!("deb [signed-by={KEYRING}] {} {SUITE} main\n", archive()?),
        )?;
        let here = text(&folder);
        let settings = [
            ("Dir::State", here.clone()),
            ("Dir::State::status", format!("{here}/status")),
            ("Dir::State::lists", format!("{here}/lists")),
            ("Dir::Cache", format!("{here}/cache")),
            ("Dir::Etc::sourcelist", format!("{here}/sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("APT::Install-Recommends", "false".into()),
            // Downloads are made by root into a folder that apt's own user may not see.
            ("APT::Sandbox::User", "root".into()),
        ];
        let lines: String = settings.iter().map(|(key, value)| format!("{key} \"{value}\";\n")).collect();
        fs::write(folder.join("apt.conf"), lines)?;
        Ok(Self { folder })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf"));
        command
    }

    /// What would be installed on an empty machine, as far as it is PHP text.
    fn needed(&self) -> Result<Vec<String>> {
        let told = self.command("apt-get").args(["install", "--simulate"]).args(ILLUMINATE).output()?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let names = told.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
        let names: Vec<_> = names
            .filter(|name| name.starts_with("php-") && !NATIVE.contains(name))
            .map(str::to_owned)
            .collect();
        if !ILLUMINATE.iter().all(|wanted| names.iter().any(|name| name == wanted)) {
            bail!("the suite {SUITE} has no {}", ILLUMINATE[0]);
        }
        Ok(names)
    }
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The Debian archive that this machine uses.
fn archive() -> Result<String> {
    let format = "$(ORIGIN) $(REPO_URI)";
    let told = Command::new("apt-get").args(["indextargets", "--format", format]).output()?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    // Its security updates are an archive of their own.
    let of_debian = |line: &str| line.strip_prefix("Debian ").map(str::to_owned);
    let uri = told.lines().filter_map(of_debian).find(|uri| !uri.contains("security"));
    uri.context("apt knows no archive of Debian's (apt-get update?)")
}
