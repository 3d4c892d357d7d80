//! The parsers of this module for `tests/fuzz`, which cannot reach them otherwise. Not part of the agent.

use super::{identity, stat_of};

/// Reads one text as each of the files.
pub fn read(text: &str) {
    let _ = stat_of(1, text);
    let argv = identity::split(text);
    assert!(argv.iter().all(|word| !word.contains('\0')));
    let cgroups = identity::cgroups(text);
    assert!(cgroups.is_sorted_by(|a, b| a < b) && cgroups.iter().all(|path| !path.contains('\n')));
    let _ = identity::uid_of(text);
}
