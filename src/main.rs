//! The `ringkeeper` binary: command line, configuration, choice of runtime, exit code.

// `host::sys` alone has leave.
#![deny(unsafe_code)]

#[cfg(not(feature = "tokio"))]
compile_error!("no runtime: build with the feature `tokio`, or `uring`, which includes it");

#[cfg(not(unix))]
compile_error!("only unix systems are supported");

mod cli;
mod host;
#[cfg(target_os = "linux")]
mod lab;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os().collect())
}
