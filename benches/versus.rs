//! Ringkeeper side by side with nutcracker. See BENCHMARKS.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Cargo says so when it benches; when it only tests all targets there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match ringkeeper_benches::versus::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("versus: {problem}");
            ExitCode::FAILURE
        }
    }
}
