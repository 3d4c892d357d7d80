//! The kernels of the matrix: Debian's, fetched once and kept below `target/vm`.
//!
//! Each is found by its suite. Suites move on; so the newest kernel of the wanted series is taken, or where a suite has
//! left that behind, its newest one. What is kept is checked before it is used, and fetched again if it is not whole.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::apt::Apt;
use crate::sh;

/// A kernel by the name that a person gives, and where it comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Kernel {
    /// Its series.
    pub(super) name: &'static str,
    /// Debian's suite.
    suite: &'static str,
}

/// The oldest one first.
pub(super) const KERNELS: [Kernel; 4] = [
    Kernel { name: "5.10", suite: "bullseye" },
    Kernel { name: "6.1", suite: "bookworm" },
    Kernel { name: "6.12", suite: "trixie" },
    Kernel { name: "7.2", suite: "forky" },
];

/// How the packages' names begin; where there are both, the first one has the kernel in it.
const PACKAGES: [&str; 2] = ["linux-binary-", "linux-image-"];
/// How they end: the flavour without drivers for real machines.
const FLAVOUR: &str = "-cloud-amd64";

const IMAGE: &str = "vmlinuz";
const HASHES: &str = "SHA256SUMS";

impl Kernel {
    /// The kernel's file: the kept one, or else it is fetched.
    pub(super) fn image(self, folder: &Path) -> Result<PathBuf> {
        let kept = folder.join("kernels").join(self.name);
        if !is_whole(&kept) {
            self.fetch(folder, &kept).with_context(|| format!("kernel {} cannot be had", self.name))?;
        }
        Ok(kept.join(IMAGE))
    }

    fn fetch(self, folder: &Path, kept: &Path) -> Result<()> {
        let apt = Apt::of_suite(&folder.join("apt"), self.suite)?;
        let names = [apt.names(PACKAGES[0])?, apt.names(PACKAGES[1])?].concat();
        let package = newest(&names, self.name)
            .with_context(|| format!("Debian's {} has no kernel of {} or newer", self.suite, self.name))?;
        eprintln!("vm: fetching {package} of Debian's {}", self.suite);
        sh::empty(kept)?;
        let unpacked = kept.join("unpacked");
        apt.unpack(&[package.into()], &unpacked)?;
        let image = image_in(&unpacked)?.with_context(|| format!("there is no kernel in {package}"))?;
        fs::rename(&image, kept.join(IMAGE)).with_context(|| format!("cannot move {}", image.display()))?;
        fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))?;
        let hash =
            sh::ask("sha256sum", [kept.join(IMAGE)]).context("sha256sum does not tell the kernel's hash")?;
        fs::write(kept.join(HASHES), hash).context("cannot keep the kernel's hash")?;
        ensure!(is_whole(kept), "what was fetched does not have the hash that it had a moment ago");
        Ok(())
    }
}

/// Whether a kernel is kept here, and is what it was when it was fetched.
fn is_whole(kept: &Path) -> bool {
    let hashes = kept.join(HASHES);
    let check = || Command::new("sha256sum").args(["--check", "--status"]).arg(&hashes).status();
    hashes.exists() && check().is_ok_and(|status| status.success())
}

/// The kernel among what a package unpacked to: below boot, or beside its modules.
fn image_in(folder: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let named = entry.file_name().to_string_lossy().starts_with(IMAGE);
        match entry.file_type()? {
            kind if kind.is_file() && named => return Ok(Some(entry.path())),
            kind if kind.is_dir() => {
                if let Some(found) = image_in(&entry.path())? {
                    return Ok(Some(found));
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The package with the newest kernel of a series, or with the newest one if only later series are left.
fn newest<'a>(names: &'a [String], series: &str) -> Option<&'a str> {
    let wanted = numbers(series);
    let version = |name: &str| {
        let rest = PACKAGES.iter().find_map(|prefix| name.strip_prefix(prefix))?.strip_suffix(FLAVOUR)?;
        // A package that always stands for the newest one has no version in its name, and no kernel in it.
        rest.starts_with(|c: char| c.is_ascii_digit()).then(|| numbers(rest))
    };
    let packages = names.iter().filter_map(|name| Some((name.as_str(), version(name)?)));
    let fitting = packages.filter(|(_, version)| version.as_slice() >= wanted.as_slice());
    let best = fitting.max_by(|(name, version), (other_name, other)| {
        let of_series = |version: &[u64]| version.starts_with(&wanted);
        let by_series = of_series(version).cmp(&of_series(other));
        let by_version = by_series.then_with(|| version.cmp(other));
        // Of one kernel's packages the one that has it in it.
        by_version.then_with(|| place(other_name).cmp(&place(name)))
    });
    best.map(|(name, _)| name)
}

fn place(name: &str) -> Option<usize> {
    PACKAGES.iter().position(|prefix| name.starts_with(prefix))
}

/// The numbers of a version, which compare as it does.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Whether one release comes before another.
pub(super) fn order(one: &str, other: &str) -> Ordering {
    numbers(one).cmp(&numbers(other))
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::{newest, order};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.into()).collect()
    }

    #[test]
    fn the_newest_of_the_series_is_taken() {
        let all = names(&[
            "linux-image-5.10.0-30-cloud-amd64",
            "linux-image-cloud-amd64",
            "linux-image-5.10.0-9-cloud-amd64",
            "linux-image-5.10.0-32-cloud-amd64",
            "linux-image-5.10.0-33-amd64",
            "linux-image-6.1.0-1-cloud-amd64",
        ]);
        assert_eq!(newest(&all, "5.10"), Some("linux-image-5.10.0-32-cloud-amd64"));
        assert_eq!(newest(&all, "5.1"), Some("linux-image-6.1.0-1-cloud-amd64"));
    }

    #[test]
    fn a_suite_that_has_moved_on_gives_its_newest_one() {
        let all = names(&["linux-image-7.4.1+deb14-cloud-amd64", "linux-image-7.3.9+deb14-cloud-amd64"]);
        assert_eq!(newest(&all, "7.2"), Some("linux-image-7.4.1+deb14-cloud-amd64"));
        assert_eq!(newest(&all, "7.5"), None);
    }

    #[test]
    fn the_package_with_the_kernel_in_it_is_taken() {
        let all = names(&[
            "linux-image-7.2.12+deb14-cloud-amd64",
            "linux-binary-7.2.12+deb14-cloud-amd64",
            "linux-binary-unsigned-7.2.12+deb14-cloud-amd64",
            "linux-base-7.2.12+deb14-cloud-amd64",
        ]);
        assert_eq!(newest(&all, "7.2"), Some("linux-binary-7.2.12+deb14-cloud-amd64"));
    }

    #[test]
    fn releases_compare_as_numbers() {
        assert_eq!(order("5.10.0-32-cloud-amd64", "6.1.0-9-cloud-amd64"), Ordering::Less);
        assert_eq!(order("6.12.94+deb13-cloud-amd64", "6.1.0-9-cloud-amd64"), Ordering::Greater);
    }
}
