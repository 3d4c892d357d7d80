//! A simulated host for the core: [`kernel`] is the world, [`agent`] the shell around the core with a stream that can be
//! late, double and lossy, [`oracle`] the law.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

pub mod agent;
pub mod kept;
pub mod kernel;
pub mod oracle;
pub mod restart;
pub mod rules;
