//! Failovers as clients see them, side by side with the programs that this one replaces. See
//! BENCHMARKS.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Cargo says so when it benches; when it only tests all targets there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match ringkeeper_benches::failover::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("failover: {problem}");
            ExitCode::FAILURE
        }
    }
}
