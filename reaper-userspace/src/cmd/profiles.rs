//! `reaper profiles`: what is built in.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;

use crate::output::OutputFormat;
use crate::profiles::{self, Profile};

/// Arguments of `reaper profiles`.
#[derive(Args, Clone, Debug, Default)]
pub struct ProfilesArgs {
    /// Print this one as a [[group]] in TOML, to be pasted into a configuration
    #[arg(hide_possible_values = true, value_parser = PossibleValuesParser::new(names()))]
    pub name: Option<String>,
}

/// For completions, and for whoever mistypes one.
fn names() -> impl Iterator<Item = &'static str> {
    profiles::all().iter().map(|profile| profile.name)
}

/// Lists the built-in profiles, or prints one.
///
/// # Errors
/// There is no such profile, or stdout cannot be written.
pub fn run(args: &ProfilesArgs, format: OutputFormat, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let Some(name) = &args.name else {
        for profile in profiles::all() {
            match format {
                OutputFormat::Human => {
                    let marked = if profile.observes_only() { " (observes only)" } else { "" };
                    writeln!(out, "{:<24}{}{marked}", profile.name, profile.summary)?;
                }
                OutputFormat::Json => writeln!(out, "{}", described(profile))?,
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(profile) = profiles::find(name) else {
        anyhow::bail!(
            "there is no built-in profile {name:?}; there are {}",
            names().collect::<Vec<_>>().join(", ")
        );
    };
    match format {
        OutputFormat::Human => out.write_all(profile.as_group().as_bytes())?,
        OutputFormat::Json => {
            let mut line = described(profile);
            line["toml"] = json!(profile.as_group());
            writeln!(out, "{line}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn described(profile: &Profile) -> serde_json::Value {
    json!({ "name": profile.name, "summary": profile.summary, "observe_only": profile.observes_only() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn printed(name: Option<&str>, format: OutputFormat) -> String {
        let mut out = Vec::new();
        let args = ProfilesArgs { name: name.map(str::to_owned) };
        run(&args, format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lists() {
        let list = printed(None, OutputFormat::Human);
        assert_eq!(list.lines().count(), profiles::all().len());
        assert!(list.lines().any(|l| l.starts_with("resque ") && l.ends_with(" (observes only)")), "{list}");
        for line in printed(None, OutputFormat::Json).lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["name"].is_string() && line["observe_only"].is_boolean());
        }
    }

    /// What is printed is a configuration, and means the same as `profile = "…"`.
    #[test]
    fn prints_a_group_that_can_be_pasted() {
        for Profile { name, .. } in profiles::all() {
            let pasted = printed(Some(name), OutputFormat::Human);
            let pasted = Config::parse(name, &pasted).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(pasted.warnings, [], "{name}");
            let named = format!("[[group]]\nname = '{name}'\nprofile = '{name}'");
            let mut named = Config::parse(name, &named).unwrap().rules.groups;
            assert_eq!(named[0].profile.take().as_deref(), Some(*name));
            assert_eq!(format!("{:#?}", pasted.rules.groups), format!("{named:#?}"));
        }
    }

    #[test]
    fn keeps_the_comments_that_mean_something_in_a_group() {
        let group = printed(Some("resque"), OutputFormat::Human);
        let (head, _) = group.split_once("[[group]]").unwrap();
        assert!(head.contains("the child: the job") && head.contains("before you enforce"), "{head}");
        assert!(!group.contains("observe_only") && !group.contains("take this line away"), "{group}");
        assert!(group.contains("# Finishes the child and goes."), "{group}");
        let json: serde_json::Value =
            serde_json::from_str(&printed(Some("resque"), OutputFormat::Json)).unwrap();
        assert_eq!(json["toml"], group);
    }

    #[test]
    fn an_unknown_one_is_an_error_that_names_the_known() {
        let args = ProfilesArgs { name: Some("cellery".to_owned()) };
        let error = run(&args, OutputFormat::Human, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("cellery") && error.contains("celery,"), "{error}");
    }
}
