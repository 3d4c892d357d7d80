//! libFuzzer on [`reaper_fuzz::proc_files`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reaper_fuzz::proc_files::run(bytes));
