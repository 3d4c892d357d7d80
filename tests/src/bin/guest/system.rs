//! Pid 1 of a machine on which nothing has happened yet: file systems, the loopback interface, a console, and an end.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitStatus, wait};
use reaper_tests::loopback;

/// Type and place, in this order.
const MOUNTS: [(&str, &str); 10] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// The second serial line; the first one is the kernel's.
const CONSOLE: &str = "/dev/ttyS1";

/// What the tests find in their environment.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", "/usr/bin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
    // An emulated CPU takes milliseconds for a fork.
    ("REAPER_STORM_LIVES", "4000"),
];

/// Makes a system of the machine, runs the plan in a process that is not pid 1, and switches off.
pub(crate) fn live(plan: &Path) -> Result<()> {
    for (kind, place) in MOUNTS {
        // Those in sysfs have their places there.
        let _ = fs::create_dir_all(place);
        let none = None::<&str>;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), none)
            .with_context(|| format!("cannot mount {kind} at {place}"))?;
    }
    symlink("/proc/self/fd", "/dev/fd").context("cannot make /dev/fd")?;
    fs::create_dir_all("/root").context("cannot make /root")?;
    loopback::up().context("cannot switch the loopback interface on")?;
    let console = console()?;
    let mut runner = Command::new("/proc/self/exe");
    runner.arg0("guest").arg(plan).env_clear().envs(ENVIRONMENT);
    let runner = runner.stdout(console.try_clone()?).stderr(console.try_clone()?).spawn();
    let runner = runner.context("cannot start the plan")?;
    while ended(&wait().context("cannot wait")?) != Some(runner.id()) {}
    tcdrain(&console).context("cannot wait for the console")?;
    // QEMU is told not to reboot, and ends.
    match reboot(RebootMode::RB_AUTOBOOT)? {}
}

/// Who has died.
fn ended(status: &WaitStatus) -> Option<u32> {
    let ended = matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
    status.pid().filter(|_| ended).map(|pid| pid.as_raw().unsigned_abs())
}

/// The serial line, which carries bytes as they are.
fn console() -> Result<File> {
    let console = OpenOptions::new().read(true).write(true).open(CONSOLE);
    let console = console.with_context(|| format!("cannot open {CONSOLE}"))?;
    let mut settings = tcgetattr(&console).context("cannot ask the console's settings")?;
    cfmakeraw(&mut settings);
    tcsetattr(&console, SetArg::TCSANOW, &settings).context("cannot set the console up")?;
    Ok(console)
}
