//! Helpers of the tests against a real kernel.
//!
//! A test sets a [`scene::Scene`] (a directory, a random token, processes that carry the token and run a
//! [`script`]), starts an [`agent::Agent`] whose only group is bound to that token, and reads the agent's event log.
//! Everything that a test starts is gone when the scene is dropped, also after a panic: see [`process`], the only
//! module here that signals.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test a broken assumption is a failure, and says so best by panicking"
)]
#![allow(clippy::print_stderr, reason = "what a failed test left is printed for whoever has to find out why")]

use std::io::Write as _;

pub mod agent;
pub mod bench;
pub mod browser;
pub mod cgroup;
pub mod config;
pub mod drill;
pub mod log;
pub mod loopback;
pub mod manager;
pub mod process;
pub mod scene;
pub mod script;
pub mod soak;
pub mod storm;
pub mod terminal;

/// Says that a part of a test was not run here, and why: on stderr itself, as libtest keeps what a test that passes prints to
/// itself.
pub fn not_run(what: &str) {
    // Nobody who would read it is no reason to fail.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {what}");
}
