//! Ringkeeper side by side with nutcracker. See BENCHMARKS.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    match ringkeeper_benches::versus::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("versus: {problem}");
            ExitCode::FAILURE
        }
    }
}
