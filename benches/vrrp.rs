//! Times of the virtual routers, side by side with keepalived. See BENCHMARKS.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    // This program is also what runs in the namespaces.
    if arguments.next().as_deref() == Some(ringkeeper_benches::vrrp::PROBE) {
        return ringkeeper_benches::vrrp::probe(&arguments.collect::<Vec<_>>());
    }
    // Cargo says so when it benches; when it only tests all targets there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match ringkeeper_benches::vrrp::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("vrrp: {problem}");
            ExitCode::FAILURE
        }
    }
}
