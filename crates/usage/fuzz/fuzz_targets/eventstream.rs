//! AWS's binary messages, with checksums put right.
#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::eventstream::check(input));
