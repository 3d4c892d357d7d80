//! What there is to run: the programs that libtest made of the crate `tests`, and the tests in each.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};
use cargo_metadata::{Message, TargetKind};

use crate::{
    build::{self, Profile},
    setup::Toolchain,
    sh,
};

const PACKAGE: &str = "reaper-tests";
/// Runs the tests inside.
pub(super) const GUEST: &str = "guest";
/// Tests that are not run in a small machine with an emulated CPU, or all of a file: what each would need there. None of them
/// asks more of a kernel than those that are run.
const OUTSIDE: [(&str, &str); 11] = [
    ("bench", "measures"),
    ("docs", "the documents, and the programs that they name"),
    ("drills", "real frameworks"),
    ("drills_php", "real frameworks"),
    ("fleet", "a shipper"),
    ("journal", "a shell with mounts of its own"),
    ("metrics::prometheus_scrapes_it", "Prometheus"),
    ("metrics::the_alerts_are_rules", "promtool"),
    ("metrics::the_page_tells_what_the_log_tells", "promtool"),
    ("report", "a browser"),
    ("soak", "a minute of a fast machine"),
];
/// Programs that no test in there starts.
const UNUSED: [&str; 2] = ["bench", "reaper"];

/// A test: its file's name, and its own in there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    pub(super) file: String,
    pub(super) name: String,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.file, self.name)
    }
}

impl Test {
    /// Reads what `Display` writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (file, name) = text.split_once("::")?;
        Some(Self { file: file.into(), name: name.into() })
    }
}

/// What runs, and with what.
pub(super) struct Plan {
    /// Programs that tests start, among them the one that runs the tests: name and file.
    pub(super) programs: Vec<(String, PathBuf)>,
    /// Programs with tests: the name of their source file, and where they are.
    pub(super) files: Vec<(String, PathBuf)>,
    /// In this order.
    pub(super) tests: Vec<Test>,
    /// Those that only run when they are asked for by name: measurements.
    pub(super) skipped: Vec<Test>,
}

impl Plan {
    /// Builds everything, and finds the tests whose name (`file::name`) contains one of these; without any, every test.
    pub(super) fn make(toolchain: &Toolchain, profile: Profile, filters: &[&str]) -> Result<Self> {
        let agent = build::agent(toolchain, profile)?;
        let mut plan = Self {
            programs: vec![("reaper".into(), agent)],
            files: Vec::new(),
            tests: Vec::new(),
            skipped: Vec::new(),
        };
        plan.build(toolchain, profile)?;
        ensure!(plan.programs.iter().any(|(name, _)| name == GUEST), "cargo did not build {GUEST}");
        let wanted = |test: &Test| {
            let name = test.to_string();
            !is_outside(test) && (filters.is_empty() || filters.iter().any(|filter| name.contains(filter)))
        };
        for (file, program) in &plan.files {
            let named = |names: Vec<String>| {
                names
                    .into_iter()
                    .map(|name| Test { file: file.clone(), name })
                    .filter(wanted)
                    .collect::<Vec<_>>()
            };
            let (all, skipped) = (named(list(program, &[])?), named(list(program, &["--ignored"])?));
            plan.tests.extend(all.into_iter().filter(|test| !skipped.contains(test)));
            plan.skipped.extend(skipped);
        }
        let used = |file: &String| plan.tests.iter().any(|test| test.file == *file);
        plan.files.retain(|(file, _)| used(file));
        Ok(plan)
    }

    /// Has cargo build the tests, and takes down what it says that it has built.
    fn build(&mut self, toolchain: &Toolchain, profile: Profile) -> Result<()> {
        let mut cargo = sh::cargo();
        cargo.args(["test", "--no-run", "--package", PACKAGE, "--message-format=json-render-diagnostics"]);
        cargo.args(profile.args());
        toolchain.apply(&mut cargo);
        let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("cargo cannot build the tests: {}", output.status);
        }
        for message in Message::parse_stream(output.stdout.as_slice()) {
            let Message::CompilerArtifact(artifact) = message.context("cannot read what cargo says")? else {
                continue;
            };
            let Some(program) = artifact.executable else { continue };
            let (name, kind) = (artifact.target.name, artifact.target.kind);
            if kind.contains(&TargetKind::Test) {
                self.files.push((name, program.into()));
            } else if kind.contains(&TargetKind::Bin)
                && !artifact.profile.test
                && !UNUSED.contains(&name.as_str())
            {
                self.programs.push((name, program.into()));
            }
        }
        self.files.sort();
        Ok(())
    }

    /// The plan for the program that runs it, with every program where `place` puts it.
    pub(super) fn text(&self, place: impl Fn(&str, &Path) -> String) -> String {
        let line = |test: &Test| {
            let (file, program) = self.files.iter().find(|(file, _)| *file == test.file)?;
            Some(format!("{test} {} {}\n", place(file, program), test.name))
        };
        self.tests.iter().filter_map(line).collect()
    }

    /// Where a program is.
    pub(super) fn program(&self, name: &str) -> Option<&Path> {
        self.programs.iter().find(|(program, _)| program == name).map(|(_, path)| path.as_path())
    }
}

/// Whether a test, or all of its file, stays outside of the machines.
fn is_outside(test: &Test) -> bool {
    OUTSIDE.iter().any(|(outside, _needs)| *outside == test.file || *outside == test.to_string())
}

/// The names of the tests in a program.
fn list(program: &Path, options: &[&str]) -> Result<Vec<String>> {
    let program = program.to_str().context("a path is not UTF-8")?;
    let said = sh::ask(program, ["--list", "--format", "terse"].iter().chain(options));
    Ok(names(&said.with_context(|| format!("{program} does not list its tests"))?))
}

/// Reads `libtest --list --format terse`: `module::name: test`.
fn names(said: &str) -> Vec<String> {
    said.lines().filter_map(|line| line.strip_suffix(": test")).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Plan, Test, names};

    #[test]
    fn a_list_of_tests_is_read() {
        assert_eq!(
            names("first: test\nmodule::second: test\nfast: benchmark\n"),
            ["first", "module::second"]
        );
    }

    #[test]
    fn a_test_is_called_as_it_is_read() {
        let test = Test { file: "probes".into(), name: "module::second".into() };
        assert_eq!(Test::parse(&test.to_string()), Some(test));
        assert_eq!(Test::parse("probes"), None);
    }

    #[test]
    fn a_plan_says_what_to_run() {
        let test = Test { file: "probes".into(), name: "first".into() };
        let plan = Plan {
            programs: Vec::new(),
            files: vec![("probes".into(), PathBuf::from("deps/probes-1f"))],
            tests: vec![test],
            skipped: Vec::new(),
        };
        assert_eq!(plan.text(|file, _| format!("/deps/{file}")), "probes::first /deps/probes first\n");
    }
}
