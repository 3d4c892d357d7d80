//! What reaper costs, measured on this machine: `cargo xtask bench`.
//!
//! Every benchmark makes a [`Report`]: tables in which each figure is a median with its 95 % interval (or its extremes, where
//! there are few values), and the conditions. Where the machine may be busy with something else, CPU time and ratios within one run are
//! preferred to wall-clock time; a column says which it is. Nothing is judged here.

mod agent;
mod allocator;
pub mod bed;
mod conditions;
mod cost;
mod decide;
mod hooks;
mod host;
mod latency;
mod lives;
mod rate;
mod report;
mod start;
mod stats;
mod tree;

use anyhow::Result;

pub use allocator::Counting;
pub use report::Report;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often each figure is measured.
    pub rounds: usize,
    /// Small worlds only: to see that it works.
    pub short: bool,
}

/// A benchmark.
#[derive(Clone, Copy)]
pub struct Bench {
    /// What it is called.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// Measures.
    pub run: fn(Plan) -> Result<Report>,
}

/// Every benchmark.
pub const ALL: &[Bench] = &[
    Bench { name: "hooks", about: "what the kernel programs cost a process life", run: hooks::run },
    Bench { name: "agent", about: "the agent's CPU time per process life, and its memory", run: agent::run },
    Bench {
        name: "rate",
        about: "the highest rate of process lives, and whether events are lost",
        run: rate::run,
    },
    Bench { name: "tree", about: "the pure core: events per second and bytes per process", run: tree::run },
    Bench { name: "start", about: "the agent's start, beside ps and pstree", run: start::run },
    Bench { name: "decide", about: "one look at a process, one freeze, one watch", run: decide::run },
    Bench {
        name: "latency",
        about: "from a master's exit to its workers' end, beside other rules",
        run: latency::run,
    },
    Bench {
        name: "host",
        about: "what the host's own work loses to reaper and to other tools",
        run: host::run,
    },
];
