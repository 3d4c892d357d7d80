//! Debian's packages, unpacked below `target/vm`: nothing is installed, and nobody need be root.
//!
//! apt does what it does for the machine, with lists and a cache of its own: it finds the archive, and checks the
//! archive's signature and the packages' hashes. Which archive that is, the machine's own configuration says.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use crate::sh;

/// Names Debian's archive where this machine's apt does not know it: `http://…/debian`.
const MIRROR_ENV: &str = "REAPER_DEBIAN_MIRROR";

/// Debian's keys, where apt does not trust them by itself.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt with its own lists.
pub(super) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// With the sources of this machine.
    pub(super) fn of_machine(folder: &Path) -> Result<Self> {
        let apt = Self::new(folder)?;
        // What is known already may do: a source of a third party that is away is not the end.
        if let Err(error) = apt.update() {
            eprintln!("vm: {error:#}");
        }
        Ok(apt)
    }

    /// With one suite of Debian's archive, for x86-64.
    pub(super) fn of_suite(folder: &Path, suite: &str) -> Result<Self> {
        let mirror = mirror(folder)?;
        let mut apt = Self::new(&folder.join(suite))?;
        let keys = if Path::new(KEYS).exists() { format!(" signed-by={KEYS}") } else { String::new() };
        let list = folder.join(suite).join("sources.list");
        fs::write(&list, format!("deb [arch=amd64{keys}] {mirror} {suite} main\n"))
            .with_context(|| format!("cannot write {}", list.display()))?;
        apt.options.push(format!("Dir::Etc::SourceList={}", list.display()));
        apt.options.push("Dir::Etc::SourceParts=/dev/null".into());
        apt.update().with_context(|| format!("Debian's {suite} cannot be read from {mirror}"))?;
        Ok(apt)
    }

    fn new(folder: &Path) -> Result<Self> {
        ensure!(
            sh::on_path("apt-get").is_some() && sh::on_path("dpkg").is_some(),
            "the kernels are Debian's, and this machine has no apt-get"
        );
        let (lists, cache) = (folder.join("lists"), folder.join("cache"));
        for parts in [lists.join("partial"), cache.join("archives/partial")] {
            fs::create_dir_all(&parts).with_context(|| format!("cannot make {}", parts.display()))?;
        }
        Ok(Self {
            options: vec![
                format!("Dir::State::Lists={}", lists.display()),
                format!("Dir::Cache={}", cache.display()),
                // Its own user may not write here.
                "APT::Sandbox::User=root".into(),
            ],
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(self.words());
        command
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.options.iter().flat_map(|option| ["-o", option.as_str()])
    }

    fn update(&self) -> Result<()> {
        sh::run_quietly(self.command("apt-get").args(["--quiet=2", "update"]))
    }

    /// Every package whose name begins so.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = sh::ask("apt-cache", self.words().chain(["pkgnames", prefix]));
        Ok(names.context("apt-cache does not tell the packages' names")?.lines().map(String::from).collect())
    }

    /// What would have to be installed for these packages beside what is.
    pub(super) fn missing_for(&self, packages: &[&str]) -> Result<Vec<String>> {
        let options = ["--simulate", "--no-install-recommends", "install"];
        let plan = sh::ask("apt-get", self.words().chain(options).chain(packages.iter().copied()));
        let plan = plan.with_context(|| format!("apt-get has no way to install {}", packages.join(" ")))?;
        Ok(to_install(&plan))
    }

    /// Fetches packages, and unpacks them into a folder.
    pub(super) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let fetched = into.join("fetched");
        fs::create_dir_all(&fetched).with_context(|| format!("cannot make {}", fetched.display()))?;
        // It checks what it fetches against the hashes in the signed lists.
        let mut apt = self.command("apt-get");
        sh::run_quietly(apt.current_dir(&fetched).args(["--quiet=2", "download"]).args(packages))?;
        let mut unpacked = 0;
        for file in fs::read_dir(&fetched)? {
            let file = file?.path();
            let done = Command::new("dpkg").arg("-x").arg(&file).arg(into).status();
            ensure!(done.is_ok_and(|status| status.success()), "dpkg cannot unpack {}", file.display());
            unpacked += 1;
        }
        if unpacked < packages.len() {
            bail!("apt-get fetched {unpacked} packages of {}", packages.len());
        }
        fs::remove_dir_all(&fetched).with_context(|| format!("cannot remove {}", fetched.display()))
    }
}

/// Where this machine's apt finds Debian.
pub(super) fn mirror(folder: &Path) -> Result<String> {
    if let Ok(mirror) = env::var(MIRROR_ENV) {
        return Ok(mirror);
    }
    let targets = |options: &[&str]| {
        let wanted = ["Created-By: Packages", "Origin: Debian", "Label: Debian"];
        let all = options.iter().chain(&["indextargets", "--format", "$(REPO_URI)"]).chain(&wanted);
        sh::ask("apt-get", all)?.lines().next().map(String::from)
    };
    // Without lists it does not know whose archive is Debian's.
    let found = targets(&[]).or_else(|| {
        let apt = Apt::of_machine(&folder.join("machine")).ok()?;
        targets(&apt.words().collect::<Vec<_>>())
    });
    found.with_context(|| {
        format!("this machine's apt knows no archive of Debian, whose kernels these are: set {MIRROR_ENV}")
    })
}

/// The packages in what `apt-get --simulate install` prints: `Inst libfdt1 (1.6.1 Debian:12 [amd64])`.
fn to_install(plan: &str) -> Vec<String> {
    let lines = plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    lines.map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::to_install;

    #[test]
    fn a_simulated_installation_says_what_is_missing() {
        let plan = "Reading package lists...\nThe following packages will be REMOVED:\n  other\nRemv other [1:10.0]\n\
                    Inst libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])\n\
                    Inst seabios (1.16.2-1 Debian:12.15/oldstable [all])\nConf libfdt1 (1.6.1-4+b1)\n";
        assert_eq!(to_install(plan), ["libfdt1", "seabios"]);
        assert!(to_install("Reading package lists...\n0 upgraded, 0 newly installed\n").is_empty());
    }
}
