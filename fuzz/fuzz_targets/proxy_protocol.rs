#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| veer_fuzz::run("proxy_protocol", bytes));
