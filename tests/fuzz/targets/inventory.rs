//! `ringfence_fuzz::inventory` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringfence_fuzz::inventory(input));
