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
mod stream;

use reaper::core::records::Event;

/// A child that has exec'd.
pub fn spawn(host: &mut agent::Host, by: kernel::Who, program: kernel::Program) -> kernel::Who {
    let child = host.kernel.fork(by, kernel::Birth::Plain).unwrap();
    host.kernel.exec(child, program);
    child
}

/// How many records are such.
pub fn count(host: &agent::Host, what: impl Fn(&Event) -> bool) -> usize {
    host.log.iter().filter(|r| what(&r.event)).count()
}
