//! `reaper check`: validates a configuration.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use crate::agent::DEFAULT_CONFIG;
use crate::config::{Config, Diagnostic};
use crate::core::rules::{Group, Mode, Signal, When};
use crate::core::view::words::{count, span};
use crate::output::{OutputFormat, escape_path};
use crate::profiles::{self, Profile};
use crate::trust;

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
pub fn run(args: &CheckArgs, output: OutputFormat, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let file = args.file.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
    anyhow::ensure!(
        args.file.is_some() || file.exists(),
        "there is no {DEFAULT_CONFIG}: say which file, as in `reaper check FILE`. Without one the agent takes the built-in \
         configuration, which observes with every profile of `reaper profiles` and signals nobody"
    );
    let (errors, config) = match Config::load(file) {
        Ok(mut config) => {
            if let Err(why) = trust::check_file(file) {
                config.warn(&format!("the agent will refuse this file: {why}"));
            }
            (Vec::new(), Some(config))
        }
        Err(e) if e.is_unreadable() => return Err(e.into()),
        Err(e) => (e.diagnostics().to_vec(), None),
    };
    match output {
        OutputFormat::Human => human(out, file, &errors, config.as_ref()),
        OutputFormat::Json => json(out, file, &errors, config.as_ref()),
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
        return writeln!(out, "{}: {}", escape_path(file), count(errors.len(), "error"));
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
        escape_path(file),
        count(groups.len(), "group"),
        count(config.warnings.len(), "warning")
    )?;
    let width = groups.iter().map(|g| g.name.len()).max().unwrap_or_default();
    for group in groups {
        writeln!(out, "  {:width$}  {}", group.name, summary(group))?;
    }
    Ok(())
}

/// A group in one line: "enforces (profile x): idle orphans get TERM, KILL after 30s".
fn summary(group: &Group) -> String {
    let stop = &group.stop;
    let (verb, get) = match group.mode {
        Mode::Observe => ("observes", "would get"),
        Mode::Enforce => ("enforces", "get"),
    };
    let profile = group.profile.as_ref().map(|p| format!(" (profile {p})")).unwrap_or_default();
    if group.profile.as_deref().and_then(profiles::find).is_some_and(Profile::never_enforces) {
        return format!("{verb}{profile}: orphans are reported and never signalled");
    }
    let signals: Vec<String> = stop.signals.iter().map(Signal::to_string).collect();
    let mut line = format!("{verb}{profile}: idle orphans {get} {}", signals.join(", then "));
    let kill = if stop.kill { ", then KILL" } else { "" };
    line.push_str(kill);
    if stop.kill || signals.len() > 1 {
        line.push_str(&format!(", {} apart", span(stop.grace)));
    }
    if stop.when == When::Replaced {
        line.push_str(", once a new master lives");
    }
    if stop.deadline > 0 {
        line.push_str(&format!("; busy ones too after {}", span(stop.deadline)));
    }
    line
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

#[cfg(test)]
mod tests {
    use std::fs;

    use expect_test::{Expect, expect};

    use super::*;

    /// The exit status and what is printed, with the directory left out.
    fn check(text: &str, output: OutputFormat, status: u8, expected: &Expect) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("reaper.toml");
        fs::write(&file, text).unwrap();
        let mut out = Vec::new();
        let code = run(&CheckArgs { file: Some(file) }, output, &mut out).unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(status)));
        let shown = String::from_utf8(out).unwrap().replace(&format!("{}/", dir.path().display()), "");
        expected.assert_eq(&shown);
    }

    const GOOD: &str = "[[group]]\nname = 'queue'\nprofile = 'laravel-queue'\n\
        [[group]]\nname = 'own'\nmode = 'enforce'\nmaster.comm = 'x'\n\
        stop = { signals = ['INT', 'KILL'], kill = false, grace = '1m 5s', deadline = '2h', when = 'replaced' }";

    #[test]
    fn a_good_one() {
        check(
            GOOD,
            OutputFormat::Human,
            0,
            &expect![[r#"
            reaper.toml:8:28: warning: signals: KILL is not graceful: `kill = true` sends it after the last grace
            reaper.toml: ok, 2 groups, 1 warning
              queue  observes (profile laravel-queue): idle orphans would get TERM, then KILL, 30 s apart
              own    enforces: idle orphans get INT, then KILL, 1 min 5 s apart, once a new master lives; busy ones too after 2 h
        "#]],
        );
        check(
            GOOD,
            OutputFormat::Json,
            0,
            &expect![[r#"
            {"kind":"warning","file":"reaper.toml","line":8,"column":28,"message":"signals: KILL is not graceful: `kill = true` sends it after the last grace"}
            {"kind":"result","file":"reaper.toml","ok":true,"errors":0,"warnings":1,"groups":[{"name":"queue","mode":"observe","profile":"laravel-queue","when":"always","signals":["TERM"],"kill":true,"grace_us":30000000,"deadline_us":0},{"name":"own","mode":"enforce","profile":null,"when":"replaced","signals":["INT","KILL"],"kill":false,"grace_us":65000000,"deadline_us":7200000000}]}
        "#]],
        );
    }

    #[test]
    fn one_signal_is_not_apart_from_anything() {
        check(
            "[[group]]\nname = 'one'\nmaster.comm = 'x'\nstop = { signals = ['TERM'], kill = false }",
            OutputFormat::Human,
            0,
            &expect![[r#"
            reaper.toml: ok, 1 group, 0 warnings
              one  observes: idle orphans would get TERM
        "#]],
        );
    }

    /// Its profile signals nobody, whatever the group says.
    #[test]
    fn one_that_never_signals() {
        check(
            "[[group]]\nname = 'db'\nprofile = 'postgresql'",
            OutputFormat::Human,
            0,
            &expect![[r#"
            reaper.toml: ok, 1 group, 0 warnings
              db  observes (profile postgresql): orphans are reported and never signalled
        "#]],
        );
    }

    #[test]
    fn a_bad_one() {
        let bad = "[agent]\nlog_kep = 1\n[[group]]\nname = 'x'";
        check(
            bad,
            OutputFormat::Human,
            1,
            &expect![[r#"
            reaper.toml:2:1: unknown key "log_kep" in [agent]: did you mean "log_keep"?
            reaper.toml:3:1: this [[group]] has no [group.master] and no profile: one of them says what a master is
            reaper.toml: 2 errors
        "#]],
        );
        check(
            bad,
            OutputFormat::Json,
            1,
            &expect![[r#"
            {"kind":"error","file":"reaper.toml","line":2,"column":1,"message":"unknown key \"log_kep\" in [agent]: did you mean \"log_keep\"?"}
            {"kind":"error","file":"reaper.toml","line":3,"column":1,"message":"this [[group]] has no [group.master] and no profile: one of them says what a master is"}
            {"kind":"result","file":"reaper.toml","ok":false,"errors":2,"warnings":0,"groups":[]}
        "#]],
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_a_finding() {
        let mut out = Vec::new();
        let args = CheckArgs { file: Some(PathBuf::from("/nonexistent/reaper.toml")) };
        let error = run(&args, OutputFormat::Json, &mut out).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/nonexistent/reaper.toml: cannot be opened: No such file or directory (os error 2)"
        );
        assert!(out.is_empty());
    }
}
