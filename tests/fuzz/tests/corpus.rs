//! Every target holds for its corpus and for random changes to it: what `cargo test` has time for. `cargo xtask fuzz` goes on.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "tests")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use fastrand::Rng;

/// Changed inputs for each target: some seconds of a debug build.
const CHANGED: usize = 2_000;

/// Bytes of an input, as for libFuzzer.
const LONGEST: usize = 8_192;

/// The same inputs every time, so that a change is judged by itself.
const SEED: u64 = 0x7ea9e7;

fn holds(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut corpus: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // A folder is listed in no order.
    corpus.sort();
    let corpus: Vec<Vec<u8>> = corpus.iter().map(|file| fs::read(file).unwrap()).collect();
    let mut rng = Rng::with_seed(SEED);
    let changed = std::iter::repeat_with(|| changed(&mut rng, &corpus)).take(CHANGED);
    for input in corpus.iter().cloned().chain(changed) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&input))) {
            eprintln!("{target}: broken by {}", input.escape_ascii());
            resume_unwind(panic);
        }
    }
}

/// One of the corpus with a few changes.
fn changed(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = rng.choice(corpus).unwrap().clone();
    for _ in 0..rng.usize(1..8) {
        let (from, to) = (rng.usize(0..=input.len()), rng.usize(0..=input.len()));
        let part = from.min(to)..from.max(to);
        match rng.u8(0..6) {
            0 => input.iter_mut().skip(from).take(1).for_each(|byte| *byte ^= 1 << rng.u8(0..8)),
            1 => input.iter_mut().skip(from).take(8).for_each(|byte| *byte = rng.u8(..)),
            2 => input.insert(from, *rng.choice(b"\0\n\"[]{}().:=- 0\x1b\xff").unwrap()),
            3 => drop(input.drain(part)),
            4 => {
                let again = input[part].to_vec();
                input.splice(to..to, again);
            }
            _ => {
                let other = rng.choice(corpus).unwrap();
                input.truncate(from);
                input.extend(other.iter().skip(to));
            }
        }
    }
    input.truncate(LONGEST);
    input
}

#[test]
fn config() {
    holds("config", reaper_fuzz::config::run);
}

#[test]
fn core() {
    holds("core", reaper_fuzz::core::run);
}

#[test]
fn event_log() {
    holds("event_log", reaper_fuzz::event_log::run);
}

#[test]
fn proc_files() {
    holds("proc_files", reaper_fuzz::proc_files::run);
}

#[test]
fn waits() {
    holds("waits", reaper_fuzz::waits::run);
}

#[test]
fn wire() {
    holds("wire", reaper_fuzz::wire::run);
}
