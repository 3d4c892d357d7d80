//! Hostile input: each module takes any bytes, hands them to something that reads what reaper did not write, and checks what must
//! hold of the outcome. Whoever breaks it panics, or does not come to an end.
//!
//! The bytes come from libFuzzer (`targets`, `cargo xtask fuzz`), or, in the fast tests, from the corpus and random changes to it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken assumption is a finding")]

pub mod config;
pub mod core;
pub mod event_log;
pub mod proc_files;
pub mod waits;
pub mod wire;
