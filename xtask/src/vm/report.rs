//! What became of every test on one kernel, read from what the program `guest` of the crate `tests` says.
//!
//! A test of which nothing is said has failed, and so has the run if its last line is missing.

use std::{collections::BTreeMap, time::Duration};

use super::plan::{Plan, Test};
use crate::test::Counts;

/// Before everything that `guest` says itself.
const MARK: &str = "guest: ";

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// It runs only when it is asked for.
    Skipped,
    /// It was to run, and nothing was said of it.
    Missing,
}

/// A kernel's results.
pub(super) struct Report {
    /// As the person asked for it.
    pub(super) name: String,
    /// What the kernel says that it is.
    pub(super) release: Option<String>,
    /// Whether it got to its end.
    pub(super) done: bool,
    results: BTreeMap<Test, Outcome>,
    running: Option<Test>,
}

/// What a line is about, for whoever looks on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A test ended so after that time.
    Ended(Test, Outcome, Duration),
    /// For a person.
    Text(String),
    /// Nothing to show.
    Nothing,
}

impl Report {
    pub(super) fn new(name: &str, plan: &Plan) -> Self {
        let missing = plan.tests.iter().map(|test| (test.clone(), Outcome::Missing));
        let skipped = plan.skipped.iter().map(|test| (test.clone(), Outcome::Skipped));
        Self {
            name: name.into(),
            release: None,
            done: false,
            results: missing.chain(skipped).collect(),
            running: None,
        }
    }

    /// Takes a line in.
    pub(super) fn line(&mut self, line: &str) -> Said {
        let Some(said) = line.strip_prefix(MARK) else {
            return Said::Text(line.into());
        };
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        match word {
            "kernel" => self.release = Some(rest.into()),
            "begin" => self.running = Test::parse(rest),
            "done" => self.done = true,
            "ok" | "failed" => {
                if let Some(ended) = self.ended(word == "ok", rest) {
                    return ended;
                }
                return Said::Text(line.into());
            }
            _ => return Said::Text(line.into()),
        }
        Said::Nothing
    }

    /// `file::name MILLISECONDS`, and of a failed one how it ended.
    fn ended(&mut self, passed: bool, rest: &str) -> Option<Said> {
        let mut words = rest.splitn(3, ' ');
        let test = Test::parse(words.next()?)?;
        let took = Duration::from_millis(words.next()?.parse().ok()?);
        let outcome = if passed { Outcome::Passed } else { Outcome::Failed };
        // Nobody else's results count.
        let result = self.results.get_mut(&test).filter(|_| self.running.as_ref() == Some(&test))?;
        *result = outcome;
        self.running = None;
        Some(Said::Ended(test, outcome, took))
    }

    /// The test that ran when the kernel fell silent.
    pub(super) fn interrupted(&self) -> Option<&Test> {
        self.running.as_ref()
    }

    /// Tests by how they ended; a run without an end is a failure even if every test passed.
    pub(super) fn counts(&self) -> Counts {
        let count =
            |of: &[Outcome]| self.results.values().filter(|outcome| of.contains(outcome)).count() as u64;
        let failed = count(&[Outcome::Failed, Outcome::Missing]);
        Counts {
            passed: count(&[Outcome::Passed]),
            failed: if self.done { failed } else { failed.max(1) },
            skipped: count(&[Outcome::Skipped]),
        }
    }

    fn column(&self) -> String {
        self.release.clone().unwrap_or_else(|| format!("{} (did not start)", self.name))
    }
}

/// One row for each file of tests, a column for each kernel.
pub(super) fn by_file(reports: &[Report]) -> String {
    let files: Vec<&str> = rows(reports, |test| test.file.as_str());
    let cell = |report: &Report, file: &&str| {
        let of = |wanted: Outcome| {
            let outcomes = report.results.iter().filter(|(test, _)| test.file == **file);
            outcomes.filter(|(_, outcome)| **outcome == wanted).count()
        };
        let counted =
            [(Outcome::Passed, "ok"), (Outcome::Failed, "**failed**"), (Outcome::Missing, "**missing**")];
        let parts = counted.map(|(outcome, word)| (of(outcome), word));
        let parts =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
        parts.collect::<Vec<_>>().join(", ")
    };
    table("tests", reports, &files, cell)
}

/// One row for each test.
pub(super) fn by_test(reports: &[Report]) -> String {
    let tests: Vec<&Test> = rows(reports, |test| test);
    let cell = |report: &Report, test: &&Test| {
        let word = match report.results.get(*test) {
            Some(Outcome::Passed) => "ok",
            Some(Outcome::Failed) => "**failed**",
            Some(Outcome::Missing) => "**missing**",
            Some(Outcome::Skipped) => "skipped",
            None => "",
        };
        word.to_owned()
    };
    table("test", reports, &tests, cell)
}

fn rows<'a, R: Ord>(reports: &'a [Report], row: impl Fn(&'a Test) -> R) -> Vec<R> {
    let mut rows: Vec<_> = reports.iter().flat_map(|report| report.results.keys()).map(row).collect();
    rows.sort();
    rows.dedup();
    rows
}

/// A table in Markdown; a row in which no cell says anything is left out.
fn table<R: ToString>(
    what: &str,
    reports: &[Report],
    rows: &[R],
    cell: impl Fn(&Report, &R) -> String,
) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let columns = reports.iter().map(Report::column);
    let mut text = line([what.into()].into_iter().chain(columns).collect());
    text += &line(vec!["---".into(); reports.len() + 1]);
    for row in rows {
        let cells: Vec<String> = reports.iter().map(|report| cell(report, row)).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            text += &line([row.to_string()].into_iter().chain(cells).collect());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Outcome, Report, Said, by_file, by_test};
    use crate::vm::plan::{Plan, Test};

    fn test(file: &str, name: &str) -> Test {
        Test { file: file.into(), name: name.into() }
    }

    fn report() -> Report {
        let plan = Plan {
            programs: Vec::new(),
            files: Vec::new(),
            tests: vec![test("a", "one"), test("a", "two"), test("b", "m::three")],
            skipped: vec![test("b", "cost")],
        };
        Report::new("5.10", &plan)
    }

    fn counts(report: &Report) -> String {
        report.counts().to_string()
    }

    #[test]
    fn every_result_is_read() {
        let mut report = report();
        assert_eq!(counts(&report), "0 passed, 3 failed, 1 skipped");
        assert_eq!(report.line("guest: kernel 5.10.0-32-cloud-amd64"), Said::Nothing);
        assert_eq!(report.line("guest: begin a::one"), Said::Nothing);
        let ended = Said::Ended(test("a", "one"), Outcome::Passed, Duration::from_millis(1203));
        assert_eq!(report.line("guest: ok a::one 1203"), ended);
        report.line("guest: begin a::two");
        let ended = Said::Ended(test("a", "two"), Outcome::Failed, Duration::from_millis(7));
        assert_eq!(report.line("guest: failed a::two 7 exit status: 101"), ended);
        assert_eq!(report.line("> thread 'two' panicked"), Said::Text("> thread 'two' panicked".into()));
        report.line("guest: begin b::m::three");
        assert_eq!(report.interrupted(), Some(&test("b", "m::three")));
        report.line("guest: ok b::m::three 1");
        assert_eq!(report.interrupted(), None);
        report.line("guest: done");
        assert_eq!(counts(&report), "2 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn without_an_end_the_run_has_failed() {
        let mut report = report();
        for name in ["a::one", "a::two", "b::m::three"] {
            report.line(&format!("guest: begin {name}"));
            report.line(&format!("guest: ok {name} 1"));
        }
        assert_eq!(counts(&report), "3 passed, 1 failed, 1 skipped");
        report.line("guest: done");
        assert_eq!(counts(&report), "3 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn what_a_test_prints_is_nobodys_result() {
        let mut report = report();
        for line in [
            "> guest: ok a::one 1",
            "guest: ok a::one 1",
            "guest: begin a::one",
            "guest: ok a::two 1",
            "guest: ok a::one soon",
            "guest: ok c::other 1",
            "guest: error cannot read /plan",
            "test a::one ... ok",
        ] {
            report.line(line);
        }
        assert_eq!(counts(&report), "0 passed, 3 failed, 1 skipped");
        assert_eq!(report.interrupted(), Some(&test("a", "one")));
    }

    #[test]
    fn the_tables_show_every_kernel() {
        let mut first = report();
        first.line("guest: kernel 5.10.0-32");
        first.line("guest: begin a::one");
        first.line("guest: ok a::one 1");
        first.line("guest: begin a::two");
        first.line("guest: failed a::two 1 exit status: 101");
        let second = report();
        let reports = [first, second];
        assert_eq!(
            by_file(&reports),
            "| tests | 5.10.0-32 | 5.10 (did not start) |\n| --- | --- | --- |\n\
             | a | 1 ok, 1 **failed** | 2 **missing** |\n| b | 1 **missing** | 1 **missing** |\n"
        );
        assert_eq!(
            by_test(&reports),
            "| test | 5.10.0-32 | 5.10 (did not start) |\n| --- | --- | --- |\n\
             | a::one | ok | **missing** |\n| a::two | **failed** | **missing** |\n\
             | b::cost | skipped | skipped |\n| b::m::three | **missing** | **missing** |\n"
        );
    }
}
