//! `ringfence_fuzz::policy_yaml` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringfence_fuzz::policy_yaml(input));
