//! The `ringkeeper` binary: command line, configuration, choice of runtime, exit code.

fn main() {}
