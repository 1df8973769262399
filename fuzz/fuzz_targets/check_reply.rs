//! Shim; the body is in the library.
#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ringkeeper_fuzz::check_reply(data));
#[cfg(not(fuzzing))]
fn main() {}
