//! Resident memory of ringkeeper and nutcracker. See BENCHMARKS.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Cargo says so when it benches; when it only tests all targets there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match ringkeeper_benches::memory::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("memory: {problem}");
            ExitCode::FAILURE
        }
    }
}
