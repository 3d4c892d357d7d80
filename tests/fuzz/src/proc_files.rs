//! The files of `/proc/PID` as any text: a process writes its name, its arguments and its cgroup's path by itself.

use reaper::{idle, procfs};

/// Takes the bytes for each of the files.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    procfs::fuzzed::read(&text);
    idle::fuzzed::read(&text);
}
