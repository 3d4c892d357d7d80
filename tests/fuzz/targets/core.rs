//! libFuzzer on [`reaper_fuzz::core`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reaper_fuzz::core::run(bytes));
