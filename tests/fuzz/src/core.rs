//! Any inputs to the core, in any order: it does not panic, it comes to an end, and it never signals whom the rules forbid.
//!
//! What the core asks for is answered with lies, or not at all. What a lie can excuse is not checked here: that the tree is
//! right and the idle are idle, `reaper-userspace/tests/core_properties.rs` checks on a kernel that tells the truth.

mod host;
mod lies;

use arbitrary::Unstructured;

/// Takes the bytes for what happens.
pub fn run(bytes: &[u8]) {
    let mut host = host::Host::new();
    let mut source = Unstructured::new(bytes);
    while !source.is_empty() {
        if host.step(&mut source).is_err() {
            break;
        }
    }
}
