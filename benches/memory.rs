//! Resident memory of ringkeeper and nutcracker. See BENCHMARKS.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    match ringkeeper_benches::memory::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("memory: {problem}");
            ExitCode::FAILURE
        }
    }
}
