//! `reaper profiles`: what is built in.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::output::OutputFormat;
use crate::profiles;

/// Arguments of `reaper profiles`.
#[derive(Args, Clone, Debug, Default)]
pub struct ProfilesArgs {
    /// Print this one as TOML
    pub name: Option<String>,
}

/// Lists the built-in profiles, or prints one.
///
/// # Errors
/// There is no such profile, or stdout cannot be written.
pub fn run(args: &ProfilesArgs, format: OutputFormat, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let Some(name) = &args.name else {
        for profile in profiles::all() {
            match format {
                OutputFormat::Human => writeln!(out, "{:<20}{}", profile.name, profile.summary)?,
                OutputFormat::Json => {
                    writeln!(out, "{}", json!({ "name": profile.name, "summary": profile.summary }))?;
                }
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(profile) = profiles::find(name) else {
        let known: Vec<_> = profiles::all().iter().map(|p| p.name).collect();
        anyhow::bail!("there is no built-in profile {name:?}; there are {}", known.join(", "));
    };
    match format {
        OutputFormat::Human => out.write_all(profile.toml.as_bytes())?,
        OutputFormat::Json => {
            writeln!(out, "{}", json!({ "name": name, "summary": profile.summary, "toml": profile.toml }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(name: Option<&str>, format: OutputFormat) -> String {
        let mut out = Vec::new();
        let args = ProfilesArgs { name: name.map(str::to_owned) };
        run(&args, format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lists_and_prints() {
        assert_eq!(printed(None, OutputFormat::Human).lines().count(), profiles::all().len());
        let celery = printed(Some("celery"), OutputFormat::Human);
        assert!(celery.parse::<toml::Table>().unwrap().contains_key("master"));
        for line in printed(None, OutputFormat::Json).lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["name"].is_string());
        }
    }

    #[test]
    fn an_unknown_one_is_an_error_that_names_the_known() {
        let args = ProfilesArgs { name: Some("cellery".to_owned()) };
        let error = run(&args, OutputFormat::Human, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("cellery") && error.contains("celery,"), "{error}");
    }
}
