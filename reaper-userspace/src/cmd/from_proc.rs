//! Without an agent: what can be told from /proc, by the same core, which is shown every process once and decides nothing.
//!
//! Nobody's birth was seen, so lineage is ancestry; there are no tombstones, and an orphan is at best a stray.

use std::sync::Arc;

use anyhow::Context as _;

use crate::clock;
use crate::config::Config;
use crate::core::Core;
use crate::core::effect::Effect;
use crate::core::input::Input;
use crate::procfs;

/// A core that knows what /proc shows now, by the rules of `config`.
///
/// # Errors
/// /proc cannot be read.
pub fn core(config: Config) -> anyhow::Result<Core> {
    let mut core = Core::new(std::process::id());
    let at = clock::now();
    let input =
        Input::Configured { at, rules: Arc::new(config.rules), armed: Vec::new(), broken: Vec::new() };
    core.handle(at, input);
    let tasks = procfs::tasks().context("cannot read /proc")?;
    core.handle(at, Input::Snapshot { at, took_ns: 0, tasks });
    core.handle(at, Input::Merged { at });
    // What it asks for besides is looking at orphans, which an agent does.
    while let Some(effect) = core.poll_effect() {
        if let Effect::Identify(key) = effect {
            let now = clock::now();
            core.handle(now, Input::Identified { key, outcome: procfs::identify(now, key, true) });
        }
    }
    Ok(core)
}
