//! Runs tests one by one and tells how each ended: the inside of `cargo xtask vm`.
//!
//! `guest PLAN`, where a line of the plan is `TEST PROGRAM NAME`: what to call it, the program that libtest made of its file,
//! and its name in there. Each runs in a process of its own, so that one that hangs or dies takes no other along.
//!
//! As pid 1 of a virtual machine it first makes of it what programs expect (see `system`), runs itself with the plan as
//! its second argument, waits for whoever is orphaned, and in the end switches the machine off.
//!
//! Every line that it says itself begins with [`MARK`]; what a failed test has printed follows, each line after `> `. The
//! last line is `done`: without it, nobody knows what is missing.
#![allow(clippy::print_stdout, reason = "what it says on stdout is what it is for")]

mod system;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reaper_tests::process::Proc;

/// Before everything that this program says: a kernel or a test may write to the same place.
const MARK: &str = "guest:";

/// How long one test may take. A storm is long on an emulated CPU.
const LONGEST: Duration = Duration::from_secs(600);

/// So much of what a failed test has printed is shown, from its end.
const SHOWN: usize = 64 * 1024;

fn main() -> ExitCode {
    let plan = std::env::args_os().nth(1).unwrap_or_default();
    let done = match std::process::id() {
        1 => system::live(Path::new(&plan)),
        _ => run(Path::new(&plan)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{MARK} error {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the whole plan.
fn run(plan: &Path) -> Result<()> {
    let text = fs::read_to_string(plan).with_context(|| format!("cannot read {}", plan.display()))?;
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's version")?;
    println!("{MARK} kernel {}", release.trim());
    let output = tempfile::NamedTempFile::new().context("cannot make a file for what a test prints")?;
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [test, program, name] = words[..] else { anyhow::bail!("the plan has the line {line:?}") };
        println!("{MARK} begin {test}");
        let began = Instant::now();
        let ended = one(program, name, output.path());
        let took = began.elapsed().as_millis();
        match ended {
            Ok(()) => println!("{MARK} ok {test} {took}"),
            Err(error) => {
                println!("{MARK} failed {test} {took} {error:#}");
                let text = fs::read(output.path()).unwrap_or_default();
                let text = String::from_utf8_lossy(&text[text.len().saturating_sub(SHOWN)..]);
                text.lines().for_each(|line| println!("> {}", line.replace(char::is_control, "?")));
            }
        }
    }
    println!("{MARK} done");
    Ok(())
}

/// Runs one test, with what it prints in a file; an error says how it ended instead of well.
fn one(program: &str, name: &str, output: &Path) -> Result<()> {
    let file = File::create(output).context("cannot empty the file for what a test prints")?;
    let mut child = Command::new(program)
        .args(["--exact", name])
        .stdin(Stdio::null())
        .stderr(file.try_clone()?)
        .stdout(file)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let ended = Proc::of_child(&child).context("cannot hold it")?.wait_gone(LONGEST);
    if !ended {
        child.kill().context("cannot kill it")?;
    }
    let status = child.wait().context("cannot wait for it")?;
    ensure!(ended, "was killed after {} s", LONGEST.as_secs());
    ensure!(status.success(), "{status}");
    let text = fs::read(output).context("cannot read what it printed")?;
    let ran = String::from_utf8_lossy(&text).contains("test result: ok. 1 passed; 0 failed");
    ensure!(ran, "the program ended well and ran no such test");
    Ok(())
}
