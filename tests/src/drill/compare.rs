//! A drill beside itself: with the agent, and with the old cron script's rule.

use std::sync::Arc;

use anyhow::Result;

use super::{Facts, Framework, Plan, Rule, run};

/// Both runs of a drill.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The drill's name.
    pub name: &'static str,
    /// What was run.
    pub about: String,
    /// With the agent.
    pub reaper: Facts,
    /// With the cron script's rule; `None` if that was not asked for.
    pub cron: Option<Facts>,
}

/// Runs a drill with the agent and, `beside`, with the cron script's rule.
///
/// # Errors
/// Those of [`run`].
pub fn compare(framework: &Arc<dyn Framework>, plan: Plan, beside: bool) -> Result<Comparison> {
    let with = |rule| run(framework, Plan { rule, ..plan });
    let reaper = with(Rule::Reaper)?;
    let cron = if beside { Some(with(Rule::Cron)?) } else { None };
    Ok(Comparison { name: framework.name(), about: framework.about(), reaper, cron })
}
