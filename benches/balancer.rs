//! Relaying TCP, side by side with HAProxy's TCP mode. See BENCHMARKS.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Cargo says so when it benches; when it only tests all targets there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match ringkeeper_benches::balancer::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("balancer: {problem}");
            ExitCode::FAILURE
        }
    }
}
