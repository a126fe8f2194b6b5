#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dynconv_fuzz::read("layers", bytes));
