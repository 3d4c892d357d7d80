//! `cargo xtask vm`: the tests against a real kernel, on other kernels than this machine's.
//!
//! Each kernel boots in a virtual machine (`qemu`) whose whole system is one archive (`image`), the same for all of them: the
//! programs and the BPF objects are not built for a kernel. A table says what became of every test on every kernel.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    num::NonZero,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::{
    build::Profile,
    run::as_root,
    setup::{self, Toolchain},
    sh,
    test::Counts,
};

mod apt;
mod image;
mod kernel;
pub(crate) mod package;
mod plan;
mod qemu;
mod report;
mod rootfs;

use image::Image;
use kernel::{KERNELS, Kernel};
use plan::{GUEST, Plan};
use qemu::{Machine, Qemu};
use report::{Outcome, Report, Said};

/// The kernel's messages are for whoever looks for a reason; a panic ends the machine.
const KERNEL_ARGS: &str = "console=ttyS0 panic=-1 oops=panic rdinit=/guest -- /plan";

/// How long all tests may take on one kernel.
const LONGEST: Duration = Duration::from_secs(90 * 60);

/// This machine's own kernel, without a virtual machine.
const OWN: &str = "own";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// 5.10, 6.1, 6.12, 7.2, `own` for this machine's kernel, or `all` for the four.
    #[arg(default_value = "all")]
    kernels: Vec<String>,
    /// Only the tests whose `file::name` contains this; may be given more than once.
    #[arg(long)]
    filter: Vec<String>,
    /// Only what a kernel could do in its own way, and one story from its beginning to its end.
    #[arg(long, conflicts_with = "filter")]
    short: bool,
    /// Only the table by files.
    #[arg(long)]
    summary: bool,
}

/// What `--short` runs: what a kernel could do in its own way, and one story from its beginning to its end.
const SHORT: [&str; 3] = ["probes::", "observer::", "e2e_agent::each_orphan_has_its_story_in_order"];

/// Runs the matrix and prints it; fails if a test did, or did not run.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let kernels = args.kernels.iter().map(|name| Which::named(name)).collect::<Result<Vec<_>>>()?.concat();
    // Said before minutes of building, not after.
    let root = if kernels.contains(&Which::Own) { as_root()? } else { &[] };
    let filters: Vec<_> =
        if args.short { SHORT.into() } else { args.filter.iter().map(String::as_str).collect() };
    // The few are run with what the other tests have built; for all of them it pays to build what an emulated CPU gets through
    // sooner.
    let profile = if args.short { Profile::Debug } else { Profile::Checked };
    let plan = Plan::make(&setup::ensure()?, profile, &filters)?;
    let total = show(&plan, &kernels, root, !args.summary)?;
    println!("{total}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `--short` runs, on the oldest and on the newest kernel: a part of `cargo xtask test`, which has built the programs. A kernel
/// that Debian does not have any more, or that is out of reach, is no fault of what is tested: then its tests are skipped.
pub(crate) fn short(toolchain: &Toolchain) -> Result<Counts> {
    let plan = Plan::make(toolchain, Profile::Debug, &SHORT)?;
    let (folder, [oldest, .., newest]) = (folder()?, KERNELS);
    let (mut kernels, mut skipped) = (Vec::new(), 0);
    for kernel in [oldest, newest] {
        match kernel.image(&folder) {
            Ok(_kept) => kernels.push(Which::Debian(kernel)),
            Err(error) => {
                eprintln!("vm: not run on {}: {error:#}", kernel.name);
                skipped += plan.tests.len() as u64;
            }
        }
    }
    let mut total = if kernels.is_empty() { Counts::default() } else { show(&plan, &kernels, &[], false)? };
    total.skipped += skipped;
    Ok(total)
}

/// Runs the plan and prints what became of it.
fn show(plan: &Plan, kernels: &[Which], root: &[&str], by_test: bool) -> Result<Counts> {
    ensure!(!plan.tests.is_empty(), "no test has such a name");
    let mut reports = matrix(plan, kernels, root)?;
    reports.sort_by(|one, other| {
        let release = |report: &Report| report.release.clone().unwrap_or_else(|| report.name.clone());
        kernel::order(&release(one), &release(other))
    });
    println!("{}", report::by_file(&reports));
    if by_test {
        println!("{}", report::by_test(&reports));
    }
    let mut total = Counts::default();
    reports.iter().for_each(|report| total += report.counts());
    Ok(total)
}

/// A column of the matrix.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Debian(Kernel),
    Own,
}

impl Which {
    fn named(name: &str) -> Result<Vec<Self>> {
        let all = || KERNELS.map(Self::Debian);
        match name {
            "all" => Ok(all().into()),
            OWN => Ok(vec![Self::Own]),
            name => {
                let found = KERNELS.iter().find(|kernel| kernel.name == name);
                let names = KERNELS.map(|kernel| kernel.name).join(", ");
                let found =
                    found.with_context(|| format!("no kernel {name}: there are {names}, {OWN} and all"))?;
                Ok(vec![Self::Debian(*found)])
            }
        }
    }
}

/// Runs the plan on each of the kernels. What they need is fetched before the first one runs.
fn matrix(plan: &Plan, kernels: &[Which], root: &[&str]) -> Result<Vec<Report>> {
    let folder = folder()?;
    let mut images = Vec::new();
    for kernel in kernels {
        if let Which::Debian(kernel) = kernel {
            images.push((kernel.name, kernel.image(&folder)?));
        }
    }
    let mut reports = Vec::new();
    if !images.is_empty() {
        let (qemu, initrd) = (Qemu::ensure(&folder)?, initrd(plan, &folder)?);
        let one = |(name, kernel): &(&str, PathBuf)| {
            let console = folder.join(format!("{name}.console"));
            let (initrd, console) = (&initrd, &console);
            let machine = Machine { kernel, initrd, args: KERNEL_ARGS, console, longest: LONGEST };
            look_on(name, plan, |each| qemu.boot(&machine, each))
        };
        // A machine has one CPU, and its time does not depend on how much of ours it gets.
        let at_once = thread::available_parallelism().map_or(1, NonZero::get);
        for some in images.chunks(at_once) {
            reports.extend(thread::scope(|scope| {
                let running: Vec<_> = some.iter().map(|image| scope.spawn(|| one(image))).collect();
                running
                    .into_iter()
                    .map(|one| one.join().map_err(|_| anyhow!("a machine's thread panicked")))
                    .collect::<Result<Vec<_>>>()
            })?);
        }
    }
    if kernels.contains(&Which::Own) {
        reports.push(look_on(OWN, plan, |each| on_this_machine(plan, &folder, root, each)));
    }
    Ok(reports)
}

/// Where everything is kept that need not be made anew.
fn folder() -> Result<PathBuf> {
    let folder = sh::target().join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// The system of the machines.
fn initrd(plan: &Plan, folder: &Path) -> Result<PathBuf> {
    let mut image = Image::new()?;
    for (name, program) in &plan.programs {
        image.program(name, program)?;
    }
    for (name, program) in &plan.files {
        image.program(&format!("deps/{name}"), program)?;
    }
    image.add("plan", plan.text(|file, _| format!("/deps/{file}")));
    let initrd = folder.join("initrd");
    image.write(&initrd)?;
    Ok(initrd)
}

/// Runs the plan where this program runs.
fn on_this_machine(plan: &Plan, folder: &Path, root: &[&str], each: &mut dyn FnMut(&str)) -> Result<()> {
    let file = folder.join("plan");
    fs::write(&file, plan.text(|_, program| program.display().to_string()))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let guest = plan.program(GUEST).context("there is no program that runs a plan")?;
    let mut words = root.iter().map(std::ffi::OsStr::new).chain([guest.as_os_str(), file.as_os_str()]);
    let mut command = Command::new(words.next().context("nothing to run")?);
    let mut child = command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let child = child.as_mut().map_err(|error| anyhow!("cannot start the tests: {error}"))?;
    let said = child.stdout.take().context("the tests' output is not a pipe")?;
    for line in BufReader::new(said).split(b'\n') {
        each(String::from_utf8_lossy(&line.context("cannot read the tests' output")?).trim_end());
    }
    let status = child.wait().context("cannot wait for the tests")?;
    if !status.success() {
        bail!("the tests' runner ended with {status}");
    }
    Ok(())
}

/// Takes in what is said by a kernel that runs the plan, and shows how it gets on.
fn look_on(name: &str, plan: &Plan, run: impl FnOnce(&mut dyn FnMut(&str)) -> Result<()>) -> Report {
    let began = Instant::now();
    let mut report = Report::new(name, plan);
    let mut count = 0;
    eprintln!("vm {name}: {} tests", plan.tests.len());
    let ran = run(&mut |line| match report.line(line) {
        Said::Ended(test, outcome, took) => {
            count += 1;
            let word = if outcome == Outcome::Passed { "ok" } else { "FAILED" };
            eprintln!("vm {name}: {count}/{} {test} {word} {:.1} s", plan.tests.len(), took.as_secs_f64());
        }
        Said::Text(text) => eprintln!("vm {name}: {text}"),
        Said::Nothing => {}
    });
    if let Err(error) = ran {
        eprintln!("vm {name}: {error:#}");
    }
    if !report.done {
        let during = report.interrupted().map_or_else(String::new, |test| format!(" during {test}"));
        eprintln!("vm {name}: fell silent{during}; what its kernel said is in target/vm/{name}.console");
    }
    eprintln!("vm {name}: {} after {:.0} s", report.counts(), began.elapsed().as_secs_f64());
    report
}
