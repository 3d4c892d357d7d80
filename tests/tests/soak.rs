//! A soak in its short form; the long one is `cargo xtask soak`.
#![allow(clippy::print_stdout, reason = "tests")]

use std::time::Duration;

use reaper_tests::soak::{self, Plan};

#[test]
fn a_minute_of_everything() {
    let outcome = soak::run(Plan { length: Duration::from_secs(60), seed: 7 });
    println!("{outcome}");
    assert!(outcome.is_good(), "{outcome}");
    assert!(outcome.restarts > 0 && outcome.resyncs > 0, "nothing was done to the agent: {outcome}");
}
