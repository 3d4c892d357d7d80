//! `reaper completions SHELL`: made from the definitions of the commands.

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use serde_json::json;

use crate::cli::Cli;
use crate::output::OutputFormat;

/// Arguments of `reaper completions`.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// Of this shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the script that the shell is to read.
///
/// # Errors
/// Stdout cannot be written.
pub fn run(args: &CompletionsArgs, format: OutputFormat, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut visible(), "reaper", &mut script);
    if args.shell == Shell::Fish {
        script.extend(values_for_fish().bytes());
    }
    match format {
        OutputFormat::Human => out.write_all(&script)?,
        OutputFormat::Json => {
            let script = String::from_utf8(script)?;
            writeln!(out, "{}", json!({ "shell": args.shell.to_string(), "script": script }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The generator for fish leaves out which values an argument may have that has no flag.
fn values_for_fish() -> String {
    let mut lines = String::new();
    for command in visible().get_subcommands() {
        let values = command.get_positionals().flat_map(clap::Arg::get_possible_values);
        let values: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
        if !values.is_empty() {
            let (name, values) = (command.get_name(), values.join(" "));
            let _ = writeln!(
                lines,
                "complete -c reaper -n \"__fish_reaper_using_subcommand {name}\" -f -a \"{values}\""
            );
        }
    }
    lines
}

/// The command without what is hidden: generators show everything.
pub fn visible() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|c| !c.is_hide_set()).cloned();
    let mut visible = Command::new("reaper").subcommand_required(true).propagate_version(true);
    if let Some(about) = all.get_about() {
        visible = visible.about(about.clone());
    }
    visible
        .version(env!("CARGO_PKG_VERSION"))
        .args(all.get_arguments().cloned())
        .subcommands(shown.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    #[test]
    fn every_shell_and_nothing_hidden() {
        for &shell in Shell::value_variants() {
            let mut out = Vec::new();
            run(&CompletionsArgs { shell }, OutputFormat::Human, &mut out).unwrap();
            let script = String::from_utf8(out).unwrap();
            for word in ["tree", "orphans", "explain", "completions", "--group", "--output"] {
                assert!(script.contains(word.trim_start_matches('-')), "{shell}: no {word}");
            }
            assert!(!script.contains("demo-actor") && !script.contains("demo__actor"), "{shell}");
        }
    }

    #[test]
    fn profiles_are_offered_by_name() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut out = Vec::new();
            run(&CompletionsArgs { shell }, OutputFormat::Human, &mut out).unwrap();
            let script = String::from_utf8(out).unwrap();
            for profile in crate::profiles::all() {
                assert!(script.contains(profile.name), "{shell}: no {}", profile.name);
            }
        }
    }

    #[test]
    fn nothing_else_is_lost() {
        let names = |command: &Command| {
            command.get_subcommands().map(|c| c.get_name().to_owned()).collect::<Vec<_>>()
        };
        let mut all = names(&Cli::command());
        all.retain(|name| name != "demo-actor");
        assert_eq!(names(&visible()), all);
        visible().debug_assert();
    }
}
