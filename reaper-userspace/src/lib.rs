//! reaper stops worker processes that have lost their master and are idle, the moment both are true.
//!
//! Start reading in `ARCHITECTURE.md`; in the code at [`agent`] (the loop) and [`core`] (the decisions).

pub mod agent;
pub mod cli;
pub mod clock;
pub mod cmd;
pub mod config;
pub mod confine;
pub mod core;
pub mod diagnostics;
pub mod event_log;
pub mod freeze;
pub mod idle;
pub mod kernel;
pub mod metrics;
pub mod output;
pub mod procfs;
pub mod profiles;
pub mod recording;
pub mod replay;
pub mod signal;
pub mod trust;
