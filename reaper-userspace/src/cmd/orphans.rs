//! `reaper orphans`: the orphans now, and what comes next for each.

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::Args;

use super::reach::Reach;
use crate::agent::protocol::Request;
use crate::core::records::Verdict;
use crate::core::view::OrphanView;
use crate::core::view::words::{because, span};
use crate::output::{Terminal, Text, pad};

/// Arguments of `reaper orphans`.
#[derive(Args, Clone, Debug, Default)]
pub struct OrphansArgs {
    #[command(flatten)]
    reach: Reach,
}

/// What is below an orphan's first line stands here.
const INDENT: usize = 9;

/// Prints every orphan, longest orphaned first. That there is none is said on stderr.
///
/// # Errors
/// No agent runs, it cannot be asked, or stdout cannot be written.
pub fn run(args: &OrphansArgs, to: &mut Terminal<'_>) -> anyhow::Result<ExitCode> {
    let lines = args.reach.ask(&Request::Orphans, to.err)?;
    if to.is_json() {
        for line in lines {
            writeln!(to.out, "{line}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let orphans: Vec<OrphanView> = lines.iter().map(|l| serde_json::from_str(l)).collect::<Result<_, _>>()?;
    if orphans.is_empty() {
        writeln!(to.err, "-- no orphans")?;
        return Ok(ExitCode::SUCCESS);
    }
    let group = orphans.iter().map(|o| o.group.len()).max().unwrap_or_default().clamp(5, 20);
    let mut head = Text::default();
    let titles = format!("{:>7}  {}  {:<10}  {:<8}  COMMAND", "PID", pad("GROUP", group), "AGE", "STATE");
    head.add(Style::new().bold(), &titles);
    to.line(&head)?;
    for orphan in &orphans {
        show(orphan, group, to)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(orphan: &OrphanView, group: usize, to: &mut Terminal<'_>) -> anyhow::Result<()> {
    let OrphanView { proc, evidence, next, .. } = orphan;
    let (state, style) = state(orphan);
    let age = span(orphan.age_us.saturating_mul(1_000));
    let mut line = Text::default();
    line.add(Style::new(), &format!("{:>7}  {}  {age:<10}  ", proc.pid, pad(&orphan.group, group)))
        .add(style, &format!("{state:<8}"))
        .add(Style::new(), &format!("  {}", command(orphan)));
    to.line(&line)?;
    if let Some(evidence) = evidence {
        to.paragraph(("", Style::new()), INDENT, &because(evidence))?;
    }
    to.paragraph(("", Style::new()), INDENT, &format!("next: {}", next.says))?;
    Ok(())
}

/// Its arguments, or its name.
pub fn command(orphan: &OrphanView) -> String {
    match orphan.proc.argv.line() {
        line if line.trim().is_empty() => format!("({})", orphan.proc.comm),
        line => line,
    }
}

/// How it stands, in a word.
pub fn state(orphan: &OrphanView) -> (&'static str, Style) {
    if orphan.draining {
        return ("draining", AnsiColor::Cyan.on_default());
    }
    match orphan.evidence.as_ref().map(|e| e.verdict) {
        Some(Verdict::Idle) => ("idle", AnsiColor::Green.on_default()),
        Some(Verdict::Busy) => ("busy", AnsiColor::Yellow.on_default()),
        Some(Verdict::Unknown) => ("unknown", AnsiColor::Yellow.on_default()),
        None => ("new", Style::new()),
    }
}
