//! `reaper man`: manual pages, made from the definitions of the commands.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use clap_mangen::Man;
use serde_json::json;

use super::completions::visible;
use crate::output::OutputFormat;

/// Arguments of `reaper man`.
#[derive(Args, Clone, Debug, Default)]
pub struct ManArgs {
    /// Of this command: reaper-COMMAND(1) [default: reaper(1), which names all of them]
    pub command: Option<String>,
}

/// Prints a page as man(1) reads it: `reaper man | man -l -`.
///
/// # Errors
/// There is no such command, or stdout cannot be written.
pub fn run(args: &ManArgs, format: OutputFormat, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let mut all = visible();
    all.build();
    let command = match &args.command {
        None => all.clone(),
        Some(name) => match all.find_subcommand(name) {
            Some(command) => command.clone(),
            None => {
                let known: Vec<_> = all.get_subcommands().map(clap::Command::get_name).collect();
                anyhow::bail!("there is no command {name:?}; there are {}", known.join(", "));
            }
        },
    };
    let page = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut roff = Vec::new();
    Man::new(command).render(&mut roff)?;
    match format {
        OutputFormat::Human => out.write_all(&roff)?,
        OutputFormat::Json => {
            writeln!(out, "{}", json!({ "page": page, "section": "1", "roff": String::from_utf8(roff)? }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(command: Option<&str>) -> String {
        let mut out = Vec::new();
        let args = ManArgs { command: command.map(str::to_owned) };
        run(&args, OutputFormat::Human, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_page_for_each_command() {
        let main = page(None);
        assert!(main.contains(".TH reaper 1"), "{main}");
        for command in visible().get_subcommands() {
            let name = command.get_name();
            assert!(main.contains(&format!("reaper\\-{}(1)", name.replace('-', "\\-"))), "{name}: {main}");
            let own = page(Some(name));
            assert!(own.contains(&format!(".TH reaper-{name} 1")), "{own}");
            assert!(own.contains("\\-\\-output"), "the global flags hold everywhere: {own}");
        }
        assert!(!main.contains("actor"), "{main}");
    }

    #[test]
    fn an_unknown_command_is_an_error_that_names_the_known() {
        let args = ManArgs { command: Some("demo-actor".to_owned()) };
        let error = run(&args, OutputFormat::Human, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("demo-actor") && error.contains("explain"), "{error}");
    }
}
