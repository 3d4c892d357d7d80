//! `reaper tree`: the process tree with everybody's role, as the agent knows it, or from /proc.

mod draw;

use std::process::ExitCode;

use clap::Args;

use super::from_proc;
use super::reach::{Reach, is_nobody};
use crate::agent::protocol::{self, PROC, Request};
use crate::core::view::{Row, Which};
use crate::output::{Terminal, escape};

/// Arguments of `reaper tree`.
#[derive(Args, Clone, Debug, Default)]
pub struct TreeArgs {
    /// Only this group's processes, and those above them
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Every process of the host, not only those of groups
    #[arg(long, conflicts_with = "group")]
    pub all: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Prints the tree. Without an agent it is made from /proc, and says so.
///
/// # Errors
/// There is no such group, the agent cannot be asked, /proc cannot be read, or stdout cannot be written.
pub fn run(args: &TreeArgs, to: &mut Terminal<'_>) -> anyhow::Result<ExitCode> {
    let which = Which { group: args.group.clone(), all: args.all };
    match args.reach.ask(&Request::Tree(which.clone()), to.err) {
        Ok(lines) if to.is_json() => {
            for line in lines {
                writeln!(to.out, "{line}")?;
            }
        }
        Ok(lines) => {
            let rows: Vec<Row> = lines.iter().map(|l| serde_json::from_str(l)).collect::<Result<_, _>>()?;
            show(&rows, &which, to)?;
        }
        Err(nobody) if is_nobody(&nobody) => {
            let rows = rows_of_proc(args, &which)?;
            if to.is_json() {
                for row in &rows {
                    to.out.write_all(&protocol::line(PROC, row)?)?;
                }
            } else {
                writeln!(to.err, "-- from /proc, not from an agent: {}", escape(&nobody.to_string()))?;
                show(&rows, &which, to)?;
            }
        }
        Err(e) => return Err(e),
    }
    Ok(ExitCode::SUCCESS)
}

fn rows_of_proc(args: &TreeArgs, which: &Which) -> anyhow::Result<Vec<Row>> {
    let core = from_proc::core(args.reach.config()?)?;
    core.rows(which).ok_or_else(|| {
        let groups: Vec<String> = core.status().into_iter().map(|g| g.name).collect();
        anyhow::anyhow!(protocol::no_such_group(which.group.as_deref().unwrap_or_default(), &groups))
    })
}

fn show(rows: &[Row], which: &Which, to: &mut Terminal<'_>) -> anyhow::Result<()> {
    if rows.is_empty() {
        match &which.group {
            Some(group) => writeln!(to.err, "-- no process belongs to group {group:?}")?,
            None => writeln!(to.err, "-- no process belongs to a group; --all shows every process")?,
        }
    }
    for line in draw::lines(rows) {
        to.line(&line)?;
    }
    Ok(())
}
