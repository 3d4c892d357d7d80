//! What a blocked call waits for, with arguments and memory of a process that wants to be misunderstood.

use arbitrary::{Arbitrary, Unstructured};
use reaper::core::sample::Wait;
use reaper::idle::fuzzed::{MOST_WAITED, Victim};

#[derive(Arbitrary)]
struct Case {
    aarch64: bool,
    nr: u16,
    args: [u64; 6],
    /// What is at every address.
    memory: Vec<u8>,
    /// `/proc/PID/fdinfo` of its first descriptors; those that are `None` are no epoll descriptors.
    fdinfo: Vec<Option<String>>,
    patience: Option<u64>,
}

/// Takes the bytes for a call and a memory.
pub fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let Case { aarch64, nr, args, memory, fdinfo, patience } = case;
    let victim = Victim { memory, fdinfo, patience };
    match victim.wait(aarch64, nr.into(), args) {
        Some(Wait::Files { fds, .. }) => {
            assert!(fds.is_sorted_by(|a, b| a < b), "each once, sorted: {fds:?}");
            assert!(fds.len() <= MOST_WAITED);
        }
        Some(Wait::NotAsked) => panic!("it was asked"),
        _ => {}
    }
}
