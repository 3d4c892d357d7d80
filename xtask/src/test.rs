//! `cargo xtask test`: every test, and one line at the end that says how many.
//!
//! Three parts. The fast one is plain `cargo test`, which needs no root and no BPF toolchain. The next is the crate
//! `tests`, which runs the agent on this machine's kernel as root. The last is a little of that on an old and on a new kernel, in
//! virtual machines (`vm`).
//!
//! With `--steps` it is one test instead: the core's properties, for that long.

use std::{
    env, fmt, fs,
    io::{self, BufRead as _, BufReader, IsTerminal as _},
    ops::AddAssign,
    path::{Path, PathBuf},
    process::{self, Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    build,
    run::{as_root, rooted, runner},
    setup, sh, vm,
};

/// What agents have pinned in the kernel, by the names of their state directories, stays attached without a process.
const PINS: &str = "/sys/fs/bpf";

/// The tests against a real kernel run one at a time: each watches every process of the machine, and counts.
const KERNEL_TEST_THREADS: &str = "--test-threads=1";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the part that needs no root and no BPF toolchain.
    #[arg(long)]
    fast: bool,
    /// Only the tests whose name contains this.
    filter: Option<String>,
    /// Only the core's properties, for so many steps with each of three streams: whole, lossy, and of agents that come and go.
    #[arg(long, conflicts_with_all = ["fast", "filter"])]
    steps: Option<u64>,
    /// Where a run of `--steps` begins, to go through one again.
    #[arg(long, requires = "steps")]
    seed: Option<u64>,
}

/// Runs the parts; fails if a test failed, or a part did not get as far as its tests or found none.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut parts = Vec::new();
    let room = Room::new()?;
    if let Some(steps) = args.steps {
        parts.push(("core", part(&mut core(steps, args.seed), &["--nocapture"])?));
    } else if args.fast {
        // With a toolchain that is there anyway, target/debug/reaper stays the one that has its programs.
        parts.push(("fast", part(&mut fast(setup::look().as_ref(), args), &[])?));
    } else {
        // Said before minutes of building, not after.
        let root = as_root()?;
        room.give_to_root(root)?;
        let toolchain = setup::ensure()?;
        parts.push(("fast", part(&mut fast(Some(&toolchain), args), &[])?));
        build::agent(&toolchain, build::Profile::Debug)?;
        let mut kernel = sh::cargo();
        kernel.env("TMPDIR", room.path());
        runner(&mut kernel, root);
        kernel.args(["test", "--no-fail-fast", "--package", "reaper-tests"]).args(&args.filter);
        toolchain.apply(&mut kernel);
        parts.push(("kernel", part(&mut kernel, &[KERNEL_TEST_THREADS])?));
        match args.filter {
            Some(_) => {}
            None if sh::on_path("apt-get").is_some() => parts.push(("other kernels", vm::short(&toolchain)?)),
            None => println!("not run on other kernels, which are Debian's: there is no apt-get"),
        }
    }

    let mut total = Counts::default();
    let mut empty = false;
    println!();
    for left in room.left_attached() {
        println!("the tests have left programs attached: {left}");
        total.failed += 1;
    }
    for (name, counts) in &parts {
        println!("{name} part: {counts}");
        total += *counts;
        empty |= counts.passed + counts.failed + counts.skipped == 0;
    }
    // A part that finds none of its tests is broken; a filter may leave one part without any.
    let none = total.passed + total.failed == 0 || (empty && args.filter.is_none());
    if none {
        println!("a part ran no test");
    }
    // Last, for scripts.
    println!("{total}");
    Ok(if total.failed == 0 && !none { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the tests of this run keep their files, so that what its agents have left in the kernel is told from what other
/// agents on this machine have there: the pins of an agent are named after its state directory.
struct Room(PathBuf);

impl Room {
    fn new() -> Result<Self> {
        let path = env::temp_dir().join(format!("xt{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// An agent of root's trusts no file in anybody else's directory.
    fn give_to_root(&self, as_root: &[&str]) -> Result<()> {
        if as_root.is_empty() {
            return Ok(());
        }
        let status = rooted(as_root, "chown").arg("root").arg(&self.0).status();
        let status = status.context("cannot start chown as root")?;
        ensure!(status.success(), "cannot give {} to root: {status}", self.0.display());
        Ok(())
    }

    /// Pins of agents that tests started.
    fn left_attached(&self) -> Vec<String> {
        // The name has nothing that a pin's name escapes.
        let name = self.0.file_name().map(|name| format!("-{}-", name.to_string_lossy()));
        let entries = fs::read_dir(PINS).into_iter().flatten().flatten();
        let pins = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        pins.filter(|pin| name.as_ref().is_some_and(|name| pin.contains(name))).collect()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Workers whose masters were killed on purpose leave something, and it is root's.
        let by_root = || {
            let root = as_root().ok()?;
            rooted(root, "rm").args(["-r", "--"]).arg(&self.0).status().ok()
        };
        let removed = fs::remove_dir_all(&self.0).is_ok() || by_root().is_some_and(|status| status.success());
        // On stderr: the counts are the last line of stdout.
        if !removed {
            eprintln!("cannot remove {}", self.0.display());
        }
    }
}

fn fast(toolchain: Option<&setup::Toolchain>, args: &Args) -> Command {
    let mut cargo = sh::cargo();
    cargo.args(["test", "--no-fail-fast"]).args(&args.filter);
    if let Some(toolchain) = toolchain {
        toolchain.apply(&mut cargo);
    }
    cargo
}

/// The core's properties as a long run, optimised.
fn core(steps: u64, seed: Option<u64>) -> Command {
    let mut cargo = sh::cargo();
    cargo.args(["test", "--package", "reaper-userspace", "--test", "core_properties"]);
    cargo.args(build::Profile::Checked.args());
    cargo.env("REAPER_STEPS", steps.to_string());
    if let Some(seed) = seed {
        cargo.env("REAPER_SEED", seed.to_string());
    }
    cargo
}

/// Runs one `cargo test`, showing its output as it comes, and counts its results.
fn part(command: &mut Command, test_args: &[&str]) -> Result<Counts> {
    command.arg("--").args(test_args);
    if io::stdout().is_terminal() {
        command.arg("--color=always");
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let Some(stdout) = child.stdout.take() else { bail!("cargo's output is not a pipe") };
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read cargo's output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        counts += Counts::of_line(&line).unwrap_or_default();
    }
    let status = child.wait()?;
    if !status.success() && counts.failed == 0 {
        println!(
            "cargo test ended with {status} though no test failed: it did not build, or a test was killed"
        );
        counts.failed = 1;
    }
    Ok(counts)
}

/// How the tests of one or more `test result:` lines ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// Reads libtest's `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; …`.
    fn of_line(line: &str) -> Option<Self> {
        let (_verdict, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what| {
            let field = counts.split("; ").find_map(|field| field.strip_suffix(what));
            field.and_then(|number| number.trim().parse().ok())
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn a_result_line_is_counted() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(Counts::of_line(line), Some(Counts { passed: 5, failed: 2, skipped: 1 }));
    }

    #[test]
    fn a_coloured_result_line_is_counted() {
        let line =
            "test result: \x1b[32mok\x1b(B\x1b[m. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Counts::of_line(line), Some(Counts { passed: 12, failed: 0, skipped: 0 }));
    }

    #[test]
    fn other_lines_are_not() {
        assert_eq!(Counts::of_line("test tree::fork ... ok"), None);
        assert_eq!(Counts::of_line("running 3 tests"), None);
        assert_eq!(Counts::of_line("test result: unreadable"), None);
    }

    #[test]
    fn the_last_line_has_the_form_that_scripts_read() {
        let mut total = Counts { passed: 1, failed: 0, skipped: 2 };
        total += Counts { passed: 3, failed: 1, skipped: 0 };
        assert_eq!(total.to_string(), "4 passed, 1 failed, 2 skipped");
    }
}
