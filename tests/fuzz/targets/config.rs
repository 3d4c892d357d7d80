//! libFuzzer on [`reaper_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reaper_fuzz::config::run(bytes));
