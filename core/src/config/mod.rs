//! The configuration files: text to typed values, and every mistake at once with its place.
//!
//! A reader takes the whole text of a file, opens nothing and resolves nothing; the host reads the
//! file and reports what only the operating system can know, such as a name that does not resolve.

pub mod diagnostic;
pub mod failover;
pub mod keepalived;
pub mod native;
pub mod nutcracker;
pub mod render;
pub mod sentinel;
mod suggest;
mod text;
mod yaml;
