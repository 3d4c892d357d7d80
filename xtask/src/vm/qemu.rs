//! A virtual machine: QEMU, which is used if it is installed and else unpacked below `target/vm`, with an emulated CPU
//! (so that it runs where there is no KVM), a kernel, and an initrd that is all of its system.
//!
//! It has two serial lines. The kernel's goes to a file; what the system in it says comes line by line.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::apt::Apt;
use crate::sh;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// Below the folder that it is unpacked to, with Debian's names: libraries, then firmware.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const MODULES: &str = "usr/lib/x86_64-linux-gnu/qemu";
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// The system with all programs is unpacked into its memory, beside the archive itself.
const MEMORY: &str = "2048";
/// Time in the machine is counted in instructions, two nanoseconds each: it goes by as on a machine of half a gigahertz however
/// slow the emulation is, and a wait is over at once. Else a busy host would make everything late in there, and the agent
/// lets go of whom it cannot look at in time. Counting wants one CPU: two would wait for each other's turns.
const CLOCK: &str = "shift=1,sleep=off";
/// What a machine starts with.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initrd: &'a Path,
    /// The kernel's command line.
    pub(super) args: &'a str,
    /// The file for what the kernel says.
    pub(super) console: &'a Path,
    /// It is ended after that.
    pub(super) longest: Duration,
}

/// A QEMU that starts.
pub(super) struct Qemu {
    program: PathBuf,
    /// Where it was unpacked, unless it is installed.
    unpacked: Option<PathBuf>,
}

impl Qemu {
    /// Finds or fetches it.
    pub(super) fn ensure(folder: &Path) -> Result<Self> {
        if let Some(program) = sh::on_path(PROGRAM) {
            return Ok(Self { program, unpacked: None });
        }
        let place = folder.join("qemu");
        let unpacked = Self { program: place.join("usr/bin").join(PROGRAM), unpacked: Some(place.clone()) };
        if !unpacked.starts() {
            eprintln!("vm: fetching {PACKAGE}, which is not installed");
            let apt = Apt::of_machine(&folder.join("apt/machine"))?;
            let packages = apt.missing_for(&[PACKAGE])?;
            apt.unpack(&packages, &sh::empty(&place)?)?;
            if !unpacked.starts() {
                bail!("{PACKAGE} was unpacked and does not start: install it, and try again");
            }
        }
        Ok(unpacked)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(place) = &self.unpacked {
            let libraries = LIBRARIES.map(|part| place.join(part).display().to_string()).join(":");
            command.env("QEMU_MODULE_DIR", place.join(MODULES)).env("LD_LIBRARY_PATH", libraries);
            command.args(FIRMWARE.iter().flat_map(|part| ["-L".into(), place.join(part)]));
        }
        command
    }

    fn starts(&self) -> bool {
        let version = self.command().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }

    /// Runs a machine until it switches itself off, and hands on every line that it says.
    pub(super) fn boot(&self, machine: &Machine<'_>, mut each: impl FnMut(&str)) -> Result<()> {
        let Machine { kernel, initrd, args, console, longest } = *machine;
        let deadline = Instant::now() + longest;
        fs::write(console, "").with_context(|| format!("cannot write {}", console.display()))?;
        let mut command = self.command();
        command.args(["-accel", "tcg", "-icount", CLOCK, "-cpu", "max", "-smp", "1", "-m", MEMORY]);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", args]);
        let mut machine = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let said = machine.stdout.take().context("the machine's serial line is not a pipe")?;
        let (send, lines) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(said).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                // Nobody listens any more when the time is up.
                let _ = send.send(line);
            }
        });
        // The line ends when the machine does.
        let in_time = loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => each(&line),
                Err(end) => break end == mpsc::RecvTimeoutError::Disconnected,
            }
        };
        if !in_time {
            machine.kill().context("cannot end the machine")?;
        }
        let status = machine.wait().context("cannot wait for the machine")?;
        if reader.join().is_err() {
            bail!("the reader of the machine's serial line panicked");
        }
        if !in_time {
            bail!("the machine was ended: it was not done after {} minutes", longest.as_secs() / 60);
        }
        if !status.success() {
            bail!("{} ended with {status}", self.program.display());
        }
        Ok(())
    }
}
