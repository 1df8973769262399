//! Bytes to values and back, without state beyond one frame.

pub mod resp;
