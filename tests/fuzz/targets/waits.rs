//! libFuzzer on [`reaper_fuzz::waits`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reaper_fuzz::waits::run(bytes));
