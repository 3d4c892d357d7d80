//! libFuzzer on [`reaper_fuzz::event_log`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reaper_fuzz::event_log::run(bytes));
