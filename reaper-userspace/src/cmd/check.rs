//! `reaper check`: validates a configuration.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use super::Output;
use crate::config::{Config, Diagnostic};
use crate::core::ids::Ns;
use crate::core::rules::{Group, Mode, Signal, When};

/// Where the installed configuration is.
const DEFAULT_FILE: &str = "/etc/reaper/reaper.toml";

/// Validates a configuration; every error comes with file:line:column and what was expected.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CheckArgs {
    /// The configuration [default: /etc/reaper/reaper.toml]
    pub file: Option<PathBuf>,
}

/// One line of `--output json`: each error and warning, then the result.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Error {
        #[serde(flatten)]
        diagnostic: &'a Diagnostic,
    },
    Warning {
        #[serde(flatten)]
        diagnostic: &'a Diagnostic,
    },
    Result {
        file: &'a str,
        ok: bool,
        errors: usize,
        warnings: usize,
        groups: Vec<GroupLine<'a>>,
    },
}

#[derive(Serialize)]
struct GroupLine<'a> {
    name: &'a str,
    mode: Mode,
    profile: Option<&'a str>,
    when: When,
    signals: Vec<String>,
    kill: bool,
    grace_us: u64,
    deadline_us: u64,
}

/// Prints what is wrong, or what the configuration means; exits 0 if the agent would take it, else 1.
///
/// # Errors
/// If the file cannot be read or `out` not written.
pub fn run(args: &CheckArgs, output: Output, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let file = args.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let (errors, config) = match Config::load(file) {
        Ok(config) => (Vec::new(), Some(config)),
        Err(e) if e.is_unreadable() => return Err(e.into()),
        Err(e) => (e.diagnostics().to_vec(), None),
    };
    match output {
        Output::Human => human(out, file, &errors, config.as_ref()),
        Output::Json => json(out, file, &errors, config.as_ref()),
    }
    .context("cannot write the result")?;
    Ok(if config.is_some() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn human(
    out: &mut dyn Write,
    file: &Path,
    errors: &[Diagnostic],
    config: Option<&Config>,
) -> std::io::Result<()> {
    for error in errors {
        writeln!(out, "{error}")?;
    }
    let Some(config) = config else {
        return writeln!(out, "{}: {}", file.display(), count(errors.len(), "error"));
    };
    for warning in &config.warnings {
        let Diagnostic { file, at, message } = warning;
        let warning = Diagnostic { file: file.clone(), at: *at, message: format!("warning: {message}") };
        writeln!(out, "{warning}")?;
    }
    let groups = &config.rules.groups;
    writeln!(
        out,
        "{}: ok, {}, {}",
        file.display(),
        count(groups.len(), "group"),
        count(config.warnings.len(), "warning")
    )?;
    let width = groups.iter().map(|g| g.name.len()).max().unwrap_or_default();
    for group in groups {
        writeln!(out, "  {:width$}  {}", group.name, summary(group))?;
    }
    Ok(())
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A group in one line: "enforces (profile x): idle orphans get TERM, KILL after 30s".
fn summary(group: &Group) -> String {
    let stop = &group.stop;
    let verb = match group.mode {
        Mode::Observe => "observes",
        Mode::Enforce => "enforces",
    };
    let profile = group.profile.as_ref().map(|p| format!(" (profile {p})")).unwrap_or_default();
    let signals: Vec<String> = stop.signals.iter().map(Signal::to_string).collect();
    let mut line = format!("{verb}{profile}: idle orphans get {}", signals.join(", then "));
    let kill = if stop.kill { ", then KILL" } else { "" };
    line.push_str(kill);
    line.push_str(&format!(", {} apart", length(stop.grace)));
    if stop.when == When::Replaced {
        line.push_str(", once a new master lives");
    }
    if stop.deadline > 0 {
        line.push_str(&format!("; busy ones too after {}", length(stop.deadline)));
    }
    line
}

fn length(ns: Ns) -> String {
    humantime::format_duration(std::time::Duration::from_nanos(ns)).to_string()
}

fn json(
    out: &mut dyn Write,
    file: &Path,
    errors: &[Diagnostic],
    config: Option<&Config>,
) -> std::io::Result<()> {
    let warnings = config.map(|c| &*c.warnings).unwrap_or_default();
    for diagnostic in errors {
        line(out, &Line::Error { diagnostic })?;
    }
    for diagnostic in warnings {
        line(out, &Line::Warning { diagnostic })?;
    }
    let groups = config.map(|c| &*c.rules.groups).unwrap_or_default();
    let result = Line::Result {
        file: &file.display().to_string(),
        ok: config.is_some(),
        errors: errors.len(),
        warnings: warnings.len(),
        groups: groups.iter().map(group_line).collect(),
    };
    line(out, &result)
}

fn line(out: &mut dyn Write, line: &Line<'_>) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    writeln!(out)
}

fn group_line(group: &Group) -> GroupLine<'_> {
    let stop = &group.stop;
    GroupLine {
        name: &group.name,
        mode: group.mode,
        profile: group.profile.as_deref(),
        when: stop.when,
        signals: stop.signals.iter().map(Signal::to_string).collect(),
        kill: stop.kill,
        grace_us: stop.grace / 1_000,
        deadline_us: stop.deadline / 1_000,
    }
}
