//! `cargo xtask tidy`: this repository's own rules, which no linter knows.
//!
//! Every finding says where, which rule, and what to do. The rules on code look at tokens (`code`), so comments,
//! strings and formatting cannot fool them; the rules on text look at lines (`text`). Which rules hold for a file
//! follows from its path alone.

use std::{
    fmt, fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::sh;

mod code;
mod text;

/// Checks every file of the repository and prints what it finds.
pub(crate) fn run() -> Result<ExitCode> {
    let (files, findings) = repository()?;
    for finding in &findings {
        println!("{finding}");
    }
    eprintln!(
        "tidy: {} in {files} files",
        match findings.len() {
            0 => "nothing to mend".into(),
            n => format!("{n} to mend"),
        }
    );
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What there is to mend in one place.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// From the repository's root.
    path: String,
    line: usize,
    rule: &'static str,
    /// What is wrong, and what to do.
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, rule, what } = self;
        write!(f, "{path}:{line}: [{rule}] {what}")
    }
}

/// The number of files checked, and the findings in them.
fn repository() -> Result<(usize, Vec<Finding>)> {
    let root = sh::root();
    let paths = files(root)?;
    let mut findings = Vec::new();
    for path in &paths {
        let bytes = fs::read(root.join(path)).with_context(|| format!("cannot read {path}"))?;
        // What is not text has no lines to check.
        if let Ok(content) = String::from_utf8(bytes)
            && !content.contains('\0')
        {
            findings.extend(file(path, &content));
        }
    }
    Ok((paths.len(), findings))
}

/// The findings in one file.
fn file(path: &str, content: &str) -> Vec<Finding> {
    let mut found = text::check(path, content);
    if path.ends_with(".rs") {
        found.extend(code::check(path, content));
    }
    let finding = |(line, rule, what)| Finding { path: path.into(), line, rule, what };
    found.sort();
    found.into_iter().map(finding).collect()
}

/// Line, rule, and what is wrong.
type Found = (usize, &'static str, String);

/// The repository's files: those that git tracks or would add. Where there is no git (a source archive), every file
/// outside `target` and hidden folders.
fn files(root: &Path) -> Result<Vec<String>> {
    let git = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output();
    let mut paths = Vec::new();
    match git {
        Ok(output) if output.status.success() => {
            let listed = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
            paths.extend(listed.split_terminator('\0').map(String::from));
        }
        _ => walk(root, "", &mut paths)?,
    }
    // A file that was deleted is tracked until that is committed; what a link names is not ours or is checked itself.
    paths.retain(|path| fs::symlink_metadata(root.join(path)).is_ok_and(|file| file.is_file()));
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn walk(root: &Path, folder: &str, paths: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a file's name is not UTF-8")?;
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if !entry.file_type()?.is_dir() {
            paths.push(path);
        } else if name != "target" && !name.starts_with('.') {
            walk(root, &path, paths)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{file, repository};
    use crate::sh;

    #[test]
    fn the_repository_is_tidy() {
        let (files, findings) = repository().unwrap();
        assert!(files > 10, "only {files} files were found");
        let findings: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
    }

    #[test]
    fn the_repository_is_formatted() {
        if sh::find("rustfmt").is_none() {
            eprintln!("not checked: there is no rustfmt");
            return;
        }
        let fmt = ["fmt", "--all", "--", "--check", "--files-with-diff"];
        let fmt = Command::new("cargo").current_dir(sh::root()).args(fmt).output().unwrap();
        assert!(fmt.status.success(), "run `cargo fmt --all`:\n{}", String::from_utf8_lossy(&fmt.stdout));
    }

    #[test]
    fn findings_come_in_the_order_of_lines_and_say_where() {
        let found = file("reaper-userspace/src/x.rs", "//! X.\nfn a() { todo!() } \nfn b() { dbg!(1) }\n");
        let lines: Vec<_> = found.iter().map(|finding| (finding.line, finding.rule)).collect();
        assert_eq!(lines, [(2, "unfinished"), (2, "whitespace"), (3, "unfinished")]);
        assert!(found[0].to_string().starts_with("reaper-userspace/src/x.rs:2: [unfinished] "));
    }
}
