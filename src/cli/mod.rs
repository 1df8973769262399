//! Command lines. The name that the program was started under decides which one is spoken.

mod check;
mod compose;
mod getopt;
#[cfg(target_os = "linux")]
mod hosts;
mod import;
#[cfg(target_os = "linux")]
mod keepalived;
#[cfg(target_os = "linux")]
mod lab;
mod load;
mod manual;
mod nutcracker;
mod ringkeeper;
mod route;
mod secrets;
mod sentinel;
mod sentinel_check;
mod status;
mod together;
mod top;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs the program; `arguments` start with its name.
pub(crate) fn main(mut arguments: Vec<OsString>) -> ExitCode {
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    let is_called = |wanted: &str| name.is_some_and(|name| name == wanted);
    if is_called("nutcracker") {
        arguments.remove(0);
        nutcracker::main(&arguments)
    } else if is_called("redis-sentinel")
        || (is_called("redis-server") && sentinel::is_wanted(&arguments))
    {
        arguments.remove(0);
        sentinel::main(&arguments)
    } else {
        #[cfg(target_os = "linux")]
        if is_called("keepalived") {
            arguments.remove(0);
            return keepalived::main(&arguments);
        } else if is_called(crate::host::guardian::NAME) {
            return crate::host::guardian::main();
        }
        ringkeeper::main(arguments)
    }
}
