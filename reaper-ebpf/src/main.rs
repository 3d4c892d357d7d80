//! reaper-ebpf
fn main() {}
