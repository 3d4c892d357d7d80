//! libFuzzer on [`reaper_fuzz::wire`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reaper_fuzz::wire::run(bytes));
