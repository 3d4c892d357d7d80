//! The Debian package, in a Debian system with systemd: installed, used, killed, upgraded and purged.
//!
//! The system is Debian's bookworm with nothing but systemd, unpacked into memory by the kernel; the packages and the script
//! that uses them (`package.sh`) come as a second archive after it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    apt::{self, Apt},
    folder,
    image::Image,
    kernel::KERNELS,
    qemu::{Machine, Qemu},
    rootfs,
};
use crate::sh;

/// The kernel and the system, by the series of the kernel.
const SERIES: &str = "6.1";
const SUITE: &str = "bookworm";
/// Makes the system. A script, so it need not be installed.
const MAKER: &str = "mmdebstrap";
/// Beside what every system has.
const PACKAGES: &str = "systemd-sysv";
/// What a panic or a unit that fails leaves is for whoever looks for a reason. Nobody logs in: no getty waits for a
/// line of which nothing says that it is there.
const KERNEL_ARGS: &str = "console=ttyS0 panic=-1 rdinit=/sbin/init systemd.show_status=yes quiet \
                           systemd.mask=serial-getty@ttyS0.service";
const LONGEST: Duration = Duration::from_secs(30 * 60);

const SCRIPT: &str = include_str!("package.sh");
const JOB: &str = include_str!("package.pl");
const UNIT: &str = "[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/bin/sh /package/package.sh\n";
const UNIT_FILE: &str = "etc/systemd/system/package.service";
/// What starts it, in a file, because an `Image` has no links.
const WANTED: &str = "[Unit]\nWants=package.service\n";
const WANTED_FILE: &str = "etc/systemd/system/multi-user.target.d/package.conf";

/// How the script begins what it says, and how it ends.
const SAYS: &str = "package: ";
const DONE: &str = "package: done";

/// What the machine is made of.
pub(crate) struct Parts {
    folder: PathBuf,
    qemu: Qemu,
    kernel: PathBuf,
    system: PathBuf,
}

/// Finds or fetches them.
pub(crate) fn prepare() -> Result<Parts> {
    let folder = folder()?;
    let kernel = KERNELS.iter().find(|kernel| kernel.name == SERIES).context("no kernel of that series")?;
    let (kernel, qemu, system) = (kernel.image(&folder)?, Qemu::ensure(&folder)?, system(&folder)?);
    Ok(Parts { folder, qemu, kernel, system })
}

/// Boots a system and installs the first package in it, and then the second one over it.
pub(crate) fn test(parts: &Parts, package: &Path, upgrade: &Path) -> Result<()> {
    let Parts { folder, qemu, kernel, system } = parts;
    let initrd = folder.join("package.initrd");
    let mut whole = fs::read(system).context("cannot read the system")?;
    whole.extend(ours(package, upgrade, folder)?);
    fs::write(&initrd, whole).with_context(|| format!("cannot write {}", initrd.display()))?;
    let console = folder.join("package.console");
    let machine = Machine { kernel, initrd: &initrd, args: KERNEL_ARGS, console: &console, longest: LONGEST };
    let (began, mut done) = (Instant::now(), false);
    qemu.boot(&machine, |line| {
        done |= line == DONE;
        eprintln!("vm package: {}", line.strip_prefix(SAYS).unwrap_or(line));
    })?;
    fs::remove_file(&initrd).with_context(|| format!("cannot remove {}", initrd.display()))?;
    ensure!(done, "the package failed its test; what the kernel said is in {}", console.display());
    eprintln!("vm package: passed after {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// The archive with the packages and the script.
fn ours(package: &Path, upgrade: &Path, folder: &Path) -> Result<Vec<u8>> {
    let mut image = Image::default();
    for file in [package, upgrade] {
        let name = file.file_name().context("a package without a name")?.to_string_lossy();
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        image.add(&format!("package/{name}"), content);
    }
    image.add("package/package.sh", SCRIPT);
    image.add("package/job.pl", JOB);
    image.add(UNIT_FILE, UNIT);
    image.add(WANTED_FILE, WANTED);
    let written = folder.join("package.ours");
    image.write(&written)?;
    let content = fs::read(&written).context("cannot read the archive of the packages")?;
    fs::remove_file(&written).context("cannot remove the archive of the packages")?;
    Ok(content)
}

/// The archive with Debian's system: the kept one, or else it is made.
fn system(folder: &Path) -> Result<PathBuf> {
    let kept = folder.join("debian.cpio");
    if kept.exists() {
        return Ok(kept);
    }
    if !sh::is_root() {
        bail!("Debian's system is made as root: run this once with sudo");
    }
    eprintln!("vm package: making a system of Debian's {SUITE}");
    let maker = sh::empty(&folder.join(MAKER))?;
    let apt = Apt::of_machine(&folder.join("apt/machine"))?;
    apt.unpack(&[MAKER.into()], &maker)?;
    let root = folder.join("debian");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    let mut make = Command::new(maker.join("usr/bin").join(MAKER));
    make.args(["--mode=root", "--variant=essential", &format!("--include={PACKAGES}"), SUITE]);
    sh::run_quietly(make.arg(&root).arg(apt::mirror(folder)?))?;
    // Whole, or not there.
    let unfinished = folder.join("debian.cpio.new");
    let mut out = fs::File::create(&unfinished).map(std::io::BufWriter::new)?;
    rootfs::write(&root, &mut out).context("cannot write the system's archive")?;
    out.flush()?;
    fs::rename(&unfinished, &kept)?;
    fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    Ok(kept)
}
