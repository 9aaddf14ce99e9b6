#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| veer_fuzz::run("http1_request", bytes));
