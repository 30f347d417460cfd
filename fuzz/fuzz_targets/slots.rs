#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ssh_pool_fuzz::slots::check(data));
