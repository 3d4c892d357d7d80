//! `reaper explain PID`: what a process is, what was seen of it, what would happen, and which rule says so.

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::Args;
use serde::Deserialize as _;

use super::from_proc;
use super::reach::{Reach, is_nobody};
use crate::agent::protocol::{self, PROC, Request};
use crate::clock;
use crate::core::records::Verdict;
use crate::core::rules::Mode;
use crate::core::view::words::{self, span};
use crate::core::view::{Ancestor, Explanation};
use crate::output::{Terminal, escape};

/// Arguments of `reaper explain`.
#[derive(Args, Clone, Debug, Default)]
pub struct ExplainArgs {
    /// The process
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: u32,
    #[command(flatten)]
    reach: Reach,
}

/// What stands left of every paragraph is this wide.
pub const INDENT: usize = 10;

/// Stands left of the last look.
const SEEN: &str = "seen";

/// Explains a process. 1 if neither a live nor a remembered one has had that pid.
///
/// # Errors
/// The agent cannot be asked, /proc cannot be read, or stdout cannot be written.
pub fn run(args: &ExplainArgs, to: &mut Terminal<'_>) -> anyhow::Result<ExitCode> {
    let pid = args.pid;
    let line = match args.reach.ask(&Request::Explain { pid }, to.err) {
        Ok(lines) => lines.into_iter().next(),
        Err(nobody) if is_nobody(&nobody) => {
            writeln!(to.err, "-- from /proc, not from an agent: {}", escape(&nobody.to_string()))?;
            let core = from_proc::core(args.reach.config()?)?;
            let known = core.explain(clock::now(), pid);
            known
                .map(|known| protocol::line(PROC, &without_agent(known)))
                .transpose()?
                .map(String::from_utf8)
                .transpose()?
        }
        Err(e) => return Err(e),
    };
    let Some(line) = line else {
        let tail = format!("`reaper tail --pid {pid}` shows what the event log says of it");
        writeln!(to.err, "reaper: there is no process {pid}, and no living one descends from it. {tail}")?;
        return Ok(ExitCode::FAILURE);
    };
    if to.is_json() {
        writeln!(to.out, "{}", line.trim_end())?;
    } else {
        show(&Explanation::deserialize(&mut serde_json::Deserializer::from_str(&line))?, to)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What would happen if an agent ran does not happen without one.
fn without_agent(mut known: Explanation) -> Explanation {
    known.next = None;
    known.says.insert(
        0,
        "No agent is running: nothing happens to it. With one, and this configuration:".to_owned(),
    );
    known
}

fn show(known: &Explanation, to: &mut Terminal<'_>) -> anyhow::Result<()> {
    let style = match known.look.as_ref().map(|look| look.evidence.verdict) {
        Some(Verdict::Idle) => AnsiColor::Green.on_default(),
        Some(_) => AnsiColor::Yellow.on_default(),
        None => Style::new(),
    };
    for (label, text) in paragraphs(known) {
        let style = if label == SEEN { style.bold() } else { Style::new().bold() };
        to.paragraph((&label, style), INDENT, &text)?;
    }
    Ok(())
}

/// All of it: what stands left of a paragraph, and the paragraph. Not escaped yet.
pub fn paragraphs(known: &Explanation) -> Vec<(String, String)> {
    let Explanation { proc, alive, ancestry, lineage, groups, look, next, says, .. } = known;
    let mut all = Vec::new();
    let mut add = |label: &str, text: String| all.push((label.to_owned(), text));
    let command = match proc.argv.line() {
        line if line.trim().is_empty() => format!("({})", proc.comm),
        line => line,
    };
    add(&proc.pid.to_string(), command);
    let age = span(known.age_us.saturating_mul(1_000));
    let state = if *alive { "born" } else { "dead, was born" };
    // A name may be empty, or blank: prctl(2) takes any.
    let name = if proc.comm.trim().is_empty() { format!("{:?}", proc.comm) } else { proc.comm.to_string() };
    add("process", format!("{name}, user {}, {state} {age} ago", proc.uid));
    if *alive {
        add("parents", chain(ancestry, "none"));
    }
    add("lineage", chain(lineage, "not known"));
    for sentence in says {
        add("", sentence.clone());
    }
    for group in groups {
        let mode = if group.mode == Mode::Enforce { "which enforces" } else { "which only observes" };
        add("group", format!("{} of {}, {mode}", group.role, group.group));
        for sentence in &group.says {
            add("", sentence.clone());
        }
    }
    if let Some(look) = look {
        let verdict = words::verdict(look.evidence.verdict);
        let ago = span(look.ago_us.saturating_mul(1_000));
        add(SEEN, format!("{ago} ago, {verdict}: {}", look.evidence.because));
    }
    if let Some(next) = next {
        add("next", next.says.clone());
        add("rule", next.rule.clone());
    }
    all
}

/// `4690 (php, dead) < 1 (systemd)`
fn chain(ancestors: &[Ancestor], none: &str) -> String {
    let one = |a: &Ancestor| {
        // Of the dead that an earlier agent knew, the kernel has kept no name.
        let name = if a.comm.is_empty() { "name not known" } else { &a.comm };
        format!("{} ({name}{})", a.pid, if a.alive { "" } else { ", dead" })
    };
    match ancestors {
        [] => none.to_owned(),
        all => all.iter().map(one).collect::<Vec<_>>().join(" < "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// prctl(2) takes any name, also none.
    #[test]
    fn a_blank_name_is_seen() {
        let named = |comm: &str| {
            let proc =
                json!({"pid": 7, "start_ns": 1, "ppid": 1, "uid": 0, "comm": comm, "exe": "", "argv": []});
            let known = json!({
                "proc": proc, "alive": true, "age_us": 1_000, "lineage": [], "ancestry": [], "roles": [],
                "groups": [], "look": null, "next": null, "says": [],
            });
            let known: Explanation = serde_json::from_value(known).expect("an explanation");
            paragraphs(&known).into_iter().find(|(label, _)| label == "process").expect("it is told").1
        };
        assert!(named("").starts_with("\"\", user 0"), "{}", named(""));
        assert!(named("  ").starts_with("\"  \", user 0"), "{}", named("  "));
        assert!(named("php").starts_with("php, user 0"), "{}", named("php"));
    }
}
